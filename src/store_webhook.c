/*
 * store_webhook.c
 *		The SQL statements of the webhook stage, but for its claims (store.c).
 */
#include "msgsys.h"

#include "headers.h"
#include "monotonic.h"
#include "names.h"
#include "notes.h"
#include "statement.h"
#include "store.h"
#include "store_mailing.h"
#include "store_webhook.h"
#include "worker.h"

#include "catalog/pg_type.h"
#include "common/base64.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

typedef enum WebhookStatement
{
	LIST_WEBHOOKS,
	LOAD_WEBHOOKS,
	LOAD_SECRETS,
	MARK,
	MARK_DELIVERED,
	ADD_ATTEMPTS,
	DISABLE,
	SET_BREAKER,
	FORGET_BREAKER,
	FORGET_BREAKERS,
	HELD_KEYS,
	STATEMENTS
} WebhookStatement;

/* An interval may be longer than a number of microseconds can say: a hundred years will do. */
#define BOUNDED(column)			"EXTRACT(epoch FROM least(" column ", '36525 days'))"
#define MICROSECONDS(column)	"(" BOUNDED(column) " * 1000000)::bigint"
#define MILLISECONDS(column)	"(" BOUNDED(column) " * 1000)::bigint"

/* It came by Kafka and there is no webhook for it any more, as its channel is now: it ends as received. */
#define WEBHOOK_GONE	"m.status = 'received' AND m.channel <> ALL (ARRAY(SELECT s.channel FROM @.msg_webhook_settings s WHERE s.channel >= ''))"

/* The columns of LOAD_WEBHOOKS, from 1. */
enum
{
	W_CHANNEL = 1, W_URL, W_METHOD, W_HEADERS, W_TEMPLATE, W_CLOUDEVENTS, W_TIMEOUT, W_CONNECT_TIMEOUT, W_SUCCESS, W_RETRY, W_SCHEDULE,
	W_RETRY_AFTER_MAX, W_CONCURRENCY, W_RATE, W_ORDERED, W_HTTP2, W_REDIRECTS, W_CA_FILE, W_PROXY, W_KEEP, W_SHARE, W_CALLS, W_WINDOW,
	W_PAUSE, W_PAUSE_MAX, W_DISABLED, W_RETRY_BASE, W_RETRY_MAX, W_MAX_ATTEMPTS
};

