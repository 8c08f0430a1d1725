/*
 * json_fields.c
 *		Scalar fields of the outermost object of a JSON text that anyone may have written.
 *
 * Nothing in it may raise an error: PostgreSQL's own JSON parser reports by
 * return code, once encoding and depth are checked.
 */
#include "msgsys.h"

#include "compat.h"
#include "json_fields.h"

#include <ctype.h>

#include "mb/pg_wchar.h"

#define DEEPEST		64

typedef struct FieldParse
{
	int			depth;
	JsonField  *fields;
	int			nfields;
	JsonField  *field;			/* the one that is being read; NULL: none of ours */
} FieldParse;

static COMPAT_JSON_ACTION
nest(void *state)
{
	((FieldParse *) state)->depth++;
	COMPAT_JSON_ACTION_RETURN;
}

static COMPAT_JSON_ACTION
unnest(void *state)
{
	((FieldParse *) state)->depth--;
	COMPAT_JSON_ACTION_RETURN;
}

static COMPAT_JSON_ACTION
field_start(void *state, char *name, bool isnull)
{
	FieldParse *parse = state;

	if (parse->depth != 1)
		COMPAT_JSON_ACTION_RETURN;
	parse->field = NULL;
	for (int i = 0; i < parse->nfields; i++)
		if (strcmp(parse->fields[i].name, name) == 0)
			parse->field = &parse->fields[i];
	if (parse->field)
		parse->field->there = true;
	COMPAT_JSON_ACTION_RETURN;
}

static COMPAT_JSON_ACTION
scalar(void *state, char *token, JsonTokenType type)
{
	FieldParse *parse = state;

	if (parse->depth != 1 || parse->field == NULL || type == JSON_TOKEN_NULL)
		COMPAT_JSON_ACTION_RETURN;
	parse->field->text = token;
	parse->field->string = type == JSON_TOKEN_STRING;
	parse->field->number = type == JSON_TOKEN_NUMBER;
	COMPAT_JSON_ACTION_RETURN;
}

/* Whether the text is deep enough to trouble the parser's stack; brackets within strings do not count. */
static bool
too_deep(const char *text, size_t length)
{
	int			depth = 0;
	bool		in_string = false;

	for (size_t i = 0; i < length; i++)
	{
		if (text[i] == '"')
			in_string = !in_string;
		else if (in_string && text[i] == '\\')
			i++;
		else if (!in_string && (text[i] == '[' || text[i] == '{') && ++depth > DEEPEST)
			return true;
		else if (!in_string && (text[i] == ']' || text[i] == '}'))
			depth--;
	}
	return false;
}

/* The number of four hexadecimal digits; -1 if they are not there. */
static int
four_digits(const char *text, size_t length)
{
	int			result = 0;

	if (length < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		uint8		digit;

		if (!isxdigit((unsigned char) text[i]))
			return -1;
		digit = text[i] <= '9' ? text[i] - '0' : (text[i] | 0x20) - 'a' + 10;
		result = result * 16 + digit;
	}
	return result;
}

/*
 * Read the escape of a character (after "\u") at text.  Returns how many bytes it takes,
 * and the character; a half of a pair alone, or a NUL, is a question mark.  0: it is none.
 */
static int
unicode_escape(const char *text, size_t length, pg_wchar * character)
{
	int			first = four_digits(text, length);
	int			second;

	if (first < 0)
		return 0;
	*character = first;
	if (first == 0 || (first >= 0xDC00 && first <= 0xDFFF))
		*character = '?';
	if (first < 0xD800 || first > 0xDBFF)
		return 4;
	second = length > 10 && text[4] == '\\' && text[5] == 'u' ? four_digits(text + 6, length - 6) : -1;
	if (second < 0xDC00 || second > 0xDFFF)
	{
		*character = '?';
		return 4;
	}
	*character = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
	return 10;
}

/*
 * The text with the characters themselves in place of their escapes.  PostgreSQL's parser
 * converts an escape into the database's encoding, with an error where that has no such character,
 * but leaves alone what is there as bytes.  Plain ASCII stays escaped: it may be a quote.
 */
static char *
unescape_unicode(const char *text, size_t *length)
{
	char	   *result = palloc(*length + 1);
	size_t		n = 0;

	for (size_t i = 0; i < *length; i++)
	{
		pg_wchar	character = 0;
		int			used = 0;

		if (text[i] == '\\' && i + 1 < *length)
		{
			if (text[i + 1] == 'u')
				used = unicode_escape(text + i + 2, *length - i - 2, &character);
			if (used > 0 && (character > 0x7F || character == '?'))
			{
				unicode_to_utf8(character, (unsigned char *) result + n);
				n += pg_utf_mblen((unsigned char *) result + n);
				i += 1 + used;
				continue;
			}
			result[n++] = text[i++];
		}
		result[n++] = text[i];
	}
	result[n] = '\0';
	*length = n;
	return result;
}

/*
 * Read fields by name, of the last of that name, into the current memory context.
 * Returns false where the text is not JSON, or not sane.
 */
bool
json_fields_read(const char *text, size_t length, JsonField *fields, int nfields)
{
	FieldParse	parse = {.fields = fields,.nfields = nfields};
	char	   *plain;
	JsonSemAction actions = {
		.semstate = &parse,
		.object_start = nest,
		.object_end = unnest,
		.array_start = nest,
		.array_end = unnest,
		.object_field_start = field_start,
		.scalar = scalar
	};

	for (int i = 0; i < nfields; i++)
	{
		fields[i].there = false;
		fields[i].text = NULL;
		fields[i].string = fields[i].number = false;
	}
	if (text == NULL || length == 0 || too_deep(text, length) ||
		pg_encoding_verifymbstr(PG_UTF8, text, length) != length)
		return false;
	plain = unescape_unicode(text, &length);
	return pg_parse_json(compat_json_lexer(plain, length), &actions) == JSON_SUCCESS;
}

/*
 * At most limit bytes of a text from outside that the database can store: what
 * is no character of its encoding is a question mark.
 */
char *
presentable(const char *text, size_t length, int limit)
{
	char	   *result = palloc(limit + 1);
	int			n = 0;

	while (length > 0)
	{
		int			l = *text == '\0' ? -1 : pg_encoding_verifymbchar(PG_UTF8, text, length);

		if (n + Max(l, 1) > limit)
			break;
		if (l < 1 || (l > 1 && GetDatabaseEncoding() != PG_UTF8))
		{
			result[n++] = '?';
			l = Max(l, 1);
		}
		else
		{
			memcpy(result + n, text, l);
			n += l;
		}
		text += l;
		length -= l;
	}
	result[n] = '\0';
	return result;
}
