/*
 * commits.c
 *		Which messages are about to become visible.
 *
 * A transaction's rows become visible a moment before it can say so (notes.c).
 * A relay that claims in that moment, from a mark between them, would send the
 * later rows of a key before the earlier ones.  So each session enters its lowest
 * id here before it commits, and takes it back once its notes are published: who
 * looks here after taking a snapshot, and then at its notes, knows of every
 * transaction that the snapshot sees.
 */
#include "commits.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/shmem.h"

#define ENTRIES		128			/* sessions within that moment, of all databases */
#define FREE		((uint64) 0)
#define TAKEN		PG_UINT64_MAX	/* by one that has not begun to commit */

typedef struct CommitEntry
{
	pg_atomic_uint64 low;		/* id, FREE or TAKEN */
	Oid			dboid;			/* valid while low is an id */
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
		pg_atomic_init_u64(&commits->entries[i].low, FREE);
}

/* This session is about to commit messages, from this id on.  Raises no error. */
void
commit_begins(Oid dboid, int64 lowest_id)
{
	if (commits == NULL || mine || in_crowd)
		return;
	for (int i = 0; i < ENTRIES; i++)
	{
		CommitEntry *entry = &commits->entries[(MyProcPid + i) % ENTRIES];
		uint64		expected = FREE;

		if (pg_atomic_compare_exchange_u64(&entry->low, &expected, TAKEN))
		{
			entry->dboid = dboid;
			pg_write_barrier();
			pg_atomic_write_u64(&entry->low, (uint64) Max(lowest_id, 1));
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
		pg_atomic_write_u64(&mine->low, FREE);
	if (in_crowd)
		pg_atomic_fetch_sub_u32(&commits->crowd, 1);
	mine = NULL;
	in_crowd = false;
}

/* The lowest id that a session of this database is about to commit; PG_INT64_MAX: none. */
int64
commits_lowest(Oid dboid)
{
	int64		lowest = PG_INT64_MAX;

	if (pg_atomic_read_u32(&commits->crowd) > 0)
		return 1;
	for (int i = 0; i < ENTRIES; i++)
	{
		CommitEntry *entry = &commits->entries[i];
		uint64		low = pg_atomic_read_u64(&entry->low);

		if (low == FREE || low == TAKEN)
			continue;
		pg_read_barrier();
		if (entry->dboid == dboid)
			lowest = Min(lowest, (int64) low);
	}
	pg_memory_barrier();
	return lowest;
}
