/*
 * ack.h
 *		Reading what a consumer writes to the acknowledgement topic.
 */
#ifndef MSGSYS_ACK_H
#define MSGSYS_ACK_H

#include "msgsys.h"

#include "store.h"

#define LONGEST_ERROR	1000	/* bytes of a consumer's error that are kept: enough to find the cause by */

typedef enum AckReading
{
	ACK_READ,
	ACK_NOT_OURS,				/* of another installation */
	ACK_FORGED,					/* without the token that it needs, or with a wrong one */
	ACK_UNREADABLE
} AckReading;

extern AckReading ack_parse(const char *text, size_t length, Ack *ack);
extern bool ack_outcome(const char *name, AckOutcome *outcome);

#endif							/* MSGSYS_ACK_H */
