/*
 * backoff.h
 *		How long to wait before the next attempt.  Plain C, times in microseconds.
 */
#ifndef MSGSYS_BACKOFF_H
#define MSGSYS_BACKOFF_H

#include <stdint.h>

/* A hundred years: no wait is longer, whatever the settings say. */
#define BACKOFF_MAX		INT64_C(3155760000000000)

/*
 * The wait after a number of attempts (>= 1) that failed.  With a schedule, its
 * wait of that number (the last for all that follow) and up to a tenth more; without, a
 * random share of base * 2^(attempts - 1), at most max: "full jitter" (AWS Architecture
 * Blog, "Exponential Backoff And Jitter", 2015).  random: from 0 to below 1.
 */
extern int64_t backoff_delay(const int64_t *schedule, int nschedule, int64_t base, int64_t max,
							 int attempts, double random);

#endif							/* MSGSYS_BACKOFF_H */
