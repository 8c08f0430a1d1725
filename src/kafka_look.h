/*
 * kafka_look.h
 *		Looks at topics beside the work: for kafka.c.
 */
#ifndef MSGSYS_KAFKA_LOOK_H
#define MSGSYS_KAFKA_LOOK_H

#include <stdbool.h>

#include <librdkafka/rdkafka.h>

#include "broker.h"

typedef struct KafkaLook KafkaLook;

extern KafkaLook *kafka_look_begin(rd_kafka_t *rk, int wake, const char *const *topics,
								   int ntopics, int timeout_ms);
extern bool kafka_look_done(KafkaLook *asked);
extern BrokerLook *kafka_look_end(KafkaLook *asked);

#endif							/* MSGSYS_KAFKA_LOOK_H */
