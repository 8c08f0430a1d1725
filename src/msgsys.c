/*
 * msgsys.c
 *		The library's entry: settings, hooks, registration of the launcher.
 */
#include "msgsys.h"

#include <limits.h>

#include "compat.h"
#include "jwt.h"
#include "shmem.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/guc.h"
#include "utils/varlena.h"

MSGSYS_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

char	   *setting_databases = NULL;
char	   *setting_role = NULL;
char	   *setting_identity = NULL;
bool		setting_ack_token = false;
int			setting_relay_workers = 1;
int			setting_receiver_workers = 1;
int			setting_webhook_workers = 1;
int			setting_max_databases = 4;
int			setting_max_channels = 1024;
char	   *setting_kafka_brokers = NULL;
char	   *setting_kafka_options = NULL;
char	   *setting_kafka_options_file = NULL;
char	   *setting_kafka_topic = NULL;
int			setting_kafka_ack = ACK_READBACK;
char	   *setting_kafka_group = NULL;
char	   *setting_acks_topic = NULL;
char	   *setting_source = NULL;
int			setting_batch_size = 20000;
int			setting_batch_bytes = 16384;
int			setting_poll_interval = 5000;
int			setting_sweep_interval = 60000;
int			setting_send_timeout = 2000;
int			setting_catch_up_limit = 60000;
int			setting_max_message_bytes = 1000000;
int			setting_log_batch = 1000;
char	   *setting_webhook_url = NULL;
char	   *setting_webhook_allow = NULL;
int			setting_webhook_connections = 256;
char	   *setting_redis_url = NULL;
char	   *setting_redis_ca_file = NULL;
char	   *setting_redis_prefix = NULL;
int			setting_redis_ttl = 86400;
int			setting_redis_timeout = 100;
int			setting_grace_period = 5000;
int			setting_keep_runs = 30 * 86400;
int			setting_max_backlog = 0;
int			setting_backlog_action = BACKLOG_ERROR;
int			setting_clock_offset = 0;
char	   *setting_http_listen = NULL;
int			setting_http_workers = 1;
char	   *setting_http_database = NULL;
char	   *setting_http_role = NULL;
char	   *setting_http_anonymous_role = NULL;
int			setting_http_jwt_algorithm = JWT_HS256;
char	   *setting_http_jwt_secret = NULL;
char	   *setting_http_jwt_keys_file = NULL;
char	   *setting_http_jwt_audience = NULL;
char	   *setting_http_jwt_role_claim = NULL;
int			setting_http_connections = 256;
int			setting_http_connections_per_peer = 128;
int			setting_http_max_header = 32;
int			setting_http_max_body = 8192;
int			setting_http_max_rows = 10000;
int			setting_http_max_response = 65536;
int			setting_http_request_timeout = 30000;
int			setting_http_statement_timeout = 10000;
int			setting_http_lock_timeout = 2000;
bool		setting_http_tx_override = false;
char	   *setting_http_cors_origins = NULL;
char	   *setting_http_compat = NULL;
char	   *setting_http_files = NULL;

static const struct config_enum_entry ack_options[] = {
	{"none", ACK_NONE, false},
	{"readback", ACK_READBACK, false},
	{"topic", ACK_TOPIC, false},
	{NULL, 0, false}
};

static const struct config_enum_entry backlog_options[] = {
	{"error", BACKLOG_ERROR, false},
	{"warning", BACKLOG_WARNING, false},
	{NULL, 0, false}
};

static const struct config_enum_entry jwt_options[] = {
	{"HS256", JWT_HS256, false},
	{"RS256", JWT_RS256, false},
	{"ES256", JWT_ES256, false},
	{NULL, 0, false}
};

static const char *const stage_names[STAGE_COUNT] = {
	[STAGE_RELAY] = "relay",
	[STAGE_RECEIVER] = "receiver",
	[STAGE_WEBHOOK] = "webhook",
	[STAGE_SCHEDULER] = "scheduler",
	[STAGE_HTTP] = "http",
};