static Statement statements[STATEMENTS] =
{
	[LIST_WEBHOOKS] = {
		"SELECT w.channel, w.disabled_at IS NOT NULL FROM @.msg_webhook_settings w JOIN @.msg_channel_settings c ON c.channel = w.channel"
	},
	[LOAD_WEBHOOKS] = {
		"SELECT w.channel, w.url, w.method, w.headers, w.body_template, w.cloudevents, " MILLISECONDS("w.timeout") ", " MILLISECONDS("w.connect_timeout") ", "
		"w.success_codes::bigint[], w.retry_codes::bigint[], (SELECT array_agg(" MICROSECONDS("i.i") " ORDER BY i.n) FROM unnest(w.retry_schedule) WITH ORDINALITY i(i, n)), "
		MICROSECONDS("w.retry_after_max") ", w.concurrency::bigint, coalesce(w.rate, 0), w.ordered, w.http2, w.redirects::bigint, w.ca_file, w.proxy, "
		"w.keep_attempts, w.breaker_share, w.breaker_calls::bigint, " MILLISECONDS("w.breaker_window") ", " MILLISECONDS("w.breaker_pause") ", "
		MILLISECONDS("w.breaker_pause_max") ", w.disabled_at IS NOT NULL, " MICROSECONDS("c.retry_base") ", " MICROSECONDS("c.retry_max") ", c.max_attempts::bigint "
		"FROM @.msg_webhook_settings w JOIN @.msg_channel_settings c ON c.channel = w.channel WHERE $1 IS NULL OR w.channel = $1",
		1, {TEXTOID}
	},
	[LOAD_SECRETS] = {
		"SELECT channel, kind, name, value, coalesce(expires_at, 'infinity') FROM @.msg_webhook_secrets "
		"WHERE (expires_at IS NULL OR expires_at > clock_timestamp()) AND ($1 IS NULL OR channel = $1) ORDER BY id DESC",
		1, {TEXTOID}
	},

	/*
	 * What happened, happened: a success may leave what is finished (cancelled, expired, its channel or its webhook dropped).  A failure may not: it
	 * would begin again what somebody has ended.
	 */
	[MARK] = {
		"UPDATE @.messages m SET "
		"status = (CASE WHEN u.v IN (1, 2) AND " WEBHOOK_GONE " THEN 'received' WHEN u.v = 0 THEN 'delivered' WHEN u.v = 1 THEN 'retry' WHEN u.v = 2 THEN 'dead' ELSE 'expired' END)::@.msg_status, "
		"attempts = greatest(m.attempts, u.a), response_code = coalesce(nullif(u.code, 0), m.response_code), "
		"response_id = coalesce(u.rid, m.response_id), last_error = coalesce(u.error, m.last_error), "
		"delivered_at = CASE WHEN u.v = 0 THEN $8 ELSE m.delivered_at END, finished_at = CASE WHEN u.v <> 1 OR " WEBHOOK_GONE " THEN $8 END, "
		"due_at = CASE WHEN u.v = 1 THEN u.due ELSE m.due_at END, dlq_pending = CASE WHEN u.v = 2 AND NOT (" WEBHOOK_GONE ") AND m.channel = ANY (ARRAY(SELECT s.channel FROM @.msg_channel_settings s WHERE s.channel >= '' AND s.topic IS NOT NULL)) THEN true END "
		"FROM unnest($1, $2, $3, $4, $5, $6, $7) u(id, v, a, code, rid, error, due) "
		"WHERE m.id = u.id AND (m.status IN ('idle', 'scheduled', 'retry', 'received') AND m.finished_at IS NULL "
		"OR u.v = 0 AND m.status IN ('sent', 'received', 'cancelled', 'expired')) "
		/* what was postponed meanwhile has not expired */
		"AND (u.v <> 3 OR m.expires_at <= $8) "
		"RETURNING m.channel, m.due_at, m.status = 'retry', m.dlq_pending IS NOT NULL, m.id",
		8, {INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID}
	},
	/* The same where all are delivered: most flushes are small, and starting the long one costs more than its rows. */
	[MARK_DELIVERED] = {
		"UPDATE @.messages m SET status = 'delivered', attempts = greatest(m.attempts, u.a), response_code = coalesce(nullif(u.code, 0), m.response_code), "
		"response_id = coalesce(u.rid, m.response_id), delivered_at = $8, finished_at = $8 "
		"FROM unnest($1, $3, $4, $5) u(id, a, code, rid) "
		"WHERE m.id = u.id AND (m.status IN ('idle', 'scheduled', 'retry', 'received') AND m.finished_at IS NULL "
		"OR m.status IN ('sent', 'received', 'cancelled', 'expired')) "
		"RETURNING m.channel, m.due_at, false, false, m.id",
		8, {INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID}
	},
	[ADD_ATTEMPTS] = {
		"INSERT INTO @.msg_attempts (message_id, channel, attempt, at, milliseconds, class, code, address, error, excerpt) "
		"SELECT u.id, u.channel, u.a, $10, u.ms, u.class, nullif(u.code, 0), u.address, u.error, u.excerpt "
		"FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) u(id, channel, a, ms, class, code, address, error, excerpt)",
		10, {INT8ARRAYOID, TEXTARRAYOID, INT4ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID}
	},
	/* what answered is not what is to be called, if that was changed, or enabled, since it was asked */
	[DISABLE] = {
		"UPDATE @.msg_webhooks SET disabled_at = now(), disabled_reason = $2 WHERE channel = $1 AND disabled_at IS NULL AND updated_at < $3",
		3, {TEXTOID, TEXTOID, TIMESTAMPTZOID}
	},
	[SET_BREAKER] = {
		"INSERT INTO @.msg_breakers AS b (channel, worker, state, since, until, calls, failures, trips) "
		"VALUES ($1, $2, $3, now(), $4, $5, $6, $7) ON CONFLICT (channel, worker) DO UPDATE SET "
		"state = excluded.state, since = excluded.since, until = excluded.until, calls = excluded.calls, failures = excluded.failures, trips = excluded.trips",
		7, {TEXTOID, INT4OID, TEXTOID, TIMESTAMPTZOID, INT4OID, INT4OID, INT4OID}
	},
	[FORGET_BREAKER] = {
		"DELETE FROM @.msg_breakers WHERE channel = $1 AND worker = $2",
		2, {TEXTOID, INT4OID}
	},
	[FORGET_BREAKERS] = {
		"DELETE FROM @.msg_breakers WHERE worker = $1",
		1, {INT4OID}
	},

	/* A key waits while one of its messages is tried again, on whichever way that is. */
	[HELD_KEYS] = {
		"SELECT message_key, min(id) FROM ("
		"SELECT message_key, id FROM @.messages WHERE status IN ('scheduled', 'retry') AND channel = $1 AND (status = 'retry' OR attempts > 0) AND epoch <> ALL ($2) "
		"UNION ALL SELECT message_key, id FROM @.messages WHERE status = 'sent' AND finished_at IS NULL AND channel = $1 AND attempts > 1 AND epoch <> ALL ($2) "
		"UNION ALL SELECT message_key, id FROM @.messages WHERE status = 'received' AND finished_at IS NULL AND channel = $1 AND attempts > 1 AND epoch <> ALL ($2)"
		") h WHERE message_key IS NOT NULL GROUP BY message_key",
		2, {TEXTOID, INT4ARRAYOID}
	},
};

