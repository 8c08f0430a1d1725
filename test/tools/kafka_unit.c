/*
 * kafka_unit.c
 *		Tests of kafka.c alone, against librdkafka's mock cluster.
 *
 * Needs neither PostgreSQL nor a broker; test/tools/Makefile builds it.
 * Prints TAP; the exit status is 1 if a test failed.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "broker.h"
#include "tap.h"

#define KEY_PRODUCE			0
#define SLOW_RESOLVER_MS	2500

static rd_kafka_t *mock_handle;
static rd_kafka_mock_cluster_t *mock;

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void
sleep_ms(int ms)
{
	usleep((useconds_t) ms * 1000);
}

/*
 * Stands before libc's: a name server that does not answer.  (librdkafka asks
 * in a thread of its own.)
 */
int
getaddrinfo(const char *node, const char *service,
			const struct addrinfo *hints, struct addrinfo **result)
{
	static int	(*real) (const char *, const char *, const struct addrinfo *,
						 struct addrinfo **);

	if (node && strcmp(node, "silent.invalid") == 0)
	{
		sleep_ms(SLOW_RESOLVER_MS);
		return EAI_AGAIN;
	}
	if (!real)
		*(void **) &real = dlsym(RTLD_NEXT, "getaddrinfo");
	return real(node, service, hints, result);
}

/* Is the descriptor readable within a time? */
static bool
readable(const Broker *broker, int timeout_ms)
{
	struct pollfd pfd = {.fd = broker_fd(broker), .events = POLLIN};

	return poll(&pfd, 1, timeout_ms) == 1;
}

/* Open a handle on the mock cluster; extra options or NULL. */
static Broker *
open_mock(BrokerRole role, const char *options)
{
	BrokerConfig config = {
		.role = role,
		.servers = rd_kafka_mock_cluster_bootstraps(mock),
		.client_id = "unit",
		.group = "unit",
		.options = options,
		.max_message_bytes = 1000000,
		.max_queued = 20000
	};
	char		err[256] = "";
	Broker	   *broker = broker_open(&config, err, sizeof(err));

	if (!broker)
		diag("broker_open: %s", err);
	return broker;
}

/* Try to open with settings that are wrong; returns the words. */
static const char *
open_error_at(const char *servers, const char *options, const char *options_file)
{
	static char err[512];
	BrokerConfig config = {
		.role = BROKER_PRODUCER,
		.servers = servers,
		.options = options,
		.options_file = options_file
	};
	Broker	   *broker;

	err[0] = '\0';
	broker = broker_open(&config, err, sizeof(err));
	if (broker)
	{
		broker_close(broker);
		return "";
	}
	return err;
}

static const char *
open_error(const char *options, const char *options_file)
{
	return open_error_at("127.0.0.1:1", options, options_file);
}

/* Close, and say how long it took. */
static int
close_ms(Broker *broker)
{
	int64_t		start = now_ms();

	broker_close(broker);
	return (int) (now_ms() - start);
}

static BrokerOutcome
publish(Broker *broker, const char *topic, const char *key, const char *value,
		void *opaque)
{
	char		err[256] = "";
	BrokerHeader headers[] = {
		{"ce_id", "1", 1}, {"twice", "first", 5}, {"twice", "second", 6}, {"empty", "", 0}
	};
	BrokerRecord record = {
		.topic = topic,
		.key = key, .key_length = key ? strlen(key) : 0,
		.value = value, .value_length = value ? strlen(value) : 0,
		.headers = headers, .nheaders = 4,
		.opaque = opaque
	};

	return broker_publish(broker, &record, err, sizeof(err));
}

/* Wait for a number of reports; counts those of each outcome. */
static int
wait_reports(Broker *broker, int wanted, int at_once, int timeout_ms, int *outcomes,
			 BrokerReport *last)
{
	int64_t		limit = now_ms() + timeout_ms;
	BrokerReport reports[256];
	int			seen = 0;

	memset(outcomes, 0, sizeof(int) * (BROKER_FATAL + 1));
	while (seen < wanted && now_ms() < limit)
	{
		int			n;

		if (!readable(broker, (int) (limit - now_ms())))
			break;
		n = broker_reports(broker, reports, at_once);
		for (int i = 0; i < n; i++)
		{
			outcomes[reports[i].outcome]++;
			if (last)
				*last = reports[i];
		}
		seen += n;
	}
	return seen;
}

