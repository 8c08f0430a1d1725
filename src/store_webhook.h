/*
 * store_webhook.h
 *		The SQL statements of the webhook stage.
 */
#ifndef MSGSYS_STORE_WEBHOOK_H
#define MSGSYS_STORE_WEBHOOK_H

#include "msgsys.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

#include "breaker.h"
#include "http_client.h"
#include "signature.h"

/* A signing secret. */
typedef struct WebhookSecret
{
	const char *value;
	TimestampTz expires_at;		/* DT_NOEND: never */
} WebhookSecret;

/* A channel's webhook, as its settings say; all in the memory that it was read into. */
typedef struct Webhook
{
	char		channel[CHANNEL_NAME_MAX];
	const char *url;
	const char *method;
	HttpHeader *headers;		/* secret ones and credentials included */
	bool	   *secret;			/* which of them nobody may see */
	int			nheaders;
	Jsonb	   *body_template;	/* NULL: the payload as it is */
	bool		cloudevents;
	int			timeout_ms;
	int			connect_timeout_ms;
	int64	   *success_codes;	/* none: 2xx */
	int			nsuccess_codes;
	int64	   *retry_codes;	/* none: 408, 425, 429, 5xx */
	int			nretry_codes;
	int64	   *schedule;		/* microseconds; none: exponential */
	int			nschedule;
	int64		retry_base;
	int64		retry_max;
	int			max_attempts;
	int64		retry_after_max;
	int			concurrency;
	double		rate;			/* a second; 0: no limit */
	bool		ordered;
	bool		http2;
	int			redirects;
	const char *ca_file;
	const char *proxy;
	const char *client_cert;
	const char *client_key;
	bool		keep_attempts;
	BreakerSettings breaker;
	bool		disabled;
	WebhookSecret secrets[SIGNATURE_SECRETS_MAX];
	int			nsecrets;
	const char *fault;			/* why its settings cannot be read: only channel and disabled are; NULL: they can */
} Webhook;

/* What becomes of a message after an attempt, or without one. */
typedef enum Verdict
{
	VERDICT_DELIVERED,
	VERDICT_RETRY,
	VERDICT_DEAD,
	VERDICT_EXPIRED,
	VERDICT_HELD				/* as it was: the webhook is disabled */
} Verdict;

typedef struct WebhookMark
{
	int64		id;
	const char *channel;
	Verdict		verdict;
	int			attempt;		/* its number */
	TimestampTz due_at;			/* of a retry */
	bool		keep;			/* the attempt is a row of msg_attempts */
	int			milliseconds;
	int			code;			/* 0: no answer */
	const char *class;
	const char *address;		/* NULL: none; so are the others */
	const char *response_id;
	const char *error;
	const char *excerpt;
} WebhookMark;

/* A key that waits for one of its messages. */
typedef struct HeldKey
{
	char	   *key;
	int64		id;
} HeldKey;


extern List *store_webhooks(MemoryContext context);
extern Webhook *store_webhook(const char *channel);
extern void store_webhook_marks(const WebhookMark *marks, int n);
extern void store_webhook_disable(const char *channel, const char *reason, TimestampTz asked_at);
extern void store_breaker(const char *channel, int worker, const Breaker *breaker);
extern void store_breakers_forget(int worker);
extern HeldKey *store_held_keys(const char *channel, int *n);

#endif							/* MSGSYS_STORE_WEBHOOK_H */
