/*
 * kafka_topics.c
 *		Questions for topics, asked in a thread of their own.
 *
 * A question for a topic that is being made, or that nobody has, takes as long as one
 * is willing to wait.  So the thread takes them in turn, each once, and those that
 * have no final answer again a little later: none waits for another.  It runs
 * nothing but the library and this file, with all signals blocked.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "explain.h"
#include "kafka_limits.h"
#include "kafka_topics.h"
#include "monotonic.h"

#define ASK_AGAIN_MS	50		/* a topic that is being made */
#define METADATA_MS		1000
#define ENDS_MS			1000	/* of one partition */
#define LIMIT_MS		1000	/* a broker that is slow to tell, or does not */
#define LOOK_MS			5		/* until an answer that is under way is looked for */

#define Min(x, y)			((x) < (y) ? (x) : (y))
#define Max(x, y)			((x) > (y) ? (x) : (y))

typedef struct Question
{
	struct Question *next;
	bool		want_ends;
	int64_t		limit;			/* when to give up */
	int64_t		ask_at;
	rd_kafka_queue_t *limit_queue;	/* all else is known but the topic's limit */
	int64_t		limit_until;
	BrokerTopicAnswer answer;
} Question;

struct TopicAsker
{
	rd_kafka_t *rk;
	int			wake_fd;
	TopicOutcome outcome;
	pthread_t	thread;
	bool		running;
	Question   *taken;			/* whose answer the caller looks at */

	/* under the lock */
	pthread_mutex_t lock;
	pthread_cond_t change;
	bool		stop;			/* atomic: also looked at without it */
	Question   *asked;			/* in the order of asking */
	Question   *answered;
};

static void
append(Question **list, Question *question)
{
	while (*list)
		list = &(*list)->next;
	question->next = NULL;
	*list = question;
}

static void
free_questions(Question *question)
{
	while (question)
	{
		Question   *next = question->next;

		if (question->limit_queue)
			rd_kafka_queue_destroy(question->limit_queue);
		free(question->answer.ends);
		free(question);
		question = next;
	}
}

/*
 * Ask a leader where its partitions of a topic end; one that does not answer is not
 * waited for.  Returns how many have an end.
 *
 * (rd_kafka_query_watermark_offsets() waits for a leader that has gone until it is
 * back, whatever it was given for a time.)
 */
static int
ask_leader(TopicAsker *asker, Question *question, const rd_kafka_metadata_topic_t * topic, int32_t leader)
{
	BrokerTopicAnswer *answer = &question->answer;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(topic->partition_cnt);
	rd_kafka_resp_err_t error;
	int			n = 0;

	for (int i = 0; i < topic->partition_cnt; i++)
		if (topic->partitions[i].leader == leader && topic->partitions[i].id >= 0 && topic->partitions[i].id < topic->partition_cnt)
			rd_kafka_topic_partition_list_add(list, answer->topic, topic->partitions[i].id)->offset = RD_KAFKA_OFFSET_END;
	error = rd_kafka_offsets_for_times(asker->rk, list, ENDS_MS);
	for (int i = 0; i < list->cnt; i++)
	{
		const		rd_kafka_topic_partition_t *end = &list->elems[i];
		rd_kafka_resp_err_t why = error ? error : end->err;

		if (why || end->offset < 0)
		{
			explain(answer->reason, sizeof(answer->reason), "partition %d: %s", (int) end->partition, rd_kafka_err2str(why));
			continue;
		}
		answer->ends[end->partition] = end->offset;
		n++;
	}
	rd_kafka_topic_partition_list_destroy(list);
	return n;
}

/* Whether no partition before this one has its leader. */
static bool
first_of_leader(const rd_kafka_metadata_topic_t * topic, int partition)
{
	for (int i = 0; i < partition; i++)
		if (topic->partitions[i].leader == topic->partitions[partition].leader)
			return false;
	return true;
}

/*
 * Ask the partitions for their ends; one that has no leader, or whose leader does not
 * answer, has none (-1).  Returns how many have one.
 */
