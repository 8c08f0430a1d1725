/*
 * retention.c
 *		The scheduler's job that takes out what is not kept any longer.
 *
 * No index knows of finished messages, for each would cost every message.  So the rules
 * are applied by passes over the primary key, from the oldest message to the first ones
 * that are too young for any rule, a bounded number of rows in each transaction.  What it costs to
 * look at rows that stay is paid again in the next pass: the pause grows with it.
 */
#include "msgsys.h"

#include "retention.h"
#include "shmem.h"
#include "store.h"
#include "worker.h"

#include "portability/instr_time.h"
#include "utils/timestamp.h"

#define ROWS_AT_ONCE	5000
#define LOCKED_AGAIN	1000	/* ms until the next try at a table that somebody has */
#define PAUSE_SHARE		20		/* between two passes: this part of the shortest rule, and so many times what was spent in vain */
#define PAUSE_SHORTEST	1000	/* ms */
#define PAUSE_LONGEST	600000	/* ms */

static int64 above = 0;			/* how far the pass is */
static double spent = 0;		/* ms that it looked at rows that stay */

/* The end of a pass.  Returns when the next one begins. */
static TimestampTz
pass_ended(TimestampTz now, const PurgeStep *step)
{
	int64		pause = Min(PAUSE_LONGEST, Max(PAUSE_SHORTEST, step->shortest_ms / PAUSE_SHARE));

	pause = Max(pause, (int64) (spent * PAUSE_SHARE));
	above = 0;
	spent = 0;
	return now + Min(pause, PAUSE_LONGEST * 10) * 1000;
}

/* Do one step.  Returns when the next one is due. */
TimestampTz
retention_run(TimestampTz now)
{
	PurgeStep	step;
	instr_time	begin;
	instr_time	end;

	INSTR_TIME_SET_CURRENT(begin);
	if (!worker_begin())
		return TimestampTzPlusMilliseconds(now, LOCKED_AGAIN);
	if (!store_lock_messages())
	{
		worker_commit();
		return TimestampTzPlusMilliseconds(now, LOCKED_AGAIN);
	}
	store_purge_step(above, ROWS_AT_ONCE, &step);
	if (!step.more && setting_keep_runs > 0)
		store_purge_runs(now - (int64) setting_keep_runs * USECS_PER_SEC);
	worker_commit();
	slot_count_up(COUNT_PURGED, step.purged);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, begin);
	spent += INSTR_TIME_GET_MILLISEC(end) * Max(1 - (double) step.purged / ROWS_AT_ONCE, 0);
	if (!step.more)
		return pass_ended(now, &step);
	above = step.last;
	return now;
}
