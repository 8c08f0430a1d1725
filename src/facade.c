/*
 * facade.c
 *		The HTTP facade: takes requests, finds who asks, answers.
 *
 * One worker works on one request at a time, each in a transaction of its own
 * under the role that its token names.  A request that fails takes nothing else with it.
 * What needs no SQL (metrics, health, pages) is answered from memory.
 */
#include "msgsys.h"

#include "call.h"
#include "http_auth.h"
#include "http_compat.h"
#include "http_files.h"
#include "http_server.h"
#include "http_transaction.h"
#include "metrics.h"
#include "rest.h"
#include "rest_error.h"
#include "shmem.h"
#include "url.h"
#include "worker.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define SEND_EVERY	1000		/* microseconds */
#define DESCRIPTION	"/openapi.json" /* what / is too, unless that is another system's */

#define EXPOSED_FIELDS \
	"Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, Transfer-Encoding, Range-Unit"

static HttpServer *server = NULL;
static MemoryContext call_context = NULL;	/* of one call */

/* ---------------------------------------------------------------- calls */

const char *
call_field(const Call *call, const char *name)
{
	return http_exchange_field(call->http, name);
}

void
call_reply_field(Call *call, const char *name, const char *value)
{
	if (call->nfields < CALL_FIELDS_MAX)
	{
		char	   *kept = MemoryContextStrdup(call->context, value);

		/* nothing of a value may begin another line */
		for (char *c = kept; *c; c++)
			if ((unsigned char) *c < ' ' || *c == 0x7F)
				*c = ' ';
		call->fields[call->nfields++] = (HttpField)
		{
			name, kept
		};
	}
}

const char *const call_method_names[] = {
	[METHOD_GET] = "GET",
	[METHOD_HEAD] = "HEAD",
	[METHOD_POST] = "POST",
	[METHOD_PUT] = "PUT",
	[METHOD_PATCH] = "PATCH",
	[METHOD_DELETE] = "DELETE",
	[METHOD_OPTIONS] = "OPTIONS",
	[METHOD_OTHER] = "other",
};

static CallMethod
read_method(const char *name)
{
	for (int i = 0; i < METHOD_OTHER; i++)
		if (strcmp(name, call_method_names[i]) == 0)
			return (CallMethod) i;
	return METHOD_OTHER;
}

/* Split the target into path and query, and check that both are text of the database. */
static void
read_target(Call *call)
{
	const char *target = call->http->target;
	size_t		length;
	const char *decoded;

	if (strstr(target, "%00"))
		rest_refuse(400, "22021", "invalid byte sequence for encoding \"UTF8\": 0x00", NULL, NULL);
	/* as proxies are asked, and servers have to understand it too (RFC 9112, 3.2.2) */
	if (pg_strncasecmp(target, "http://", 7) == 0)
		target += 7 + strcspn(target + 7, "/");
	if (*target != '/')
		rest_refuse(404, "PGRST125", "Invalid path specified in request URL", NULL, NULL);
	length = strcspn(target, "?#");
	call->path = url_decode(target, length, false, palloc);
	call->query = target[length] == '?' ? pstrdup(target + length + 1) : NULL;
	decoded = url_decode(target, strlen(target), false, palloc);
	pg_verify_mbstr(PG_UTF8, decoded, strlen(decoded), false);
	pg_verify_mbstr(PG_UTF8, call->http->body, strlen(call->http->body), false);
}

/* ---------------------------------------------------------------- routes */

/* /name and /rpc/name */
static void
handle_rest(Call *call, const RestCatalog *catalog)
{
	const char *name = call->path + 1;
	const char *profile = call_field(call, call->method == METHOD_POST || call->method == METHOD_PUT || call->method == METHOD_PATCH ||
									 call->method == METHOD_DELETE ? "content-profile" : "accept-profile");

	if (profile && strcmp(profile, catalog->schema) != 0)
		rest_refuse(406, "PGRST106", psprintf("Invalid schema: %s", profile), NULL,
					psprintf("Only the following schemas are exposed: %s", catalog->schema));
	if (profile)
		call_reply_field(call, "Content-Profile", profile);
	if (strncmp(name, "rpc/", 4) == 0 && name[4] != '\0' && strchr(name + 4, '/') == NULL)
		rest_function_request(call, catalog, name + 4);
	else if (*name != '\0' && strchr(name, '/') == NULL)
		rest_table_request(call, catalog, name);
	else
		rest_refuse(404, "PGRST125", "Invalid path specified in request URL", NULL, NULL);
}

