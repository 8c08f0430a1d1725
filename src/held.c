/*
 * held.c
 *		Rows that somebody's transaction holds, and the keys that wait for them.
 *
 * A claim does not wait for a row that is locked, and goes on with the next.  Were that
 * one of the same key, it would overtake: so the key is remembered here, and what comes
 * later of it is passed over.  The held rows are looked at every now and then, by their
 * ids; once one is free, the claim goes back to it, and all of its key follow in order.
 *
 * A row without a key blocks nothing.  It is remembered only so that it is sent soon
 * after it is free, and left to the sweep where there are too many.
 */
#include "msgsys.h"

#include "held.h"
#include "monotonic.h"
#include "worker.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define MOST_HELD		10000	/* rows */
#define LOOK_FIRST		5		/* ms between two looks; doubles while none is free */
#define LOOK_LONGEST	500

typedef struct Held
{
	uint64		hash;			/* hash key: of channel, kind, and the key or else the id */
	ClaimKind	kind;
	int64		id;
	char		channel[CHANNEL_NAME_MAX];
} Held;

static HTAB *table = NULL;
static int	pause = LOOK_FIRST; /* ms */
static int64 look_at = 0;		/* ms */

static long
count(void)
{
	return table ? hash_get_num_entries(table) : 0;
}

static uint64
hash_of(ClaimKind kind, const Channel *channel, const ClaimedRow *row)
{
	uint64		seed = hash_bytes_extended((const unsigned char *) channel->name, strlen(channel->name), kind);

	if (row->key)
		return hash_bytes_extended((const unsigned char *) row->key, row->key_length, seed);
	return hash_bytes_extended((const unsigned char *) &row->id, sizeof(row->id), ~seed);
}

/* Whether nothing more can be remembered. */
bool
held_full(void)
{
	return count() >= MOST_HELD;
}

/*
 * Remember a row that somebody holds.  Returns false if it has a key and cannot be
 * remembered, so that nothing after it may be claimed.
 */
bool
held_enter(ClaimKind kind, const Channel *channel, const ClaimedRow *row)
{
	uint64		hash = hash_of(kind, channel, row);
	Held	   *held;
	bool		found;

	if (table == NULL)
	{
		HASHCTL		ctl = {
			.keysize = sizeof(uint64),
			.entrysize = sizeof(Held),
			.hcxt = TopMemoryContext,
		};

		table = hash_create("msgsys held rows", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	if (held_full() && !hash_search(table, &hash, HASH_FIND, NULL))
		return row->key == NULL;
	held = hash_search(table, &hash, HASH_ENTER, &found);
	if (!found)
	{
		held->kind = kind;
		held->id = row->id;
		strlcpy(held->channel, channel->name, CHANNEL_NAME_MAX);
		pause = LOOK_FIRST;
		look_at = Min(count() > 1 ? look_at : PG_INT64_MAX, now_ms() + pause);
	}
	/* a row that was committed late may come before the one that was met first */
	else if (kind == CLAIM_IDLE)
		held->id = Min(held->id, row->id);
	return true;
}

/* Whether a row has to wait for another one of its key. */
bool
held_blocks(ClaimKind kind, const Channel *channel, const ClaimedRow *row)
{
	uint64		hash;
	Held	   *held;

	if (count() == 0 || row->key == NULL)
		return false;
	hash = hash_of(kind, channel, row);
	held = hash_search(table, &hash, HASH_FIND, NULL);
	return held && (kind == CLAIM_IDLE ? row->id > held->id : row->id != held->id);
}

static int
compare_ids(const void *a, const void *b)
{
	int64		x = (*(Held *const *) a)->id;
	int64		y = (*(Held *const *) b)->id;

	return x < y ? -1 : x > y;
}

typedef struct Look
{
	int64	   *ids;			/* in their order */
	int			n;
	bool	   *held;
} Look;

static void
look(void *arg)
{
	Look	   *l = arg;

	if (store_lock_messages())
		store_lock_free(l->ids, l->n, l->held);
}

/* Look which rows are free now, when it is time, and tell of them; their keys wait for nothing any more. */
void
held_look(void (*released) (ClaimKind kind, Channel *channel, int64 id))
{
	int			n = (int) count();
	Look		l = {.n = n};
	Held	  **rows;
	Held	   *entry;
	HASH_SEQ_STATUS scan;
	ErrorData  *error;
	bool		any = false;

	if (n == 0 || now_ms() < look_at)
		return;
	rows = palloc(n * sizeof(Held *));
	l.ids = palloc(n * sizeof(int64));
	l.held = palloc(n * sizeof(bool));
	n = 0;
	hash_seq_init(&scan, table);
	while ((entry = hash_seq_search(&scan)) != NULL)
		rows[n++] = entry;
	qsort(rows, n, sizeof(Held *), compare_ids);
	for (int i = 0; i < n; i++)
	{
		l.ids[i] = rows[i]->id;
		l.held[i] = true;
	}
	if (worker_try_any(look, &l, &error))
		for (int i = 0; i < n; i++)
		{
			Held		row = *rows[i];
			Channel    *channel;

			if (l.held[i])
				continue;
			any = true;
			hash_search(table, &row.hash, HASH_REMOVE, NULL);
			channel = channel_find(row.channel);
			if (channel)
				released(row.kind, channel, row.id);
		}
	pause = any ? LOOK_FIRST : Min(pause * 2, LOOK_LONGEST);
	look_at = now_ms() + pause;
}

/* When the next look is due, in milliseconds; PG_INT64_MAX: there is nothing to look at. */
int64
held_next_look(void)
{
	return count() > 0 ? look_at : PG_INT64_MAX;
}
