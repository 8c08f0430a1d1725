/*
 * commits.h
 *		Which messages are about to become visible.
 */
#ifndef MSGSYS_COMMITS_H
#define MSGSYS_COMMITS_H

#include "postgres.h"

extern Size commits_size(void);
extern void commits_init(void);
extern void commit_begins(Oid dboid, int64 lowest_id);
extern void commit_ends(void);
extern int64 commits_lowest(Oid dboid);

#endif							/* MSGSYS_COMMITS_H */
