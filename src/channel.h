/*
 * channel.h
 *		The channels as a worker knows them: settings, and where it is in each.
 */
#ifndef MSGSYS_CHANNEL_H
#define MSGSYS_CHANNEL_H

#include "msgsys.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/* How many messages at a time, and how far the run under way is (pace.c). */
typedef struct Pace
{
	int			batch;			/* messages of a run; 0: the channel has no pace */
	int64		every;			/* microseconds from run to run */
	TimestampTz next_at;		/* when the next is due */
	int64		run_id;			/* the one under way; 0: none */
	int			succeeded;		/* messages of it */
	int			failed;
	int			in_memory;		/* of it, whose outcome is not committed */
	bool		exhausted;		/* it takes nothing more */
	int64		again_ms;		/* by now_ms(): it could not be written down, and is not tried before that */
} Pace;

typedef struct Channel
{
	char		name[CHANNEL_NAME_MAX]; /* hash key, must be first */

	/* settings, from msg_channel_settings */
	char	   *topic;			/* NULL: none */
	char	   *retry_topic;	/* where what a webhook refused goes again */
	char	   *dead_topic;		/* where dead letters go */
	bool		has_webhook;
	AckMode		ack;
	int			max_attempts;
	int64		resend_after;	/* microseconds; 0: never */
	List	   *former_topics;	/* of char *, still read for acknowledgements */
	bool		paused;
	Pace		pace;

	/* the relay's own */
	int64		low;			/* rows up to it are done with: an optimisation, taken back by any note or sweep */
	bool		dirty;			/* rows above low may be claimable */
	TimestampTz next_due;		/* a row may come due then; DT_NOEND: none known */
	int64		alone_until;	/* ids up to it are sent one by one, for a batch with one of them was refused */
	TimestampTz next_resend;	/* look for unacknowledged rows then */
	bool		dead_letters;	/* dead rows may wait for their topic */
	int64		held_low;		/* the lowest row that was passed over; PG_INT64_MAX: none */
	TimestampTz due_mark;		/* a pass through the due rows is there; DT_NOBEGIN: at their first */
	int64		due_mark_id;	/* and of those that were due then, at this one */
	int64		due_pass_began; /* ms */
	bool		due_passed;		/* it has passed some over */
	int64		hold_until;		/* ms; due rows were passed over: no claim of them before */
	bool		crowded;		/* too much of it is held by others: no claim while held_full() */
	bool		awaits_topic;	/* due rows were, until their topic is ready */
	bool		awaits_retry;	/* the same of the topic for retries */

	bool		current;		/* it is in msg_channel_settings */
} Channel;

extern List *channels;			/* of Channel, all of them */

extern Channel *channel_find(const char *name);
extern Channel *channel_define(const char *name);
extern void channel_set_topic(Channel *channel, const char *topic);
extern void channels_load_begin(void);
extern void channels_load_end(void);
extern bool channels_all_paused(void);

#endif							/* MSGSYS_CHANNEL_H */