static int
ask_ends(TopicAsker *asker, Question *question, const rd_kafka_metadata_topic_t * topic)
{
	int			n = 0;

	for (int i = 0; i < topic->partition_cnt; i++)
	{
		const		rd_kafka_metadata_partition_t *partition = &topic->partitions[i];

		if (partition->id < 0 || partition->id >= topic->partition_cnt || partition->leader < 0 ||
			__atomic_load_n(&asker->stop, __ATOMIC_RELAXED))
			continue;
		if (question->want_ends)
		{
			if (first_of_leader(topic, i))
				n += ask_leader(asker, question, topic, partition->leader);
			continue;
		}
		question->answer.ends[partition->id] = 0;
		n++;
	}
	return n;
}

/* Look at what the brokers say of a topic.  Returns whether that is final. */
static bool
judge(TopicAsker *asker, Question *question, const rd_kafka_metadata_topic_t * topic)
{
	BrokerTopicAnswer *answer = &question->answer;
	int			n;

	answer->outcome = asker->outcome(topic->err);
	if (topic->err != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		explain(answer->reason, sizeof(answer->reason), "%s", rd_kafka_err2str(topic->err));
		return topic->err != RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE &&
			topic->err != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
	}
	free(answer->ends);
	answer->partitions = topic->partition_cnt;
	answer->ends = malloc(Max(topic->partition_cnt, 1) * sizeof(int64_t));
	if (answer->ends == NULL)
		answer->partitions = 0;
	for (int i = 0; i < answer->partitions; i++)
		answer->ends[i] = -1;
	explain(answer->reason, sizeof(answer->reason), "no leader");
	n = answer->partitions > 0 ? ask_ends(asker, question, topic) : 0;
	answer->outcome = n > 0 ? BROKER_OK : BROKER_UNKNOWN;
	return n > 0 && n == answer->partitions;
}

/* Ask once.  Returns whether there is an answer. */
static bool
ask(TopicAsker *asker, Question *question)
{
	BrokerTopicAnswer *answer = &question->answer;
	rd_kafka_topic_t *handle = rd_kafka_topic_new(asker->rk, answer->topic, NULL);
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t error;
	bool		final = true;

	if (handle == NULL)
	{
		error = rd_kafka_last_error();
		answer->outcome = BROKER_REFUSED_TOPIC;
		explain(answer->reason, sizeof(answer->reason), "%s", rd_kafka_err2str(error));
		return true;
	}
	error = rd_kafka_metadata(asker->rk, 0, handle, &metadata, METADATA_MS);
	if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		answer->outcome = BROKER_UNKNOWN;
		answer->no_broker = true;
		explain(answer->reason, sizeof(answer->reason), "%s", rd_kafka_err2str(error));
	}
	else
	{
		if (metadata->topic_cnt == 1)
			final = judge(asker, question, &metadata->topics[0]);
		rd_kafka_metadata_destroy(metadata);
	}
	rd_kafka_topic_destroy(handle);

	/* a topic just made, perhaps by this very question */
	question->ask_at = now_ms() + ASK_AGAIN_MS;
	if (!final && question->ask_at < question->limit)
		return false;
	if (answer->outcome != BROKER_OK)
		return true;
	question->limit_queue = rd_kafka_queue_new(asker->rk);
	question->limit_until = now_ms() + LIMIT_MS;
	question->ask_at = now_ms() + LOOK_MS;
	kafka_ask_limit(asker->rk, answer->topic, LIMIT_MS, question->limit_queue);
	return false;
}

/* Look for the answer to the last part of a question.  Returns whether there is one, or it is not waited for any more. */
static bool
look_for_limit(Question *question)
{
	bool		done = kafka_take_limit(question->limit_queue, &question->answer.max_bytes) ||
	now_ms() >= question->limit_until;

	question->ask_at = now_ms() + LOOK_MS;
	if (!done)
		return false;
	rd_kafka_queue_destroy(question->limit_queue);
	question->limit_queue = NULL;
	return true;
}

