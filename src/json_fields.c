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

/* Whether the text is deep enough to trouble the parser's stack. */
static bool
too_deep(const char *text, size_t length)
{
	int			opened = 0;

	for (size_t i = 0; i < length; i++)
		if ((text[i] == '[' || text[i] == '{') && ++opened > DEEPEST)
			return true;
	return false;
}

/*
 * Read fields by name, of the last of that name, into the current memory context.
 * Returns false where the text is not JSON, or not sane.
 */
bool
json_fields_read(const char *text, size_t length, JsonField *fields, int nfields)
{
	FieldParse	parse = {.fields = fields,.nfields = nfields};
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
	return text != NULL && length > 0 && !too_deep(text, length) &&
		pg_encoding_verifymbstr(PG_UTF8, text, length) == length &&
		pg_parse_json(compat_json_lexer(pnstrdup(text, length), length), &actions) == JSON_SUCCESS;
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
