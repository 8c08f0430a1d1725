/*
 * reading.c
 *		Which partitions this worker reads, from where, and how far it is.
 *
 * Partitions are shared out among the receivers by a hash; positions are rows of
 * msg_offsets.
 */
#include "msgsys.h"

#include "channel.h"
#include "reading.h"
#include "store.h"
#include "worker.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define LOOK_FOR_PARTITIONS 30000	/* ms between two looks for new partitions */
#define LOOK_AGAIN		500		/* ms after a topic could not be looked up */
#define LOOK_TIMEOUT	1000	/* ms; a look-up waits behind fetches */

TimestampTz readings_look_at = 0;

/*
 * A partition that this worker reads.
 *
 * A position is of use only in the topic that it was read from.  A topic that
 * was deleted and made again, or one of another cluster, has other records at
 * the same offsets, and those before our position would be passed over.  So we
 * begin one record before it, and go on only where that is the one we know.
 */
typedef struct Reading
{
	char	   *topic;
	int32		partition;
	bool		unverified;		/* the record before next is yet to be seen */
	bool		abandoned;		/* its topic is another one: until the next assignment */
	int64		next;			/* the next offset to read */
	TimestampTz time;			/* of the record before it; DT_NOBEGIN: unknown */
	int64		safe;			/* the next to store, at most */
	int64		storing;		/* stored, once the transaction has committed */
	int64		stored;			/* what is in msg_offsets */
} Reading;

static MemoryContext assignment_context = NULL; /* until the next assignment */
static Reading *readings = NULL;
static int	nreadings = 0;
static bool any_abandoned = false;

/* The topics to read; whose records count is for the marks to say. */
static List *
topics_to_read(void)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);
		ListCell   *t;

		if (channel->paused)
			continue;
		/* what was sent to a topic that was taken away is still acknowledged */
		if (channel->ack == ACK_TOPIC && (channel->topic || channel->former_topics != NIL))
			result = list_append_unique(result, makeString(setting_acks_topic));
		if (channel->ack != ACK_READBACK)
			continue;
		if (channel->topic)
			result = list_append_unique(result, makeString(channel->topic));
		if (channel->topic && channel->has_webhook)
			result = list_append_unique(result, makeString(channel->retry_topic));
		foreach(t, channel->former_topics)
		{
			result = list_append_unique(result, makeString(lfirst(t)));
			if (channel->has_webhook)
				result = list_append_unique(result, makeString(psprintf("%s.retry", (char *) lfirst(t))));
		}
	}
	return result;
}

/* Whether this worker is the one that reads a partition. */
static bool
ours(const char *topic, int partition)
{
	uint32		hash = hash_combine(hash_bytes((const unsigned char *) topic, strlen(topic)),
									hash_bytes_uint32(partition));

	return hash % setting_receiver_workers == slot_number();
}

/* Begin a partition at its stored position, or one that is new at its beginning. */
static void
reading_begin(Reading *reading, const StoredPosition *positions, int n)
{
	reading->next = BROKER_BEGINNING;
	reading->time = DT_NOBEGIN;
	for (int i = 0; i < n; i++)
		if (positions[i].partition == reading->partition &&
			strcmp(positions[i].topic, reading->topic) == 0)
		{
			reading->next = positions[i].next_offset;
			reading->time = positions[i].record_time;
		}
	reading->safe = reading->storing = reading->stored = reading->next;
	reading->unverified = reading->next > 0 && !TIMESTAMP_NOT_FINITE(reading->time);
	reading->abandoned = false;
}

static bool
topic_has_position(StoredPosition *positions, int n, const char *topic)
{
	for (int i = 0; i < n; i++)
		if (strcmp(positions[i].topic, topic) == 0)
			return true;
	return false;
}

/* Whether the partitions wanted are those that are read already. */
static bool
same_readings(const Reading *wanted, int n)
{
	if (n != nreadings)
		return false;
	for (int i = 0; i < n; i++)
		if (wanted[i].partition != readings[i].partition ||
			strcmp(wanted[i].topic, readings[i].topic) != 0)
			return false;
	return true;
}

/*
 * The partitions that this worker is to read now, in the cycle's memory, each
 * from where msg_offsets says.  A topic whose start the relay has not set yet is
 * left alone until it has.
 */
static Reading *
readings_wanted(Broker *consumer, int *n)
{
	Reading    *wanted;
	int			room = 64;
	StoredPosition *positions;
	int			npositions;
	ListCell   *lc;
	char		err[256];

	*n = 0;
	wanted = palloc(room * sizeof(Reading));
	if (!worker_begin())
		return wanted;
	positions = store_positions(&npositions);
	worker_commit();
	foreach(lc, topics_to_read())
	{
		char	   *topic = strVal(lfirst(lc));
		int			partitions = 0;

		CHECK_FOR_INTERRUPTS();
		if (!topic_has_position(positions, npositions, topic))
			continue;
		if (broker_topic(consumer, topic, LOOK_TIMEOUT, &partitions, err, sizeof(err)) != BROKER_OK)
		{
			readings_look_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_AGAIN);
			continue;
		}
		for (int p = 0; p < partitions; p++)
		{
			if (!ours(topic, p))
				continue;
			if (*n == room)
				wanted = repalloc(wanted, (room *= 2) * sizeof(Reading));
			wanted[*n].topic = topic;
			wanted[*n].partition = p;
			reading_begin(&wanted[*n], positions, npositions);
			(*n)++;
		}
	}
	return wanted;
}

