/*
 * kafka.c
 *		The message broker seam (broker.h) on librdkafka, Kafka's C client.
 *
 * librdkafka works in threads of its own.  Everything it has to tell reaches
 * us as events and records in two queues that we poll, and it writes a byte
 * into our pipe when one of them stops being empty; so no code of ours runs in
 * its threads, and a caller waits for broker_fd() with whatever it likes.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* pipe2 */
#endif

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>

#include "broker.h"
#include "explain.h"
#include "kafka_look.h"
#include "kafka_options.h"
#include "kafka_topics.h"
#include "monotonic.h"

#define LOG_LINES			64
#define LOG_LINE_LENGTH		512
#define TOPIC_BUCKETS		1024
#define REPORTS_AT_ONCE		256
#define CLOSE_LIMIT_MS		1000
#define TOPIC_RETRY_MS		50

/* Bytes that Kafka adds at most: see "Record Batch" in its protocol guide. */
#define BATCH_OVERHEAD		61
#define RECORD_OVERHEAD		31
#define HEADER_OVERHEAD		10

#define lengthof(array)		((int) (sizeof(array) / sizeof((array)[0])))
#define Min(x, y)			((x) < (y) ? (x) : (y))
#define Max(x, y)			((x) > (y) ? (x) : (y))

/* A topic that was produced to: a handle is much faster than a name. */
typedef struct Topic
{
	struct Topic *next;
	rd_kafka_topic_t *handle;
	char		name[];
} Topic;

typedef struct LogLine
{
	int			level;
	char		text[LOG_LINE_LENGTH];
} LogLine;

struct Broker
{
	BrokerRole	role;
	rd_kafka_t *rk;
	rd_kafka_queue_t *events;	/* reports, errors, log lines */
	rd_kafka_queue_t *records;	/* consumer: what was fetched */
	int			wake[2];		/* pipe: librdkafka writes, we empty it */

	BrokerHealth health;
	bool		any_cause;		/* reason tells more than "all are down" */
	bool		own_cause;		/* it is ours: a password, a certificate */
	char		reason[256];

	/* producer */
	Topic	   *topics[TOPIC_BUCKETS];
	Topic	   *last_topic;		/* most records follow one of their topic */
	rd_kafka_event_t *delivery; /* reports of it are left to be taken */
	bool		delivery_alone; /* it is of a batch of one record */
	TopicAsker *asker;
	int32_t		(*partitioner) (const rd_kafka_topic_t *, const void *, size_t, int32_t, void *, void *);	/* NULL: by chance */

	/* consumer */
	rd_kafka_topic_partition_list_t *assigned;	/* only if must_hurry */
	bool		must_hurry;		/* see hurry() */
	size_t		hurry_records;	/* taken since */
	size_t		hurry_bytes;
	bool		lost_partition;
	KafkaLook  *look;			/* under way */
	rd_kafka_message_t **batch; /* what broker_release() has to free */
	int			batch_count;
	int			batch_room;

	LogLine		log[LOG_LINES]; /* a ring */
	int			log_first;
	int			log_count;

	/* while it ends */
	pthread_mutex_t lock;
	pthread_cond_t end;
	bool		destroyed;
	bool		abandoned;		/* whoever destroys it frees it */
};

/* ---------- the handle ---------- */

/* Does this configuration ask for OAuth tokens? */
static bool
wants_oauth(rd_kafka_conf_t *conf)
{
	char		mechanism[64];
	size_t		size = sizeof(mechanism);

	return rd_kafka_conf_get(conf, "sasl.mechanisms", mechanism, &size) == RD_KAFKA_CONF_OK &&
		strcasecmp(mechanism, "OAUTHBEARER") == 0;
}

/* Learn how this configuration chooses the partition of a record that has a key. */
static void
learn_partitioner(Broker *broker, rd_kafka_conf_t *conf)
{
	static const struct
	{
		const char *name;
		int32_t		(*partitioner) (const rd_kafka_topic_t *, const void *, size_t, int32_t, void *, void *);
	}			known[] = {
		{"consistent", rd_kafka_msg_partitioner_consistent},
		{"consistent_random", rd_kafka_msg_partitioner_consistent},
		{"murmur2", rd_kafka_msg_partitioner_murmur2},
		{"murmur2_random", rd_kafka_msg_partitioner_murmur2},
		{"fnv1a", rd_kafka_msg_partitioner_fnv1a},
		{"fnv1a_random", rd_kafka_msg_partitioner_fnv1a},
	};
	char		name[64];
	size_t		size = sizeof(name);

	if (rd_kafka_conf_get(conf, "partitioner", name, &size) != RD_KAFKA_CONF_OK)
		return;
	for (int i = 0; i < lengthof(known); i++)
		if (strcmp(name, known[i].name) == 0)
			broker->partitioner = known[i].partitioner;
}

