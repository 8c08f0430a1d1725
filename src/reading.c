/*
 * reading.c
 *		Which partitions this worker reads, from where, and how far it is.
 *
 * Partitions are shared out among the receivers by a hash; positions are rows of
 * msg_offsets.  Which partitions there are, and where they begin and end, a look tells,
 * about once a second, beside the work.
 */
#include "msgsys.h"

#include "channel.h"
#include "monotonic.h"
#include "notes.h"
#include "reading.h"
#include "store.h"
#include "worker.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define LOOK_EVERY		1000	/* ms between two looks at the topics */
#define LOOK_SOON		200		/* ms, while somebody waits for what they tell */
#define SOON_FOR		5000	/* ms that this goes on after a reload or a start */
#define LOOK_TIMEOUT	1000	/* ms; a look-up waits behind fetches */
#define WRITE_EVERY		60000	/* ms after which a look is written down although nothing is new */
#define BE_SURE			3		/* looks in a row that tell of less than there was */
#define SETTLE_EVERY	2000	/* ms between two searches for messages that are read back no more */
#define SETTLE_AGE		5000	/* ms that these are sent, at least */
#define SETTLE_AT_ONCE	1000

static List *reading_all = NIL; /* channels whose topics are read */

/* A topic that is read, as the looks have it. */
typedef struct TopicState
{
	char	   *name;
	int			partitions;		/* -1: not known yet */
	int			missing;		/* looks in a row that did not find it */
} TopicState;

static MemoryContext topics_context = NULL; /* until the configuration changes */
static TopicState *topics = NULL;
static int	ntopics = 0;
static bool look_is_old = false;	/* the one under way is of topics before */
static bool assign_wanted = false;
static int64 look_at = 0;		/* these by now_ms() */
static int64 soon_until = 0;
static int64 settle_at = 0;
static int	settle_limit = SETTLE_AT_ONCE;	/* 1, and */
static int	settle_skip = 0;	/* these are left out: they could not be settled */
static bool unread = false;		/* messages may be there to be settled */

int			reading_unanswered = 0; /* looks in a row that no broker answered */
char		reading_reason[160] = "";	/* why not */

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

	/* what the latest look saw, and what is written down of that */
	bool		gone;			/* there is no such partition: not read */
	int			behind;			/* looks in a row that saw its end before what we have read */
	int64		low;
	int64		high;
	TimestampTz looked_at;		/* 0: never */
	int64		written_low;
	int64		written_high;
	int64		written_at;		/* by now_ms(); 0: not */
	int64		jump_from;		/* offsets that did not come, at the latest jump */
	int64		jump_to;
	int64		gap_from;		/* those of them that retention had removed; */
	int64		gap_to;			/* 0: none that is to be written down */
	int64		broken;			/* where the batch begins that cannot be decompressed; meaningful where */
	int64		broken_step;	/* so many of its offsets were passed over at a time; 0: none */
	int64		broken_end;		/* and the partition was seen to end there at the latest */
} Reading;

static MemoryContext assignment_context = NULL; /* until the next assignment */
static Reading *readings = NULL;
static int	nreadings = 0;
static bool any_abandoned = false;

#define BROKEN_ONE_BY_ONE	64	/* offsets of a batch that cannot be decompressed: some seconds */

/* Channel names of a list, in memory that lasts, in place of those before. */
static void
keep_names(List **kept, List *names)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ListCell   *lc;

	list_free_deep(*kept);
	*kept = NIL;
	foreach(lc, names)
		*kept = lappend(*kept, pstrdup(lfirst(lc)));
	MemoryContextSwitchTo(old);
}

/* The topics to read; whose records count is for the marks to say. */
static List *
topics_to_read(void)
{
	List	   *result = NIL;
	List	   *names = NIL;
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
		names = lappend(names, channel->name);
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
	keep_names(&reading_all, names);
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
	memset((char *) reading + offsetof(Reading, unverified), 0, sizeof(Reading) - offsetof(Reading, unverified));
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
	reading->low = reading->high = reading->written_low = reading->written_high = BROKER_NOT_KNOWN;
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
		if (wanted[i].partition != readings[i].partition || wanted[i].gone != readings[i].gone ||
			strcmp(wanted[i].topic, readings[i].topic) != 0)
			return false;
	return true;
}

