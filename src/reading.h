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

extern TimestampTz readings_look_at;	/* when to look for partitions again */

extern bool readings_assign(Broker *consumer, bool always);
extern int	reading_advance(const BrokerMessage *message);
extern void reading_hold(int reading, int64 offset);
extern void readings_store(void);
extern void readings_stored(void);
extern void readings_show(Broker *consumer);

#endif							/* MSGSYS_READING_H */