/* The route of another system that the call is for, and the free part of its path. */
static const CompatRoute *route_asked = NULL;
static const char *route_id = NULL;

static void
handle_compat(Call *call, const RestCatalog *catalog)
{
	compat_answer(route_asked, call, catalog, route_id);
}

/* A call to another system's route. */
static void
compat(Call *call)
{
	const char *name;

	if (route_asked == NULL && compat_page(call, &name))
		http_files_answer(call, "docs", name);
	else if (!compat_constant(route_asked, call))
	{
		http_transaction(call, handle_compat, true);
		if (call->failure)
			compat_failure(route_asked, call);
	}
}

/* The description of the interface; made anew when the catalogue has changed. */
static void
handle_description(Call *call, const RestCatalog *catalog)
{
	static char *description = NULL;
	static uint64 described = 0;

	if (description == NULL || described != rest_catalog_generation())
	{
		rest_read_only();
		if (SPI_execute(psprintf("SELECT %s.msg_openapi()", catalog->schema_quoted), true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not describe the interface");
		if (description)
			pfree(description);
		description = NULL;
		description = MemoryContextStrdup(TopMemoryContext, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
		described = rest_catalog_generation();
	}
	call->status = 200;
	call_reply_field(call, "Content-Type", "application/openapi+json; charset=utf-8");
	appendStringInfoString(&call->body, description);
}

/* A page; a directory without its slash is sent to where it is, so that what it refers to is found. */
static void
page(Call *call, const char *directory)
{
	const char *name = call->path + 1 + strlen(directory);

	if (*name != '\0')
	{
		http_files_answer(call, directory, name + 1);
		return;
	}
	call->status = 308;
	call_reply_field(call, "Location", psprintf("%s/", directory));
}

/*
 * Fields for a page of another origin.  Where none is named, any may use the interface, as with
 * PostgREST; but what a token guards not, and is for those inside, it may not read.
 */
static void
cross_origin(Call *call, Route route)
{
	const char *origin = call_field(call, "origin");

	if (origin == NULL)
		return;
	if (setting_http_cors_origins[0] == '\0' && (route == ROUTE_METRICS || route == ROUTE_HEALTH || route == ROUTE_UI))
		return;
	if (setting_http_cors_origins[0] == '\0')
		call_reply_field(call, "Access-Control-Allow-Origin", "*");
	else if (setting_lists(setting_http_cors_origins, origin))
	{
		call_reply_field(call, "Access-Control-Allow-Origin", origin);
		call_reply_field(call, "Access-Control-Allow-Credentials", "true");
		call_reply_field(call, "Vary", "Origin");
	}
	else
		return;
	if (call_field(call, "access-control-request-method") == NULL || call->method != METHOD_OPTIONS)
		call_reply_field(call, "Access-Control-Expose-Headers", EXPOSED_FIELDS);
}

/* A browser asks whether it may ask. */
static bool
preflight(Call *call)
{
	const char *asked;

	if (call->method != METHOD_OPTIONS || call_field(call, "origin") == NULL ||
		call_field(call, "access-control-request-method") == NULL)
		return false;
	asked = call_field(call, "access-control-request-headers");
	call->status = 200;
	call_reply_field(call, "Access-Control-Allow-Methods", "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD");
	call_reply_field(call, "Access-Control-Allow-Headers",
					 psprintf("Authorization, %s%sAccept, Accept-Language, Content-Language", asked ? asked : "", asked && *asked ? ", " : ""));
	call_reply_field(call, "Access-Control-Max-Age", "86400");
	return true;
}

/*
 * Whether a page of another origin has a browser ask, without a token: it needs to see no answer to do harm.  Fetch Metadata
 * (https://www.w3.org/TR/fetch-metadata/) tells, or else Origin beside Host.
 */
static bool
is_foreign(const Call *call)
{
	const char *site = call_field(call, "sec-fetch-site");
	const char *origin = call_field(call, "origin");
	const char *host = call_field(call, "host");

	/* other credentials a browser sends by itself, or they count for nothing */
	if (http_auth_token(call) || (origin && setting_lists(setting_http_cors_origins, origin)))
		return false;
	if (site)
		return strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0;
	if (origin == NULL)
		return false;
	origin = strstr(origin, "://");
	return origin == NULL || host == NULL || pg_strcasecmp(origin + strlen("://"), host) != 0;
}

static bool
is_below(const char *path, const char *directory)
{
	size_t		length = strlen(directory);

	return strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* What a path is for. */
static Route
route_of(const Call *call)
{
	const char *path = call->path;
	const char *name;

	route_asked = compat_route(call, &route_id);
	if (route_asked || compat_page(call, &name))
		return ROUTE_COMPAT;
	if (strcmp(path, "/metrics") == 0)
		return ROUTE_METRICS;
	if (is_below(path, "/health"))
		return ROUTE_HEALTH;
	if (is_below(path, "/ui"))
		return ROUTE_UI;
	if (strcmp(path, "/") == 0 || strcmp(path, DESCRIPTION) == 0 || is_below(path, "/docs"))
		return ROUTE_API;
	return strncmp(path, "/rpc/", 5) == 0 ? ROUTE_RPC : ROUTE_TABLE;
}

/* Answer by what the path is for. */
static void
dispatch(Call *call, Route route)
{
	bool		reads = call->method == METHOD_GET || call->method == METHOD_HEAD;
	bool		changes = (!reads && call->method != METHOD_OPTIONS) || (route_asked && compat_changes(route_asked));

	if (preflight(call))
		return;
	if (changes && is_foreign(call))
		rest_refuse(403, "42501", "A page of another origin may change nothing without a token", NULL,
					"msgsys.http_cors_origins names origins that may.");
	if ((route == ROUTE_TABLE || route == ROUTE_RPC || route == ROUTE_COMPAT) && http_server_full(server))
		rest_refuse(503, "53000", "Too many large answers have not been taken yet", NULL, NULL);
	if (route == ROUTE_COMPAT)
	{
		compat(call);
		return;
	}
	if (call->method == METHOD_OPTIONS && strcmp(call->path, "/") == 0)
	{
		call->status = 200;
		call_reply_field(call, "Allow", "OPTIONS,GET,HEAD");
		return;
	}
	if (route != ROUTE_TABLE && route != ROUTE_RPC && !reads)
		rest_refuse(405, "PGRST117", psprintf("Unsupported HTTP method: %s", call->http->method), NULL, NULL);
	if (route == ROUTE_METRICS)
		metrics_answer(call);
	else if (strcmp(call->path, "/health/live") == 0)
		health_answer(call, false);
	else if (strcmp(call->path, "/health/ready") == 0)
		health_answer(call, true);
	else if (route == ROUTE_UI)
		page(call, "ui");
	else if (route == ROUTE_API && is_below(call->path, "/docs"))
		page(call, "docs");
	else if (route == ROUTE_API)
		http_transaction(call, handle_description, false);
	else if (route != ROUTE_TABLE && route != ROUTE_RPC)
		rest_refuse(404, "PGRST125", "Invalid path specified in request URL", NULL, NULL);
	else
		http_transaction(call, handle_rest, true);
}

/* Answer a call; returns what its path is for. */
static Route
answer(Call *call)
{
	MemoryContext context = CurrentMemoryContext;
	volatile Route route = ROUTE_OTHER;

	PG_TRY();
	{
		read_target(call);
		pgstat_report_activity(STATE_RUNNING, psprintf("%s %s", call->http->method, call->path));
		route = route_of(call);
		dispatch(call, route);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		rest_error_reply(call, error);
	}
	PG_END_TRY();
	cross_origin(call, route);
	return route;
}

static void
serve(HttpExchange *exchange)
{
	Call		call = {.http = exchange,.context = call_context,.status = 500};
	HttpReply	reply;
	Route		route;
	TimestampTz began = GetCurrentTimestamp();

	MemoryContextReset(call_context);
	MemoryContextSwitchTo(call_context);
	initStringInfo(&call.body);
	rest_error_reset();
	call.method = read_method(exchange->method);
	route = answer(&call);
	reply = (HttpReply)
	{
		.status = call.status,
			.fields = call.fields,
			.nfields = call.nfields,
			.body = call.body.data,
			.length = call.body.len,
	};
	http_server_answer(server, exchange, &reply);
	metrics_request(route, call.method, call.status, GetCurrentTimestamp() - began);
	slot_count_up(COUNT_REQUESTS, 1);
	slot_count_up(COUNT_FAILED, call.status >= 500 ? 1 : 0);
	MemoryContextSwitchTo(cycle_context);
}

/* ---------------------------------------------------------------- main loop */

/* Whether the role of this worker is a superuser: the catalog may have to be asked, which needs a transaction. */
static bool
is_superuser(void)
{
	bool		answer;

	StartTransactionCommand();
	answer = superuser();
	CommitTransactionCommand();
	return answer;
}

static void
open_server(void)
{
	char		err[512];
	HttpServerConfig config = {
		.reactor = worker_reactor(),
		.address = setting_http_listen,
		.share_port = setting_http_workers > 1,
		.max_connections = setting_http_connections,
		.max_per_peer = setting_http_connections_per_peer,
		.max_header = (size_t) setting_http_max_header * 1024,
		.max_body = (size_t) setting_http_max_body * 1024,
		.deadline_ms = setting_http_request_timeout,
	};

	if (is_superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("msgsys.http_role must not be a superuser"),
				 errhint("Make an ordinary role that may log in, and set msgsys.http_role to it.")));
	/* JSON is UTF-8, and nothing here converts */
	if (GetDatabaseEncoding() != PG_UTF8 && GetDatabaseEncoding() != PG_SQL_ASCII)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("msgsys serves HTTP from databases with the encoding UTF8 alone")));
	if (!http_auth_load())
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("msgsys does not serve HTTP without keys that it can use")));
	server = http_server_open(&config, err, sizeof(err));
	if (server == NULL)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("msgsys cannot serve HTTP: %s", err)));
	for (int i = 0; i < setting_http_connections; i++)
		ReserveExternalFD();
	ereport(LOG, (errmsg("msgsys serves HTTP at %s", setting_http_listen)));
}

