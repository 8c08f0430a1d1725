/*
 * shmem.c
 *		Shared memory: a slot a worker, and notes that wake workers at commit.
 *
 * Notes.  A transaction that makes rows claimable (an insert, a retry) notes
 * the channel and the lowest id, or the due time.  After its commit, when its
 * rows are visible to everybody, it publishes them: into each worker's own
 * array, indexed by channel, the lowest id by an atomic minimum; then it sets
 * the workers' latches.  A worker takes the notes before the snapshot of its
 * next claim, so whatever is committed but not yet seen has its note still to
 * come.  That is what lets a worker's low-water mark move at once, even past ids
 * whose transactions are still running: whoever commits late publishes its own
 * low id.  What cannot be noted (a prepared transaction committed by another
 * backend) asks for a sweep, a claim from the beginning.  A channel beyond
 * msgsys.max_channels has no cells; its notes ask for a sweep that may wait, so
 * that many commits cost one.
 *
 * Slots.  A slot is the seat of one worker, and all that is known of it: the
 * launcher keeps nothing that is not here, and finds what runs when it starts
 * again.  A process takes its seat under the lock, if nobody sits there and it is
 * the one that was started for it last (start); any other one ends at once.
 */
#include "msgsys.h"

#include "backlog.h"
#include "commits.h"
#include "names.h"
#include "compat.h"
#include "metrics.h"
#include "shmem.h"
#include "trouble.h"

#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#define WELL_AFTER		60000	/* ms; longer than any pause between two tries */
#define MAX_BLOCKED		16		/* databases being dropped at the same time */
#define WAIT_BUCKETS	64		/* condition variables of msg_wait */
#define NO_ID			PG_INT64_MAX
#define NO_CHANNEL		(-1)

typedef struct WorkerSlot
{
	bool		used;
	Oid			dboid;
	char		database[NAMEDATALEN];
	Stage		stage;
	int			number;
	uint64		start;			/* number of its latest start: only that process may take it */
	pid_t		pid;			/* 0: no process */
	PGPROC	   *proc;			/* valid while pid is set */
	WorkerState state;
	TimestampTz started_at;
	TimestampTz error_at;
	TimestampTz error_over_at;	/* 0: it may last */
	bool		error_at_start; /* the launcher has told of it: the process could not be started */
	char		error[256];
	pg_atomic_uint64 active_at;
	pg_atomic_uint64 counters[COUNT_COUNTERS];
	uint64		retired[COUNT_COUNTERS];	/* of the workers before this one */
	pg_atomic_uint64 histograms[HISTOGRAM_COUNT][HISTOGRAM_NBOUNDS + 2];	/* buckets, sum */
	pg_atomic_uint32 connections;
	pg_atomic_uint32 noted;		/* something is in this slot's notes */
	pg_atomic_uint32 sweep;
	pg_atomic_uint32 overflow;	/* of notes without a cell: a sweep may wait a little */
	pg_atomic_uint32 needed;	/* a scheduler's: stages that its database needs, a bit each */
	bool		unclean;		/* something was begun, and not ended */
} WorkerSlot;

typedef struct ChannelKey
{
	Oid			dboid;
	char		name[CHANNEL_NAME_MAX];
} ChannelKey;

typedef struct ChannelEntry
{
	ChannelKey	key;			/* hash key, must be first */
	int			index;
} ChannelEntry;

/* One slot's notes of one channel; see the head of this file. */
typedef struct NoteCell
{
	pg_atomic_uint64 low[WAITING_KINDS];
	pg_atomic_uint64 due;
	pg_atomic_uint32 unwanted;	/* idle and due rows are another stage's affair */
} NoteCell;

typedef struct Shared
{
	LWLock	   *lock;			/* slots (identity), channel names, blocked */
	PGPROC	   *launcher;
	struct
	{
		Oid			dboid;
		int			count;
	}			blocked[MAX_BLOCKED];
	int			nplaces;		/* places of channels ever given out; some may be free again */
	int			nfree;
	pg_atomic_uint64 freed;		/* times that a place was taken back */
	pg_atomic_uint64 config;	/* bumped by any change of any configuration */
	pg_atomic_uint32 waiters;
	ConditionVariable changed[WAIT_BUCKETS];
	WorkerSlot	slots[FLEXIBLE_ARRAY_MEMBER];
} Shared;

static Shared *shared = NULL;
static NoteCell *cells = NULL;	/* [slot][channel] */
static HTAB *channel_names = NULL;	/* ChannelKey -> index */
static ChannelKey *places = NULL;	/* index -> channel; a name that is empty: free */

static shmem_startup_hook_type prev_shmem_startup_hook = NULL;
#ifdef MSGSYS_HAS_SHMEM_REQUEST_HOOK
static shmem_request_hook_type prev_shmem_request_hook = NULL;
#endif

/* This process's own slot, or -1. */
static int	my_slot = -1;

/* The bucket that msg_wait waits for, or -1. */
static int	waiting_bucket = -1;

