/*
 * channel.c
 *		The channels as a worker knows them.
 *
 * store.c reads their settings; what a stage knows of a channel (its mark, its
 * next due time) outlives a new reading.
 */
#include "msgsys.h"

#include "channel.h"

#include "nodes/pg_list.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

List	   *channels = NIL;

static HTAB *by_name = NULL;

Channel *
channel_find(const char *name)
{
	char		key[CHANNEL_NAME_MAX] = {0};

	if (by_name == NULL)
		return NULL;
	strlcpy(key, name, CHANNEL_NAME_MAX);
	return hash_search(by_name, key, HASH_FIND, NULL);
}

/* Begin a new reading: what is not defined until its end is gone. */
void
channels_load_begin(void)
{
	ListCell   *lc;

	if (by_name == NULL)
	{
		HASHCTL		ctl = {
			.keysize = CHANNEL_NAME_MAX,
			.entrysize = sizeof(Channel),
			.hcxt = TopMemoryContext,
		};

		by_name = hash_create("msgsys channels", 64, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	foreach(lc, channels)
		((Channel *) lfirst(lc))->current = false;
}

/* Free what a reading has allocated. */
static void
clear_settings(Channel *channel)
{
	if (channel->topic)
	{
		pfree(channel->topic);
		pfree(channel->retry_topic);
		pfree(channel->dead_topic);
	}
	channel->topic = channel->retry_topic = channel->dead_topic = NULL;
	list_free_deep(channel->former_topics);
	channel->former_topics = NIL;
}

/* Give a channel a topic, and with it those for retries and dead letters. */
void
channel_set_topic(Channel *channel, const char *topic)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	channel->topic = pstrdup(topic);
	channel->retry_topic = psprintf("%s.retry", topic);
	channel->dead_topic = psprintf("%s.dlq", topic);
	MemoryContextSwitchTo(old);
}

/* The channel of this name, its settings cleared, to be filled by the caller. */
Channel *
channel_define(const char *name)
{
	char		key[CHANNEL_NAME_MAX] = {0};
	Channel    *channel;
	bool		found;

	strlcpy(key, name, CHANNEL_NAME_MAX);
	channel = hash_search(by_name, key, HASH_ENTER, &found);
	if (!found)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		memset((char *) channel + CHANNEL_NAME_MAX, 0,
			   sizeof(Channel) - CHANNEL_NAME_MAX);
		channel->next_due = DT_NOEND;
		channel->held_low = PG_INT64_MAX;
		channel->due_mark = DT_NOBEGIN;
		channel->due_mark_id = PG_INT64_MIN;
		channels = lappend(channels, channel);
		MemoryContextSwitchTo(old);
	}
	clear_settings(channel);
	channel->current = true;
	return channel;
}

/* End a reading: forget the channels that were not in it. */
void
channels_load_end(void)
{
	ListCell   *lc;

	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);

		if (channel->current)
			continue;
		clear_settings(channel);
		channels = foreach_delete_current(channels, lc);
		hash_search(by_name, channel->name, HASH_REMOVE, NULL);
	}
}

/* Whether every channel that has a topic is paused. */
bool
channels_all_paused(void)
{
	bool		any = false;
	ListCell   *lc;

	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);

		if (channel->topic && !channel->paused)
			return false;
		any |= channel->topic != NULL;
	}
	return any;
}
