/*
 * msgsys.h
 *		What every file of msgsys shares: settings, stages, entry points.
 */
#ifndef MSGSYS_H
#define MSGSYS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"

#define MSGSYS_NAME		"msgsys"
#define MSGSYS_VERSION	"0.1.0"

/* Bytes of a channel's name, the terminating NUL included. */
#define CHANNEL_NAME_MAX	64

/* The channel whose settings come from GUCs until its row is set. */
#define DEFAULT_CHANNEL		"default"

/* A stage of a message's way; each has workers of its own. */
typedef enum Stage
{
	STAGE_RELAY,
	STAGE_RECEIVER,
	STAGE_WEBHOOK,
	STAGE_SCHEDULER,
	STAGE_HTTP,
	STAGE_COUNT
} Stage;

/* What a channel takes for an acknowledgement; the order of setting_ack's values. */
typedef enum AckMode
{
	ACK_NONE,					/* ends as sent */
	ACK_READBACK,				/* our own receiver read it back */
	ACK_TOPIC					/* a consumer wrote to the acknowledgement topic */
} AckMode;

/* What becomes of a message for a channel that is full; the order of setting_backlog_action's values. */
typedef enum BacklogAction
{
	BACKLOG_ERROR,
	BACKLOG_WARNING
} BacklogAction;

/* Settings, defined in msgsys.c; the description of each is there. */
extern char *setting_databases;
extern char *setting_role;
extern char *setting_identity;
extern bool setting_ack_token;
extern int	setting_relay_workers;
extern int	setting_receiver_workers;
extern int	setting_webhook_workers;
extern int	setting_max_databases;
extern int	setting_max_channels;
extern char *setting_kafka_brokers;
extern char *setting_kafka_options;
extern char *setting_kafka_options_file;
extern char *setting_kafka_topic;
extern int	setting_kafka_ack;
extern char *setting_kafka_group;
extern char *setting_acks_topic;
extern char *setting_source;
extern int	setting_batch_size;
extern int	setting_batch_bytes;
extern int	setting_poll_interval;
extern int	setting_sweep_interval;
extern int	setting_send_timeout;
extern int	setting_catch_up_limit;
extern int	setting_max_message_bytes;
extern int	setting_log_batch;
extern char *setting_webhook_url;
extern char *setting_webhook_allow;
extern int	setting_webhook_connections;
extern char *setting_redis_url;
extern char *setting_redis_ca_file;
extern char *setting_redis_prefix;
extern int	setting_redis_ttl;
extern int	setting_redis_timeout;
extern int	setting_grace_period;
extern int	setting_max_backlog;
extern int	setting_backlog_action;
extern int	setting_keep_runs;
extern int	setting_clock_offset;
extern char *setting_http_listen;
extern int	setting_http_workers;
extern char *setting_http_database;
extern char *setting_http_role;
extern char *setting_http_anonymous_role;
extern int	setting_http_jwt_algorithm;
extern char *setting_http_jwt_secret;
extern char *setting_http_jwt_keys_file;
extern char *setting_http_jwt_audience;
extern char *setting_http_jwt_role_claim;
extern int	setting_http_connections;
extern int	setting_http_connections_per_peer;
extern int	setting_http_max_header;
extern int	setting_http_max_body;
extern int	setting_http_max_rows;
extern int	setting_http_max_response;
extern int	setting_http_request_timeout;
extern int	setting_http_statement_timeout;
extern int	setting_http_lock_timeout;
extern bool setting_http_tx_override;
extern char *setting_http_cors_origins;
extern char *setting_http_compat;
extern char *setting_http_files;

/* Name of a stage, as in msg_workers and pg_stat_activity. */
extern const char *stage_name(Stage stage);

/* Number of workers that a stage has in each database. */
extern int	stage_workers(Stage stage);

/* Whether a setting that is a list of names has this one. */
extern bool setting_lists(const char *list, const char *name);

/* The time by which messages come due and expire (functions.c). */
extern TimestampTz clock_now(void);

/* Hooks into utility commands (hooks.c). */
extern void hooks_install(void);

/* Processes (launcher.c, worker.c, and one file a stage). */
extern PGDLLEXPORT void msgsys_launcher_main(Datum arg);
extern PGDLLEXPORT void msgsys_worker_main(Datum arg);
extern void relay_main(void);
extern void receiver_main(void);
extern void webhook_main(void);
extern void scheduler_main(void);
extern void facade_main(void);

#endif							/* MSGSYS_H */
