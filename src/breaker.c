/*
 * breaker.c
 *		A circuit breaker (breaker.h).
 */
#include "breaker.h"

#include <string.h>

/* Bring the buckets up to now: those that are older than the window are empty. */
static void
slide(Breaker *breaker, const BreakerSettings *settings, int64_t now_ms)
{
	int64_t		width = settings->window_ms / BREAKER_BUCKETS > 0 ? settings->window_ms / BREAKER_BUCKETS : 1;
	int64_t		period = now_ms / width;
	int64_t		passed = period - breaker->period;

	for (int64_t i = 1; i <= passed && i <= BREAKER_BUCKETS; i++)
		memset(&breaker->buckets[(breaker->period + i) % BREAKER_BUCKETS], 0,
			   sizeof(breaker->buckets[0]));
	if (passed > 0)
		breaker->period = period;
	/* more than the window has passed: all are old, whichever they were */
	if (passed > BREAKER_BUCKETS)
		memset(breaker->buckets, 0, sizeof(breaker->buckets));
}

static void
open_it(Breaker *breaker, const BreakerSettings *settings, int64_t now_ms)
{
	int64_t		pause = settings->pause_ms;

	for (int i = 0; i < breaker->trips && pause < settings->pause_max_ms; i++)
		pause *= 2;
	if (pause > settings->pause_max_ms)
		pause = settings->pause_max_ms;
	breaker->state = BREAKER_OPEN;
	breaker->until = now_ms + pause;
	breaker->trips++;
	memset(breaker->buckets, 0, sizeof(breaker->buckets));
}

/* see breaker.h */
bool
breaker_permits(const Breaker *breaker, int64_t now_ms)
{
	return breaker->state == BREAKER_CLOSED ||
		(breaker->state == BREAKER_OPEN && now_ms >= breaker->until);
}

/* see breaker.h */
bool
breaker_call(Breaker *breaker, int64_t now_ms)
{
	if (breaker->state != BREAKER_OPEN || now_ms < breaker->until)
		return false;
	breaker->state = BREAKER_HALF_OPEN;
	return true;
}

/* see breaker.h */
bool
breaker_record(Breaker *breaker, const BreakerSettings *settings, bool failed, int64_t now_ms)
{
	int			calls = 0;
	int			failures = 0;
	int			bucket;

	switch (breaker->state)
	{
		case BREAKER_OPEN:
			return false;		/* begun before it opened */
		case BREAKER_HALF_OPEN:
			if (failed)
				open_it(breaker, settings, now_ms);
			else
				memset(breaker, 0, sizeof(*breaker));
			return true;
		case BREAKER_CLOSED:
			break;
	}
	slide(breaker, settings, now_ms);
	bucket = (int) (breaker->period % BREAKER_BUCKETS);
	breaker->buckets[bucket].calls++;
	breaker->buckets[bucket].failures += failed;
	if (!failed)
		return false;
	for (int i = 0; i < BREAKER_BUCKETS; i++)
	{
		calls += breaker->buckets[i].calls;
		failures += breaker->buckets[i].failures;
	}
	if (calls < settings->calls || failures < settings->share * calls)
		return false;
	breaker->calls = calls;
	breaker->failures = failures;
	open_it(breaker, settings, now_ms);
	return true;
}

/* see breaker.h */
bool
breaker_forget(Breaker *breaker, int64_t now_ms)
{
	if (breaker->state != BREAKER_HALF_OPEN)
		return false;
	breaker->state = BREAKER_OPEN;
	breaker->until = now_ms;
	return true;
}