const char *
stage_name(Stage stage)
{
	return stage_names[stage];
}

bool
setting_lists(const char *list, const char *name)
{
	List	   *names;
	ListCell   *lc;

	if (list[0] == '\0' || !SplitGUCList(pstrdup(list), ',', &names))
		return false;
	foreach(lc, names)
	{
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	}
	return false;
}

int
stage_workers(Stage stage)
{
	switch (stage)
	{
		case STAGE_RELAY:
			return setting_relay_workers;
		case STAGE_RECEIVER:
			return setting_receiver_workers;
		case STAGE_WEBHOOK:
			return setting_webhook_workers;
		case STAGE_SCHEDULER:
			return 1;
		case STAGE_HTTP:
			return setting_http_listen && setting_http_listen[0] ? setting_http_workers : 0;
		case STAGE_COUNT:
			break;
	}
	return 0;
}

/* A setting of type text that a reload applies. */
static void
define_text(const char *name, char **variable, const char *boot, int flags,
			const char *description, const char *detail)
{
	DefineCustomStringVariable(name, description, detail, variable, boot,
							   PGC_SIGHUP, flags, NULL, NULL, NULL);
}

/* A number that a reload applies. */
static void
define_number(const char *name, int *variable, int boot, int min, int max,
			  int unit, const char *description, const char *detail)
{
	DefineCustomIntVariable(name, description, detail, variable, boot, min, max,
							PGC_SIGHUP, unit, NULL, NULL, NULL);
}

