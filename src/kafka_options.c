/*
 * kafka_options.c
 *		The settings of a Kafka client: ours, then those of the user's options
 *		file, then the user's options, none of which may break what broker.h
 *		promises.
 *
 * Values of secrets never appear in an error.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* strcasestr */
#endif

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kafka_options.h"

#define OPTIONS_FILE_MAX	(256 * 1024)
#define FETCH_BYTES			((size_t) 1024 * 1024)

#define STRING(number)		STRING_(number)
#define STRING_(number)		#number

#define lengthof(array)		((int) (sizeof(array) / sizeof((array)[0])))
#define Max(x, y)			((x) > (y) ? (x) : (y))

typedef struct Setting
{
	const char *name;
	const char *value;
} Setting;

/*
 * What both roles have in common, and is not the library's default.
 * topic.metadata.propagation.max.ms is how long a topic that is not there may
 * take to appear.
 */
static const Setting common_settings[] = {
	{"log.queue", "true"},
	{"log.connection.close", "false"},
	{"statistics.interval.ms", "0"},
	{"socket.nagle.disable", "true"},
	{"socket.keepalive.enable", "true"},
	{"socket.timeout.ms", "10000"},
	{"socket.connection.setup.timeout.ms", "5000"},
	{"api.version.request.timeout.ms", "5000"},
	{"reconnect.backoff.ms", "100"},
	{"reconnect.backoff.max.ms", "2000"},
	{"topic.metadata.refresh.fast.interval.ms", "100"},
	{"topic.metadata.propagation.max.ms", "500"},
	{"topic.metadata.refresh.interval.ms", "1000"}, /* new partitions; for topics in use, one request */
};

/*
 * A batch is kept well below any sane max.message.bytes of a topic: a record
 * larger than batch.size travels alone, so when a broker refuses a batch as
 * too large, that batch is practically always one record, and no other record
 * suffers.  message.timeout.ms bounds all retries.
 */
static const Setting producer_settings[] = {
	{"enable.idempotence", "true"},
	{"acks", "all"},
	{"compression.codec", "lz4"},
	{"partitioner", "murmur2_random"},
	{"linger.ms", "0"},
	{"batch.size", "131072"},
	{"message.timeout.ms", "30000"},
	{"request.timeout.ms", "10000"},
	{"topic.metadata.refresh.interval.ms", "3000"}, /* new partitions */
};

/*
 * Positions are the caller's.  What is fetched ahead is bounded so that all of
 * it, with the library's own structures, stays below 64 MB.
 */
static const Setting consumer_settings[] = {
	{"enable.auto.commit", "false"},
	{"enable.auto.offset.store", "false"},
	{"enable.partition.eof", "true"},
	{"auto.offset.reset", "earliest"},
	{"allow.auto.create.topics", "false"},
	{"fetch.min.bytes", "1"},
	{"fetch.wait.max.ms", "100"},	/* other requests queue up behind a fetch */
	{"fetch.error.backoff.ms", "100"},
	{"fetch.message.max.bytes", "131072"},
	{"queued.min.messages", STRING(FETCH_AHEAD_RECORDS)},
	{"session.timeout.ms", "300"},	/* at close, for commits that wait */
	{"queued.max.messages.kbytes", STRING(FETCH_AHEAD_KB)},
};

/* Options that may only have this value (NULL: none at all), and why. */
static const struct
{
	const char *name;
	const char *only;
	const char *why;
}			fixed_options[] = {
	{"enable.idempotence", "true", "a retry could duplicate or reorder records"},
	{"acks", "all", "a record could be lost after it was reported"},
	{"request.required.acks", "all", "a record could be lost after it was reported"},
	{"delivery.report.only.error", "false", "every record needs its report"},
	{"enable.gapless.guarantee", "false", "one refused record would stop all others"},
	{"transactional.id", NULL, "transactions are not used"},
	{"enable.auto.commit", "false", "positions are kept in the database"},
	{"auto.commit.enable", "false", "positions are kept in the database"},
	{"enable.auto.offset.store", "false", "positions are kept in the database"},
	{"enable.partition.eof", "true", "what is gone before it is read would not be noticed"},
	{"log.queue", "true", "log lines must not go to the standard error output"},
	{"internal.termination.signal", NULL, "signals belong to PostgreSQL"},
};

/*
 * Does a property hold something that must not be shown?  Rather one too many:
 * it only makes an error message shorter.
 */
static bool
is_secret(const char *name)
{
	static const char *const parts[] = {
		"password", "secret", "pem", "jaas", "key", "sasl.username",
		"oauthbearer.config", "token", "assertion"
	};

	for (int i = 0; i < lengthof(parts); i++)
		if (strcasestr(name, parts[i]))
			return true;
	return false;
}

