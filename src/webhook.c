/*
 * webhook.c
 *		The webhook stage: posts messages to their channels' endpoints, and writes down
 *		what became of them.
 *
 * A message is read without a lock, for each belongs to one worker by its key, and
 * that worker remembers what it has in memory (a job) until the outcome is
 * committed.  No transaction is open while a request is under way.  A crash
 * forgets the jobs: their messages are as they were, and are sent again under the same
 * webhook-id.
 *
 * Whose turn it is: channels take turns, each within its own limits, and none takes
 * more of the connections than are left for all others ("dynamic threshold":
 * Choudhury and Hahne, 1998), so that endpoints that hang cannot take them all.
 */
#include "msgsys.h"

#include "channel.h"
#include "endpoint.h"
#include "flush.h"
#include "http_client.h"
#include "monotonic.h"
#include "outcome.h"
#include "request.h"
#include "shmem.h"
#include "store.h"
#include "store_webhook.h"
#include "webhook_claim.h"
#include "worker.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define LOCK_TIMEOUT	"100ms" /* a row that a user holds waits, not all others */
#define RESULTS_AT_ONCE	256

static HttpClient *client = NULL;
static char *allowed = NULL;	/* msgsys.webhook_allow as the client has it */
static MemoryContext settings_context = NULL;
static int	first_turn = 0;		/* which endpoint is asked first */

/* ---------------------------------------------------------------- settings */

static void
close_at_exit(int code, Datum arg)
{
	http_close(client);
	client = NULL;
}

/* Open the HTTP client, or tell it of a changed setting. */
static bool
client_ready(void)
{
	char		err[256];
	HttpClientConfig config;

	if (allowed && strcmp(allowed, setting_webhook_allow) == 0)
		return client != NULL;
	if (allowed)
		pfree(allowed);
	allowed = MemoryContextStrdup(TopMemoryContext, setting_webhook_allow);
	if (client == NULL)
	{
		request_client_config(&config, worker_reactor(), setting_webhook_connections);
		client = http_open(&config, err, sizeof(err));
		if (client)
			on_proc_exit(close_at_exit, (Datum) 0);
	}
	else if (http_allow(client, setting_webhook_allow, err, sizeof(err)))
		return true;
	else
	{
		/* what was allowed before may be what is not allowed now */
		http_allow(client, "", NULL, 0);
		ereport(LOG,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("msgsys.webhook_allow is not a list of networks, so nothing is allowed: %s", err)));
		return true;
	}
	if (client == NULL)
	{
		slot_error(err);
		ereport(LOG, (errmsg("msgsys cannot make its HTTP client: %s", err)));
	}
	return client != NULL;
}

/* Give back all that is not under way. */
static void
give_all_back(void)
{
	ListCell   *lc;

	foreach(lc, endpoints)
		endpoint_give_back(lfirst(lc));
}

#define SWEEP_AGAIN	1000		/* ms between two tries at a sweep that failed */
#define LOAD_AGAIN	2000		/* ms between two tries at settings that could not be read */
#define LOAD_TRIES	3			/* before a webhook whose settings cannot be read is disabled */

static int64 sweep_again_ms = 0;	/* by now_ms(): no sweep before that */
static bool stale = true;		/* the settings are to be read */
static int64 stale_until_ms = 0;	/* by now_ms(): and not before that */

/* The settings of a webhook cannot be read, once more: its messages wait, and at the third time it is disabled. */
static void
note_fault(Endpoint *endpoint, const char *fault)
{
	if (endpoint->fault == NULL || strcmp(endpoint->fault, fault) != 0)
		ereport(LOG,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("msgsys cannot use the settings of the webhook of channel \"%s\": %s", endpoint->name, fault),
				 errdetail("Its messages wait.")));
	slot_error(fault);
	if (endpoint->fault)
		pfree(endpoint->fault);
	endpoint->fault = MemoryContextStrdup(TopMemoryContext, fault);
	if (++endpoint->faults < LOAD_TRIES)
	{
		stale = true;
		stale_until_ms = now_ms() + LOAD_AGAIN;
	}
	else
	{
		endpoint_disable(endpoint, psprintf("its settings cannot be used: %s", fault), GetCurrentTimestamp());
		flush_breakers();
	}
}