/* ---------------------------------------------------------------- settings */

static bool
bool_at(uint64 row, int number)
{
	bool		isnull;
	Datum		value = result_column(row, number, &isnull);

	return !isnull && DatumGetBool(value);
}

static double
double_at(uint64 row, int number)
{
	bool		isnull;
	Datum		value = result_column(row, number, &isnull);

	return isnull ? 0 : DatumGetFloat8(value);
}

/* The numbers of an array of int8, or NULL. */
static int64 *
numbers_at(uint64 row, int number, int *n)
{
	bool		isnull;
	Datum		value = result_column(row, number, &isnull);
	Datum	   *values;
	bool	   *nulls;
	int64	   *numbers;

	*n = 0;
	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(value), INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &values, &nulls, n);
	numbers = palloc(Max(*n, 1) * sizeof(int64));
	for (int i = 0; i < *n; i++)
		numbers[i] = nulls[i] ? 0 : DatumGetInt64(values[i]);
	return numbers;
}

/* One header more; secret: nobody may see its value. */
static void
add_header(Webhook *webhook, const char *name, const char *value, bool secret)
{
	int			n = webhook->nheaders++;

	if (n % 8 == 0)
	{
		Size		room = n + 8;

		webhook->headers = n ? repalloc(webhook->headers, room * sizeof(HttpHeader)) : palloc(room * sizeof(HttpHeader));
		webhook->secret = n ? repalloc(webhook->secret, room * sizeof(bool)) : palloc(room * sizeof(bool));
	}
	webhook->headers[n].name = name;
	webhook->headers[n].value = value;
	webhook->secret[n] = secret;
}

static void
add_headers(Webhook *webhook, Jsonb *headers)
{
	HeaderWalk	walk;
	JsonbValue	name = {0};
	JsonbValue	value;

	headers_begin(&walk, headers);
	while (headers_next(&walk, &name, &value))
		if (value.type == jbvString)
			add_header(webhook, pnstrdup(name.val.string.val, name.val.string.len),
					   pnstrdup(value.val.string.val, value.val.string.len), false);
}

static Webhook *
webhook_at(uint64 row)
{
	Webhook    *webhook = palloc0(sizeof(Webhook));
	bool		isnull;
	Datum		value;

	strlcpy(webhook->channel, result_text(row, W_CHANNEL), CHANNEL_NAME_MAX);
	webhook->url = result_text(row, W_URL);
	webhook->method = result_text(row, W_METHOD);
	value = result_column(row, W_HEADERS, &isnull);
	if (!isnull)
		add_headers(webhook, DatumGetJsonbPCopy(value));
	value = result_column(row, W_TEMPLATE, &isnull);
	webhook->body_template = isnull ? NULL : DatumGetJsonbPCopy(value);
	webhook->cloudevents = bool_at(row, W_CLOUDEVENTS);
	webhook->timeout_ms = (int) result_int64(row, W_TIMEOUT, 15000);
	webhook->connect_timeout_ms = (int) result_int64(row, W_CONNECT_TIMEOUT, 5000);
	webhook->success_codes = numbers_at(row, W_SUCCESS, &webhook->nsuccess_codes);
	webhook->retry_codes = numbers_at(row, W_RETRY, &webhook->nretry_codes);
	webhook->schedule = numbers_at(row, W_SCHEDULE, &webhook->nschedule);
	webhook->retry_after_max = result_int64(row, W_RETRY_AFTER_MAX, 0);
	webhook->concurrency = (int) result_int64(row, W_CONCURRENCY, 1);
	webhook->rate = double_at(row, W_RATE);
	webhook->ordered = bool_at(row, W_ORDERED);
	webhook->http2 = bool_at(row, W_HTTP2);
	webhook->redirects = (int) result_int64(row, W_REDIRECTS, 0);
	webhook->ca_file = result_text(row, W_CA_FILE);
	webhook->proxy = result_text(row, W_PROXY);
	webhook->keep_attempts = bool_at(row, W_KEEP);
	webhook->breaker.share = double_at(row, W_SHARE);
	webhook->breaker.calls = (int) result_int64(row, W_CALLS, 1);
	webhook->breaker.window_ms = result_int64(row, W_WINDOW, 1000);
	webhook->breaker.pause_ms = result_int64(row, W_PAUSE, 1000);
	webhook->breaker.pause_max_ms = result_int64(row, W_PAUSE_MAX, 1000);
	webhook->disabled = bool_at(row, W_DISABLED);
	webhook->retry_base = result_int64(row, W_RETRY_BASE, 1);
	webhook->retry_max = result_int64(row, W_RETRY_MAX, 1);
	webhook->max_attempts = (int) result_int64(row, W_MAX_ATTEMPTS, 1);
	return webhook;
}

