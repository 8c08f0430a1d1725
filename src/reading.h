/*
 * reading.h
 *		Which partitions this worker reads, from where, and how far it is.
 */
#ifndef MSGSYS_READING_H
#define MSGSYS_READING_H

#include "msgsys.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "broker.h"

extern int	reading_unanswered; /* looks in a row that no broker answered */
extern char reading_reason[160];	/* why not */

extern bool readings_refresh(Broker *consumer, bool reloaded, bool opened);
extern long readings_pause(void);
extern int	reading_advance(const BrokerMessage *message);
extern void reading_hold(int reading, int64 offset);
extern const char *reading_topic(int reading);
extern bool readings_moved(void);
extern void readings_store(void);
extern void readings_stored(void);
extern void readings_show(Broker *consumer);

#endif							/* MSGSYS_READING_H */