typedef struct Load
{
	MemoryContext context;
	List	   *webhooks;		/* of Webhook */
} Load;

static void
load_work(void *arg)
{
	Load	   *load = arg;

	load->webhooks = store_webhooks(load->context);
}

/* A webhook's settings, or why there are none. */
static void
use_webhook(Webhook *webhook)
{
	Endpoint   *endpoint = endpoint_make(webhook->channel);

	endpoint->channel = channel_find(webhook->channel);
	if (webhook->fault)
	{
		if (!webhook->disabled)
			note_fault(endpoint, webhook->fault);
		return;
	}
	endpoint->webhook = webhook;
	endpoint->keys_wanted = webhook->ordered;
	endpoint->gone = endpoint->disable_reason != NULL;
	endpoint->faults = 0;
	/* try at once */
	endpoint->outages = 0;
	endpoint->outage_until_ms = 0;
	if (endpoint->fault)
		pfree(endpoint->fault);
	endpoint->fault = NULL;
	/* the URL may be another one */
	endpoint->resolved = false;
}

/* Read the webhooks' settings; what waits for its turn is given back, for its request was made by the old ones. */
static void
load_webhooks(void)
{
	Load		load = {AllocSetContextCreate(TopMemoryContext, "msgsys webhooks", ALLOCSET_DEFAULT_SIZES)};
	ErrorData  *error;
	ListCell   *lc;

	stale = false;
	/* what is below may be of channels that are gone */
	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);

		endpoint->webhook = NULL;
		endpoint->channel = channel_find(endpoint->name);
	}
	give_all_back();
	if (!worker_try_any(load_work, &load, &error))
	{
		MemoryContextDelete(load.context);
		ereport(LOG, (errcode(error->sqlerrcode), errmsg("msgsys could not read the settings of webhooks: %s", error->message)));
		slot_error(error->message);
		stale = true;
		stale_until_ms = now_ms() + LOAD_AGAIN;
		return;
	}
	foreach(lc, load.webhooks)
		use_webhook(lfirst(lc));
	if (settings_context)
		MemoryContextDelete(settings_context);
	settings_context = load.context;

	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);
		Endpoint   *endpoint = endpoint_find(channel->name);

		notes_want(channel->name, endpoint && endpoint->webhook &&
				   (channel->topic == NULL || endpoint->webhook->ordered));
	}
}

/* ---------------------------------------------------------------- requests */

/* No request can be made for this webhook: this one's message, and the others', are as they were. */
static void
outage(Job *job, const char *reason)
{
	Endpoint   *endpoint = job->endpoint;

	job_give_back(job);
	endpoint_outage(endpoint, reason);
	endpoint_give_back(endpoint);
}

/* Start a job's request. */
static void
start(Job *job)
{
	Endpoint   *endpoint = job->endpoint;
	HttpRequest http;
	HttpOutcome fault = HTTP_BAD_REQUEST;
	char		err[200] = "its signing secret cannot be read";

	if (job->expires_at != DT_NOEND && job->expires_at <= clock_now())
	{
		claim_expired(job);
		return;
	}
	if (request_sign(&job->request, endpoint->webhook))
	{
		request_http(&job->request, endpoint->webhook, &http);
		http.opaque = job;
		if (http_start(client, &http, &fault, err, sizeof(err)))
		{
			endpoint_called(endpoint);
			return;
		}
		if (fault == HTTP_UNUSABLE)
		{
			outage(job, err);
			return;
		}
	}
	outcome_unsendable(job, err);
	flush_add(job);
}

/* Start what may be started now; *again_ms is lowered to when more may be, for want of time alone. */
static void
start_all(int64 *again_ms)
{
	int			n = list_length(endpoints);
	int			idle = 0;		/* endpoints asked in vain, in a row */

	while (idle < n)
	{
		Endpoint   *endpoint = list_nth(endpoints, first_turn++ % n);
		Job		   *job;

		if (dlist_is_empty(&endpoint->ready) ||
			!endpoint_permits(endpoint, http_pending(client), again_ms))
		{
			idle++;
			continue;
		}
		idle = 0;
		job = dlist_container(Job, node, dlist_pop_head_node(&endpoint->ready));
		endpoint->nready--;
		start(job);
	}
	first_turn %= Max(n, 1);
}