/* "Basic" and the base64 of user:password. */
static char *
basic_credentials(const char *value)
{
	int			room = pg_b64_enc_len(strlen(value));
	char	   *result = palloc(room + 8);
	int			n;

	strcpy(result, "Basic ");
	n = pg_b64_encode((void *) value, strlen(value), result + 6, room);
	result[6 + Max(n, 0)] = '\0';
	return result;
}

/* A secret takes its place in its webhook. */
static void
add_secret(Webhook *webhook, const char *kind, char *name, char *value, TimestampTz expires_at)
{
	if (strcmp(kind, "signing") == 0)
	{
		if (webhook->nsecrets < SIGNATURE_SECRETS_MAX)
		{
			webhook->secrets[webhook->nsecrets].value = value;
			webhook->secrets[webhook->nsecrets++].expires_at = expires_at;
		}
	}
	else if (strcmp(kind, "header") == 0)
		add_header(webhook, name, value, true);
	else if (strcmp(kind, "bearer") == 0)
		add_header(webhook, "Authorization", psprintf("Bearer %s", value), true);
	else if (strcmp(kind, "basic") == 0)
		add_header(webhook, "Authorization", basic_credentials(value), true);
	else if (strcmp(kind, "client_cert") == 0)
		webhook->client_cert = value;
	else if (strcmp(kind, "client_key") == 0)
		webhook->client_key = value;
}

/* Refuse signing secrets that cannot sign. */
static void
check_secrets(const Webhook *webhook)
{
	for (int i = 0; i < webhook->nsecrets; i++)
	{
		char		value[SIGNATURE_LENGTH];

		if (!signature_sign(&webhook->secrets[i].value, 1, "", 0, "", 0, value))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("a signing secret of channel \"%s\" cannot be read", webhook->channel)));
	}
}

/* What is to be loaded. */
typedef struct Load
{
	const char *channel;		/* NULL: all */
	MemoryContext context;		/* of the result */
	List	   *webhooks;		/* of Webhook */
} Load;

/* Load webhooks and their secrets; an ERROR where one of them cannot be. */
static void
load(void *arg)
{
	Load	   *load = arg;
	Datum		values[1] = {load->channel ? CStringGetTextDatum(load->channel) : (Datum) 0};
	const char *nulls = load->channel ? NULL : "n";
	MemoryContext old;
	ListCell   *lc;
	uint64		n = statement_run(&statements[LOAD_WEBHOOKS], values, nulls);

	old = MemoryContextSwitchTo(load->context);
	for (uint64 i = 0; i < n; i++)
		load->webhooks = lappend(load->webhooks, webhook_at(i));
	MemoryContextSwitchTo(old);
	n = statement_run(&statements[LOAD_SECRETS], values, nulls);
	MemoryContextSwitchTo(load->context);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *channel = result_text(i, 1);
		bool		isnull;

		foreach(lc, load->webhooks)
			if (strcmp(((Webhook *) lfirst(lc))->channel, channel) == 0)
				add_secret(lfirst(lc), result_text(i, 2), result_text(i, 3), result_text(i, 4),
						   DatumGetTimestampTz(result_column(i, 5, &isnull)));
	}
	MemoryContextSwitchTo(old);
	foreach(lc, load->webhooks)
		check_secrets(lfirst(lc));
}

