/*
 * endpoint.c
 *		What the webhook stage knows of a channel's endpoint, and its jobs.
 *
 * Limits (concurrency, rate, circuit breaker) decide when a job may start; on
 * ordered channels a key decides too: one job of it at a time, and none while an
 * earlier message of it is to be tried again.
 */
#include "msgsys.h"

#include "endpoint.h"
#include "monotonic.h"
#include "shmem.h"

#include "common/hashfn.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

List	   *endpoints = NIL;

#define OUTAGE_FIRST	300		/* ms after a request that could not be made; doubles */
#define OUTAGE_LONGEST	5000

static HTAB *by_name = NULL;
static HTAB *jobs = NULL;		/* id -> JobEntry */
static Size all_sizes = 0;

typedef struct JobEntry
{
	int64		id;				/* hash key, must be first */
	Job		   *job;
} JobEntry;

/* ---------------------------------------------------------------- endpoints */

Endpoint *
endpoint_find(const char *name)
{
	char		key[CHANNEL_NAME_MAX] = {0};

	if (by_name == NULL)
		return NULL;
	strlcpy(key, name, CHANNEL_NAME_MAX);
	return hash_search(by_name, key, HASH_FIND, NULL);
}

/* The endpoint of a channel, which is kept for as long as this worker lives. */
Endpoint *
endpoint_make(const char *name)
{
	char		key[CHANNEL_NAME_MAX] = {0};
	Endpoint   *endpoint;
	bool		found;

	if (by_name == NULL)
	{
		HASHCTL		ctl = {
			.keysize = CHANNEL_NAME_MAX,
			.entrysize = sizeof(Endpoint),
			.hcxt = TopMemoryContext,
		};

		by_name = hash_create("msgsys endpoints", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	strlcpy(key, name, CHANNEL_NAME_MAX);
	endpoint = hash_search(by_name, key, HASH_ENTER, &found);
	if (!found)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		memset((char *) endpoint + CHANNEL_NAME_MAX, 0, sizeof(Endpoint) - CHANNEL_NAME_MAX);
		endpoint->next_due = DT_NOEND;
		endpoint->due_cursor.due = DT_NOBEGIN;
		dlist_init(&endpoint->ready);
		endpoints = lappend(endpoints, endpoint);
		MemoryContextSwitchTo(old);
	}
	return endpoint;
}

/* Whether messages are to be sent there at all. */
bool
endpoint_works(const Endpoint *endpoint)
{
	return endpoint->webhook && !endpoint->webhook->disabled && !endpoint->gone && endpoint->channel && !endpoint->channel->paused;
}

/* Whether its messages are sent by runs; those that come through a topic are so before that. */
bool
endpoint_is_paced(const Endpoint *endpoint)
{
	return endpoint->channel && endpoint->channel->topic == NULL && endpoint->channel->pace.batch > 0;
}

/* Whether its rate limit lets a request go now; if not, when. */
static bool
has_token(Endpoint *endpoint, int64 *again_ms)
{
	double		rate = endpoint->webhook->rate / Max(setting_webhook_workers, 1);
	int64		now = now_us();
	double		passed;

	if (rate <= 0)
		return true;
	passed = (double) (now - endpoint->tokens_us) / USECS_PER_SEC;
	/* at most what a second gives may be saved up, and one at least */
	endpoint->tokens = Min(Max(rate, 1.0), endpoint->tokens + passed * rate);
	endpoint->tokens_us = now;
	if (endpoint->tokens >= 1)
		return true;
	*again_ms = Min(*again_ms, now / 1000 + (int64) Min((1 - endpoint->tokens) / rate * 1000, PG_INT32_MAX) + 1);
	return false;
}

/* Whether its breaker, and an outage of its settings, let anything go now. */
bool
endpoint_may_call(const Endpoint *endpoint)
{
	return breaker_permits(&endpoint->breaker, now_ms()) && endpoint->outage_until_ms <= now_ms();
}

/*
 * Whether a request may be started now, while so many are under way in all; where
 * only time is wanting, *again_ms is lowered to when.
 */
bool
endpoint_permits(Endpoint *endpoint, int inflight, int64 *again_ms)
{
	int			left = setting_webhook_connections - inflight;

	if (!endpoint_works(endpoint) || left <= 0)
		return false;
	if (!breaker_permits(&endpoint->breaker, now_ms()))
	{
		if (endpoint->breaker.state == BREAKER_OPEN)
			*again_ms = Min(*again_ms, endpoint->breaker.until);
		return false;
	}
	if (endpoint->outage && (endpoint->outage_until_ms > now_ms() || endpoint->inflight > 0))
	{
		if (endpoint->outage_until_ms > now_ms())
			*again_ms = Min(*again_ms, endpoint->outage_until_ms);
		return false;
	}
	if (endpoint->inflight >= endpoint->webhook->concurrency ||
		(endpoint->inflight > 0 && endpoint->inflight >= left))
		return false;
	/* each that looks up a name has a thread for it */
	if (!endpoint->resolved && endpoint->inflight > 0)
		return false;
	return has_token(endpoint, again_ms);
}

/* A request is started. */
void
endpoint_called(Endpoint *endpoint)
{
	endpoint->inflight++;
	endpoint->tokens -= 1;
	endpoint->breaker_changed |= breaker_call(&endpoint->breaker, now_ms());
}

/* A request has ended; failed: the endpoint is to blame. */
void
endpoint_record(Endpoint *endpoint, bool failed)
{
	if (endpoint->webhook)
		endpoint->breaker_changed |= breaker_record(&endpoint->breaker, &endpoint->webhook->breaker,
													failed, now_ms());
	else
		endpoint->breaker_changed |= breaker_forget(&endpoint->breaker, now_ms());
}

/* Send nothing there, and have it written down why (flush.c): its messages wait. */
void
endpoint_disable(Endpoint *endpoint, const char *reason, TimestampTz asked_at)
{
	endpoint->gone = true;
	if (endpoint->disable_reason == NULL)
	{
		endpoint->disable_reason = MemoryContextStrdup(TopMemoryContext, reason);
		endpoint->disable_asked_at = asked_at;
	}
	endpoint_give_back(endpoint);
}

/*
 * No request of this endpoint can be made, whatever its message, because a file or a certificate of its
 * settings cannot be used.  Its messages are as they were, and wait; one is tried now and then.
 */
void
endpoint_outage(Endpoint *endpoint, const char *reason)
{
	slot_error(reason);
	/* many may have been under way */
	if (endpoint->outage_until_ms <= now_ms())
		endpoint->outage_until_ms = now_ms() + Min((int64) OUTAGE_FIRST << Min(endpoint->outages++, 10), OUTAGE_LONGEST);
	if (endpoint->outage && strcmp(endpoint->outage, reason) == 0)
		return;
	ereport(LOG,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("msgsys cannot make requests for the webhook of channel \"%s\": %s", endpoint->name, reason),
			 errdetail("Its messages wait, and no attempt is used up.")));
	if (endpoint->outage)
		pfree(endpoint->outage);
	endpoint->outage = MemoryContextStrdup(TopMemoryContext, reason);
}

