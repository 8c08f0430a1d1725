/*
 * outcome.c
 *		Fuzzes what becomes of an endpoint's answer: the verdict, the next attempt, the id that it gives,
 *		the excerpt (src/outcome.c).
 *
 * What is kept can be stored; a next attempt is after now, and no later than the webhook allows.  First 16
 * bytes for what the answer is besides its body.
 */
#include "backend.h"

#include "endpoint.h"
#include "outcome.h"
#include "utils/timestamp.h"

extern int	fuzz_outcome(const uint8_t *data, size_t size);

#define EXCERPT			1000
#define LONGEST_ID		200

static int64
number(FuzzInput *input, int bytes)
{
	uint64		result = 0;

	while (bytes-- > 0)
		result = result << 8 | (uint64) fuzz_byte(input);
	return (int64) result;
}

static void
check_mark(const Job *job, const HttpResult *result, const Webhook *webhook, TimestampTz now, bool failed)
{
	const WebhookMark *mark = &job->mark;
	bool		good = result->outcome == HTTP_ANSWERED && result->status >= 200 && result->status <= 299;

	PROPERTY((mark->verdict == VERDICT_DELIVERED) == good);
	PROPERTY(mark->verdict != VERDICT_EXPIRED);
	PROPERTY(!failed || mark->verdict == VERDICT_RETRY || mark->verdict == VERDICT_DEAD);
	PROPERTY(good == (mark->error == NULL));
	PROPERTY(mark->error == NULL || fuzz_presentable(mark->error, sizeof(result->error)));
	PROPERTY(mark->response_id == NULL || (good && !result->cut && fuzz_presentable(mark->response_id, LONGEST_ID)));
	PROPERTY(mark->excerpt == NULL || fuzz_presentable(mark->excerpt, EXCERPT));
	PROPERTY(mark->milliseconds >= 0 && mark->class != NULL);
	if (mark->verdict != VERDICT_RETRY)
		return;
	PROPERTY(job->attempt < webhook->max_attempts);
	PROPERTY(mark->due_at >= now && IS_VALID_TIMESTAMP(mark->due_at));
	PROPERTY(mark->due_at - now <= Max(webhook->retry_max, webhook->retry_after_max) + USECS_PER_SEC);
}

int
fuzz_outcome(const uint8_t *data, size_t size)
{
	FuzzInput	input = fuzz_input(data, size);
	Webhook		webhook = {.max_attempts = 5,.retry_base = USECS_PER_SEC,.retry_max = USECS_PER_HOUR,.retry_after_max = USECS_PER_DAY,.keep_attempts = true};
	Endpoint	endpoint = {.name = "c",.webhook = &webhook};
	Job			job = {.context = CurrentMemoryContext,.id = 1,.endpoint = &endpoint};
	HttpResult	result = {0};
	TimestampTz now = 0;
	bool		failed;

	job.attempt = 1 + fuzz_byte(&input) % 6;
	result.outcome = (HttpOutcome) (fuzz_byte(&input) % (HTTP_BROKEN + 1));
	result.status = result.outcome == HTTP_ANSWERED ? 100 + (int) (number(&input, 2) & 0x7fff) % 900 : 0;
	result.retry_after_s = (long) number(&input, 8);
	if (result.retry_after_s <= 0)
		result.retry_after_s = -1;
	result.elapsed_ms = (long) (number(&input, 3));
	result.cut = fuzz_byte(&input) % 2;
	result.body_length = Min((size_t) (input.end - input.at), HTTP_ANSWER_MAX);
	result.body = fuzz_copy(input.at, result.body_length);
	if (result.outcome != HTTP_ANSWERED)
		memcpy(result.error, result.body, Min(result.body_length, sizeof(result.error) - 1));
	failed = outcome_judge(&job, &result, now);
	check_mark(&job, &result, &webhook, now, failed);
	(free) ((void *) result.body);
	return 0;
}