static void error_within_call(rd_kafka_t *rk, int error, const char *words, void *broker);

/* see broker.h */
Broker *
broker_open(const BrokerConfig *config, char *err, size_t errlen)
{
	Broker	   *broker = calloc(1, sizeof(Broker));
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		words[512];
	bool		oauth;

	if (broker == NULL)
	{
		explain(err, errlen, "out of memory");
		rd_kafka_conf_destroy(conf);
		return NULL;
	}
	broker->role = config->role;
	broker->wake[0] = broker->wake[1] = -1;

	if (!kafka_configure(conf, config, &broker->must_hurry, err, errlen))
		goto fail;
	rd_kafka_conf_set_opaque(conf, broker);
	rd_kafka_conf_set_error_cb(conf, error_within_call);
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);

	/* tokens are fetched over HTTP: not in our thread, which would block */
	learn_partitioner(broker, conf);
	oauth = wants_oauth(conf);
	if (oauth)
		rd_kafka_conf_enable_sasl_queue(conf, 1);

	if (pipe2(broker->wake, O_CLOEXEC | O_NONBLOCK) < 0)
	{
		explain(err, errlen, "could not create a pipe: %s", strerror(errno));
		goto fail;
	}

	broker->rk = rd_kafka_new(config->role == BROKER_PRODUCER ? RD_KAFKA_PRODUCER :
							  RD_KAFKA_CONSUMER, conf, words, sizeof(words));
	if (broker->rk == NULL)
	{
		explain(err, errlen, "%s", words);
		goto fail;
	}
	conf = NULL;				/* now the handle's */
	if (oauth)
		rd_kafka_error_destroy(rd_kafka_sasl_background_callbacks_enable(broker->rk));

	rd_kafka_set_log_queue(broker->rk, NULL);	/* that is, the main queue */
	broker->events = rd_kafka_queue_get_main(broker->rk);
	rd_kafka_queue_io_event_enable(broker->events, broker->wake[1], "e", 1);
	if (config->role == BROKER_CONSUMER)
	{
		broker->records = rd_kafka_queue_get_consumer(broker->rk);
		rd_kafka_queue_io_event_enable(broker->records, broker->wake[1], "r", 1);
	}
	return broker;

fail:
	if (conf)
		rd_kafka_conf_destroy(conf);
	if (broker->wake[0] >= 0)
	{
		close(broker->wake[0]);
		close(broker->wake[1]);
	}
	free(broker);
	return NULL;
}

/*
 * Let the library finish with the partitions that it stopped reading: to stop
 * one again meanwhile, by another assignment or at the end, fails an assertion
 * of librdkafka and ends the process.  A stop takes two passes of its main
 * thread, and so does this.
 */
static void
settle(rd_kafka_t *rk)
{
	for (int i = 0; i < 2; i++)
	{
		rd_kafka_topic_partition_list_t *list;

		if (rd_kafka_assignment(rk, &list) == RD_KAFKA_RESP_ERR_NO_ERROR)
			rd_kafka_topic_partition_list_destroy(list);
	}
}

/*
 * End the library's part of a handle.  NO_CONSUMER_CLOSE: there is no group to
 * leave.  The library may write into the pipe until it has ended.
 */
