/*
 * webhook_test.c
 *		msg_test(): one request to a channel's webhook from a session, to be looked at.
 */
#include "msgsys.h"

#include "functions.h"
#include "http_client.h"
#include "outcome.h"
#include "reactor.h"
#include "request.h"
#include "store.h"
#include "store_webhook.h"
#include "json_fields.h"
#include "worker.h"

#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(msg_test);

#define COLUMNS		10
#define HIDDEN		"***"

/* The webhook of a channel, as a worker would use it. */
static Webhook *
find_webhook(const char *schema, Oid schema_oid, const char *channel)
{
	Webhook    *webhook;

	strlcpy(installation.schema, schema, sizeof(installation.schema));
	installation.schema_oid = schema_oid;
	store_load_installation(&installation);
	webhook = store_webhook(channel);
	if (webhook == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("channel \"%s\" has no webhook", channel),
				 errhint("Give it one with msg_webhook_set().")));
	return webhook;
}

/* Wait for the only request to end; interrupts end the wait with an error. */
static void
await(HttpClient *client, Reactor *reactor, HttpResult *result)
{
	while (http_results(client, result, 1) == 0)
	{
		long		timeout = http_timeout(client);

		(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								 reactor_fd(reactor), timeout < 0 ? 1000 : Min(timeout, 1000), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		reactor_dispatch(reactor);
		http_tick(client);
	}
}

/* Make the request; its result's texts are in the current memory context. */
static void
call(const HttpRequest *request, HttpResult *result)
{
	char		err[256];
	Reactor    *volatile reactor = reactor_open();
	HttpClient *volatile client = NULL;
	HttpClientConfig config;
	HttpOutcome fault;

	if (reactor == NULL)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not create an epoll descriptor: %m")));
	PG_TRY();
	{
		request_client_config(&config, reactor, 1);
		client = http_open(&config, err, sizeof(err));
		if (client == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("could not make an HTTP client: %s", err)));
		if (!http_start(client, request, &fault, err, sizeof(err)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the request cannot be made: %s", err)));
		await(client, reactor, result);
		result->body = pnstrdup(result->body, result->body_length);
	}
	PG_FINALLY();
	{
		http_close(client);
		reactor_close(reactor);
	}
	PG_END_TRY();
}

/* The request's headers as they are sent, secret ones hidden. */
static Datum
shown_headers(const Request *request, const Webhook *webhook)
{
	JsonbParseState *state = NULL;
	JsonbValue	value = {.type = jbvString};
	JsonbValue *result;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < request->nheaders; i++)
	{
		bool		secret = false;

		for (int w = 0; w < webhook->nheaders; w++)
			secret |= webhook->secret[w] && strcmp(webhook->headers[w].name, request->headers[i].name) == 0;
		value.val.string.val = unconstify(char *, request->headers[i].name);
		value.val.string.len = strlen(request->headers[i].name);
		pushJsonbValue(&state, WJB_KEY, &value);
		value.val.string.val = unconstify(char *, secret ? HIDDEN : request->headers[i].value);
		value.val.string.len = strlen(value.val.string.val);
		pushJsonbValue(&state, WJB_VALUE, &value);
	}
	result = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(result));
}

static Datum
shown_text(const char *text, size_t length, bool *isnull)
{
	*isnull = length == 0;
	return length == 0 ? (Datum) 0 : CStringGetTextDatum(presentable(text, length, HTTP_ANSWER_MAX));
}

/*
 * msg_test(channel text, payload jsonb, ...) returns record
 * The SQL definition has the contract.
 */
Datum
msg_test(PG_FUNCTION_ARGS)
{
	char	   *channel = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ClaimedRow	row = {
		.payload = PG_GETARG_JSONB_P(1),
		.created_at = GetCurrentTimestamp(),
		.expires_at = DT_NOEND,
		.event_type = PG_GETARG_TEXT_PP(3)
	};
	text	   *key = PG_GETARG_TEXT_PP(2);
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old;
	TupleDesc	desc;
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {false};
	Webhook    *webhook;
	Request		request;
	HttpRequest http;
	HttpResult	result;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "msg_test must return a record");
	row.key = VARDATA_ANY(key);
	row.key_length = VARSIZE_ANY_EXHDR(key);
	SPI_connect();
	webhook = find_webhook(own_schema(fcinfo), get_func_namespace(fcinfo->flinfo->fn_oid), channel);
	old = MemoryContextSwitchTo(caller);
	request_build(&request, webhook, &row, 1);
	if (!request_sign(&request, webhook))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a signing secret of channel \"%s\" cannot be read", channel)));
	request_http(&request, webhook, &http);
	call(&http, &result);

	values[0] = CStringGetTextDatum(webhook->method);
	values[1] = CStringGetTextDatum(request.url);
	values[2] = shown_headers(&request, webhook);
	values[3] = shown_text(request.body, request.body_length, &nulls[3]);
	values[4] = CStringGetTextDatum(result.outcome == HTTP_ANSWERED && status_succeeds(webhook, result.status) ?
									"delivered" : outcome_class(result.outcome));
	values[5] = Int32GetDatum(result.status);
	nulls[5] = result.status == 0;
	values[6] = shown_text(result.address, strlen(result.address), &nulls[6]);
	values[7] = Int32GetDatum((int) Min(result.elapsed_ms, PG_INT32_MAX));
	values[8] = shown_text(result.body, result.body_length, &nulls[8]);
	values[9] = shown_text(result.error, strlen(result.error), &nulls[9]);
	desc = BlessTupleDesc(desc);
	MemoryContextSwitchTo(old);
	SPI_finish();
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
