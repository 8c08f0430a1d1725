/*
 * plain_file.h
 *		Reading a file that a setting names, which may be anything.  Plain C.
 */
#ifndef MSGSYS_PLAIN_FILE_H
#define MSGSYS_PLAIN_FILE_H

#include <stdbool.h>
#include <stddef.h>

/* Bundles of certificates and keys are a quarter of a megabyte; what is larger is none. */
#define PLAIN_FILE_MAX	(4 * 1024 * 1024)

/*
 * The content of a regular file, malloc'ed, with a NUL behind it; NULL, with words in
 * err, where it is another kind of file, has more than max bytes or cannot be read.
 * Never waits, whatever the path leads to.
 */
extern char *plain_file_read(const char *path, size_t max, size_t *length, char *err, size_t errlen);

#endif							/* MSGSYS_PLAIN_FILE_H */
