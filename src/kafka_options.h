/*
 * kafka_options.h
 *		The settings of a Kafka client.
 */
#ifndef MSGSYS_KAFKA_OPTIONS_H
#define MSGSYS_KAFKA_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include <librdkafka/rdkafka.h>

#include "broker.h"

#define FETCH_AHEAD_RECORDS	30000	/* that a consumer may hold unread */
#define FETCH_AHEAD_KB		16384

/*
 * Set all that a handle needs.  *must_hurry is set for a consumer whose library
 * is slow to fetch again after it has had enough.  Returns false, with words in
 * err, when something of the configuration is wrong.
 */
extern bool kafka_configure(rd_kafka_conf_t *conf, const BrokerConfig *config,
							bool *must_hurry, char *err, size_t errlen);

#endif							/* MSGSYS_KAFKA_OPTIONS_H */
