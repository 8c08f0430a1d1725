/*
 * trouble.h
 *		Troubles that workers know of and no table shows: for msg_check().
 */
#ifndef MSGSYS_TROUBLE_H
#define MSGSYS_TROUBLE_H

#include "msgsys.h"

#include "datatype/timestamp.h"

typedef enum TroubleKind
{
	TROUBLE_NONE,				/* a free place */
	TROUBLE_TOPIC,				/* a topic takes no records, or not all; until it is over */
	TROUBLE_ACKS				/* acknowledgements do not count; they are counted, and the times noted */
} TroubleKind;

typedef struct Trouble
{
	TroubleKind kind;
	Oid			dboid;
	Stage		stage;
	int			worker;
	uint64		count;
	TimestampTz since;
	TimestampTz latest;
	char		topic[256];
	char		reason[160];
} Trouble;

extern Size troubles_size(void);
extern void troubles_init(void);
extern void troubles_begin(Oid dboid, Stage stage, int worker);

/* A worker's own. */
extern void trouble_add(TroubleKind kind, const char *topic, const char *reason);
extern void trouble_over(TroubleKind kind, const char *topic);

#endif							/* MSGSYS_TROUBLE_H */
