/*
 * notes.h
 *		What a transaction has to tell the workers once it commits.
 */
#ifndef MSGSYS_NOTES_H
#define MSGSYS_NOTES_H

#include "msgsys.h"

#include "datatype/timestamp.h"

extern void note_claimable(const char *channel, int64 id);
extern void note_received(const char *channel, int64 id);
extern void note_backlog(const char *channel, int n);
extern int64 noted_backlog(const char *channel);
extern void note_due(const char *channel, TimestampTz due);
extern void note_config(void);
extern void note_schedule(void);
extern void note_prepared(void);
extern void note_status(int64 id);
extern uint64 config_cache_key(void);

#endif							/* MSGSYS_NOTES_H */