/* Settings that a reload may have changed. */
static void
apply_settings(void)
{
	char		timeout[32];

	snprintf(timeout, sizeof(timeout), "%d", setting_http_lock_timeout);
	SetConfigOption("lock_timeout", timeout, PGC_SUSET, PGC_S_OVERRIDE);
}

/* Take what has come, answer it, and send what is to be sent.  Returns how many requests that were. */
static int
serve_all(void)
{
	static unsigned long refused = 0;
	HttpExchange *exchange;
	TimestampTz sent;
	int			n = 0;

	http_server_run(server);
	slot_count_up(COUNT_REFUSED, http_server_refused(server) - refused);
	refused = http_server_refused(server);
	sent = GetCurrentTimestamp();
	while ((exchange = http_server_next(server)) != NULL)
	{
		slot_state(WORKER_BUSY);
		serve(exchange);
		n++;
		CHECK_FOR_INTERRUPTS();
		/* answers go out many at once, but none waits for a slow request behind it */
		if (GetCurrentTimestamp() - sent < SEND_EVERY)
			continue;
		http_server_run(server);
		sent = GetCurrentTimestamp();
	}
	return n;
}

/* SIGINT ends the request that is in the database: one that comes too late has nothing to end. */
static void
cancel_request(SIGNAL_ARGS)
{
	if (IsTransactionState())
		StatementCancelHandler(postgres_signal_arg);
}

/* Main loop of an HTTP worker. */
void
facade_main(void)
{
	pqsignal(SIGINT, cancel_request);
	call_context = AllocSetContextCreate(TopMemoryContext, "msgsys HTTP call", ALLOCSET_DEFAULT_SIZES);
	open_server();
	apply_settings();
	for (;;)
	{
		long		timeout;
		int			served;

		/* what has been done is told, before the cycle ends the worker */
		if (worker_stopping())
			http_server_run(server);
		if (worker_cycle())
		{
			apply_settings();
			/* without keys that can be used nobody is who he says he is */
			(void) http_auth_load();
		}
		metrics_sample();
		served = serve_all();
		slot_connections(http_server_connections(server));
		if (served > 0)
		{
			/* more may have come meanwhile */
			worker_wait(0);
			continue;
		}
		slot_state(WORKER_IDLE);
		pgstat_report_activity(STATE_IDLE, NULL);
		timeout = http_server_timeout(server);
		worker_wait(timeout < 0 ? setting_poll_interval : Min(timeout, setting_poll_interval));
	}
}
