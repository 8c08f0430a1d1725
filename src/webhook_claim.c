/*
 * webhook_claim.c
 *		Which rows a webhook worker takes into memory, and when.
 *
 * A claim never stands still before rows that it cannot take, such as those behind a
 * message of their key that is tried again: it reads them once, by id or by (due_at, id), and
 * goes on behind them.  They come again once their key is free (endpoint.c).
 *
 * An ERROR while a message is made a request concerns that message: the others of its
 * claim go on without it, and it is tried again alone.  At the third time it is dead, unless a
 * message without content cannot be made a request either: then it is the webhook's
 * settings, and its channel waits.  An ERROR that no row is to blame for has its channel wait, and
 * where all channels have one, all of them.
 */
#include "msgsys.h"

#include "flush.h"
#include "monotonic.h"
#include "outcome.h"
#include "pace.h"
#include "request.h"
#include "shmem.h"
#include "store.h"
#include "suspect.h"
#include "webhook_claim.h"
#include "worker.h"

#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define READY_MOST		512		/* jobs of an endpoint that wait for their turn */
#define JOBS_MOST		20000	/* in memory */
#define JOBS_SIZE_MOST	(64 * 1024 * 1024)
#define READ_LEAST		256		/* rows of an ordered channel that are read at once: most may have to wait */
#define PAUSE_FIRST		300		/* ms after a claim that failed; doubles */
#define PAUSE_LONGEST	10000

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
	int			nshares;
	int			nworkers;
	TimestampTz now;
	Job		   *building;		/* whose request is being made */
} Claim;

/* A message that could not be made a request, or not even be read. */
typedef struct Suspect
{
	int64		id;
	Endpoint   *endpoint;
	char	   *key;			/* NULL: none, or not known */
	int			failures;
	int64		again_ms;		/* by now_ms(): when it is tried again; NEVER_MS: it is not */
} Suspect;

static List *suspects = NIL;	/* of Suspect; there are few */
static int	all_failures = 0;	/* claims that failed for everybody, in a row */
static int64 all_again_ms = 0;	/* by now_ms(): no claim before that */

/* ---------------------------------------------------------------- suspects */

static Suspect *
suspect_find(int64 id)
{
	ListCell   *lc;

	foreach(lc, suspects)
		if (((Suspect *) lfirst(lc))->id == id)
			return lfirst(lc);
	return NULL;
}

static Suspect *
suspect_make(Endpoint *endpoint, int64 id)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Suspect    *suspect = palloc0(sizeof(Suspect));

	suspect->id = id;
	suspect->endpoint = endpoint;
	suspects = lappend(suspects, suspect);
	MemoryContextSwitchTo(old);
	return suspect;
}

static void
suspect_forget(Suspect *suspect)
{
	suspects = list_delete_ptr(suspects, suspect);
	if (suspect->key)
		pfree(suspect->key);
	pfree(suspect);
}

/* Have those come again whose time it is. */
static void
recall_suspects(void)
{
	ListCell   *lc;

	foreach(lc, suspects)
	{
		Suspect    *suspect = lfirst(lc);

		if (suspect->again_ms > 0 && suspect->again_ms <= now_ms())
		{
			suspect->again_ms = 0;
			endpoint_rewind(suspect->endpoint, suspect->id);
		}
	}
}

/* Milliseconds until one of them is to come again; NEVER_MS: there is none. */
int64
claim_retry_in(void)
{
	int64		again = NEVER_MS;
	ListCell   *lc;

	foreach(lc, suspects)
		if (((Suspect *) lfirst(lc))->again_ms > 0)
			again = Min(again, ((Suspect *) lfirst(lc))->again_ms);
	return again == NEVER_MS ? NEVER_MS : Max(again - now_ms(), 0);
}

/* ---------------------------------------------------------------- rows to jobs */

/* A message to be made a request. */
typedef struct Build
{
	Request    *request;
	const Webhook *webhook;
	const ClaimedRow *row;
	int			attempt;
	MemoryContext context;		/* of the result */
} Build;

static void
build(void *arg)
{
	Build	   *b = arg;
	MemoryContext old = MemoryContextSwitchTo(b->context);

	request_build(b->request, b->webhook, b->row, b->attempt);
	MemoryContextSwitchTo(old);
}

/* Whether a message without content can be made a request of this webhook. */
static bool
webhook_is_sound(const Webhook *webhook, ErrorData **error)
{
	Request		request;
	ClaimedRow	row = {.id = 1,.expires_at = DT_NOEND,.finished_at = DT_NOEND};
	Build		b = {&request, webhook, &row, 1, CurrentMemoryContext};

	row.payload = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	return worker_subtry(build, &b, error);
}

