/*
 * topic.c
 *		What the relay knows of the topics that it produces to.
 *
 * A topic is asked for once, before the first record, outside of any transaction
 * that claims; while it is refused, again from time to time.
 */
#include "msgsys.h"

#include "shmem.h"
#include "store.h"
#include "topic.h"
#include "worker.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define ASK_AGAIN		5000	/* ms after which a refused topic is asked for again */
#define METADATA_TIMEOUT 1000	/* ms */
#define OFFSET_TIMEOUT	500		/* ms */

static HTAB *topics = NULL;

/* What is known of a topic. */
Topic *
topic_find(const char *name)
{
	static Topic *last = NULL;
	char		key[sizeof(last->name)] = {0};
	bool		found;

	if (topics == NULL)
	{
		HASHCTL		ctl = {
			.keysize = sizeof(key),
			.entrysize = sizeof(Topic),
			.hcxt = TopMemoryContext,
		};

		topics = hash_create("msgsys topics", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		last = NULL;
	}
	if (last && strcmp(last->name, name) == 0)
		return last;
	strlcpy(key, name, sizeof(key));
	last = hash_search(topics, key, HASH_ENTER, &found);
	if (!found)
	{
		last->accepted = false;
		last->limit = 0;
		last->start_set = false;
		last->asked_at = 0;
	}
	return last;
}

/* Ask for a topic again before the next batch: a record for it was refused. */
void
topic_doubt(const char *name)
{
	topic_find(name)->asked_at = 0;
}

/* Forget all: the broker is another one. */
void
topics_forget(void)
{
	if (topics)
		hash_destroy(topics);
	topics = NULL;
}

/*
 * Set the positions from which the receiver reads a topic: the end of each
 * partition as it is now, before the first record is produced.  Returns false
 * when the broker does not answer.
 */
static bool
set_start(Broker *producer, const char *name, int partitions, char *err, size_t errlen)
{
	StoredPosition *positions = palloc(Max(partitions, 1) * sizeof(StoredPosition));
	bool		there = true;

	if (worker_begin())
	{
		there = store_has_positions(name);
		worker_commit();
	}
	if (there)
		return true;
	for (int p = 0; p < partitions; p++)
	{
		int64		low;
		int64		high;

		CHECK_FOR_INTERRUPTS();
		if (!broker_watermarks(producer, name, p, OFFSET_TIMEOUT, &low, &high, err, errlen))
			return false;
		positions[p].topic = unconstify(char *, name);
		positions[p].partition = p;
		positions[p].next_offset = high;
		positions[p].record_time = DT_NOBEGIN;
	}
	if (worker_begin())
	{
		store_set_positions(positions, partitions, true);
		worker_commit();
		/* the receivers have something to read */
		publish_config(MyDatabaseId);
	}
	return true;
}

/*
 * See that a topic is known; read_by_us: our receiver is to read it.  Returns
 * false, with words in err, when the broker does not answer.
 */
bool
topic_prepare(Broker *producer, const char *name, bool read_by_us, TimestampTz now,
			  char *err, size_t errlen)
{
	Topic	   *topic = topic_find(name);
	int			partitions = 0;

	if (topic->asked_at != 0 &&
		(topic->accepted ? !read_by_us || topic->start_set :
		 !TimestampDifferenceExceeds(topic->asked_at, now, ASK_AGAIN)))
		return true;
	switch (broker_topic(producer, name, METADATA_TIMEOUT, &partitions, topic->reason,
						 sizeof(topic->reason)))
	{
		case BROKER_OK:
			if (read_by_us && !set_start(producer, name, partitions, topic->reason, sizeof(topic->reason)))
			{
				snprintf(err, errlen, "%s (topic \"%s\")", topic->reason, name);
				return false;
			}
			topic->start_set |= read_by_us;
			topic->limit = broker_topic_limit(producer, name, OFFSET_TIMEOUT);
			topic->accepted = true;
			break;
		case BROKER_REFUSED:
		case BROKER_REFUSED_RETRY:
			topic->accepted = false;
			break;
		default:
			snprintf(err, errlen, "%s (topic \"%s\")", topic->reason, name);
			return false;
	}
	topic->asked_at = now;
	return true;
}