/* A request could be made. */
void
endpoint_outage_ends(Endpoint *endpoint)
{
	if (endpoint->outage == NULL)
		return;
	ereport(LOG, (errmsg("msgsys makes requests for the webhook of channel \"%s\" again", endpoint->name)));
	pfree(endpoint->outage);
	endpoint->outage = NULL;
	endpoint->outages = 0;
	endpoint->outage_until_ms = 0;
}

/* Rows of a kind above an id may be there. */
void
endpoint_waiting(Endpoint *endpoint, WaitingKind kind, int64 low)
{
	Cursor	   *cursor = &endpoint->cursors[kind];

	cursor->low = Min(cursor->low, low);
	cursor->dirty = true;
}

/* A row may come due then. */
void
endpoint_due(Endpoint *endpoint, TimestampTz due)
{
	DueCursor  *cursor = &endpoint->due_cursor;

	endpoint->next_due = Min(endpoint->next_due, due);
	if (due > cursor->due)
		return;
	/* all of that time come again */
	cursor->due = TIMESTAMP_NOT_FINITE(due) ? DT_NOBEGIN : due;
	cursor->id = PG_INT64_MIN;
}

/* A message is to be claimed again. */
void
endpoint_rewind(Endpoint *endpoint, int64 id)
{
	for (int kind = 0; kind < WAITING_KINDS; kind++)
		endpoint_waiting(endpoint, kind, id - 1);
	endpoint_due(endpoint, DT_NOBEGIN);
}