static void
destroy(Broker *broker)
{
	if (broker->look)
		broker_look_free(kafka_look_end(broker->look));
	if (broker->asker)
		topic_asker_close(broker->asker);
	if (broker->role == BROKER_CONSUMER)
		settle(broker->rk);
	rd_kafka_destroy_flags(broker->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	close(broker->wake[0]);
	close(broker->wake[1]);
}

/* Main of the thread that ends a handle. */
static void *
closing_main(void *arg)
{
	Broker	   *broker = arg;
	bool		abandoned;

	destroy(broker);
	pthread_mutex_lock(&broker->lock);
	broker->destroyed = true;
	abandoned = broker->abandoned;
	pthread_cond_signal(&broker->end);
	pthread_mutex_unlock(&broker->lock);
	if (abandoned)
		free(broker);
	return NULL;
}

/*
 * End a handle, and free it, within CLOSE_LIMIT_MS.  That normally takes
 * milliseconds, but the library waits for its threads, and one of them may hang
 * in getaddrinfo() for as long as a name server is silent.  So a thread waits
 * on our behalf; when it takes too long it goes on alone, and frees everything
 * at the end.  It runs nothing but the library, with all signals blocked.
 */
static void
destroy_bounded(Broker *broker)
{
	pthread_condattr_t attr;
	pthread_t	thread;
	sigset_t	all,
				before;
	struct timespec limit;
	bool		destroyed;
	int			error;

	pthread_mutex_init(&broker->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&broker->end, &attr);
	pthread_condattr_destroy(&attr);

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	error = pthread_create(&thread, NULL, closing_main, broker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error)
	{
		destroy(broker);
		free(broker);
		return;
	}

	clock_gettime(CLOCK_MONOTONIC, &limit);
	limit.tv_sec += CLOSE_LIMIT_MS / 1000;
	pthread_mutex_lock(&broker->lock);
	while (!broker->destroyed &&
		   pthread_cond_timedwait(&broker->end, &broker->lock, &limit) == 0)
		;
	destroyed = broker->destroyed;
	broker->abandoned = !destroyed;
	pthread_mutex_unlock(&broker->lock);

	if (destroyed)
	{
		pthread_join(thread, NULL);
		free(broker);
	}
	else
		pthread_detach(thread);
}

/* see broker.h */
void
broker_close(Broker *broker)
{
	if (broker == NULL)
		return;

	broker_release(broker);
	free(broker->batch);
	if (broker->assigned)
		rd_kafka_topic_partition_list_destroy(broker->assigned);
	if (broker->delivery)
		rd_kafka_event_destroy(broker->delivery);

	if (broker->asker)
		topic_asker_stop(broker->asker);

	/* the library does not end while anything of it is held */
	for (int i = 0; i < TOPIC_BUCKETS; i++)
	{
		Topic	   *topic = broker->topics[i];

		while (topic)
		{
			Topic	   *next = topic->next;

			rd_kafka_topic_destroy(topic->handle);
			free(topic);
			topic = next;
		}
	}
	if (broker->role == BROKER_PRODUCER)
		broker_purge(broker);
	rd_kafka_queue_io_event_enable(broker->events, -1, NULL, 0);
	rd_kafka_queue_destroy(broker->events);
	if (broker->records)
	{
		rd_kafka_queue_io_event_enable(broker->records, -1, NULL, 0);
		rd_kafka_queue_destroy(broker->records);
	}

	destroy_bounded(broker);
}

/* see broker.h */
int
broker_fd(const Broker *broker)
{
	return broker->wake[0];
}

/*
 * Empty the pipe.  To be done before the queues are: then what arrives later
 * writes again.
 */
static void
empty_pipe(Broker *broker)
{
	char		bytes[64];

	while (read(broker->wake[0], bytes, sizeof(bytes)) == (ssize_t) sizeof(bytes))
		;
}

/*
 * Make broker_fd() readable.  The library writes only into the pipe of a queue
 * that was empty, so whoever leaves something there has to do that himself.
 */
static void
poke(Broker *broker)
{
	ssize_t		unused = write(broker->wake[1], "p", 1);

	(void) unused;				/* full, so it is readable */
}

/* ---------- events ---------- */

/* Keep a line for broker_log(). */
static void
keep_line(Broker *broker, int level, const char *text)
{
	LogLine    *line;

	if (broker->log_count == LOG_LINES)
	{
		broker->log_first = (broker->log_first + 1) % LOG_LINES;
		broker->log_count--;
	}
	line = &broker->log[(broker->log_first + broker->log_count++) % LOG_LINES];
	line->level = level;
	snprintf(line->text, sizeof(line->text), "%s", text);
}

/* A broker answered. */
static void
note_success(Broker *broker)
{
	if (broker->health != BROKER_DOUBTED && !broker->any_cause)
		return;
	if (broker->health == BROKER_DOUBTED)
		broker->health = BROKER_UP;
	if (broker->health == BROKER_UP)
	{
		broker->any_cause = broker->own_cause = false;
		broker->reason[0] = '\0';
	}
}

/* Is this error one of a connection? */
static bool
is_of_connection(rd_kafka_resp_err_t error)
{
	switch (error)
	{
		case RD_KAFKA_RESP_ERR__TRANSPORT:
		case RD_KAFKA_RESP_ERR__RESOLVE:
		case RD_KAFKA_RESP_ERR__TIMED_OUT:
		case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
		case RD_KAFKA_RESP_ERR__SSL:
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
			return true;
		default:
			return false;
	}
}

/*
 * Something went wrong.  The library says "all brokers are down" not always when
 * they are (it counts the coordinator of a group as one), so any lost connection
 * is a reason to ask; and those words do not replace others, which say why.
 */
static void
note_error(Broker *broker, rd_kafka_resp_err_t error, const char *words)
{
	if (broker->health == BROKER_DEAD)
		return;
	if (is_of_connection(error))
		broker->health = BROKER_DOUBTED;
	if (error == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION ||
		error == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC ||
		error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
		broker->lost_partition = true;
	if (error == RD_KAFKA_RESP_ERR__SSL || error == RD_KAFKA_RESP_ERR__AUTHENTICATION)
		broker->own_cause = true;
	else if (broker->own_cause && is_of_connection(error))
		return;
	if (error != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		broker->any_cause = true;
	else if (broker->any_cause)
		return;
	snprintf(broker->reason, sizeof(broker->reason), "%s", words);
}

/* Keep what cannot be read, once in a row. */
static void
note_unreadable(Broker *broker, rd_kafka_resp_err_t error, const char *words)
{
	if (strcmp(words, broker->reason) != 0)
		keep_line(broker, 4 /* warning */ , words);
	note_error(broker, error, words);
}

/*
 * What librdkafka says while we take records, within our call and thread: newer
 * versions tell in no other way that a partition is gone.
 */
static void
error_within_call(rd_kafka_t *rk, int error, const char *words, void *broker)
{
	(void) rk;
	note_unreadable(broker, error, words);
}

/* Is the handle lost?  If so, keep the reason. */
static void
note_fatal(Broker *broker)
{
	char		words[sizeof(broker->reason)];

	if (broker->health != BROKER_DEAD &&
		rd_kafka_fatal_error(broker->rk, words, sizeof(words)) != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		snprintf(broker->reason, sizeof(broker->reason), "%s", words);
		broker->health = BROKER_DEAD;
	}
}

/* Keep what a log event says, but what every use of shared options brings. */
static void
note_log(Broker *broker, rd_kafka_event_t *event)
{
	const char *facility;
	const char *text;
	int			level;

	if (rd_kafka_event_log(event, &facility, &text, &level) != 0)
		return;
	if (strcmp(facility, "CONFWARN") == 0 &&
		(strstr(text, "is a producer property") || strstr(text, "is a consumer property")))
		return;
	keep_line(broker, level, text);
}

/*
 * Take events until one has delivery reports, or none is left.  Returns
 * whether there are reports.
 */
static bool
next_delivery(Broker *broker)
{
	rd_kafka_event_t *event;

	while (broker->delivery == NULL &&
		   (event = rd_kafka_queue_poll(broker->events, 0)) != NULL)
	{
		switch (rd_kafka_event_type(event))
		{
			case RD_KAFKA_EVENT_DR:
				broker->delivery = event;
				broker->delivery_alone = (rd_kafka_event_message_count(event) == 1);
				continue;
			case RD_KAFKA_EVENT_ERROR:
				if (rd_kafka_event_error_is_fatal(event))
					note_fatal(broker);
				else
					note_error(broker, rd_kafka_event_error(event),
							   rd_kafka_event_error_string(event));
				break;
			case RD_KAFKA_EVENT_LOG:
				note_log(broker, event);
				break;
			default:
				break;
		}
		rd_kafka_event_destroy(event);
	}
	return broker->delivery != NULL;
}

/* see broker.h */
BrokerHealth
broker_health(Broker *broker, const char **reason)
{
	/* an idle stage only asks for this, and must not be woken again and again by what it has seen */
	empty_pipe(broker);
	if (next_delivery(broker) || (broker->records && rd_kafka_queue_length(broker->records) > 0))
		poke(broker);
	if (reason)
		*reason = broker->reason;
	return broker->health;
}

/* see broker.h */
bool
broker_log(Broker *broker, int *level, char *line, size_t linelen)
{
	LogLine    *first;

	next_delivery(broker);
	if (broker->log_count == 0)
		return false;
	first = &broker->log[broker->log_first];
	*level = first->level;
	snprintf(line, linelen, "%s", first->text);
	broker->log_first = (broker->log_first + 1) % LOG_LINES;
	broker->log_count--;
	return true;
}

/* ---------- questions ---------- */

/* see broker.h */
bool
broker_reachable(Broker *broker, int timeout_ms, char *err, size_t errlen)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t error;

	/* asks for topics in use only: at first, for the brokers alone */
	error = rd_kafka_metadata(broker->rk, 0, NULL, &metadata, timeout_ms);
	next_delivery(broker);
	if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
		return explain(err, errlen, "%s", broker->any_cause ? broker->reason :
					   rd_kafka_err2str(error));
	rd_kafka_metadata_destroy(metadata);
	note_success(broker);
	return true;
}

/* The handle of a topic that is produced to; NULL with words when it cannot be. */
static rd_kafka_topic_t *
find_topic(Broker *broker, const char *name, char *err, size_t errlen)
{
	Topic	   *topic = broker->last_topic;
	uint32_t	hash = 2166136261u; /* FNV-1a */
	Topic	  **bucket;
	size_t		length;

	if (topic && strcmp(topic->name, name) == 0)
		return topic->handle;

	for (const unsigned char *p = (const unsigned char *) name; *p; p++)
		hash = (hash ^ *p) * 16777619u;
	bucket = &broker->topics[hash % TOPIC_BUCKETS];
	for (topic = *bucket; topic; topic = topic->next)
		if (strcmp(topic->name, name) == 0)
			break;

	if (topic == NULL)
	{
		if (*name == '\0')
		{
			explain(err, errlen, "the topic has no name");
			return NULL;
		}
		length = strlen(name) + 1;
		topic = malloc(sizeof(Topic) + length);
		if (topic == NULL)
		{
			explain(err, errlen, "out of memory");
			return NULL;
		}
		topic->handle = rd_kafka_topic_new(broker->rk, name, NULL);
		if (topic->handle == NULL)
		{
			explain(err, errlen, "%s", rd_kafka_err2str(rd_kafka_last_error()));
			free(topic);
			return NULL;
		}
		memcpy(topic->name, name, length);
		topic->next = *bucket;
		*bucket = topic;
	}
	broker->last_topic = topic;
	return topic->handle;
}

/*
 * What an error says of a record.  alone: no other record was in the batch that
 * the broker refused, so it is this one that it does not want.
 */
static BrokerOutcome
outcome_of(rd_kafka_resp_err_t error, bool alone)
{
	switch (error)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			return BROKER_OK;

		case RD_KAFKA_RESP_ERR__QUEUE_FULL:
			return BROKER_FULL;

			/* the record itself, or another one of its batch */
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
#if RD_KAFKA_VERSION >= 0x020400ff
		case RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD:
#endif
			return alone ? BROKER_REFUSED : BROKER_REFUSED_BATCH;

			/*
			 * The same, but a clock, or the line, may have been wrong. INVALID_MSG is also how old brokers refuse a record without a key in a
			 * compacted topic.
			 */
		case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
		case RD_KAFKA_RESP_ERR_INVALID_MSG:
			return alone ? BROKER_REFUSED_RETRY : BROKER_REFUSED_BATCH;

		case RD_KAFKA_RESP_ERR__INVALID_ARG:
			return BROKER_REFUSED;

		case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
			return BROKER_REFUSED_RETRY;

			/*
			 * The topic's state, or our rights: someone can act.  __DESTROY is said of a topic that was deleted under the record.
			 */
		case RD_KAFKA_RESP_ERR__DESTROY:
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_INVALID_CONFIG:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE:
			return BROKER_REFUSED_TOPIC;

		case RD_KAFKA_RESP_ERR__FATAL:
			return BROKER_FATAL;

			/*
			 * All else is about the line or the cluster, not about a record: time-outs, purges, NOT_ENOUGH_REPLICAS and the like, which the library
			 * has repeated up to message.timeout.ms.  A lost sequence is one of them too: broker_health() then says BROKER_DEAD.
			 */
		default:
			return BROKER_UNKNOWN;
	}
}

/* What an error says of a topic that was asked for. */
static BrokerOutcome
outcome_of_topic(rd_kafka_resp_err_t error)
{
	return outcome_of(error, true);
}

/* What is only just being made is asked for again: wait a moment; false, at once, if there is none left before the limit. */
static bool
wait_to_retry(int64_t limit)
{
	struct timespec pause = {0, TOPIC_RETRY_MS * 1000000L};

	if (limit - now_ms() <= TOPIC_RETRY_MS)
		return false;
	nanosleep(&pause, NULL);
	return true;
}

/* see broker.h */
BrokerOutcome
broker_topic(Broker *broker, const char *topic, int timeout_ms, int *partitions,
			 char *err, size_t errlen)
{
	int64_t		limit = now_ms() + timeout_ms;
	rd_kafka_topic_t *handle;
	rd_kafka_resp_err_t error;

	*partitions = 0;

	/* a consumer's handle is not kept: it would ask for the topic for ever */
	if (broker->role == BROKER_PRODUCER)
		handle = find_topic(broker, topic, err, errlen);
	else if ((handle = rd_kafka_topic_new(broker->rk, topic, NULL)) == NULL)
		explain(err, errlen, "%s", rd_kafka_err2str(rd_kafka_last_error()));
	if (handle == NULL)
		return BROKER_REFUSED_TOPIC;

	for (;;)
	{
		const struct rd_kafka_metadata *metadata;
		int64_t		left = limit - now_ms();
		bool		appearing;

		error = rd_kafka_metadata(broker->rk, 0, handle, &metadata, (int) Max(left, 1));
		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			note_success(broker);
			error = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
			if (metadata->topic_cnt == 1)
			{
				error = metadata->topics[0].err;
				*partitions = metadata->topics[0].partition_cnt;
			}
			rd_kafka_metadata_destroy(metadata);
		}

		/* a topic just made, perhaps by this very question */
		appearing = error == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE ||
			(error == RD_KAFKA_RESP_ERR_NO_ERROR && *partitions == 0) ||
			(error == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART &&
			 broker->role == BROKER_PRODUCER);
		if (!appearing || !wait_to_retry(limit))
			break;
	}

	if (broker->role == BROKER_CONSUMER)
		rd_kafka_topic_destroy(handle);
	next_delivery(broker);
	if (error == RD_KAFKA_RESP_ERR_NO_ERROR && *partitions > 0)
		return BROKER_OK;

	explain(err, errlen, "%s", error == RD_KAFKA_RESP_ERR_NO_ERROR ?
			"topic has no partition yet" : rd_kafka_err2str(error));
	*partitions = 0;
	return error == RD_KAFKA_RESP_ERR_NO_ERROR ? BROKER_UNKNOWN : outcome_of(error, true);
}

