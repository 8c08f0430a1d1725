/*
 * fate.c
 *		What the relay knows of rows that the table does not say yet.
 *
 * A fate is what became of a record whose row could not be marked: the transaction
 * failed, or the record was left under way.  While it is here the row is not produced
 * again; when it is claimed again it is marked.  A suspect is a row that could not be
 * handled alone; it is passed over, and tried alone from time to time.
 */
#include "msgsys.h"

#include "fate.h"
#include "suspect.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#define TRY_AGAIN		200		/* ms; doubles with each failure */
#define TRY_LONGEST		5000

static HTAB *fates = NULL;
static HTAB *suspects = NULL;

/* Dead letters are records of their own. */
static int64
fate_key(ClaimKind kind, int64 id)
{
	return kind == CLAIM_DEAD_LETTER ? -id : id;
}

static bool
none(HTAB *table)
{
	return table == NULL || hash_get_num_entries(table) == 0;
}

static HTAB *
make_table(const char *name, Size entry)
{
	HASHCTL		ctl = {
		.keysize = sizeof(int64),
		.entrysize = entry,
		.hcxt = TopMemoryContext,
	};

	return hash_create(name, 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* What became of a row's record; NULL: nothing is known that the table does not say. */
Fate *
fate_find(ClaimKind kind, int64 id, int attempts)
{
	int64		key = fate_key(kind, id);
	Fate	   *fate;

	if (none(fates))
		return NULL;
	fate = hash_search(fates, &key, HASH_FIND, NULL);
	if (fate && fate->attempts != attempts)
	{
		/* the row has gone on without us */
		fate_forget(kind, id);
		return NULL;
	}
	return fate;
}

/* The fate of a row's record, to be filled in. */
Fate *
fate_remember(ClaimKind kind, int64 id, int attempts)
{
	int64		key = fate_key(kind, id);
	Fate	   *fate;

	if (fates == NULL)
		fates = make_table("msgsys fates", sizeof(Fate));
	fate = hash_search(fates, &key, HASH_ENTER, NULL);
	memset((char *) fate + sizeof(int64), 0, sizeof(Fate) - sizeof(int64));
	fate->attempts = attempts;
	return fate;
}

/* The table says it. */
void
fate_forget(ClaimKind kind, int64 id)
{
	int64		key = fate_key(kind, id);

	if (!none(fates))
		hash_search(fates, &key, HASH_REMOVE, NULL);
}

/* Forget those from before a time: their rows were marked by others, or are gone. */
void
fates_forget_old(int64 before)
{
	HASH_SEQ_STATUS scan;
	Fate	   *fate;

	if (none(fates))
		return;
	hash_seq_init(&scan, fates);
	while ((fate = hash_seq_search(&scan)) != NULL)
		if (!fate->pending && fate->since < before)
			hash_search(fates, &fate->key, HASH_REMOVE, NULL);
}

/* A row that is to be tried alone; NULL: it is none. */
Suspect *
suspect_find(ClaimKind kind, int64 id)
{
	int64		key = fate_key(kind, id);

	return none(suspects) ? NULL : hash_search(suspects, &key, HASH_FIND, NULL);
}

/*
 * A row could not be handled alone, when so many batches had passed.  That counts
 * only while others pass: else it need not be the row's fault.
 */
Suspect *
suspect_enter(ClaimKind kind, int64 id, const char *channel, uint64 passed, int64 now)
{
	int64		key = fate_key(kind, id);
	Suspect    *suspect;
	bool		found;
	bool		others_pass;

	if (suspects == NULL)
		suspects = make_table("msgsys suspects", sizeof(Suspect));
	suspect = hash_search(suspects, &key, HASH_ENTER, &found);
	if (!found)
	{
		suspect->failures = suspect->failures_alone = 0;
		suspect->id = id;
		strlcpy(suspect->channel, channel, sizeof(suspect->channel));
	}
	suspect->kind = kind;
	others_pass = !found || passed > suspect->passed;
	suspect->failures_alone = others_pass ? 0 : suspect->failures_alone + 1;
	suspect->at_fault = strike(&suspect->failures, others_pass);
	suspect->passed = passed;
	suspect->retry_at = now + Min(TRY_LONGEST, TRY_AGAIN << Min(suspect->failures + suspect->failures_alone, 6));
	return suspect;
}

void
suspect_forget(ClaimKind kind, int64 id)
{
	int64		key = fate_key(kind, id);

	if (!none(suspects))
		hash_search(suspects, &key, HASH_REMOVE, NULL);
}

/* The suspect that is to be tried first. */
static Suspect *
first_suspect(void)
{
	HASH_SEQ_STATUS scan;
	Suspect    *suspect;
	Suspect    *first = NULL;

	if (none(suspects))
		return NULL;
	hash_seq_init(&scan, suspects);
	while ((suspect = hash_seq_search(&scan)) != NULL)
		if (first == NULL || suspect->retry_at < first->retry_at)
			first = suspect;
	return first;
}

/* A suspect that is to be tried now, or NULL. */
Suspect *
suspect_due(int64 now)
{
	Suspect    *first = first_suspect();

	return first && first->retry_at <= now ? first : NULL;
}

/* When the next one is to be tried, in ms; PG_INT64_MAX: there is none. */
int64
suspect_next(void)
{
	Suspect    *first = first_suspect();

	return first ? first->retry_at : PG_INT64_MAX;
}