static const char *const counter_names[COUNT_COUNTERS] = {
	[COUNT_CYCLES] = "cycles",
	[COUNT_CLAIMED] = "claimed",
	[COUNT_SENT] = "sent",
	[COUNT_BYTES] = "bytes",
	[COUNT_REFUSED] = "refused",
	[COUNT_EXPIRED] = "expired",
	[COUNT_DEAD_LETTERS] = "dead_letters",
	[COUNT_GAVE_UP] = "gave_up",
	[COUNT_RUNS] = "runs",
	[COUNT_PURGED] = "purged",
	[COUNT_SWEEPS] = "sweeps",
	[COUNT_RECORDS] = "records",
	[COUNT_RECEIVED] = "received",
	[COUNT_UNMATCHED] = "unmatched",
	[COUNT_FOREIGN] = "foreign",
	[COUNT_MALFORMED] = "malformed",
	[COUNT_SET_ASIDE] = "set_aside",
	[COUNT_POSTPONED] = "postponed",
	[COUNT_REQUESTS] = "requests",
	[COUNT_DELIVERED] = "delivered",
	[COUNT_FAILED] = "failed",
	[COUNT_DEAD] = "dead",
	[COUNT_CACHED] = "cached",
	[COUNT_UNCACHED] = "uncached",
};

static const char *const state_names[] = {
	[WORKER_STOPPED] = "stopped",
	[WORKER_NO_SLOT] = "no worker slot",
	[WORKER_NO_DATABASE] = "no database",
	[WORKER_NOT_NEEDED] = "not needed",
	[WORKER_STANDBY] = "standby",
	[WORKER_STARTING] = "starting",
	[WORKER_ABSENT] = "extension absent",
	[WORKER_PAUSED] = "paused",
	[WORKER_COPY] = "copy, not adopted",
	[WORKER_NO_BROKER] = "no broker set",
	[WORKER_BROKER_SETTINGS] = "broker settings wrong",
	[WORKER_BROKER_DOWN] = "broker down",
	[WORKER_IDLE] = "idle",
	[WORKER_BUSY] = "busy",
};

const char *
worker_state_name(WorkerState state)
{
	return state_names[state];
}

const char *
counter_name(Counter counter)
{
	return counter_names[counter];
}

/* Slots there are: every stage of every database that may be listed. */
int
slot_count(void)
{
	int			per_database = 0;

	for (int stage = 0; stage < STAGE_COUNT; stage++)
		per_database += stage_workers(stage);
	return per_database * setting_max_databases;
}

static Size
shared_size(void)
{
	return add_size(offsetof(Shared, slots),
					mul_size(slot_count(), sizeof(WorkerSlot)));
}

static Size
cells_size(void)
{
	return mul_size(mul_size(slot_count(), setting_max_channels),
					sizeof(NoteCell));
}

static NoteCell *
cell(int slot, int channel)
{
	return &cells[(Size) slot * setting_max_channels + channel];
}

static void
shmem_request(void)
{
#ifdef MSGSYS_HAS_SHMEM_REQUEST_HOOK
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
#endif
	RequestAddinShmemSpace(shared_size());
	RequestAddinShmemSpace(cells_size());
	RequestAddinShmemSpace(add_size(names_size(), add_size(commits_size(), backlog_size())));
	RequestAddinShmemSpace(mul_size(setting_max_channels, sizeof(ChannelKey)));
	RequestAddinShmemSpace(hash_estimate_size(setting_max_channels,
											  sizeof(ChannelEntry)));
	RequestAddinShmemSpace(add_size(metrics_size(), troubles_size()));
	RequestNamedLWLockTranche(MSGSYS_NAME, 3);
}

/*
 * Whether the server was not shut down properly before this start, or is a standby,
 * which may lack the last of what its primary did.  To be asked before recovery begins.
 */
static bool
not_shut_down(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		result = !crc_ok || control->state != DB_SHUTDOWNED;

	pfree(control);
	return result || access(STANDBY_SIGNAL_FILE, F_OK) == 0 || access(RECOVERY_SIGNAL_FILE, F_OK) == 0;
}