/* Take the first question whose time has come, waiting for it; NULL: stop.  Under the lock. */
static Question *
next_question(TopicAsker *asker)
{
	while (!asker->stop)
	{
		int64_t		now = now_ms();
		int64_t		until = INT64_MAX;

		for (Question **q = &asker->asked; *q; q = &(*q)->next)
		{
			Question   *question = *q;

			if (question->ask_at <= now)
			{
				*q = question->next;
				return question;
			}
			until = Min(until, question->ask_at);
		}
		if (until == INT64_MAX)
			pthread_cond_wait(&asker->change, &asker->lock);
		else
		{
			struct timespec limit = {.tv_sec = until / 1000,.tv_nsec = until % 1000 * 1000000};

			pthread_cond_timedwait(&asker->change, &asker->lock, &limit);
		}
	}
	return NULL;
}

/* Main of the thread. */
static void *
asking_main(void *arg)
{
	TopicAsker *asker = arg;
	Question   *question;

	pthread_mutex_lock(&asker->lock);
	while ((question = next_question(asker)) != NULL)
	{
		bool		done;

		pthread_mutex_unlock(&asker->lock);
		done = question->limit_queue ? look_for_limit(question) : ask(asker, question);
		pthread_mutex_lock(&asker->lock);
		append(done ? &asker->answered : &asker->asked, question);
		if (done && !asker->stop)
		{
			ssize_t		unused = write(asker->wake_fd, "t", 1);

			(void) unused;		/* full, so it is readable */
		}
	}
	pthread_mutex_unlock(&asker->lock);
	return NULL;
}

/* see kafka_topics.h */
TopicAsker *
topic_asker_open(rd_kafka_t *rk, int wake_fd, TopicOutcome outcome)
{
	TopicAsker *asker = calloc(1, sizeof(TopicAsker));
	pthread_condattr_t attr;

	if (asker == NULL)
		return NULL;
	asker->rk = rk;
	asker->wake_fd = wake_fd;
	asker->outcome = outcome;
	pthread_mutex_init(&asker->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&asker->change, &attr);
	pthread_condattr_destroy(&attr);
	return asker;
}

/* see kafka_topics.h */
bool
topic_asker_ask(TopicAsker *asker, const char *topic, bool want_ends, int timeout_ms)
{
	Question   *question = calloc(1, sizeof(Question));

	if (question == NULL || strlen(topic) >= sizeof(question->answer.topic))
	{
		free(question);
		return false;
	}
	if (!asker->running)
	{
		sigset_t	all,
					before;

		sigfillset(&all);
		pthread_sigmask(SIG_BLOCK, &all, &before);
		asker->running = pthread_create(&asker->thread, NULL, asking_main, asker) == 0;
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		if (!asker->running)
		{
			free(question);
			return false;
		}
	}
	snprintf(question->answer.topic, sizeof(question->answer.topic), "%s", topic);
	question->answer.outcome = BROKER_UNKNOWN;
	question->want_ends = want_ends;
	question->limit = now_ms() + timeout_ms;
	pthread_mutex_lock(&asker->lock);
	append(&asker->asked, question);
	pthread_cond_signal(&asker->change);
	pthread_mutex_unlock(&asker->lock);
	return true;
}

/* see kafka_topics.h */
bool
topic_asker_answer(TopicAsker *asker, BrokerTopicAnswer *answer)
{
	free_questions(asker->taken);
	asker->taken = NULL;
	if (!asker->running)
		return false;
	pthread_mutex_lock(&asker->lock);
	asker->taken = asker->answered;
	if (asker->taken)
		asker->answered = asker->taken->next;
	pthread_mutex_unlock(&asker->lock);
	if (asker->taken == NULL)
		return false;
	asker->taken->next = NULL;
	*answer = asker->taken->answer;
	return true;
}

/* see kafka_topics.h */
void
topic_asker_stop(TopicAsker *asker)
{
	pthread_mutex_lock(&asker->lock);
	__atomic_store_n(&asker->stop, true, __ATOMIC_RELAXED);
	pthread_cond_signal(&asker->change);
	pthread_mutex_unlock(&asker->lock);
}

/* see kafka_topics.h */
void
topic_asker_close(TopicAsker *asker)
{
	topic_asker_stop(asker);
	if (asker->running)
		pthread_join(asker->thread, NULL);
	free_questions(asker->taken);
	free_questions(asker->asked);
	free_questions(asker->answered);
	free(asker);
}