/* Take what has been answered, or has failed. */
static void
take_results(void)
{
	static HttpResult results[RESULTS_AT_ONCE];
	int			n;

	while ((n = http_results(client, results, RESULTS_AT_ONCE)) > 0)
	{
		TimestampTz now = clock_now();
		Durations	took = {0};

		for (int i = 0; i < n; i++)
		{
			Job		   *job = results[i].opaque;
			Endpoint   *endpoint = job->endpoint;

			durations_add(&took, (int64) results[i].elapsed_ms * 1000, 1);
			endpoint->inflight--;
			if (results[i].address[0] != '\0')
				endpoint->resolved = true;
			if (results[i].outcome == HTTP_UNUSABLE)
			{
				if (breaker_forget(&endpoint->breaker, now_ms()))
				{
					endpoint->breaker_changed = true;
					flush_breakers();
				}
				outage(job, results[i].error);
				continue;
			}
			endpoint_outage_ends(endpoint);
			endpoint_record(endpoint, outcome_judge(job, &results[i], now));
			flush_add(job);
			if (job->mark.verdict == VERDICT_HELD && !endpoint->gone)
			{
				endpoint_disable(endpoint, job->mark.error, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), -results[i].elapsed_ms));
				flush_breakers();
				ereport(LOG,
						(errmsg("msgsys disables the webhook of channel \"%s\": %s", endpoint->name, job->mark.error)));
			}
			if (endpoint->breaker_changed)
			{
				flush_breakers();
				if (endpoint->breaker.state == BREAKER_OPEN)
					endpoint_give_back(endpoint);
			}
		}
		slot_count_up(COUNT_REQUESTS, n);
		slot_observe(HISTOGRAM_REQUEST, &took);
	}
}

/* ---------------------------------------------------------------- main loop */

/* Act on what commits have noted. */
static void
take_notes(void)
{
	Note	   *notes;
	bool		sweep;
	int			n = notes_take(&notes, &sweep);

	if (sweep)
		worker_want_sweep();
	for (int i = 0; i < n; i++)
	{
		Endpoint   *endpoint = endpoint_find(notes[i].channel);

		if (endpoint == NULL || endpoint->channel == NULL)
		{
			worker_want_sweep();	/* made by the same commit, perhaps */
			continue;
		}
		for (int kind = 0; kind < WAITING_KINDS; kind++)
			if (notes[i].low[kind] != PG_INT64_MAX)
				endpoint_waiting(endpoint, kind, notes[i].low[kind]);
		if (notes[i].due != DT_NOEND)
		{
			endpoint_due(endpoint, notes[i].due);
			/* a message on another way to us may be tried again first */
			if (endpoint->webhook && endpoint->webhook->ordered && endpoint->channel->topic)
				endpoint->keys_wanted = true;
		}
	}
}

/* A sweep found the first row of a kind that waits. */
static void
found_waiting(const char *channel, WaitingKind kind, int64 id)
{
	Endpoint   *endpoint = endpoint_find(channel);

	if (endpoint)
		endpoint_waiting(endpoint, kind, id - 1);
}

/* Look from the beginning, for what no note told of. */
static void
look(void)
{
	ListCell   *lc;

	foreach(lc, channels)
		((Channel *) lfirst(lc))->next_due = DT_NOEND;
	store_sweep_due();
	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);

		endpoint->next_due = DT_NOEND;
		if (endpoint->channel)
			endpoint_due(endpoint, endpoint->channel->next_due);
		endpoint->keys_wanted = endpoint->webhook && endpoint->webhook->ordered;
	}
	for (int kind = 0; kind < WAITING_KINDS; kind++)
		store_sweep(kind, found_waiting);
	claim_load_keys();
}

