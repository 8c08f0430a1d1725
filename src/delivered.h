/*
 * delivered.h
 *		What was delivered, for the cache.
 */
#ifndef MSGSYS_DELIVERED_H
#define MSGSYS_DELIVERED_H

#include "msgsys.h"

#include "endpoint.h"

extern void delivered_add(const Job *job, const WebhookMark *mark);
extern void delivered_flush(void);

#endif							/* MSGSYS_DELIVERED_H */
