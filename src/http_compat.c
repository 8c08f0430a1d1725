/*
 * http_compat.c
 *		Routes of other systems, as a table of routes onto SQL functions.
 *
 * A function takes the request as JSON: "method", "body" (text), "query" (an object of texts) and "id" (the last part of the path,
 * where the route ends in a colon), and returns status, content_type and body.  What each system answers is in
 * sql/install/80-http.sql, beside the functions.
 */
#include "msgsys.h"

#include "http_compat.h"
#include "rest_body.h"
#include "rest_error.h"
#include "rest_rows.h"
#include "url.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

struct CompatRoute
{
	const char *system;
	CallMethod	method;
	const char *path;			/* a colon at its end stands for any last part; a slash there may be left out */
	const char *function;		/* NULL: the body alone */
	const char *body;
	const char *type;			/* of that body */
	bool		changes;		/* something, though it is a GET */
};

#define JSON_TYPE	"application/json; charset=utf-8"
#define TEXT_TYPE	"text/plain; charset=utf-8"

static const CompatRoute routes[] = {
	{"000", METHOD_POST, "/api/v1/create", "msg_http_000_create"},
	{"000", METHOD_GET, "/api/v1/getMessages", "msg_http_000_messages"},

	{"001", METHOD_GET, "/sent-messages", "msg_http_001_sent"},
	{"001", METHOD_POST, "/toggle-worker", "msg_http_001_toggle"},

	{"002", METHOD_GET, "/api/messenger/messenger-job-toggle", "msg_http_002_toggle",.changes = true},
	{"002", METHOD_GET, "/api/messenger/", "msg_http_002_list"},
	{"002", METHOD_GET, "/api/messenger/get-two", "msg_http_002_two"},
	{"002", METHOD_PUT, "/api/messenger/commit/:", "msg_http_002_commit"},
	{"002", METHOD_GET, "/api/messenger/health", NULL, "ok", TEXT_TYPE},
	{"002", METHOD_GET, "/job-scheduler/messenger/start", "msg_http_002_start",.changes = true},
	{"002", METHOD_GET, "/job-scheduler/messenger/stop", "msg_http_002_stop",.changes = true},
	{"002", METHOD_GET, "/job-scheduler/messenger/is-working", "msg_http_002_working"},
	{"002", METHOD_GET, "/job-scheduler/health", NULL, "ok", TEXT_TYPE},

	{"003", METHOD_GET, "/healthz", NULL, "", TEXT_TYPE},
	{"003", METHOD_PUT, "/v1/client/", "msg_http_003_client"},
	{"003", METHOD_PATCH, "/v1/client/", "msg_http_003_client"},
	{"003", METHOD_DELETE, "/v1/client/", "msg_http_003_client"},
	{"003", METHOD_GET, "/v1/mailing/stats", "msg_http_003_stats"},
	{"003", METHOD_POST, "/v1/mailing/", "msg_http_003_messages"},
	{"003", METHOD_PUT, "/v1/mailing/", "msg_http_003_mailing"},
	{"003", METHOD_PATCH, "/v1/mailing/", "msg_http_003_mailing"},
	{"003", METHOD_DELETE, "/v1/mailing/", "msg_http_003_mailing"},

	{"004", METHOD_GET, "/", NULL, "{\"message\":\"Welcome to msgsys!\"}", JSON_TYPE},
	{"004", METHOD_GET, "/health", NULL, "{\"message\":\"Healthy!\"}", JSON_TYPE},
	{"004", METHOD_POST, "/api/v1/cron/control", "msg_http_004_control"},
	{"004", METHOD_GET, "/api/v1/list/sent-messages", "msg_http_004_sent"},
};

/* Where each system has its Swagger UI. */
static const struct
{
	const char *system;
	const char *directory;
}			pages[] = {
	{"000", "/api/v1/swagger/"},
	{"001", "/swagger/"},
	{"002", "/swagger/"},
	{"004", "/swagger/"},
};

/* Whether a path is a route's; *id is set to its last part where that is free. */
static bool
matches(const char *path, const char *pattern, const char **id)
{
	size_t		fixed = strlen(pattern);

	*id = NULL;
	if (pattern[fixed - 1] == '/' && strlen(path) == fixed - 1)
		return strncmp(path, pattern, fixed - 1) == 0;
	if (pattern[fixed - 1] != ':')
		return strcmp(path, pattern) == 0;
	fixed--;
	if (strncmp(path, pattern, fixed) != 0 || path[fixed] == '\0' || strchr(path + fixed, '/'))
		return false;
	*id = path + fixed;
	return true;
}

const CompatRoute *
compat_route(const Call *call, const char **id)
{
	for (int i = 0; i < lengthof(routes); i++)
		if ((routes[i].method == call->method || (routes[i].method == METHOD_GET && call->method == METHOD_HEAD)) &&
			matches(call->path, routes[i].path, id) && setting_lists(setting_http_compat, routes[i].system))
			return &routes[i];
	return NULL;
}