/* see broker.h */
bool
broker_ask_topic(Broker *broker, const char *topic, bool want_ends, int timeout_ms)
{
	if (broker->asker == NULL)
		broker->asker = topic_asker_open(broker->rk, broker->wake[1], outcome_of_topic);
	return broker->asker && topic_asker_ask(broker->asker, topic, want_ends, timeout_ms);
}

/* see broker.h */
bool
broker_topic_answer(Broker *broker, BrokerTopicAnswer *answer)
{
	if (broker->asker == NULL || !topic_asker_answer(broker->asker, answer))
		return false;
	if (!answer->no_broker)
		note_success(broker);
	return true;
}

/* see broker.h */
int
broker_partition(Broker *broker, const void *key, size_t length, int partitions)
{
	if (broker->partitioner == NULL || key == NULL || length == 0 || partitions <= 0)
		return -1;
	return broker->partitioner(NULL, key, length, partitions, NULL, NULL);
}

/* see broker.h */
size_t
broker_topic_limit(Broker *broker, int64_t max_bytes)
{
	char		value[32];
	size_t		size = sizeof(value);

	if (max_bytes <= 0 ||
		rd_kafka_conf_get(rd_kafka_conf(broker->rk), "batch.size", value, &size) != RD_KAFKA_CONF_OK ||
		max_bytes >= strtoll(value, NULL, 10) + BATCH_OVERHEAD)
		return 0;
	return (size_t) Max(max_bytes - BATCH_OVERHEAD, 1);
}

