/*
 * histogram.h
 *		Durations in buckets, as Prometheus counts them.
 */
#ifndef MSGSYS_HISTOGRAM_H
#define MSGSYS_HISTOGRAM_H

#include "msgsys.h"

#include "common/int.h"

/* What is measured; names in metrics.c. */
typedef enum Histogram
{
	HISTOGRAM_CLAIM,			/* from the begin of the creating transaction to the claim */
	HISTOGRAM_SEND,				/* from the claim to Kafka's confirmation */
	HISTOGRAM_WAIT,				/* both together */
	HISTOGRAM_RECEIVE,			/* from the record's time in Kafka to the status received */
	HISTOGRAM_DELIVER,			/* from the webhook worker's claim to the outcome delivered */
	HISTOGRAM_REQUEST,			/* a webhook request */
	HISTOGRAM_HTTP,				/* a request to the HTTP facade */
	HISTOGRAM_COUNT
} Histogram;

/* Upper bounds in microseconds; one bucket more is for all above. */
#define HISTOGRAM_BOUNDS	{1000, 2500, 5000, 10000, 25000, 50000, 75000, 100000, 250000, 500000, 750000, \
	1000000, 2500000, 5000000, 7500000, 10000000, 60000000}
#define HISTOGRAM_NBOUNDS	17

typedef struct Durations
{
	uint64		counts[HISTOGRAM_NBOUNDS + 1];	/* each bucket by itself */
	uint64		sum;			/* microseconds */
} Durations;

/* The time between two, which a message may have been given: -infinity and the like took none. */
static inline int64
duration(int64 from, int64 to)
{
	int64		microseconds;

	return pg_sub_s64_overflow(to, from, &microseconds) ? 0 : microseconds;
}

/* Count n durations; a clock that went back counts as 0. */
static inline void
durations_add(Durations *durations, int64 microseconds, uint64 n)
{
	static const int64 bounds[HISTOGRAM_NBOUNDS] = HISTOGRAM_BOUNDS;
	int			bucket = 0;

	if (microseconds < 0)
		microseconds = 0;
	while (bucket < HISTOGRAM_NBOUNDS && microseconds > bounds[bucket])
		bucket++;
	durations->counts[bucket] += n;
	durations->sum += (uint64) microseconds * n;
}

#endif							/* MSGSYS_HISTOGRAM_H */
