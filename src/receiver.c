/*
 * receiver.c
 *		The receiver: reads records back, and acknowledgements, and marks their
 *		messages.
 *
 * What a batch says of messages, and how far the topics have been read, is one
 * transaction, so that a crash takes back both or none.  Partitions are shared
 * out among the receivers by a hash: no group has to agree on them, and a
 * worker that starts reads at once.  Kafka's committed offsets follow for tools.
 */
#include "msgsys.h"

#include "ack.h"
#include "broker.h"
#include "channel.h"
#include "record.h"
#include "shmem.h"
#include "store.h"
#include "worker.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define LOOK_FOR_PARTITIONS 30000	/* ms between two looks for new partitions */
#define LOOK_AGAIN		2000	/* ms after a topic could not be looked up */
#define PRUNE_EVERY		60000	/* ms between two looks at former topics */
#define RETRY_POSTPONED 500		/* ms between two tries at rows that users hold */

/* A partition that this worker reads. */
typedef struct Reading
{
	char	   *topic;
	int32		partition;
	int64		next;			/* the next offset to read */
	int64		stored;			/* what is in msg_offsets */
} Reading;

/* What one record says of one message. */
typedef struct Event
{
	Ack			ack;			/* a record read back is "received" */
	bool		readback;
	int			reading;		/* index of its partition */
	int64		offset;
} Event;

static Broker *consumer = NULL;
static MemoryContext assignment_context = NULL; /* until the next assignment */
static Reading *readings = NULL;
static int	nreadings = 0;
static List *only_channels = NIL;	/* whose records count; NIL: all */
static TimestampTz look_at = 0; /* when to look for partitions again */
static TimestampTz prune_at = 0;
static TimestampTz retry_at = 0;
static bool down = false;

/* Events of rows that somebody held for too long; stored positions stay below. */
static Event *postponed = NULL;
static int	npostponed = 0;
static int	postponed_room = 0;

/* ---------------------------------------------------------------- assignment */

/* Topics to read, and whose records count. */
static List *
topics_to_read(void)
{
	List	   *result = NIL;
	List	   *readback = NIL;
	List	   *other = NIL;
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);
		ListCell   *t;

		if (channel->topic && channel->ack != ACK_READBACK)
			other = list_append_unique(other, makeString(channel->topic));
		if (channel->paused)
			continue;
		if (channel->ack == ACK_TOPIC && channel->topic)
			result = list_append_unique(result, makeString(setting_acks_topic));
		if (channel->ack != ACK_READBACK)
			continue;
		names = lappend(names, channel->name);
		if (channel->topic)
			readback = list_append_unique(readback, makeString(channel->topic));
		foreach(t, channel->former_topics)
			readback = list_append_unique(readback, makeString(lfirst(t)));
	}
	/* which channel a record is of matters only where channels share a topic */
	list_free_deep(only_channels);
	only_channels = NIL;
	if (list_intersection(readback, other) != NIL)
		foreach(lc, names)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			only_channels = lappend(only_channels, pstrdup(lfirst(lc)));
			MemoryContextSwitchTo(old);
		}
	return list_concat_unique(result, readback);
}

/* Whether this worker is the one that reads a partition. */
static bool
ours(const char *topic, int partition)
{
	uint32		hash = hash_combine(hash_bytes((const unsigned char *) topic, strlen(topic)),
									hash_bytes_uint32(partition));

	return hash % setting_receiver_workers == slot_number();
}

/* The stored position of a partition; BROKER_BEGINNING for one that is new. */
static int64
stored_position(StoredPosition *positions, int n, const char *topic, int partition)
{
	for (int i = 0; i < n; i++)
		if (positions[i].partition == partition && strcmp(positions[i].topic, topic) == 0)
			return positions[i].next_offset;
	return BROKER_BEGINNING;
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
readings_wanted(int *n)
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
		if (broker_topic(consumer, topic, 500, &partitions, err, sizeof(err)) != BROKER_OK)
		{
			look_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_AGAIN);
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
			wanted[*n].next = wanted[*n].stored =
				stored_position(positions, npositions, topic, p);
			(*n)++;
		}
	}
	return wanted;
}

