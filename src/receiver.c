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
#include "monotonic.h"
#include "reading.h"
#include "record.h"
#include "shmem.h"
#include "store.h"
#include "suspect.h"
#include "trouble.h"
#include "worker.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define PRUNE_EVERY		60000	/* ms between two looks at former topics */
#define REOPEN_EVERY	2000	/* ms between two consumers, while topics come and go */
#define RETRY_POSTPONED 500		/* ms between two tries at rows that users hold */
#define BACKOFF_LONGEST 5000	/* ms between two tries, while nothing can be marked */
#define SAMPLES			8		/* of a batch that could not be marked, to see whether to try it */

/* What one record says of one message. */
typedef struct Event
{
	Ack			ack;			/* a record read back is "received" */
	bool		readback;
	TimestampTz created_at;		/* of the message, as a record read back says */
	int			reading;		/* of which partition, see reading.h */
	int32		partition;
	int64		offset;
	int64		time_ms;		/* of the record, since 1970; -1: it has none */
	bool		held;			/* somebody has its row, or it failed: to be tried again */
	bool		failed;			/* it could not be marked alone */
	int			failures;		/* how often, while others could */
	bool		kept;			/* its error is a copy of ours, to be freed */
} Event;

static Broker *consumer = NULL;
static bool down = false;
static char trouble[256] = "";	/* the latest with the broker, or with marks */
static bool lost_partition = false; /* by this consumer */

/* Times are those of now_ms(). */
static int64 prune_at = 0;
static int64 retry_at = 0;
static int64 reopen_at = 0;
static int	backoff = 0;		/* ms; 0: messages can be marked */

/* Events of rows that somebody held for too long, or that could not be marked; stored positions stay below. */
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
			case ACK_FORGED:
				trouble_add(TROUBLE_ACKS, message->topic, "no token, or a wrong one");
				slot_count_up(COUNT_FOREIGN, 1);
				return false;
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
	event->ack.epoch = name.epoch;
	event->created_at = name.created_at;
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
	if (x->ack.epoch != y->ack.epoch)
		return x->ack.epoch < y->ack.epoch ? -1 : 1;
	if (x->readback && x->created_at != y->created_at)
		return x->created_at < y->created_at ? -1 : 1;
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
			events[kept - 1].ack.epoch == events[i].ack.epoch &&
			events[kept - 1].readback == events[i].readback &&
			(!events[i].readback || events[kept - 1].created_at == events[i].created_at))
		{
			events[i].failures = Max(events[i].failures, events[kept - 1].failures);
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
			records[nrecords].epoch = events[i].ack.epoch;
			records[nrecords].created_at = events[i].created_at;
			records[nrecords].partition = events[i].partition;
			records[nrecords].offset = events[i].offset;
			records[nrecords].attempt = events[i].ack.attempt;
			nrecords++;
		}
		else
			acks[nacks++] = events[i].ack;
	if (nrecords > 0)
	{
		marked += store_mark_readback(records, nrecords);
		if (marked < nrecords)
			store_examine_records(records, nrecords);
	}
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
 * Mark the messages of events whose rows are free, and note of the others that
 * somebody holds them.  A row that is not there is nobody's, and passes as free.
 */
static void
mark_unheld(void *arg)
{
	Work	   *work = arg;
	int64	   *ids = palloc(work->n * sizeof(int64));
	bool	   *held = palloc(work->n * sizeof(bool));
	Event	   *unheld = palloc(work->n * sizeof(Event));
	int			nunheld = 0;

	for (int i = 0; i < work->n; i++)
		ids[i] = work->events[i].ack.id;
	store_lock_free(ids, work->n, held);
	for (int i = 0; i < work->n; i++)
	{
		work->events[i].held = held[i];
		if (!held[i])
			unheld[nunheld++] = work->events[i];
	}
	mark_events(unheld, nunheld);
}

/* Keep the events that are to be tried again, and no others. */
static void
postpone_held(Work *work)
{
	npostponed = 0;
	for (int i = 0; i < work->n; i++)
		if (work->events[i].held)
			postpone(&work->events[i]);
}

/* Somebody holds rows: mark those that are free and set the others aside. */
static void
mark_free(void *arg)
{
	mark_unheld(arg);
	postpone_held(arg);
	store_progress();
}

static void
store_progress_only(void *arg)
{
	store_progress();
}

