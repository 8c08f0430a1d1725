/*
 * statement.c
 *		Prepared statements on the tables of the extension.
 */
#include "msgsys.h"

#include "statement.h"
#include "worker.h"

#include "catalog/pg_type.h"
#include "storage/itemptr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

static uint64 generation = 1;	/* of plans that may be used */
static char *plans_schema = NULL;

/* Forget the plans: the extension is another than before. */
void
statements_forget(void)
{
	generation++;
	if (plans_schema)
		pfree(plans_schema);
	plans_schema = NULL;
}

/* The plan of a statement for a schema. */
SPIPlanPtr
statement_plan(Statement *statement, const char *schema)
{
	StringInfoData text;

	if (plans_schema == NULL || strcmp(plans_schema, schema) != 0)
	{
		statements_forget();
		plans_schema = MemoryContextStrdup(TopMemoryContext, schema);
	}
	if (statement->plan && statement->generation == generation)
		return statement->plan;
	if (statement->plan)
		SPI_freeplan(statement->plan);
	statement->plan = NULL;
	initStringInfo(&text);
	for (const char *c = statement->text; *c; c++)
		if (*c == '@')
			appendStringInfoString(&text, schema);
		else
			appendStringInfoChar(&text, *c);
	statement->plan = SPI_prepare(text.data, statement->nargs, statement->args);
	if (statement->plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(statement->plan);
	statement->generation = generation;
	pfree(text.data);
	return statement->plan;
}

/* Run a statement in a schema, in a worker or in a session; nulls as SPI takes them.  Returns the rows processed. */
uint64
statement_run_in(const char *schema, Statement *statement, Datum *values, const char *nulls)
{
	int			rc = SPI_execute_plan(statement_plan(statement, schema), values, nulls, false, 0);

	if (rc < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

/* The same in the worker's installation. */
uint64
statement_run(Statement *statement, Datum *values, const char *nulls)
{
	return statement_run_in(installation.schema, statement, values, nulls);
}

/* A column of a row of the last result. */
Datum
result_column(uint64 row, int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, isnull);
}

/* The same of type text; NULL for null. */
char *
result_text(uint64 row, int number)
{
	bool		isnull;
	Datum		value = result_column(row, number, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* The same of type bigint. */
int64
result_int64(uint64 row, int number, int64 if_null)
{
	bool		isnull;
	Datum		value = result_column(row, number, &isnull);

	return isnull ? if_null : DatumGetInt64(value);
}

/* An array of values of one of the types that we use. */
Datum
array_of(Datum *values, int n, Oid type)
{
	switch (type)
	{
		case INT4OID:
			return PointerGetDatum(construct_array(values, n, type, 4, true, TYPALIGN_INT));
		case INT8OID:
		case TIMESTAMPTZOID:
			return PointerGetDatum(construct_array(values, n, type, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		case BOOLOID:
			return PointerGetDatum(construct_array(values, n, type, 1, true, TYPALIGN_CHAR));
		case TIDOID:
			return PointerGetDatum(construct_array(values, n, type, sizeof(ItemPointerData), false, TYPALIGN_SHORT));
		default:
			Assert(type == TEXTOID);
			return PointerGetDatum(construct_array(values, n, type, -1, false, TYPALIGN_INT));
	}
}

/* An array of texts that may have nulls; NULL pointers are nulls. */
Datum
text_array(const char **strings, int n)
{
	Datum	   *values = palloc(Max(n, 1) * sizeof(Datum));
	bool	   *nulls = palloc(Max(n, 1) * sizeof(bool));
	int			dims[1] = {n};
	int			lower[1] = {1};

	for (int i = 0; i < n; i++)
	{
		nulls[i] = strings[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(strings[i]);
	}
	return PointerGetDatum(construct_md_array(values, nulls, 1, dims, lower, TEXTOID,
											  -1, false, TYPALIGN_INT));
}