/* see broker.h */
size_t
broker_record_size(const BrokerRecord *record)
{
	size_t		size = RECORD_OVERHEAD + record->key_length + record->value_length;

	for (int i = 0; i < record->nheaders; i++)
		size += HEADER_OVERHEAD + strlen(record->headers[i].name) + record->headers[i].length;
	return size;
}

/* see broker.h */
bool
broker_watermarks(Broker *broker, const char *topic, int32_t partition, int timeout_ms,
				  int64_t *low, int64_t *high, char *err, size_t errlen)
{
	int64_t		limit = now_ms() + timeout_ms;
	rd_kafka_resp_err_t error;

	/* the leader of a topic just made does not know of it yet */
	do
		error = rd_kafka_query_watermark_offsets(broker->rk, topic, partition, low, high,
												 (int) Max(limit - now_ms(), 1));
	while ((error == RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION || error == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) &&
		   wait_to_retry(limit));
	if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
		return explain(err, errlen, "%s", rd_kafka_err2str(error));
	note_success(broker);
	return true;
}

/* see broker.h */
bool
broker_look_begin(Broker *broker, const char *const *topics, int ntopics, int timeout_ms)
{
	if (broker->look)
		return false;
	broker->look = kafka_look_begin(broker->rk, broker->wake[1], topics, ntopics, timeout_ms);
	return broker->look != NULL;
}

