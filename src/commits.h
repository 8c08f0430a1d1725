/*
 * commits.h
 *		Which messages are about to become visible.
 */
#ifndef MSGSYS_COMMITS_H
#define MSGSYS_COMMITS_H

#include "postgres.h"

/* What a row waits for that becomes visible. */
typedef enum WaitingKind
{
	WAITING_IDLE,				/* to be sent */
	WAITING_RECEIVED,			/* for its webhook, having been received */
	WAITING_KINDS
} WaitingKind;

extern Size commits_size(void);
extern void commits_init(void);
extern void commit_begins(Oid dboid, const int64 lowest[WAITING_KINDS], bool due);
extern void commit_ends(void);
extern int64 commits_lowest(Oid dboid, WaitingKind kind);
extern bool commits_due(Oid dboid);

#endif							/* MSGSYS_COMMITS_H */
