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

#include "backoff.h"
#include "channel.h"
#include "endpoint.h"
#include "flush.h"
#include "http_client.h"
#include "outcome.h"
#include "pace.h"
#include "request.h"
#include "shmem.h"
#include "store.h"
#include "store_webhook.h"
#include "worker.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define LOCK_TIMEOUT	"100ms" /* a row that a user holds waits, not all others */
#define READY_MOST		512		/* jobs of an endpoint that wait for their turn */
#define JOBS_MOST		20000	/* in memory */
#define JOBS_SIZE_MOST	(64 * 1024 * 1024)
#define RESULTS_AT_ONCE	256

/* What a claim works on. */
typedef struct Claim
{
	ClaimKind	kind;
	ClaimShare *shares;
	Endpoint  **endpoints;		/* of each share */
	int		   *wanted;			/* new jobs of each share */
	int		   *claimed;		/* rows */
	int		   *taken;			/* jobs made */
	bool	   *left;			/* rows were left for want of room */
	TimestampTz now;
} Claim;

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

/* Read the webhooks' settings; what waits for its turn is given back, for its request was made by the old ones. */
static bool
load_webhooks(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "msgsys webhooks", ALLOCSET_DEFAULT_SIZES);
	List	   *webhooks;
	ListCell   *lc;

	if (!worker_begin())
	{
		MemoryContextDelete(context);
		return false;
	}
	webhooks = store_webhooks(context);
	worker_commit();

	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);

		endpoint->webhook = NULL;
		endpoint->channel = channel_find(endpoint->name);
	}
	foreach(lc, webhooks)
	{
		Webhook    *webhook = lfirst(lc);
		Endpoint   *endpoint = endpoint_make(webhook->channel);

		endpoint->webhook = webhook;
		endpoint->channel = channel_find(webhook->channel);
		endpoint->keys_wanted = webhook->ordered;
		endpoint->gone = false;
		/* the URL may be another one */
		endpoint->resolved = false;
	}
	if (settings_context)
		MemoryContextDelete(settings_context);
	settings_context = context;

	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);
		Endpoint   *endpoint = endpoint_find(channel->name);

		notes_want(channel->name, endpoint && endpoint->webhook &&
				   (channel->topic == NULL || endpoint->webhook->ordered));
	}
	give_all_back();
	return true;
}

/* ---------------------------------------------------------------- claims */

/* The message has expired before it could be sent. */
static void
job_expired(Job *job)
{
	memset(&job->mark, 0, sizeof(job->mark));
	job->mark.id = job->id;
	job->mark.channel = job->endpoint->name;
	job->mark.verdict = VERDICT_EXPIRED;
	flush_add(job);
}

/* How far this worker is in the rows of a claim; NULL where they come by their due time. */
static Cursor *
cursor_of(Endpoint *endpoint, ClaimKind kind)
{
	if (kind == CLAIM_WEBHOOK_DUE)
		return NULL;
	return &endpoint->cursors[kind == CLAIM_WEBHOOK_IDLE ? WAITING_IDLE : WAITING_RECEIVED];
}

/* Take a row into memory as a job. */
static bool
take_row(const ClaimedRow *row, void *arg)
{
	Claim	   *claim = arg;
	int			s = row->share;
	Endpoint   *endpoint = claim->endpoints[s];
	Cursor	   *cursor = cursor_of(endpoint, claim->kind);
	Job		   *job;
	MemoryContext old;

	claim->claimed[s]++;
	if (claim->left[s])
		return true;
	if (job_find(row->id) == NULL)
	{
		if (claim->taken[s] >= claim->wanted[s] || jobs_size() > JOBS_SIZE_MOST)
		{
			claim->left[s] = true;
			return true;
		}
		claim->taken[s]++;
		job = job_make(endpoint, row->id);
		job->claimed_at = claim->now;
		/* the relay has counted this attempt where there is one */
		job->attempt = endpoint->channel->topic ? Max(row->attempts, 1) : row->attempts + 1;
		job->was_idle = claim->kind == CLAIM_WEBHOOK_IDLE;
		job->expires_at = row->expires_at;
		if (row->expires_at <= claim->now)
			job_expired(job);
		else
		{
			old = MemoryContextSwitchTo(job->context);
			request_build(&job->request, endpoint->webhook, row, job->attempt);
			MemoryContextSwitchTo(old);
			job->size = job->request.body_length + 2048;
			if (!job_ready(job, row->key, row->key_length))
				job_free(job);
			else if (endpoint_is_paced(endpoint))
				job_take_into_run(job);
		}
	}
	if (cursor && row->id > cursor->low)
		cursor->low = row->id;
	return true;
}