/* No claim of this channel for a while. */
static void
pause_claims(Endpoint *endpoint, const ErrorData *error)
{
	endpoint->claim_again_ms = now_ms() + Min((int64) PAUSE_FIRST << Min(endpoint->claim_failures, 10), PAUSE_LONGEST);
	if (endpoint->claim_failures++ == 0)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("msgsys could not read messages of channel \"%s\": %s", endpoint->name, error->message),
				 errdetail("They wait and are tried again.")));
	slot_error(error->message);
}

/* The message has expired before it could be sent. */
void
claim_expired(Job *job)
{
	memset(&job->mark, 0, sizeof(job->mark));
	job->mark.id = job->id;
	job->mark.channel = job->endpoint->name;
	job->mark.verdict = VERDICT_EXPIRED;
	flush_add(job);
}

/* The message cannot be made a request: it is dead. */
static void
job_set_aside(Job *job, const ErrorData *error)
{
	char		reason[256];

	snprintf(reason, sizeof(reason), "the request cannot be made: %s", error->message);
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("msgsys sets message " INT64_FORMAT " of channel \"%s\" aside: %s", job->id, job->endpoint->name, reason)));
	outcome_unsendable(job, reason);
	flush_add(job);
}

/*
 * Make a suspect's request, in a subtransaction.  Returns false, and the job is to be
 * freed, where that failed and is tried again.
 */
static bool
build_suspect(Suspect *suspect, Job *job, Build *b)
{
	const ClaimedRow *row = b->row;
	Endpoint   *endpoint = job->endpoint;
	ErrorData  *error;
	ErrorData  *its_fault;

	if (worker_subtry(build, b, &error))
	{
		suspect_forget(suspect);
		return true;
	}
	if (strike(&suspect->failures, true))
	{
		if (webhook_is_sound(endpoint->webhook, &its_fault))
		{
			endpoint_free_key(endpoint, row->key, row->key_length, row->id);
			suspect_forget(suspect);
			job_set_aside(job, error);
			return true;
		}
		suspect->failures = 1;
		pause_claims(endpoint, its_fault);
	}
	suspect->again_ms = now_ms() + 1000 * suspect->failures;
	if (row->key && endpoint->webhook->ordered)
	{
		if (suspect->key == NULL)
			suspect->key = MemoryContextStrdup(TopMemoryContext, pnstrdup(row->key, row->key_length));
		endpoint_hold_key(endpoint, row->key, row->key_length, row->id);
	}
	return false;
}

/* Make a row a job.  Returns whether that took room. */
static bool
make_job(Claim *claim, const ClaimedRow *row, Endpoint *endpoint)
{
	Suspect    *suspect = suspects ? suspect_find(row->id) : NULL;
	Job		   *job;
	Build		b = {.webhook = endpoint->webhook,.row = row};

	if (suspect && suspect->again_ms > 0)
		return false;
	job = job_make(endpoint, row->id);
	job->claimed_us = now_us();
	/* the relay has counted this attempt where there is one; whatever somebody has written into the row */
	job->attempt = Max(endpoint->channel->topic || row->attempts == PG_INT32_MAX ? row->attempts : row->attempts + 1, 1);
	job->was_idle = claim->kind == CLAIM_WEBHOOK_IDLE;
	job->expires_at = row->expires_at;
	if (row->expires_at <= claim->now)
	{
		endpoint_free_key(endpoint, row->key, row->key_length, row->id);
		claim_expired(job);
		return true;
	}
	b.request = &job->request;
	b.attempt = job->attempt;
	b.context = job->context;
	if (suspect)
	{
		if (!build_suspect(suspect, job, &b))
		{
			job_free(job);
			return false;
		}
		if (job->mark.id != 0)
			return true;		/* set aside */
	}
	else
	{
		claim->building = job;
		build(&b);
		claim->building = NULL;
	}
	job->size = job->request.body_length + 2048;
	job_ready(job, row->key, row->key_length);
	if (endpoint_is_paced(endpoint))
		job_take_into_run(job);
	return true;
}

