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
#include "reading.h"
#include "record.h"
#include "shmem.h"
#include "store.h"
#include "worker.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define PRUNE_EVERY		60000	/* ms between two looks at former topics */
#define ASK_EVERY		1000	/* ms between two questions to a dead broker */
#define REOPEN_EVERY	2000	/* ms between two consumers, while topics come and go */
#define ASK_TIMEOUT		500		/* ms */
#define RETRY_POSTPONED 500		/* ms between two tries at rows that users hold */

/* What one record says of one message. */
typedef struct Event
{
	Ack			ack;			/* a record read back is "received" */
	bool		readback;
	int			reading;		/* of which partition, see reading.h */
	int32		partition;
	int64		offset;
	int64		time_ms;		/* of the record, since 1970; -1: it has none */
	bool		held;			/* somebody has its row */
	bool		kept;			/* its error is a copy of ours, to be freed */
} Event;

static Broker *consumer = NULL;
static TimestampTz prune_at = 0;
static TimestampTz retry_at = 0;
static bool down = false;
static bool lost_partition = false; /* by this consumer */
static TimestampTz reopen_at = 0;
static TimestampTz ask_at = 0;	/* when to ask whether it is up again */

/* Events of rows that somebody held for too long; stored positions stay below. */
static Event *postponed = NULL;
static int	npostponed = 0;
static int	postponed_room = 0;

/* ---------------------------------------------------------------- records */

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
 * Whether an acknowledgement says more than another of the same message, as it
 * would in a later batch: "delivered" is for good, a later attempt is news, and
 * "received" takes no failure back.
 */
static bool
says_more(const Ack *later, const Ack *earlier)
{
	if ((later->outcome == ACK_DELIVERED) != (earlier->outcome == ACK_DELIVERED))
		return later->outcome == ACK_DELIVERED;
	if (later->attempt != earlier->attempt && later->attempt > 0 && earlier->attempt > 0)
		return later->attempt > earlier->attempt;
	return later->outcome != ACK_RECEIVED || earlier->outcome == ACK_RECEIVED;
}

/* Bring events in the order of their ids, one an id: the one that says most. */
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
			if (says_more(&events[i].ack, &events[kept - 1].ack))
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
			records[nrecords].partition = events[i].partition;
			records[nrecords].offset = events[i].offset;
			records[nrecords].attempt = events[i].ack.attempt;
			nrecords++;
		}
		else
			acks[nacks++] = events[i].ack;
	if (nrecords > 0)
		marked += store_mark_readback(records, nrecords);
	if (nacks > 0)
		marked += store_acknowledge(installation.schema, acks, nacks);
	slot_count_up(COUNT_RECEIVED, marked);
	slot_count_up(COUNT_UNMATCHED, n - marked);
}

/* Store how far we have read, but not past what is postponed. */
static void
store_progress(void)
{
	for (int i = 0; i < npostponed; i++)
		reading_hold(postponed[i].reading, postponed[i].offset);
	readings_store();
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
postpone(Event *event)
{
	if (npostponed == postponed_room)
	{
		postponed_room = Max(64, postponed_room * 2);
		if (postponed == NULL)
			postponed = MemoryContextAlloc(TopMemoryContext, postponed_room * sizeof(Event));
		else
			postponed = repalloc_huge(postponed, postponed_room * sizeof(Event));
	}
	if (event->ack.error && !event->kept)
	{
		event->ack.error = MemoryContextStrdup(TopMemoryContext, event->ack.error);
		event->kept = true;
	}
	postponed[npostponed] = *event;
	npostponed++;
}

/* Forget what was postponed. */
static void
forget_postponed(void)
{
	for (int i = 0; i < npostponed; i++)
		if (postponed[i].kept)
			pfree(unconstify(char *, postponed[i].ack.error));
	npostponed = 0;
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
	bool	   *held = palloc(work->n * sizeof(bool));
	Event	   *unheld = palloc(work->n * sizeof(Event));
	int			nunheld = 0;

	for (int i = 0; i < work->n; i++)
		ids[i] = work->events[i].ack.id;
	store_lock_free(ids, work->n, held);
	npostponed = 0;
	for (int i = 0; i < work->n; i++)
	{
		work->events[i].held = held[i];
		if (work->events[i].held)
			postpone(&work->events[i]);
		else
			unheld[nunheld++] = work->events[i];
	}
	mark_events(unheld, nunheld);
	store_progress();
	slot_count_up(COUNT_POSTPONED, npostponed);
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
	if (npostponed > 0)
		memcpy(work.events + n, postponed, npostponed * sizeof(Event));
	work.n = merge_events(work.events, work.n);

	if (npostponed > 0 || !worker_try(mark_all, &work))
	{
		/* tried until it succeeds: a deadlock has a victim only once */
		while (!worker_try(mark_free, &work))
			CHECK_FOR_INTERRUPTS();
		retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_POSTPONED);
	}
	readings_stored();
	for (int i = 0; i < work.n; i++)
	{
		buckets |= status_bucket(work.events[i].ack.id);
		if (work.events[i].kept && !work.events[i].held)
			pfree(unconstify(char *, work.events[i].ack.error));
	}
	status_changed(buckets);
	if (work.n > 0)
		log_batch(work.events, work.n, began);
}

