/*
 * explain.h
 *		Words for a failure, in plain C.
 */
#ifndef MSGSYS_EXPLAIN_H
#define MSGSYS_EXPLAIN_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Write words into err, of errlen bytes, where there is room for any; whoever said them, they
 * are UTF-8 without control characters.  Returns false, so that "return explain(...)" is a failure.
 */
extern bool explain(char *err, size_t errlen, const char *format,...)
			__attribute__((format(printf, 3, 4)));

#endif							/* MSGSYS_EXPLAIN_H */
