/*
 * retention.h
 *		The scheduler's job that takes out what is not kept any longer.
 */
#ifndef MSGSYS_RETENTION_H
#define MSGSYS_RETENTION_H

#include "msgsys.h"

extern TimestampTz retention_run(TimestampTz now);

#endif							/* MSGSYS_RETENTION_H */
