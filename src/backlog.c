/*
 * backlog.c
 *		How many messages wait to be sent, by channel, in shared memory.
 *
 * Commits add what they make idle, workers take away what they have sent: nobody counts
 * rows to know whether a channel is full.  What these numbers do not see (rows that are
 * deleted, a restart, a rolled back savepoint) is put right by the scheduler, which
 * counts once a minute where msgsys.max_backlog is set.
 */
#include "msgsys.h"

#include "backlog.h"
#include "channel.h"
#include "shmem.h"
#include "store.h"
#include "worker.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define COUNT_EVERY		60000	/* ms */
#define LOCKED_AGAIN	1000	/* ms */

static pg_atomic_uint64 *waiting = NULL;	/* by the index of a channel */
static TimestampTz warned_in = 0;	/* the start of the transaction that was warned last */

/* The shared memory that this needs. */
Size
backlog_size(void)
{
	return mul_size(setting_max_channels, sizeof(pg_atomic_uint64));
}

/* Make it, or find it; with AddinShmemInitLock held. */
void
backlog_init(void)
{
	bool		found;

	waiting = ShmemInitStruct("msgsys backlog", backlog_size(), &found);
	if (!found)
		for (int i = 0; i < setting_max_channels; i++)
			pg_atomic_init_u64(&waiting[i], 0);
}

/* The place of a channel becomes another one's. */
void
backlog_forget(int index)
{
	pg_atomic_write_u64(&waiting[index], 0);
}

/* So many messages more wait in a channel, or fewer.  Raises no error. */
void
backlog_add(Oid dboid, const char *channel, int64 n)
{
	int			index;

	if (waiting == NULL || n == 0)
		return;
	index = channel_index(dboid, channel);
	if (index >= 0)
		pg_atomic_fetch_add_u64(&waiting[index], n);
}

/* How many wait, as far as is known; 0 for a channel beyond msgsys.max_channels. */
int64
backlog_of(Oid dboid, const char *channel)
{
	int			index = waiting ? channel_index(dboid, channel) : -1;

	return index < 0 ? 0 : Max((int64) pg_atomic_read_u64(&waiting[index]), 0);
}

/*
 * Refuse one more message in a channel that is full, or warn once a transaction;
 * own is how many this transaction has made already.  Errors: 53400.
 */
void
backlog_check(const char *channel, int64 own)
{
	int64		n;
	bool		refuse = setting_backlog_action == BACKLOG_ERROR;

	if (setting_max_backlog == 0)
		return;
	n = backlog_of(MyDatabaseId, channel) + own;
	if (n < setting_max_backlog || (!refuse && warned_in == GetCurrentTransactionStartTimestamp()))
		return;
	warned_in = GetCurrentTransactionStartTimestamp();
	ereport(refuse ? ERROR : WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("channel \"%s\" has " INT64_FORMAT " messages waiting to be sent", channel, n),
			 errdetail("msgsys.max_backlog is %d.", setting_max_backlog),
			 errhint("See in msg_workers and msg_backlog what keeps them from being sent, and try again later.")));
}

/* The scheduler's job: put the numbers right.  Returns when to do so again. */
TimestampTz
backlog_run(TimestampTz now)
{
	ListCell   *lc;

	if (setting_max_backlog == 0)
		return TimestampTzPlusMilliseconds(now, COUNT_EVERY);
	foreach(lc, channels)
	{
		const char *name = ((Channel *) lfirst(lc))->name;
		int			index = channel_index(MyDatabaseId, name);
		int64		before;

		if (index < 0)
			continue;
		if (!worker_begin())
			return TimestampTzPlusMilliseconds(now, LOCKED_AGAIN);
		/* as it stands, which may be below 0; what is added meanwhile is seen by both, at worst, until the next time */
		before = (int64) pg_atomic_read_u64(&waiting[index]);
		pg_atomic_fetch_add_u64(&waiting[index], store_count_idle(name, (int64) setting_max_backlog * 2) - before);
		worker_commit();
		CHECK_FOR_INTERRUPTS();
	}
	return TimestampTzPlusMilliseconds(now, COUNT_EVERY);
}
