/*
 * rest_error.c
 *		Failures of a request, as PostgREST tells them.
 *
 * A refusal of ours is an ERROR whose SQLSTATE says that its words are here; every
 * other ERROR is PostgreSQL's, and its SQLSTATE says which status it gets.
 */
#include "msgsys.h"

#include "rest_error.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#define REFUSED		MAKE_SQLSTATE('P', 'G', 'R', 'S', 'T')

/* The refusal that is under way. */
static struct
{
	bool		set;
	int			status;
	char		code[16];
	const char *message;		/* in memory of the transaction, or of the call */
	const char *details;
	const char *hint;
	HttpField	fields[4];
	int			nfields;
}			refusal;

void
rest_error_reset(void)
{
	refusal.set = false;
	refusal.nfields = 0;
}

/* A text in the current memory; NULL stays so. */
static const char *
kept(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

void
rest_error_keep(void)
{
	if (!refusal.set)
		return;
	refusal.message = kept(refusal.message);
	refusal.details = kept(refusal.details);
	refusal.hint = kept(refusal.hint);
	for (int i = 0; i < refusal.nfields; i++)
		refusal.fields[i].value = pstrdup(refusal.fields[i].value);
}

void
rest_refuse_field(const char *name, const char *value)
{
	if (refusal.nfields < lengthof(refusal.fields))
		refusal.fields[refusal.nfields++] = (HttpField)
	{
		name, value
	};
}

void
rest_refuse(int status, const char *code, const char *message, const char *details, const char *hint)
{
	refusal.set = true;
	refusal.status = status;
	strlcpy(refusal.code, code, sizeof(refusal.code));
	refusal.message = message;
	refusal.details = details;
	refusal.hint = hint;
	ereport(ERROR, (errcode(REFUSED), errmsg_internal("%s", message)));
}

/* ---------------------------------------------------------------- status */

static bool
ends_with(const char *text, const char *end)
{
	size_t		length = strlen(text);

	return length >= strlen(end) && strcmp(text + length - strlen(end), end) == 0;
}

/*
 * The status of a SQLSTATE.  It is PostgREST's, but where that blames the server (500) for what the
 * client has done, or for what is over when it tries again.
 */
static int
status_of(const char *state, const char *message, bool authenticated)
{
	static const struct
	{
		const char *prefix;
		int			status;
	}			statuses[] = {
		/* not PostgREST's */
		{"21000", 400},			/* the same row twice in an upsert */
		{"40001", 503},			/* serialization failure */
		{"40P01", 503},			/* deadlock */
		{"54000", 413},			/* a message that is too large */
		{"54", 400},
		{"55P03", 503},			/* lock timeout */
		{"55", 409},			/* object in use, not in the state for that */
		{"57014", 503},			/* statement timeout */
		{"P0002", 404},			/* no such message */

		/* PostgREST's */
		{"08", 503},
		{"09", 500},
		{"0L", 403},
		{"0P", 403},
		{"23503", 409},
		{"23505", 409},
		{"25006", 405},
		{"25", 500},
		{"28", 403},
		{"2D", 500},
		{"38", 500},
		{"39", 500},
		{"3B", 500},
		{"40", 500},
		{"42883", 404},
		{"42P01", 404},
		{"42P17", 500},
		{"53400", 500},
		{"53", 503},
		{"57P01", 503},
		{"57", 500},
		{"58", 500},
		{"F0", 500},
		{"HV", 500},
		{"P0001", 400},
		{"P0", 500},
		{"XX", 500},
	};

	if (strcmp(state, "42501") == 0)
		return authenticated ? 403 : 401;
	if (strcmp(state, "22023") == 0)
		return strncmp(message, "role", 4) == 0 && ends_with(message, "does not exist") ? 401 : 400;
	if (strncmp(state, "PT", 2) == 0)
		return strspn(state + 2, "0123456789") == 3 && atoi(state + 2) >= 200 ? Min(atoi(state + 2), 599) : 500;
	for (int i = 0; i < lengthof(statuses); i++)
		if (strncmp(state, statuses[i].prefix, strlen(statuses[i].prefix)) == 0)
			return statuses[i].status;
	return 400;
}

static int
error_status(const Call *call, const ErrorData *error)
{
	/* a standby takes no changes, whatever the method; a function by GET may change nothing on any server */
	if (error->sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION && RecoveryInProgress() &&
		!(call->method <= METHOD_HEAD && strncmp(call->path, "/rpc/", 5) == 0))
		return 503;
	return status_of(unpack_sql_state(error->sqlerrcode), error->message ? error->message : "", call->authenticated);
}

bool
rest_error_blames_server(const Call *call, const ErrorData *error)
{
	return error->sqlerrcode != REFUSED && error_status(call, error) == 500;
}

/* ---------------------------------------------------------------- replies */

static void
add_member(StringInfo body, const char *name, const char *value)
{
	appendStringInfo(body, "%s\"%s\":", body->len > 1 ? "," : "", name);
	if (value)
		escape_json(body, value);
	else
		appendStringInfoString(body, "null");
}

void
rest_reply(Call *call, int status, const char *code, const char *message, const char *details, const char *hint)
{
	call->status = status;
	call->failure = pstrdup(message);
	resetStringInfo(&call->body);
	appendStringInfoChar(&call->body, '{');
	add_member(&call->body, "code", code);
	add_member(&call->body, "message", message);
	add_member(&call->body, "details", details);
	add_member(&call->body, "hint", hint);
	appendStringInfoChar(&call->body, '}');
	call_reply_field(call, "Content-Type", "application/json; charset=utf-8");
	call_reply_field(call, "Proxy-Status", psprintf("PostgREST; error=%s", code));
	if (status == 503)
		call_reply_field(call, "Retry-After", "1");
}

/* A member of a JSON object as text; NULL: there is none. */
static char *
member(Jsonb *object, const char *name)
{
	JsonbValue	buffer;
	JsonbValue *value = JB_ROOT_IS_OBJECT(object) ? getKeyJsonValueFromContainer(&object->root, name, strlen(name), &buffer) : NULL;

	if (value == NULL || value->type == jbvNull)
		return NULL;
	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	return JsonbToCString(NULL, &JsonbValueToJsonb(value)->root, 0);
}

Jsonb *
rest_try_json(const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	uint32		holdoff = InterruptHoldoffCount;
	Jsonb	   *volatile result = NULL;

	if (text == NULL)
		return NULL;
	PG_TRY();
	{
		result = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	}
	PG_CATCH();
	{
		int			class = ERRCODE_TO_CATEGORY(geterrcode());

		/* a cancel, or no memory, is not the text's fault */
		if (class != ERRCODE_DATA_EXCEPTION && class != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		/* an error sets it to 0, but who called us goes on, and takes back what he held */
		InterruptHoldoffCount = holdoff;
	}
	PG_END_TRY();
	return result;
}

bool
rest_reply_fields(Call *call, JsonbContainer *object)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = MemoryContextStrdup(call->context, pnstrdup(value.val.string.val, value.val.string.len));
		if (token != WJB_VALUE)
			continue;
		if (value.type != jbvString)
			return false;
		if (*name && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == strlen(name))
			call_reply_field(call, name, pnstrdup(value.val.string.val, value.val.string.len));
	}
	return true;
}