/* Read what is to be read now, where that has changed. */
static void
assign(bool always)
{
	BrokerPosition *positions;
	Reading    *wanted;
	int			n;
	char		err[256];

	look_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_FOR_PARTITIONS);
	wanted = readings_wanted(&n);
	if (!always && same_readings(wanted, n))
		return;

	MemoryContextReset(assignment_context);
	npostponed = 0;				/* stored positions are below: read again */
	readings = MemoryContextAlloc(assignment_context, Max(n, 1) * sizeof(Reading));
	positions = palloc(Max(n, 1) * sizeof(BrokerPosition));
	for (nreadings = 0; nreadings < n; nreadings++)
	{
		Reading    *reading = &readings[nreadings];

		*reading = wanted[nreadings];
		reading->topic = MemoryContextStrdup(assignment_context, reading->topic);
		positions[nreadings].topic = reading->topic;
		positions[nreadings].partition = reading->partition;
		positions[nreadings].offset = reading->next;
	}
	if (!broker_assign(consumer, positions, n, err, sizeof(err)))
	{
		slot_error(err);
		nreadings = 0;
		look_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_AGAIN);
	}
}

/* ---------------------------------------------------------------- records */

/* The partition that a record is of, or -1 if it is not read any more. */
static int
find_reading(const BrokerMessage *message)
{
	static int	last = 0;

	for (int i = 0; i < nreadings; i++)
	{
		int			r = (last + i) % nreadings;

		if (readings[r].partition == message->partition &&
			strcmp(readings[r].topic, message->topic) == 0)
			return last = r;
	}
	return -1;
}

/* Read what a record says; false if it says nothing to us. */
static bool
read_event(const BrokerMessage *message, Event *event)
{
	RecordName	name;

	if (strcmp(message->topic, setting_acks_topic) == 0)
	{
		event->readback = false;
		switch (ack_parse(message->value, message->value_length, &event->ack))
		{
			case ACK_READ:
				return true;
			case ACK_NOT_OURS:
				slot_count_up(COUNT_FOREIGN, 1);
				return false;
			case ACK_UNREADABLE:
				slot_count_up(COUNT_MALFORMED, 1);
				return false;
		}
	}
	if (!record_name(message, &name))
	{
		slot_count_up(COUNT_FOREIGN, 1);
		return false;
	}
	event->readback = true;
	event->ack.id = name.id;
	event->ack.outcome = ACK_RECEIVED;
	event->ack.attempt = name.attempt;
	event->ack.error = NULL;
	return true;
}

