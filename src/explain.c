/*
 * explain.c
 *		Words for a failure, in plain C.
 */
#include "explain.h"

#include <stdarg.h>
#include <stdio.h>

/* see explain.h */
bool
explain(char *err, size_t errlen, const char *format,...)
{
	va_list		args;

	if (err && errlen > 0)
	{
		va_start(args, format);
		vsnprintf(err, errlen, format, args);
		va_end(args);
	}
	return false;
}
