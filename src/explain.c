/*
 * explain.c
 *		Words for a failure, in plain C.
 */
#include "explain.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

/* Bytes of the UTF-8 character at text; 0: it is none, or not whole, or a control character. */
static int
character_length(const unsigned char *text)
{
	int			length = *text < 0x80 ? 1 : *text < 0xC2 ? 0 : *text < 0xE0 ? 2 : *text < 0xF0 ? 3 : *text < 0xF5 ? 4 : 0;

	if (*text < ' ' || *text == 0x7F)
		return 0;
	for (int i = 1; i < length; i++)
		if ((text[i] & 0xC0) != 0x80)
			return 0;
	/* overlong, surrogates, beyond Unicode */
	if ((*text == 0xE0 && text[1] < 0xA0) || (*text == 0xED && text[1] > 0x9F) ||
		(*text == 0xF0 && text[1] < 0x90) || (*text == 0xF4 && text[1] > 0x8F))
		return 0;
	return length;
}

/* Words may be a stranger's: what a terminal obeys, or a database cannot store, becomes a question mark. */
static void
clean(char *words)
{
	unsigned char *c = (unsigned char *) words;

	while (*c)
	{
		int			length = character_length(c);

		if (length == 0)
			*c = isspace(*c) ? ' ' : '?';
		c += length > 0 ? length : 1;
	}
}

/* see explain.h */
bool
explain(char *err, size_t errlen, const char *format,...)
{
	va_list		args;

	if (err && errlen > 0)
	{
		va_start(args, format);
		vsnprintf(err, errlen, format, args);
		clean(err);
		va_end(args);
	}
	return false;
}
