/*
 * catch_up.h
 *		After a crash, the relay waits with a channel until its topic has been read back.
 */
#ifndef MSGSYS_CATCH_UP_H
#define MSGSYS_CATCH_UP_H

#include "msgsys.h"

#include "channel.h"

extern void catch_up_begin(bool (*answers) (void));
extern bool catch_up_holds(const Channel *channel);
extern long catch_up_pause(long otherwise);
extern void catch_up_batch_begins(void);
extern void catch_up_batch_ends(void);

#endif							/* MSGSYS_CATCH_UP_H */
