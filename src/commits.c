/*
 * commits.c
 *		Which messages are about to become visible.
 *
 * A transaction's rows become visible a moment before it can say so (notes.c).
 * A relay that claims in that moment, from a mark between them, would send the
 * later rows of a key before the earlier ones; so would a webhook worker.  So each
 * session enters its lowest ids here before it commits, and takes them back once its
 * notes are published: who looks here after taking a snapshot, and then at its notes,
 * knows of every transaction that the snapshot sees.
 */
#include "commits.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/shmem.h"

#define ENTRIES		128			/* sessions within that moment, of all databases */
#define NO_ID		((uint64) PG_INT64_MAX)

typedef struct CommitEntry
{
	pg_atomic_uint32 taken;
	pg_atomic_uint64 low[WAITING_KINDS];	/* id or NO_ID */
	pg_atomic_uint32 due;		/* there are rows that come due */
	Oid			dboid;			/* valid while there is an id, or due is set */
} CommitEntry;

typedef struct Commits
{
	pg_atomic_uint32 crowd;		/* sessions that found no entry */
	CommitEntry entries[ENTRIES];
} Commits;

static Commits *commits = NULL;
static CommitEntry *mine = NULL;
static bool in_crowd = false;

/* The shared memory that this needs. */
Size
commits_size(void)
{
	return sizeof(Commits);
}

/* Make it, or find it; with AddinShmemInitLock held. */
void
commits_init(void)
{
	bool		found;

	commits = ShmemInitStruct("msgsys commits", sizeof(Commits), &found);
	if (found)
		return;
	pg_atomic_init_u32(&commits->crowd, 0);
	for (int i = 0; i < ENTRIES; i++)
	{
		pg_atomic_init_u32(&commits->entries[i].taken, 0);
		pg_atomic_init_u32(&commits->entries[i].due, 0);
		for (int kind = 0; kind < WAITING_KINDS; kind++)
			pg_atomic_init_u64(&commits->entries[i].low[kind], NO_ID);
	}
}

/*
 * This session is about to commit messages, from these ids on (PG_INT64_MAX: none of that kind), or
 * ones that come due.  Raises no error.
 */
void
commit_begins(Oid dboid, const int64 lowest[WAITING_KINDS], bool due)
{
	if (commits == NULL || mine || in_crowd)
		return;
	for (int i = 0; i < ENTRIES; i++)
	{
		CommitEntry *entry = &commits->entries[(MyProcPid + i) % ENTRIES];
		uint32		expected = 0;

		if (pg_atomic_compare_exchange_u32(&entry->taken, &expected, 1))
		{
			entry->dboid = dboid;
			pg_write_barrier();
			for (int kind = 0; kind < WAITING_KINDS; kind++)
				pg_atomic_write_u64(&entry->low[kind], (uint64) lowest[kind]);
			pg_atomic_write_u32(&entry->due, due);
			mine = entry;
			return;
		}
	}
	pg_atomic_fetch_add_u32(&commits->crowd, 1);
	in_crowd = true;
}

/* Its notes are published, or it has rolled back. */
void
commit_ends(void)
{
	pg_memory_barrier();
	if (mine)
	{
		for (int kind = 0; kind < WAITING_KINDS; kind++)
			pg_atomic_write_u64(&mine->low[kind], NO_ID);
		pg_atomic_write_u32(&mine->due, 0);
		pg_write_barrier();
		pg_atomic_write_u32(&mine->taken, 0);
	}
	if (in_crowd)
		pg_atomic_fetch_sub_u32(&commits->crowd, 1);
	mine = NULL;
	in_crowd = false;
}

/* The lowest id that a session of this database is about to commit; PG_INT64_MAX: none. */
int64
commits_lowest(Oid dboid, WaitingKind kind)
{
	int64		lowest = PG_INT64_MAX;

	if (pg_atomic_read_u32(&commits->crowd) > 0)
		return 1;
	for (int i = 0; i < ENTRIES; i++)
	{
		CommitEntry *entry = &commits->entries[i];
		uint64		low = pg_atomic_read_u64(&entry->low[kind]);

		if (low == NO_ID)
			continue;
		pg_read_barrier();
		if (entry->dboid == dboid)
			lowest = Min(lowest, (int64) low);
	}
	pg_memory_barrier();
	return lowest;
}

/* Whether a session of this database is about to commit messages that come due. */
bool
commits_due(Oid dboid)
{
	bool		due = pg_atomic_read_u32(&commits->crowd) > 0;

	for (int i = 0; i < ENTRIES && !due; i++)
	{
		CommitEntry *entry = &commits->entries[i];

		if (pg_atomic_read_u32(&entry->due) == 0)
			continue;
		pg_read_barrier();
		due = entry->dboid == dboid;
	}
	pg_memory_barrier();
	return due;
}