/* see broker.h */
BrokerLook *
broker_look_take(Broker *broker)
{
	BrokerLook *result;

	if (broker->look == NULL || !kafka_look_done(broker->look))
		return NULL;
	result = kafka_look_end(broker->look);
	broker->look = NULL;
	next_delivery(broker);
	if (result->answered)
		note_success(broker);
	else if (broker->any_cause)
		explain(result->reason, sizeof(result->reason), "%s", broker->reason);
	return result;
}

/* see broker.h */
const char *
broker_version(void)
{
	static char version[64];

	if (version[0] == '\0')
		snprintf(version, sizeof(version), "librdkafka %s", rd_kafka_version_str());
	return version;
}

/* ---------- producer ---------- */

/* see broker.h */
BrokerOutcome
broker_publish(Broker *broker, const BrokerRecord *record, char *err, size_t errlen)
{
	rd_kafka_topic_t *topic = find_topic(broker, record->topic, err, errlen);
	rd_kafka_headers_t *headers = NULL;
	rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;

	if (topic == NULL)
		return BROKER_REFUSED_TOPIC;

	if (record->nheaders > 0)
	{
		headers = rd_kafka_headers_new((size_t) record->nheaders);
		for (int i = 0; i < record->nheaders && !error; i++)
			error = rd_kafka_header_add(headers, record->headers[i].name, -1,
										record->headers[i].value,
										(ssize_t) record->headers[i].length);
	}

	if (!error)
		error = rd_kafka_producev(broker->rk,
								  RD_KAFKA_V_RKT(topic),
								  RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
								  RD_KAFKA_V_KEY(record->key, record->key_length),
								  RD_KAFKA_V_VALUE((void *) record->value, record->value_length),
								  RD_KAFKA_V_HEADERS(headers),
								  RD_KAFKA_V_OPAQUE(record->opaque),
								  RD_KAFKA_V_END);
	if (!error)
		return BROKER_OK;

	/* what is not queued is still ours */
	if (headers)
		rd_kafka_headers_destroy(headers);
	explain(err, errlen, "%s", rd_kafka_err2str(error));
	if (error == RD_KAFKA_RESP_ERR__FATAL)
	{
		note_fatal(broker);
		explain(err, errlen, "%s", broker->reason);
	}
	return outcome_of(error, true);
}