/*
 * Have the consumer read what is to be read now, where that has changed or it is
 * new (always).  Returns whether it reads anything anew.
 */
bool
readings_assign(Broker *consumer, bool always)
{
	BrokerPosition *positions;
	Reading    *wanted;
	int			n;
	char		err[256];

	readings_look_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_FOR_PARTITIONS);
	wanted = readings_wanted(consumer, &n);
	if (!always && !any_abandoned && same_readings(wanted, n))
		return false;
	any_abandoned = false;

	if (assignment_context == NULL)
		assignment_context = AllocSetContextCreate(TopMemoryContext, "msgsys assignment",
												   ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(assignment_context);
	readings = MemoryContextAlloc(assignment_context, Max(n, 1) * sizeof(Reading));
	positions = palloc(Max(n, 1) * sizeof(BrokerPosition));
	for (nreadings = 0; nreadings < n; nreadings++)
	{
		Reading    *reading = &readings[nreadings];

		*reading = wanted[nreadings];
		reading->topic = MemoryContextStrdup(assignment_context, reading->topic);
		positions[nreadings].topic = reading->topic;
		positions[nreadings].partition = reading->partition;
		positions[nreadings].offset = reading->next - (reading->unverified ? 1 : 0);
	}
	if (!broker_assign(consumer, positions, n, err, sizeof(err)))
	{
		slot_error(err);
		nreadings = 0;
		readings_look_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_AGAIN);
	}
	return true;
}

/* The timestamp of a record; DT_NOBEGIN if it has none. */
static TimestampTz
time_of(const BrokerMessage *message)
{
	if (message->time_ms < 0)
		return DT_NOBEGIN;
	return message->time_ms * 1000 -
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
}

/* Read a partition anew, from its beginning: no record that we know is where it was. */
static void
abandon(Reading *reading)
{
	ereport(LOG,
			(errmsg("msgsys receiver reads partition %d of topic \"%s\" from its beginning: it has not the record that was read last",
					reading->partition, reading->topic)));
	reading->next = reading->safe = 0;
	reading->time = DT_NOBEGIN;
	reading->abandoned = any_abandoned = true;
	readings_look_at = 0;
}

/* The first record of a partition has come: whether it is the one that was read last. */
static bool
verify(Reading *reading, const BrokerMessage *message)
{
	reading->unverified = false;
	/* Kafka has less than we had read: the library began at its beginning already */
	if (message->offset < reading->next - 1)
		return false;
	if (message->offset == reading->next - 1 && time_of(message) == reading->time)
		return true;
	abandon(reading);
	return false;
}

/* The partition that a record is of; -1 if it is not read any more. */
static int
find_reading(const BrokerMessage *message)
{
	static int	last = 0;

	for (int i = 0; i < nreadings; i++)
	{
		int			r = (last + i) % nreadings;

		/* records come in runs of one partition */
		if (readings[r].partition == message->partition &&
			strcmp(readings[r].topic, message->topic) == 0)
			return last = r;
	}
	return -1;
}

/*
 * A record was read: the next one of its partition follows it.  Returns the
 * index of the partition, or -1 if the record is not to be looked at: it was
 * read before, or its partition is not read any more.
 */
int
reading_advance(const BrokerMessage *message)
{
	int			r = find_reading(message);

	if (r < 0 || (readings[r].unverified && verify(&readings[r], message)) ||
		readings[r].abandoned)
		return -1;
	readings[r].next = readings[r].safe = message->offset + 1;
	readings[r].time = time_of(message);
	return r;
}

/* A record is not done with: what is stored must stay at or below it. */
void
reading_hold(int reading, int64 offset)
{
	readings[reading].safe = Min(readings[reading].safe, offset);
}

/* Store how far we have read, in the transaction under way; see readings_stored(). */
void
readings_store(void)
{
	StoredPosition *positions = palloc(Max(nreadings, 1) * sizeof(StoredPosition));
	int			n = 0;

	for (int i = 0; i < nreadings; i++)
	{
		Reading    *reading = &readings[i];

		reading->storing = reading->stored;
		if (reading->safe != reading->stored && reading->safe >= 0)
		{
			positions[n].topic = reading->topic;
			positions[n].partition = reading->partition;
			positions[n].next_offset = reading->storing = reading->safe;
			positions[n].record_time = reading->safe == reading->next ? reading->time : DT_NOBEGIN;
			n++;
		}
		/* what is held is said anew each time */
		reading->safe = reading->next;
	}
	store_set_positions(positions, n, false);
}

/* That transaction has committed. */
void
readings_stored(void)
{
	for (int i = 0; i < nreadings; i++)
		readings[i].stored = readings[i].storing;
}

/* Tell Kafka how far we are, for tools that show the lag. */
void
readings_show(Broker *consumer)
{
	BrokerPosition *positions = palloc(Max(nreadings, 1) * sizeof(BrokerPosition));
	int			n = 0;

	for (int i = 0; i < nreadings; i++)
	{
		if (readings[i].stored < 0)
			continue;
		positions[n].topic = readings[i].topic;
		positions[n].partition = readings[i].partition;
		positions[n].offset = readings[i].stored;
		n++;
	}
	broker_commit(consumer, positions, n);
}