static void
shmem_startup(void)
{
	bool		found;
	bool		crashed = not_shut_down();
	HASHCTL		ctl = {
		.keysize = sizeof(ChannelKey),
		.entrysize = sizeof(ChannelEntry),
	};

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("msgsys", shared_size(), &found);
	if (!found)
	{
		memset(shared, 0, shared_size());
		shared->lock = &(GetNamedLWLockTranche(MSGSYS_NAME))->lock;
		pg_atomic_init_u64(&shared->config, 1);
		pg_atomic_init_u64(&shared->freed, 0);
		pg_atomic_init_u32(&shared->waiters, 0);
		for (int i = 0; i < WAIT_BUCKETS; i++)
			ConditionVariableInit(&shared->changed[i]);
		for (int i = 0; i < slot_count(); i++)
		{
			WorkerSlot *slot = &shared->slots[i];

			pg_atomic_init_u64(&slot->active_at, 0);
			for (int c = 0; c < COUNT_COUNTERS; c++)
				pg_atomic_init_u64(&slot->counters[c], 0);
			for (int h = 0; h < HISTOGRAM_COUNT; h++)
				for (int b = 0; b < HISTOGRAM_NBOUNDS + 2; b++)
					pg_atomic_init_u64(&slot->histograms[h][b], 0);
			pg_atomic_init_u32(&slot->connections, 0);
			pg_atomic_init_u32(&slot->noted, 0);
			pg_atomic_init_u32(&slot->sweep, 0);
			pg_atomic_init_u32(&slot->overflow, 0);
			pg_atomic_init_u32(&slot->needed, 0);
			slot->unclean = crashed;
		}
	}
	commits_init();
	names_init();
	backlog_init();
	metrics_init();
	troubles_init();
	cells = ShmemInitStruct("msgsys notes", cells_size(), &found);
	if (!found)
		for (int i = 0; i < slot_count() * setting_max_channels; i++)
		{
			for (int kind = 0; kind < WAITING_KINDS; kind++)
				pg_atomic_init_u64(&cells[i].low[kind], (uint64) NO_ID);
			pg_atomic_init_u32(&cells[i].unwanted, 0);
			pg_atomic_init_u64(&cells[i].due, (uint64) DT_NOEND);
		}
	places = ShmemInitStruct("msgsys channel places",
							 mul_size(setting_max_channels, sizeof(ChannelKey)),
							 &found);
	if (!found)
		memset(places, 0, mul_size(setting_max_channels, sizeof(ChannelKey)));
	channel_names = ShmemInitHash("msgsys channels", setting_max_channels,
								  setting_max_channels, &ctl,
								  HASH_ELEM | HASH_BLOBS);
	LWLockRelease(AddinShmemInitLock);
}

bool
slot_unclean(void)
{
	return shared->slots[my_slot].unclean;
}

void
slot_set_unclean(bool unclean)
{
	shared->slots[my_slot].unclean = unclean;
}

/* Called from _PG_init while the postmaster preloads the library. */
void
shmem_register(void)
{
#ifdef MSGSYS_HAS_SHMEM_REQUEST_HOOK
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
#else
	shmem_request();
#endif
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/* False where the library was not preloaded: there are no workers then. */
bool
shmem_available(void)
{
	return shared != NULL;
}

/* ---------------------------------------------------------------- slots */

/* Give a slot to a worker that is about to be started; -1 if none is free. */
int
slot_reserve(Oid dboid, const char *database, Stage stage, int number)
{
	int			result = -1;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < slot_count() && result < 0; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->used)
			continue;
		slot->used = true;
		slot->dboid = dboid;
		strlcpy(slot->database, database, NAMEDATALEN);
		slot->stage = stage;
		slot->number = number;
		slot->pid = 0;
		slot->proc = NULL;
		slot->state = WORKER_STOPPED;
		slot->started_at = 0;
		slot->error_at = slot->error_over_at = 0;
		slot->error[0] = '\0';
		pg_atomic_write_u32(&slot->needed, 0);
		memset(slot->retired, 0, sizeof(slot->retired));
		for (int c = 0; c < COUNT_COUNTERS; c++)
			pg_atomic_write_u64(&slot->counters[c], 0);
		for (int h = 0; h < HISTOGRAM_COUNT; h++)
			for (int b = 0; b < HISTOGRAM_NBOUNDS + 2; b++)
				pg_atomic_write_u64(&slot->histograms[h][b], 0);
		result = i;
	}
	LWLockRelease(shared->lock);
	return result;
}

/*
 * Give a seat to a worker that is about to be started in a database.  Returns the
 * number of this start, for slot_attach(); 0 where somebody sits there.
 */
uint64
slot_begin(int i, Oid dboid)
{
	WorkerSlot *slot = &shared->slots[i];
	uint64		start = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (slot->pid == 0)
	{
		/* what its channels needed was another database's affair */
		if (slot->dboid != dboid)
			pg_atomic_write_u32(&slot->needed, 0);
		slot->dboid = dboid;
		slot->state = WORKER_STARTING;
		start = ++slot->start;
	}
	LWLockRelease(shared->lock);
	return start;
}

/* Tell the process of a seat to end, if there is one. */
void
slot_end(int i)
{
	WorkerSlot *slot = &shared->slots[i];

	/* it leaves its seat under the lock, so the pid is its own */
	LWLockAcquire(shared->lock, LW_SHARED);
	if (slot->pid != 0)
		kill(slot->pid, SIGTERM);
	LWLockRelease(shared->lock);
}

/* The process of a seat; 0: none. */
int
slot_pid(int i)
{
	int			pid;

	LWLockAcquire(shared->lock, LW_SHARED);
	pid = shared->slots[i].pid;
	LWLockRelease(shared->lock);
	return pid;
}

/* Take a slot back, once its worker is gone; one that is still on its way will not get in. */
void
slot_release(int i)
{
	WorkerSlot *slot = &shared->slots[i];

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (slot->pid == 0)
	{
		slot->used = false;
		slot->start++;
	}
	LWLockRelease(shared->lock);
}

static void
set_error(WorkerSlot *slot, const char *error)
{
	strlcpy(slot->error, error, sizeof(slot->error));
	slot->error_at = GetCurrentTimestamp();
	slot->error_over_at = 0;
	slot->error_at_start = false;
}

