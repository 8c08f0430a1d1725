/*
 * http_files.c
 *		The pages that are installed with the extension, as replies.
 *
 * They are files of msgsys.http_files, or else of the directory "msgsys" beside PostgreSQL's shared files.
 * A name has no part that could lead out of there.  What was read is kept until the file changes; a
 * file NAME.gz beside NAME is sent to those who take it.
 */
#include "msgsys.h"

#include "http_files.h"
#include "plain_file.h"
#include "rest_error.h"

#include <sys/stat.h>

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#define FILE_MAX	(4 * 1024 * 1024)	/* bytes; the largest page has 1.4 MB */
#define FILES_MAX	32			/* kept at a time */

/* Nothing from elsewhere, nothing inline, in no frame of others.  Swagger UI writes styles into its elements. */
#define POLICY \
	"default-src 'none'; script-src 'self'; style-src 'self'%s; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

typedef struct KeptFile
{
	char		path[MAXPGPATH];
	time_t		changed;
	char	   *data;
	size_t		length;
	char		etag[24];
} KeptFile;

static KeptFile files[FILES_MAX];
static int	nfiles = 0;
static unsigned int next_victim = 0;

static const char *
media_type(const char *name)
{
	static const char *const types[][2] = {
		{".html", "text/html; charset=utf-8"},
		{".js", "text/javascript; charset=utf-8"},
		{".css", "text/css; charset=utf-8"},
		{".json", "application/json; charset=utf-8"},
		{".svg", "image/svg+xml"},
		{".png", "image/png"},
		{".ico", "image/x-icon"},
		{".woff2", "font/woff2"},
		{".txt", "text/plain; charset=utf-8"},
	};
	const char *dot = strrchr(name, '.');

	for (int i = 0; dot && i < lengthof(types); i++)
		if (strcmp(dot, types[i][0]) == 0)
			return types[i][1];
	return NULL;
}

/* Whether a name consists of parts that begin with a letter, a digit or _, and are made of those, dots and hyphens. */
static bool
is_plain(const char *name)
{
	bool		begins = true;

	for (; *name; name++)
	{
		bool		inner = *name == '.' || *name == '-';
		bool		word = (*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') || (*name >= '0' && *name <= '9') || *name == '_';

		if (begins ? !word : !(word || inner || *name == '/'))
			return false;
		begins = *name == '/';
	}
	return !begins;
}

static bool
read_whole(KeptFile *kept, const struct stat *status)
{
	char	   *data = plain_file_read(kept->path, FILE_MAX, &kept->length, NULL, 0);

	if (data == NULL)
		return false;
	kept->data = data;
	kept->changed = status->st_mtime;
	snprintf(kept->etag, sizeof(kept->etag), "\"" UINT64_FORMAT "\"",
			 DatumGetUInt64(hash_any_extended((unsigned char *) kept->data, (int) kept->length, 0)));
	return true;
}

/* A file, from those that are kept or from the disk; NULL: there is none. */
static const KeptFile *
find_file(const char *path)
{
	KeptFile   *kept = NULL;
	struct stat status;

	if (stat(path, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > FILE_MAX)
		return NULL;
	for (int i = 0; i < nfiles; i++)
		if (strcmp(files[i].path, path) == 0)
			kept = &files[i];
	if (kept && kept->changed == status.st_mtime && kept->length == (size_t) status.st_size)
		return kept;
	if (kept == NULL)
		kept = nfiles < FILES_MAX ? &files[nfiles++] : &files[next_victim++ % FILES_MAX];
	if (kept->data)
		free(kept->data);
	memset(kept, 0, sizeof(KeptFile));
	strlcpy(kept->path, path, MAXPGPATH);
	if (read_whole(kept, &status))
		return kept;
	kept->path[0] = '\0';
	return NULL;
}

/* Where the pages are. */
static void
pages_directory(char *path)
{
	char		share[MAXPGPATH];

	if (setting_http_files[0] != '\0')
	{
		strlcpy(path, setting_http_files, MAXPGPATH);
		return;
	}
	get_share_path(my_exec_path, share);
	snprintf(path, MAXPGPATH, "%s/%s", share, MSGSYS_NAME);
}

void
http_files_answer(Call *call, const char *directory, const char *name)
{
	char		root[MAXPGPATH];
	char		path[MAXPGPATH];
	const char *type;
	const char *encodings = call_field(call, "accept-encoding");
	const char *known = call_field(call, "if-none-match");
	const KeptFile *file = NULL;
	bool		zipped = encodings && strstr(encodings, "gzip");

	if (*name == '\0')
		name = "index.html";
	type = media_type(name);
	pages_directory(root);
	if (type && is_plain(name) && snprintf(path, sizeof(path), "%s/%s/%s.gz", root, directory, name) < (int) sizeof(path))
	{
		file = zipped ? find_file(path) : NULL;
		zipped = file != NULL;
		path[strlen(path) - strlen(".gz")] = '\0';
		if (file == NULL)
			file = find_file(path);
	}
	if (file == NULL)
		rest_refuse(404, "PGRST125", "Invalid path specified in request URL", psprintf("There is no page \"%s/%s\".", directory, name), NULL);
	call->status = known && strstr(known, file->etag) ? 304 : 200;
	call_reply_field(call, "ETag", file->etag);
	call_reply_field(call, "Cache-Control", "no-cache");
	call_reply_field(call, "Vary", "Accept-Encoding");
	call_reply_field(call, "Content-Security-Policy", psprintf(POLICY, strcmp(directory, "docs") == 0 ? " 'unsafe-inline'" : ""));
	call_reply_field(call, "X-Content-Type-Options", "nosniff");
	call_reply_field(call, "Referrer-Policy", "no-referrer");
	if (call->status == 304)
		return;
	call_reply_field(call, "Content-Type", type);
	if (zipped)
		call_reply_field(call, "Content-Encoding", "gzip");
	appendBinaryStringInfo(&call->body, file->data, (int) file->length);
}
