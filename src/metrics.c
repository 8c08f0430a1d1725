/*
 * metrics.c
 *		What Prometheus and probes want to know, from shared memory alone.
 *
 * Counters and durations are written there by the workers as they go.  How much
 * waits in which channel nobody counts as he goes, so the first HTTP worker takes a
 * sample every few seconds, with a statement whose cost is bounded; a scrape only reads
 * it, and answers while the database is busy.
 */
#include "msgsys.h"

#include "call.h"
#include "compat.h"
#include "http_transaction.h"
#include "metrics.h"
#include "monotonic.h"
#include "shmem.h"
#include "worker.h"

#include <sys/time.h>

#include "access/xlog.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define CHANNELS_MAX	100		/* that have labels of their own */
#define COUNTED_MAX		10000	/* rows of a status that are counted, so that a look has a bounded cost */
#define SAMPLE_EVERY	5000	/* ms between two samples, at least */
#define SAMPLE_SHARE	50		/* and so many times what one costs */
#define SAMPLE_TIMEOUT	500		/* ms */
#define NSTATUSES		5		/* that wait for something */

static const char *const statuses[NSTATUSES] = {"idle", "scheduled", "retry", "sent", "received"};

/* The sample of a channel. */
typedef struct ChannelSample
{
	char		name[CHANNEL_NAME_MAX];
	int64		counts[NSTATUSES];
	double		oldest;			/* seconds; 0: nothing waits */
	bool		open;			/* its circuit breaker */
	bool		paused;
} ChannelSample;

static const int codes[] = {200, 201, 204, 206, 300, 304, 400, 401, 403, 404, 405, 406, 409, 413, 416, 429, 500, 503};

#define NCODES		((int) lengthof(codes) + 1) /* and all others */
#define NMETHODS	(METHOD_OTHER + 1)

typedef struct Metrics
{
	LWLock	   *lock;			/* of the sample */
	TimestampTz sampled_at;		/* 0: never */
	double		sample_seconds; /* what it cost */
	int			nchannels;
	ChannelSample channels[CHANNELS_MAX];
	pg_atomic_uint64 requests[ROUTE_COUNT][NMETHODS][lengthof(codes) + 1];
} Metrics;

static Metrics *metrics = NULL;

Size
metrics_size(void)
{
	return sizeof(Metrics);
}

/* Called while the shared memory is set up, with its lock held. */
void
metrics_init(void)
{
	bool		found;

	metrics = ShmemInitStruct("msgsys metrics", sizeof(Metrics), &found);
	if (found)
		return;
	memset(metrics, 0, sizeof(Metrics));
	metrics->lock = &(GetNamedLWLockTranche(MSGSYS_NAME))[1].lock;
	for (int r = 0; r < ROUTE_COUNT; r++)
		for (int m = 0; m < NMETHODS; m++)
			for (int c = 0; c < NCODES; c++)
				pg_atomic_init_u64(&metrics->requests[r][m][c], 0);
}

void
metrics_request(Route route, CallMethod method, int status, int64 microseconds)
{
	Durations	took = {0};
	int			code = 0;

	while (code < NCODES - 1 && codes[code] != status)
		code++;
	pg_atomic_fetch_add_u64(&metrics->requests[route][method][code], 1);
	durations_add(&took, microseconds, 1);
	slot_observe(HISTOGRAM_HTTP, &took);
}

/* ---------------------------------------------------------------- the sample */

/* A number of the result; 0 for null. */
static double
number(uint64 row, int column)
{
	char	   *text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return text ? strtod(text, NULL) : 0;
}

static bool
boolean(uint64 row, int column)
{
	char	   *text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return text && text[0] == 't';
}