/* The webhook of a channel, in the current memory context; NULL: it has none.  An ERROR where it cannot be read. */
Webhook *
store_webhook(const char *channel)
{
	Load		one = {.channel = channel,.context = CurrentMemoryContext};

	load(&one);
	return one.webhooks ? linitial(one.webhooks) : NULL;
}

/* Load webhooks one by one: those that cannot be read say why. */
static List *
load_each(MemoryContext context)
{
	uint64		n = statement_run(&statements[LIST_WEBHOOKS], NULL, NULL);
	Webhook    *listed = palloc0(Max(n, 1) * sizeof(Webhook));
	List	   *result = NIL;
	MemoryContext old;

	for (uint64 i = 0; i < n; i++)
	{
		strlcpy(listed[i].channel, result_text(i, 1), CHANNEL_NAME_MAX);
		listed[i].disabled = bool_at(i, 2);
	}
	for (uint64 i = 0; i < n; i++)
	{
		Load		one = {.channel = listed[i].channel,.context = context};
		Webhook    *webhook;
		ErrorData  *error;

		if (worker_subtry(load, &one, &error))
			webhook = one.webhooks ? linitial(one.webhooks) : NULL;
		else
		{
			webhook = MemoryContextAllocZero(context, sizeof(Webhook));
			*webhook = listed[i];
			webhook->fault = MemoryContextStrdup(context, error->message);
		}
		old = MemoryContextSwitchTo(context);
		if (webhook)
			result = lappend(result, webhook);
		MemoryContextSwitchTo(old);
	}
	return result;
}

/* The webhooks in force (of Webhook), in a memory context; in a worker. */
List *
store_webhooks(MemoryContext context)
{
	Load		all = {.context = context};
	ErrorData  *error;

	return worker_subtry(load, &all, &error) ? all.webhooks : load_each(context);
}

/* ---------------------------------------------------------------- messages */

/* Rows of msg_attempts for those marks that ask for one. */
static void
add_attempts(const WebhookMark *marks, int n)
{
	Datum	   *ids = palloc(n * sizeof(Datum));
	Datum	   *numbers = palloc(n * sizeof(Datum));
	Datum	   *times = palloc(n * sizeof(Datum));
	Datum	   *codes = palloc(n * sizeof(Datum));
	const char **channels = palloc(n * sizeof(char *));
	const char **classes = palloc(n * sizeof(char *));
	const char **addresses = palloc(n * sizeof(char *));
	const char **errors = palloc(n * sizeof(char *));
	const char **excerpts = palloc(n * sizeof(char *));
	Datum		values[10];
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		if (!marks[i].keep)
			continue;
		ids[kept] = Int64GetDatum(marks[i].id);
		numbers[kept] = Int32GetDatum(marks[i].attempt);
		times[kept] = Int32GetDatum(marks[i].milliseconds);
		codes[kept] = Int32GetDatum(marks[i].code);
		channels[kept] = marks[i].channel;
		classes[kept] = marks[i].class;
		addresses[kept] = marks[i].address;
		errors[kept] = marks[i].error;
		excerpts[kept] = marks[i].excerpt;
		kept++;
	}
	if (kept == 0)
		return;
	values[0] = array_of(ids, kept, INT8OID);
	values[1] = text_array(channels, kept);
	values[2] = array_of(numbers, kept, INT4OID);
	values[3] = array_of(times, kept, INT4OID);
	values[4] = text_array(classes, kept);
	values[5] = array_of(codes, kept, INT4OID);
	values[6] = text_array(addresses, kept);
	values[7] = text_array(errors, kept);
	values[8] = text_array(excerpts, kept);
	values[9] = TimestampTzGetDatum(clock_now());
	statement_run(&statements[ADD_ATTEMPTS], values, NULL);
}

