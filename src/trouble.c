/*
 * trouble.c
 *		Troubles that workers know of and no table shows: for msg_check().
 *
 * A worker's latest error is one line, which the next error takes away.  What lasts while
 * the worker goes on, such as a topic that takes no records, stands here, in shared memory,
 * from when the worker knows of it until it is over.  There are few; one that finds no
 * place is in the log alone.
 */
#include "msgsys.h"

#include "shmem.h"
#include "trouble.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define TROUBLES_MOST	128

PG_FUNCTION_INFO_V1(msg_check_troubles);

typedef struct Troubles
{
	LWLock	   *lock;
	Trouble		list[TROUBLES_MOST];
} Troubles;

static Troubles *troubles = NULL;

/* The shared memory that this needs. */
Size
troubles_size(void)
{
	return sizeof(Troubles);
}

/* Make it, or find it; with AddinShmemInitLock held. */
void
troubles_init(void)
{
	bool		found;

	troubles = ShmemInitStruct("msgsys troubles", sizeof(Troubles), &found);
	if (found)
		return;
	memset(troubles, 0, sizeof(Troubles));
	troubles->lock = &(GetNamedLWLockTranche(MSGSYS_NAME))[2].lock;
}

/* A worker begins: it knows of no topic yet.  What it counted stays. */
void
troubles_begin(Oid dboid, Stage stage, int worker)
{
	LWLockAcquire(troubles->lock, LW_EXCLUSIVE);
	for (int i = 0; i < TROUBLES_MOST; i++)
	{
		Trouble    *trouble = &troubles->list[i];

		if (trouble->kind == TROUBLE_TOPIC && trouble->dboid == dboid && trouble->stage == stage && trouble->worker == worker)
			trouble->kind = TROUBLE_NONE;
	}
	LWLockRelease(troubles->lock);
}

/* This worker's trouble with a topic; NULL: there is none.  *vacant: a place for it, or NULL.  Under the lock. */
static Trouble *
find(TroubleKind kind, const char *topic, Trouble **vacant)
{
	*vacant = NULL;
	for (int i = 0; i < TROUBLES_MOST; i++)
	{
		Trouble    *trouble = &troubles->list[i];

		if (trouble->kind == TROUBLE_NONE)
			*vacant = trouble;
		else if (trouble->kind == kind && trouble->dboid == slot_dboid() && trouble->stage == slot_stage() &&
				 trouble->worker == slot_number() && strcmp(trouble->topic, topic) == 0)
			return trouble;
	}
	return NULL;
}

/* Show a trouble, or that it is there once more. */
void
trouble_add(TroubleKind kind, const char *topic, const char *reason)
{
	TimestampTz now = GetCurrentTimestamp();
	Trouble    *vacant;
	Trouble    *trouble;

	LWLockAcquire(troubles->lock, LW_EXCLUSIVE);
	trouble = find(kind, topic, &vacant);
	if (trouble == NULL && vacant != NULL)
	{
		trouble = vacant;
		*trouble = (Trouble)
		{
			.kind = kind,.dboid = slot_dboid(),.stage = slot_stage(),.worker = slot_number(),.since = now
		};
		strlcpy(trouble->topic, topic, sizeof(trouble->topic));
	}
	if (trouble)
	{
		strlcpy(trouble->reason, reason, sizeof(trouble->reason));
		trouble->latest = now;
		trouble->count++;
	}
	LWLockRelease(troubles->lock);
}

/* A trouble is over. */
void
trouble_over(TroubleKind kind, const char *topic)
{
	Trouble    *vacant;
	Trouble    *trouble;

	LWLockAcquire(troubles->lock, LW_EXCLUSIVE);
	trouble = find(kind, topic, &vacant);
	if (trouble)
		trouble->kind = TROUBLE_NONE;
	LWLockRelease(troubles->lock);
}

/*
 * msg_check_troubles() returns setof record
 * The troubles of this database's workers.
 */
Datum
msg_check_troubles(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	Trouble    *mine;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;
		TupleDesc	desc;

		context = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		context->tuple_desc = BlessTupleDesc(desc);
		context->user_fctx = mine = palloc(sizeof(troubles->list));
		if (troubles)
		{
			LWLockAcquire(troubles->lock, LW_SHARED);
			for (int i = 0; i < TROUBLES_MOST; i++)
				if (troubles->list[i].kind != TROUBLE_NONE && troubles->list[i].dboid == MyDatabaseId)
					mine[context->max_calls++] = troubles->list[i];
			LWLockRelease(troubles->lock);
		}
		MemoryContextSwitchTo(old);
	}
	context = SRF_PERCALL_SETUP();
	if (context->call_cntr < context->max_calls)
	{
		const Trouble *trouble = (Trouble *) context->user_fctx + context->call_cntr;
		Datum		values[8];
		bool		nulls[8] = {false};

		values[0] = CStringGetTextDatum(trouble->kind == TROUBLE_TOPIC ? "topic" : "acknowledgements");
		values[1] = CStringGetTextDatum(stage_name(trouble->stage));
		values[2] = Int32GetDatum(trouble->worker);
		values[3] = CStringGetTextDatum(trouble->topic);
		values[4] = CStringGetTextDatum(trouble->reason);
		values[5] = Int64GetDatum((int64) trouble->count);
		values[6] = TimestampTzGetDatum(trouble->since);
		values[7] = TimestampTzGetDatum(trouble->latest);
		SRF_RETURN_NEXT(context, HeapTupleGetDatum(heap_form_tuple(context->tuple_desc, values, nulls)));
	}
	SRF_RETURN_DONE(context);
}
