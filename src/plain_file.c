/*
 * plain_file.c
 *		Reading a file that a setting names (plain_file.h).
 *
 * A FIFO, a terminal or /proc/self/fd/3 would hold a worker for ever, and a system call that a
 * library makes in its depth looks at no interrupts: so files are opened here, without waiting,
 * and libraries get their content.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* O_CLOEXEC */
#endif

#include "plain_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "explain.h"

/* Read what an open file has, up to its size. */
static char *
read_open(int fd, size_t size, size_t *length)
{
	char	   *data = malloc(size + 1);
	size_t		n = 0;
	ssize_t		got = 1;

	while (data && n < size && (got = read(fd, data + n, size - n)) != 0)
	{
		if (got > 0)
			n += (size_t) got;
		else if (errno != EINTR)
		{
			free(data);
			return NULL;
		}
	}
	if (data)
		data[n] = '\0';
	*length = n;
	return data;
}

/* see plain_file.h */
char *
plain_file_read(const char *path, size_t max, size_t *length, char *err, size_t errlen)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;
	char	   *data = NULL;

	if (fd < 0 || fstat(fd, &status) != 0)
		explain(err, errlen, "could not open \"%s\": %s", path, strerror(errno));
	else if (!S_ISREG(status.st_mode))
		explain(err, errlen, "\"%s\" is not a regular file", path);
	else if (status.st_size < 0 || (size_t) status.st_size > max)
		explain(err, errlen, "\"%s\" is larger than %zu bytes", path, max);
	else
	{
		data = read_open(fd, (size_t) status.st_size, length);
		if (data == NULL)
			explain(err, errlen, "could not read \"%s\": %s", path, strerror(errno));
	}
	if (fd >= 0)
		close(fd);
	return data;
}
