/*
 * mailing.c
 *		The scheduler's job that turns mailings into messages, and has these follow a
 *		mailing that is changed.
 *
 * A call does one piece in a transaction of its own.  How many clients that is follows from
 * how long the one before took, so that transactions stay short on any machine.  A piece that
 * fails is tried again with fewer, down to one client, who is left out after three times.
 */
#include "msgsys.h"

#include "mailing.h"
#include "shmem.h"
#include "store.h"
#include "store_mailing.h"
#include "suspect.h"
#include "worker.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/timestamp.h"

#define FIRST_PIECE		2000	/* clients */
#define SMALLEST_PIECE	100
#define SHORT_PIECE		250		/* ms: the next one may be twice as large */
#define LONG_PIECE		750		/* ms: the next one is half as large */
#define LOCKED_AGAIN	200		/* ms between two tries at rows that users hold */
#define FAILED_AGAIN	1000	/* ms between two tries at one client */
#define SMALLER_PIECE	8		/* times, after a failure */

typedef struct Piece
{
	TimestampTz now;
	bool		blocked;		/* somebody has the table messages */
	MailingWork work;
} Piece;

static int	piece_size = FIRST_PIECE;
static int	failures = 0;		/* of a piece of one client */

static void
do_piece(void *arg)
{
	Piece	   *piece = arg;

	piece->blocked = !store_lock_messages();
	if (piece->blocked)
		return;
	store_mailings_run(piece->now, piece_size, &piece->work);
}

/* One line, for pieces that are worth one. */
static void
log_piece(const MailingWork *work, int64 milliseconds)
{
	if (setting_log_batch < 0 || work->created + work->changed + work->cancelled < Max(setting_log_batch, 1))
		return;
	ereport(LOG,
			(errhidecontext(true), errhidestmt(true),
			 errmsg("msgsys mailing " INT64_FORMAT ": clients after " INT64_FORMAT " up to " INT64_FORMAT ", " INT64_FORMAT
					" messages created, ids " INT64_FORMAT " to " INT64_FORMAT ", " INT64_FORMAT " changed, " INT64_FORMAT
					" cancelled, in " INT64_FORMAT " ms", work->mailing, work->first_client, work->last_client, work->created,
					work->first_id, work->last_id, work->changed, work->cancelled, milliseconds)));
}

/* The next piece's size. */
static void
adapt(int64 milliseconds)
{
	if (milliseconds > LONG_PIECE)
		piece_size /= 2;
	else if (milliseconds < SHORT_PIECE)
		piece_size *= 2;
	piece_size = Max(SMALLEST_PIECE, Min(piece_size, setting_batch_size));
}

static void
pass_over(void *arg)
{
	ErrorData  *reason = arg;
	int64		mailing;
	int64		client;

	if (!store_mailing_pass_over(clock_now(), &mailing, &client))
		return;
	if (client != 0)
		ereport(LOG,
				(errmsg("msgsys mailing " INT64_FORMAT " leaves out client " INT64_FORMAT ": %s", mailing, client, reason->message)));
	else
		ereport(LOG,
				(errmsg("msgsys mailing " INT64_FORMAT " cannot go on, and waits for a minute: %s", mailing, reason->message)));
}

/* A piece has failed: fewer clients are tried, and one alone is left out in the end.  Returns when to go on. */
static TimestampTz
piece_failed(ErrorData *error)
{
	bool		alone = piece_size == 1;
	ErrorData  *again;

	if (error_is_of_locks(error))
		return TimestampTzPlusMilliseconds(clock_now(), LOCKED_AGAIN);
	slot_error(error->message);
	if (piece_size > 1)
		piece_size = Max(1, piece_size / SMALLER_PIECE);
	if (!alone)
		return clock_now();
	if (!error_is_of_server(error) && strike(&failures, true) && worker_try_any(pass_over, error, &again))
	{
		failures = 0;
		return clock_now();
	}
	return TimestampTzPlusMilliseconds(clock_now(), FAILED_AGAIN);
}

/* Do one piece of the work of mailings.  Returns when there is more; see scheduler.c. */
TimestampTz
mailings_run(TimestampTz now)
{
	Piece		piece = {.now = now,.work = {.next_at = DT_NOEND}};
	instr_time	begin;
	instr_time	taken;
	ErrorData  *error;

	INSTR_TIME_SET_CURRENT(begin);
	if (!worker_try_any(do_piece, &piece, &error))
		return piece_failed(error);
	if (piece.blocked)
		return TimestampTzPlusMilliseconds(now, LOCKED_AGAIN);
	failures = 0;
	INSTR_TIME_SET_CURRENT(taken);
	INSTR_TIME_SUBTRACT(taken, begin);
	if (piece.work.mailing == 0)
		/* one that is due and was not there for us is held by a user */
		return Max(piece.work.next_at, TimestampTzPlusMilliseconds(now, LOCKED_AGAIN));
	slot_count_up(COUNT_CYCLES, 1);
	log_piece(&piece.work, (int64) INSTR_TIME_GET_MILLISEC(taken));
	adapt((int64) INSTR_TIME_GET_MILLISEC(taken));
	return piece.work.next_at;
}