/* ---------------------------------------------------------------- keys */

static HTAB *
endpoint_keys(Endpoint *endpoint)
{
	HASHCTL		ctl = {
		.keysize = sizeof(uint64),
		.entrysize = sizeof(KeyState),
		.hcxt = TopMemoryContext,
	};

	if (endpoint->keys == NULL)
		endpoint->keys = hash_create("msgsys keys", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return endpoint->keys;
}

static KeyState *
key_state(Endpoint *endpoint, const char *key, int key_length)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) key, key_length, 0);
	bool		found;
	KeyState   *state = hash_search(endpoint_keys(endpoint), &hash, HASH_ENTER, &found);

	if (!found)
	{
		state->busy = NULL;
		dlist_init(&state->waiting);
		state->held = 0;
		state->skipped = PG_INT64_MAX;
	}
	return state;
}

/* Forget a key that nothing is known of any more; rows that were passed over come again. */
static void
key_release(Endpoint *endpoint, KeyState *state)
{
	if (state->busy || state->held != 0 || !dlist_is_empty(&state->waiting))
		return;
	if (state->skipped != PG_INT64_MAX)
		endpoint_rewind(endpoint, state->skipped);
	hash_search(endpoint->keys, &state->hash, HASH_REMOVE, NULL);
}

/* An earlier message of this key is to be tried again: the others wait for it. */
void
endpoint_hold_key(Endpoint *endpoint, const char *key, int key_length, int64 id)
{
	KeyState   *state = key_state(endpoint, key, key_length);

	if (state->held == 0 || id < state->held)
		state->held = id;
}

/* Whether a message has to wait for an earlier one of its key; then it is noted that it was passed over. */
bool
endpoint_key_waits(Endpoint *endpoint, const char *key, int key_length, int64 id)
{
	uint64		hash;
	KeyState   *state;

	if (key == NULL || !endpoint->webhook->ordered || endpoint->keys == NULL)
		return false;
	hash = hash_bytes_extended((const unsigned char *) key, key_length, 0);
	state = hash_search(endpoint->keys, &hash, HASH_FIND, NULL);
	/* those that were passed over come before it, too */
	if (state == NULL || state->held == id || (state->held == 0 && state->skipped == PG_INT64_MAX))
		return false;
	state->skipped = Min(state->skipped, id);
	return true;
}

/* This message of a key is final, or gone: nobody has to wait for it. */
void
endpoint_free_key(Endpoint *endpoint, const char *key, int key_length, int64 id)
{
	uint64		hash;
	KeyState   *state;

	if (key == NULL || endpoint->keys == NULL)
		return;
	hash = hash_bytes_extended((const unsigned char *) key, key_length, 0);
	state = hash_search(endpoint->keys, &hash, HASH_FIND, NULL);
	if (state == NULL || state->held != id)
		return;
	state->held = 0;
	key_release(endpoint, state);
}

/* These keys are held, as the table says, and no others. */
void
endpoint_set_holds(Endpoint *endpoint, const HeldKey *keys, int n)
{
	HASH_SEQ_STATUS seq;
	KeyState   *state;

	if (endpoint->keys)
	{
		hash_seq_init(&seq, endpoint->keys);
		while ((state = hash_seq_search(&seq)) != NULL)
			state->held = 0;
	}
	for (int i = 0; i < n; i++)
		endpoint_hold_key(endpoint, keys[i].key, strlen(keys[i].key), keys[i].id);
	if (endpoint->keys == NULL)
		return;
	hash_seq_init(&seq, endpoint->keys);
	/* removing the one that was returned is allowed */
	while ((state = hash_seq_search(&seq)) != NULL)
		key_release(endpoint, state);
}

/* ---------------------------------------------------------------- jobs */

int
jobs_count(void)
{
	return jobs ? (int) hash_get_num_entries(jobs) : 0;
}

/* Bytes that all jobs take, about. */
Size
jobs_size(void)
{
	return all_sizes;
}

Job *
job_find(int64 id)
{
	JobEntry   *entry = jobs ? hash_search(jobs, &id, HASH_FIND, NULL) : NULL;

	return entry ? entry->job : NULL;
}

