/*
 * create.c
 *		msg_create() and msg_create_raw(): the INSERT of one message.
 *
 * In C because the same in PL/pgSQL costs as much as the row itself.  The plans
 * are kept for the session, with every name qualified, so that the caller's
 * search_path does not matter.
 */
#include "msgsys.h"

#include "functions.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"

PG_FUNCTION_INFO_V1(msg_create);
PG_FUNCTION_INFO_V1(msg_create_raw);

#define MOST_TRIES	10			/* to create or to find a message with a dedup_key */

/* Parameters, in the order of the SQL functions, which share them but for the first. */
enum
{
	VALUE, CHANNEL, MESSAGE_KEY, EVENT_TYPE, HEADERS, DEDUP_KEY, DELIVER_AT, EXPIRES_AT, CONTENT_TYPE, PARAMETERS
};

typedef struct Plans
{
	Oid			function;		/* whose plans they are; it changes with the extension */
	SPIPlanPtr	insert;
	SPIPlanPtr	insert_once;	/* with a dedup_key: nothing where that is there */
	SPIPlanPtr	find;			/* the one that is there */
} Plans;

static SPIPlanPtr
keep_plan(const char *sql, Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare(sql, PARAMETERS, types);

	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	return plan;
}

static void
forget_plan(SPIPlanPtr *plan)
{
	if (*plan)
		SPI_freeplan(*plan);
	*plan = NULL;
}

static void
prepare(Plans *plans, FunctionCallInfo fcinfo, const char *column, Oid type)
{
	Oid			types[PARAMETERS] = {
		[VALUE] = type,[CHANNEL] = TEXTOID,[MESSAGE_KEY] = TEXTOID,[EVENT_TYPE] = TEXTOID,[HEADERS] = JSONBOID,
		[DEDUP_KEY] = TEXTOID,[DELIVER_AT] = TIMESTAMPTZOID,[EXPIRES_AT] = TIMESTAMPTZOID,[CONTENT_TYPE] = TEXTOID
	};
	const char *schema = own_schema(fcinfo);
	char	   *insert = psprintf("INSERT INTO %s.messages AS m (%s, channel, message_key, event_type, headers, dedup_key, "
								  "due_at, expires_at, content_type) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", schema, column);

	plans->function = InvalidOid;
	forget_plan(&plans->insert);
	forget_plan(&plans->insert_once);
	forget_plan(&plans->find);
	plans->insert = keep_plan(psprintf("%s RETURNING m.id", insert), types);
	plans->insert_once = keep_plan(psprintf("%s ON CONFLICT (channel, dedup_key) WHERE dedup_key IS NOT NULL DO NOTHING RETURNING m.id", insert), types);
	plans->find = keep_plan(psprintf("SELECT m.id FROM %s.messages m WHERE m.channel OPERATOR(pg_catalog.=) $2 "
									 "AND m.dedup_key OPERATOR(pg_catalog.=) $6", schema), types);
	plans->function = fcinfo->flinfo->fn_oid;
}

/* Run a plan that returns an id, if any: whether it did. */
static bool
run_for_id(SPIPlanPtr plan, Datum *values, const char *nulls, int64 *id)
{
	bool		isnull;

	if (SPI_execute_plan(plan, values, nulls, false, 0) < 0)
		elog(ERROR, "could not create a message: %s", SPI_result_code_string(SPI_result));
	if (SPI_processed == 0)
		return false;
	*id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	return true;
}

static Datum
create_message(FunctionCallInfo fcinfo, Plans *plans, const char *column, Oid type)
{
	Datum		values[PARAMETERS];
	char		nulls[PARAMETERS];
	int64		id;
	bool		created = false;

	SPI_connect();
	if (plans->function != fcinfo->flinfo->fn_oid)
		prepare(plans, fcinfo, column, type);
	for (int i = 0; i < PARAMETERS; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	if (PG_ARGISNULL(DEDUP_KEY))
		created = run_for_id(plans->insert, values, nulls, &id);
	else
	{
		/* one that is there, but purged before it is found, makes room: try again */
		for (int i = 0; i < MOST_TRIES && !created; i++)
			created = run_for_id(plans->insert_once, values, nulls, &id) ||
				run_for_id(plans->find, values, nulls, &id);
	}
	SPI_finish();
	if (!created)
		PG_RETURN_NULL();		/* a user's trigger did not want it */
	PG_RETURN_INT64(id);
}

/*
 * msg_create(payload jsonb, ...) returns bigint
 * The SQL definition has the contract.
 */
Datum
msg_create(PG_FUNCTION_ARGS)
{
	static Plans plans;

	return create_message(fcinfo, &plans, "payload", JSONBOID);
}

/*
 * msg_create_raw(body bytea, ...) returns bigint
 * The SQL definition has the contract.
 */
Datum
msg_create_raw(PG_FUNCTION_ARGS)
{
	static Plans plans;

	return create_message(fcinfo, &plans, "body", BYTEAOID);
}
