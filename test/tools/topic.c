/*
 * topic.c
 *		Makes and deletes Kafka topics, for tests:
 *		topic BOOTSTRAP create NAME PARTITIONS [config=value ...]
 *		topic BOOTSTRAP delete NAME
 */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT 20000

static int
fail(const char *what, const char *why)
{
	fprintf(stderr, "topic: %s: %s\n", what, why);
	return 1;
}

int
main(int argc, char **argv)
{
	char		err[512];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *handle;
	rd_kafka_queue_t *queue;
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		n = 0;

	if (argc < 4)
		return fail("usage", "topic BOOTSTRAP create|delete NAME [PARTITIONS [config=value ...]]");
	rd_kafka_conf_set(conf, "bootstrap.servers", argv[1], err, sizeof(err));
	handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, err, sizeof(err));
	if (handle == NULL)
		return fail("client", err);
	queue = rd_kafka_queue_new(handle);
	if (strcmp(argv[2], "create") == 0)
	{
		rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(argv[3], argc > 4 ? atoi(argv[4]) : 1, 1,
														   err, sizeof(err));

		if (topic == NULL)
			return fail(argv[3], err);
		for (int i = 5; i < argc; i++)
		{
			char	   *equals = strchr(argv[i], '=');

			if (equals == NULL)
				return fail(argv[i], "not config=value");
			*equals = '\0';
			rd_kafka_NewTopic_set_config(topic, argv[i], equals + 1);
		}
		rd_kafka_CreateTopics(handle, &topic, 1, NULL, queue);
		event = rd_kafka_queue_poll(queue, TIMEOUT);
		if (event == NULL || rd_kafka_event_error(event))
			return fail(argv[3], event ? rd_kafka_event_error_string(event) : "no answer");
		results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
	}
	else
	{
		rd_kafka_DeleteTopic_t *topic = rd_kafka_DeleteTopic_new(argv[3]);

		rd_kafka_DeleteTopics(handle, &topic, 1, NULL, queue);
		event = rd_kafka_queue_poll(queue, TIMEOUT);
		if (event == NULL || rd_kafka_event_error(event))
			return fail(argv[3], event ? rd_kafka_event_error_string(event) : "no answer");
		results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &n);
	}
	if (n == 1 && rd_kafka_topic_result_error(results[0]) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return fail(argv[3], rd_kafka_topic_result_error_string(results[0]));
	return 0;
}