/* How many more jobs an endpoint may have waiting. */
static int
wanted_of(Endpoint *endpoint, TimestampTz now)
{
	int			most;

	if (!endpoint_works(endpoint))
		return 0;
	if (!breaker_permits(&endpoint->breaker, now / 1000))
		return 0;
	most = endpoint_is_paced(endpoint) ? pace_left(endpoint->channel) : READY_MOST;
	if (endpoint->breaker.state != BREAKER_CLOSED)
		return endpoint->njobs == 0 ? Min(most, 1) : 0; /* the probe */
	/* not for each job that has ended: claims are made in batches */
	if (endpoint->nready > READY_MOST / 2 || endpoint->njobs >= READY_MOST + 2 * endpoint->webhook->concurrency)
		return 0;
	return Min(most, READY_MOST - endpoint->nready);
}

/* Whether an endpoint has rows of a kind to be claimed. */
static bool
has_rows(Endpoint *endpoint, ClaimKind kind, TimestampTz now)
{
	Cursor	   *cursor = cursor_of(endpoint, kind);

	/* what is to be sent to the topic is the relay's affair */
	if (kind != CLAIM_WEBHOOK_RECEIVED && endpoint->channel->topic)
		return false;
	return cursor ? cursor->dirty : endpoint->next_due <= now;
}

/* After a claim: who has more rows, and when. */
static void
look_ahead(Claim *claim, int nshares)
{
	/* those that are due by now are in memory, or their keys wait, but for what is left */
	if (claim->kind == CLAIM_WEBHOOK_DUE)
		store_next_due(claim->shares, nshares, claim->now);
	for (int s = 0; s < nshares; s++)
	{
		Endpoint   *endpoint = claim->endpoints[s];
		Cursor	   *cursor = cursor_of(endpoint, claim->kind);
		bool		more = claim->left[s] || claim->claimed[s] >= claim->shares[s].limit;

		if (cursor)
			cursor->dirty = more;
		else
			endpoint->next_due = more ? claim->now : claim->shares[s].channel->next_due;
	}
}

/* Claim rows of one kind, of channels with a pace or without.  Returns how many jobs that made. */
static int
claim_kind(ClaimKind kind, bool paced, TimestampTz now)
{
	int			room = list_length(endpoints);
	Claim		claim = {.kind = kind,.now = now};
	int			nshares = 0;
	int			made = 0;
	ListCell   *lc;

	claim.shares = palloc0(Max(room, 1) * sizeof(ClaimShare));
	claim.endpoints = palloc(Max(room, 1) * sizeof(Endpoint *));
	claim.wanted = palloc(Max(room, 1) * sizeof(int));
	claim.claimed = palloc0(Max(room, 1) * sizeof(int));
	claim.taken = palloc0(Max(room, 1) * sizeof(int));
	claim.left = palloc0(Max(room, 1) * sizeof(bool));
	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);
		int			wanted = wanted_of(endpoint, now);

		if (wanted <= 0 || endpoint_is_paced(endpoint) != paced || !has_rows(endpoint, kind, now) || jobs_count() >= JOBS_MOST)
			continue;
		claim.endpoints[nshares] = endpoint;
		claim.wanted[nshares] = wanted;
		claim.shares[nshares].channel = endpoint->channel;
		if (cursor_of(endpoint, kind))
			claim.shares[nshares].low = cursor_of(endpoint, kind)->low;
		/* rows in memory may be claimed with them */
		claim.shares[nshares].limit = wanted + endpoint->njobs;
		nshares++;
	}
	if (nshares == 0 || !worker_begin())
		return 0;
	pgstat_report_activity(STATE_RUNNING, "claiming messages");
	store_claim(kind, claim.shares, nshares, slot_number(), paced ? 1 : setting_webhook_workers, take_row, &claim);
	look_ahead(&claim, nshares);
	worker_commit();
	for (int s = 0; s < nshares; s++)
		made += claim.taken[s];
	slot_count_up(COUNT_CLAIMED, made);
	return made;
}