static int
compare_events(const void *a, const void *b)
{
	const Event *x = a;
	const Event *y = b;

	if (x->ack.id != y->ack.id)
		return x->ack.id < y->ack.id ? -1 : 1;
	if (x->readback != y->readback)
		return x->readback ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/*
 * Bring events in the order of their ids, one an id: the last one counts, but
 * "received" takes back nothing that was said before it.
 */
static int
merge_events(Event *events, int n)
{
	int			kept = 0;

	qsort(events, n, sizeof(Event), compare_events);
	for (int i = 0; i < n; i++)
	{
		if (kept > 0 && events[kept - 1].ack.id == events[i].ack.id &&
			events[kept - 1].readback == events[i].readback)
		{
			if (events[i].ack.outcome != ACK_RECEIVED ||
				events[kept - 1].ack.outcome == ACK_RECEIVED)
				events[kept - 1] = events[i];
		}
		else
			events[kept++] = events[i];
	}
	return kept;
}

/* Mark the messages of merged events, in the transaction under way. */
static void
mark_events(const Event *events, int n)
{
	Readback   *records = palloc(Max(n, 1) * sizeof(Readback));
	Ack		   *acks = palloc(Max(n, 1) * sizeof(Ack));
	int			nrecords = 0;
	int			nacks = 0;
	int			marked = 0;

	for (int i = 0; i < n; i++)
		if (events[i].readback)
		{
			records[nrecords].id = events[i].ack.id;
			records[nrecords].partition = readings[events[i].reading].partition;
			records[nrecords].offset = events[i].offset;
			records[nrecords].attempt = events[i].ack.attempt;
			nrecords++;
		}
		else
			acks[nacks++] = events[i].ack;
	if (nrecords > 0)
		marked += store_mark_readback(records, nrecords, only_channels);
	if (nacks > 0)
		marked += store_acknowledge(installation.schema, acks, nacks);
	slot_count_up(COUNT_RECEIVED, marked);
	slot_count_up(COUNT_UNMATCHED, n - marked);
}

/* Store how far we have read, but not past what is postponed. */
static void
store_progress(void)
{
	StoredPosition *positions = palloc(Max(nreadings, 1) * sizeof(StoredPosition));
	int64	   *safe = palloc(Max(nreadings, 1) * sizeof(int64));
	int			n = 0;

	for (int i = 0; i < nreadings; i++)
		safe[i] = readings[i].next;
	for (int i = 0; i < npostponed; i++)
		safe[postponed[i].reading] = Min(safe[postponed[i].reading], postponed[i].offset);
	for (int i = 0; i < nreadings; i++)
	{
		if (safe[i] == readings[i].stored || safe[i] < 0)
			continue;
		positions[n].topic = readings[i].topic;
		positions[n].partition = readings[i].partition;
		positions[n].next_offset = readings[i].stored = safe[i];
		n++;
	}
	store_set_positions(positions, n, false);
}

typedef struct Work
{
	Event	   *events;
	int			n;
} Work;

/* The usual case: everything in one transaction. */
static void
mark_all(void *arg)
{
	Work	   *work = arg;

	mark_events(work->events, work->n);
	store_progress();
}

static void
postpone(const Event *event)
{
	if (npostponed == postponed_room)
	{
		postponed_room = Max(64, postponed_room * 2);
		if (postponed == NULL)
			postponed = MemoryContextAlloc(TopMemoryContext, postponed_room * sizeof(Event));
		else
			postponed = repalloc_huge(postponed, postponed_room * sizeof(Event));
	}
	postponed[npostponed] = *event;
	if (event->ack.error)
		postponed[npostponed].ack.error = MemoryContextStrdup(assignment_context, event->ack.error);
	npostponed++;
}

/*
 * Somebody holds rows: mark those that are free and set the others aside.  A row
 * that is not there is nobody's, and passes as free.
 */
static void
mark_free(void *arg)
{
	Work	   *work = arg;
	int64	   *ids = palloc(work->n * sizeof(int64));
	int64	   *held = palloc(work->n * sizeof(int64));
	Event	   *unheld = palloc(work->n * sizeof(Event));
	int			nunheld = 0;
	int			nheld;
	int			h = 0;

	for (int i = 0; i < work->n; i++)
		ids[i] = work->events[i].ack.id;
	nheld = store_lock_free(ids, work->n, held);
	npostponed = 0;
	for (int i = 0; i < work->n; i++)
	{
		while (h < nheld && held[h] < ids[i])
			h++;
		if (h < nheld && held[h] == ids[i])
			postpone(&work->events[i]);
		else
			unheld[nunheld++] = work->events[i];
	}
	mark_events(unheld, nunheld);
	store_progress();
	slot_count_up(COUNT_POSTPONED, npostponed);
}

/* Tell Kafka how far we are, for tools that show the lag. */
static void
show_progress(void)
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

/* One line, for batches that are worth one. */
static void
log_batch(const Event *events, int n, TimestampTz began)
{
	if (setting_log_batch < 0 || n < Max(setting_log_batch, 1))
		return;
	ereport(LOG,
			(errhidecontext(true), errhidestmt(true),
			 errmsg("msgsys receiver read %d records, ids " INT64_FORMAT " to " INT64_FORMAT ", in %ld ms",
					n, events[0].ack.id, events[n - 1].ack.id,
					TimestampDifferenceMilliseconds(began, GetCurrentTimestamp()))));
}

/* Mark events together with what was postponed before; all merged. */
static void
apply(Event *events, int n, TimestampTz began)
{
	Work		work = {.n = n + npostponed};
	uint64		buckets = 0;

	work.events = palloc(Max(work.n, 1) * sizeof(Event));
	memcpy(work.events, events, n * sizeof(Event));
	memcpy(work.events + n, postponed, npostponed * sizeof(Event));
	work.n = merge_events(work.events, work.n);

	if (npostponed > 0 || !worker_try(mark_all, &work))
	{
		/* tried until it succeeds: a deadlock has a victim only once */
		while (!worker_try(mark_free, &work))
			CHECK_FOR_INTERRUPTS();
		retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_POSTPONED);
	}
	for (int i = 0; i < work.n; i++)
		buckets |= status_bucket(work.events[i].ack.id);
	status_changed(buckets);
	if (work.n > 0)
		log_batch(work.events, work.n, began);
}