/* A number that only a start of the server applies. */
static void
define_fixed(const char *name, int *variable, int boot, int min, int max,
			 const char *description, const char *detail)
{
	DefineCustomIntVariable(name, description, detail, variable, boot, min, max,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
}

static void
define_http_settings(void)
{
	define_text("msgsys.http_database", &setting_http_database, "", 0,
				"Database that is served by HTTP.",
				"Empty means the first of msgsys.databases.");
	define_text("msgsys.http_role", &setting_http_role, "", 0,
				"Role as which the HTTP workers log in.",
				"An ordinary role that may become the roles that tokens name (GRANT role TO http_role), and nothing else; never a superuser.");
	define_text("msgsys.http_anonymous_role", &setting_http_anonymous_role, "", 0,
				"Role of HTTP requests without a token.",
				"Empty means that there must be one.");
	DefineCustomEnumVariable("msgsys.http_jwt_algorithm", "Algorithm that tokens (JWT) are signed with.",
							 "The token's own word on that must be the same.",
							 &setting_http_jwt_algorithm, JWT_HS256, jwt_options, PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_text("msgsys.http_jwt_secret", &setting_http_jwt_secret, "", GUC_SUPERUSER_ONLY,
				"Secret that tokens are signed with, at least 32 bytes; for RS256 and ES256 the public key in PEM.",
				"Keys of msgsys.http_jwt_keys_file count too.");
	define_text("msgsys.http_jwt_keys_file", &setting_http_jwt_keys_file, "", GUC_SUPERUSER_ONLY,
				"File with keys of tokens: a secret a line, or public keys in PEM.",
				"All of them count, so that keys can be changed one after the other. Read at a reload.");
	define_text("msgsys.http_jwt_audience", &setting_http_jwt_audience, "", 0,
				"Audience that a token must name, if it names any.", "Empty means that none is asked for.");
	define_text("msgsys.http_jwt_role_claim", &setting_http_jwt_role_claim, "role", 0,
				"Claim of a token that names the role.", "Dots lead into objects.");
	define_number("msgsys.http_connections", &setting_http_connections, 256, 1, 10000, 0,
				  "Most connections of an HTTP worker at once.", "More wait to be accepted.");
	define_number("msgsys.http_connections_per_peer", &setting_http_connections_per_peer, 128, 0, 10000, 0,
				  "Most connections of an HTTP worker from one address.", "More are closed at once; 0 means no limit.");
	define_number("msgsys.http_max_header", &setting_http_max_header, 32, 4, 1024, GUC_UNIT_KB,
				  "Largest request line and header.", NULL);
	define_number("msgsys.http_max_body", &setting_http_max_body, 8192, 1, 1024 * 1024, GUC_UNIT_KB,
				  "Largest body of an HTTP request.", NULL);
	define_number("msgsys.http_max_rows", &setting_http_max_rows, 10000, 0, INT_MAX, 0,
				  "Most rows in an answer.", "0 means no limit.");
	define_number("msgsys.http_max_response", &setting_http_max_response, 65536, 64, 512 * 1024, GUC_UNIT_KB,
				  "Largest body of an answer.", "A request whose answer would be larger fails.");
	define_number("msgsys.http_request_timeout", &setting_http_request_timeout, 30000, 100, 3600000, GUC_UNIT_MS,
				  "Longest time for an HTTP request to arrive, for its answer to be taken, and for a connection to be idle.", NULL);
	define_number("msgsys.http_statement_timeout", &setting_http_statement_timeout, 10000, 0, INT_MAX, GUC_UNIT_MS,
				  "Longest time that an HTTP request may take in the database.", "0 means no limit.");
	define_number("msgsys.http_lock_timeout", &setting_http_lock_timeout, 2000, 0, INT_MAX, GUC_UNIT_MS,
				  "Longest wait of an HTTP request for a lock.", "0 means no limit.");
	DefineCustomBoolVariable("msgsys.http_tx_override", "Whether HTTP requests may say tx=rollback.", NULL,
							 &setting_http_tx_override, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_text("msgsys.http_cors_origins", &setting_http_cors_origins, "", GUC_LIST_INPUT,
				"Origins whose pages may call the HTTP facade.", "Empty means all of them, without credentials.");
	define_text("msgsys.http_compat", &setting_http_compat, "", GUC_LIST_INPUT,
				"Systems whose HTTP routes are answered too.", "A list of 000, 001, 002, 003 and 004.");

	define_text("msgsys.http_files", &setting_http_files, "", GUC_SUPERUSER_ONLY,
				"Directory of the pages at /ui and /docs.", "Empty means \"msgsys\" in PostgreSQL's shared directory.");

	if (process_shared_preload_libraries_in_progress)
	{
		DefineCustomStringVariable("msgsys.http_listen", "Address at which HTTP is served.",
								   "host:port, or :port for all addresses; empty means that it is not.",
								   &setting_http_listen, "", PGC_POSTMASTER, 0, NULL, NULL, NULL);
		define_fixed("msgsys.http_workers", &setting_http_workers, 1, 1, 64,
					 "Workers that serve HTTP; they share the port.", NULL);
	}
}

static void
define_settings(void)
{
	define_text("msgsys.databases", &setting_databases, "postgres", GUC_LIST_INPUT,
				"Databases whose messages are worked on.",
				"A list of names; at most msgsys.max_databases of them.");
	define_text("msgsys.role", &setting_role, "", 0,
				"Role as which the workers connect.",
				"Empty means the owner of the extension.");
	define_text("msgsys.identity", &setting_identity, "", 0,
				"Name of this installation among physical copies of it.",
				"A copy of the data directory needs another name, lest it sends what the original sends.");
	DefineCustomBoolVariable("msgsys.ack_token", "Whether consumers' acknowledgements must bring back their record's stamp.",
							 "The header msgsys-stamp of the record is then the member \"token\" of the answer; without it, whoever may write to the acknowledgement topic acknowledges any message.",
							 &setting_ack_token, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_text("msgsys.kafka_brokers", &setting_kafka_brokers, "", GUC_LIST_INPUT,
				"Kafka brokers to begin with: host:port, comma separated.",
				"Empty means that there is no broker: messages for topics wait.");
	define_text("msgsys.kafka_options", &setting_kafka_options, "",
				GUC_SUPERUSER_ONLY,
				"Options of the Kafka client: name=value, comma separated.",
				"Any option of librdkafka, such as security.protocol and sasl.password.");
	define_text("msgsys.kafka_options_file", &setting_kafka_options_file, "",
				GUC_SUPERUSER_ONLY,
				"File with options of the Kafka client, one name=value a line.",
				"Read when a worker connects; msgsys.kafka_options wins over it.");
	define_text("msgsys.kafka_topic", &setting_kafka_topic, "", 0,
				"Topic of the channel \"default\" while it has no row of its own.",
				NULL);
	DefineCustomEnumVariable("msgsys.kafka_ack",
							 "What the channel \"default\" takes for an acknowledgement while it has no row of its own.",
							 NULL, &setting_kafka_ack, ACK_READBACK, ack_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_text("msgsys.kafka_group", &setting_kafka_group, "", 0,
				"Consumer group under which Kafka shows how far the receiver is.",
				"Empty means msgsys- and the installation's uuid.");
	define_text("msgsys.acks_topic", &setting_acks_topic, "msgsys.acks", 0,
				"Topic to which consumers write their acknowledgements.", NULL);
	define_text("msgsys.source", &setting_source, "", 0,
				"Source of the messages, the CloudEvents attribute of that name.",
				"Empty means /msgsys/ and the database's name.");
	define_number("msgsys.batch_size", &setting_batch_size, 20000, 1, 1000000, 0,
				  "Most messages in one batch of the relay or the receiver.", NULL);
	define_number("msgsys.batch_bytes", &setting_batch_bytes, 16384, 64, 1048576,
				  GUC_UNIT_KB, "Most bytes of values in one batch.",
				  "A batch has one message at least, whatever its size.");
	define_number("msgsys.poll_interval", &setting_poll_interval, 5000, 100, 3600000,
				  GUC_UNIT_MS, "Longest time that a worker sleeps.",
				  "Workers are woken by commits; this is the net below that.");
	define_number("msgsys.sweep_interval", &setting_sweep_interval, 60000, 1000, 3600000,
				  GUC_UNIT_MS, "Longest time between two looks at all that waits.",
				  "Sweeps that are cheap come as often as msgsys.poll_interval.");
	define_number("msgsys.send_timeout", &setting_send_timeout, 2000, 100, 60000,
				  GUC_UNIT_MS, "Longest wait for the broker's next answer within a batch.",
				  "Then the batch is given up: what was confirmed is marked, the rest waits for the broker.");
	define_number("msgsys.catch_up_limit", &setting_catch_up_limit, 60000, 0, 3600000,
				  GUC_UNIT_MS, "Longest time that a channel waits after a crash until its topic is read back.",
				  "Then it goes on, and messages may be sent twice.");
	define_number("msgsys.max_message_bytes", &setting_max_message_bytes, 1000000, 100,
				  512 * 1024 * 1024, GUC_UNIT_BYTE, "Largest value of a message.",
				  "Kafka's own limit must allow as much, and 64 kB for key and headers.");
	define_number("msgsys.log_batch", &setting_log_batch, 1000, -1, INT_MAX, 0,
				  "Batches of at least so many messages are logged.",
				  "-1 logs none.");

	define_text("msgsys.webhook_url", &setting_webhook_url, "", 0,
				"Webhook of the channel \"default\" while it has none of its own.",
				"Empty means that it has none.");
	define_text("msgsys.webhook_allow", &setting_webhook_allow, "",
				GUC_LIST_INPUT | GUC_SUPERUSER_ONLY,
				"Networks that webhooks may call although they are not public.",
				"A list of addresses and networks: 10.1.0.0/16, ::1. PostgreSQL's own port is never called.");
	define_number("msgsys.webhook_connections", &setting_webhook_connections, 256, 1, 10000, 0,
				  "Most requests of a webhook worker at once.", NULL);
	define_text("msgsys.redis_url", &setting_redis_url, "", GUC_SUPERUSER_ONLY,
				"Redis that caches what was delivered.",
				"redis://[user:password@]host[:port][/db], rediss:// for TLS, or unix:///path; empty means that nothing is cached.");
	define_text("msgsys.redis_ca_file", &setting_redis_ca_file, "", 0,
				"Certificates that Redis' own must be signed by one of.",
				"Empty means those that the system trusts.");
	define_text("msgsys.redis_prefix", &setting_redis_prefix, "msgsys:", 0,
				"What the keys in Redis begin with, before the message's id.", NULL);
	define_number("msgsys.redis_ttl", &setting_redis_ttl, 86400, 1, 365 * 86400,
				  GUC_UNIT_S, "How long Redis keeps an entry.", NULL);
	define_number("msgsys.redis_timeout", &setting_redis_timeout, 100, 1, 10000,
				  GUC_UNIT_MS, "Longest wait for Redis.",
				  "After that it is left alone for a while, which grows to 30 s.");

	define_number("msgsys.grace_period", &setting_grace_period, 5000, 0, 600000,
				  GUC_UNIT_MS, "How long a worker that is to end may finish what it has under way.",
				  "Batches of the relay, and requests to webhooks. 0 means not at all; what is not finished is done again.");
	define_number("msgsys.max_backlog", &setting_max_backlog, 0, 0, INT_MAX, 0,
				  "Most messages of a channel that may wait to be sent.",
				  "Beyond it msgsys.backlog_action says what happens. 0 means that there is no limit.");
	DefineCustomEnumVariable("msgsys.backlog_action",
							 "What becomes of a message for a channel that has msgsys.max_backlog waiting.",
							 "An error refuses it; a warning is given once a transaction.",
							 &setting_backlog_action, BACKLOG_ERROR, backlog_options, PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_number("msgsys.keep_runs", &setting_keep_runs, 30 * 86400, 0, INT_MAX, GUC_UNIT_S,
				  "How long the runs of channels with a pace are kept.", "0 means for ever.");
	DefineCustomIntVariable("msgsys.clock_offset", "Seconds that messages' clock is ahead of the system's.",
							"For tests and rehearsals: what is due tomorrow is sent today.",
							&setting_clock_offset, 0, -INT_MAX, INT_MAX, PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);

	if (process_shared_preload_libraries_in_progress)
	{
		define_fixed("msgsys.relay_workers", &setting_relay_workers, 1, 1, 64,
					 "Workers that send to Kafka, in each database.", NULL);
		define_fixed("msgsys.receiver_workers", &setting_receiver_workers, 1, 1, 64,
					 "Workers that read from Kafka, in each database.", NULL);
		define_fixed("msgsys.webhook_workers", &setting_webhook_workers, 1, 0, 64,
					 "Workers that call webhooks, in each database.",
					 "0 means that none are called.");
		define_fixed("msgsys.max_databases", &setting_max_databases, 4, 1, 256,
					 "Most databases that may be in msgsys.databases.", NULL);
		define_fixed("msgsys.max_channels", &setting_max_channels, 1024, 16, 1000000,
					 "Channels that workers can be woken for one by one.",
					 "With more, the waking of a channel without a place costs a sweep.");
	}
	define_http_settings();
	compat_reserve_prefix(MSGSYS_NAME);
}

void
_PG_init(void)
{
	BackgroundWorker launcher = {
		.bgw_name = "msgsys launcher",
		.bgw_type = "msgsys launcher",
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		/* on a standby too, which is read by HTTP */
		.bgw_start_time = BgWorkerStart_ConsistentState,
		.bgw_restart_time = 1,
		.bgw_library_name = MSGSYS_NAME,
		.bgw_function_name = "msgsys_launcher_main",
	};

	define_settings();

	/* Not preloaded: SQL works and messages wait.  No error (restore, tests). */
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	shmem_register();
	hooks_install();
	RegisterBackgroundWorker(&launcher);
}