/* Wait for a health. */
static bool
wait_health(Broker *broker, BrokerHealth health, int timeout_ms)
{
	int64_t		limit = now_ms() + timeout_ms;
	BrokerReport report;

	while (broker_health(broker, NULL) != health && now_ms() < limit)
	{
		broker_reports(broker, &report, 1);
		sleep_ms(20);
	}
	return broker_health(broker, NULL) == health;
}

static void
test_options(void)
{
	char		path[] = "/tmp/kafka_unit.XXXXXX";
	int			fd = mkstemp(path);
	const char *text = "# a comment, with a comma\n  client.id = x,y \r\n\nsasl.password=a\\,b\n";
	const char *bad = "sasl.password=hunter2\nno.such=1\n";
	const char *servers[] = {"localhost", "a:1, b:65535,", "[::1]:1", "[::1]", "::1", "PLAINTEXT://a:1/", "SASL_ssl://a", ":1", "a:", NULL};
	const char *not_servers[] = {"http://a:1", "://a:1", "a:0", "a:65536", "a:b", "a:1,b:99999", "[::1]:x", "a:1x", NULL};

	ok(strstr(open_error("no.such.option=1", NULL), "no.such.option"), "unknown option is named");
	ok(strstr(open_error("linger.ms=soon", NULL), "linger.ms"), "bad value is named: %s", open_error("linger.ms=soon", NULL));
	ok(*open_error("linger.ms=5, client.id=a\\,b\n# x, y=z\ncompression.codec=none,", NULL) == '\0',
	   "pairs, escapes, comments and empty pairs");
	ok(*open_error("novalue", NULL) && !strstr(open_error("novalue", NULL), "novalue"),
	   "a pair without = is refused");
	ok(!strstr(open_error("sasl.password=a,hunter2=x", NULL), "hunter2") &&
	   *open_error("sasl.password=a,hunter2=x", NULL),
	   "a comma in a password does not show the rest: %s", open_error("sasl.password=a,hunter2=x", NULL));
	ok(!strstr(open_error("sasl.password=a,hunter2", NULL), "hunter2") &&
	   *open_error("sasl.password=a,hunter2", NULL), "nor without =");
	ok(!strstr(open_error("security.protocol=ssl,ssl.key.pem=hunter2", NULL), "hunter2") &&
	   *open_error("security.protocol=ssl,ssl.key.pem=hunter2", NULL), "a bad key is not shown");
	ok(strstr(open_error("acks=1", NULL), "acks") && strstr(open_error("acks=0", NULL), "acks"),
	   "acks=1: %s", open_error("acks=1", NULL));
	ok(*open_error("acks=-1", NULL) == '\0', "acks=-1 is acks=all");
	ok(*open_error("enable.idempotence=false", NULL) && *open_error("ENABLE.IDEMPOTENCE=0", NULL),
	   "enable.idempotence=false is refused");
	ok(*open_error("internal.termination.signal=10", NULL) && *open_error("transactional.id=a", NULL) &&
	   *open_error("enable.auto.commit=true", NULL) && *open_error("dr_cb=1", NULL) &&
	   *open_error("delivery.report.only.error=true", NULL) && *open_error("log.queue=false", NULL),
	   "what would break the contract is refused");
	ok(*open_error("acks=all,enable.idempotence=true,enable.auto.commit=false", NULL) == '\0',
	   "what is so anyway is not");

	for (int i = 0; servers[i]; i++)
		ok(*open_error_at(servers[i], NULL, NULL) == '\0', "brokers %s: %s", servers[i], open_error_at(servers[i], NULL, NULL));
	for (int i = 0; not_servers[i]; i++)
		ok(strstr(open_error_at(not_servers[i], NULL, NULL), "brokers: "), "brokers %s: %s", not_servers[i], open_error_at(not_servers[i], NULL, NULL));

	if (write(fd, text, strlen(text)) < 0)
		abort();
	ok(*open_error(NULL, path) == '\0', "options file: %s", open_error(NULL, path));
	if (ftruncate(fd, 0) < 0 || pwrite(fd, bad, strlen(bad), 0) < 0)
		abort();
	ok(strstr(open_error(NULL, path), "no.such") && !strstr(open_error(NULL, path), "hunter2"),
	   "options file with an error");
	ok(strstr(open_error(NULL, "/nonexistent"), "/nonexistent"), "options file that is not there");
	ok(*open_error(NULL, "/dev/zero"), "options file that is none");
	close(fd);
	unlink(path);
	ok(strncmp(broker_version(), "librdkafka ", 11) == 0, "version: %s", broker_version());
}

