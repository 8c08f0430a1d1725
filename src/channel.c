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
		channels = lappend(channels, channel);
		MemoryContextSwitchTo(old);
	}
	if (channel->topic)
		pfree(channel->topic);
	channel->topic = NULL;
	list_free_deep(channel->former_topics);
	channel->former_topics = NIL;
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
		if (channel->topic)
			pfree(channel->topic);
		list_free_deep(channel->former_topics);
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
