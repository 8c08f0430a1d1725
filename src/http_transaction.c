/*
 * http_transaction.c
 *		A call in the database: a transaction of its own, under the role of who asks.
 */
#include "msgsys.h"

#include "http_auth.h"
#include "http_transaction.h"
#include "rest_error.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/prepare.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

/* ---------------------------------------------------------------- who asks */

static void
set_local(const char *name, const char *value)
{
	set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/* The request's header as a JSON object, names in lower case, without cookies. */
static char *
headers_json(const Call *call)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	for (int i = 0; i < call->http->nfields; i++)
	{
		const HttpField *field = &call->http->fields[i];
		char	   *name = asc_tolower(field->name, strlen(field->name));

		if (strcmp(name, "cookie") == 0 || !pg_verify_mbstr(PG_UTF8, field->value, strlen(field->value), true) ||
			!pg_verify_mbstr(PG_UTF8, name, strlen(name), true))
			continue;
		if (json.len > 1)
			appendStringInfoChar(&json, ',');
		escape_json(&json, name);
		appendStringInfoChar(&json, ':');
		escape_json(&json, field->value);
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}

/* The request's cookies as a JSON object. */
static char *
cookies_json(const Call *call)
{
	const char *field = call_field(call, "cookie");
	char	   *next = field && pg_verify_mbstr(PG_UTF8, field, strlen(field), true) ? pstrdup(field) : NULL;
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	while (next)
	{
		char	   *text = next + strspn(next, " \t");
		char	   *equals;

		next = strchr(text, ';');
		if (next)
			*next++ = '\0';
		equals = strchr(text, '=');
		if (equals == NULL)
			continue;
		*equals = '\0';
		if (json.len > 1)
			appendStringInfoChar(&json, ',');
		escape_json(&json, text);
		appendStringInfoChar(&json, ':');
		escape_json(&json, equals + 1);
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}

/* Become the role, and let the database know of the request what PostgREST would. */
static void
become(const Call *call)
{
	/* it would be the login role */
	if (strcmp(call->role, "none") == 0)
		rest_refuse(401, "22023", "role \"none\" does not exist", NULL, NULL);
	set_local("role", call->role);
	/* a token is no way to rights that bypass all others */
	if (superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" is a superuser and cannot be used by HTTP", call->role)));
	set_local("request.jwt.claims", call->claims);
	set_local("request.method", call->http->method);
	set_local("request.path", call->path);
	set_local("request.headers", headers_json(call));
	set_local("request.cookies", cookies_json(call));

	/* a role is chosen once: the login role may become any caller's, and what a caller runs must not */
	SetUserIdAndSecContext(GetUserId(), SECURITY_LOCAL_USERID_CHANGE);
}

/* ---------------------------------------------------------------- transactions */

/*
 * A function may catch the cancel of a statement timeout, and go on for ever.  It has
 * this long to come to an end then; what ends the worker cannot be caught.
 */
#define OVERTIME	1000		/* ms */

static TimeoutId overtime = MAX_TIMEOUTS;

/* Signal handler: end the worker. */
static void
end_overtime(void)
{
	InterruptPending = true;
	ProcDiePending = true;
	SetLatch(MyLatch);
}

/* Tell why the worker ends, which PostgreSQL takes for an administrator's command. */
static void
explain_overtime(int code, Datum arg)
{
	if (overtime != MAX_TIMEOUTS && get_timeout_indicator(overtime, false))
		ereport(LOG,
				(errmsg("msgsys ends an HTTP worker whose request caught the statement timeout and went on"),
				 errhint("A function that catches query_canceled must come to an end within a second.")));
}

static void
register_overtime(void)
{
	if (overtime != MAX_TIMEOUTS)
		return;
	overtime = RegisterTimeout(USER_TIMEOUT, end_overtime);
	before_shmem_exit(explain_overtime, (Datum) 0);
}

void
http_begin(int timeout)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (timeout > 0)
	{
		register_overtime();
		enable_timeout_after(STATEMENT_TIMEOUT, timeout);
		enable_timeout_after(overtime, Min(timeout, INT_MAX - OVERTIME) + OVERTIME);
	}
}

