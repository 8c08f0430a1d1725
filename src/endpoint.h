/*
 * endpoint.h
 *		What the webhook stage knows of a channel's endpoint, and its jobs.
 */
#ifndef MSGSYS_ENDPOINT_H
#define MSGSYS_ENDPOINT_H

#include "msgsys.h"

#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "nodes/pg_list.h"
#include "utils/hsearch.h"

#include "breaker.h"
#include "channel.h"
#include "commits.h"
#include "request.h"
#include "store_webhook.h"

typedef struct Endpoint Endpoint;
typedef struct KeyState KeyState;

/* A message in this worker's hands, from its claim until its outcome is committed. */
typedef struct Job
{
	dlist_node	node;			/* in its endpoint's ready, its key's waiting, or the ended ones */
	MemoryContext context;		/* this and all that it points to */
	int64		id;
	Endpoint   *endpoint;
	KeyState   *key;			/* NULL: nothing has to wait for it */
	Request		request;
	Size		size;			/* bytes that it takes, about */
	int			attempt;		/* number of this one, from 1 */
	TimestampTz expires_at;		/* DT_NOEND: never */
	bool		was_idle;		/* it is of the channel's backlog */
	bool		paced;			/* it is of a run of its channel */
	int64		claimed_us;		/* by now_us(), for the histograms */
	WebhookMark mark;			/* once it has ended */
	int			unwritten;		/* how often that could not be written down, alone */
	int64		again_ms;		/* by now_ms(): when that is tried again */
} Job;

/* A key of an ordered channel that has a message under way. */
struct KeyState
{
	uint64		hash;			/* of the key; those that collide wait for each other */
	Job		   *busy;			/* ready or under way; NULL: none */
	dlist_head	waiting;		/* jobs behind it */
	int64		held;			/* the message that is to be tried again first; 0: none */
	int64		skipped;		/* lowest id passed over meanwhile; PG_INT64_MAX: none */
};

/* How far this worker is in a channel's rows that come due: by their due time, and by id within one. */
typedef struct DueCursor
{
	TimestampTz due;			/* DT_NOBEGIN: at the first */
	int64		id;				/* rows of that time up to it are done with, in memory or passed over */
} DueCursor;

/* How far this worker is in a channel's rows of one status. */
typedef struct Cursor
{
	int64		low;			/* rows up to it are done with, or in memory */
	bool		dirty;			/* rows above it may be there */
} Cursor;

struct Endpoint
{
	char		name[CHANNEL_NAME_MAX]; /* hash key, must be first */
	const Webhook *webhook;		/* NULL: the channel has none any more */
	Channel    *channel;
	Cursor		cursors[WAITING_KINDS]; /* idle rows are those of a channel without a topic */
	DueCursor	due_cursor;		/* of a channel without a topic */
	TimestampTz next_due;		/* when a row above it comes due */
	int			claim_failures; /* claims of this channel that failed, in a row */
	int64		claim_again_ms; /* by now_ms(): none before that */
	dlist_head	ready;
	int			nready;
	int			njobs;			/* in memory */
	int			inflight;
	bool		gone;			/* it answered 410: nothing is sent until the settings are read again */
	bool		resolved;		/* its host's name has been looked up */
	Breaker		breaker;
	bool		breaker_changed;
	char	   *disable_reason; /* why it is to be disabled, not yet written down; NULL: it is not */
	TimestampTz disable_asked_at;	/* when the request began, by the clock of the database */
	char	   *fault;			/* why its settings cannot be used; NULL: they can */
	int			faults;			/* how often they could not, in a row */
	char	   *outage;			/* why no request can be made, whatever its message; NULL: they can */
	int			outages;		/* requests that could not, in a row */
	int64		outage_until_ms;	/* by now_ms(): none before that, and then one */
	double		tokens;			/* of the rate limit */
	int64		tokens_us;		/* by now_us() */
	HTAB	   *keys;			/* of KeyState, where it is ordered */
	bool		keys_wanted;	/* held keys are to be read again */
};

extern List *endpoints;			/* of Endpoint */

extern Endpoint *endpoint_find(const char *name);
extern Endpoint *endpoint_make(const char *name);
extern bool endpoint_is_paced(const Endpoint *endpoint);
extern bool endpoint_works(const Endpoint *endpoint);
extern bool endpoint_permits(Endpoint *endpoint, int inflight, int64 *again_ms);
extern bool endpoint_may_call(const Endpoint *endpoint);
extern void endpoint_called(Endpoint *endpoint);
extern void endpoint_record(Endpoint *endpoint, bool failed);
extern void endpoint_disable(Endpoint *endpoint, const char *reason, TimestampTz asked_at);
extern void endpoint_outage(Endpoint *endpoint, const char *reason);
extern void endpoint_outage_ends(Endpoint *endpoint);
extern void endpoint_waiting(Endpoint *endpoint, WaitingKind kind, int64 low);
extern void endpoint_due(Endpoint *endpoint, TimestampTz due);
extern void endpoint_rewind(Endpoint *endpoint, int64 id);

extern int	jobs_count(void);
extern Size jobs_size(void);
extern Job *job_find(int64 id);
extern Job *job_make(Endpoint *endpoint, int64 id);
extern void job_free(Job *job);
extern void job_take_into_run(Job *job);
extern void job_ready(Job *job, const char *key, int key_length);
extern void job_done(Job *job, bool final);
extern void job_give_back(Job *job);
extern void endpoint_give_back(Endpoint *endpoint);
extern bool endpoint_key_waits(Endpoint *endpoint, const char *key, int key_length, int64 id);
extern void endpoint_hold_key(Endpoint *endpoint, const char *key, int key_length, int64 id);
extern void endpoint_free_key(Endpoint *endpoint, const char *key, int key_length, int64 id);
extern void endpoint_set_holds(Endpoint *endpoint, const HeldKey *keys, int n);

#endif							/* MSGSYS_ENDPOINT_H */
