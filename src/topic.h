/*
 * topic.h
 *		What the relay knows of the topics that it produces to.
 */
#ifndef MSGSYS_TOPIC_H
#define MSGSYS_TOPIC_H

#include "msgsys.h"

#include "nodes/bitmapset.h"

#include "broker.h"

typedef enum TopicState
{
	TOPIC_UNKNOWN,				/* not asked for, or no answer yet */
	TOPIC_ACCEPTED,				/* it takes records */
	TOPIC_OUTAGE				/* it takes none at present: asked for from time to time */
} TopicState;

typedef struct Topic
{
	char		name[256];		/* hash key, must be first */
	TopicState	state;
	bool		asked;			/* an answer is to come */
	bool		read_by_us;		/* our receiver is to read it */
	bool		start_set;		/* it knows where to begin */
	bool		trouble;		/* it was in an outage, and has taken no record since */
	bool		said;			/* it is in the log that its messages wait */
	bool		late;			/* scratch: a record for it is late */
	bool		parked;			/* records for it are still under way with an earlier producer */
	int64		ask_at;			/* ms; not before */
	int			pause;			/* ms between two questions */
	size_t		limit;			/* bytes to hand over at once; 0: any */
	int			partitions;
	Bitmapset  *down;			/* partitions that have no leader */
	char		reason[160];	/* of the outage */
	char		words[480];		/* that were said of it */
} Topic;

extern Topic *topic_find(const char *name);
extern bool topic_ready(Broker *producer, const char *name, bool read_by_us);
extern bool topic_usable(const Topic *topic);
extern void topic_outage(Topic *topic, const char *reason);
extern void topic_proven(Topic *topic);
extern void topics_take_answers(Broker *producer, void (*back) (Topic *topic));
extern void topics_unasked(void);
extern void topics_forget(void);
extern void topics_keep(bool (*is_ours) (const char *name));
extern bool topics_in_trouble(void);
extern void topics_look_begin(void);
extern int64 topics_next_question(void);

#endif							/* MSGSYS_TOPIC_H */