/* Fill a report from a message that the library reports on. */
static void
fill_report(Broker *broker, const rd_kafka_message_t *message, BrokerReport *report)
{
	report->opaque = message->_private;
	report->partition = message->partition;
	report->offset = message->offset;
	report->outcome = outcome_of(message->err, broker->delivery_alone);

	/*
	 * A request that the partition's leader refused because it was not the leader yet is taken for done when the next one, under way with it, is
	 * accepted: a new producer may begin at any sequence number.  Only what the broker has confirmed itself has an offset.
	 */
	if (report->outcome == BROKER_OK && message->offset < 0)
		report->outcome = BROKER_REFUSED_BATCH;
	report->reason[0] = '\0';
	if (message->err)
	{
		const char *words = NULL;

#if RD_KAFKA_VERSION >= 0x020400ff
		/* what the broker said, if anything, tells more than its code */
		words = rd_kafka_message_produce_errstr(message);
#endif
		if (words == NULL)
			words = rd_kafka_err2str(message->err);
		snprintf(report->reason, sizeof(report->reason), "%s", words);
	}
}

/* see broker.h */
int
broker_reports(Broker *broker, BrokerReport *reports, int max)
{
	int			count = 0;

	empty_pipe(broker);
	while (count < max && next_delivery(broker))
	{
		const rd_kafka_message_t *messages[REPORTS_AT_ONCE];
		size_t		taken;

		taken = rd_kafka_event_message_array(broker->delivery, messages,
											 (size_t) Min(max - count, REPORTS_AT_ONCE));
		if (taken == 0)
		{
			rd_kafka_event_destroy(broker->delivery);
			broker->delivery = NULL;
			continue;
		}
		for (size_t i = 0; i < taken; i++)
		{
			fill_report(broker, messages[i], &reports[count]);
			if (reports[count++].outcome == BROKER_OK)
				note_success(broker);
		}
	}

	if (broker->delivery || rd_kafka_queue_length(broker->events) > 0)
		poke(broker);
	return count;
}

/* see broker.h */
void
broker_purge(Broker *broker)
{
	rd_kafka_purge(broker->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
				   RD_KAFKA_PURGE_F_NON_BLOCKING);
}

/* ---------- consumer ---------- */

/* The library's list of positions, to be destroyed by the caller. */
static rd_kafka_topic_partition_list_t *
position_list(const BrokerPosition *positions, int npositions)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(npositions);

	for (int i = 0; i < npositions; i++)
		rd_kafka_topic_partition_list_add(list, positions[i].topic, positions[i].partition)->offset =
			positions[i].offset == BROKER_BEGINNING ? RD_KAFKA_OFFSET_BEGINNING :
			positions[i].offset;
	return list;
}

/* see broker.h */
bool
broker_assign(Broker *broker, const BrokerPosition *positions, int npositions,
			  char *err, size_t errlen)
{
	rd_kafka_topic_partition_list_t *list = position_list(positions, npositions);
	rd_kafka_resp_err_t error;

	settle(broker->rk);
	error = rd_kafka_assign(broker->rk, list);
	if (error)
		explain(err, errlen, "%s", rd_kafka_err2str(error));
	if (broker->assigned)
		rd_kafka_topic_partition_list_destroy(broker->assigned);
	broker->assigned = list;
	return error == RD_KAFKA_RESP_ERR_NO_ERROR;
}