/* A configuration in the making; once something is wrong, nothing more is set. */
typedef struct Setup
{
	rd_kafka_conf_t *conf;
	bool		ok;
	char	   *err;			/* the caller's, for what was wrong first */
	size_t		errlen;
} Setup;

/* Note what is wrong. */
static void
wrong(Setup *setup, const char *format,...)
{
	va_list		args;

	if (setup->ok && setup->err && setup->errlen > 0)
	{
		va_start(args, format);
		vsnprintf(setup->err, setup->errlen, format, args);
		va_end(args);
	}
	setup->ok = false;
}

/* Set one property of ours or of the user's; NULL is left alone. */
static void
set_property(Setup *setup, const char *name, const char *value)
{
	char		words[512];
	rd_kafka_conf_res_t result;

	if (!setup->ok || value == NULL || value[0] == '\0')
		return;
	result = rd_kafka_conf_set(setup->conf, name, value, words, sizeof(words));

	/* the words for a bad value may quote it, and name what an alias stands for */
	if (result == RD_KAFKA_CONF_UNKNOWN)
		wrong(setup, "%s", words);
	else if (result != RD_KAFKA_CONF_OK)
		wrong(setup, "option \"%s\": %s", name, is_secret(name) ? "invalid value" : words);
}

/* Set a number; 0 is left alone. */
static void
set_number(Setup *setup, const char *name, size_t value)
{
	char		digits[32];

	snprintf(digits, sizeof(digits), "%zu", value);
	set_property(setup, name, value > 0 ? digits : NULL);
}

/* Set a list of properties. */
static void
set_all(Setup *setup, const Setting *settings, int count)
{
	for (int i = 0; i < count; i++)
		set_property(setup, settings[i].name, settings[i].value);
}

/* Set an option of the user's, unless it would break what broker.h promises. */
static void
set_option(Setup *setup, const char *name, const char *value)
{
	size_t		length = strlen(name);

	for (int i = 0; i < lengthof(fixed_options); i++)
	{
		const char *only = fixed_options[i].only;
		const char *spelling = value;

		if (strcasecmp(name, fixed_options[i].name) != 0)
			continue;
		if (only == NULL)
			wrong(setup, "option \"%s\" cannot be set: %s", name, fixed_options[i].why);
		else if (strcasecmp(value, "t") == 0 || strcmp(value, "1") == 0)
			spelling = "true";
		else if (strcasecmp(value, "f") == 0 || strcmp(value, "0") == 0)
			spelling = "false";
		else if (strcmp(value, "-1") == 0)
			spelling = "all";
		if (only && strcasecmp(spelling, only) != 0)
			wrong(setup, "option \"%s\" can only be \"%s\": %s", name, only, fixed_options[i].why);
	}
	if (length > 3 && strcasecmp(name + length - 3, "_cb") == 0)
		wrong(setup, "option \"%s\" cannot be set: callbacks are not used", name);
	if (value[0] == '\0')
		wrong(setup, "option \"%s\" has no value", name);
	set_property(setup, name, value);
}

/* Cut white space off both ends; returns the new start. */
static char *
trim(char *text)
{
	char	   *end;

	while (isspace((unsigned char) *text))
		text++;
	end = text + strlen(text);
	while (end > text && isspace((unsigned char) end[-1]))
		end--;
	*end = '\0';
	return text;
}

/*
 * Set the "name=value" pairs in a text, which is changed.  Pairs are separated
 * by newlines and by the separator given ('\n': only by those); "\," is a
 * comma of a value.  Empty pairs and lines that start with '#' are passed over.
 */
static void
set_options(Setup *setup, char *text, char separator, const char *where)
{
	bool		line_start = true;
	bool		after_secret = false;	/* in this line */
	char	   *from = text;

	while (*from && setup->ok)
	{
		Setup		attempt = *setup;
		char		words[512] = "";
		char	   *pair = from;
		char	   *to = from;
		char	   *value;

		/* in a comment, commas do not count */
		if (line_start && from[strspn(from, " \t\r")] == '#')
		{
			from += strcspn(from, "\n");
			continue;
		}

		for (; *from && *from != '\n' && *from != separator; from++)
		{
			if (from[0] == '\\' && from[1] == ',')
				from++;
			*to++ = *from;
		}
		line_start = (*from == '\n');
		if (*from)
			from++;
		*to = '\0';
		pair = trim(pair);

		if (*pair)
		{
			attempt.err = words;
			attempt.errlen = sizeof(words);
			value = strchr(pair, '=');
			if (value == NULL)
				wrong(&attempt, "an option is not of the form name=value");
			else
			{
				*value++ = '\0';
				pair = trim(pair);
				set_option(&attempt, pair, trim(value));
			}

			/*
			 * What follows an unescaped comma in a password looks like an option of its own, so nothing of it may be shown.
			 */
			if (!attempt.ok && after_secret)
				wrong(setup, "%s: what follows a secret value is not an option"
					  " (a comma in a value is written \"\\,\")", where);
			else if (!attempt.ok)
				wrong(setup, "%s: %s", where, words);
			after_secret = is_secret(pair);
		}
		if (line_start)
			after_secret = false;
	}
}