static void
set_error_over(WorkerSlot *slot)
{
	if (slot->error_at != 0 && slot->error_over_at == 0)
		slot->error_over_at = GetCurrentTimestamp();
}

/* The launcher's word on a slot that has no process. */
void
slot_set_state(int slot, WorkerState state, const char *error)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->slots[slot].state = state;
	if (error)
	{
		set_error(&shared->slots[slot], error);
		shared->slots[slot].error_at_start = true;
	}
	LWLockRelease(shared->lock);
}

/* Copy a slot out for msg_workers; false if it is not in use. */
bool
slot_view(int i, WorkerView *view)
{
	WorkerSlot *slot = &shared->slots[i];
	bool		used;

	LWLockAcquire(shared->lock, LW_SHARED);
	used = slot->used;
	if (used)
	{
		strlcpy(view->database, slot->database, NAMEDATALEN);
		view->dboid = slot->dboid;
		view->stage = slot->stage;
		view->number = slot->number;
		view->pid = slot->pid;
		view->state = slot->state;
		view->started_at = slot->started_at;
		view->active_at = (TimestampTz) pg_atomic_read_u64(&slot->active_at);
		for (int c = 0; c < COUNT_COUNTERS; c++)
		{
			view->counters[c] = pg_atomic_read_u64(&slot->counters[c]);
			view->totals[c] = view->counters[c] + slot->retired[c];
		}
		for (int h = 0; h < HISTOGRAM_COUNT; h++)
		{
			for (int b = 0; b <= HISTOGRAM_NBOUNDS; b++)
				view->histograms[h].counts[b] = pg_atomic_read_u64(&slot->histograms[h][b]);
			view->histograms[h].sum = pg_atomic_read_u64(&slot->histograms[h][HISTOGRAM_NBOUNDS + 1]);
		}
		view->connections = pg_atomic_read_u32(&slot->connections);
		view->error_at = slot->error_at;
		view->error_over_at = slot->error_over_at;
		strlcpy(view->error, slot->error, sizeof(view->error));
	}
	LWLockRelease(shared->lock);
	return used;
}

static void
launcher_withdraw(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = NULL;
	LWLockRelease(shared->lock);
}

/* The launcher's process (0: none), and how many channels have a place. */
void
shmem_look(int *launcher, int *nchannels)
{
	LWLockAcquire(shared->lock, LW_SHARED);
	*launcher = shared->launcher ? shared->launcher->pid : 0;
	*nchannels = (int) hash_get_num_entries(channel_names);
	LWLockRelease(shared->lock);
}

/* Make the launcher's latch known, so that hooks can wake it. */
void
slot_publish_launcher(void)
{
	before_shmem_exit(launcher_withdraw, (Datum) 0);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = MyProc;
	LWLockRelease(shared->lock);
}

static void
slot_detach(int code, Datum arg)
{
	WorkerSlot *slot;

	if (my_slot < 0)
		return;
	slot = &shared->slots[my_slot];
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (slot->pid == MyProcPid)
	{
		slot->pid = 0;
		slot->proc = NULL;
		slot->state = WORKER_STOPPED;
		pg_atomic_write_u32(&slot->connections, 0);
	}
	/* the one that started us may be gone, and nobody else tells the one after it */
	if (shared->launcher)
		SetLatch(&shared->launcher->procLatch);
	LWLockRelease(shared->lock);
}

/*
 * Take the seat that the launcher gave to this process, by the number of its start.
 * Returns false where it is not this process's any more, or somebody sits there:
 * whatever launchers believe, no seat has two workers.
 */
bool
slot_attach(int i, uint64 start)
{
	WorkerSlot *slot = &shared->slots[i];

	before_shmem_exit(slot_detach, (Datum) 0);

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (!slot->used || slot->pid != 0 || slot->start != start)
	{
		LWLockRelease(shared->lock);
		return false;
	}
	my_slot = i;
	slot->pid = MyProcPid;
	slot->proc = MyProc;
	slot->state = WORKER_STARTING;
	slot->started_at = GetCurrentTimestamp();
	pg_atomic_write_u64(&slot->active_at, (uint64) slot->started_at);
	for (int c = 0; c < COUNT_COUNTERS; c++)
		slot->retired[c] += pg_atomic_exchange_u64(&slot->counters[c], 0);
	/* notes of a worker before us are worth nothing without its marks */
	for (int c = 0; c < setting_max_channels; c++)
	{
		for (int kind = 0; kind < WAITING_KINDS; kind++)
			pg_atomic_write_u64(&cell(i, c)->low[kind], (uint64) NO_ID);
		pg_atomic_write_u64(&cell(i, c)->due, (uint64) DT_NOEND);
	}
	pg_atomic_write_u32(&slot->overflow, 0);
	pg_atomic_write_u32(&slot->sweep, 1);
	pg_atomic_write_u32(&slot->noted, 1);
	if (slot->error_at_start)
		set_error_over(slot);
	LWLockRelease(shared->lock);
	troubles_begin(slot->dboid, slot->stage, slot->number);
	return true;
}

