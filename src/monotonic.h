/*
 * monotonic.h
 *		Milliseconds of a clock that nobody sets, for waits.  Plain C.
 */
#ifndef MSGSYS_MONOTONIC_H
#define MSGSYS_MONOTONIC_H

#include <stdint.h>
#include <time.h>

static inline int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

#endif							/* MSGSYS_MONOTONIC_H */