/* Read and mark one batch.  Returns whether there was anything. */
static bool
receive_batch(void)
{
	static BrokerMessage *messages = NULL;
	static int	room = 0;
	Event	   *events;
	int			n;
	int			nevents = 0;
	TimestampTz began = GetCurrentTimestamp();

	if (room != setting_batch_size)
	{
		if (messages)
			pfree(messages);
		room = setting_batch_size;
		messages = MemoryContextAllocHuge(TopMemoryContext, sizeof(BrokerMessage) * (Size) room);
	}
	/* what users hold is not to fill our memory */
	if (npostponed >= setting_batch_size)
		n = 0;
	else
		n = broker_consume(consumer, messages, room);
	if (n == 0 && (npostponed == 0 || began < retry_at))
		return false;

	slot_state(WORKER_BUSY);
	pgstat_report_activity(STATE_RUNNING, "marking messages");
	events = palloc(Max(n, 1) * sizeof(Event));
	for (int i = 0; i < n; i++)
	{
		int			reading = find_reading(&messages[i]);

		if (reading < 0)
			continue;
		readings[reading].next = messages[i].offset + 1;
		if (read_event(&messages[i], &events[nevents]))
		{
			events[nevents].reading = reading;
			events[nevents].offset = messages[i].offset;
			nevents++;
		}
	}
	broker_release(consumer);
	apply(events, nevents, began);
	show_progress();
	slot_count_up(COUNT_RECORDS, n);
	slot_count_up(COUNT_CYCLES, 1);
	return n > 0;
}

/* ---------------------------------------------------------------- main loop */

static void
close_consumer(void)
{
	worker_close_broker(&consumer);
	nreadings = 0;
	npostponed = 0;
}

/* Open the consumer where it is not, and notice whether its broker answers. */
static bool
consumer_ready(bool *opened)
{
	const char *reason;
	BrokerHealth health;

	if (consumer && worker_broker_settings_changed())
		close_consumer();
	if (consumer && broker_health(consumer, &reason) == BROKER_DEAD)
	{
		ereport(LOG, (errmsg("msgsys receiver makes a new consumer: %s", reason)));
		close_consumer();
	}
	if (consumer == NULL)
	{
		if (!worker_broker_settings_changed() && setting_kafka_brokers[0] == '\0')
			return false;
		consumer = worker_open_broker(BROKER_CONSUMER);
		if (consumer == NULL)
			return false;
		*opened = true;
	}
	worker_broker_log(consumer);
	health = broker_health(consumer, &reason);
	if (health == BROKER_DOWN && !down)
	{
		ereport(LOG,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("msgsys receiver has lost the broker: %s", reason)));
		slot_error(reason);
	}
	else if (health == BROKER_UP && down)
		ereport(LOG, (errmsg("msgsys receiver has the broker back")));
	down = health == BROKER_DOWN;
	return true;
}

/* Forget former topics of channels that wait for nothing any more. */
static void
prune(TimestampTz now)
{
	ListCell   *lc;
	bool		any = false;

	prune_at = TimestampTzPlusMilliseconds(now, PRUNE_EVERY);
	foreach(lc, channels)
		any |= ((Channel *) lfirst(lc))->former_topics != NIL;
	if (any && worker_begin())
	{
		store_prune_topics();
		worker_commit();
	}
}

/* Main loop of a receiver worker. */
void
receiver_main(void)
{
	bool		reloaded = false;
	bool		opened = false; /* the consumer, since the last assignment */

	assignment_context = AllocSetContextCreate(TopMemoryContext, "msgsys assignment",
											   ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		TimestampTz now;
		long		pause = setting_poll_interval;

		worker_cycle();
		if (!worker_refresh(&reloaded))
		{
			close_consumer();
			worker_wait(setting_poll_interval);
			continue;
		}
		if (!consumer_ready(&opened))
		{
			worker_wait(setting_poll_interval);
			continue;
		}
		now = GetCurrentTimestamp();
		if (now >= prune_at)
			prune(now);
		if (reloaded || opened || now >= look_at)
			assign(opened);
		reloaded = opened = false;
		if (receive_batch())
			continue;
		slot_state(down ? WORKER_BROKER_DOWN :
				   nreadings == 0 && channels_all_paused() ? WORKER_PAUSED : WORKER_IDLE);
		if (npostponed > 0)
			pause = Min(pause, RETRY_POSTPONED);
		pause = Min(pause, TimestampDifferenceMilliseconds(now, look_at) + 1);
		worker_wait(pause);
	}
}
