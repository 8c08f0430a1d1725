/*
 * backlog.h
 *		How many messages wait to be sent, by channel, in shared memory.
 */
#ifndef MSGSYS_BACKLOG_H
#define MSGSYS_BACKLOG_H

#include "msgsys.h"

extern Size backlog_size(void);
extern void backlog_init(void);
extern void backlog_forget(int index);
extern void backlog_add(Oid dboid, const char *channel, int64 n);
extern int64 backlog_of(Oid dboid, const char *channel);
extern void backlog_check(const char *channel, int64 own);
extern TimestampTz backlog_run(TimestampTz now);

#endif							/* MSGSYS_BACKLOG_H */