/* This row is done with, in memory or passed over. */
static void
move_cursor(Endpoint *endpoint, ClaimKind kind, const ClaimedRow *row)
{
	if (kind == CLAIM_WEBHOOK_DUE)
	{
		DueCursor  *cursor = &endpoint->due_cursor;

		if (row->due_at > cursor->due || (row->due_at == cursor->due && row->id > cursor->id))
		{
			cursor->due = row->due_at;
			cursor->id = row->id;
		}
	}
	else
	{
		Cursor	   *cursor = &endpoint->cursors[kind == CLAIM_WEBHOOK_IDLE ? WAITING_IDLE : WAITING_RECEIVED];

		cursor->low = Max(cursor->low, row->id);
	}
}

/* Take a row into memory as a job, or pass it over. */
static bool
take_row(const ClaimedRow *row, void *arg)
{
	Claim	   *claim = arg;
	int			s = row->share;
	Endpoint   *endpoint = claim->endpoints[s];

	claim->claimed[s]++;
	if (claim->left[s])
		return true;
	if (job_find(row->id) == NULL && !endpoint_key_waits(endpoint, row->key, row->key_length, row->id))
	{
		if (claim->taken[s] >= claim->wanted[s] || jobs_size() > JOBS_SIZE_MOST)
		{
			claim->left[s] = true;
			return true;
		}
		if (make_job(claim, row, endpoint))
			claim->taken[s]++;
	}
	move_cursor(endpoint, claim->kind, row);
	return true;
}

/* ---------------------------------------------------------------- whose rows */

/* How many more jobs an endpoint may have, as far as only room counts. */
static int
room_of(Endpoint *endpoint)
{
	int			most;

	if (!endpoint_works(endpoint) || jobs_count() >= JOBS_MOST || jobs_size() > JOBS_SIZE_MOST)
		return 0;
	most = endpoint_is_paced(endpoint) ? pace_left(endpoint->channel) : READY_MOST;
	if (endpoint->breaker.state != BREAKER_CLOSED || endpoint->outage)
		return endpoint->nready + endpoint->inflight == 0 ? Min(most, 1) : 0;	/* the probe */
	/* not for each job that has ended: claims are made in batches */
	if (endpoint->nready > READY_MOST / 2 || endpoint->njobs >= READY_MOST + 2 * endpoint->webhook->concurrency)
		return 0;
	return Min(most, READY_MOST - endpoint->nready);
}

/* How many more jobs an endpoint may have waiting now. */
static int
wanted_of(Endpoint *endpoint)
{
	if (!endpoint_works(endpoint) || endpoint->claim_again_ms > now_ms() || !endpoint_may_call(endpoint))
		return 0;
	return room_of(endpoint);
}

/* Whether an endpoint has rows of a kind to be claimed. */
static bool
has_rows(Endpoint *endpoint, ClaimKind kind, TimestampTz now)
{
	/* what is to be sent to the topic is the relay's affair */
	if (kind != CLAIM_WEBHOOK_RECEIVED && endpoint->channel->topic)
		return false;
	switch (kind)
	{
		case CLAIM_WEBHOOK_DUE:
			return endpoint->next_due <= now;
		case CLAIM_WEBHOOK_IDLE:
			return endpoint->cursors[WAITING_IDLE].dirty;
		default:
			return endpoint->cursors[WAITING_RECEIVED].dirty;
	}
}

/* Milliseconds until there is something to be claimed for an endpoint, as far as only time is wanting; NEVER_MS. */
int64
claim_due_in(Endpoint *endpoint)
{
	int64		now = now_ms();
	TimestampTz clock = clock_now();
	int64		wait = Max(Max(endpoint->claim_again_ms, endpoint->outage_until_ms), all_again_ms) - now;
	bool		any = false;

	if (!endpoint_works(endpoint))
		return NEVER_MS;
	if (endpoint->breaker.state == BREAKER_OPEN)
		wait = Max(wait, endpoint->breaker.until - now);
	if (endpoint_is_paced(endpoint) && endpoint->channel->pace.run_id == 0)
	{
		TimestampTz next = pace_next(endpoint->channel);

		return next == DT_NOEND ? NEVER_MS : Max(wait, next <= clock ? 0 : TimestampDifferenceMilliseconds(clock, next) + 1);
	}
	if (room_of(endpoint) <= 0)
		return NEVER_MS;		/* what ends makes room */
	for (int kind = CLAIM_WEBHOOK_IDLE; kind <= CLAIM_WEBHOOK_DUE; kind++)
		any |= has_rows(endpoint, kind, clock);
	if (any)
		return Max(wait, 0);
	if (endpoint->channel->topic || endpoint->next_due == DT_NOEND)
		return NEVER_MS;
	/* round up, lest a due time is missed by less than a millisecond */
	return Max(wait, TimestampDifferenceMilliseconds(clock, endpoint->next_due) + 1);
}