Oid
slot_dboid(void)
{
	return shared->slots[my_slot].dboid;
}

/* Copy the name of this worker's database, NAMEDATALEN bytes. */
void
slot_database(char *name)
{
	LWLockAcquire(shared->lock, LW_SHARED);
	strlcpy(name, shared->slots[my_slot].database, NAMEDATALEN);
	LWLockRelease(shared->lock);
}

Stage
slot_stage(void)
{
	return shared->slots[my_slot].stage;
}

int
slot_number(void)
{
	return shared->slots[my_slot].number;
}

/* Show what this worker is doing. */
void
slot_state(WorkerState state)
{
	WorkerSlot *slot = &shared->slots[my_slot];

	/* a torn read is not possible and a stale one harmless: no lock */
	slot->state = state;
	pg_atomic_write_u64(&slot->active_at, (uint64) GetCurrentTimestamp());
}

/* Add to one of this worker's counters. */
void
slot_count_up(Counter counter, uint64 n)
{
	if (n > 0)
		pg_atomic_fetch_add_u64(&shared->slots[my_slot].counters[counter], n);
}

/* Add durations to one of this worker's histograms. */
void
slot_observe(Histogram histogram, const Durations *durations)
{
	pg_atomic_uint64 *cells = shared->slots[my_slot].histograms[histogram];

	for (int b = 0; b <= HISTOGRAM_NBOUNDS; b++)
		if (durations->counts[b] > 0)
			pg_atomic_fetch_add_u64(&cells[b], durations->counts[b]);
	if (durations->sum > 0)
		pg_atomic_fetch_add_u64(&cells[HISTOGRAM_NBOUNDS + 1], durations->sum);
}

/* Show how many connections this worker has open. */
void
slot_connections(uint32 n)
{
	pg_atomic_write_u32(&shared->slots[my_slot].connections, n);
}

/* A scheduler's word on which stages its database needs, a bit each; the launcher starts and ends their workers. */
void
slot_need(uint32 stages)
{
	if (pg_atomic_exchange_u32(&shared->slots[my_slot].needed, stages) == stages)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	/* those that the launcher is about to start are shown so from now on */
	for (int i = 0; i < slot_count(); i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->used && slot->dboid == shared->slots[my_slot].dboid && slot->state == WORKER_NOT_NEEDED &&
			(stages & (1U << slot->stage)) != 0)
			slot->state = WORKER_STARTING;
	}
	if (shared->launcher)
		SetLatch(&shared->launcher->procLatch);
	LWLockRelease(shared->lock);
}

/* Whether a database needs the workers of a stage, as far as its scheduler has said. */
bool
stage_needed(Oid dboid, Stage stage)
{
	bool		result = false;

	/* who says what is needed, and who serves whatever there is */
	if (stage == STAGE_SCHEDULER || stage == STAGE_HTTP)
		return true;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < slot_count(); i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->used && slot->stage == STAGE_SCHEDULER && slot->dboid == dboid)
			result = (pg_atomic_read_u32(&slot->needed) & (1U << stage)) != 0;
	}
	LWLockRelease(shared->lock);
	return result;
}

/* Show this worker's latest error. */
void
slot_error(const char *error)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	set_error(&shared->slots[my_slot], error);
	LWLockRelease(shared->lock);
}

/* What this worker has called its latest error is over. */
void
slot_error_over(const char *error)
{
	WorkerSlot *slot = &shared->slots[my_slot];

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (error[0] != '\0' && strncmp(slot->error, error, sizeof(slot->error) - 1) == 0)
		set_error_over(slot);
	LWLockRelease(shared->lock);
}

/* This worker knows of no trouble: its latest error is over, once none has come for long. */
void
slot_well(void)
{
	WorkerSlot *slot = &shared->slots[my_slot];

	/* mostly there is nothing to do; nobody else writes these but before this process began */
	if (slot->error_at == 0 || slot->error_over_at != 0 ||
		!TimestampDifferenceExceeds(Max(slot->error_at, slot->started_at), GetCurrentTimestamp(), WELL_AFTER))
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	set_error_over(slot);
	LWLockRelease(shared->lock);
}

/* ---------------------------------------------------------------- blocking */

/*
 * Keep workers out of a database until database_unblock(), and end those that
 * are there.  The caller waits for them as PostgreSQL itself does.
 */
void
database_block(Oid dboid)
{
	int			place = -1;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_BLOCKED; i++)
	{
		if (shared->blocked[i].count > 0 && shared->blocked[i].dboid == dboid)
		{
			place = i;
			break;
		}
		if (shared->blocked[i].count == 0 && place < 0)
			place = i;
	}
	if (place >= 0)
	{
		shared->blocked[place].dboid = dboid;
		shared->blocked[place].count++;
	}
	for (int i = 0; i < slot_count(); i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->used && slot->dboid == dboid && slot->pid != 0)
			kill(slot->pid, SIGTERM);
	}
	LWLockRelease(shared->lock);
	if (place < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("too many databases are being dropped or renamed at once")));
}

