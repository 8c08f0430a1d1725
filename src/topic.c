/*
 * topic.c
 *		What the relay knows of the topics that it produces to.
 *
 * A topic has a life of its own: unknown, asked for, accepted, in an outage.  It is asked for
 * once something is about to go there, asynchronously, so that only its own
 * messages wait for the answer.  What it refuses because it is not there, or because of a
 * right, is an outage: its messages wait as they are, in order, and it is asked for again
 * after a pause that grows.  Partitions without a leader are in an outage of their own.
 */
#include "msgsys.h"

#include "monotonic.h"
#include "shmem.h"
#include "store.h"
#include "topic.h"
#include "trouble.h"
#include "worker.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define ASK_FIRST		500		/* ms until a topic in an outage is asked for again; doubles */
#define ASK_LONGEST		5000
#define ANSWER_WITHIN	1000	/* ms for a topic to be made */

static HTAB *topics = NULL;
static int64 next_question = PG_INT64_MAX;	/* that somebody waits for */

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
		memset((char *) last + sizeof(key), 0, sizeof(Topic) - sizeof(key));
	return last;
}

/* What was said of a topic holds no more. */
static void
unsay(Topic *topic)
{
	trouble_over(TROUBLE_TOPIC, topic->name);
	slot_error_over(topic->words);
	topic->said = false;
	topic->pause = 0;
	topic->ask_at = 0;
}

/* Say no more of topics that are not ours; NULL: of any. */
void
topics_keep(bool (*is_ours) (const char *name))
{
	HASH_SEQ_STATUS scan;
	Topic	   *topic;

	if (topics == NULL)
		return;
	hash_seq_init(&scan, topics);
	while ((topic = hash_seq_search(&scan)) != NULL)
		if (topic->said && (is_ours == NULL || !is_ours(topic->name)))
			unsay(topic);
}

/* Whether a topic is in an outage, or a partition of it. */
bool
topics_in_trouble(void)
{
	HASH_SEQ_STATUS scan;
	Topic	   *topic;
	bool		any = false;

	if (topics == NULL)
		return false;
	hash_seq_init(&scan, topics);
	while ((topic = hash_seq_search(&scan)) != NULL)
		any |= topic->said;
	return any;
}

/* Forget all: the broker is another one. */
void
topics_forget(void)
{
	topics_keep(NULL);
	if (topics)
		hash_destroy(topics);
	topics = NULL;
}

/* The producer that was asked is gone, and with it the answers. */
void
topics_unasked(void)
{
	HASH_SEQ_STATUS scan;
	Topic	   *topic;

	if (topics == NULL)
		return;
	hash_seq_init(&scan, topics);
	while ((topic = hash_seq_search(&scan)) != NULL)
		topic->asked = false;
}

/* Begin to look which topics are ready: no question is waited for yet. */
void
topics_look_begin(void)
{
	next_question = PG_INT64_MAX;
}

/* When the next question is to be asked that somebody waits for, in ms; PG_INT64_MAX: none. */
int64
topics_next_question(void)
{
	return next_question;
}

/* Ask for a topic, unless an answer is to come or it was asked for just now. */
static void
topic_ask(Broker *producer, Topic *topic)
{
	bool		want_ends = (topic->read_by_us && !topic->start_set) || topic->trouble || topic->down;

	if (topic->asked || topic->parked || producer == NULL)
		return;
	if (now_ms() < topic->ask_at)
		next_question = Min(next_question, topic->ask_at);
	else
		topic->asked = broker_ask_topic(producer, topic->name, want_ends, ANSWER_WITHIN);
}

/* Whether records for a topic may be handed over. */
bool
topic_usable(const Topic *topic)
{
	return topic->state == TOPIC_ACCEPTED && !topic->parked && (!topic->read_by_us || topic->start_set);
}

/*
 * Whether something may go to a topic, which our receiver is to read (read_by_us) or
 * not; where it may not, or not to all of its partitions, the topic is asked for.
 */
bool
topic_ready(Broker *producer, const char *name, bool read_by_us)
{
	Topic	   *topic = topic_find(name);
	bool		ready;

	topic->read_by_us |= read_by_us;
	ready = topic_usable(topic);
	if (!ready || topic->down)
		topic_ask(producer, topic);
	return ready;
}

/* Ask again after a while, which grows. */
static void
ask_later(Topic *topic)
{
	topic->pause = Min(ASK_LONGEST, Max(ASK_FIRST, topic->pause * 2));
	topic->ask_at = now_ms() + topic->pause;
}

