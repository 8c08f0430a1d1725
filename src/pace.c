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

/* See to it that a run is under way, if there is one or it is time for one.  Returns whether there is. */
bool
pace_open(Channel *channel, TimestampTz now)
{
	Pace	   *pace = &channel->pace;

	if (!is_ours())
		return false;
	if (pace->run_id != 0)
		return true;
	if (pace->next_at > now || !worker_begin())
		return false;
	pace->run_id = store_run_begin(channel->name, pace->next_at, next_in_phase(pace, pace->next_at, now), now);
	worker_commit();
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
pace_next(const Channel *channel)
{
	return !is_ours() || channel->pace.run_id != 0 ? DT_NOEND : channel->pace.next_at;
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

	if (!is_ours())
		return;
	pace->exhausted = true;
	if (pace->run_id == 0 || pace->in_memory > 0 || !worker_begin())
		return;
	store_run_end(pace->run_id);
	worker_commit();
	pace->run_id = 0;
}