/*
 * Before librdkafka 2.2, a thread that stopped fetching because enough was
 * queued looks again a second later, unless something wakes it; a fast reader
 * would starve.  Any request to its broker does that, so now and then ask all
 * leaders for something cheap, and hardly wait for the answer.
 */
static void
hurry(Broker *broker, const rd_kafka_message_t *message)
{
	broker->hurry_records++;
	broker->hurry_bytes += message->len;
	if (broker->hurry_records < FETCH_AHEAD_RECORDS / 2 &&
		broker->hurry_bytes < FETCH_AHEAD_KB * 1024 / 2)
		return;

	for (int i = 0; i < broker->assigned->cnt; i++)
		broker->assigned->elems[i].offset = INT64_MAX;	/* a time: none is later */
	rd_kafka_offsets_for_times(broker->rk, broker->assigned, 1);
	broker->hurry_records = broker->hurry_bytes = 0;
}

/* Keep what a partition that cannot be read says, once in a row. */
static void
note_consumer_error(Broker *broker, const rd_kafka_message_t *message)
{
	char		words[sizeof(broker->reason)];

	if (message->rkt)
		snprintf(words, sizeof(words), "topic \"%s\", partition %d: %s",
				 rd_kafka_topic_name(message->rkt), (int) message->partition,
				 rd_kafka_message_errstr(message));
	else
		snprintf(words, sizeof(words), "%s", rd_kafka_message_errstr(message));
	note_unreadable(broker, message->err, words);
	note_fatal(broker);
}

/* see broker.h */
int
broker_consume(Broker *broker, BrokerMessage *messages, int max)
{
	int			count = 0;
	ssize_t		taken;

	broker_release(broker);
	if (max > broker->batch_room)
	{
		void	   *larger = realloc(broker->batch, (size_t) max * sizeof(*broker->batch));

		if (larger)
		{
			broker->batch = larger;
			broker->batch_room = max;
		}
		max = broker->batch_room;
	}

	empty_pipe(broker);
	next_delivery(broker);
	taken = rd_kafka_consume_batch_queue(broker->records, 0, broker->batch, (size_t) max);
	for (ssize_t i = 0; i < taken; i++)
	{
		rd_kafka_message_t *message = broker->batch[i];

		bool		broken = message->err == RD_KAFKA_RESP_ERR__BAD_COMPRESSION;

		if (message->err && message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF && !broken)
		{
			note_consumer_error(broker, message);
			rd_kafka_message_destroy(message);
			continue;
		}
		broker->batch[count] = message;
		messages[count].broken = broken;
		messages[count].end = message->err != RD_KAFKA_RESP_ERR_NO_ERROR && !broken;
		messages[count].topic = rd_kafka_topic_name(message->rkt);
		messages[count].partition = message->partition;
		messages[count].offset = message->offset;
		messages[count].time_ms = rd_kafka_message_timestamp(message, NULL);
		messages[count].key = message->key;
		messages[count].key_length = message->key_len;
		/* where there is no record, the library has words there */
		messages[count].value = message->err ? NULL : message->payload;
		messages[count].value_length = message->err ? 0 : message->len;
		messages[count].handle = message;
		count++;
		if (broker->must_hurry)
			hurry(broker, message);
	}
	/* no note_success(): they may have been fetched long ago */
	broker->batch_count = count;

	if (rd_kafka_queue_length(broker->records) > 0)
		poke(broker);
	return count;
}

/* see broker.h */
bool
broker_lost_partition(Broker *broker)
{
	bool		lost = broker->lost_partition;

	broker->lost_partition = false;
	return lost;
}

/* see broker.h */
void
broker_release(Broker *broker)
{
	for (int i = 0; i < broker->batch_count; i++)
		rd_kafka_message_destroy(broker->batch[i]);
	broker->batch_count = 0;
}

/* see broker.h */
bool
broker_header(const BrokerMessage *message, const char *name, const void **value,
			  size_t *length)
{
	rd_kafka_headers_t *headers;

	return rd_kafka_message_headers(message->handle, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR &&
		rd_kafka_header_get_last(headers, name, value, length) == RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* see broker.h */
void
broker_commit(Broker *broker, const BrokerPosition *positions, int npositions)
{
	rd_kafka_topic_partition_list_t *list = position_list(positions, npositions);

	rd_kafka_commit(broker->rk, list, 1);
	rd_kafka_topic_partition_list_destroy(list);
}