/* Run the statement and publish what it says. */
static void
take_sample(const char *schema)
{
	TimestampTz began = GetCurrentTimestamp();
	char	   *query = psprintf("SELECT channel, idle, scheduled, retry, sent, received, oldest_age, circuit_open, paused FROM %s.msg_backlog_sample(%d, %d)",
								 schema, CHANNELS_MAX, COUNTED_MAX);
	uint64		n;

	if (SPI_execute(query, true, CHANNELS_MAX) != SPI_OK_SELECT)
		elog(ERROR, "could not take a sample of the backlog");
	n = SPI_processed;
	LWLockAcquire(metrics->lock, LW_EXCLUSIVE);
	for (uint64 row = 0; row < n; row++)
	{
		ChannelSample *channel = &metrics->channels[row];

		strlcpy(channel->name, SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1), CHANNEL_NAME_MAX);
		for (int s = 0; s < NSTATUSES; s++)
			channel->counts[s] = (int64) number(row, s + 2);
		channel->oldest = number(row, NSTATUSES + 2);
		channel->open = boolean(row, NSTATUSES + 3);
		channel->paused = boolean(row, NSTATUSES + 4);
	}
	metrics->nchannels = (int) n;
	metrics->sampled_at = GetCurrentTimestamp();
	metrics->sample_seconds = (metrics->sampled_at - began) / 1e6;
	LWLockRelease(metrics->lock);
}