void
database_unblock(Oid dboid)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_BLOCKED; i++)
		if (shared->blocked[i].count > 0 && shared->blocked[i].dboid == dboid)
			shared->blocked[i].count--;
	if (shared->launcher)
		SetLatch(&shared->launcher->procLatch);
	LWLockRelease(shared->lock);
}

bool
database_blocked(Oid dboid)
{
	bool		result = false;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < MAX_BLOCKED; i++)
		if (shared->blocked[i].count > 0 && shared->blocked[i].dboid == dboid)
			result = true;
	LWLockRelease(shared->lock);
	return result;
}

/* The same of this worker's own database, for a signal handler: without the lock, so that it may be a moment late. */
bool
slot_blocked_now(void)
{
	for (int i = 0; my_slot >= 0 && i < MAX_BLOCKED; i++)
		if (shared->blocked[i].count > 0 && shared->blocked[i].dboid == shared->slots[my_slot].dboid)
			return true;
	return false;
}

/* ---------------------------------------------------------------- places of channels */

/* The place of a channel, with the lock held; NO_CHANNEL when it has none. */
static int
place_find(const ChannelKey *key)
{
	static ChannelEntry last = {.index = NO_CHANNEL};
	static uint64 last_freed = 0;
	uint64		freed = pg_atomic_read_u64(&shared->freed);
	ChannelEntry *entry;

	/* places are taken back rarely, and most transactions name the channel of the one before */
	if (last.index != NO_CHANNEL && last_freed == freed && last.key.dboid == key->dboid &&
		strcmp(last.key.name, key->name) == 0)
		return last.index;
	entry = hash_search(channel_names, key, HASH_FIND, NULL);
	if (entry == NULL)
		return NO_CHANNEL;
	last = *entry;
	last_freed = freed;
	return last.index;
}

/* Whether there is a place left, with the lock held. */
static bool
place_left(void)
{
	return shared->nfree > 0 || shared->nplaces < setting_max_channels;
}

/* Give a channel a place, if there is one left. */
static void
place_make(const ChannelKey *key)
{
	ChannelEntry *entry;
	bool		found;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (place_left())
	{
		entry = hash_search(channel_names, key, HASH_ENTER_NULL, &found);
		if (entry && !found)
		{
			entry->index = shared->nplaces;
			if (shared->nfree > 0)
				for (entry->index = 0; places[entry->index].name[0] != '\0';)
					entry->index++;
			if (entry->index == shared->nplaces)
				shared->nplaces++;
			else
				shared->nfree--;
			places[entry->index] = *key;
		}
	}
	LWLockRelease(shared->lock);
}

static ChannelKey
place_key(Oid dboid, const char *channel)
{
	ChannelKey	key;

	memset(&key, 0, sizeof(key));
	key.dboid = dboid;
	strlcpy(key.name, channel, CHANNEL_NAME_MAX);
	return key;
}

/*
 * The index of a channel's place, given out at its first use; NO_CHANNEL when
 * there is none left.  Once the lock is released it may be another channel's: good
 * enough for numbers that are put right now and then, and for nothing else.
 */
int
channel_index(Oid dboid, const char *channel)
{
	ChannelKey	key = place_key(dboid, channel);
	int			result;
	bool		make = true;

	for (;;)
	{
		LWLockAcquire(shared->lock, LW_SHARED);
		result = place_find(&key);
		make &= result == NO_CHANNEL && place_left();
		LWLockRelease(shared->lock);
		if (!make)
			return result;
		place_make(&key);
		make = false;
	}
}

/* Take a place back, with the lock held exclusively. */
static void
place_free(int index)
{
	bool		found;

	hash_search(channel_names, &places[index], HASH_REMOVE, &found);
	memset(&places[index], 0, sizeof(ChannelKey));
	shared->nfree++;
	pg_atomic_fetch_add_u64(&shared->freed, 1);
	backlog_forget(index);
	for (int i = 0; i < slot_count(); i++)
	{
		NoteCell   *c = cell(i, index);

		for (int kind = 0; kind < WAITING_KINDS; kind++)
			pg_atomic_write_u64(&c->low[kind], (uint64) NO_ID);
		pg_atomic_write_u64(&c->due, (uint64) DT_NOEND);
		pg_atomic_write_u32(&c->unwanted, 0);
	}
}

/*
 * Take back the places of a database's channels that are not known any more (known
 * NULL: of all).  A channel of that name may have been made meanwhile, and have
 * noted something: so its workers look at all that waits.
 */
void
channels_forget(Oid dboid, bool (*known) (const char *channel))
{
	bool		any = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nplaces; i++)
		if (places[i].name[0] != '\0' && places[i].dboid == dboid && !(known && known(places[i].name)))
		{
			place_free(i);
			any = true;
		}
	for (int i = 0; any && i < slot_count(); i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (!slot->used || slot->dboid != dboid || slot->proc == NULL || slot->stage == STAGE_SCHEDULER)
			continue;
		pg_atomic_write_u32(&slot->sweep, 1);
		if (pg_atomic_exchange_u32(&slot->noted, 1) == 0)
			SetLatch(&slot->proc->procLatch);
	}
	LWLockRelease(shared->lock);
}

