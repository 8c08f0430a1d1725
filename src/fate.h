/*
 * fate.h
 *		What the relay knows of rows that the table does not say yet.
 */
#ifndef MSGSYS_FATE_H
#define MSGSYS_FATE_H

#include "msgsys.h"

#include "broker.h"
#include "store.h"

/* What became of a record whose row could not be marked. */
typedef struct Fate
{
	int64		key;			/* hash key: see fate_key() */
	int			attempts;		/* of the row then: another number is another record */
	bool		pending;		/* its report is still to come */
	BrokerOutcome outcome;
	int32		partition;
	int64		offset;
	int64		since;			/* ms */
	char		reason[160];
} Fate;

/* A row that alone was not to be handled. */
typedef struct Suspect
{
	int64		key;			/* hash key: see fate_key() */
	ClaimKind	kind;
	int64		id;
	char		channel[CHANNEL_NAME_MAX];
	int			failures;		/* while others passed */
	int			failures_alone; /* since others passed */
	bool		at_fault;
	uint64		passed;			/* batches, when it failed last */
	int64		retry_at;		/* ms */
} Suspect;

extern Fate *fate_find(ClaimKind kind, int64 id, int attempts);
extern Fate *fate_remember(ClaimKind kind, int64 id, int attempts);
extern void fate_forget(ClaimKind kind, int64 id);
extern void fates_forget_old(int64 before);

extern Suspect *suspect_find(ClaimKind kind, int64 id);
extern Suspect *suspect_enter(ClaimKind kind, int64 id, const char *channel, uint64 passed, int64 now);
extern void suspect_forget(ClaimKind kind, int64 id);
extern Suspect *suspect_due(int64 now);
extern int64 suspect_next(void);

#endif							/* MSGSYS_FATE_H */
