/*
 * kafka_limits.h
 *		What a Kafka topic takes at most.
 */
#ifndef MSGSYS_KAFKA_LIMITS_H
#define MSGSYS_KAFKA_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include <librdkafka/rdkafka.h>

/* Ask for the max.message.bytes of a topic; does not block.  The answer comes to the queue, which is for it alone. */
extern void kafka_ask_limit(rd_kafka_t *rk, const char *topic, int timeout_ms, rd_kafka_queue_t *queue);

/* Take the answer: *limit is 0 where the broker does not tell.  False: it has not come. */
extern bool kafka_take_limit(rd_kafka_queue_t *queue, int64_t *limit);

#endif							/* MSGSYS_KAFKA_LIMITS_H */
