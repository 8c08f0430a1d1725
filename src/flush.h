/*
 * flush.h
 *		Writes down what became of webhook requests.
 */
#ifndef MSGSYS_FLUSH_H
#define MSGSYS_FLUSH_H

#include "endpoint.h"

extern void flush_add(Job *job);
extern void flush_breakers(void);
extern int	flush_waiting(void);
extern bool flush_is_due(TimestampTz now, bool under_way);
extern TimestampTz flush_due_at(void);
extern void flush_write(TimestampTz now);

#endif							/* MSGSYS_FLUSH_H */
