/*
 * latency.c
 *		latency RATE SECONDS BROKERS TOPIC: create messages at a rate, and measure how long after its commit each is seen by a
 *		Kafka consumer. Prints p50, p99, the maximum in ms, how many, and the real rate. libpq's environment says where.
 *
 * A time begins just before COMMIT is sent, so that the commit itself, with its fsync, is in it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE			/* memmem */
#endif

#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS	4
#define GIVE_UP	30.0			/* s after the last message */

static int	total;
static double rate;
static double *committed_at;	/* by number; 0: not yet */
static double *seen_at;

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void
fail(const char *what, const char *why)
{
	fprintf(stderr, "latency: %s: %s\n", what, why);
	exit(1);
}

static void
execute(PGconn *connection, const char *sql)
{
	PGresult   *result = PQexec(connection, sql);

	if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
		fail(sql, PQerrorMessage(connection));
	PQclear(result);
}

/* Create every THREADS-th message, each at its time. */
static void *
create(void *arg)
{
	int			first = (int) (intptr_t) arg;
	PGconn	   *connection = PQconnectdb("");
	double		begin = now() + 0.1;

	if (PQstatus(connection) != CONNECTION_OK)
		fail("connection", PQerrorMessage(connection));
	execute(connection, "PREPARE one (int) AS INSERT INTO messages (channel, payload) "
			"VALUES ('bench', jsonb_build_object('n', $1, 'customer', 'c-100234', 'amount', '99.50', 'currency', 'EUR', 'state', 'paid', 'shop', 'www.example.com/eu'))");
	for (int i = first; i < total; i += THREADS)
	{
		double		wait = begin + i / rate - now();
		char		sql[64];

		if (wait > 0)
		{
			struct timespec pause = {(time_t) wait, (long) ((wait - (time_t) wait) * 1e9)};

			nanosleep(&pause, NULL);
		}
		snprintf(sql, sizeof(sql), "BEGIN; EXECUTE one(%d)", i);
		execute(connection, sql);
		committed_at[i] = now();
		execute(connection, "COMMIT");
	}
	PQfinish(connection);
	return NULL;
}

static rd_kafka_t *
consumer(const char *brokers, const char *topic)
{
	char		err[512];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *handle;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(4);
	const struct rd_kafka_metadata *metadata;
	rd_kafka_topic_t *one;

	if (rd_kafka_conf_set(conf, "bootstrap.servers", brokers, err, sizeof(err)) ||
		rd_kafka_conf_set(conf, "group.id", "latency", err, sizeof(err)) ||
		rd_kafka_conf_set(conf, "enable.auto.commit", "false", err, sizeof(err)))
		fail("configuration", err);
	handle = rd_kafka_new(RD_KAFKA_CONSUMER, conf, err, sizeof(err));
	if (handle == NULL)
		fail("consumer", err);
	rd_kafka_poll_set_consumer(handle);
	one = rd_kafka_topic_new(handle, topic, NULL);
	if (rd_kafka_metadata(handle, 0, one, &metadata, 10000) || metadata->topic_cnt != 1)
		fail("metadata", topic);
	for (int p = 0; p < metadata->topics[0].partition_cnt; p++)
	{
		int64_t		low;
		int64_t		high;

		if (rd_kafka_query_watermark_offsets(handle, topic, p, &low, &high, 10000))
			fail("offsets", topic);
		rd_kafka_topic_partition_list_add(list, topic, p)->offset = high;
	}
	rd_kafka_assign(handle, list);
	return handle;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

int
main(int argc, char **argv)
{
	pthread_t	threads[THREADS];
	rd_kafka_t *handle;
	int			seen = 0;
	double		begin;
	double		give_up;

	if (argc != 5)
		fail("usage", "latency RATE SECONDS BROKERS TOPIC");
	rate = atof(argv[1]);
	total = (int) (rate * atof(argv[2]));
	committed_at = calloc(total, sizeof(double));
	seen_at = calloc(total, sizeof(double));
	handle = consumer(argv[3], argv[4]);
	begin = now();
	give_up = begin + total / rate + GIVE_UP;
	for (intptr_t t = 0; t < THREADS; t++)
		if (pthread_create(&threads[t], NULL, create, (void *) t))
			fail("thread", "cannot be made");
	while (seen < total)
	{
		rd_kafka_message_t *message = rd_kafka_consumer_poll(handle, 100);
		double		at = now();
		const char *number;
		int			i;

		if (message == NULL || message->err)
		{
			if (at > give_up)
				fail("some messages", "were not seen");
			if (message)
				rd_kafka_message_destroy(message);
			continue;
		}
		number = memmem(message->payload, message->len, "\"n\": ", 5);
		i = number ? atoi(number + 5) : -1;
		rd_kafka_message_destroy(message);
		if (i < 0 || i >= total || seen_at[i] > 0)
			continue;
		seen_at[i] = at;
		seen++;
	}
	for (int t = 0; t < THREADS; t++)
		pthread_join(threads[t], NULL);
	begin = now() - begin;
	for (int i = 0; i < total; i++)
		seen_at[i] -= committed_at[i];
	qsort(seen_at, total, sizeof(double), compare);
	printf("%.3f %.3f %.3f %d %.1f\n", seen_at[total / 2] * 1000, seen_at[(int) (total * 0.99)] * 1000,
		   seen_at[total - 1] * 1000, total, total / begin);
	return 0;
}
