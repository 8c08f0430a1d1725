/*
 * outcome.h
 *		What an answer, or its failing to come, means for a message.
 */
#ifndef MSGSYS_OUTCOME_H
#define MSGSYS_OUTCOME_H

#include "msgsys.h"

#include "datatype/timestamp.h"

#include "endpoint.h"
#include "http_client.h"

extern bool outcome_judge(Job *job, const HttpResult *result, TimestampTz now);
extern void outcome_unsendable(Job *job, const char *reason);
extern const char *outcome_class(HttpOutcome outcome);
extern bool status_succeeds(const Webhook *webhook, int status);
extern bool status_retried(const Webhook *webhook, int status);

#endif							/* MSGSYS_OUTCOME_H */
