/*
 * reconcile.h
 *		The scheduler's job that finishes what no stage waits for any more.
 */
#ifndef MSGSYS_RECONCILE_H
#define MSGSYS_RECONCILE_H

#include "msgsys.h"

extern TimestampTz reconcile_run(TimestampTz now);

#endif							/* MSGSYS_RECONCILE_H */
