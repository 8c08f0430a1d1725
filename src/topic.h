/*
 * topic.h
 *		What the relay knows of the topics that it produces to.
 */
#ifndef MSGSYS_TOPIC_H
#define MSGSYS_TOPIC_H

#include "msgsys.h"

#include "datatype/timestamp.h"

#include "broker.h"

typedef struct Topic
{
	char		name[256];		/* hash key, must be first */
	bool		accepted;		/* the broker takes records for it */
	bool		start_set;		/* the receiver knows where to begin */
	size_t		limit;			/* bytes to hand over at once; 0: any */
	TimestampTz asked_at;		/* 0: never */
	char		reason[160];	/* why it does not */
} Topic;

extern Topic *topic_find(const char *name);
extern bool topic_prepare(Broker *producer, const char *name, bool read_by_us,
						  TimestampTz now, char *err, size_t errlen);
extern void topic_doubt(const char *name);
extern void topics_forget(void);

#endif							/* MSGSYS_TOPIC_H */
