/*
 * mockbroker.c
 *		librdkafka's mock cluster as a program: stands in for Apache Kafka in the
 *		demo, where that cannot be had, and in tests of what a real one hardly does.
 *
 * mockbroker [PARTITIONS [TOPIC]]: prints its address, runs until it is killed.  Each
 * number on a line of its input is the error of one more answer to a producer.
 */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define KEY_PRODUCE	0			/* of the Kafka protocol */

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
		rd_kafka_mock_push_request_errors(cluster, KEY_PRODUCE, 1, (rd_kafka_resp_err_t) error);
	for (;;)
		pause();
}