/* Count how long records took that were read back, from their time in Kafka on. */
static void
observe(const Event *events, int n)
{
	int64		now_ms = (GetCurrentTimestamp() / 1000) +
	(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (int64) SECS_PER_DAY * 1000;
	Durations	receive = {0};

	for (int i = 0; i < n; i++)
		if (events[i].readback && events[i].time_ms >= 0)
			durations_add(&receive, (now_ms - events[i].time_ms) * 1000, 1);
	slot_observe(HISTOGRAM_RECEIVE, &receive);
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
	int			nread = 0;
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
		int			reading = reading_advance(&messages[i]);

		if (reading < 0)
			continue;
		nread++;
		if (!read_event(&messages[i], &events[nevents]))
			continue;
		events[nevents].reading = reading;
		events[nevents].partition = messages[i].partition;
		events[nevents].offset = messages[i].offset;
		events[nevents].time_ms = messages[i].time_ms;
		events[nevents].held = events[nevents].kept = false;
		nevents++;
	}
	broker_release(consumer);
	apply(events, nevents, began);
	observe(events, nevents);
	readings_show(consumer);
	slot_count_up(COUNT_RECORDS, nread);
	slot_count_up(COUNT_CYCLES, 1);
	return n > 0;
}

/* ---------------------------------------------------------------- main loop */

static void
close_consumer(void)
{
	worker_close_broker(&consumer);
	forget_postponed();
}

/* An idle consumer notices neither for sure that its broker is gone, nor that it is back: it has to ask. */
static bool
in_doubt(void)
{
	return down || broker_health(consumer, NULL) == BROKER_DOUBTED;
}

/* Open the consumer where it is not, and notice whether its broker answers. */
static bool
consumer_ready(bool *opened)
{
	const char *reason;

	if (consumer && worker_broker_settings_changed())
		close_consumer();
	/* not at once, for a topic that is gone may be so for a while */
	lost_partition |= consumer && broker_lost_partition(consumer);
	if (lost_partition && GetCurrentTimestamp() >= reopen_at)
	{
		close_consumer();
		lost_partition = false;
		reopen_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), REOPEN_EVERY);
	}
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
	if (in_doubt() && GetCurrentTimestamp() >= ask_at)
	{
		char		err[256];
		bool		answers = broker_reachable(consumer, ASK_TIMEOUT, err, sizeof(err));

		ask_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ASK_EVERY);
		if (!answers && !down)
		{
			ereport(LOG,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("msgsys receiver has lost the broker: %s", err)));
			slot_error(err);
		}
		else if (answers && down)
			ereport(LOG, (errmsg("msgsys receiver has the broker back")));
		down = !answers;
	}
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

	for (;;)
	{
		TimestampTz now;
		long		pause = setting_poll_interval;
		Note	   *notes;
		bool		sweep;

		worker_cycle();
		(void) notes_take(&notes, &sweep);	/* they only woke us */
		if (!worker_refresh(&reloaded))
		{
			close_consumer();
			worker_rest(setting_poll_interval);
			continue;
		}
		if (!consumer_ready(&opened))
		{
			worker_rest(setting_poll_interval);
			continue;
		}
		now = GetCurrentTimestamp();
		if (now >= prune_at)
			prune(now);
		if ((reloaded || opened || now >= readings_look_at) &&
			readings_assign(consumer, opened))
			forget_postponed(); /* stored positions are below: read again */
		reloaded = opened = false;
		if (receive_batch())
			continue;
		slot_state(down ? WORKER_BROKER_DOWN :
				   channels_all_paused() ? WORKER_PAUSED : WORKER_IDLE);
		if (npostponed > 0)
			pause = Min(pause, RETRY_POSTPONED);
		pause = Min(pause, TimestampDifferenceMilliseconds(now, readings_look_at) + 1);
		if (lost_partition)
			pause = Min(pause, REOPEN_EVERY);
		if (in_doubt())
			pause = Min(pause, ASK_EVERY);
		worker_rest(pause);
	}
}
