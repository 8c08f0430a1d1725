/*
 * monotonic.h
 *		A clock that nobody sets, for waits and durations.  Plain C.
 */
#ifndef MSGSYS_MONOTONIC_H
#define MSGSYS_MONOTONIC_H

#include <stdint.h>
#include <time.h>

static inline int64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static inline int64_t
now_ms(void)
{
	return now_us() / 1000;
}

#endif							/* MSGSYS_MONOTONIC_H */
