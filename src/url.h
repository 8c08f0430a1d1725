/*
 * url.h
 *		Percent-encoding, and the pairs of a query string or a form.
 *
 * Plain C; memory comes from the caller's allocator, which does not return without.
 */
#ifndef MSGSYS_URL_H
#define MSGSYS_URL_H

#include <stdbool.h>
#include <stddef.h>

typedef void *(*Allocate) (size_t size);

/* Decode %XX (and + to a blank, where wanted) of length bytes.  A NUL is no character of any value: it becomes \1. */
extern char *url_decode(const char *text, size_t length, bool plus, Allocate alloc);

/* Write text to out, all but letters, digits and -_.~ as %XX, no NUL behind it; out NULL only measures.  Returns the length. */
extern size_t url_encode(char *out, const char *text);

/*
 * The next name and value of a query string or a form, decoded; *value is NULL where there is no "=".  *text moves on;
 * false at the end.
 */
extern bool url_next_pair(const char **text, Allocate alloc, const char **name, const char **value);

#endif							/* MSGSYS_URL_H */
