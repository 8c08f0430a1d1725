/*
 * rest_body.c
 *		The body of a request: JSON or a form, and the names in it.
 */
#include "msgsys.h"

#include <ctype.h>

#include "rest_body.h"
#include "rest_error.h"
#include "rest_request.h"
#include "url.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

pg_noreturn static void
refuse_body(const char *message, const char *hint)
{
	rest_refuse(400, "PGRST102", message, NULL, hint);
}

/* Whether a body is an object or an array by its looks, whatever its Content-Type says. */
static bool
looks_like_json(const char *text)
{
	text += strspn(text, " \t\r\n");
	return *text == '{' || *text == '[';
}

/* The same of a form. */
static bool
looks_like_form(const char *text)
{
	size_t		length = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.%+");

	return length > 0 && text[length] == '=';
}

#define HINT_JSON	"The body looks like JSON: send it with the header \"Content-Type: application/json\"."
#define HINT_FORM	"The body looks like a form: send it with the header \"Content-Type: application/x-www-form-urlencoded\"; without one it is taken for JSON."
#define HINT_TYPES	"Bodies are of the type application/json or application/x-www-form-urlencoded."

/* Whether an error says that a text is no JSON, rather than that something else went wrong. */
static bool
is_syntax(int sqlstate)
{
	return sqlstate == ERRCODE_INVALID_TEXT_REPRESENTATION;
}

#define EXPONENT_MAX	200000	/* above any that a numeric has: what goes on is not counted */

/* see rest_body.h */
void
rest_body_check_numbers(const char *text)
{
	int64		most = setting_http_max_body * INT64CONST(1024);
	int64		digits = 0;
	bool		string = false;

	for (const char *c = text; *c; c++)
	{
		int			exponent = 0;

		if (*c == '"')
			string = !string;
		else if (string && *c == '\\' && c[1])
			c++;
		if (string || (*c != 'e' && *c != 'E') || c == text || !(isdigit((unsigned char) c[-1]) || c[-1] == '.'))
			continue;
		if (c[1] == '+' || c[1] == '-')
			c++;
		for (; isdigit((unsigned char) c[1]); c++)
			exponent = Min(exponent * 10 + (c[1] - '0'), EXPONENT_MAX);
		digits += exponent;
		if (digits > most)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("the numbers of the body have more digits than msgsys.http_max_body allows bytes"),
					 errdetail("That is %d kB.", setting_http_max_body)));
	}
}

static Jsonb *
parse_json(const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	Jsonb	   *volatile json = NULL;

	rest_body_check_numbers(text);
	PG_TRY();
	{
		json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	}
	PG_CATCH();
	{
		if (!is_syntax(geterrcode()))
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	if (json == NULL)
		refuse_body("Empty or invalid json", looks_like_form(text) ? HINT_FORM : NULL);
	return json;
}

/* A text that was decoded may be no text any more, as the body was. */
static const char *
verified(const char *text)
{
	pg_verify_mbstr(PG_UTF8, text, strlen(text), false);
	return text;
}

/* A form as an object of strings. */
static Jsonb *
parse_form(const char *text)
{
	JsonbParseState *state = NULL;
	JsonbValue	value;
	const char *name;
	const char *word;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	while (url_next_pair(&text, palloc, &name, &word))
	{
		value.type = jbvString;
		value.val.string.val = (char *) verified(name);
		value.val.string.len = strlen(name);
		pushJsonbValue(&state, WJB_KEY, &value);
		value.val.string.val = (char *) verified(word ? word : "");
		value.val.string.len = word ? strlen(word) : 0;
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* The names of an object, sorted as jsonb has them. */
static List *
names_of(JsonbContainer *object)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;
	List	   *names = NIL;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		if (token == WJB_KEY)
			names = lappend(names, pnstrdup(value.val.string.val, value.val.string.len));
	return names;
}

/* Whether an object has these names and no others; without a copy, for there may be many. */
static bool
same_names(JsonbContainer *object, List *names)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			n = 0;

	if (JsonContainerSize(object) != list_length(names))
		return false;
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		if (token == WJB_KEY)
		{
			const char *name = list_nth(names, n++);

			if (strlen(name) != value.val.string.len || memcmp(name, value.val.string.val, value.val.string.len) != 0)
				return false;
		}
	return true;
}

static void
read_array(RestBody *body, bool any_names)
{
	JsonbIterator *iterator = JsonbIteratorInit(&body->json->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (value.type != jbvBinary || !JsonContainerIsObject(value.val.binary.data))
			refuse_body("All object keys must match", NULL);
		if (body->nrows++ == 0 && !any_names)
			body->names = names_of(value.val.binary.data);
		else if (!any_names && !same_names(value.val.binary.data, body->names))
			refuse_body("All object keys must match", NULL);
	}
}

void
rest_body(const Call *call, bool any_names, bool empty_object, RestBody *body)
{
	const char *type = rest_content_type(call);
	const char *text = call->http->body;

	memset(body, 0, sizeof(RestBody));
	if (strcmp(type, "application/json") == 0 || strcmp(type, "application/vnd.pgrst.array+json") == 0)
	{
		if (strlen(text) != call->http->body_length)
			refuse_body("Empty or invalid json", NULL);
		body->json = parse_json(*text == '\0' && empty_object ? "{}" : text);
	}
	else if (strcmp(type, "application/x-www-form-urlencoded") == 0)
	{
		/* what curl -d calls everything: all of it would be the name of a column */
		if (looks_like_json(text))
			refuse_body("The body is no form, as its Content-Type says", HINT_JSON);
		body->json = parse_form(text);
	}
	else
		refuse_body(psprintf("Content-Type not acceptable: %s", type), looks_like_json(text) ? HINT_JSON : HINT_TYPES);

	if (JB_ROOT_IS_OBJECT(body->json))
	{
		body->nrows = 1;
		body->names = names_of(&body->json->root);
		return;
	}
	body->array = true;
	if (JB_ROOT_IS_SCALAR(body->json) && any_names)
		refuse_body("All object keys must match", NULL);
	if (JB_ROOT_IS_SCALAR(body->json))
		body->json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("[]")));
	read_array(body, any_names);
}