/* Run work until it succeeds, or fails for another reason than locks; returns the error then. */
static ErrorData *
try_through_locks(void (*run) (void *), Work *work)
{
	ErrorData  *error;

	/* a deadlock has a victim only once */
	while (!worker_try_any(run, work, &error))
	{
		CHECK_FOR_INTERRUPTS();
		if (!error_is_of_locks(error))
			return error;
	}
	return NULL;
}

/*
 * Something in these events cannot be marked: mark the rest, by halves.  What fails
 * alone is noted; *passed counts what does not, *words are the last error's.
 */
static void
mark_by_halves(Event *events, int n, int *passed, char **words)
{
	Work		work = {.events = events,.n = n};
	ErrorData  *error = try_through_locks(mark_unheld, &work);

	if (error == NULL)
	{
		for (int i = 0; i < n; i++)
			*passed += !events[i].held;
		return;
	}
	if (n == 1)
	{
		events[0].failed = events[0].held = true;
		*words = error->message;
		return;
	}
	mark_by_halves(events, n / 2, passed, words);
	mark_by_halves(events + n / 2, n - n / 2, passed, words);
}

/* Whether any of some of these events can be marked; while none could, to try all would be for nothing. */
static bool
any_sample_passes(const Work *work, char **words)
{
	int			passed = 0;

	for (int i = 0; i < Min(SAMPLES, work->n) && passed == 0; i++)
		mark_by_halves(&work->events[(int64) i * work->n / Min(SAMPLES, work->n)], 1, &passed, words);
	return passed > 0;
}

/* A record could not be marked, while others could: pass over it. */
static void
set_aside(Event *event, const char *words)
{
	ereport(LOG,
			(errcode(ERRCODE_DATA_EXCEPTION),
			 errmsg("msgsys receiver passes over a record that it could not mark: %s", words),
			 errdetail("Message " INT64_FORMAT ", topic \"%s\", partition %d, offset " INT64_FORMAT ".",
					   event->ack.id, reading_topic(event->reading), event->partition, event->offset)));
	slot_count_up(COUNT_SET_ASIDE, 1);
	event->held = false;
}

/* Something can be marked (again). */
static void
can_mark(void)
{
	if (backoff > 0)
		slot_error_over(trouble);
	backoff = 0;
}

/* Nothing can be marked: keep what there is, and wait. */
static void
back_off(const char *words)
{
	if (backoff == 0)
		ereport(LOG,
				(errmsg("msgsys receiver cannot mark messages, and tries again: %s", words)));
	strlcpy(trouble, words, sizeof(trouble));
	slot_error(trouble);
	backoff = Min(BACKOFF_LONGEST, Max(RETRY_POSTPONED, backoff * 2));
}

/*
 * A batch failed, for whatever reason: no error's code tells whether a record is at fault, or
 * all is.  So what fails alone, several times, while others pass, is passed over; where
 * nothing passes, it is the environment, and nothing is.
 */
