/*
 * scheduler.c
 *		The scheduler stage: work of the database's own that comes due by the clock.
 *
 * Each job does one bounded piece of work at a call, in transactions of its own, and
 * says when it wants to be called again.  A commit that may change that (a trigger
 * that calls note_schedule()) wakes the scheduler, and then every job is asked.
 *
 * It is also the one worker that a database always has, and says after each change
 * of the configuration which others are needed: the launcher starts and ends them.
 */
#include "msgsys.h"

#include "backlog.h"
#include "channel.h"
#include "mailing.h"
#include "monotonic.h"
#include "reconcile.h"
#include "retention.h"
#include "shmem.h"
#include "worker.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/timestamp.h"

#define CLOCK_SLACK		1000	/* ms that two clocks may drift apart between two looks */

/* Does one piece of work; returns when to call again (DT_NOEND: not before somebody says so). */
typedef TimestampTz (*JobFunction) (TimestampTz now);

typedef struct ScheduledJob
{
	const char *name;			/* for pg_stat_activity */
	JobFunction run;
	TimestampTz next;			/* zero: ask at once */
	int			pause;			/* ms until it is tried again after an error; 0: it met none */
} ScheduledJob;

#define FAILED_FIRST	1000	/* ms before a job that met an error runs again, twice as many each time */
#define FAILED_LONGEST	60000

static ScheduledJob jobs[] = {
	{"retention", retention_run, 0},
	{"backlog", backlog_run, 0},
	{"mailings", mailings_run, 0},
	{"reconciler", reconcile_run, 0},
	{NULL, NULL, 0}
};

/* Run a job.  An error concerns it alone: it is in the log, and the job is tried again, ever later. */
static TimestampTz
run_job(ScheduledJob *job, TimestampTz now)
{
	volatile TimestampTz next = 0;
	volatile bool failed = false;

	PG_TRY();
	{
		next = job->run(now);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		MemoryContextSwitchTo(cycle_context);
		RESUME_INTERRUPTS();
		failed = true;
	}
	PG_END_TRY();
	job->pause = failed ? Min(FAILED_LONGEST, Max(FAILED_FIRST, job->pause * 2)) : 0;
	return failed ? TimestampTzPlusMilliseconds(clock_now(), job->pause) : next;
}

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
			job->next = run_job(job, now);
			CHECK_FOR_INTERRUPTS();
		}
		next = Min(next, job->next);
	}
	return next;
}

/* Whether a job failed the last time. */
static bool
any_failed(void)
{
	bool		any = false;

	for (ScheduledJob *job = jobs; job->run; job++)
		any |= job->pause > 0;
	return any;
}

/* Say which stages the channels need; a stage that starts looks at all that waits. */
static void
say_what_is_needed(void)
{
	uint32		stages = 0;
	ListCell   *lc;

	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);

		if (channel->topic)
			stages |= 1 << STAGE_RELAY;
		if (channel->ack != ACK_NONE && (channel->topic || channel->former_topics != NIL))
			stages |= 1 << STAGE_RECEIVER;
		if (channel->has_webhook)
			stages |= 1 << STAGE_WEBHOOK;
	}
	slot_need(stages);
}

static bool
is_known(const char *channel)
{
	return channel_find(channel) != NULL;
}

/* The configuration has been read anew. */
static void
follow_configuration(void)
{
	say_what_is_needed();
	/* unless there is a newer one, which may have channels that this one has not */
	if (!worker_config_changed())
		channels_forget(MyDatabaseId, is_known);
}

/* Whether somebody has set the clock by which things come due, since the last call. */
static bool
clock_was_set(void)
{
	static int64 before = 0;
	int64		ahead = clock_now() / 1000 - now_ms();
	bool		result = Abs(ahead - before) > CLOCK_SLACK;

	before = ahead;
	return result;
}

/* Main loop of a scheduler. */
void
scheduler_main(void)
{
	int64		last_look = 0;	/* by the clock of now_ms() */

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
			/* a copy keeps its workers, which say what they wait for */
			if (!OidIsValid(installation.extension))
			{
				slot_need(0);
				channels_forget(MyDatabaseId, NULL);
			}
			else if (reloaded)
				follow_configuration();
			worker_rest(setting_poll_interval);
			continue;
		}
		if (reloaded)
			follow_configuration();
		now = clock_now();
		/* what nothing told of is found within this time */
		if (noted || reloaded || clock_was_set() || now_ms() - last_look >= setting_sweep_interval)
		{
			for (ScheduledJob *job = jobs; job->run; job++)
				job->next = 0;
			last_look = now_ms();
		}
		next = run_jobs(now);
		now = clock_now();
		if (next <= now)
			continue;
		if (!any_failed())
			slot_well();
		slot_state(WORKER_IDLE);
		/* round up, lest a time is missed by less than a millisecond */
		worker_rest(Min(Min(setting_poll_interval, Max(0, last_look + setting_sweep_interval - now_ms())),
						TimestampDifferenceMilliseconds(now, next) + 1));
	}
}
