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
 * none does for longer than a limit.  That counts while something can be read: from when a receiver has
 * looked at topics, or (there may be none that runs) while the broker answers; and not while the channel is
 * paused, when nothing of it is read.
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
#define LOOK_PAUSED			5000	/* ms, while only paused channels are to be read back */
#define SAY_AFTER			5000	/* ms until it is said what is waited for */

/* A channel that is not caught up. */
typedef struct Held
{
	char		channel[CHANNEL_NAME_MAX];	/* hash key, must be first */
	bool		paused;
	bool		given_up;		/* for too long: it goes on without */
	int64		give_up_at;		/* by now_ms(); 0: that does not count yet */
} Held;

static bool waiting = false;
static bool (*broker_answers) (void);	/* asks it */
static TimestampTz ends_after;	/* looks at topics from then on count */
static int64 looked_at;			/* these by now_ms() */
static int64 say_at;			/* 0: it was said */
static int	nawaited;			/* channels that are held and not paused */
static HTAB *held = NULL;		/* of Held; NULL: not known yet */

/* The relay starts: whether it has to wait depends on how the one before it ended. */
void
catch_up_begin(bool (*answers) (void))
{
	waiting = slot_unclean();
	if (!waiting)
		return;
	broker_answers = answers;
	ends_after = TimestampTzPlusMilliseconds(clock_now(), CONNECTIONS_CLOSE);
	looked_at = 0;
	say_at = now_ms() + SAY_AFTER;
	ereport(LOG, (errmsg("msgsys relay reads back what was sent before the crash")));
	/* the receivers look at once */
	publish_config(MyDatabaseId);
}

/* Say once what is waited for, where that is not over soon. */
static void
say_why(const char *channel, bool any_look)
{
	char		words[CHANNEL_NAME_MAX + 200];

	if (say_at == 0 || now_ms() < say_at)
		return;
	say_at = 0;
	snprintf(words, sizeof(words), "waits with channel \"%s\" and %d others until their topics are read back after the crash: %s", channel, nawaited - 1,
			 any_look ? "the receiver is at it" : "no receiver has looked at them yet");
	slot_error(words);
	ereport(LOG, (errmsg("msgsys relay %s", words)));
}

/* Whether a channel has been waited for too long.  any_look: something is read; else it may be the broker. */
static bool
too_long(Held *entry, bool any_look)
{
	if (entry->give_up_at == 0)
		entry->give_up_at = now_ms() + setting_catch_up_limit;
	if (now_ms() < entry->give_up_at)
		return false;
	if (any_look || broker_answers())
		return true;
	entry->give_up_at = 0;
	return false;
}

/* Which channels are not caught up. */
static void
look(void)
{
	HASHCTL		ctl = {.keysize = CHANNEL_NAME_MAX,.entrysize = sizeof(Held),.hcxt = TopMemoryContext};
	HTAB	   *before = held;
	const char *first = NULL;
	int			npaused = 0;
	int			ngiven_up = 0;
	CatchingUp *found;
	int			n;
	bool		any_look;

	if (!worker_begin())
		return;
	/* where the clock was set back, no look would ever be late enough */
	ends_after = Min(ends_after, TimestampTzPlusMilliseconds(clock_now(), CONNECTIONS_CLOSE));
	found = store_catching_up(ends_after, &n, &any_look);
	worker_commit();
	looked_at = now_ms();
	held = hash_create("msgsys channels to be read back", Max(n, 1), &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	nawaited = 0;
	for (int i = 0; i < n; i++)
	{
		Held	   *entry = hash_search(held, found[i].channel, HASH_ENTER, NULL);
		Held	   *old = before ? hash_search(before, found[i].channel, HASH_FIND, NULL) : NULL;

		entry->paused = found[i].paused;
		entry->given_up = old && old->given_up;
		entry->give_up_at = old && !entry->paused ? old->give_up_at : 0;
		if (!entry->paused && !entry->given_up && too_long(entry, any_look))
		{
			entry->given_up = true;
			if (ngiven_up++ == 0)
				first = entry->channel;
		}
		npaused += entry->paused && !entry->given_up;
		nawaited += !entry->paused && !entry->given_up;
	}
	if (before)
		hash_destroy(before);
	if (ngiven_up > 0)
		ereport(LOG,
				(errmsg("msgsys relay goes on before all topics are read back: some messages may be sent twice"),
				 errdetail("Channel \"%s\" and %d others are not.", first, ngiven_up - 1)));
	for (int i = 0; i < n && nawaited > 0; i++)
	{
		Held	   *entry = hash_search(held, found[i].channel, HASH_FIND, NULL);

		if (entry->paused || entry->given_up)
			continue;
		say_why(entry->channel, any_look);
		break;
	}
	if (nawaited + npaused > 0)
		return;
	waiting = false;
	slot_set_unclean(false);
	hash_destroy(held);
	held = NULL;
}

/* Whether a channel, which is not paused, is to be left alone yet. */
bool
catch_up_holds(const Channel *channel)
{
	Held	   *entry = held ? hash_search(held, channel->name, HASH_FIND, NULL) : NULL;

	if (!waiting)
		return false;
	/* where it was paused, its topic is to be read only now */
	if (held == NULL || now_ms() >= looked_at + (nawaited > 0 || (entry && entry->paused) ? LOOK_AGAIN : LOOK_PAUSED))
	{
		look();
		entry = held ? hash_search(held, channel->name, HASH_FIND, NULL) : NULL;
	}
	return waiting && (held == NULL || (entry && !entry->given_up));
}

/* Milliseconds until to look again, at most. */
long
catch_up_pause(long otherwise)
{
	return waiting && (held == NULL || nawaited > 0) ? Min(otherwise, LOOK_AGAIN) : otherwise;
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
