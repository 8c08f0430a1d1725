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
extern bool flush_is_busy(void);
extern bool flush_is_stuck(void);
extern bool flush_is_due(bool under_way);
extern int64 flush_due_in(void);
extern void flush_write(void);

#endif							/* MSGSYS_FLUSH_H */
