/*
 * store_mailing.h
 *		The SQL statements of mailings.
 *
 * To be called between worker_begin() and worker_commit().
 */
#ifndef MSGSYS_STORE_MAILING_H
#define MSGSYS_STORE_MAILING_H

#include "msgsys.h"

#include "datatype/timestamp.h"
#include "storage/itemptr.h"

/* What one piece of work did; see msg_mailings_run(). */
typedef struct MailingWork
{
	int64		mailing;		/* 0: there was nothing to do */
	int64		first_client;	/* clients above it were looked at */
	int64		last_client;	/* up to this one */
	int64		created;		/* messages */
	int64		changed;
	int64		cancelled;
	int64		first_id;		/* of those created */
	int64		last_id;
	TimestampTz next_at;		/* when there is more to do; DT_NOEND: never */
} MailingWork;

extern bool store_mailing_pass_over(TimestampTz now, int64 *mailing, int64 *client);
extern void store_mailings_run(TimestampTz now, int most, MailingWork *work);
extern void store_mailings_postpone(const int64 *ids, int n);
extern void store_mailings_postpone_rows(const ItemPointerData *tids, int n);

#endif							/* MSGSYS_STORE_MAILING_H */
