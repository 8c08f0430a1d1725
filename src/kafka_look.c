/*
 * kafka_look.c
 *		Looks at topics beside the work: which partitions they have, where those begin
 *		and end.
 *
 * librdkafka answers such questions only to somebody who waits, and an answer may take
 * as long as a fetch, or a broker that is away.  So a thread waits, which runs nothing
 * but the library, with all signals blocked: one request for all topics, then two for
 * the partitions of each leader.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>

#include "broker.h"
#include "explain.h"
#include "kafka_look.h"
#include "monotonic.h"

struct KafkaLook
{
	pthread_t	thread;
	rd_kafka_t *rk;
	int			wake;			/* a byte goes there at the end */
	int			timeout_ms;
	int			done;			/* atomic: the thread has ended, all but */
	BrokerLook *result;
};

/* see broker.h */
void
broker_look_free(BrokerLook *look)
{
	if (look == NULL)
		return;
	for (int i = 0; i < look->ntopics; i++)
	{
		free(look->topics[i].name);
		free(look->topics[i].low);
	}
	free(look->topics);
	free(look);
}

/* A result in which nothing is known yet; NULL: out of memory. */
static BrokerLook *
make_result(const char *const *topics, int ntopics)
{
	BrokerLook *look = calloc(1, sizeof(BrokerLook));

	if (look == NULL)
		return NULL;
	look->topics = calloc((size_t) (ntopics > 0 ? ntopics : 1), sizeof(BrokerLookTopic));
	for (int i = 0; look->topics && i < ntopics; i++)
	{
		look->topics[i].outcome = BROKER_UNKNOWN;
		look->topics[i].name = strdup(topics[i]);
		if (look->topics[i].name == NULL)
			break;
		look->ntopics++;
	}
	if (look->topics == NULL || look->ntopics < ntopics)
	{
		broker_look_free(look);
		return NULL;
	}
	return look;
}

/* Enter what the metadata say of a topic. */
static void
enter_topic(BrokerLook *look, const rd_kafka_metadata_topic_t * found)
{
	for (int i = 0; i < look->ntopics; i++)
	{
		BrokerLookTopic *topic = &look->topics[i];
		size_t		n = (size_t) found->partition_cnt;

		if (strcmp(topic->name, found->topic) != 0 || topic->low != NULL)
			continue;
		if (found->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
			topic->outcome = BROKER_REFUSED_RETRY;
		if (found->err || n == 0 || (topic->low = malloc(2 * n * sizeof(int64_t))) == NULL)
			continue;
		topic->high = topic->low + n;
		topic->outcome = BROKER_OK;
		topic->partitions = (int) n;
		for (size_t p = 0; p < n; p++)
			topic->low[p] = topic->high[p] = BROKER_NOT_KNOWN;
		/* what has no leader cannot be asked for, and would keep the others waiting */
		for (size_t p = 0; p < n; p++)
			if (found->partitions[p].leader < 0 && found->partitions[p].id < found->partition_cnt)
				topic->high[found->partitions[p].id] = BROKER_NO_LEADER;
	}
}

/* Ask which partitions the topics have. */
static bool
ask_topics(KafkaLook *asked)
{
	BrokerLook *look = asked->result;
	rd_kafka_topic_t **handles = calloc((size_t) look->ntopics + 1, sizeof(*handles));
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t error;

	/* the library asks for those of which it has a handle, all in one request */
	for (int i = 0; handles && i < look->ntopics; i++)
		handles[i] = rd_kafka_topic_new(asked->rk, look->topics[i].name, NULL);
	error = rd_kafka_metadata(asked->rk, 0, NULL, &metadata, asked->timeout_ms);
	if (error)
		explain(look->reason, sizeof(look->reason), "%s", rd_kafka_err2str(error));
	else
	{
		for (int i = 0; i < metadata->topic_cnt; i++)
			enter_topic(look, &metadata->topics[i]);
		rd_kafka_metadata_destroy(metadata);
	}
	/* not kept: the library would ask for them for ever */
	for (int i = 0; handles && i < look->ntopics; i++)
		if (handles[i])
			rd_kafka_topic_destroy(handles[i]);
	free(handles);
	return error == RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* Ask where all partitions begin (RD_KAFKA_OFFSET_BEGINNING) or end (_END). */
static void
ask_offsets(KafkaLook *asked, int64_t which)
{
	BrokerLook *look = asked->result;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(16);

	for (int i = 0; i < look->ntopics; i++)
		for (int p = 0; p < look->topics[i].partitions; p++)
			if (look->topics[i].high[p] != BROKER_NO_LEADER)
				rd_kafka_topic_partition_list_add(list, look->topics[i].name, p)->offset = which;
	if (list->cnt > 0 && !rd_kafka_offsets_for_times(asked->rk, list, asked->timeout_ms))
		for (int i = 0; i < look->ntopics; i++)
			for (int p = 0; p < look->topics[i].partitions; p++)
			{
				BrokerLookTopic *topic = &look->topics[i];
				rd_kafka_topic_partition_t *answer =
				rd_kafka_topic_partition_list_find(list, topic->name, p);

				if (answer && !answer->err && answer->offset >= 0)
					(which == RD_KAFKA_OFFSET_END ? topic->high : topic->low)[p] = answer->offset;
			}
	rd_kafka_topic_partition_list_destroy(list);
}

/* Main of the thread. */
static void *
look_main(void *arg)
{
	KafkaLook  *asked = arg;
	ssize_t		unused;

	asked->result->answered = ask_topics(asked);
	if (asked->result->answered)
	{
		ask_offsets(asked, RD_KAFKA_OFFSET_BEGINNING);
		asked->result->asked_ms = now_ms();
		ask_offsets(asked, RD_KAFKA_OFFSET_END);
	}
	__atomic_store_n(&asked->done, 1, __ATOMIC_RELEASE);
	unused = write(asked->wake, "l", 1);
	(void) unused;				/* full, so it is readable */
	return NULL;
}

/* Begin to look, in a thread; NULL: that could not be made. */
KafkaLook *
kafka_look_begin(rd_kafka_t *rk, int wake, const char *const *topics, int ntopics, int timeout_ms)
{
	KafkaLook  *asked = calloc(1, sizeof(KafkaLook));
	sigset_t	all,
				before;
	int			error;

	if (asked == NULL || (asked->result = make_result(topics, ntopics)) == NULL)
	{
		free(asked);
		return NULL;
	}
	asked->rk = rk;
	asked->wake = wake;
	asked->timeout_ms = timeout_ms;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	error = pthread_create(&asked->thread, NULL, look_main, asked);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error)
	{
		broker_look_free(asked->result);
		free(asked);
		return NULL;
	}
	return asked;
}

/* Whether kafka_look_end() would not wait. */
bool
kafka_look_done(KafkaLook *asked)
{
	return __atomic_load_n(&asked->done, __ATOMIC_ACQUIRE) != 0;
}

/* Wait for the end of a look, and return what it found. */
BrokerLook *
kafka_look_end(KafkaLook *asked)
{
	BrokerLook *result = asked->result;

	pthread_join(asked->thread, NULL);
	free(asked);
	return result;
}
