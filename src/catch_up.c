/*
 * catch_up.c
 *		After a crash, the relay waits with a channel until its topic has been read back.
 *
 * A crash takes back the marks of what was sent just before it: those messages are
 * idle again, and their records are in Kafka.  Whoever claimed them would send them a
 * second time.  The receiver marks what it reads; so a channel is left alone until each
 * partition of its topics has been read to where it ended some time after the crash.  That time
 * is for what the dead process had on its connections: the broker may be at work on it yet.
 *
 * The receiver writes into msg_offsets what it sees and how far it is, so this asks nobody
 * but the database.  A topic that is not there, or was never read, holds up nothing, and
 * none does for longer than a limit.
 */
#include "msgsys.h"

#include "catch_up.h"
#include "monotonic.h"
#include "shmem.h"
#include "store.h"
#include "worker.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define CONNECTIONS_CLOSE	500 /* ms after the start, when what died before has reached the broker */
#define LOOK_AGAIN			50	/* ms between two looks at the table */
#define LIMIT				60000	/* ms, from when the receiver has seen a topic */

static bool waiting = false;
static TimestampTz ends_after;	/* looks at topics from then on count */
static int64 look_at;			/* these by now_ms() */
static int64 give_up_at;		/* 0: the receiver has seen nothing yet */
static HTAB *held = NULL;		/* names of channels that are not caught up */

/* The relay starts: whether it has to wait depends on how the one before it ended. */
void
catch_up_begin(void)
{
	waiting = slot_unclean();
	if (!waiting)
		return;
	ends_after = TimestampTzPlusMilliseconds(clock_now(), CONNECTIONS_CLOSE);
	look_at = give_up_at = 0;
	ereport(LOG, (errmsg("msgsys relay reads back what was sent before the crash")));
	/* the receivers look at once */
	publish_config(MyDatabaseId);
}

/* Which channels are not caught up. */
static void
look(void)
{
	HASHCTL		ctl = {.keysize = CHANNEL_NAME_MAX,.entrysize = CHANNEL_NAME_MAX,.hcxt = TopMemoryContext};
	List	   *names;
	ListCell   *lc;
	bool		any_look;

	if (!worker_begin())
		return;
	/* where the clock was set back, no look would ever be late enough */
	ends_after = Min(ends_after, TimestampTzPlusMilliseconds(clock_now(), CONNECTIONS_CLOSE));
	names = store_catching_up(ends_after, &any_look);
	worker_commit();
	look_at = now_ms() + LOOK_AGAIN;
	if (any_look && give_up_at == 0)
		give_up_at = now_ms() + LIMIT;
	if (names != NIL && give_up_at != 0 && now_ms() >= give_up_at)
	{
		ereport(LOG,
				(errmsg("msgsys relay goes on before all topics are read back: some messages may be sent twice"),
				 errdetail("Channel \"%s\" and %d others are not.", (char *) linitial(names), list_length(names) - 1)));
		names = NIL;
	}
	if (held)
		hash_destroy(held);
	held = NULL;
	if (names == NIL)
	{
		waiting = false;
		slot_set_unclean(false);
		return;
	}
	held = hash_create("msgsys channels to be read back", list_length(names), &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	foreach(lc, names)
		hash_search(held, lfirst(lc), HASH_ENTER, NULL);
}

/* Whether a channel is to be left alone yet. */
bool
catch_up_holds(const Channel *channel)
{
	if (waiting && now_ms() >= look_at)
		look();
	return waiting && (held == NULL || hash_search(held, channel->name, HASH_FIND, NULL) != NULL);
}

/* Milliseconds until to look again, at most. */
long
catch_up_pause(long otherwise)
{
	return waiting ? Min(otherwise, LOOK_AGAIN) : otherwise;
}

/* A batch begins: if the relay ends before it has ended, the next one has to read back. */
void
catch_up_batch_begins(void)
{
	slot_set_unclean(true);
}

/* A batch was committed. */
void
catch_up_batch_ends(void)
{
	slot_set_unclean(waiting);
}