/* Write down what became of messages, and of their attempts; marks are in the order of ids. */
void
store_webhook_marks(const WebhookMark *marks, int n)
{
	Datum	   *ids = palloc(Max(n, 1) * sizeof(Datum));
	Datum	   *verdicts = palloc(Max(n, 1) * sizeof(Datum));
	Datum	   *attempts = palloc(Max(n, 1) * sizeof(Datum));
	Datum	   *codes = palloc(Max(n, 1) * sizeof(Datum));
	Datum	   *dues = palloc(Max(n, 1) * sizeof(Datum));
	const char **response_ids = palloc(Max(n, 1) * sizeof(char *));
	const char **errors = palloc(Max(n, 1) * sizeof(char *));
	int64	   *expired = palloc(Max(n, 1) * sizeof(int64));
	Datum		values[8];
	int			moved = 0;
	int			nexpired = 0;
	int			ndelivered = 0;
	uint64		rows;

	for (int i = 0; i < n; i++)
	{
		if (marks[i].verdict == VERDICT_HELD)
			continue;
		if (marks[i].verdict == VERDICT_EXPIRED)
			expired[nexpired++] = marks[i].id;
		ndelivered += marks[i].verdict == VERDICT_DELIVERED;
		ids[moved] = Int64GetDatum(marks[i].id);
		verdicts[moved] = Int32GetDatum(marks[i].verdict);
		attempts[moved] = Int32GetDatum(marks[i].verdict == VERDICT_EXPIRED ? 0 : marks[i].attempt);
		codes[moved] = Int32GetDatum(marks[i].code);
		dues[moved] = TimestampTzGetDatum(marks[i].due_at);
		response_ids[moved] = marks[i].response_id;
		errors[moved] = marks[i].verdict == VERDICT_DELIVERED ? NULL : marks[i].error;
		moved++;
	}
	if (nexpired > 0)
		store_mailings_postpone(expired, nexpired);
	if (moved > 0)
	{
		values[0] = array_of(ids, moved, INT8OID);
		values[1] = array_of(verdicts, moved, INT4OID);
		values[2] = array_of(attempts, moved, INT4OID);
		values[3] = array_of(codes, moved, INT4OID);
		values[4] = text_array(response_ids, moved);
		values[5] = text_array(errors, moved);
		values[6] = array_of(dues, moved, TIMESTAMPTZOID);
		values[7] = TimestampTzGetDatum(clock_now());
		store_before_marks();
		rows = statement_run(&statements[ndelivered == moved ? MARK_DELIVERED : MARK], values, NULL);
		for (uint64 i = 0; i < rows; i++)
		{
			bool		isnull;

			/* whoever sends them learns of it when we have committed */
			if (bool_at(i, 3))
				note_due(result_text(i, 1), DatumGetTimestampTz(result_column(i, 2, &isnull)));
			else if (bool_at(i, 4))
				note_due(result_text(i, 1), clock_now());
		}
	}
	add_attempts(marks, n);
}

/* Disable a webhook, unless it was changed after it was asked: its messages wait.  Either way its settings are to be read again. */
void
store_webhook_disable(const char *channel, const char *reason, TimestampTz asked_at)
{
	Datum		values[3] = {CStringGetTextDatum(channel), CStringGetTextDatum(reason), TimestampTzGetDatum(asked_at)};

	(void) statement_run(&statements[DISABLE], values, NULL);
	note_config();
}

/* Show the state of a breaker. */
void
store_breaker(const char *channel, int worker, const Breaker *breaker)
{
	Datum		values[7];
	char		nulls[8] = "       ";

	values[0] = CStringGetTextDatum(channel);
	values[1] = Int32GetDatum(worker);
	if (breaker->state == BREAKER_CLOSED)
	{
		statement_run(&statements[FORGET_BREAKER], values, NULL);
		return;
	}
	values[2] = CStringGetTextDatum(breaker->state == BREAKER_OPEN ? "open" : "half-open");
	/* a breaker waits by another clock */
	values[3] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), breaker->until - now_ms()));
	nulls[3] = breaker->state == BREAKER_OPEN ? ' ' : 'n';
	values[4] = Int32GetDatum(breaker->calls);
	values[5] = Int32GetDatum(breaker->failures);
	values[6] = Int32GetDatum(breaker->trips);
	statement_run(&statements[SET_BREAKER], values, nulls);
}

/* Forget what a worker before this one showed. */
void
store_breakers_forget(int worker)
{
	Datum		values[1] = {Int32GetDatum(worker)};

	statement_run(&statements[FORGET_BREAKERS], values, NULL);
}

/* The keys of an ordered channel that wait for a message that is tried again. */
HeldKey *
store_held_keys(const char *channel, int *n)
{
	Datum		values[2] = {CStringGetTextDatum(channel), names_foreign()};
	uint64		rows = statement_run(&statements[HELD_KEYS], values, NULL);
	HeldKey    *keys = MemoryContextAlloc(cycle_context, Max(rows, 1) * sizeof(HeldKey));

	for (uint64 i = 0; i < rows; i++)
	{
		keys[i].key = MemoryContextStrdup(cycle_context, result_text(i, 1));
		keys[i].id = result_int64(i, 2, 0);
	}
	*n = (int) rows;
	return keys;
}
