/*
 * pace.c
 *		Channels that send a number of messages at a time: runs, their budget and their phase.
 *
 * A channel's pace is kept by one worker, the first of the stage that sends its
 * messages first.  When a run is due, its row and the time of the next are written
 * in one transaction; what becomes of its messages is written with their marks.  So a
 * restart neither skips a run nor makes it twice: one that was interrupted is gone on
 * with, by what is left of its budget.
 */
#include "msgsys.h"

#include "monotonic.h"
#include "pace.h"
#include "shmem.h"
#include "store.h"
#include "worker.h"

#include "utils/timestamp.h"

/* Whether runs are this worker's affair. */
static bool
is_ours(void)
{
	return slot_number() == 0;
}

/* The time of the run after now, in the phase of one that was due. */
static TimestampTz
next_in_phase(const Pace *pace, TimestampTz due, TimestampTz now)
{
	int64		passed = Max(now - due, 0) / pace->every;

	return due + (passed + 1) * pace->every;
}

#define AGAIN	1000			/* ms between two tries at writing down what could not be */

/* A run to be written down. */
typedef struct RunWork
{
	Channel    *channel;
	TimestampTz now;
	int64		run_id;
} RunWork;

static void
begin_run(void *arg)
{
	RunWork    *work = arg;
	const Pace *pace = &work->channel->pace;

	work->run_id = store_run_begin(work->channel->name, pace->next_at, next_in_phase(pace, pace->next_at, work->now), work->now);
}

static void
end_run(void *arg)
{
	RunWork    *work = arg;

	store_run_end(work->channel->pace.run_id);
}

/* Write something down of a channel's run.  Returns false where that failed: it is tried again later, and others go on. */
static bool
try_run(void (*write) (void *arg), RunWork *work)
{
	ErrorData  *error;

	if (work->channel->pace.again_ms > now_ms())
		return false;
	if (worker_try_any(write, work, &error))
		return true;
	if (work->channel->pace.again_ms == 0)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("msgsys could not write down a run of channel \"%s\": %s", work->channel->name, error->message),
				 errdetail("The channel waits, and it is tried again.")));
	slot_error(error->message);
	work->channel->pace.again_ms = now_ms() + AGAIN;
	return false;
}

/* The clock was set back, where the next run is further off than a run from the next: it is due. */
static void
mind_clock(Pace *pace, TimestampTz now)
{
	if (pace->next_at > now + pace->every)
		pace->next_at = now;
}

/* See to it that a run is under way, if there is one or it is time for one.  Returns whether there is. */
bool
pace_open(Channel *channel, TimestampTz now)
{
	Pace	   *pace = &channel->pace;
	RunWork		work = {.channel = channel,.now = now};

	if (!is_ours())
		return false;
	if (pace->run_id != 0)
		return true;
	mind_clock(pace, now);
	if (pace->next_at > now || !try_run(begin_run, &work))
		return false;
	pace->again_ms = 0;
	pace->run_id = work.run_id;
	if (pace->run_id == 0)
		return false;			/* no pace any more: we shall read that */
	pace->next_at = next_in_phase(pace, pace->next_at, now);
	pace->succeeded = pace->failed = 0;
	pace->exhausted = false;
	slot_count_up(COUNT_RUNS, 1);
	return true;
}

/* How many more messages the run under way may take. */
int
pace_left(const Channel *channel)
{
	const Pace *pace = &channel->pace;

	if (!is_ours() || pace->run_id == 0 || pace->exhausted)
		return 0;
	return Max(pace->batch - pace->succeeded - pace->failed - pace->in_memory, 0);
}

/* When this worker has to begin the next run; DT_NOEND: one is under way, or it is not ours. */
TimestampTz
pace_next(Channel *channel)
{
	Pace	   *pace = &channel->pace;
	int64		pause = pace->again_ms - now_ms();

	if (!is_ours() || pace->run_id != 0)
		return DT_NOEND;
	mind_clock(pace, clock_now());
	return pause <= 0 ? pace->next_at : Max(pace->next_at, TimestampTzPlusMilliseconds(clock_now(), pause));
}

/* Count a message into a result. */
void
pace_count(PaceResult *result, int64 id, bool success, const char *error)
{
	if (result->succeeded + result->failed == 0)
		result->first_id = result->last_id = id;
	result->first_id = Min(result->first_id, id);
	result->last_id = Max(result->last_id, id);
	if (success)
		result->succeeded++;
	else
	{
		result->failed++;
		result->error = error;
	}
}

/* Write a result, in the transaction of the marks. */
void
pace_write(const PaceResult *result)
{
	const Pace *pace = &result->channel->pace;
	int			n = result->succeeded + result->failed;

	if (pace->run_id != 0 && n > 0)
		store_run_mark(pace->run_id, Max(pace->succeeded + pace->failed + pace->in_memory, n),
					   result->succeeded, result->failed, result->first_id, result->last_id, result->error);
}

/* It is committed. */
void
pace_settle(const PaceResult *result)
{
	result->channel->pace.succeeded += result->succeeded;
	result->channel->pace.failed += result->failed;
}

/* The run takes nothing more: it has ended once nothing of it is under way. */
void
pace_close(Channel *channel)
{
	Pace	   *pace = &channel->pace;
	RunWork		work = {.channel = channel};

	if (!is_ours())
		return;
	pace->exhausted = true;
	if (pace->run_id == 0 || pace->in_memory > 0 || !try_run(end_run, &work))
		return;
	pace->again_ms = 0;
	pace->run_id = 0;
}
