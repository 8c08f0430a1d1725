/*
 * kafka_options.c
 *		Fuzzes the options of the Kafka client (src/kafka_options.c).
 *
 * Whatever options are taken, what the stages rely on is as it was; an error has words, and
 * none of them is a secret.  First a byte for the role, then a line each of brokers and of a
 * password, then options.
 */
#include "kafka_options.h"

#include <strings.h>

#include "fuzz.h"

extern int	fuzz_kafka_options(const uint8_t *data, size_t size);

#define SECRET	"hunter2hunter2"

static void
check_setting(const rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		is[512] = "";
	size_t		size = sizeof(is);

	PROPERTY(rd_kafka_conf_get(conf, name, is, &size) == RD_KAFKA_CONF_OK);
	PROPERTY(strcmp(is, value) == 0);
}

static void
check_configuration(const rd_kafka_conf_t *conf, BrokerRole role)
{
	check_setting(conf, "log.queue", "true");
	if (role == BROKER_PRODUCER)
	{
		check_setting(conf, "enable.idempotence", "true");
		check_setting(conf, "enable.gapless.guarantee", "false");
		check_setting(conf, "delivery.report.only.error", "false");
	}
	else
	{
		check_setting(conf, "enable.auto.commit", "false");
		check_setting(conf, "enable.auto.offset.store", "false");
		check_setting(conf, "enable.partition.eof", "true");
	}
}

/* Configure a client; false: refused. */
static bool
configure(const BrokerConfig *config)
{
	char		err[300] = "";
	bool		must_hurry = false;
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	bool		good = kafka_configure(conf, config, &must_hurry, err, sizeof(err));

	PROPERTY(good == (err[0] == '\0'));
	PROPERTY(strstr(err, SECRET) == NULL);
	if (good)
		check_configuration(conf, config->role);
	rd_kafka_conf_destroy(conf);
	return good;
}

int
fuzz_kafka_options(const uint8_t *data, size_t size)
{
	FuzzInput	input = fuzz_input(data, size);
	BrokerConfig config = {.role = fuzz_byte(&input) % 2 ? BROKER_PRODUCER : BROKER_CONSUMER,.client_id = "c",.group = "g",
	.max_message_bytes = 1000000,.max_queued = 1000};
	char	   *servers = fuzz_line(&input);
	char	   *password = fuzz_line(&input);
	char	   *options = fuzz_rest(&input);
	size_t		room = strlen(password) + strlen(options) + 100;
	char	   *all = malloc(room);

	/* a library that an option names would be loaded at once; and who knows the secret may say it */
	if (strcasestr(options, "plugin") == NULL && strcasestr(password, "plugin") == NULL && memmem(data, size, SECRET, strlen(SECRET)) == NULL)
	{
		config.servers = servers;
		config.options = options;
		configure(&config);

		/* a secret is in no error; nor what follows a comma in one, that should have been escaped */
		config.servers = "localhost";
		config.options = all;
		for (char *c = password; *c; c++)
			if (*c == ',')
				*c = ';';
		snprintf(all, room, "sasl.password=%s%s,%s", password, SECRET, options);
		configure(&config);
		snprintf(all, room, "sasl.password=%s,%s", password, SECRET);
		configure(&config);
	}
	free(all);
	free(options);
	free(password);
	free(servers);
	return 0;
}