/* Whether it has to be read again which keys of an ordered channel wait. */
static bool
any_keys_wanted(void)
{
	ListCell   *lc;

	foreach(lc, endpoints)
		if (((Endpoint *) lfirst(lc))->keys_wanted)
			return true;
	return false;
}

/* Read it. */
static void
load_keys(void)
{
	ListCell   *lc;

	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);
		HeldKey    *held;
		int			n;

		if (!endpoint->keys_wanted)
			continue;
		held = store_held_keys(endpoint->name, &n);
		endpoint_forget_holds(endpoint);
		for (int i = 0; i < n; i++)
			endpoint_hold_key(endpoint, held[i].key, strlen(held[i].key), held[i].id);
		endpoint->keys_wanted = false;
	}
}

/* Begin the runs that are due, where they can be gone on with. */
static void
open_runs(TimestampTz now)
{
	ListCell   *lc;

	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);

		if (endpoint_is_paced(endpoint) && endpoint_works(endpoint) && breaker_permits(&endpoint->breaker, now / 1000))
			pace_open(endpoint->channel, now);
	}
}

/* End the runs that have nothing more to take, once all that they took has ended. */
static void
close_runs(TimestampTz now)
{
	ListCell   *lc;

	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);
		bool		more = false;

		if (!endpoint_is_paced(endpoint) || !endpoint_works(endpoint) || endpoint->channel->pace.run_id == 0)
			continue;
		if (pace_left(endpoint->channel) > 0)
			for (int kind = CLAIM_WEBHOOK_IDLE; kind <= CLAIM_WEBHOOK_DUE; kind++)
				more |= has_rows(endpoint, kind, now);
		if (!more)
			pace_close(endpoint->channel);
	}
}

static bool
claim_all(TimestampTz now)
{
	int			made = 0;

	if (any_keys_wanted())
	{
		if (!worker_begin())
			return false;
		load_keys();
		worker_commit();
	}
	open_runs(now);
	/* what is tried again is older */
	for (int kind = CLAIM_WEBHOOK_DUE; kind >= CLAIM_WEBHOOK_IDLE; kind--)
		made += claim_kind(kind, false, now) + claim_kind(kind, true, now);
	close_runs(now);
	return made > 0;
}

/* ---------------------------------------------------------------- requests */

/* Start a job's request. */
static void
start(Job *job, TimestampTz now)
{
	Endpoint   *endpoint = job->endpoint;
	HttpRequest http;
	char		err[200] = "its signing secret cannot be read";

	if (job->expires_at <= now)
	{
		job_expired(job);
		return;
	}
	if (request_sign(&job->request, endpoint->webhook))
	{
		request_http(&job->request, endpoint->webhook, &http);
		http.opaque = job;
		if (http_start(client, &http, err, sizeof(err)))
		{
			endpoint_called(endpoint, now);
			return;
		}
	}
	outcome_unsendable(job, err);
	flush_add(job);
}