/* The number of partitions of a topic; -1: not known. */
static int
partitions_of(const char *topic)
{
	for (int i = 0; i < ntopics; i++)
		if (strcmp(topics[i].name, topic) == 0)
			return topics[i].missing >= BE_SURE ? 0 : topics[i].partitions;
	return -1;
}

/* Add a partition to a list that has room for more. */
static void
want(Reading **wanted, int *n, int *room, char *topic, int partition, bool gone,
	 StoredPosition *positions, int npositions)
{
	if (!ours(topic, partition))
		return;
	if (*n == *room)
		*wanted = repalloc(*wanted, (*room *= 2) * sizeof(Reading));
	(*wanted)[*n].topic = topic;
	(*wanted)[*n].partition = partition;
	reading_begin(&(*wanted)[*n], positions, npositions);
	(*wanted)[(*n)++].gone = gone;
}

/*
 * The partitions that this worker is to read now, in the cycle's memory, each
 * from where msg_offsets says, and those that it read and that are gone.  A topic whose start
 * the relay has not set yet is left alone until it has.
 */
static Reading *
readings_wanted(int *n)
{
	Reading    *wanted;
	int			room = 64;
	StoredPosition *positions;
	int			npositions;

	*n = 0;
	wanted = palloc(room * sizeof(Reading));
	if (!worker_begin())
		return wanted;
	positions = store_positions(&npositions);
	worker_commit();
	for (int i = 0; i < ntopics; i++)
		if (topic_has_position(positions, npositions, topics[i].name))
			for (int p = 0; p < partitions_of(topics[i].name); p++)
				want(&wanted, n, &room, topics[i].name, p, false, positions, npositions);
	for (int i = 0; i < npositions; i++)
	{
		int			partitions = partitions_of(positions[i].topic);

		if (partitions >= 0 && positions[i].partition >= partitions)
			want(&wanted, n, &room, positions[i].topic, positions[i].partition, true, positions, npositions);
	}
	return wanted;
}

/*
 * Have the consumer read what is to be read now, where that has changed or it is
 * new (always).  Returns whether it reads anything anew.
 */
static bool
assign(Broker *consumer, bool always)
{
	BrokerPosition *positions;
	Reading    *wanted;
	int			n;
	int			nread = 0;
	char		err[256];

	assign_wanted = false;
	wanted = readings_wanted(&n);
	if (!always && !any_abandoned && same_readings(wanted, n))
		return false;
	any_abandoned = false;
	for (int i = 0; i < nreadings; i++)
		for (int w = 0; w < n && (readings[i].gap_to > 0 || readings[i].broken_step > 0); w++)
			if (wanted[w].partition == readings[i].partition && strcmp(wanted[w].topic, readings[i].topic) == 0)
			{
				/* not written down yet */
				wanted[w].gap_from = readings[i].gap_from;
				wanted[w].gap_to = readings[i].gap_to;
				wanted[w].broken = readings[i].broken;
				wanted[w].broken_step = readings[i].broken_step;
				wanted[w].broken_end = readings[i].broken_end;
			}

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
		if (reading->gone)
			continue;
		positions[nread].topic = reading->topic;
		positions[nread].partition = reading->partition;
		positions[nread++].offset = reading->next - (reading->unverified ? 1 : 0);
	}
	if (!broker_assign(consumer, positions, nread, err, sizeof(err)))
	{
		slot_error(err);
		nreadings = 0;
		assign_wanted = true;
	}
	return true;
}

/* The timestamp of a record, which its producer may have made up; DT_NOBEGIN if it has none. */
static TimestampTz
time_of(const BrokerMessage *message)
{
	if (message->time_ms < 0 || message->time_ms >= END_TIMESTAMP / 1000)
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
	reading->abandoned = any_abandoned = assign_wanted = true;
}

