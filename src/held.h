/*
 * held.h
 *		Rows that somebody's transaction holds, and the keys that wait for them.
 */
#ifndef MSGSYS_HELD_H
#define MSGSYS_HELD_H

#include "msgsys.h"

#include "channel.h"
#include "store.h"

extern bool held_enter(ClaimKind kind, const Channel *channel, const ClaimedRow *row);
extern bool held_blocks(ClaimKind kind, const Channel *channel, const ClaimedRow *row);
extern bool held_full(void);
extern void held_look(void (*released) (ClaimKind kind, Channel *channel, int64 id));
extern int64 held_next_look(void);

#endif							/* MSGSYS_HELD_H */