/* ---------------------------------------------------------------- notes */

/* Lower an atomic time or id to value. */
static void
atomic_minimum(pg_atomic_uint64 *cell, int64 value)
{
	uint64		old = pg_atomic_read_u64(cell);

	while ((int64) old > value)
		if (pg_atomic_compare_exchange_u64(cell, &old, (uint64) value))
			break;
}

typedef enum NoteKind
{
	NOTE_IDLE = WAITING_IDLE,
	NOTE_RECEIVED = WAITING_RECEIVED,
	NOTE_DUE,
	NOTE_SWEEP,
	NOTE_SCHEDULE,
	NOTE_WAKE
} NoteKind;

/* Write a note into the cells of each worker of a database, and wake them. */
static void
publish(Oid dboid, NoteKind kind, const char *channel, int64 value)
{
	int			index = NO_CHANNEL;
	bool		of_rows = kind <= NOTE_DUE;

	if (shared == NULL)
		return;
	if (of_rows)
	{
		ChannelKey	key = place_key(dboid, channel);

		/* the lock is kept, so that the place stays the channel's while it is written to */
		LWLockAcquire(shared->lock, LW_SHARED);
		index = place_find(&key);
		if (index == NO_CHANNEL && place_left())
		{
			LWLockRelease(shared->lock);
			place_make(&key);
			LWLockAcquire(shared->lock, LW_SHARED);
			index = place_find(&key);
		}
	}
	else
		LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < slot_count(); i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (!slot->used || slot->dboid != dboid || slot->proc == NULL)
			continue;
		if (kind != NOTE_WAKE && (slot->stage == STAGE_RECEIVER || slot->stage == STAGE_HTTP))
			continue;
		if (kind == NOTE_RECEIVED && slot->stage != STAGE_WEBHOOK)
			continue;
		if (slot->stage == STAGE_SCHEDULER ? of_rows : kind == NOTE_SCHEDULE)
			continue;
		if (of_rows && index == NO_CHANNEL)
			pg_atomic_write_u32(&slot->overflow, 1);
		else if ((kind == NOTE_IDLE || kind == NOTE_DUE) &&
				 pg_atomic_read_u32(&cell(i, index)->unwanted))
			continue;
		else if (kind < NOTE_DUE)
			atomic_minimum(&cell(i, index)->low[kind], value);
		else if (kind == NOTE_DUE)
			atomic_minimum(&cell(i, index)->due, value);
		else if (kind == NOTE_SWEEP || kind == NOTE_SCHEDULE)
			pg_atomic_write_u32(&slot->sweep, 1);
		/* one wake-up for all the notes that it takes at once */
		if (pg_atomic_exchange_u32(&slot->noted, 1) == 0)
			SetLatch(&slot->proc->procLatch);
	}
	LWLockRelease(shared->lock);
}

/* Rows of a channel from this id on may wait to be sent, or for its webhook. */
void
publish_waiting(Oid dboid, const char *channel, WaitingKind kind, int64 id)
{
	publish(dboid, (NoteKind) kind, channel, id - 1);
}

/* A row of a channel comes due then. */
void
publish_due(Oid dboid, const char *channel, TimestampTz due)
{
	publish(dboid, NOTE_DUE, channel, due);
}

/* Rows anywhere may be claimable. */
void
publish_sweep(Oid dboid)
{
	publish(dboid, NOTE_SWEEP, NULL, 0);
}

/* What the scheduler has to do, or when, may have changed. */
void
publish_schedule(Oid dboid)
{
	publish(dboid, NOTE_SCHEDULE, NULL, 0);
}

/* Channels, pauses or the extension itself have changed. */
void
publish_config(Oid dboid)
{
	if (shared == NULL)
		return;
	pg_atomic_fetch_add_u64(&shared->config, 1);
	publish(dboid, NOTE_WAKE, NULL, 0);
	LWLockAcquire(shared->lock, LW_SHARED);
	if (shared->launcher)
		SetLatch(&shared->launcher->procLatch);
	LWLockRelease(shared->lock);
}

/*
 * A number that changes with any configuration; 0 where there is no shared
 * memory, so that nobody may cache.
 */
uint64
config_generation(void)
{
	return shared ? pg_atomic_read_u64(&shared->config) : 0;
}

/*
 * Whether this worker is to be told of a channel's claimable and due rows; whoever
 * says so has to look at all that waits after that.
 */
void
notes_want(const char *channel, bool wanted)
{
	ChannelKey	key = place_key(MyDatabaseId, channel);
	int			index;

	/* a channel without a place is wanted by all, and may never be used */
	if (!wanted)
		(void) channel_index(MyDatabaseId, channel);
	LWLockAcquire(shared->lock, LW_SHARED);
	index = place_find(&key);
	if (index != NO_CHANNEL)
		pg_atomic_write_u32(&cell(my_slot, index)->unwanted, wanted ? 0 : 1);
	LWLockRelease(shared->lock);
}

/*
 * Take this worker's notes; to be called in each cycle, or no note wakes it any
 * more, and before the snapshot of the claim that acts on them.  Returns their
 * number, the array in the current memory context.
 */