/* A new job, in a memory context of its own. */
Job *
job_make(Endpoint *endpoint, int64 id)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "msgsys job", ALLOCSET_SMALL_SIZES);
	Job		   *job = MemoryContextAllocZero(context, sizeof(Job));
	JobEntry   *entry;

	if (jobs == NULL)
	{
		HASHCTL		ctl = {
			.keysize = sizeof(int64),
			.entrysize = sizeof(JobEntry),
			.hcxt = TopMemoryContext,
		};

		jobs = hash_create("msgsys jobs", 1024, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(jobs, &id, HASH_ENTER, NULL);
	entry->job = job;
	job->context = context;
	job->id = id;
	job->endpoint = endpoint;
	endpoint->njobs++;
	return job;
}

/* Forget a job that is in no list. */
void
job_free(Job *job)
{
	hash_search(jobs, &job->id, HASH_REMOVE, NULL);
	job->endpoint->njobs--;
	if (job->paced && job->endpoint->channel)
		job->endpoint->channel->pace.in_memory = Max(job->endpoint->channel->pace.in_memory - 1, 0);
	all_sizes -= job->size;
	MemoryContextDelete(job->context);
}

/* A job is of the run of its channel, until it is freed. */
void
job_take_into_run(Job *job)
{
	job->paced = true;
	job->endpoint->channel->pace.in_memory++;
}

static void
push_ready(Job *job)
{
	dlist_push_tail(&job->endpoint->ready, &job->node);
	job->endpoint->nready++;
}

/* A job is complete and may be started, or waits behind another of its key; endpoint_key_waits() has said that it may. */
void
job_ready(Job *job, const char *key, int key_length)
{
	Endpoint   *endpoint = job->endpoint;

	all_sizes += job->size;
	if (key == NULL || !endpoint->webhook->ordered)
	{
		push_ready(job);
		return;
	}
	job->key = key_state(endpoint, key, key_length);
	if (job->key->busy)
		dlist_push_tail(&job->key->waiting, &job->node);
	else
	{
		job->key->busy = job;
		push_ready(job);
	}
}

/* Free the jobs behind a key's message; their rows come again when it is final. */
static void
drop_waiting(KeyState *state)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &state->waiting)
	{
		Job		   *job = dlist_container(Job, node, iter.cur);

		dlist_delete(iter.cur);
		state->skipped = Min(state->skipped, job->id);
		job_free(job);
	}
}

/*
 * What became of a job is committed: let the next of its key go, or, where it is not
 * final, have them wait for it.  Frees the job, which is in no list.
 */
void
job_done(Job *job, bool final)
{
	KeyState   *state = job->key;
	Endpoint   *endpoint = job->endpoint;

	if (state)
	{
		state->busy = NULL;
		if (!final)
		{
			state->held = job->id;
			drop_waiting(state);
		}
		else
		{
			if (state->held == job->id)
				state->held = 0;
			if (!dlist_is_empty(&state->waiting))
			{
				state->busy = dlist_container(Job, node, dlist_pop_head_node(&state->waiting));
				push_ready(state->busy);
			}
			key_release(endpoint, state);
		}
	}
	job_free(job);
}

/* Give back a job that is in no list: its row is as it was, and comes again. */
void
job_give_back(Job *job)
{
	Endpoint   *endpoint = job->endpoint;

	endpoint_rewind(endpoint, job->id);
	if (job->key)
	{
		job->key->busy = NULL;
		drop_waiting(job->key);
		key_release(endpoint, job->key);
	}
	job_free(job);
}

/* Give back all that is not under way: its rows are as they were, and come again. */
void
endpoint_give_back(Endpoint *endpoint)
{
	dlist_mutable_iter iter;
	HASH_SEQ_STATUS seq;
	KeyState   *state;

	dlist_foreach_modify(iter, &endpoint->ready)
	{
		dlist_delete(iter.cur);
		job_give_back(dlist_container(Job, node, iter.cur));
	}
	endpoint->nready = 0;
	/* a run may take again what it gives back */
	if (endpoint->channel)
		endpoint->channel->pace.exhausted = false;
	if (endpoint->keys == NULL)
		return;
	/* and what waits behind requests that are under way */
	hash_seq_init(&seq, endpoint->keys);
	while ((state = hash_seq_search(&seq)) != NULL)
		drop_waiting(state);
}