/* Say that records are gone that nobody has read. */
static void
log_gap(const Reading *reading)
{
	ereport(LOG,
			(errmsg("msgsys receiver could not read offsets " INT64_FORMAT " to " INT64_FORMAT
					" of partition %d of topic \"%s\": the broker has removed them",
					reading->gap_from, reading->gap_to - 1, reading->partition, reading->topic)));
}

/* The first record of a partition has come: whether it is the one that was read last. */
static bool
verify(Reading *reading, const BrokerMessage *message)
{
	reading->unverified = false;
	/* Kafka has less than we had read: the library began at its beginning already */
	if (message->offset < reading->next - 1)
		return false;
	if (message->offset == reading->next - 1 && !message->end && time_of(message) == reading->time)
		return true;
	if (message->offset > reading->next)
	{
		reading->gap_from = reading->next;
		reading->gap_to = message->offset;
		log_gap(reading);
	}
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
 * A batch of records cannot be decompressed: read on behind it.  How many there are in it is not known, so
 * it is passed over one by one, and after many by more and more, lest it holds up the partition for long.
 */
static void
pass_over_broken(Reading *reading, int64 offset)
{
	int64		from = Max(reading->next, offset);

	if (reading->broken_step == 0 || reading->broken != offset)
	{
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("msgsys receiver passes over records at offset " INT64_FORMAT " of partition %d of topic \"%s\": they cannot be decompressed",
						offset, reading->partition, reading->topic)));
		reading->broken = offset;
		reading->broken_step = 1;
	}
	else if (from - offset >= BROKEN_ONE_BY_ONE)
		reading->broken_step *= 2;
	reading->gap_from = from;
	/* not past its end, as far as that is known */
	reading->gap_to = from + 1;
	reading->broken_end = Max(reading->broken_end, reading->high);
	if (reading->broken_end > from)
		reading->gap_to = Min(from + reading->broken_step, reading->broken_end);
	reading->next = reading->safe = reading->gap_to;
	reading->time = DT_NOBEGIN;
	reading->abandoned = any_abandoned = assign_wanted = true;
}

/*
 * A record was read: the next one of its partition follows it.  Returns the
 * index of the partition, or -1 if the record is not to be looked at: it was
 * read before, or its partition is not read any more, or it is only its end.
 */
int
reading_advance(const BrokerMessage *message)
{
	int			r = find_reading(message);

	if (r >= 0 && message->broken)
	{
		if (!readings[r].abandoned)
			pass_over_broken(&readings[r], message->offset);
		return -1;
	}
	if (r < 0 || (readings[r].unverified && verify(&readings[r], message)) ||
		readings[r].abandoned)
		return -1;
	/* from the very beginning, there is nothing that we know to have been there */
	if (message->offset > readings[r].next && readings[r].next > 0)
	{
		readings[r].jump_from = readings[r].next;
		readings[r].jump_to = message->offset;
	}
	/* at its end, the record before is as it was: there may be none, or one that is not for us */
	if (message->end)
	{
		if (readings[r].next != message->offset)
			readings[r].time = DT_NOBEGIN;
		readings[r].next = readings[r].safe = message->offset;
		return -1;
	}
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

/* The topic of a partition that is read. */
const char *
reading_topic(int reading)
{
	return readings[reading].topic;
}

/* Whether there is something new to store. */
bool
readings_moved(void)
{
	for (int i = 0; i < nreadings; i++)
		if (readings[i].safe != readings[i].stored && readings[i].safe >= 0)
			return true;
	return false;
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
		if (readings[i].stored < 0 || readings[i].gone)
			continue;
		positions[n].topic = readings[i].topic;
		positions[n].partition = readings[i].partition;
		positions[n].offset = readings[i].stored;
		n++;
	}
	broker_commit(consumer, positions, n);
}

/* ---------------------------------------------------------------- looks */