/* Set the options in a file, one a line. */
static void
set_options_file(Setup *setup, const char *path)
{
	/* not to hang on what is not a file */
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	char	   *text = NULL;
	ssize_t		length = -1;

	if (fd >= 0 && fstat(fd, &st) == 0)
	{
		if (!S_ISREG(st.st_mode) || st.st_size > OPTIONS_FILE_MAX)
			wrong(setup, "options file \"%s\" is not a regular file, or too large", path);
		else if ((text = malloc((size_t) st.st_size + 1)) != NULL)
			length = read(fd, text, (size_t) st.st_size);
	}
	if (length >= 0)
	{
		text[length] = '\0';
		set_options(setup, text, '\n', path);
	}
	else
		wrong(setup, "could not read options file \"%s\": %s", path, strerror(errno));
	free(text);
	if (fd >= 0)
		close(fd);
}

/* Whether a text of this length is the name of a protocol of Kafka, in any case. */
static bool
is_protocol(const char *text, size_t length)
{
	static const char *const protocols[] = {"plaintext", "ssl", "sasl_plaintext", "sasl_ssl"};

	for (int i = 0; i < lengthof(protocols); i++)
		if (strlen(protocols[i]) == length && strncasecmp(text, protocols[i], length) == 0)
			return true;
	return false;
}

/*
 * Refuse brokers that the library would silently make something else of: it
 * gives up the whole list at a protocol that it does not know, and takes a
 * port of more than 16 bits for its lower ones.
 */
static void
check_server(Setup *setup, const char *server)
{
	const char *scheme = strstr(server, "://");
	const char *host = scheme ? scheme + 3 : server;
	const char *colon;

	if (scheme && !is_protocol(server, scheme - server))
		wrong(setup, "brokers: \"%s\" does not begin with a protocol of Kafka (host:port is enough)", server);
	colon = strrchr(host, ':');
	if (colon == NULL || (colon != strchr(host, ':') && colon[-1] != ']'))
		return;					/* no port, or an IPv6 address without one */
	if (colon[1] != '\0' && colon[1] != '/')
	{
		char	   *end;
		long		port = strtol(colon + 1, &end, 10);

		if (!isdigit((unsigned char) colon[1]) || (*end != '\0' && *end != '/') || port < 1 || port > 65535)
			wrong(setup, "brokers: \"%s\" has no port between 1 and 65535", server);
	}
}

static void
check_servers(Setup *setup, const char *servers)
{
	char	   *copy = strdup(servers);
	char	   *rest = copy;
	char	   *server;

	if (copy == NULL)
		wrong(setup, "out of memory");
	while (setup->ok && (server = strsep(&rest, ",")) != NULL)
		check_server(setup, trim(server));
	free(copy);
}

/* see kafka_options.h */
bool
kafka_configure(rd_kafka_conf_t *conf, const BrokerConfig *config, bool *must_hurry,
				char *err, size_t errlen)
{
	Setup		setup = {conf, true, err, errlen};

	if (config->servers == NULL || config->servers[0] == '\0')
		wrong(&setup, "no broker is configured");
	else
		check_servers(&setup, config->servers);

	set_all(&setup, common_settings, lengthof(common_settings));
	set_property(&setup, "bootstrap.servers", config->servers);
	set_property(&setup, "client.id", config->client_id);
	set_number(&setup, "message.max.bytes", config->max_message_bytes);
	if (config->role == BROKER_PRODUCER)
	{
		set_all(&setup, producer_settings, lengthof(producer_settings));
		set_number(&setup, "queue.buffering.max.messages", (size_t) Max(config->max_queued, 0));
	}
	else
	{
		set_all(&setup, consumer_settings, lengthof(consumer_settings));
		set_number(&setup, "fetch.max.bytes", Max(config->max_message_bytes, FETCH_BYTES));

		/* the library wants a group to assign partitions, joined or not */
		set_property(&setup, "group.id", "msgsys");
		set_property(&setup, "group.id", config->group);

		/* new in librdkafka 2.2 */
		*must_hurry = rd_kafka_conf_set(conf, "fetch.queue.backoff.ms", "10",
										NULL, 0) != RD_KAFKA_CONF_OK;
	}

	if (config->options_file && config->options_file[0])
		set_options_file(&setup, config->options_file);
	if (config->options)
	{
		char	   *copy = strdup(config->options);

		if (copy)
			set_options(&setup, copy, ',', "options");
		else
			wrong(&setup, "out of memory");
		free(copy);
	}
	return setup.ok;
}
