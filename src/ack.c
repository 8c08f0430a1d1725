/*
 * ack.c
 *		Reading what a consumer writes to the acknowledgement topic:
 *		{"id": "<ce_id>", "status": "received" | "delivered" | "failed",
 *		 "attempt": <msgsys-attempt>, "error": "..."}
 *
 * Anyone may write there, so nothing in it may raise an error: PostgreSQL's own
 * JSON parser reports by return code, once encoding and depth are checked.
 */
#include "msgsys.h"

#include "ack.h"
#include "compat.h"
#include "record.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#define LONGEST_ACK		65536
#define DEEPEST_ACK		64

typedef struct AckParse
{
	int			depth;
	char	   *field;			/* of the outermost object */
	char	   *id;
	char	   *status;
	char	   *error;
	char	   *attempt;
	bool		attempt_is_number;
} AckParse;

static COMPAT_JSON_ACTION
nest(void *state)
{
	((AckParse *) state)->depth++;
	COMPAT_JSON_ACTION_RETURN;
}

static COMPAT_JSON_ACTION
unnest(void *state)
{
	((AckParse *) state)->depth--;
	COMPAT_JSON_ACTION_RETURN;
}

static COMPAT_JSON_ACTION
field_start(void *state, char *name, bool isnull)
{
	AckParse   *parse = state;

	if (parse->depth == 1)
		parse->field = name;
	COMPAT_JSON_ACTION_RETURN;
}

static COMPAT_JSON_ACTION
scalar(void *state, char *token, JsonTokenType type)
{
	AckParse   *parse = state;

	if (parse->depth != 1 || parse->field == NULL)
		COMPAT_JSON_ACTION_RETURN;
	if (strcmp(parse->field, "id") == 0 && type == JSON_TOKEN_STRING)
		parse->id = token;
	else if (strcmp(parse->field, "status") == 0 && type == JSON_TOKEN_STRING)
		parse->status = token;
	else if (strcmp(parse->field, "error") == 0 && type == JSON_TOKEN_STRING)
		parse->error = token;
	else if (strcmp(parse->field, "attempt") == 0)
	{
		parse->attempt = token;
		parse->attempt_is_number = type == JSON_TOKEN_NUMBER || type == JSON_TOKEN_STRING;
	}
	COMPAT_JSON_ACTION_RETURN;
}

/* The outcome of this name. */
bool
ack_outcome(const char *name, AckOutcome *outcome)
{
	static const char *const names[] = {
		[ACK_RECEIVED] = "received",
		[ACK_DELIVERED] = "delivered",
		[ACK_FAILED] = "failed"
	};

	for (int i = 0; i < lengthof(names); i++)
		if (strcmp(name, names[i]) == 0)
		{
			*outcome = i;
			return true;
		}
	return false;
}

/* Whether the text is deep enough to trouble the parser's stack. */
static bool
too_deep(const char *text, size_t length)
{
	int			opened = 0;

	for (size_t i = 0; i < length; i++)
		if ((text[i] == '[' || text[i] == '{') && ++opened > DEEPEST_ACK)
			return true;
	return false;
}

/* A text that any database encoding can hold, at most 1000 bytes. */
static char *
presentable(char *text)
{
	if (GetDatabaseEncoding() != PG_UTF8)
		for (char *c = text; *c; c++)
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
	text[pg_mbcliplen(text, strlen(text), 1000)] = '\0';
	return text;
}

/*
 * Read an acknowledgement.  The error's text is in the current memory context.
 */
AckReading
ack_parse(const char *text, size_t length, Ack *ack)
{
	AckParse	parse = {0};
	JsonSemAction actions = {
		.semstate = &parse,
		.object_start = nest,
		.object_end = unnest,
		.array_start = nest,
		.array_end = unnest,
		.object_field_start = field_start,
		.scalar = scalar
	};

	if (text == NULL || length == 0 || length > LONGEST_ACK || too_deep(text, length) ||
		pg_encoding_verifymbstr(PG_UTF8, text, length) != length)
		return ACK_UNREADABLE;
	if (pg_parse_json(compat_json_lexer(pnstrdup(text, length), length), &actions) != JSON_SUCCESS ||
		parse.id == NULL || parse.status == NULL)
		return ACK_UNREADABLE;
	if (!message_name_parse(parse.id, strlen(parse.id), &ack->id))
		return strchr(parse.id, ':') ? ACK_NOT_OURS : ACK_UNREADABLE;
	if (!ack_outcome(parse.status, &ack->outcome))
		return ACK_UNREADABLE;
	ack->attempt = 0;
	if (parse.attempt)
	{
		char	   *end;
		long		attempt = strtol(parse.attempt, &end, 10);

		if (!parse.attempt_is_number || *end != '\0' || attempt < 0 || attempt > PG_INT32_MAX)
			return ACK_UNREADABLE;
		ack->attempt = (int) attempt;
	}
	ack->error = parse.error ? presentable(parse.error) : NULL;
	return ACK_READ;
}