void
http_end(bool rollback)
{
	SPI_finish();
	PopActiveSnapshot();
	if (rollback)
		AbortCurrentTransaction();
	else
		CommitTransactionCommand();
	disable_all_timeouts(false);
	QueryCancelPending = false;
}

ErrorData *
http_failure(MemoryContext context)
{
	/* lest a cancel that comes too late interrupts what follows */
	HOLD_INTERRUPTS();
	disable_all_timeouts(false);
	MemoryContextSwitchTo(context);
	return CopyErrorData();
}

void
http_abort(void)
{
	AbortCurrentTransaction();
	QueryCancelPending = false;
	RESUME_INTERRUPTS();
}

/* Take back what a caller's code made for the session, and not for its transaction: as DISCARD ALL, which forgets all plans too. */
static void
forget_caller(void)
{
	ResetAllOptions();
	LockReleaseAll(USER_LOCKMETHOD, true);
	DropAllPreparedStatements();
}

/* The same for what ends with the transaction if it is rolled back. */
static void
forget_made(void)
{
	PortalHashTableDeleteAll();
	ResetTempTableNamespace();
}

/* End a caller's transaction. */
static void
end(bool rollback)
{
	if (!rollback)
	{
		/* what a caller put off is still the caller's */
		AfterTriggerFireDeferred();
		forget_made();
		SetUserIdAndSecContext(GetUserId(), 0);
	}
	http_end(rollback);
	forget_caller();
}

/* Take the fields of [{"Name": "value"}, ...], in place of our own of the same names. */
static void
take_headers(Call *call, const char *text)
{
	Jsonb	   *json = rest_try_json(text);
	int			own = call->nfields;
	int			kept = 0;
	bool		good = json && JB_ROOT_IS_ARRAY(json) && !JB_ROOT_IS_SCALAR(json);

	for (uint32 i = 0; good && i < JB_ROOT_COUNT(json); i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(&json->root, i);

		good = element->type == jbvBinary && JsonContainerIsObject(element->val.binary.data) &&
			JsonContainerSize(element->val.binary.data) == 1 && rest_reply_fields(call, element->val.binary.data);
	}
	if (!good)
		rest_refuse(500, "PGRST111", "response.headers guc must be a JSON array composed of objects with a single key and a string value", NULL, NULL);
	for (int i = 0; i < call->nfields; i++)
	{
		bool		replaced = false;

		for (int j = own; i < own && j < call->nfields; j++)
			replaced = replaced || pg_strcasecmp(call->fields[i].name, call->fields[j].name) == 0;
		if (!replaced)
			call->fields[kept++] = call->fields[i];
	}
	call->nfields = kept;
}

/* Functions may set the status and fields of the reply, as with PostgREST. */
static void
take_response_settings(Call *call)
{
	const char *status = GetConfigOption("response.status", true, false);
	const char *headers = GetConfigOption("response.headers", true, false);

	if (status && *status)
	{
		if (strspn(status, "0123456789") != 3 || strlen(status) != 3 || atoi(status) < 200 || atoi(status) > 599)
			rest_refuse(500, "PGRST112", "response.status guc must be a valid status code", NULL, NULL);
		call->status = atoi(status);
	}
	if (headers && *headers)
		take_headers(call, headers);
}

void
http_transaction(Call *call, HttpHandler handler, bool as_caller)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		const RestCatalog *catalog;

		if (as_caller)
			http_auth(call);
		http_begin(setting_http_statement_timeout);
		catalog = rest_catalog();
		if (catalog == NULL)
			rest_refuse(503, "PGRST002", "Could not query the database for the schema cache. Retrying.",
						"The extension msgsys is not in this database.", NULL);
		if (as_caller)
			become(call);
		handler(call, catalog);
		take_response_settings(call);
		end(call->rollback);
	}
	PG_CATCH();
	{
		ErrorData  *error = http_failure(context);

		if (rest_error_blames_server(call, error))
			EmitErrorReport();
		FlushErrorState();
		rest_error_keep();
		http_abort();
		forget_caller();
		/* what fails from here on finds no transaction open and nothing held */
		rest_error_reply(call, error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}