/* ---------------------------------------------------------------- claims */

/* After a claim: who has more rows, and when. */
static void
look_ahead(Claim *claim)
{
	/* those that are due by now are in memory, or their keys wait, but for what is left */
	if (claim->kind == CLAIM_WEBHOOK_DUE)
		store_next_due(claim->shares, claim->nshares, claim->now);
	for (int s = 0; s < claim->nshares; s++)
	{
		Endpoint   *endpoint = claim->endpoints[s];
		bool		more = claim->left[s] || claim->claimed[s] >= claim->shares[s].limit;

		if (endpoint->claim_again_ms <= now_ms())
			endpoint->claim_failures = 0;
		if (claim->kind == CLAIM_WEBHOOK_DUE)
			endpoint->next_due = more ? claim->now : claim->shares[s].channel->next_due;
		else
			endpoint->cursors[claim->kind == CLAIM_WEBHOOK_IDLE ? WAITING_IDLE : WAITING_RECEIVED].dirty = more;
	}
}

/* The transaction of a claim. */
static void
claim_work(void *arg)
{
	Claim	   *claim = arg;

	pgstat_report_activity(STATE_RUNNING, "claiming messages");
	store_claim(claim->kind, claim->shares, claim->nshares, slot_number(), claim->nworkers, take_row, claim);
	look_ahead(claim);
}

/* Where each share of a claim begins. */
static void
set_lows(Claim *claim)
{
	for (int s = 0; s < claim->nshares; s++)
	{
		Endpoint   *endpoint = claim->endpoints[s];

		claim->shares[s].low_due = endpoint->due_cursor.due;
		claim->shares[s].low = claim->kind == CLAIM_WEBHOOK_DUE ? endpoint->due_cursor.id :
			endpoint->cursors[claim->kind == CLAIM_WEBHOOK_IDLE ? WAITING_IDLE : WAITING_RECEIVED].low;
	}
}

/*
 * A claim was at this row when it could not go on.  It is passed over, and tried again; at
 * the third time it is dead.  Its key is not known, so that later ones do not wait for it.
 */
static void
blame_unread(Claim *claim, int64 id, TimestampTz due, const ErrorData *error)
{
	Endpoint   *endpoint = claim->endpoints[0];
	ClaimedRow	row = {.id = id,.due_at = due};
	Suspect    *suspect = suspect_find(id);

	if (suspect == NULL)
		suspect = suspect_make(endpoint, id);
	move_cursor(endpoint, claim->kind, &row);
	if (!strike(&suspect->failures, true))
	{
		suspect->again_ms = now_ms() + 1000 * suspect->failures;
		return;
	}
	suspect_forget(suspect);
	if (job_find(id) == NULL)
	{
		Job		   *job = job_make(endpoint, id);

		job->attempt = 1;
		job->claimed_us = now_us();
		job->expires_at = DT_NOEND;
		job->was_idle = claim->kind == CLAIM_WEBHOOK_IDLE;
		job_set_aside(job, error);
	}
}

/* Whether one row is to blame for an error of a claim, which then can go on without it. */
static bool
blame_row(Claim *claim, const ErrorData *error)
{
	Job		   *job = claim->building;
	TimestampTz due = claim_point.due;
	int64		id = claim_point.id;

	if (job)
	{
		/* it is tried again alone, at once */
		suspect_make(job->endpoint, job->id)->failures = 1;
		claim->building = NULL;
		job_free(job);
		return true;
	}
	/* which endpoint's it is, is known where there is one */
	if (id == 0 || claim->nshares != 1)
		return false;
	blame_unread(claim, id, due, error);
	return true;
}

/* Somebody has the table, or the database works for nobody: no claims for a while. */
static void
pause_all(const ErrorData *error)
{
	all_again_ms = now_ms() + Min((int64) PAUSE_FIRST << Min(all_failures, 10), PAUSE_LONGEST);
	if (all_failures++ == 0)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("msgsys could not read messages for webhooks: %s", error->message),
				 errdetail("They wait and are tried again.")));
	slot_error(error->message);
}

