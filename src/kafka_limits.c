/*
 * kafka_limits.c
 *		What a Kafka topic takes at most.
 */
#include <stdlib.h>
#include <string.h>

#include "kafka_limits.h"

#define LIMIT_NAME	"max.message.bytes"

/* The limit in the answer to a question for a topic's configuration; 0: not there. */
static int64_t
limit_in(const rd_kafka_DescribeConfigs_result_t *answer)
{
	const rd_kafka_ConfigResource_t **topics;
	const rd_kafka_ConfigEntry_t **entries;
	size_t		ntopics;
	size_t		nentries;

	topics = rd_kafka_DescribeConfigs_result_resources(answer, &ntopics);
	if (ntopics != 1 || rd_kafka_ConfigResource_error(topics[0]) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return 0;
	entries = rd_kafka_ConfigResource_configs(topics[0], &nentries);
	for (size_t i = 0; i < nentries; i++)
	{
		const char *value = rd_kafka_ConfigEntry_value(entries[i]);

		if (value && strcmp(rd_kafka_ConfigEntry_name(entries[i]), LIMIT_NAME) == 0)
			return strtoll(value, NULL, 10);
	}
	return 0;
}

/* see kafka_limits.h */
void
kafka_ask_limit(rd_kafka_t *rk, const char *topic, int timeout_ms, rd_kafka_queue_t *queue)
{
	rd_kafka_ConfigResource_t *resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	char		unused[128];

	if (resource && rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, unused,
															  sizeof(unused)) == RD_KAFKA_RESP_ERR_NO_ERROR)
		rd_kafka_DescribeConfigs(rk, &resource, 1, options, queue);
	if (resource)
		rd_kafka_ConfigResource_destroy(resource);
	rd_kafka_AdminOptions_destroy(options);
}

/* see kafka_limits.h */
bool
kafka_take_limit(rd_kafka_queue_t *queue, int64_t *limit)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 0);

	if (event == NULL)
		return false;
	*limit = 0;
	if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR_NO_ERROR)
		*limit = limit_in(rd_kafka_event_DescribeConfigs_result(event));
	rd_kafka_event_destroy(event);
	return true;
}
