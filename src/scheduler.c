/*
 * scheduler.c
 *		The scheduler stage: work of the database's own that comes due by the clock.
 *
 * Each job does one bounded piece of work at a call, in transactions of its own, and
 * says when it wants to be called again.  A commit that may change that (a trigger
 * that calls note_schedule()) wakes the scheduler, and then every job is asked.
 */
#include "msgsys.h"

#include "backlog.h"
#include "mailing.h"
#include "retention.h"
#include "shmem.h"
#include "worker.h"

#include "pgstat.h"
#include "utils/timestamp.h"

/* Does one piece of work; returns when to call again (DT_NOEND: not before somebody says so). */
typedef TimestampTz (*JobFunction) (TimestampTz now);

typedef struct ScheduledJob
{
	const char *name;			/* for pg_stat_activity */
	JobFunction run;
	TimestampTz next;			/* zero: ask at once */
} ScheduledJob;

static ScheduledJob jobs[] = {
	{"retention", retention_run, 0},
	{"backlog", backlog_run, 0},
	{"mailings", mailings_run, 0},
	{NULL, NULL, 0}
};

/* Call those jobs whose time has come.  Returns when the next one's comes. */
static TimestampTz
run_jobs(TimestampTz now)
{
	TimestampTz next = DT_NOEND;

	for (ScheduledJob *job = jobs; job->run; job++)
	{
		if (job->next <= now)
		{
			slot_state(WORKER_BUSY);
			pgstat_report_activity(STATE_RUNNING, job->name);
			job->next = job->run(now);
			CHECK_FOR_INTERRUPTS();
		}
		next = Min(next, job->next);
	}
	return next;
}

/* Main loop of a scheduler. */
void
scheduler_main(void)
{
	TimestampTz last_look = 0;

	for (;;)
	{
		bool		reloaded = false;
		bool		noted;
		Note	   *notes;
		TimestampTz now;
		TimestampTz next;

		worker_cycle();
		(void) notes_take(&notes, &noted);
		if (!worker_refresh(&reloaded))
		{
			worker_rest(setting_poll_interval);
			continue;
		}
		now = clock_now();
		/* what nothing told of (a clock that was set) is found within this time */
		if (noted || reloaded || now < last_look ||
			now >= TimestampTzPlusMilliseconds(last_look, setting_sweep_interval))
		{
			for (ScheduledJob *job = jobs; job->run; job++)
				job->next = 0;
			last_look = now;
		}
		next = run_jobs(now);
		now = clock_now();
		if (next <= now)
			continue;
		slot_state(WORKER_IDLE);
		next = Min(next, TimestampTzPlusMilliseconds(last_look, setting_sweep_interval));
		/* round up, lest a time is missed by less than a millisecond */
		worker_rest(Min(setting_poll_interval, TimestampDifferenceMilliseconds(now, next) + 1));
	}
}