int
notes_take(Note **notes, bool *sweep)
{
	WorkerSlot *slot = &shared->slots[my_slot];
	int			nplaces;
	int			n = 0;

	*notes = NULL;
	*sweep = false;
	if (pg_atomic_exchange_u32(&slot->noted, 0) == 0)
		return 0;
	*sweep = pg_atomic_exchange_u32(&slot->sweep, 0) != 0;

	LWLockAcquire(shared->lock, LW_SHARED);
	nplaces = shared->nplaces;
	LWLockRelease(shared->lock);
	for (int i = 0; i < nplaces; i++)
	{
		NoteCell   *c = cell(my_slot, i);
		bool		any = (TimestampTz) pg_atomic_read_u64(&c->due) != DT_NOEND;
		Note	   *note;

		for (int kind = 0; kind < WAITING_KINDS; kind++)
			any |= (int64) pg_atomic_read_u64(&c->low[kind]) != NO_ID;
		if (!any)
			continue;
		if (*notes == NULL)
			*notes = palloc((nplaces - i) * sizeof(Note));
		note = &(*notes)[n];
		/* with the lock, so that the notes are those of the channel that has the place */
		LWLockAcquire(shared->lock, LW_SHARED);
		strlcpy(note->channel, places[i].name, CHANNEL_NAME_MAX);
		for (int kind = 0; kind < WAITING_KINDS; kind++)
			note->low[kind] = (int64) pg_atomic_exchange_u64(&c->low[kind], (uint64) NO_ID);
		note->due = (TimestampTz) pg_atomic_exchange_u64(&c->due, (uint64) DT_NOEND);
		LWLockRelease(shared->lock);
		/* the place was taken back a moment ago, and a sweep asked for */
		if (note->channel[0] == '\0')
			continue;
		n++;
	}
	return n;
}

/* Whether there are notes to take.  Their latch may have been used up by a wait for a lock. */
bool
notes_waiting(void)
{
	return pg_atomic_read_u32(&shared->slots[my_slot].noted) != 0;
}

/*
 * From which id on there may be rows of a kind that marks do not know of: notes that
 * this worker has not taken yet, and commits whose notes are to come.  It covers
 * every transaction that a snapshot taken before sees.
 */
int64
notes_floor(WaitingKind kind)
{
	WorkerSlot *slot = &shared->slots[my_slot];
	int64		lowest = commits_lowest(slot->dboid, kind);
	int			nplaces;

	if (lowest != PG_INT64_MAX)
		lowest--;
	/* notes that have no cell stay until the sweep that they ask for */
	if (pg_atomic_read_u32(&slot->overflow) != 0)
		return 0;
	if (pg_atomic_read_u32(&slot->noted) == 0)
		return lowest;
	if (pg_atomic_read_u32(&slot->sweep) != 0)
		return 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	nplaces = shared->nplaces;
	LWLockRelease(shared->lock);
	for (int i = 0; i < nplaces; i++)
		lowest = Min(lowest, (int64) pg_atomic_read_u64(&cell(my_slot, i)->low[kind]));
	return lowest;
}

/* Whether something was noted of a channel that has no place. */
bool
notes_overflowed(void)
{
	return pg_atomic_read_u32(&shared->slots[my_slot].overflow) != 0;
}

/* A sweep is about to begin that sees whatever was noted so. */
void
notes_overflow_seen(void)
{
	(void) pg_atomic_exchange_u32(&shared->slots[my_slot].overflow, 0);
}

/* ---------------------------------------------------------------- msg_wait */

/* Announce a waiter for a message, before its status is looked at. */
void
status_wait_prepare(int64 id)
{
	pg_atomic_fetch_add_u32(&shared->waiters, 1);
	waiting_bucket = (int) ((uint64) id % WAIT_BUCKETS);
	ConditionVariablePrepareToSleep(&shared->changed[waiting_bucket]);
}

/* Sleep until some status of the bucket changed; false at the timeout. */
bool
status_wait(long timeout_ms, uint32 wait_event)
{
	return !ConditionVariableTimedSleep(&shared->changed[waiting_bucket],
										timeout_ms, wait_event);
}

/* Undo status_wait_prepare(); harmless when there is nothing to undo. */
void
status_wait_end(void)
{
	if (waiting_bucket < 0)
		return;
	ConditionVariableCancelSleep();
	waiting_bucket = -1;
	pg_atomic_fetch_sub_u32(&shared->waiters, 1);
}

/* The bit of a message's bucket in a set of buckets. */
uint64
status_bucket(int64 id)
{
	return UINT64CONST(1) << ((uint64) id % WAIT_BUCKETS);
}

/* Wake who waits for messages of these buckets, after the commit. */
void
status_changed(uint64 buckets)
{
	if (shared == NULL || buckets == 0 ||
		pg_atomic_read_u32(&shared->waiters) == 0)
		return;
	for (int i = 0; i < WAIT_BUCKETS; i++)
		if (buckets & (UINT64CONST(1) << i))
			ConditionVariableBroadcast(&shared->changed[i]);
}
