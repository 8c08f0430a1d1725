/*
 * functions.c
 *		SQL functions that are written in C.
 */
#include "msgsys.h"

#include "ack.h"
#include "functions.h"
#include "json_fields.h"
#include "notes.h"
#include "monotonic.h"
#include "shmem.h"
#include "store.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "catalog/pg_proc.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(msg_wait);
PG_FUNCTION_INFO_V1(msg_ack);
PG_FUNCTION_INFO_V1(msg_worker_slots);
PG_FUNCTION_INFO_V1(msg_announce);
PG_FUNCTION_INFO_V1(msg_now);

#define LONGEST_WAIT	600000	/* ms */

/* On a standby nothing tells of a status that came by replication: looks there come ever later, up to this. */
#define STANDBY_FIRST	5		/* ms */
#define STANDBY_LONGEST 200		/* ms */

/* The quoted schema of the function that is called: that of the extension. */
const char *
own_schema(FunctionCallInfo fcinfo)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	Oid			schema;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", fcinfo->flinfo->fn_oid);
	schema = ((Form_pg_proc) GETSTRUCT(tuple))->pronamespace;
	ReleaseSysCache(tuple);
	return quote_identifier(get_namespace_name(schema));
}

/* The time by which messages come due and expire. */
TimestampTz
clock_now(void)
{
	return GetCurrentTimestamp() + setting_clock_offset * USECS_PER_SEC;
}

/* msg_now(): the same for SQL. */
Datum
msg_now(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(clock_now());
}

static long
interval_milliseconds(Interval *interval)
{
	double		seconds = interval->time / (double) USECS_PER_SEC +
	(interval->day + interval->month * 30.0) * SECS_PER_DAY;

	if (seconds < 0 || seconds * 1000 > LONGEST_WAIT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must be between 0 and 10 minutes")));
	return (long) (seconds * 1000);
}

/*
 * How far on its way a status is; those at its end count by themselves.  A
 * retry has the way before it once more.
 */
static int
rank(const char *status)
{
	if (strcmp(status, "sent") == 0)
		return 1;
	if (strcmp(status, "received") == 0)
		return 2;
	if (strcmp(status, "delivered") == 0)
		return 3;
	return 0;
}

static void
end_wait(int code, Datum arg)
{
	status_wait_end();
}

/* One look at the message: true when the wait is over; *status is set then and else. */
static bool
look(const char *query, int64 id, const char *wanted, Datum *status)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(id)};
	bool		isnull;
	char	   *now;
	bool		finished;

	if (SPI_execute_with_args(query, 1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look up message " INT64_FORMAT, id);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("message " INT64_FORMAT " does not exist", id)));
	if (TransactionIdIsCurrentTransactionId(DatumGetTransactionId(SPI_getbinval(SPI_tuptable->vals[0],
																				SPI_tuptable->tupdesc, 3, &isnull))))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message " INT64_FORMAT " is of this transaction", id),
				 errdetail("It is not sent before this transaction commits."),
				 errhint("Commit, then wait.")));
	*status = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	now = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	(void) SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	finished = !isnull;
	SPI_freetuptable(SPI_tuptable);
	return finished || strcmp(now, wanted) == 0 ||
		(rank(wanted) > 0 && rank(now) >= rank(wanted));
}

/*
 * msg_wait(id bigint, status msg_status, timeout interval) returns msg_status
 * The SQL definition has the contract.
 */
