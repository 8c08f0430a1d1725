/*
 * webhook_claim.h
 *		Which rows a webhook worker takes into memory, and when.
 */
#ifndef MSGSYS_WEBHOOK_CLAIM_H
#define MSGSYS_WEBHOOK_CLAIM_H

#include "endpoint.h"

#define NEVER_MS	PG_INT64_MAX	/* a time by now_ms() that does not come */

extern void claim_all(void);
extern void claim_expired(Job *job);
extern void claim_load_keys(void);
extern int64 claim_due_in(Endpoint *endpoint);
extern int64 claim_retry_in(void);

#endif							/* MSGSYS_WEBHOOK_CLAIM_H */