/* Start what may be started now; *again_at is lowered to when more may be, for want of time alone. */
static void
start_all(TimestampTz now, TimestampTz *again_at)
{
	int			n = list_length(endpoints);
	int			idle = 0;		/* endpoints asked in vain, in a row */

	while (idle < n)
	{
		Endpoint   *endpoint = list_nth(endpoints, first_turn++ % n);
		Job		   *job;

		if (dlist_is_empty(&endpoint->ready) ||
			!endpoint_permits(endpoint, now, http_pending(client), again_at))
		{
			idle++;
			continue;
		}
		idle = 0;
		job = dlist_container(Job, node, dlist_pop_head_node(&endpoint->ready));
		endpoint->nready--;
		start(job, now);
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
			endpoint_record(endpoint, outcome_judge(job, &results[i], now), now);
			flush_add(job);
			if (job->mark.verdict == VERDICT_HELD && !endpoint->gone)
			{
				endpoint->gone = true;
				endpoint_give_back(endpoint);
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
			endpoint->next_due = Min(endpoint->next_due, notes[i].due);
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

		endpoint->next_due = endpoint->channel ? endpoint->channel->next_due : DT_NOEND;
		endpoint->keys_wanted = endpoint->webhook && endpoint->webhook->ordered;
	}
	for (int kind = 0; kind < WAITING_KINDS; kind++)
		store_sweep(kind, found_waiting);
	load_keys();
}

/* Milliseconds until there is something to do that nothing wakes us for. */
static long
idle_time(TimestampTz now, TimestampTz again_at)
{
	TimestampTz until = again_at;
	long		timeout = http_timeout(client);
	ListCell   *lc;

	until = Min(until, flush_due_at());
	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);

		if (endpoint_works(endpoint) && endpoint_is_paced(endpoint))
			until = Min(until, Max(pace_next(endpoint->channel), endpoint->breaker.state == BREAKER_OPEN ?
								   endpoint->breaker.until * 1000 : 0));
		else if (endpoint_works(endpoint) && endpoint->channel->topic == NULL)
			until = Min(until, Max(endpoint->next_due, endpoint->breaker.state == BREAKER_OPEN ?
								   endpoint->breaker.until * 1000 : 0));
		else if (endpoint->breaker.state == BREAKER_OPEN && endpoint->webhook)
			until = Min(until, endpoint->breaker.until * 1000 + 1000);
	}
	if (timeout >= 0)
		until = Min(until, TimestampTzPlusMilliseconds(now, timeout));
	/* round up, lest a due time is missed by less than a millisecond */
	return Min(Min(setting_poll_interval, worker_sweep_in()),
			   TimestampDifferenceMilliseconds(now, until) + (until > now ? 1 : 0));
}

/* Main loop of a webhook worker. */
void
webhook_main(void)
{
	bool		breakers_forgotten = false;

	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	for (int i = 0; i < setting_webhook_connections; i++)
		ReserveExternalFD();
	for (;;)
	{
		bool		reloaded = false;
		bool		stopping;
		TimestampTz now;
		TimestampTz again_at = DT_NOEND;

		worker_cycle();
		stopping = worker_stopping();
		if (stopping && flush_waiting() == 0 && (client == NULL || http_pending(client) == 0))
			worker_stop();
		take_notes();
		if (!worker_refresh(&reloaded) || (reloaded && !load_webhooks()))
		{
			give_all_back();
			worker_rest(setting_poll_interval);
			continue;
		}
		if (!client_ready())
		{
			worker_rest(setting_poll_interval);
			continue;
		}
		if (!breakers_forgotten && worker_begin())
		{
			store_breakers_forget(slot_number());
			worker_commit();
			breakers_forgotten = true;
		}
		now = clock_now();
		if (reloaded)
			worker_want_sweep();
		worker_sweep(look);

		http_tick(client);
		take_results();
		if (flush_is_due(clock_now(), http_pending(client) > 0))
			flush_write(clock_now());
		if (!stopping)
		{
			claim_all(now);
			start_all(clock_now(), &again_at);
		}
		http_tick(client);
		/* some may have ended at once, and nothing tells of that later */
		take_results();
		slot_state(http_pending(client) > 0 || flush_waiting() > 0 ? WORKER_BUSY :
				   channels_all_paused() ? WORKER_PAUSED : WORKER_IDLE);
		pgstat_report_activity(STATE_IDLE, NULL);
		now = clock_now();
		worker_rest(flush_is_due(now, http_pending(client) > 0) || (stopping && http_pending(client) == 0) ? 0 : idle_time(now, again_at));
	}
}
