/*
 * outcome.c
 *		What an answer, or its failing to come, means for a message.
 *
 * 2xx is delivered, 410 disables the webhook, 408, 425, 429, 5xx and failures of the
 * network are tried again, other answers are final; a channel may have lists of its
 * own (Standard Webhooks 1.0.0 and RFC 9110 for Retry-After).
 */
#include "msgsys.h"

#include "backoff.h"
#include "json_fields.h"
#include "outcome.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#define GONE			410
#define EXCERPT			1000	/* bytes of an answer that are kept */
#define LONGEST_ID		200

static bool
listed(const int64 *codes, int n, int status)
{
	for (int i = 0; i < n; i++)
		if (codes[i] == status)
			return true;
	return false;
}

/* Whether a status code means delivered. */
bool
status_succeeds(const Webhook *webhook, int status)
{
	if (webhook && webhook->nsuccess_codes > 0)
		return listed(webhook->success_codes, webhook->nsuccess_codes, status);
	return status >= 200 && status <= 299;
}

/* Whether a status code is worth another attempt. */
bool
status_retried(const Webhook *webhook, int status)
{
	if (webhook && webhook->nretry_codes > 0)
		return listed(webhook->retry_codes, webhook->nretry_codes, status);
	return status == 408 || status == 425 || status == 429 || status >= 500;
}

/* The class of an attempt, as msg_attempts shows it. */
const char *
outcome_class(HttpOutcome outcome)
{
	static const char *const classes[] = {
		[HTTP_ANSWERED] = "status",
		[HTTP_REFUSED_ADDRESS] = "address",
		[HTTP_BAD_REQUEST] = "request",
		[HTTP_UNUSABLE] = "settings",
		[HTTP_RESOLVE_FAILED] = "resolve",
		[HTTP_CONNECT_FAILED] = "connect",
		[HTTP_TLS_FAILED] = "tls",
		[HTTP_TIMED_OUT] = "timeout",
		[HTTP_BROKEN] = "broken"
	};

	return classes[outcome];
}

/* From 0 to below 1. */
static double
random_share(void)
{
	uint64		bits = 0;

	(void) pg_strong_random(&bits, sizeof(bits));
	return (double) (bits >> 11) / (UINT64CONST(1) << 53);
}

/* When to try again: after the usual wait, or what the answer asks for, within the channel's bound. */
static TimestampTz
next_attempt(const Job *job, const HttpResult *result, TimestampTz now)
{
	const Webhook *webhook = job->endpoint->webhook;

	if (webhook == NULL)
		return now + USECS_PER_SEC;
	if (result->retry_after_s > 0)
		return now + (result->retry_after_s < webhook->retry_after_max / USECS_PER_SEC ?
					  result->retry_after_s * USECS_PER_SEC : webhook->retry_after_max);
	return now + backoff_delay(webhook->schedule, webhook->nschedule, webhook->retry_base,
							   webhook->retry_max, job->attempt, random_share());
}

/* The id that the answer gives the message: its messageId, or else its id. */
static const char *
response_id(const HttpResult *result)
{
	JsonField	fields[] = {{"messageId"}, {"id"}};

	if (result->cut || result->body_length == 0 || result->body[0] != '{' ||
		!json_fields_read(result->body, result->body_length, fields, lengthof(fields)))
		return NULL;
	for (int i = 0; i < lengthof(fields); i++)
		if (fields[i].string || fields[i].number)
			return presentable(fields[i].text, strlen(fields[i].text), LONGEST_ID);
	return NULL;
}

/* A retry, or the end where the attempts are used up. */
static void
try_again(Job *job, const HttpResult *result, TimestampTz now)
{
	const Webhook *webhook = job->endpoint->webhook;

	if (webhook && job->attempt >= webhook->max_attempts)
		job->mark.verdict = VERDICT_DEAD;
	else
	{
		job->mark.verdict = VERDICT_RETRY;
		job->mark.due_at = next_attempt(job, result, now);
	}
}

/*
 * Enter what became of a job's request into its mark.  Returns whether its endpoint
 * is to blame, for the circuit breaker.
 */
bool
outcome_judge(Job *job, const HttpResult *result, TimestampTz now)
{
	const Webhook *webhook = job->endpoint->webhook;
	WebhookMark *mark = &job->mark;
	MemoryContext old = MemoryContextSwitchTo(job->context);
	bool		failed = false;

	memset(mark, 0, sizeof(*mark));
	mark->id = job->id;
	mark->channel = job->endpoint->name;
	mark->attempt = job->attempt;
	mark->milliseconds = (int) Min(result->elapsed_ms, PG_INT32_MAX);
	mark->code = result->status;
	mark->class = outcome_class(result->outcome);
	mark->address = result->address[0] ? pstrdup(result->address) : NULL;
	mark->error = result->outcome == HTTP_ANSWERED ? psprintf("status %d", result->status) :
		presentable(result->error, strlen(result->error), sizeof(result->error));
	mark->keep = true;

	if (result->outcome == HTTP_ANSWERED && status_succeeds(webhook, result->status))
	{
		mark->verdict = VERDICT_DELIVERED;
		mark->class = "delivered";
		mark->error = NULL;
		mark->keep = webhook && webhook->keep_attempts;
		mark->response_id = response_id(result);
	}
	else if (result->outcome == HTTP_ANSWERED && result->status == GONE)
	{
		mark->verdict = VERDICT_HELD;
		mark->error = "the endpoint answered 410 (gone)";
	}
	else if (result->outcome == HTTP_BAD_REQUEST ||
			 (result->outcome == HTTP_ANSWERED && !status_retried(webhook, result->status)))
		mark->verdict = VERDICT_DEAD;
	else
	{
		try_again(job, result, now);
		failed = true;
	}
	if (mark->keep && result->body_length > 0)
		mark->excerpt = presentable(result->body, result->body_length, EXCERPT);
	MemoryContextSwitchTo(old);
	return failed;
}

/* A request cannot even be made: that does not get better. */
void
outcome_unsendable(Job *job, const char *reason)
{
	HttpResult	result = {.outcome = HTTP_BAD_REQUEST,.retry_after_s = -1};

	strlcpy(result.error, reason, sizeof(result.error));
	(void) outcome_judge(job, &result, clock_now());
}
