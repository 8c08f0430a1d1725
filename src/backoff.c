/*
 * backoff.c
 *		How long to wait before the next attempt (backoff.h).
 */
#include "backoff.h"

#define JITTER		0.1			/* of a scheduled wait */

/* A wait from none to the longest, so that nothing overflows. */
static int64_t
bounded(int64_t wait)
{
	return wait < 0 ? 0 : wait > BACKOFF_MAX ? BACKOFF_MAX : wait;
}

/* see backoff.h */
int64_t
backoff_delay(const int64_t *schedule, int nschedule, int64_t base, int64_t max,
			  int attempts, double random)
{
	int64_t		longest = bounded(base);

	/* a number that somebody has written into the row */
	if (attempts < 1)
		attempts = 1;
	max = bounded(max);
	if (nschedule > 0)
	{
		int64_t		wait = bounded(schedule[attempts <= nschedule ? attempts - 1 : nschedule - 1]);

		return wait + (int64_t) (wait * JITTER * random);
	}
	for (int i = 1; i < attempts && longest > 0 && longest < max; i++)
		longest *= 2;
	if (longest > max)
		longest = max;
	return (int64_t) (longest * random);
}