static void
test_publish(void)
{
	Broker	   *broker = open_mock(BROKER_PRODUCER, NULL);
	int			outcomes[BROKER_FATAL + 1];
	int			partitions = -1;
	char		err[256] = "";
	BrokerReport last;
	int			mark;
	int			full = 0;

	ok(broker_reachable(broker, 3000, err, sizeof(err)), "reachable");
	ok(broker_topic(broker, "events", 3000, &partitions, err, sizeof(err)) == BROKER_OK &&
	   partitions > 0, "topic is made on demand");
	diag("%d partitions %s", partitions, err);
	ok(broker_topic(broker, "", 1000, &partitions, err, sizeof(err)) == BROKER_REFUSED_TOPIC,
	   "a topic without a name");
	diag("%s", err);

	ok(publish(broker, "events", "k", "v", &mark) == BROKER_OK, "publish");
	ok(wait_reports(broker, 1, 256, 5000, outcomes, &last) == 1 && outcomes[BROKER_OK] == 1 &&
	   last.opaque == &mark && last.offset == 0 && last.partition >= 0 && !last.reason[0],
	   "its report");

	for (int i = 0; i < 5000; i++)
		if (publish(broker, "events", NULL, "value", &mark) != BROKER_OK)
			full++;
	ok(full == 0, "publish 5000");
	ok(wait_reports(broker, 5000, 7, 10000, outcomes, NULL) == 5000 && outcomes[BROKER_OK] == 5000,
	   "reports taken 7 at a time: none is forgotten when we wait for the descriptor");
	ok(!readable(broker, 0) || broker_reports(broker, &last, 1) == 0, "then none is left");
	ok(!readable(broker, 100), "and the descriptor is quiet");
	ok(close_ms(broker) < 1200, "close");

	broker = open_mock(BROKER_PRODUCER, "queue.buffering.max.messages=10");
	for (int i = 0; i < 1000 && full == 0; i++)
		full = publish(broker, "events", NULL, "value", NULL) == BROKER_FULL;
	ok(full == 1, "a full queue says so");
	broker_close(broker);
}

/* Questions for topics wait for their answers in a thread: one that is not there delays no other, and no caller. */
static void
test_questions(Broker *broker)
{
	BrokerTopicAnswer answer;
	int64_t		start = now_ms();
	int64_t		there = 0;
	int64_t		missing = 0;

	ok(broker_ask_topic(broker, "missing", true, 500) && broker_ask_topic(broker, "events", true, 500), "two topics are asked for");
	ok(now_ms() - start < 100, "without waiting");
	while ((!there || !missing) && now_ms() - start < 5000)
	{
		if (!broker_topic_answer(broker, &answer))
		{
			readable(broker, 1000);
			broker_health(broker, NULL);
		}
		else if (strcmp(answer.topic, "events") == 0)
		{
			there = now_ms();
			ok(answer.outcome == BROKER_OK && answer.partitions > 0 && answer.ends[0] >= 0, "one is there, with its ends");
		}
		else
		{
			missing = now_ms();
			ok(answer.outcome == BROKER_REFUSED_TOPIC && answer.reason[0], "one is not: %s", answer.reason);
		}
	}
	ok(there && missing && there - start < 1400 && missing - start < 1400, "the other does not wait for it (%d ms, %d ms)", (int) (there - start), (int) (missing - start));
	ok(broker_partition(broker, "k", 1, 4) >= 0 && broker_partition(broker, "k", 1, 4) < 4, "the partition of a key is known");
}