/* Say, once, why messages wait. */
static void
say_outage(Topic *topic, const char *reason)
{
	if (!topic->said || strcmp(topic->reason, reason) != 0)
		trouble_add(TROUBLE_TOPIC, topic->name, reason);
	strlcpy(topic->reason, reason, sizeof(topic->reason));
	if (topic->said)
		return;
	topic->said = true;
	snprintf(topic->words, sizeof(topic->words), "messages for topic \"%s\" wait: %s", topic->name, topic->reason);
	ereport(LOG, (errmsg("msgsys relay: %s", topic->words)));
	slot_error(topic->words);
}

/* Say that they wait no more, once that is so. */
static void
say_recovery(Topic *topic)
{
	if (!topic->said || topic->trouble || topic->down)
		return;
	ereport(LOG, (errmsg("msgsys relay: topic \"%s\" takes messages again", topic->name)));
	unsay(topic);
}

/* A topic takes no records at present: its messages wait. */
void
topic_outage(Topic *topic, const char *reason)
{
	if (topic->state == TOPIC_OUTAGE && topic->ask_at > now_ms())
		return;					/* of the same batch */
	topic->state = TOPIC_OUTAGE;
	topic->trouble = true;
	ask_later(topic);
	say_outage(topic, reason);
}

/* A topic that was in an outage has taken a record. */
void
topic_proven(Topic *topic)
{
	topic->trouble = false;
	say_recovery(topic);
}

/* The ends of a topic's partitions, to be stored. */
typedef struct Start
{
	Topic	   *topic;
	const BrokerTopicAnswer *answer;
	bool		stored;
} Start;

/*
 * Set the positions from which the receiver reads a topic: the end of each partition
 * as it is now, before the first record is produced.  One without a leader has none,
 * and is read from its beginning.
 */
static void
set_start(void *arg)
{
	Start	   *start = arg;
	const BrokerTopicAnswer *answer = start->answer;
	StoredPosition *positions = palloc(Max(answer->partitions, 1) * sizeof(StoredPosition));
	int			n = 0;

	if (store_has_positions(start->topic->name))
		return;
	for (int p = 0; p < answer->partitions; p++)
	{
		if (answer->ends[p] < 0)
			continue;
		positions[n].topic = start->topic->name;
		positions[n].partition = p;
		positions[n].next_offset = answer->ends[p];
		positions[n++].record_time = DT_NOBEGIN;
	}
	store_set_positions(positions, n, true);
	start->stored = true;
}

/* Learn which partitions have a leader.  Returns whether one has it back. */
static bool
learn_partitions(Topic *topic, const BrokerTopicAnswer *answer)
{
	Bitmapset  *down = NULL;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		back;

	for (int p = 0; p < answer->partitions; p++)
		if (answer->ends[p] < 0)
			down = bms_add_member(down, p);
	MemoryContextSwitchTo(old);
	back = topic->state == TOPIC_ACCEPTED && !bms_is_subset(topic->down, down);
	bms_free(topic->down);
	topic->down = down;
	topic->partitions = answer->partitions;
	return back;
}

/* A topic may be produced to.  Returns whether positions were stored, which the receivers have to be told. */
static bool
topic_accepted(Broker *producer, Topic *topic, const BrokerTopicAnswer *answer, void (*back) (Topic *topic))
{
	Start		start = {.topic = topic,.answer = answer};
	ErrorData  *error;
	bool		released;

	if (topic->read_by_us && !topic->start_set)
	{
		if (!worker_try_any(set_start, &start, &error))
		{
			topic_outage(topic, error->message);
			return false;
		}
		topic->start_set = true;
	}
	released = learn_partitions(topic, answer) || topic->state != TOPIC_ACCEPTED;
	topic->limit = broker_topic_limit(producer, answer->max_bytes);
	topic->state = TOPIC_ACCEPTED;
	if (topic->down)
	{
		ask_later(topic);
		say_outage(topic, answer->reason);
	}
	else
		say_recovery(topic);
	if (released)
		back(topic);
	return start.stored;
}

/* Take the answers that are there; back is told of topics whose messages have waited. */
void
topics_take_answers(Broker *producer, void (*back) (Topic *topic))
{
	BrokerTopicAnswer answer;
	bool		stored = false;

	while (broker_topic_answer(producer, &answer))
	{
		Topic	   *topic = topic_find(answer.topic);

		topic->asked = false;
		if (topic->parked)
			continue;
		if (answer.outcome == BROKER_OK)
			stored |= topic_accepted(producer, topic, &answer, back);
		else if (answer.no_broker)
			ask_later(topic);
		else
			topic_outage(topic, answer.reason);
	}
	if (stored)
		publish_config(MyDatabaseId);	/* the receivers have something to read */
}
