/*
 * pace.h
 *		Channels that send a number of messages at a time: runs, their budget and their phase.
 */
#ifndef MSGSYS_PACE_H
#define MSGSYS_PACE_H

#include "channel.h"

/* What became of messages of a run, to be written with their marks. */
typedef struct PaceResult
{
	Channel    *channel;
	int			succeeded;
	int			failed;
	int64		first_id;
	int64		last_id;
	const char *error;			/* why one failed; NULL: none did */
} PaceResult;

extern bool pace_open(Channel *channel, TimestampTz now);
extern int	pace_left(const Channel *channel);
extern TimestampTz pace_next(Channel *channel);
extern void pace_count(PaceResult *result, int64 id, bool success, const char *error);
extern void pace_write(const PaceResult *result);
extern void pace_settle(const PaceResult *result);
extern void pace_close(Channel *channel);

#endif							/* MSGSYS_PACE_H */