static void
mark_piecewise(Work *work)
{
	int			passed = 0;
	char	   *words = "";
	ErrorData  *error;

	if (backoff == 0 || any_sample_passes(work, &words))
	{
		for (int i = 0; i < work->n; i++)
			work->events[i].failed = work->events[i].held = false;
		mark_by_halves(work->events, work->n, &passed, &words);
	}
	else
		for (int i = 0; i < work->n; i++)
			work->events[i].failed = work->events[i].held = true;
	for (int i = 0; i < work->n; i++)
		if (work->events[i].failed && strike(&work->events[i].failures, passed > 0))
			set_aside(&work->events[i], words);
	if (passed > 0)
		can_mark();
	else
		back_off(words);
	postpone_held(work);
	if (worker_try_any(store_progress_only, NULL, &error))
		readings_stored();
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
	ErrorData  *error;
	bool		done = false;

	work.events = palloc(Max(work.n, 1) * sizeof(Event));
	memcpy(work.events, events, n * sizeof(Event));
	if (npostponed > 0)
		memcpy(work.events + n, postponed, npostponed * sizeof(Event));
	work.n = merge_events(work.events, work.n);

	for (int i = 0; i < work.n; i++)
		work.events[i].held = work.events[i].failed = false;
	error = NULL;
	if (npostponed == 0)
		done = worker_try_any(mark_all, &work, &error);
	/* rows that somebody holds are set aside, what fails otherwise is looked for */
	if (!done && (error == NULL || error_is_of_locks(error)))
	{
		error = try_through_locks(mark_free, &work);
		done = error == NULL;
		slot_count_up(COUNT_POSTPONED, done ? npostponed : 0);
	}
	if (done)
	{
		can_mark();
		readings_stored();
	}
	else
		mark_piecewise(&work);
	retry_at = now_ms() + Max(backoff, RETRY_POSTPONED);
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
			durations_add(&receive, Max(now_ms - events[i].time_ms, 0) * 1000, 1);
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
	bool		moved = false;
	TimestampTz began = GetCurrentTimestamp();

	if (room != setting_batch_size)
	{
		if (messages)
			pfree(messages);
		room = setting_batch_size;
		messages = MemoryContextAllocHuge(TopMemoryContext, sizeof(BrokerMessage) * (Size) room);
	}
	/* what users hold is not to fill our memory */
	if (npostponed >= setting_batch_size || (backoff > 0 && now_ms() < retry_at))
		n = 0;
	else
		n = broker_consume(consumer, messages, room);
	if (n == 0 && (npostponed == 0 || now_ms() < retry_at))
		return false;

	slot_state(WORKER_BUSY);
	pgstat_report_activity(STATE_RUNNING, "marking messages");
	events = palloc(Max(n, 1) * sizeof(Event));
	for (int i = 0; i < n; i++)
	{
		int			reading = reading_advance(&messages[i]);

		moved |= messages[i].end;
		if (reading < 0)
			continue;
		nread++;
		if (!read_event(&messages[i], &events[nevents]))
			continue;
		events[nevents].reading = reading;
		events[nevents].partition = messages[i].partition;
		events[nevents].offset = messages[i].offset;
		events[nevents].time_ms = messages[i].time_ms;
		events[nevents].kept = false;
		events[nevents].failures = 0;
		nevents++;
	}
	broker_release(consumer);
	/* the end of a partition is told whenever it is reached; mostly that is nothing new */
	if (n > 0 && nread == 0 && npostponed == 0 && moved && !readings_moved())
		return true;
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

/* Open the consumer where it is not, and notice whether its broker answers. */
static bool
consumer_ready(bool *opened)
{
	const char *reason;

	if (consumer && worker_broker_settings_changed())
		close_consumer();
	/* not at once, for a topic that is gone may be so for a while */
	lost_partition |= consumer && broker_lost_partition(consumer);
	if (lost_partition && now_ms() >= reopen_at)
	{
		close_consumer();
		lost_partition = false;
		reopen_at = now_ms() + REOPEN_EVERY;
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
	return true;
}

/* Notice whether the broker answers, by the latest look. */
static void
notice_broker(void)
{
	if (reading_unanswered > 0 && !down &&
		(reading_unanswered > 1 || broker_health(consumer, NULL) == BROKER_DOUBTED))
	{
		ereport(LOG,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("msgsys receiver has lost the broker: %s", reading_reason)));
		strlcpy(trouble, reading_reason, sizeof(trouble));
		slot_error(trouble);
	}
	else if (reading_unanswered == 0 && down)
	{
		ereport(LOG, (errmsg("msgsys receiver has the broker back")));
		slot_error_over(trouble);
	}
	else
	{
		/* the reason may be known only after a while, and be another one meanwhile */
		if (down)
			slot_error(reading_reason);
		return;
	}
	down = reading_unanswered > 0;
}

/* Forget former topics of channels that wait for nothing any more. */
static void
prune(void)
{
	ListCell   *lc;
	bool		any = false;

	prune_at = now_ms() + PRUNE_EVERY;
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
		if (now_ms() >= prune_at)
			prune();
		if (readings_refresh(consumer, reloaded, opened))
			forget_postponed(); /* stored positions are below: read again */
		notice_broker();
		reloaded = opened = false;
		if (receive_batch())
			continue;
		if (!down && backoff == 0 && npostponed == 0)
			slot_well();
		slot_state(down ? WORKER_BROKER_DOWN :
				   channels_all_paused() ? WORKER_PAUSED : WORKER_IDLE);
		if (npostponed > 0)
			pause = Min(pause, Max(1, retry_at - now_ms()));
		pause = Min(pause, readings_pause() + 1);
		if (lost_partition)
			pause = Min(pause, REOPEN_EVERY);
		worker_rest(pause);
	}
}
