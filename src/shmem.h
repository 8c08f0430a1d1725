/*
 * shmem.h
 *		Shared memory: a slot a worker, the notes that wake workers at commit, and
 *		what waits for a message's status.
 */
#ifndef MSGSYS_SHMEM_H
#define MSGSYS_SHMEM_H

#include "commits.h"
#include "msgsys.h"

#include "datatype/timestamp.h"
#include "storage/proc.h"

#include "histogram.h"

/* State of a worker, as msg_workers shows it. */
typedef enum WorkerState
{
	WORKER_STOPPED,
	WORKER_NO_SLOT,				/* max_worker_processes is used up */
	WORKER_NO_DATABASE,			/* no such database, or it takes no connections */
	WORKER_NOT_NEEDED,			/* nothing in this database is its stage's affair */
	WORKER_STANDBY,				/* starts when this server is promoted */
	WORKER_STARTING,
	WORKER_ABSENT,				/* the extension is not in this database */
	WORKER_PAUSED,
	WORKER_COPY,				/* this is a copy: waits for msg_adopt() */
	WORKER_NO_BROKER,			/* no broker is configured */
	WORKER_BROKER_SETTINGS,		/* the settings of its Kafka client cannot be used */
	WORKER_BROKER_DOWN,
	WORKER_IDLE,
	WORKER_BUSY
} WorkerState;

/* Counters of a worker since it started; names in shmem.c. */
typedef enum Counter
{
	COUNT_CYCLES,				/* transactions that claimed or marked something */
	COUNT_CLAIMED,				/* messages claimed */
	COUNT_SENT,					/* messages that the broker confirmed */
	COUNT_BYTES,				/* bytes of payload and key handed to the broker */
	COUNT_REFUSED,				/* messages that the broker refused, or HTTP requests before they were read */
	COUNT_EXPIRED,				/* messages found expired at the claim */
	COUNT_DEAD_LETTERS,			/* dead letters that the broker confirmed */
	COUNT_GAVE_UP,				/* batches given up for want of an answer */
	COUNT_RUNS,					/* runs of channels with a pace */
	COUNT_PURGED,				/* messages that retention took out */
	COUNT_SWEEPS,				/* looks from the beginning, not from the mark */
	COUNT_RECORDS,				/* records read */
	COUNT_RECEIVED,				/* messages marked by a record */
	COUNT_UNMATCHED,			/* records for a message that is past it, or gone */
	COUNT_FOREIGN,				/* records that are not this installation's */
	COUNT_MALFORMED,			/* acknowledgements that cannot be read */
	COUNT_SET_ASIDE,			/* records that could not be marked, whatever the reason, and were passed over */
	COUNT_POSTPONED,			/* records set aside because a user holds the row */
	COUNT_REQUESTS,				/* requests that ended: to webhooks, or of HTTP clients */
	COUNT_DELIVERED,			/* messages that a webhook took */
	COUNT_FAILED,				/* attempts at a webhook, or answers to HTTP clients, that failed */
	COUNT_DEAD,					/* messages that died at a webhook */
	COUNT_CACHED,				/* entries that Redis took */
	COUNT_UNCACHED,				/* entries that it did not */
	COUNT_COUNTERS
} Counter;

/* The row of msg_workers, copied out of a slot. */
typedef struct WorkerView
{
	char		database[NAMEDATALEN];
	Oid			dboid;
	Stage		stage;
	int			number;
	int			pid;
	WorkerState state;
	TimestampTz started_at;
	TimestampTz active_at;
	uint64		counters[COUNT_COUNTERS];
	uint64		totals[COUNT_COUNTERS]; /* since the server's start: counters never go back */
	Durations	histograms[HISTOGRAM_COUNT];
	uint32		connections;
	TimestampTz error_at;
	TimestampTz error_over_at;	/* 0: it may last */
	char		error[256];
} WorkerView;

extern void shmem_register(void);
extern bool shmem_available(void);
extern const char *worker_state_name(WorkerState state);
extern const char *counter_name(Counter counter);

/* The launcher's part: slots given to workers; what it knows of them is here, and outlives it. */
extern int	slot_count(void);
extern int	slot_reserve(Oid dboid, const char *database, Stage stage, int number);
extern uint64 slot_begin(int slot, Oid dboid);
extern void slot_end(int slot);
extern int	slot_pid(int slot);
extern void slot_release(int slot);
extern void slot_set_state(int slot, WorkerState state, const char *error);
extern bool slot_view(int slot, WorkerView *view);
extern void slot_publish_launcher(void);
extern bool stage_needed(Oid dboid, Stage stage);

/* For msg_check(): the launcher's process (0: none), and how many channels have a place. */
extern void shmem_look(int *launcher, int *nchannels);

/* A worker's own slot. */
extern bool slot_attach(int slot, uint64 start);
extern Oid	slot_dboid(void);
extern void slot_database(char *name);
extern Stage slot_stage(void);
extern int	slot_number(void);
extern void slot_state(WorkerState state);
extern void slot_count_up(Counter counter, uint64 n);
extern void slot_error(const char *error);
extern void slot_error_over(const char *error);
extern void slot_well(void);
extern void slot_observe(Histogram histogram, const Durations *durations);
extern void slot_connections(uint32 n);
extern void slot_need(uint32 stages);

/* Whether a worker of this slot has ended in the middle of something, or the whole server has. */
extern bool slot_unclean(void);
extern void slot_set_unclean(bool unclean);

/* Stopping the workers of a database, for DROP DATABASE and its like. */
extern void database_block(Oid dboid);
extern void database_unblock(Oid dboid);
extern bool database_blocked(Oid dboid);
extern bool slot_blocked_now(void);

/*
 * Notes to the workers of a database, published once rows are visible to all
 * (see the head of shmem.c); notes.c keeps them until the transaction commits.
 */
extern void publish_waiting(Oid dboid, const char *channel, WaitingKind kind, int64 id);
extern void publish_due(Oid dboid, const char *channel, TimestampTz due);
extern void publish_sweep(Oid dboid);
extern void publish_schedule(Oid dboid);
extern void publish_config(Oid dboid);
extern uint64 config_generation(void);

typedef struct Note
{
	char		channel[CHANNEL_NAME_MAX];
	int64		low[WAITING_KINDS]; /* rows above it may wait; PG_INT64_MAX: none */
	TimestampTz due;			/* earliest due time noted; DT_NOEND: none */
} Note;

extern void notes_want(const char *channel, bool wanted);
extern int64 notes_floor(WaitingKind kind);
extern bool notes_waiting(void);
extern int	notes_take(Note **notes, bool *sweep);
extern bool notes_overflowed(void);
extern void notes_overflow_seen(void);

/* The place of a channel among those that are known; negative: there is none left. */
extern int	channel_index(Oid dboid, const char *channel);
extern void channels_forget(Oid dboid, bool (*known) (const char *channel));

/* Waiting for a status (msg_wait), woken by whoever changed one. */
extern void status_wait_prepare(int64 id);
extern bool status_wait(long timeout_ms, uint32 wait_event);
extern void status_wait_end(void);
extern uint64 status_bucket(int64 id);
extern void status_changed(uint64 buckets);

#endif							/* MSGSYS_SHMEM_H */
