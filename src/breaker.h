/*
 * breaker.h
 *		A circuit breaker: calls that mostly fail are not made for a while.
 *
 * Closed, it counts calls over a sliding window; where enough of them failed it
 * opens.  After a pause it is half-open and permits one call, the probe: success
 * closes it, failure opens it again, for twice as long.  Plain C; times are
 * milliseconds of any clock that does not go back.
 */
#ifndef MSGSYS_BREAKER_H
#define MSGSYS_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_BUCKETS	10

typedef struct BreakerSettings
{
	double		share;			/* of failures, at which it opens; above 1: never */
	int			calls;			/* least calls in the window for that */
	int64_t		window_ms;
	int64_t		pause_ms;
	int64_t		pause_max_ms;
} BreakerSettings;

typedef enum BreakerState
{
	BREAKER_CLOSED,
	BREAKER_OPEN,
	BREAKER_HALF_OPEN			/* the probe is under way */
} BreakerState;

/* All zero is a closed one. */
typedef struct Breaker
{
	BreakerState state;
	int64_t		until;			/* while open: when a probe is permitted */
	int			trips;			/* since it was closed last */
	int			calls;			/* in the window, when it opened */
	int			failures;
	int64_t		period;			/* of the latest bucket */
	struct
	{
		int			calls;
		int			failures;
	}			buckets[BREAKER_BUCKETS];
} Breaker;

/* Whether a call may be made now; one that is has to be recorded, or forgotten. */
extern bool breaker_permits(const Breaker *breaker, int64_t now_ms);

/* A call is made: of an open one, the probe.  Returns whether the state changed. */
extern bool breaker_call(Breaker *breaker, int64_t now_ms);

/* How a call ended.  Returns whether the state changed. */
extern bool breaker_record(Breaker *breaker, const BreakerSettings *settings, bool failed,
						   int64_t now_ms);

/* A call was made but says nothing: permit another probe.  Returns whether the state changed. */
extern bool breaker_forget(Breaker *breaker, int64_t now_ms);

#endif							/* MSGSYS_BREAKER_H */
