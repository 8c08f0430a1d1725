/*
 * url.c
 *		Fuzzes percent-encoding and the pairs of a query string or a form (src/url.c).
 *
 * What was encoded decodes to what it was, in both ways; pairs that are written out again are
 * read as the same pairs; memory is bounded by the length of the text.
 */
#include "url.h"

#include "arena.h"
#include "fuzz.h"

extern int	fuzz_url(const uint8_t *data, size_t size);

static char *
encoded(const char *text)
{
	size_t		length = url_encode(NULL, text);
	char	   *result = arena_alloc(length + 1);

	PROPERTY(url_encode(result, text) == length);
	result[length] = '\0';
	PROPERTY(strlen(result) == length);
	return result;
}

/* Read pairs, and read what they are written as, side by side. */
static void
check_pairs(const char *text)
{
	size_t		room = 3 * strlen(text) + 2;
	char	   *again = arena_alloc(3 * room);
	char	   *end = again;
	const char *at = text;
	const char *name;
	const char *value;
	int			n = 0;

	while (url_next_pair(&at, arena_alloc, &name, &value))
	{
		PROPERTY(name != NULL && at > text && at <= text + strlen(text));
		end += sprintf(end, "%s%s%s%s", n++ > 0 ? "&" : "", encoded(name), value ? "=" : "", value ? encoded(value) : "");
	}
	*end = '\0';
	at = text;
	for (const char *second = again; n > 0; n--)
	{
		const char *name2;
		const char *value2;

		PROPERTY(url_next_pair(&at, arena_alloc, &name, &value));
		PROPERTY(url_next_pair(&second, arena_alloc, &name2, &value2));
		PROPERTY(strcmp(name, name2) == 0 && (value != NULL) == (value2 != NULL));
		PROPERTY(value == NULL || strcmp(value, value2) == 0);
	}
}

int
fuzz_url(const uint8_t *data, size_t size)
{
	char	   *text = fuzz_copy(data, size);
	size_t		length = strlen(text);
	char	   *code = encoded(text);

	PROPERTY(strcmp(url_decode(code, strlen(code), false, arena_alloc), text) == 0);
	PROPERTY(strcmp(url_decode(code, strlen(code), true, arena_alloc), text) == 0);
	PROPERTY(strlen(url_decode(text, length, false, arena_alloc)) <= length);
	/* what is decoded has no NUL, wherever %00 stood */
	for (size_t i = 0; i < length; i++)
		(void) url_decode(text + i, length - i > 4 ? 4 : length - i, i % 2, arena_alloc);
	check_pairs(text);
	PROPERTY(arena_size <= 64 * length + 256);
	arena_reset();
	free(text);
	return 0;
}
