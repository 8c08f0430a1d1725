/*
 * topic.c
 *		Makes and deletes Kafka topics, and forbids to write to them, for tests:
 *		topic BOOTSTRAP create NAME PARTITIONS [config=value ...] (as many replicas as the cluster's default)
 *		topic BOOTSTRAP place NAME BROKER (one partition, on this broker alone)
 *		topic BOOTSTRAP delete NAME
 *		topic BOOTSTRAP grow NAME PARTITIONS
 *		topic BOOTSTRAP trim NAME [PARTITIONS] (all records of partition 0 go, or of so many)
 *		topic BOOTSTRAP deny NAME
 *		topic BOOTSTRAP allow NAME
 */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT 20000

static rd_kafka_t *handle;
static rd_kafka_queue_t *queue;

static void
fail(const char *what, const char *why)
{
	fprintf(stderr, "topic: %s: %s\n", what, why);
	exit(1);
}

/* Wait for what the request that was just made has led to. */
static rd_kafka_event_t *
answer(const char *name)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, TIMEOUT);

	if (event == NULL || rd_kafka_event_error(event))
		fail(name, event ? rd_kafka_event_error_string(event) : "no answer");
	return event;
}

static void
check_topic(const char *name, const rd_kafka_topic_result_t **results, size_t n)
{
	if (n != 1 || rd_kafka_topic_result_error(results[0]) != RD_KAFKA_RESP_ERR_NO_ERROR)
		fail(name, n == 1 ? rd_kafka_topic_result_error_string(results[0]) : "no result");
}

/* Make a topic; broker: the one that is to have it alone, or -1. */
static void
create(const char *name, int partitions, int32_t broker, char **configs, int nconfigs)
{
	char		err[512];
	size_t		n;
	const rd_kafka_topic_result_t **results;
	rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(name, partitions, -1, err, sizeof(err));

	if (topic == NULL)
		fail(name, err);
	if (broker >= 0 && rd_kafka_NewTopic_set_replica_assignment(topic, 0, &broker, 1, err, sizeof(err)))
		fail(name, err);
	for (int i = 0; i < nconfigs; i++)
	{
		char	   *equals = strchr(configs[i], '=');

		if (equals == NULL)
			fail(configs[i], "not config=value");
		*equals = '\0';
		rd_kafka_NewTopic_set_config(topic, configs[i], equals + 1);
	}
	rd_kafka_CreateTopics(handle, &topic, 1, NULL, queue);
	results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(answer(name)), &n);
	check_topic(name, results, n);
}

static void
delete(const char *name)
{
	size_t		n;
	const rd_kafka_topic_result_t **results;
	rd_kafka_DeleteTopic_t *topic = rd_kafka_DeleteTopic_new(name);

	rd_kafka_DeleteTopics(handle, &topic, 1, NULL, queue);
	results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(answer(name)), &n);
	check_topic(name, results, n);
}

/* Give a topic more partitions. */
static void
grow(const char *name, int partitions)
{
	char		err[512];
	size_t		n;
	const rd_kafka_topic_result_t **results;
	rd_kafka_NewPartitions_t *more = rd_kafka_NewPartitions_new(name, partitions, err, sizeof(err));

	if (more == NULL)
		fail(name, err);
	rd_kafka_CreatePartitions(handle, &more, 1, NULL, queue);
	results = rd_kafka_CreatePartitions_result_topics(rd_kafka_event_CreatePartitions_result(answer(name)), &n);
	check_topic(name, results, n);
}

/* Remove all records of the first partitions, as retention does. */
static void
trim(const char *name, int partitions)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
	const rd_kafka_topic_partition_list_t *result;
	rd_kafka_DeleteRecords_t *records;

	for (int i = 0; i < partitions; i++)
		rd_kafka_topic_partition_list_add(list, name, i)->offset = RD_KAFKA_OFFSET_END;
	records = rd_kafka_DeleteRecords_new(list);
	rd_kafka_DeleteRecords(handle, &records, 1, NULL, queue);
	result = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(answer(name)));
	if (result == NULL || result->cnt != partitions)
		fail(name, "not trimmed");
	for (int i = 0; i < partitions; i++)
		if (result->elems[i].err)
			fail(name, rd_kafka_err2str(result->elems[i].err));
}

/* Forbid everybody to write to a topic, or lift that again. */
static void
forbid(const char *name, int on)
{
	char		err[512];
	size_t		n;
	rd_kafka_AclBinding_t *acl;

	acl = rd_kafka_AclBinding_new(RD_KAFKA_RESOURCE_TOPIC, name, RD_KAFKA_RESOURCE_PATTERN_LITERAL, "User:*", "*",
								  RD_KAFKA_ACL_OPERATION_WRITE, RD_KAFKA_ACL_PERMISSION_TYPE_DENY, err, sizeof(err));
	if (acl == NULL)
		fail(name, err);
	if (on)
	{
		const rd_kafka_acl_result_t **results;

		rd_kafka_CreateAcls(handle, &acl, 1, NULL, queue);
		results = rd_kafka_CreateAcls_result_acls(rd_kafka_event_CreateAcls_result(answer(name)), &n);
		if (n != 1 || rd_kafka_acl_result_error(results[0]) != NULL)
			fail(name, n == 1 ? rd_kafka_error_string(rd_kafka_acl_result_error(results[0])) : "no result");
	}
	else
	{
		const rd_kafka_DeleteAcls_result_response_t **responses;

		rd_kafka_DeleteAcls(handle, &acl, 1, NULL, queue);
		responses = rd_kafka_DeleteAcls_result_responses(rd_kafka_event_DeleteAcls_result(answer(name)), &n);
		if (n == 1)
			rd_kafka_DeleteAcls_result_response_matching_acls(responses[0], &n);
		if (n != 1)
			fail(name, "was not forbidden");
	}
}

int
main(int argc, char **argv)
{
	char		err[512];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	if (argc < 4)
		fail("usage", "topic BOOTSTRAP create|place|delete|grow|trim|deny|allow NAME [NUMBER [config=value ...]]");
	rd_kafka_conf_set(conf, "bootstrap.servers", argv[1], err, sizeof(err));
	handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, err, sizeof(err));
	if (handle == NULL)
		fail("client", err);
	queue = rd_kafka_queue_new(handle);
	if (strcmp(argv[2], "create") == 0)
		create(argv[3], argc > 4 ? atoi(argv[4]) : 1, -1, argv + 5, argc - 5);
	else if (strcmp(argv[2], "place") == 0)
		create(argv[3], 1, argc > 4 ? atoi(argv[4]) : 1, NULL, 0);
	else if (strcmp(argv[2], "delete") == 0)
		delete(argv[3]);
	else if (strcmp(argv[2], "grow") == 0)
		grow(argv[3], argc > 4 ? atoi(argv[4]) : 2);
	else if (strcmp(argv[2], "trim") == 0)
		trim(argv[3], argc > 4 ? atoi(argv[4]) : 1);
	else
		forbid(argv[3], strcmp(argv[2], "deny") == 0);
	return 0;
}