Datum
msg_wait(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	const char *wanted;
	long		left = interval_milliseconds(PG_GETARG_INTERVAL_P(2));
	int64		until = now_ms() + left;
	uint32		wait_event = compat_wait_event("MsgsysWait");
	char	   *query;
	Datum		status = (Datum) 0;
	long		nap = STANDBY_FIRST;
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(get_fn_expr_argtype(fcinfo->flinfo, 1), &output, &varlena);
	wanted = OidOutputFunctionCall(output, PG_GETARG_DATUM(1));
	if (!shmem_available())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("msgsys is not in shared_preload_libraries"),
				 errdetail("There are no workers to wait for.")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("msg_wait() needs the isolation level READ COMMITTED"),
				 errdetail("A transaction with one snapshot would never see the message change.")));
	/* no message has such an id, and it has no place among those that are waited for */
	if (id <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("message " INT64_FORMAT " does not exist", id)));
	query = psprintf("SELECT status, finished_at, xmin FROM %s.messages WHERE id OPERATOR(pg_catalog.=) $1",
					 own_schema(fcinfo));
	SPI_connect();
	PG_ENSURE_ERROR_CLEANUP(end_wait, (Datum) 0);
	{
		/* announced before the look, so that no change falls between */
		status_wait_prepare(id);
		while (!look(query, id, wanted, &status))
		{
			left = (long) (until - now_ms());
			if (left <= 0)
				break;
			if (RecoveryInProgress())
			{
				left = Min(left, nap);
				nap = Min(nap * 2, STANDBY_LONGEST);
			}
			status_wait(left, wait_event);
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(end_wait, (Datum) 0);
	status_wait_end();
	SPI_finish();
	PG_RETURN_DATUM(status);
}

/*
 * msg_ack(id bigint, outcome text, error text, attempt integer) returns boolean
 * The SQL definition has the contract.
 */
Datum
msg_ack(PG_FUNCTION_ARGS)
{
	Ack			ack = {0};
	int			marked;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	ack.id = PG_GETARG_INT64(0);
	if (!ack_outcome(text_to_cstring(PG_GETARG_TEXT_PP(1)), &ack.outcome))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown outcome \"%s\"", text_to_cstring(PG_GETARG_TEXT_PP(1))),
				 errhint("One of received, delivered and failed.")));
	if (!PG_ARGISNULL(2))
	{
		text	   *error = PG_GETARG_TEXT_PP(2);

		ack.error = pnstrdup(VARDATA_ANY(error), pg_mbcliplen(VARDATA_ANY(error), VARSIZE_ANY_EXHDR(error), LONGEST_ERROR));
	}
	if (!PG_ARGISNULL(3))
		ack.attempt = PG_GETARG_INT32(3);
	SPI_connect();
	marked = store_acknowledge(own_schema(fcinfo), &ack, 1);
	SPI_finish();
	PG_RETURN_BOOL(marked > 0);
}

/* The counters of a worker as a JSON object. */
static Datum
counters_json(const WorkerView *view)
{
	StringInfoData json;

	initStringInfo(&json);
	for (int i = 0; i < COUNT_COUNTERS; i++)
		appendStringInfo(&json, "%s\"%s\":" UINT64_FORMAT, i == 0 ? "{" : ",",
						 counter_name(i), view->counters[i]);
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

/*
 * msg_worker_slots() returns setof record
 * One row a worker, of all databases, from shared memory.
 */
Datum
msg_worker_slots(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;
		TupleDesc	desc;

		context = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		context->tuple_desc = BlessTupleDesc(desc);
		context->max_calls = shmem_available() ? slot_count() : 0;
		MemoryContextSwitchTo(old);
	}
	context = SRF_PERCALL_SETUP();
	while (context->call_cntr < context->max_calls)
	{
		WorkerView	view;
		Datum		values[11];
		bool		nulls[11] = {false};

		if (!slot_view((int) context->call_cntr, &view))
		{
			context->call_cntr++;
			continue;
		}
		values[0] = CStringGetTextDatum(view.database);
		values[1] = CStringGetTextDatum(stage_name(view.stage));
		values[2] = Int32GetDatum(view.number);
		values[3] = Int32GetDatum(view.pid);
		nulls[3] = view.pid == 0;
		values[4] = CStringGetTextDatum(worker_state_name(view.state));
		values[5] = TimestampTzGetDatum(view.started_at);
		nulls[5] = view.started_at == 0;
		values[6] = TimestampTzGetDatum(view.active_at);
		nulls[6] = view.active_at == 0;
		values[7] = counters_json(&view);
		/* of another database too, whose encoding may be another, and cut where there was no room */
		values[8] = CStringGetTextDatum(presentable(view.error, strlen(view.error), sizeof(view.error)));
		values[9] = TimestampTzGetDatum(view.error_at);
		nulls[8] = nulls[9] = view.error_at == 0;
		values[10] = TimestampTzGetDatum(view.error_over_at);
		nulls[10] = view.error_over_at == 0;
		SRF_RETURN_NEXT(context, HeapTupleGetDatum(heap_form_tuple(context->tuple_desc, values, nulls)));
	}
	SRF_RETURN_DONE(context);
}

/*
 * msg_announce() returns void
 * Called by the install script: wakes the workers of this database at commit, or
 * says why there will be none.
 */
Datum
msg_announce(PG_FUNCTION_ARGS)
{
	char	   *database = get_database_name(MyDatabaseId);

	note_config();
	if (!shmem_available())
	{
		ereport(WARNING,
				(errmsg("msgsys is not in shared_preload_libraries: messages wait until it is"),
				 errhint("Add it, and restart the server.")));
		PG_RETURN_VOID();
	}
	if (!setting_lists(setting_databases, database))
		ereport(WARNING,
				(errmsg("database \"%s\" is not in msgsys.databases: its messages wait until it is", database),
				 errhint("Add it, and reload the configuration.")));
	PG_RETURN_VOID();
}