/* Milliseconds until there is something to do that nothing wakes us for. */
static long
idle_time(int64 again_ms)
{
	int64		now = now_ms();
	int64		wait = Min(setting_poll_interval, Max(worker_sweep_in(), sweep_again_ms - now));
	long		timeout = http_timeout(client);
	ListCell   *lc;

	wait = Min(wait, again_ms == NEVER_MS ? NEVER_MS : again_ms - now);
	wait = Min(wait, flush_due_in());
	wait = Min(wait, claim_retry_in());
	if (stale)
		wait = Min(wait, stale_until_ms - now);
	if (!flush_is_stuck())
		foreach(lc, endpoints)
			wait = Min(wait, claim_due_in(lfirst(lc)));
	if (timeout >= 0)
		wait = Min(wait, timeout);
	return (long) Max(wait, 0);
}

/* Something that uses transactions of its own: where it fails, that is logged, and it is done again later. */
static bool
guarded(void (*step) (void *arg), void *arg)
{
	volatile bool done = false;

	PG_TRY();
	{
		step(arg);
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		AbortCurrentTransaction();
		MemoryContextSwitchTo(cycle_context);
		error = CopyErrorData();
		FlushErrorState();
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("msgsys webhooks wait: %s", error->message)));
		slot_error(error->message);
	}
	PG_END_TRY();
	return done;
}

typedef struct Refresh
{
	bool		works;
	bool		reloaded;
} Refresh;

static void
refresh(void *arg)
{
	Refresh    *result = arg;

	result->works = worker_refresh(&result->reloaded);
}

static void
sweep(void *arg)
{
	worker_sweep(look);
}

static void
forget_breakers(void *arg)
{
	store_breakers_forget(slot_number());
}

/* Have the settings be those that hold now.  Returns whether anything may be sent. */
static bool
settings_ready(void)
{
	static bool breakers_forgotten = false;
	Refresh		result = {false, false};
	ErrorData  *error;

	if (!guarded(refresh, &result))
		return false;
	if (result.reloaded)
	{
		ListCell   *lc;

		stale = true;
		stale_until_ms = 0;
		/* those that are gone are freed */
		foreach(lc, endpoints)
			((Endpoint *) lfirst(lc))->channel = channel_find(((Endpoint *) lfirst(lc))->name);
	}
	if (!result.works)
		return false;
	if (stale && stale_until_ms <= now_ms())
	{
		load_webhooks();
		worker_want_sweep();
	}
	if (!client_ready())
		return false;
	if (!breakers_forgotten)
		breakers_forgotten = worker_try_any(forget_breakers, NULL, &error);
	return true;
}

/* Main loop of a webhook worker. */
void
webhook_main(void)
{
	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	for (int i = 0; i < setting_webhook_connections; i++)
		ReserveExternalFD();
	for (;;)
	{
		bool		stopping;
		int64		again_ms = NEVER_MS;

		worker_cycle();
		stopping = worker_stopping();
		if (stopping && flush_waiting() == 0 && (client == NULL || http_pending(client) == 0))
			worker_stop();
		take_notes();
		if (!settings_ready())
		{
			give_all_back();
			/* what is under way goes on */
			if (client)
			{
				http_tick(client);
				take_results();
			}
			worker_rest(client && http_timeout(client) >= 0 ? Min(setting_poll_interval, http_timeout(client)) : setting_poll_interval);
			continue;
		}
		if (sweep_again_ms <= now_ms() && !guarded(sweep, NULL))
			sweep_again_ms = now_ms() + SWEEP_AGAIN;

		http_tick(client);
		take_results();
		if (flush_is_due(http_pending(client) > 0))
			flush_write();
		if (!stopping && !flush_is_stuck())
		{
			claim_all();
			start_all(&again_ms);
		}
		http_tick(client);
		/* some may have ended at once, and nothing tells of that later */
		take_results();
		slot_well();
		slot_state(http_pending(client) > 0 || flush_is_busy() ? WORKER_BUSY :
				   channels_all_paused() ? WORKER_PAUSED : WORKER_IDLE);
		pgstat_report_activity(STATE_IDLE, NULL);
		worker_rest(flush_is_due(http_pending(client) > 0) || (stopping && http_pending(client) == 0) ? 0 : idle_time(again_ms));
	}
}
