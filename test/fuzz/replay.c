/*
 * replay.c
 *		Runs a target over the files of its corpus, without a fuzzer.
 */
#include "fuzz.h"

#include <dirent.h>

static uint8_t *
read_input(const char *path, size_t *size)
{
	FILE	   *file = fopen(path, "rb");
	uint8_t    *data = NULL;
	long		length;

	if (file && fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0)
	{
		data = (malloc) ((size_t) length + (length == 0));
		*size = data ? fread(data, 1, (size_t) length, file) : 0;
	}
	if (file)
		fclose(file);
	return data;
}

int
fuzz_replay(const char *name, const char *folder, FuzzTarget target)
{
	DIR		   *dir = opendir(folder);
	struct dirent *entry;
	int			n = 0;

	while (dir && (entry = readdir(dir)) != NULL)
	{
		char		path[4096];
		uint8_t    *data;
		size_t		size = 0;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		dprintf(2, "%s\n", path);
		data = read_input(path, &size);
		if (data == NULL)
			abort();
		target(data, size);
		(free) (data);
		n++;
	}
	if (dir)
		closedir(dir);
	dprintf(2, "replayed %s: %d inputs\n", name, n);
	return n;
}