/* The configuration has changed: which topics are to be looked at. */
static void
topics_reload(void)
{
	List	   *names = topics_to_read();
	TopicState *before = palloc(Max(ntopics, 1) * sizeof(TopicState));
	int			nbefore = ntopics;
	MemoryContext old;
	ListCell   *lc;

	for (int i = 0; i < nbefore; i++)
	{
		before[i] = topics[i];
		before[i].name = pstrdup(topics[i].name);
	}
	if (topics_context == NULL)
		topics_context = AllocSetContextCreate(TopMemoryContext, "msgsys topics read", ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(topics_context);
	old = MemoryContextSwitchTo(topics_context);
	topics = palloc(Max(list_length(names), 1) * sizeof(TopicState));
	ntopics = 0;
	foreach(lc, names)
	{
		TopicState *topic = &topics[ntopics];

		topic->partitions = -1;
		topic->missing = 0;
		for (int i = 0; i < nbefore; i++)
			/* mostly, it is where it was */
			if (strcmp(before[(ntopics + i) % nbefore].name, strVal(lfirst(lc))) == 0)
			{
				*topic = before[(ntopics + i) % nbefore];
				break;
			}
		topic->name = pstrdup(strVal(lfirst(lc)));
		ntopics++;
	}
	MemoryContextSwitchTo(old);
	assign_wanted = look_is_old = true;
	look_at = 0;
	soon_until = now_ms() + SOON_FOR;
}

/* Enter what a look saw of a partition. */
static void
saw_partition(Reading *reading, const BrokerLookTopic *topic, TimestampTz looked_at)
{
	if (reading->gone)
	{
		reading->low = reading->high = BROKER_NOT_KNOWN;
		reading->looked_at = looked_at;
		return;
	}
	if (reading->partition >= topic->partitions || topic->high[reading->partition] < 0)
		return;
	if (topic->high[reading->partition] < reading->next)
	{
		/* another topic of this name, or a leader that does not know yet how far it is */
		if (++reading->behind >= BE_SURE && !reading->abandoned)
			abandon(reading);
		return;
	}
	reading->behind = 0;
	reading->low = topic->low[reading->partition];
	reading->high = topic->high[reading->partition];
	reading->looked_at = looked_at;
	if (reading->jump_to > 0 && reading->low > reading->jump_from)
	{
		reading->gap_from = reading->jump_from;
		reading->gap_to = Min(reading->jump_to, reading->low);
		log_gap(reading);
	}
	reading->jump_to = 0;
}

/* Take in what a look saw. */
static void
saw(const BrokerLook *look)
{
	TimestampTz looked_at = clock_now() - (now_ms() - look->asked_ms) * 1000;

	for (int i = 0; i < ntopics; i++)
	{
		const BrokerLookTopic *topic = &look->topics[i];

		if (topic->outcome == BROKER_OK)
		{
			assign_wanted |= topics[i].partitions != topic->partitions || topics[i].missing >= BE_SURE;
			topics[i].partitions = topic->partitions;
			topics[i].missing = 0;
		}
		else if (topic->outcome == BROKER_REFUSED_RETRY && ++topics[i].missing == BE_SURE)
			assign_wanted = true;
	}
	for (int r = 0, i = 0; r < nreadings; r++)
		for (int k = 0; k < ntopics; k++, i++)
			if (strcmp(topics[i % ntopics].name, readings[r].topic) == 0)
			{
				i %= ntopics;
				if (look->topics[i].outcome != BROKER_UNKNOWN)
					saw_partition(&readings[r], &look->topics[i], looked_at);
				break;
			}
}

/* Write down, in the transaction under way, what the looks have seen that is new. */
static void
write_looks(void *arg)
{
	StoredLook *looks = palloc(Max(nreadings, 1) * sizeof(StoredLook));
	int			n = 0;

	for (int i = 0; i < nreadings; i++)
	{
		Reading    *reading = &readings[i];

		if (reading->looked_at == 0 || (reading->stored < 0 && !reading->gone))
			continue;
		if (reading->written_at != 0 && reading->low == reading->written_low && reading->high == reading->written_high &&
			reading->gap_to == 0 && !unread && now_ms() > soon_until && now_ms() - reading->written_at < WRITE_EVERY)
			continue;
		looks[n].topic = reading->topic;
		looks[n].partition = reading->partition;
		looks[n].low = reading->written_low = reading->low;
		looks[n].high = reading->written_high = reading->high;
		looks[n].looked_at = reading->looked_at;
		looks[n].gap_from = reading->gap_from;
		looks[n].gap_to = reading->gap_to;
		reading->written_at = now_ms();
		n++;
	}
	if (n > 0)
		store_set_looks(looks, n);
}

/* That was committed. */
static void
gaps_written(void)
{
	for (int i = 0; i < nreadings; i++)
		if (readings[i].written_at != 0)
			readings[i].gap_to = 0;
}

static uint64 settled_buckets;

/* A message was settled: who goes on with it learns of that when it is committed. */
static void
note_settled(const char *channel, int64 id, bool webhook)
{
	settled_buckets |= status_bucket(id);
	if (webhook)
		note_received(channel, id);
}

/* Settle what will not be read back, in the transaction under way. */
static void
settle(void *arg)
{
	TimestampTz before = clock_now() - SETTLE_AGE * INT64CONST(1000);
	int		   *n = arg;

	*n = 0;
	settled_buckets = 0;
	unread = reading_all != NIL && store_any_unread(reading_all, before);
	/* one worker is enough; the others write down what it needs */
	if (unread && slot_number() == 0)
		*n = store_settle(reading_all, before, settle_limit, settle_skip, note_settled);
}

/*
 * Finish messages that were confirmed by Kafka and whose record is not there to be read
 * back: retention or compaction removed it, its topic is gone, or is read from a later record on.
 * Nobody else does: a webhook may be to follow.
 */
static void
readings_settle(void)
{
	ErrorData  *error;
	int			n;

	settle_at = now_ms() + SETTLE_EVERY;
	if (worker_try_any(settle, &n, &error))
	{
		if (n > 0)
		{
			ereport(LOG,
					(errmsg("msgsys receiver finished %d messages that were confirmed by the broker, and whose records are not there to be read back", n)));
			status_changed(settled_buckets);
			slot_count_up(COUNT_RECEIVED, n);
			settle_at = now_ms();
		}
		else
		{
			settle_limit = SETTLE_AT_ONCE;
			settle_skip = 0;
		}
		return;
	}
	/* one by one, past those that cannot be */
	slot_error(error->message);
	if (settle_limit == 1)
		settle_skip++;
	settle_limit = 1;
}

/*
 * Look at the topics when it is time, take in what was seen, and have the consumer
 * read what is to be read.  opened: it is a new one.  Returns whether it reads anything anew.
 */
bool
readings_refresh(Broker *consumer, bool reloaded, bool opened)
{
	BrokerLook *look;
	bool		anew = false;

	if (opened)
	{
		nreadings = 0;
		for (int i = 0; i < ntopics; i++)
			topics[i].partitions = -1;
		look_is_old = false;
	}
	if (reloaded || (opened && topics_context == NULL))
		topics_reload();
	if (opened)
	{
		look_is_old = false;
		look_at = 0;
		assign_wanted = true;
		soon_until = now_ms() + SOON_FOR;
	}
	if ((look = broker_look_take(consumer)) != NULL)
	{
		reading_unanswered = look->answered ? 0 : reading_unanswered + 1;
		strlcpy(reading_reason, look->reason, sizeof(reading_reason));
		if (look->answered && !look_is_old)
		{
			ErrorData  *error;

			saw(look);
			if (nreadings > 0 && !worker_try_any(write_looks, NULL, &error))
				slot_error(error->message);
			else
				gaps_written();
		}
		if (look_is_old)
			look_at = 0;
		broker_look_free(look);
	}
	if (assign_wanted)
		anew = assign(consumer, opened);
	if (now_ms() >= look_at)
	{
		const char **names = palloc(Max(ntopics, 1) * sizeof(char *));

		for (int i = 0; i < ntopics; i++)
			names[i] = topics[i].name;
		if (broker_look_begin(consumer, names, ntopics, LOOK_TIMEOUT))
			look_is_old = false;
		look_at = now_ms() + (now_ms() < soon_until ? LOOK_SOON : LOOK_EVERY);
	}
	if (now_ms() >= settle_at && reading_unanswered == 0)
		readings_settle();
	return anew;
}

/* Milliseconds until there is something to do. */
long
readings_pause(void)
{
	return Max(0, Min(look_at, settle_at) - now_ms());
}
