/*
 * notes.c
 *		What a transaction has to tell the workers once it commits.
 *
 * Triggers note here; one transaction callback, registered once a backend,
 * publishes at commit (shmem.c) and forgets at rollback.  A rolled back
 * subtransaction's notes stay: they wake a worker for nothing, no more.
 */
#include "msgsys.h"

#include "backlog.h"
#include "commits.h"
#include "notes.h"
#include "shmem.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

typedef struct PendingNote
{
	char		channel[CHANNEL_NAME_MAX];	/* hash key, must be first */
	int64		lowest[WAITING_KINDS];	/* ids; PG_INT64_MAX: none */
	TimestampTz due;			/* DT_NOEND: none */
	int64		backlog;		/* messages that wait now and did not before */
} PendingNote;

static HTAB *pending = NULL;
static PendingNote *latest = NULL;	/* most transactions name one channel */
static bool config_changed = false;
static bool schedule_changed = false;
static uint64 changed_buckets = 0;
static bool registered = false;

static void
forget(void)
{
	if (pending)
		hash_destroy(pending);
	pending = NULL;
	latest = NULL;
	config_changed = false;
	schedule_changed = false;
	changed_buckets = 0;
}

/* The configuration first: who takes a note then knows what it means (a pause in the same transaction). */
static void
publish_all(void)
{
	if (config_changed)
		publish_config(MyDatabaseId);
	if (schedule_changed)
		publish_schedule(MyDatabaseId);
	if (pending)
	{
		HASH_SEQ_STATUS seq;
		PendingNote *note;

		hash_seq_init(&seq, pending);
		while ((note = hash_seq_search(&seq)) != NULL)
		{
			for (int kind = 0; kind < WAITING_KINDS; kind++)
				if (note->lowest[kind] != PG_INT64_MAX)
					publish_waiting(MyDatabaseId, note->channel, kind, note->lowest[kind]);
			backlog_add(MyDatabaseId, note->channel, note->backlog);
			if (note->due != DT_NOEND)
				publish_due(MyDatabaseId, note->channel, note->due);
		}
	}
	status_changed(changed_buckets);
}

/* The lowest ids of all that is noted, and whether some of it comes due.  Returns whether there is any. */
static bool
lowest_noted(int64 lowest[WAITING_KINDS], bool *due)
{
	bool		any = false;
	HASH_SEQ_STATUS seq;
	PendingNote *note;

	*due = false;
	for (int kind = 0; kind < WAITING_KINDS; kind++)
		lowest[kind] = PG_INT64_MAX;
	if (pending == NULL)
		return false;
	hash_seq_init(&seq, pending);
	while ((note = hash_seq_search(&seq)) != NULL)
	{
		for (int kind = 0; kind < WAITING_KINDS; kind++)
		{
			lowest[kind] = Min(lowest[kind], note->lowest[kind]);
			any |= lowest[kind] != PG_INT64_MAX;
		}
		*due |= note->due != DT_NOEND;
	}
	return any || *due;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	int64		lowest[WAITING_KINDS];
	bool		due;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (lowest_noted(lowest, &due))
				commit_begins(MyDatabaseId, lowest, due);
			break;
		case XACT_EVENT_COMMIT:
			publish_all();
			commit_ends();
			forget();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:	/* COMMIT PREPARED asks for a sweep */
			commit_ends();
			forget();
			break;
		default:
			break;
	}
}

/* Register the callback, just once in each backend. */
static void
register_callback(void)
{
	if (!registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		registered = true;
	}
}

static PendingNote *
pending_note(const char *channel)
{
	bool		found;
	char		key[CHANNEL_NAME_MAX] = {0};

	if (latest && strcmp(latest->channel, channel) == 0)
		return latest;
	register_callback();
	if (pending == NULL)
	{
		HASHCTL		ctl = {
			.keysize = CHANNEL_NAME_MAX,
			.entrysize = sizeof(PendingNote),
			.hcxt = TopMemoryContext,
		};

		pending = hash_create("msgsys pending notes", 16, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	strlcpy(key, channel, CHANNEL_NAME_MAX);
	latest = hash_search(pending, key, HASH_ENTER, &found);
	if (!found)
	{
		for (int kind = 0; kind < WAITING_KINDS; kind++)
			latest->lowest[kind] = PG_INT64_MAX;
		latest->due = DT_NOEND;
		latest->backlog = 0;
	}
	return latest;
}

static void
note_waiting(const char *channel, WaitingKind kind, int64 id)
{
	PendingNote *note = pending_note(channel);

	if (id < note->lowest[kind])
		note->lowest[kind] = id;
}

/* This transaction makes a row claimable. */
void
note_claimable(const char *channel, int64 id)
{
	note_waiting(channel, WAITING_IDLE, id);
}

/* This transaction makes a row that waits for its channel's webhook. */
void
note_received(const char *channel, int64 id)
{
	note_waiting(channel, WAITING_RECEIVED, id);
}

/* This transaction makes so many messages wait to be sent, or so many fewer. */
void
note_backlog(const char *channel, int n)
{
	pending_note(channel)->backlog += n;
}

/* How many it has made wait. */
int64
noted_backlog(const char *channel)
{
	return pending ? pending_note(channel)->backlog : 0;
}

/* This transaction makes a row that comes due. */
void
note_due(const char *channel, TimestampTz due)
{
	PendingNote *note = pending_note(channel);

	if (due < note->due)
		note->due = due;
}

/* This transaction changes channels, pauses or the extension. */
void
note_config(void)
{
	register_callback();
	config_changed = true;
}

/* This transaction changes what the scheduler has to do, or when. */
void
note_schedule(void)
{
	register_callback();
	schedule_changed = true;
}

/* A prepared transaction is about to commit: its notes are forgotten, so any message may be its. */
void
note_prepared(void)
{
	static const int64 any[WAITING_KINDS] = {1, 1};

	register_callback();
	commit_begins(MyDatabaseId, any, true);
}

/* This transaction changes the status of a message. */
void
note_status(int64 id)
{
	register_callback();
	changed_buckets |= status_bucket(id);
}

/*
 * Key under which this backend may keep what it read of the configuration:
 * 0 means not at all, because this transaction itself changed it (and may
 * roll back), or because nobody would tell us of a change.
 */
uint64
config_cache_key(void)
{
	return config_changed ? 0 : config_generation();
}
