/*
 * store.h
 *		Every SQL statement that workers run on the tables of the extension.
 *
 * All are to be called between worker_begin() and worker_commit(), or, where said
 * so, from a session with SPI connected.
 */
#ifndef MSGSYS_STORE_H
#define MSGSYS_STORE_H

#include "msgsys.h"

#include "datatype/timestamp.h"
#include "storage/itemptr.h"
#include "utils/jsonb.h"

#include "channel.h"
#include "commits.h"
#include "worker.h"

typedef enum ClaimKind
{
	/* their rows are locked one by one (store_lock_claimed) */
	CLAIM_IDLE,					/* above the channel's mark, by id */
	CLAIM_DUE,					/* scheduled and retry, above a mark, by due time and id */

	/* these skip what somebody holds, and lock what they give */
	CLAIM_RESEND,				/* sent, not acknowledged for too long */
	CLAIM_DEAD_LETTER,			/* dead, not yet written to the topic for that */

	/* without locks, for a webhook worker knows what it has */
	CLAIM_WEBHOOK_IDLE,			/* above a mark, by id */
	CLAIM_WEBHOOK_RECEIVED,		/* above a mark, by id */
	CLAIM_WEBHOOK_DUE			/* scheduled and retry, above a mark, by due time and id */
} ClaimKind;

/* One channel's part of a claim. */
typedef struct ClaimShare
{
	Channel    *channel;
	int64		low;			/* rows up to it are done with, where a kind has a mark */
	TimestampTz low_due;		/* of claims by due time: that was due then, and low was its id */
	int			limit;			/* most rows */
} ClaimShare;

/* A claimed row; pointers are valid during the callback. */
typedef struct ClaimedRow
{
	ItemPointerData tid;		/* does not move once it is locked by us */
	int64		id;
	int32		epoch;			/* one of ours; 0: the current one */
	int			share;			/* index of its ClaimShare */
	int			attempts;
	bool		retry;			/* it is tried again */
	TimestampTz created_at;
	TimestampTz expires_at;		/* DT_NOEND: never */
	const char *key;			/* NULL: none */
	int			key_length;
	Jsonb	   *payload;		/* or body */
	bytea	   *body;
	Jsonb	   *headers;		/* NULL: none */
	text	   *content_type;
	text	   *event_type;
	text	   *last_error;
	TimestampTz finished_at;	/* DT_NOEND: it is not */
	TimestampTz due_at;			/* of claims by due time; else DT_NOBEGIN */
} ClaimedRow;

/* The row that a claim is handling; when it has failed, the one that it failed with.  Id 0: none. */
typedef struct ClaimPoint
{
	int64		id;
	int			share;
	TimestampTz due;			/* of claims by due time; else DT_NOBEGIN */
} ClaimPoint;

extern ClaimPoint claim_point;

/* Takes a row; false ends the claim (the row counts). */
typedef bool (*ClaimCallback) (const ClaimedRow *row, void *arg);

/* What a record or a consumer says of a message. */
typedef enum AckOutcome
{
	ACK_RECEIVED,
	ACK_DELIVERED,
	ACK_FAILED
} AckOutcome;

typedef struct Ack
{
	int64		id;
	int32		epoch;			/* of its name; 0: whichever */
	AckOutcome	outcome;
	int			attempt;		/* 0: whichever */
	const char *error;			/* NULL: none */
} Ack;

/* A record that was read back. */
typedef struct Readback
{
	int64		id;
	int32		epoch;
	TimestampTz created_at;
	int32		partition;
	int64		offset;
	int32		attempt;
} Readback;

/* A message that the broker confirmed. */
typedef struct SentMark
{
	ItemPointerData tid;
	int32		partition;
	int64		offset;
} SentMark;

/* A message that the broker refused. */
typedef struct RefusedMark
{
	ItemPointerData tid;
	bool		permanent;		/* dead at once, else retried */
	const char *reason;
} RefusedMark;

typedef struct StoredPosition
{
	char	   *topic;
	int32		partition;
	int64		next_offset;
	TimestampTz record_time;	/* of the record before; DT_NOBEGIN: unknown */
} StoredPosition;

/* What a receiver saw of a partition. */
typedef struct StoredLook
{
	char	   *topic;
	int32		partition;
	int64		low;			/* negative: not known, or no such partition */
	int64		high;			/* negative: no such partition */
	int64		gap_from;
	int64		gap_to;			/* 0: no gap was found */
	TimestampTz looked_at;
} StoredLook;

/* Told of each message that is settled; webhook: it goes on to one. */
typedef void (*SettledCallback) (const char *channel, int64 id, bool webhook);

extern void store_load_installation(Installation *into);
extern void store_load_channels(void);
extern bool store_lock_messages(void);

/* Told of a channel's first row of a kind that waits. */
typedef void (*WaitingCallback) (const char *channel, WaitingKind kind, int64 id);

extern void store_sweep(WaitingKind kind, WaitingCallback found);
extern void store_sweep_due(void);
extern void store_sweep_dead_letters(WaitingCallback found);
extern int	store_claim(ClaimKind kind, ClaimShare *shares, int nshares, int worker,
						int nworkers, ClaimCallback callback, void *arg);
extern bool store_lock_claimed(const ClaimedRow *row);
extern void store_mark_sent(const SentMark *marks, int n);
extern void store_mark_refused(const RefusedMark *marks, int n);
extern void store_mark_dead_letters(const RefusedMark *marks, int n);
extern void store_write_elsewhere(void);
extern void store_set_aside(int64 id, bool dead_letter, const char *error);
extern void store_mark_unacknowledged(const ItemPointerData *tids, int n);
extern void store_mark_expired(const ItemPointerData *tids, int n);
extern void store_next_due(ClaimShare *shares, int nshares, TimestampTz after);
extern void store_before_marks(void);
extern int	store_mark_readback(const Readback *records, int n);
extern void store_examine_records(const Readback *records, int n);
extern int	store_acknowledge(const char *schema, const Ack *acks, int n);
extern int	store_lock_free(const int64 *ids, int n, bool *held);
extern int64 store_run_begin(const char *channel, TimestampTz due, TimestampTz next, TimestampTz now);
extern void store_run_mark(int64 id, int claimed, int succeeded, int failed, int64 first_id, int64 last_id, const char *error);
extern void store_run_end(int64 id);

/* What a step of retention found. */
typedef struct PurgeStep
{
	int64		last;			/* highest id looked at */
	int			purged;
	bool		more;			/* there may be more above it */
	int64		shortest_ms;	/* of all rules */
} PurgeStep;

extern void store_purge_step(int64 above, int rows, PurgeStep *step);
extern void store_purge_runs(TimestampTz before);
extern int64 store_count_idle(const char *channel, int64 most);
extern int64 store_reconcile(int most);
extern void store_prune_topics(void);
extern StoredPosition *store_positions(int *n);
extern bool store_has_positions(const char *topic);
extern void store_set_positions(const StoredPosition *positions, int n, bool only_new);

extern void store_set_looks(const StoredLook *looks, int n);
extern bool store_any_unread(List *channels, TimestampTz sent_before);
extern int	store_settle(List *channels, TimestampTz sent_before, int limit, int skip, SettledCallback settled);

/* A channel with a topic that has not been read to its end. */
typedef struct CatchingUp
{
	const char *channel;
	bool		paused;
} CatchingUp;

extern CatchingUp *store_catching_up(TimestampTz looked_after, int *n, bool *any_look);

#endif							/* MSGSYS_STORE_H */
