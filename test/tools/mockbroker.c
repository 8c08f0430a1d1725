/*
 * mockbroker.c
 *		librdkafka's mock cluster as a program: stands in for Apache Kafka in the
 *		demo, where that cannot be had, and in tests of what a real one hardly does.
 *
 * mockbroker [PARTITIONS [TOPIC]]: prints its address, runs until it is killed.  A
 * number on a line of its input is the error of every answer to a producer from now on;
 * meanwhile no new producer gets an identity.  0: everything is accepted again.  1000 and more: the
 * thousands are how many answers have that error, and everything else is accepted.  -1: the
 * topic's first partition has no leader from now on; -2: it has one again.
 */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* of the Kafka protocol */
#define KEY_PRODUCE				0
#define KEY_INIT_PRODUCER_ID	22
#define NOT_YET					RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS

#define MANY					10000	/* answers, more than any test waits for */

/* Answer a kind of request so often with this error only; 0: as usual. */
static void
answer(rd_kafka_mock_cluster_t *cluster, int16_t key, rd_kafka_resp_err_t error, int times)
{
	static rd_kafka_resp_err_t errors[MANY];

	rd_kafka_mock_clear_request_errors(cluster, key);
	if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	for (int i = 0; i < times; i++)
		errors[i] = error;
	rd_kafka_mock_push_request_errors_array(cluster, key, times, errors);
}

int
main(int argc, char **argv)
{
	char		err[256];
	int			error;
	rd_kafka_t *handle = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), err, sizeof(err));
	rd_kafka_mock_cluster_t *cluster = handle ? rd_kafka_mock_cluster_new(handle, 1) : NULL;

	if (cluster == NULL)
	{
		fprintf(stderr, "could not make a mock cluster: %s\n", err);
		return 1;
	}
	rd_kafka_mock_topic_create(cluster, argc > 2 ? argv[2] : "demo", argc > 1 ? atoi(argv[1]) : 4, 1);
	printf("%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
	fclose(stdout);
	while (scanf("%d", &error) == 1)
	{
		if (error < 0)
		{
			rd_kafka_mock_partition_set_leader(cluster, argc > 2 ? argv[2] : "demo", 0, error == -1 ? -1 : 1);
			continue;
		}
		if (error > 0 && error < 1000)
			answer(cluster, KEY_INIT_PRODUCER_ID, NOT_YET, MANY);
		answer(cluster, KEY_PRODUCE, (rd_kafka_resp_err_t) (error % 1000), error < 1000 ? MANY : error / 1000);
		if (error == 0 || error >= 1000)
			answer(cluster, KEY_INIT_PRODUCER_ID, RD_KAFKA_RESP_ERR_NO_ERROR, MANY);
	}
	for (;;)
		pause();
}