void
metrics_sample(void)
{
	static int64 next = 0;
	static bool complained = false;
	int64		began = now_ms();
	MemoryContext context = CurrentMemoryContext;
	const RestCatalog *catalog;

	/* one worker does it for all */
	if (slot_number() != 0 || began < next)
		return;
	PG_TRY();
	{
		http_begin(SAMPLE_TIMEOUT);
		catalog = rest_catalog();
		if (catalog)
			take_sample(catalog->schema_quoted);
		http_end(false);
		complained = false;
	}
	PG_CATCH();
	{
		ErrorData  *error = http_failure(context);

		FlushErrorState();
		http_abort();
		MemoryContextSwitchTo(context);
		if (!complained)
			ereport(LOG,
					(errmsg("msgsys cannot count what waits, for its metrics: %s", error->message),
					 error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE ? errhint("Call msg_grant(role, 'http') for the role of msgsys.http_role.") : 0));
		complained = true;
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	next = now_ms() + Max(SAMPLE_EVERY, SAMPLE_SHARE * (now_ms() - began));
}

/* ---------------------------------------------------------------- text */

/* The begin of a metric. */
static void
head(StringInfo out, const char *name, const char *type, const char *help)
{
	appendStringInfo(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* The slots of this database's workers. */
static int
own_slots(WorkerView **views)
{
	int			n = 0;

	*views = palloc0(slot_count() * sizeof(WorkerView));
	for (int i = 0; i < slot_count(); i++)
		if (slot_view(i, &(*views)[n]) && ((*views)[n].dboid == MyDatabaseId || !OidIsValid((*views)[n].dboid)))
			n++;
	return n;
}

/* The buckets of a histogram, added up over the workers. */
static void
histogram(StringInfo out, const char *name, const char *label, Histogram which, const WorkerView *views, int n)
{
	static const int64 bounds[HISTOGRAM_NBOUNDS] = HISTOGRAM_BOUNDS;
	uint64		count = 0;
	uint64		sum = 0;
	const char *comma = label[0] ? "," : "";

	for (int b = 0; b <= HISTOGRAM_NBOUNDS; b++)
	{
		for (int i = 0; i < n; i++)
			count += views[i].histograms[which].counts[b];
		if (b < HISTOGRAM_NBOUNDS)
			appendStringInfo(out, "%s_bucket{%s%sle=\"%g\"} " UINT64_FORMAT "\n", name, label, comma, bounds[b] / 1e6, count);
		else
			appendStringInfo(out, "%s_bucket{%s%sle=\"+Inf\"} " UINT64_FORMAT "\n", name, label, comma, count);
	}
	for (int i = 0; i < n; i++)
		sum += views[i].histograms[which].sum;
	appendStringInfo(out, "%s_sum%s%s%s %.6f\n", name, label[0] ? "{" : "", label, label[0] ? "}" : "", sum / 1e6);
	appendStringInfo(out, "%s_count%s%s%s " UINT64_FORMAT "\n", name, label[0] ? "{" : "", label, label[0] ? "}" : "", count);
}

static uint64
total(const WorkerView *views, int n, Stage stage, Counter counter)
{
	uint64		result = 0;

	for (int i = 0; i < n; i++)
		if (views[i].stage == stage)
			result += views[i].totals[counter];
	return result;
}

static void
write_messages(StringInfo out, const WorkerView *views, int n)
{
	static const struct
	{
		const char *transport;
		const char *outcome;
		Stage		stage;
		Counter		counter;
	}			outcomes[] = {
		{"kafka", "success", STAGE_RELAY, COUNT_SENT},
		{"kafka", "refused", STAGE_RELAY, COUNT_REFUSED},
		{"webhook", "success", STAGE_WEBHOOK, COUNT_DELIVERED},
		{"webhook", "retry", STAGE_WEBHOOK, COUNT_FAILED},
		{"webhook", "dead", STAGE_WEBHOOK, COUNT_DEAD},
	};

	head(out, "msgsys_deliveries_total", "counter", "Messages that Kafka or a webhook took, or did not.");
	for (int i = 0; i < lengthof(outcomes); i++)
		appendStringInfo(out, "msgsys_deliveries_total{transport=\"%s\",outcome=\"%s\"} " UINT64_FORMAT "\n",
						 outcomes[i].transport, outcomes[i].outcome, total(views, n, outcomes[i].stage, outcomes[i].counter));
	head(out, "msgsys_messages_received_total", "counter", "Messages marked by a record or an acknowledgement.");
	appendStringInfo(out, "msgsys_messages_received_total " UINT64_FORMAT "\n", total(views, n, STAGE_RECEIVER, COUNT_RECEIVED));
	head(out, "msgsys_messages_expired_total", "counter", "Messages that were too old to be sent.");
	appendStringInfo(out, "msgsys_messages_expired_total " UINT64_FORMAT "\n",
					 total(views, n, STAGE_RELAY, COUNT_EXPIRED) + total(views, n, STAGE_WEBHOOK, COUNT_EXPIRED));

	head(out, "msgsys_step_duration_seconds", "histogram",
		 "Time of each step: claim (from the begin of the creating transaction), send (to Kafka's confirmation), receive (from the record's time in Kafka), deliver (from the webhook worker's claim).");
	histogram(out, "msgsys_step_duration_seconds", "step=\"claim\"", HISTOGRAM_CLAIM, views, n);
	histogram(out, "msgsys_step_duration_seconds", "step=\"send\"", HISTOGRAM_SEND, views, n);
	histogram(out, "msgsys_step_duration_seconds", "step=\"receive\"", HISTOGRAM_RECEIVE, views, n);
	histogram(out, "msgsys_step_duration_seconds", "step=\"deliver\"", HISTOGRAM_DELIVER, views, n);
	head(out, "msgsys_message_wait_seconds", "histogram", "Time from the begin of the creating transaction to Kafka's confirmation.");
	histogram(out, "msgsys_message_wait_seconds", "", HISTOGRAM_WAIT, views, n);
	head(out, "msgsys_delivery_duration_seconds", "histogram", "Time of webhook requests.");
	histogram(out, "msgsys_delivery_duration_seconds", "", HISTOGRAM_REQUEST, views, n);
}

/* Whether a worker can do its work, or has none to do. */
static bool
is_well(const WorkerView *view)
{
	switch (view->state)
	{
		case WORKER_IDLE:
		case WORKER_BUSY:
		case WORKER_PAUSED:
		case WORKER_NO_BROKER:
			return view->pid != 0;
		case WORKER_NOT_NEEDED:
		case WORKER_STANDBY:
			return true;
		default:
			return false;
	}
}

static double
unix_seconds(TimestampTz at)
{
	return at / 1e6 + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (double) SECS_PER_DAY;
}

static void
write_workers(StringInfo out, const WorkerView *views, int n)
{
	head(out, "msgsys_worker_up", "gauge", "Whether a worker can do its work, or has none to do.");
	for (int i = 0; i < n; i++)
		appendStringInfo(out, "msgsys_worker_up{stage=\"%s\",worker=\"%d\"} %d\n", stage_name(views[i].stage), views[i].number, is_well(&views[i]));
	head(out, "msgsys_workers", "gauge", "Workers by what they do.");
	for (int stage = 0; stage < STAGE_COUNT; stage++)
		for (int state = WORKER_STOPPED; state <= WORKER_BUSY; state++)
		{
			int			count = 0;

			for (int i = 0; i < n; i++)
				count += views[i].stage == stage && views[i].state == state;
			if (count > 0)
				appendStringInfo(out, "msgsys_workers{stage=\"%s\",state=\"%s\"} %d\n", stage_name((Stage) stage), worker_state_name((WorkerState) state), count);
		}
	head(out, "msgsys_worker_last_loop_timestamp_seconds", "gauge", "When a worker last showed its state.");
	for (int i = 0; i < n; i++)
		if (views[i].active_at != 0)
			appendStringInfo(out, "msgsys_worker_last_loop_timestamp_seconds{stage=\"%s\",worker=\"%d\"} %.3f\n", stage_name(views[i].stage),
							 views[i].number, unix_seconds(views[i].active_at));
	head(out, "msgsys_worker_events_total", "counter", "The counters of the workers, by their names in msg_stats().");
	for (int stage = 0; stage < STAGE_COUNT; stage++)
		for (int c = 0; c < COUNT_COUNTERS; c++)
		{
			uint64		value = total(views, n, (Stage) stage, (Counter) c);

			if (value > 0)
				appendStringInfo(out, "msgsys_worker_events_total{stage=\"%s\",event=\"%s\"} " UINT64_FORMAT "\n", stage_name((Stage) stage),
								 counter_name((Counter) c), value);
		}
}

/* Names of channels have no character that would have to be escaped. */
static void
write_backlog(StringInfo out)
{
	ChannelSample *channels = palloc(sizeof(metrics->channels));
	int			n;
	TimestampTz sampled_at;
	double		cost;

	LWLockAcquire(metrics->lock, LW_SHARED);
	n = metrics->nchannels;
	memcpy(channels, metrics->channels, n * sizeof(ChannelSample));
	sampled_at = metrics->sampled_at;
	cost = metrics->sample_seconds;
	LWLockRelease(metrics->lock);
	if (sampled_at == 0)
		return;
	head(out, "msgsys_messages", "gauge", "Messages that wait, by channel and status, as of the last sample; 10000 means that or more.");
	for (int i = 0; i < n; i++)
		for (int s = 0; s < NSTATUSES; s++)
			appendStringInfo(out, "msgsys_messages{channel=\"%s\",status=\"%s\"} " INT64_FORMAT "\n", channels[i].name, statuses[s], channels[i].counts[s]);
	head(out, "msgsys_oldest_pending_age_seconds", "gauge", "Age of the oldest message that could go on now.");
	for (int i = 0; i < n; i++)
		appendStringInfo(out, "msgsys_oldest_pending_age_seconds{channel=\"%s\"} %.3f\n", channels[i].name, channels[i].oldest);
	head(out, "msgsys_circuit_open", "gauge", "Whether a channel's circuit breaker is open.");
	for (int i = 0; i < n; i++)
		appendStringInfo(out, "msgsys_circuit_open{channel=\"%s\"} %d\n", channels[i].name, channels[i].open);
	head(out, "msgsys_channel_paused", "gauge", "Whether a channel is paused.");
	for (int i = 0; i < n; i++)
		appendStringInfo(out, "msgsys_channel_paused{channel=\"%s\"} %d\n", channels[i].name, channels[i].paused);
	head(out, "msgsys_last_sample_timestamp_seconds", "gauge", "When the messages that wait were counted last.");
	appendStringInfo(out, "msgsys_last_sample_timestamp_seconds %.3f\n", unix_seconds(sampled_at));
	head(out, "msgsys_sample_duration_seconds", "gauge", "How long that took.");
	appendStringInfo(out, "msgsys_sample_duration_seconds %.6f\n", cost);
}

static void
write_http(StringInfo out, const WorkerView *views, int n)
{
	static const char *const routes[] = {
		[ROUTE_TABLE] = "table",
		[ROUTE_RPC] = "rpc",
		[ROUTE_API] = "api",
		[ROUTE_UI] = "ui",
		[ROUTE_COMPAT] = "compat",
		[ROUTE_METRICS] = "metrics",
		[ROUTE_HEALTH] = "health",
		[ROUTE_OTHER] = "other",
	};

	head(out, "msgsys_http_requests_total", "counter", "Requests to the HTTP facade.");
	for (int r = 0; r < ROUTE_COUNT; r++)
		for (int m = 0; m < NMETHODS; m++)
			for (int c = 0; c < NCODES; c++)
			{
				uint64		value = pg_atomic_read_u64(&metrics->requests[r][m][c]);

				if (value > 0)
					appendStringInfo(out, "msgsys_http_requests_total{route=\"%s\",method=\"%s\",code=\"%s\"} " UINT64_FORMAT "\n", routes[r], call_method_names[m],
									 c < NCODES - 1 ? psprintf("%d", codes[c]) : "other", value);
			}
	head(out, "msgsys_http_request_duration_seconds", "histogram", "Time that requests took once they were there.");
	histogram(out, "msgsys_http_request_duration_seconds", "", HISTOGRAM_HTTP, views, n);
	head(out, "msgsys_http_connections", "gauge", "Open connections, by worker.");
	for (int i = 0; i < n; i++)
		if (views[i].stage == STAGE_HTTP)
			appendStringInfo(out, "msgsys_http_connections{worker=\"%d\"} %u\n", views[i].number, views[i].connections);
}

/* Answer /metrics, in Prometheus' text format. */
void
metrics_answer(Call *call)
{
	StringInfo	out = &call->body;
	WorkerView *views;
	int			n = own_slots(&views);

	call->status = 200;
	call_reply_field(call, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
	head(out, "msgsys_build_info", "gauge", "1, with the versions as labels.");
	appendStringInfo(out, "msgsys_build_info{version=\"" MSGSYS_VERSION "\",pg=\"%s\"} 1\n", PG_VERSION);
	write_messages(out, views, n);
	write_backlog(out);
	write_workers(out, views, n);
	write_http(out, views, n);
}

/* ---------------------------------------------------------------- health */

/* Answer /health/live (this worker answers) or /health/ready (all others can work; on a standby: it can be read). */
void
health_answer(Call *call, bool ready)
{
	StringInfo	out = &call->body;
	WorkerView *views;
	int			n = own_slots(&views);
	bool		well = true;

	call_reply_field(call, "Content-Type", "application/json; charset=utf-8");
	call_reply_field(call, "Cache-Control", "no-store");
	if (!ready)
	{
		call->status = 200;
		appendStringInfoString(out, "{\"status\":\"live\"}");
		return;
	}
	for (int i = 0; i < n; i++)
		well = well && is_well(&views[i]);
	call->status = well ? 200 : 503;
	appendStringInfo(out, "{\"status\":\"%s\",\"workers\":[", !well ? "not ready" : RecoveryInProgress() ? "standby" : "ready");
	for (int i = 0; i < n; i++)
	{
		appendStringInfo(out, "%s{\"stage\":\"%s\",\"worker\":%d,\"well\":%s,\"state\":", i > 0 ? "," : "", stage_name(views[i].stage),
						 views[i].number, is_well(&views[i]) ? "true" : "false");
		escape_json(out, worker_state_name(views[i].state));
		appendStringInfoChar(out, '}');
	}
	appendStringInfoString(out, "]}");
}
