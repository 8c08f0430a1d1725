/*
 * mailing.h
 *		The scheduler's job that turns mailings into messages.
 */
#ifndef MSGSYS_MAILING_H
#define MSGSYS_MAILING_H

#include "msgsys.h"

extern TimestampTz mailings_run(TimestampTz now);

#endif							/* MSGSYS_MAILING_H */
