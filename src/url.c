/*
 * url.c
 *		Percent-encoding (RFC 3986, 2.1), and the pairs of a query string or a form.
 */
#include "url.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

char *
url_decode(const char *text, size_t length, bool plus, Allocate alloc)
{
	char	   *result = alloc(length + 1);
	size_t		n = 0;

	for (size_t i = 0; i < length; i++)
	{
		if (text[i] == '%' && i + 2 < length && isxdigit((unsigned char) text[i + 1]) && isxdigit((unsigned char) text[i + 2]))
		{
			char		hex[3] = {text[i + 1], text[i + 2], '\0'};
			char		c = (char) strtol(hex, NULL, 16);

			result[n++] = c ? c : '\1';
			i += 2;
		}
		else
			result[n++] = plus && text[i] == '+' ? ' ' : text[i];
	}
	result[n] = '\0';
	return result;
}

size_t
url_encode(char *out, const char *text)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t		n = 0;

	for (; *text; text++)
	{
		unsigned char c = (unsigned char) *text;

		if ((isalnum(c) && c < 0x80) || strchr("-_.~", c))
		{
			if (out)
				out[n] = (char) c;
			n++;
			continue;
		}
		if (out)
		{
			out[n] = '%';
			out[n + 1] = digits[c >> 4];
			out[n + 2] = digits[c & 15];
		}
		n += 3;
	}
	return n;
}

bool
url_next_pair(const char **text, Allocate alloc, const char **name, const char **value)
{
	const char *begin = *text;
	const char *end;
	const char *equals;

	while (*begin == '&')
		begin++;
	if (*begin == '\0')
		return false;
	end = begin + strcspn(begin, "&");
	equals = memchr(begin, '=', end - begin);
	*name = url_decode(begin, (equals ? equals : end) - begin, true, alloc);
	*value = equals ? url_decode(equals + 1, end - equals - 1, true, alloc) : NULL;
	*text = end;
	return true;
}