/* An error of RAISE sqlstate 'PGRST' itself: one of its two texts is not what it should be. */
static void
reply_misraised(Call *call, const char *option, const char *text, const char *keys)
{
	rest_reply(call, 500, "PGRST121", "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error",
			   text ? psprintf("Invalid JSON value for %s: '%s'", option, text) : psprintf("%s is missing in the RAISE statement", option),
			   psprintf("%s must be a JSON object with obligatory keys: %s.", option, keys));
}

/* RAISE sqlstate 'PGRST': message and detail are JSON that says what to answer. */
static void
reply_as_told(Call *call, const ErrorData *error)
{
	Jsonb	   *message = rest_try_json(error->message);
	Jsonb	   *detail = rest_try_json(error->detail);
	char	   *code = message ? member(message, "code") : NULL;
	char	   *text = message ? member(message, "message") : NULL;
	char	   *status = detail ? member(detail, "status") : NULL;
	JsonbValue	buffer;
	JsonbValue *headers = detail && JB_ROOT_IS_OBJECT(detail) ? getKeyJsonValueFromContainer(&detail->root, "headers", 7, &buffer) : NULL;

	if (code == NULL || text == NULL)
		reply_misraised(call, "MESSAGE", error->message, "'code', 'message' and optional keys: 'details', 'hint'");
	else if (status == NULL || atoi(status) < 200 || atoi(status) > 599 ||
			 headers == NULL || headers->type != jbvBinary || !JsonContainerIsObject(headers->val.binary.data))
		reply_misraised(call, "DETAIL", error->detail, "'status', 'headers' and optional key: 'status_text'");
	else
	{
		rest_reply(call, atoi(status), code, text, member(message, "details"), member(message, "hint"));
		rest_reply_fields(call, headers->val.binary.data);
	}
}

void
rest_error_reply(Call *call, const ErrorData *error)
{
	call->nfields = 0;
	if (refusal.set)
	{
		rest_reply(call, refusal.status, refusal.code, refusal.message, refusal.details, refusal.hint);
		for (int i = 0; i < refusal.nfields; i++)
			call_reply_field(call, refusal.fields[i].name, refusal.fields[i].value);
	}
	else if (error->sqlerrcode == REFUSED)
		reply_as_told(call, error);
	else
	{
		rest_reply(call, error_status(call, error), unpack_sql_state(error->sqlerrcode), error->message, error->detail, error->hint);
		if (call->status == 401)
			call_reply_field(call, "WWW-Authenticate", "Bearer");
	}
	rest_error_reset();
}
