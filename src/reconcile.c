/*
 * reconcile.c
 *		The scheduler's job that finishes what no stage waits for any more.
 *
 * Marks decide by their channel's row as it is when they are made.  But one whose statement has
 * begun before a change of the configuration and that commits after it has decided by what was, and nobody
 * looks at its row again.  So after a change the rows that their channel does not wait for (the view
 * msg_unreachable) are finished again and again, with growing pauses, for a minute at least, because
 * a worker may learn of a changed setting late, and until all transactions have ended that were
 * under way when the change was seen.  After that, and at the start, once an hour.
 */
#include "msgsys.h"

#include "monotonic.h"
#include "reconcile.h"
#include "shmem.h"
#include "store.h"
#include "worker.h"

#include "access/transam.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define ROWS_AT_ONCE	5000
#define LOCKED_AGAIN	1000	/* ms until the next try at a table that somebody has */
#define FIRST_PAUSE		100		/* ms between the first two passes after a change; doubles */
#define LONGEST_PAUSE	60000	/* ms, while changes may still be unknown to somebody */
#define EVERY			3600000 /* ms */

static uint64 seen_generation = 0;	/* of the configuration */
static TimestampTz seen_reload = 0;
static long pause_ms = FIRST_PAUSE;
static TransactionId horizon = InvalidTransactionId;	/* those before it may have known the old configuration */
static int64 next_pass = 0;		/* by now_ms() */

/* Notice a change of the configuration: the passes begin anew. */
static void
notice_change(void)
{
	uint64		generation = config_generation();

	if (generation == seen_generation && PgReloadTime == seen_reload)
		return;
	seen_generation = generation;
	seen_reload = PgReloadTime;
	pause_ms = FIRST_PAUSE;
	horizon = InvalidTransactionId;
	next_pass = 0;
}

/* How long until the next pass, after one that has found nothing more. */
static long
next_pause(TransactionId oldest)
{
	long		pause = pause_ms;

	if (pause < LONGEST_PAUSE)
		pause_ms = Min(pause * 2, LONGEST_PAUSE);
	else if (TransactionIdIsValid(horizon) && !TransactionIdPrecedes(oldest, horizon))
		return EVERY;
	return pause;
}

/* Finish some rows.  Returns when to go on. */
TimestampTz
reconcile_run(TimestampTz now)
{
	int64		finished;
	TransactionId oldest;
	long		pause;

	notice_change();
	/* every job is asked when something has woken the scheduler */
	if (now_ms() < next_pass)
		return TimestampTzPlusMilliseconds(now, next_pass - now_ms());
	next_pass = now_ms() + LOCKED_AGAIN;
	if (!worker_begin())
		return TimestampTzPlusMilliseconds(now, LOCKED_AGAIN);
	if (!store_lock_messages())
	{
		worker_commit();
		return TimestampTzPlusMilliseconds(now, LOCKED_AGAIN);
	}
	if (!TransactionIdIsValid(horizon))
		horizon = ReadNextTransactionId();
	oldest = GetActiveSnapshot()->xmin;
	finished = store_reconcile(ROWS_AT_ONCE);
	worker_commit();
	if (finished > 0)
		status_changed(PG_UINT64_MAX);
	pause = finished >= ROWS_AT_ONCE ? 0 : next_pause(oldest);
	next_pass = now_ms() + pause;
	return TimestampTzPlusMilliseconds(now, pause);
}
