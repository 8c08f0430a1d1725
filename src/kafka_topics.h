/*
 * kafka_topics.h
 *		Questions for topics, asked in a thread of their own.
 */
#ifndef MSGSYS_KAFKA_TOPICS_H
#define MSGSYS_KAFKA_TOPICS_H

#include <librdkafka/rdkafka.h>

#include "broker.h"

typedef struct TopicAsker TopicAsker;

/* What an error says of a topic; kafka.c has it. */
typedef BrokerOutcome (*TopicOutcome) (rd_kafka_resp_err_t error);

/* The asker of a producer; wake_fd gets a byte when there is an answer.  NULL: out of memory. */
extern TopicAsker *topic_asker_open(rd_kafka_t *rk, int wake_fd, TopicOutcome outcome);

/* see broker_ask_topic() and broker_topic_answer() */
extern bool topic_asker_ask(TopicAsker *asker, const char *topic, bool want_ends, int timeout_ms);
extern bool topic_asker_answer(TopicAsker *asker, BrokerTopicAnswer *answer);

/* Ask nothing more; does not wait. */
extern void topic_asker_stop(TopicAsker *asker);

/* Wait for the question under way, and free all; before the library's handle is destroyed. */
extern void topic_asker_close(TopicAsker *asker);

#endif							/* MSGSYS_KAFKA_TOPICS_H */
