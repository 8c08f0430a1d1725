/*
 * bare.c
 *		A producer of librdkafka and nothing else, to compare with: what it needs to get over a fault, the brokers need.
 *		bare BROKERS RATE TOPIC[,TOPIC ...] FILE [name=value ...]
 *		Produces RATE records a second to each topic, until SIGTERM; then it waits for what is under way.
 *
 * It promises what msgsys does (idempotent, acks=all), and has its settings of the network. Each report is a line of FILE:
 *		TOPIC NUMBER PRODUCED REPORTED PARTITION OFFSET ERROR
 * with times in seconds since 1970; a record that was not confirmed has the offset -1 and librdkafka's name of the error, else 0.
 */
#include <librdkafka/rdkafka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KEYS		100
#define TOPICS		8
#define FLUSH_MS	60000

typedef struct Record
{
	int			number;
	double		produced;
} Record;

static const char *const settings[][2] = {
	{"enable.idempotence", "true"},
	{"acks", "all"},
	{"compression.codec", "lz4"},
	{"partitioner", "murmur2_random"},
	{"linger.ms", "0"},
	{"batch.size", "131072"},
	{"request.timeout.ms", "10000"},
	{"socket.timeout.ms", "10000"},
	{"socket.connection.setup.timeout.ms", "5000"},
	{"socket.nagle.disable", "true"},
	{"log.connection.close", "false"},
	{"reconnect.backoff.ms", "100"},
	{"reconnect.backoff.max.ms", "2000"},
	{"topic.metadata.refresh.fast.interval.ms", "100"},
	{"topic.metadata.propagation.max.ms", "500"},
	{"topic.metadata.refresh.interval.ms", "3000"},
};

static volatile sig_atomic_t stop = 0;
static FILE *out;

static void
end(int signal)
{
	(void) signal;
	stop = 1;
}

static void
fail(const char *what, const char *why)
{
	fprintf(stderr, "bare: %s: %s\n", what, why);
	exit(1);
}

/* The time by a clock. */
static double
now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* What became of a record. */
static void
reported(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	Record	   *record = message->_private;

	(void) rk;
	(void) opaque;
	fprintf(out, "%s %d %.6f %.6f %d %lld %s\n", rd_kafka_topic_name(message->rkt), record->number, record->produced,
			now(CLOCK_REALTIME), message->partition, message->err ? -1LL : (long long) message->offset,
			message->err ? rd_kafka_err2name(message->err) : "0");
	free(record);
}

static rd_kafka_t *
open_producer(const char *brokers, char **more, int nmore)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	char		err[512];

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		if (rd_kafka_conf_set(conf, settings[i][0], settings[i][1], err, sizeof(err)) != RD_KAFKA_CONF_OK)
			fail(settings[i][0], err);
	for (int i = 0; i < nmore; i++)
	{
		char		name[128];
		size_t		length = strcspn(more[i], "=");

		snprintf(name, sizeof(name), "%.*s", (int) length, more[i]);
		if (more[i][length] == '\0' || rd_kafka_conf_set(conf, name, more[i] + length + 1, err, sizeof(err)) != RD_KAFKA_CONF_OK)
			fail(more[i], err);
	}
	if (rd_kafka_conf_set(conf, "bootstrap.servers", brokers, err, sizeof(err)) != RD_KAFKA_CONF_OK)
		fail(brokers, err);
	rd_kafka_conf_set_dr_msg_cb(conf, reported);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, err, sizeof(err));
	if (rk == NULL)
		fail("producer", err);
	return rk;
}

/* Hand over a record, if there is room. */
static void
produce(rd_kafka_t *rk, const char *topic, int number)
{
	Record	   *record = malloc(sizeof(Record));
	char		key[32];
	char		value[32];

	record->number = number;
	record->produced = now(CLOCK_REALTIME);
	snprintf(key, sizeof(key), "key %d", number % KEYS);
	snprintf(value, sizeof(value), "%d", number);
	if (rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(key, strlen(key)),
						  RD_KAFKA_V_VALUE(value, strlen(value)), RD_KAFKA_V_OPAQUE(record), RD_KAFKA_V_END))
		free(record);
}

/* Wait for what is under way, and end. */
static void
close_producer(rd_kafka_t *rk, int timeout_ms)
{
	rd_kafka_flush(rk, timeout_ms);
	rd_kafka_purge(rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	rd_kafka_flush(rk, 1000);
	rd_kafka_destroy(rk);
}

int
main(int argc, char **argv)
{
	const char *topics[TOPICS];
	int			ntopics = 0;
	double		pause;
	double		next;
	rd_kafka_t *rk;
	char		err[512];

	if (argc < 5 || atof(argv[2]) <= 0)
		fail("usage", "bare BROKERS RATE TOPIC[,TOPIC ...] FILE [name=value ...]");
	pause = 1 / atof(argv[2]);
	for (char *topic = strtok(argv[3], ","); topic && ntopics < TOPICS; topic = strtok(NULL, ","))
		topics[ntopics++] = topic;
	out = fopen(argv[4], "w");
	if (out == NULL)
		fail(argv[4], "cannot be written");
	setvbuf(out, NULL, _IOLBF, 0);
	signal(SIGTERM, end);
	rk = open_producer(argv[1], argv + 5, argc - 5);
	next = now(CLOCK_MONOTONIC);
	for (int number = 1; !stop; number++)
	{
		double		left;

		for (int i = 0; i < ntopics; i++)
			produce(rk, topics[i], number);
		next += pause;
		do
		{
			left = next - now(CLOCK_MONOTONIC);
			rd_kafka_poll(rk, left > 0 ? (int) (left * 1000 + 0.999) : 0);
		} while (!stop && left > 0);
		/* an idempotent producer ends with some errors: a program makes another one */
		if (rd_kafka_fatal_error(rk, err, sizeof(err)))
		{
			fprintf(stderr, "bare: %s\n", err);
			close_producer(rk, 0);
			rk = open_producer(argv[1], argv + 5, argc - 5);
		}
	}
	close_producer(rk, FLUSH_MS);
	fclose(out);
	return 0;
}