bool
compat_page(const Call *call, const char **name)
{
	for (int i = 0; i < lengthof(pages); i++)
		if (strncmp(call->path, pages[i].directory, strlen(pages[i].directory)) == 0 && setting_lists(setting_http_compat, pages[i].system))
		{
			*name = call->path + strlen(pages[i].directory);
			return true;
		}
	return false;
}

bool
compat_changes(const CompatRoute *route)
{
	return route->changes;
}

bool
compat_constant(const CompatRoute *route, Call *call)
{
	if (route->function)
		return false;
	call->status = 200;
	call_reply_field(call, "Content-Type", route->type);
	appendStringInfoString(&call->body, route->body);
	return true;
}

/* The request as the functions take it. */
static Datum
request_json(const Call *call, const char *id)
{
	StringInfoData json;
	const char *at = call->query ? call->query : "";
	const char *name;
	const char *value;
	const char *comma = "";

	rest_body_check_numbers(call->http->body);
	initStringInfo(&json);
	appendStringInfoString(&json, "{\"method\":");
	escape_json(&json, call->http->method);
	appendStringInfoString(&json, ",\"body\":");
	escape_json(&json, call->http->body);
	appendStringInfoString(&json, ",\"query\":{");
	while (url_next_pair(&at, palloc, &name, &value))
	{
		appendStringInfoString(&json, comma);
		escape_json(&json, name);
		appendStringInfoChar(&json, ':');
		escape_json(&json, value ? value : "");
		comma = ",";
	}
	appendStringInfoChar(&json, '}');
	if (id)
	{
		appendStringInfoString(&json, ",\"id\":");
		escape_json(&json, id);
	}
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

/* What ties the records of one request together, given or made here. */
static void
correlate(const CompatRoute *route, Call *call)
{
	const char *given = call_field(call, "x-correlation-id");

	if (strcmp(route->system, "002") != 0)
		return;
	call_reply_field(call, "X-Correlation-Id", given && *given ? given :
					 DatumGetCString(DirectFunctionCall1(uuid_out, DirectFunctionCall1(gen_random_uuid, (Datum) 0))));
}

/* Bytes of what the answer that is being made holds of messages; -1: none is being made. */
static int64 measured = -1;

PG_FUNCTION_INFO_V1(msg_http_measured);

/*
 * msg_http_measured(part text) returns text
 * The SQL definition has the contract.
 */
Datum
msg_http_measured(PG_FUNCTION_ARGS)
{
	text	   *part = PG_GETARG_TEXT_PP(0);

	if (measured >= 0)
	{
		measured += VARSIZE_ANY_EXHDR(part);
		rest_rows_check_size(measured);
	}
	PG_RETURN_TEXT_P(part);
}

void
compat_answer(const CompatRoute *route, Call *call, const RestCatalog *catalog, const char *id)
{
	Oid			type = JSONBOID;
	Datum		request = request_json(call, id);
	char	   *query = psprintf("SELECT status, content_type, body FROM %s.%s($1)", catalog->schema_quoted, route->function);
	char	   *content_type;
	char	   *body;

	measured = 0;
	if (SPI_execute_with_args(query, 1, &type, &request, NULL, false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "%s gave no answer", route->function);
	measured = -1;
	call->status = atoi(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	content_type = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	body = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3);
	if (body)
	{
		call_reply_field(call, "Content-Type", content_type ? content_type : JSON_TYPE);
		appendStringInfoString(&call->body, body);
		rest_rows_check_size(call->body.len);
	}
	correlate(route, call);
}

void
compat_failure(const CompatRoute *route, Call *call)
{
	const char *message = call->failure;
	StringInfo	out = &call->body;

	measured = -1;
	resetStringInfo(out);
	call->nfields = 0;
	correlate(route, call);
	if (call->status == 401)
		call_reply_field(call, "WWW-Authenticate", "Bearer");
	/* its clients know no other word for what they did wrong */
	if (strcmp(route->system, "003") == 0 && (call->status == 404 || call->status == 409))
		call->status = 400;
	if (strcmp(route->system, "001") == 0)
	{
		call_reply_field(call, "Content-Type", TEXT_TYPE);
		appendStringInfo(out, "%s\n", message);
		return;
	}
	call_reply_field(call, "Content-Type", JSON_TYPE);
	if (strcmp(route->system, "002") == 0)
		appendStringInfo(out, "{\"status\":%d,\"internalCode\":0,\"message\":", call->status);
	else if (strcmp(route->system, "003") == 0)
		appendStringInfoString(out, "{\"error_msg\":");
	else
	{
		appendStringInfoString(out, "{\"error\":");
		escape_json(out, call->status >= 500 ? "Internal server error" : call->status == 401 ? "Unauthorized" :
					call->status == 403 ? "Forbidden" : "Bad request");
		appendStringInfoString(out, strcmp(route->system, "004") == 0 ? ",\"details\":" : ",\"message\":");
	}
	escape_json(out, message);
	appendStringInfoChar(out, '}');
}