/* Make a claim of these shares; those that fail are found one by one.  Returns whether any succeeded. */
static bool
claim_shares(Claim *claim)
{
	ErrorData  *error = NULL;
	bool		any = false;
	int			n = claim->nshares;

	for (int tries = 0; tries < 100; tries++)
	{
		set_lows(claim);
		memset(claim->claimed, 0, n * sizeof(int));
		memset(claim->left, 0, n * sizeof(bool));
		if (worker_try_any(claim_work, claim, &error))
			return true;
		if (!blame_row(claim, error))
			break;
	}
	if (n == 1)
	{
		pause_claims(claim->endpoints[0], error);
		return false;
	}
	/* a lock on the table is everybody's */
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
	{
		pause_all(error);
		return false;
	}
	for (int s = 0; s < n; s++)
	{
		Claim		one = *claim;

		one.shares += s;
		one.endpoints += s;
		one.wanted += s;
		one.claimed += s;
		one.taken += s;
		one.left += s;
		one.nshares = 1;
		any |= claim_shares(&one);
		/* it is none of theirs */
		if (!any && s >= 2)
		{
			pause_all(error);
			break;
		}
	}
	return any;
}

/* Claim rows of one kind, of channels with a pace or without. */
static void
claim_kind(ClaimKind kind, bool paced, TimestampTz now)
{
	int			room = Max(list_length(endpoints), 1);
	Claim		claim = {.kind = kind,.now = now};
	int			made = 0;
	ListCell   *lc;

	if (all_again_ms > now_ms())
		return;
	claim.nworkers = paced ? 1 : setting_webhook_workers;
	claim.shares = palloc0(room * sizeof(ClaimShare));
	claim.endpoints = palloc(room * sizeof(Endpoint *));
	claim.wanted = palloc(room * sizeof(int));
	claim.claimed = palloc0(room * sizeof(int));
	claim.taken = palloc0(room * sizeof(int));
	claim.left = palloc0(room * sizeof(bool));
	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);
		int			wanted = wanted_of(endpoint);
		ClaimShare *share = &claim.shares[claim.nshares];

		if (wanted <= 0 || endpoint_is_paced(endpoint) != paced || !has_rows(endpoint, kind, now))
			continue;
		claim.endpoints[claim.nshares] = endpoint;
		claim.wanted[claim.nshares] = wanted;
		share->channel = endpoint->channel;
		/* rows in memory may be claimed with them */
		share->limit = wanted + endpoint->njobs;
		if (endpoint->webhook->ordered)
			share->limit = Max(share->limit, READ_LEAST);
		claim.nshares++;
	}
	if (claim.nshares == 0)
		return;
	if (claim_shares(&claim))
		all_failures = 0;
	for (int s = 0; s < claim.nshares; s++)
		made += claim.taken[s];
	slot_count_up(COUNT_CLAIMED, made);
}

/* ---------------------------------------------------------------- keys and runs */

/* Read which keys of ordered channels wait, where that is wanted; in a transaction. */
void
claim_load_keys(void)
{
	ListCell   *lc;

	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);
		HeldKey    *held;
		int			n;
		ListCell   *ls;

		if (!endpoint->keys_wanted)
			continue;
		held = store_held_keys(endpoint->name, &n);
		endpoint_set_holds(endpoint, held, n);
		foreach(ls, suspects)
		{
			Suspect    *suspect = lfirst(ls);

			if (suspect->endpoint == endpoint && suspect->key && suspect->again_ms > 0)
				endpoint_hold_key(endpoint, suspect->key, strlen(suspect->key), suspect->id);
		}
		endpoint->keys_wanted = false;
	}
}

static void
load_keys_work(void *arg)
{
	claim_load_keys();
}

/* Read them, if any are wanted.  Returns false where that failed: then nothing is claimed. */
static bool
keys_ready(void)
{
	bool		wanted = false;
	ErrorData  *error;
	ListCell   *lc;

	foreach(lc, endpoints)
		wanted |= ((Endpoint *) lfirst(lc))->keys_wanted;
	if (!wanted || worker_try_any(load_keys_work, NULL, &error))
		return true;
	pause_all(error);
	return false;
}

/* Begin the runs that are due, where they can be gone on with. */
static void
open_runs(TimestampTz now)
{
	ListCell   *lc;

	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);

		if (endpoint_is_paced(endpoint) && endpoint_works(endpoint) && endpoint_may_call(endpoint))
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

/* Take into memory what there is room for. */
void
claim_all(void)
{
	TimestampTz now = clock_now();

	recall_suspects();
	if (all_again_ms > now_ms() || !keys_ready())
		return;
	open_runs(now);
	/* what is tried again is older */
	for (int kind = CLAIM_WEBHOOK_DUE; kind >= CLAIM_WEBHOOK_IDLE; kind--)
	{
		claim_kind(kind, false, now);
		claim_kind(kind, true, now);
	}
	close_runs(now);
}