static void
test_refused(void)
{
	Broker	   *broker = open_mock(BROKER_PRODUCER, "linger.ms=100");
	int			outcomes[BROKER_FATAL + 1];
	BrokerReport last;
	char	   *large = malloc(1100001);

	memset(large, 'x', 1100000);
	large[1100000] = '\0';
	publish(broker, "events", "k", "v", NULL);
	wait_reports(broker, 1, 1, 5000, outcomes, NULL);

	ok(publish(broker, "events", "k", large, NULL) == BROKER_REFUSED, "too large for us: refused");
	free(large);

	rd_kafka_mock_push_request_errors(mock, KEY_PRODUCE, 1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	publish(broker, "events", "k", "v", NULL);
	ok(wait_reports(broker, 1, 1, 5000, outcomes, &last) == 1 && outcomes[BROKER_REFUSED] == 1 &&
	   last.reason[0], "too large for the broker, alone: refused");

	rd_kafka_mock_push_request_errors(mock, KEY_PRODUCE, 1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	for (int i = 0; i < 10; i++)
		publish(broker, "events", "k", "v", NULL);
	ok(wait_reports(broker, 10, 3, 5000, outcomes, &last) == 10 && outcomes[BROKER_REFUSED_BATCH] == 10,
	   "with others: the batch is refused");
	for (int i = 0; i < 10; i++)
	{
		publish(broker, "events", "k", "v", NULL);
		wait_reports(broker, 1, 1, 5000, outcomes, &last);
		if (outcomes[BROKER_OK] != 1)
			break;
	}
	ok(outcomes[BROKER_OK] == 1, "one by one they pass");
	ok(broker_health(broker, NULL) == BROKER_UP, "and the handle goes on");

	rd_kafka_mock_push_request_errors(mock, KEY_PRODUCE, 1, RD_KAFKA_RESP_ERR_INVALID_RECORD);
	publish(broker, "events", "k", "v", NULL);
	ok(wait_reports(broker, 1, 1, 5000, outcomes, &last) == 1 && outcomes[BROKER_REFUSED] == 1,
	   "invalid record: refused");

	rd_kafka_mock_push_request_errors(mock, KEY_PRODUCE, 1, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
	publish(broker, "events", "k", "v", NULL);
	ok(wait_reports(broker, 1, 1, 8000, outcomes, &last) == 1 && outcomes[BROKER_OK] == 1,
	   "not enough replicas: the library tries again");
	broker_close(broker);

	broker = open_mock(BROKER_PRODUCER, NULL);
	rd_kafka_mock_push_request_errors(mock, KEY_PRODUCE, 1, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
	publish(broker, "events", "k", "v", NULL);
	ok(wait_reports(broker, 1, 1, 5000, outcomes, &last) == 1 && outcomes[BROKER_REFUSED_TOPIC] == 1,
	   "not authorised: it is the topic");
	broker_close(broker);

	rd_kafka_mock_topic_set_error(mock, "missing", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
	broker = open_mock(BROKER_PRODUCER, NULL);
	{
		int64_t		start = now_ms();
		int			partitions;
		char		err[256] = "";

		publish(broker, "missing", "k", "v", NULL);
		ok(wait_reports(broker, 1, 1, 8000, outcomes, &last) == 1 && outcomes[BROKER_REFUSED_TOPIC] == 1,
		   "unknown topic: it is the topic");
		diag("after %d ms: %s", (int) (now_ms() - start), last.reason);
		ok(publish(broker, "missing", "k", "v", NULL) == BROKER_REFUSED_TOPIC, "and at once the next time");
		start = now_ms();
		ok(broker_topic(broker, "missing", 500, &partitions, err, sizeof(err)) == BROKER_REFUSED_TOPIC &&
		   now_ms() - start < 1000, "broker_topic says so too");
		test_questions(broker);
		publish(broker, "events", "k", "v", NULL);
		ok(wait_reports(broker, 1, 1, 5000, outcomes, &last) == 1 && outcomes[BROKER_OK] == 1,
		   "another topic is not concerned");

		rd_kafka_mock_topic_set_error(mock, "missing", RD_KAFKA_RESP_ERR_NO_ERROR);
		start = now_ms();
		while (publish(broker, "missing", "k", "v", NULL) != BROKER_OK && now_ms() - start < 10000)
			sleep_ms(50);
		ok(wait_reports(broker, 1, 1, 5000, outcomes, &last) == 1 && outcomes[BROKER_OK] == 1,
		   "once it is there, it works");
		diag("after %d ms", (int) (now_ms() - start));
	}
	broker_close(broker);
}

/*
 * The leader of a partition refuses the first of two requests that are under way, since it is not the leader yet, and takes the second.
 * The library then takes the first for done, too: its report has no error, and no offset.
 */
static void
test_overtaken(void)
{
	Broker	   *broker = open_mock(BROKER_PRODUCER, "batch.num.messages=1");
	int			outcomes[BROKER_FATAL + 1];
	int64_t		low;
	int64_t		before = 0;
	int64_t		after = 0;
	char		err[256] = "";

	rd_kafka_mock_topic_create(mock, "overtaken", 1, 1);
	publish(broker, "overtaken", "k", "0", NULL);
	wait_reports(broker, 1, 256, 5000, outcomes, NULL);
	broker_watermarks(broker, "overtaken", 0, 5000, &low, &before, err, sizeof(err));
	rd_kafka_mock_broker_set_rtt(mock, 1, 300);
	rd_kafka_mock_push_request_errors(mock, KEY_PRODUCE, 1, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
	publish(broker, "overtaken", "k", "1", NULL);
	sleep_ms(50);
	publish(broker, "overtaken", "k", "2", NULL);
	wait_reports(broker, 2, 256, 5000, outcomes, NULL);
	rd_kafka_mock_broker_set_rtt(mock, 1, 0);
	ok(broker_watermarks(broker, "overtaken", 0, 5000, &low, &after, err, sizeof(err)), "the log can be asked");
	ok(outcomes[BROKER_OK] <= after - before, "no more records are reported as done (%d) than are in the log (%d)", outcomes[BROKER_OK], (int) (after - before));
	ok(outcomes[BROKER_OK] + outcomes[BROKER_REFUSED_BATCH] == 2 && outcomes[BROKER_OK] >= 1, "and the other one is to be produced again");
	broker_close(broker);
}

static void
test_fatal(void)
{
	Broker	   *broker = open_mock(BROKER_PRODUCER, NULL);
	const char *reason;
	int			outcomes[BROKER_FATAL + 1];

	publish(broker, "events", "k", "v", NULL);
	wait_reports(broker, 1, 1, 5000, outcomes, NULL);
	rd_kafka_mock_push_request_errors(mock, KEY_PRODUCE, 1,
									  RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
	publish(broker, "events", "k", "v", NULL);
	ok(wait_health(broker, BROKER_DEAD, 5000), "a lost sequence is fatal");
	broker_health(broker, &reason);
	ok(*reason, "reason: %s", reason);
	ok(publish(broker, "events", "k", "v", NULL) == BROKER_FATAL, "publish says so");
	ok(broker_reachable(broker, 1000, NULL, 0) && broker_health(broker, NULL) == BROKER_DEAD,
	   "an answer does not revive it");
	ok(close_ms(broker) < 1200, "close");

	broker = open_mock(BROKER_PRODUCER, NULL);
	publish(broker, "events", "k", "v", NULL);
	ok(wait_reports(broker, 1, 1, 5000, outcomes, NULL) == 1 && outcomes[BROKER_OK] == 1,
	   "a new handle works");
	broker_close(broker);
}

/* Read until a number of records was seen; returns how many were. */
static int
consume(Broker *broker, int wanted, int at_once, int timeout_ms, const char *topic, int *wrong)
{
	int64_t		limit = now_ms() + timeout_ms;
	BrokerMessage messages[512];
	int			seen = 0;

	while (seen < wanted && now_ms() < limit)
	{
		int			n;

		if (!readable(broker, (int) (limit - now_ms())))
			break;
		n = broker_consume(broker, messages, at_once < wanted - seen ? at_once : wanted - seen);
		for (int i = 0; i < n; i++)
		{
			if (wrong && strcmp(messages[i].topic, topic) != 0)
				(*wrong)++;
			seen += !messages[i].end;
		}
		broker_release(broker);
	}
	return seen;
}

static void
test_consume(void)
{
	Broker	   *producer = open_mock(BROKER_PRODUCER, NULL);

	/* the mock cluster answers a fetch only after its time, come what may */
	Broker	   *consumer = open_mock(BROKER_CONSUMER, "fetch.wait.max.ms=2");
	int			outcomes[BROKER_FATAL + 1];
	char		err[256] = "";
	BrokerPosition positions[2] = {{"one", 0, BROKER_BEGINNING}, {"two", 0, BROKER_BEGINNING}};
	BrokerMessage message;
	const void *value;
	size_t		length;
	int64_t		low,
				high;
	int			wrong = 0;
	int			late = 0;
	int			worst = 0;
	int64_t		total = 0;
	int			n;

	rd_kafka_mock_topic_create(mock, "one", 1, 1);
	rd_kafka_mock_topic_create(mock, "two", 1, 1);
	for (int i = 0; i < 2000; i++)
	{
		publish(producer, "one", "key", "value", NULL);
		publish(producer, "two", NULL, i % 2 ? NULL : "", NULL);
	}
	ok(wait_reports(producer, 4000, 256, 10000, outcomes, NULL) == 4000, "4000 records to read");

	ok(broker_watermarks(consumer, "one", 0, 3000, &low, &high, err, sizeof(err)) &&
	   low == 0 && high == 2000, "watermarks");
	ok(broker_assign(consumer, positions, 1, err, sizeof(err)), "assign");
	for (n = 0; n == 0 && readable(consumer, 5000);)
		n = broker_consume(consumer, &message, 1);
	if (!ok(n == 1, "one is read"))
		return;
	ok(strcmp(message.topic, "one") == 0 && message.partition == 0 && message.offset == 0 &&
	   message.key_length == 3 && memcmp(message.key, "key", 3) == 0 &&
	   message.value_length == 5 && memcmp(message.value, "value", 5) == 0, "it is the first");
	ok(broker_header(&message, "twice", &value, &length) && length == 6 &&
	   memcmp(value, "second", 6) == 0, "the last header of a name");
	ok(broker_header(&message, "empty", &value, &length) && length == 0, "an empty header");
	ok(!broker_header(&message, "none", &value, &length), "a header that is not there");
	broker_release(consumer);
	ok(consume(consumer, 1999, 13, 5000, "one", &wrong) == 1999 && wrong == 0,
	   "the rest, 13 at a time, waiting for the descriptor");
	n = consume(consumer, 1, 10, 300, "one", NULL);
	ok(n == 0, "and no more");

	/* many are fetched, few taken, then other ones wanted */
	ok(broker_assign(consumer, positions, 1, err, sizeof(err)), "assign from the beginning again");
	ok(consume(consumer, 10, 10, 5000, "one", NULL) == 10, "read some");
	positions[1].offset = 1000;
	ok(broker_assign(consumer, &positions[1], 1, err, sizeof(err)), "assign another partition");
	wrong = 0;
	ok(consume(consumer, 1000, 100, 5000, "two", &wrong) == 1000 && wrong == 0,
	   "no record of the first comes (%d)", wrong);
	positions[1].offset = 1998;
	broker_assign(consumer, &positions[1], 1, err, sizeof(err));
	for (int i = 0; i < 2; i++)
	{
		while (readable(consumer, 3000) && broker_consume(consumer, &message, 1) == 0)
			;
		if (i == 0)
			ok(message.value && message.value_length == 0 && !message.key, "an empty value is not a tombstone");
		else
			ok(!message.value && message.offset == 1999, "a tombstone is");
	}
	broker_release(consumer);

	/* out of range: from the beginning */
	positions[0].offset = 1000000;
	broker_assign(consumer, positions, 1, err, sizeof(err));
	ok(consume(consumer, 2000, 500, 8000, "one", NULL) == 2000, "an offset that is gone: from the beginning");

	broker_assign(consumer, NULL, 0, err, sizeof(err));
	publish(producer, "one", "key", "value", NULL);
	ok(consume(consumer, 1, 10, 500, "one", NULL) == 0, "nothing assigned, nothing read");

	/* no wake-up is lost */
	positions[0].offset = 2001;
	positions[1].offset = 2000;
	broker_assign(consumer, positions, 2, err, sizeof(err));
	for (int i = 0; i < 1000; i++)
	{
		int64_t		start = now_ms();
		int			took;

		publish(producer, i % 2 ? "one" : "two", "key", "value", NULL);
		if (consume(consumer, 1, 10, 3000, NULL, NULL) != 1)
			late++;
		took = (int) (now_ms() - start);
		total += took;
		if (took > worst)
			worst = took;
		wait_reports(producer, 1, 10, 3000, outcomes, NULL);
	}
	ok(late == 0, "1000 times one record: always woken (mean %.2f ms, worst %d ms)",
	   (double) total / 1000, worst);

	positions[0].offset = 2300;
	broker_commit(consumer, positions, 1);
	{
		rd_kafka_conf_t *conf = rd_kafka_conf_new();
		rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
		rd_kafka_t *other;
		int64_t		limit = now_ms() + 5000;

		rd_kafka_conf_set(conf, "bootstrap.servers", rd_kafka_mock_cluster_bootstraps(mock), NULL, 0);
		rd_kafka_conf_set(conf, "group.id", "unit", NULL, 0);
		other = rd_kafka_new(RD_KAFKA_CONSUMER, conf, NULL, 0);
		rd_kafka_topic_partition_list_add(list, "one", 0);
		do
		{
			sleep_ms(50);
			rd_kafka_committed(other, list, 2000);
		} while (list->elems[0].offset != 2300 && now_ms() < limit);
		ok(list->elems[0].offset == 2300, "the committed position is seen by others");
		rd_kafka_topic_partition_list_destroy(list);
		rd_kafka_destroy(other);
	}

	positions[0] = (BrokerPosition) {"nowhere", 0, 0};
	rd_kafka_mock_topic_set_error(mock, "nowhere", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
	broker_assign(consumer, positions, 1, err, sizeof(err));
	{
		int64_t		limit = now_ms() + 5000;
		char		line[256] = "";
		int			level;

		do
		{
			broker_consume(consumer, &message, 1);
			sleep_ms(20);
		} while (!(broker_log(consumer, &level, line, sizeof(line)) && strstr(line, "nowhere")) &&
				 now_ms() < limit);
		ok(strstr(line, "nowhere"), "a topic that is not there is told: %s", line);
	}

	ok(close_ms(consumer) < 1200, "close the consumer");
	broker_close(producer);
}

static void
test_down(void)
{
	Broker	   *broker;
	int			outcomes[BROKER_FATAL + 1];
	const char *reason;
	char		err[256] = "";
	int64_t		start;
	int			took;
	BrokerConfig config = {.role = BROKER_PRODUCER, .servers = "127.0.0.1:1", .max_queued = 100};
	char		line[256];
	int			level;

	/* nobody listens */
	broker = broker_open(&config, err, sizeof(err));
	ok(wait_health(broker, BROKER_DOUBTED, 5000), "connection refused: in doubt");
	broker_health(broker, &reason);
	ok(strstr(reason, "refused") != NULL, "reason: %s", reason);
	ok(broker_log(broker, &level, line, sizeof(line)) && level <= 7, "and a log line");
	diag("%s", line);
	start = now_ms();
	ok(!broker_reachable(broker, 300, err, sizeof(err)) && now_ms() - start < 600,
	   "not reachable, and soon");
	ok(publish(broker, "events", "k", "v", NULL) == BROKER_OK, "records are taken all the same");
	took = close_ms(broker);
	ok(took < 1200, "close in %d ms", took);

	/* a consumer */
	config.role = BROKER_CONSUMER;
	broker = broker_open(&config, err, sizeof(err));
	{
		BrokerPosition position = {"one", 0, 0};

		broker_assign(broker, &position, 1, err, sizeof(err));
		broker_commit(broker, &position, 1);
	}
	sleep_ms(100);
	took = close_ms(broker);
	ok(took < 1200, "close a consumer in %d ms", took);

	/* it goes away and comes back */
	broker = open_mock(BROKER_PRODUCER, "message.timeout.ms=1000");
	publish(broker, "events", "k", "v", NULL);
	wait_reports(broker, 1, 1, 5000, outcomes, NULL);
	rd_kafka_mock_broker_set_down(mock, 1);
	ok(wait_health(broker, BROKER_DOUBTED, 5000), "the broker goes away: in doubt");
	publish(broker, "events", "k", "v", NULL);
	ok(wait_reports(broker, 1, 1, 10000, outcomes, NULL) == 1 && outcomes[BROKER_UNKNOWN] == 1,
	   "a record that times out: unknown");
	rd_kafka_mock_broker_set_up(mock, 1);
	ok(broker_reachable(broker, 5000, err, sizeof(err)) && broker_health(broker, &reason) == BROKER_UP &&
	   !*reason, "it comes back: up");
	publish(broker, "events", "k", "v", NULL);
	ok(wait_reports(broker, 1, 1, 5000, outcomes, NULL) == 1 && outcomes[BROKER_OK] == 1, "and works");
	broker_close(broker);
}

static void
test_hung(void)
{
	int			listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	length = sizeof(addr);
	char		servers[64];
	char		err[256] = "";
	BrokerConfig config = {.servers = servers, .max_queued = 100};
	Broker	   *broker;
	int			outcomes[BROKER_FATAL + 1];
	int64_t		start;
	int			took;

	/* connections are accepted by the kernel, and then nothing happens */
	if (bind(listener, (struct sockaddr *) &addr, sizeof(addr)) < 0 || listen(listener, 16) < 0 ||
		getsockname(listener, (struct sockaddr *) &addr, &length) < 0)
		abort();
	snprintf(servers, sizeof(servers), "127.0.0.1:%d", ntohs(addr.sin_port));
	for (int role = BROKER_PRODUCER; role <= BROKER_CONSUMER; role++)
	{
		config.role = role;
		broker = broker_open(&config, err, sizeof(err));
		start = now_ms();
		ok(!broker_reachable(broker, 500, err, sizeof(err)) && now_ms() - start < 1000,
		   "a broker that hangs is not reachable");
		if (role == BROKER_PRODUCER)
			publish(broker, "events", "k", "v", NULL);
		took = close_ms(broker);
		ok(took < 1200, "close in %d ms", took);
	}
	close(listener);

	/* hangs with records in flight */
	broker = open_mock(BROKER_PRODUCER, NULL);
	publish(broker, "events", "k", "v", NULL);
	wait_reports(broker, 1, 1, 5000, outcomes, NULL);
	rd_kafka_mock_broker_set_rtt(mock, 1, 20000);
	for (int i = 0; i < 1000; i++)
		publish(broker, "events", "k", "v", NULL);
	sleep_ms(200);
	start = now_ms();
	broker_purge(broker);
	ok(wait_reports(broker, 1000, 100, 5000, outcomes, NULL) == 1000 && now_ms() - start < 500 &&
	   outcomes[BROKER_UNKNOWN] == 1000, "purged records are reported at once");
	for (int i = 0; i < 1000; i++)
		publish(broker, "events", "k", "v", NULL);
	sleep_ms(100);
	took = close_ms(broker);
	ok(took < 1200, "close with records in flight in %d ms", took);
	rd_kafka_mock_broker_set_rtt(mock, 1, 0);

	/* hangs in a library's thread that cannot be interrupted */
	config.role = BROKER_PRODUCER;
	config.servers = "silent.invalid:9092";
	broker = broker_open(&config, err, sizeof(err));
	start = now_ms();
	ok(!broker_reachable(broker, 300, err, sizeof(err)) && now_ms() - start < 600,
	   "a name server that hangs: not reachable");
	took = close_ms(broker);
	ok(took < 1200, "close in %d ms", took);
	sleep_ms(2 * SLOW_RESOLVER_MS);
}

/* A leader that has gone keeps nobody from an answer: its partitions have no end, others have theirs, and other topics are answered. */
static void
test_leader_gone(void)
{
	rd_kafka_mock_cluster_t *other = mock;
	BrokerTopicAnswer answer;
	Broker	   *broker;
	int			outcomes[10];
	int64_t		start;
	bool		spread = false;
	bool		well = false;

	mock = rd_kafka_mock_cluster_new(mock_handle, 3);
	rd_kafka_mock_topic_create(mock, "spread", 6, 3);
	rd_kafka_mock_topic_create(mock, "well", 1, 3);
	for (int p = 0; p < 6; p++)
		rd_kafka_mock_partition_set_leader(mock, "spread", p, p / 2 + 1);
	rd_kafka_mock_partition_set_leader(mock, "well", 0, 1);
	broker = open_mock(BROKER_PRODUCER, NULL);
	publish(broker, "well", "k", "v", NULL);
	wait_reports(broker, 1, 1, 5000, outcomes, NULL);
	rd_kafka_mock_broker_set_down(mock, 2);
	start = now_ms();
	/* the question for where the leaders are may meet the one that has gone */
	while ((!spread || !well) && now_ms() - start < 30000)
	{
		broker_ask_topic(broker, "spread", true, 500);
		broker_ask_topic(broker, "well", true, 500);
		for (int64_t until = now_ms() + 5000; now_ms() < until && (!spread || !well); )
		{
			if (!broker_topic_answer(broker, &answer))
			{
				readable(broker, 100);
				broker_health(broker, NULL);
			}
			else if (answer.outcome != BROKER_OK)
				break;
			else if (strcmp(answer.topic, "well") == 0)
				well = answer.ends[0] == 1;
			else
				spread = answer.partitions == 6 && answer.ends[0] == 0 && answer.ends[1] == 0 &&
					answer.ends[2] == -1 && answer.ends[3] == -1 && answer.ends[4] == 0 && answer.ends[5] == 0;
		}
	}
	ok(spread, "a leader that has gone: the other partitions of its topic have their ends");
	ok(well, "and so has another topic (%d ms)", (int) (now_ms() - start));
	rd_kafka_mock_broker_set_up(mock, 2);
	broker_close(broker);
	rd_kafka_mock_cluster_destroy(mock);
	mock = other;
}

int
main(void)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		words[256];

	mock_handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, words, sizeof(words));
	mock = rd_kafka_mock_cluster_new(mock_handle, 1);

	test_options();
	test_publish();
	test_refused();
	test_overtaken();
	test_fatal();
	test_consume();
	test_down();
	test_hung();
	test_leader_gone();

	rd_kafka_mock_cluster_destroy(mock);
	rd_kafka_destroy(mock_handle);
	printf("1..%d\n", test_number);
	return failures ? 1 : 0;
}
