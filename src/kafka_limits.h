/*
 * kafka_limits.h
 *		What a Kafka topic takes at most.
 */
#ifndef MSGSYS_KAFKA_LIMITS_H
#define MSGSYS_KAFKA_LIMITS_H

#include <stdint.h>

#include <librdkafka/rdkafka.h>

/*
 * The largest batch of records that a topic takes, in bytes; asks the broker in
 * at most timeout_ms.  0 when it does not tell: not there, or not allowed.
 */
extern int64_t kafka_topic_max_bytes(rd_kafka_t *rk, const char *topic, int timeout_ms);

#endif							/* MSGSYS_KAFKA_LIMITS_H */
