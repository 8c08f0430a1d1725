/*
 * nospace.c
 *		A full disk for tests, to be preloaded into a server: while its data directory has a file
 *		"nospace", no file under base/ grows.
 *
 * The calls that make a file longer fail with ENOSPC, as the kernel's own do: a row or a mark that
 * finds no room in its table fails, and what was there already can be written.  A server's processes
 * have its data directory as their own, so the name needs no path.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* Whether there is no room for a file to end there. */
static int
full(int file, off_t end)
{
	char		link[64];
	char		path[4096];
	struct stat status;
	ssize_t		length;

	if (access("nospace", F_OK) != 0 || fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || end <= status.st_size)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
	length = readlink(link, path, sizeof(path) - 1);
	if (length < 0)
		return 0;
	path[length] = '\0';
	return strstr(path, "/base/") != NULL;
}

static off_t
total(const struct iovec *parts, int n)
{
	off_t		sum = 0;

	for (int i = 0; i < n; i++)
		sum += parts[i].iov_len;
	return sum;
}

static ssize_t
no_space(void)
{
	errno = ENOSPC;
	return -1;
}

#define WRITER(name) \
ssize_t name(int file, const void *bytes, size_t n, off_t offset) \
{ \
	static ssize_t (*next) (int, const void *, size_t, off_t) = NULL; \
	if (next == NULL) \
		*(void **) &next = dlsym(RTLD_NEXT, #name); \
	return full(file, offset + (off_t) n) ? no_space() : next(file, bytes, n, offset); \
}
WRITER(pwrite)
WRITER(pwrite64)

#define VECTOR_WRITER(name) \
ssize_t name(int file, const struct iovec *parts, int n, off_t offset) \
{ \
	static ssize_t (*next) (int, const struct iovec *, int, off_t) = NULL; \
	if (next == NULL) \
		*(void **) &next = dlsym(RTLD_NEXT, #name); \
	return full(file, offset + total(parts, n)) ? no_space() : next(file, parts, n, offset); \
}
VECTOR_WRITER(pwritev)
VECTOR_WRITER(pwritev64)

#define ALLOCATOR(name) \
int name(int file, off_t offset, off_t n) \
{ \
	static int (*next) (int, off_t, off_t) = NULL; \
	if (next == NULL) \
		*(void **) &next = dlsym(RTLD_NEXT, #name); \
	return full(file, offset + n) ? ENOSPC : next(file, offset, n); \
}
ALLOCATOR(posix_fallocate)
ALLOCATOR(posix_fallocate64)
