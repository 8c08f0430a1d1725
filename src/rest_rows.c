/*
 * rest_rows.c
 *		Rows as the body of an answer, written as they come from the executor.
 *
 * No result is ever in memory beside the body, and a body that grows beyond
 * msgsys.http_max_response ends the statement: what a request costs in memory is
 * bounded, whatever its rows are.
 */
#include "msgsys.h"

#include "rest.h"
#include "rest_rows.h"

#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

struct RestRowsColumn
{
	FmgrInfo	output;
};

void
rest_rows_check_size(int64 size)
{
	if (size > setting_http_max_response * INT64CONST(1024))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the answer is larger than msgsys.http_max_response"),
				 errdetail("That is %d kB.", setting_http_max_response),
				 errhint("Ask for fewer rows (limit) or for fewer columns (select).")));
}

/* ---------------------------------------------------------------- CSV (RFC 4180) */

static void
csv_value(StringInfo body, const char *value)
{
	/* an empty text is not null */
	if (*value && strpbrk(value, ",\"\r\n") == NULL)
	{
		appendStringInfoString(body, value);
		return;
	}
	appendStringInfoChar(body, '"');
	for (; *value; value++)
	{
		if (*value == '"')
			appendStringInfoChar(body, '"');
		appendStringInfoChar(body, *value);
	}
	appendStringInfoChar(body, '"');
}

/* The names of the columns, but for our own, which are the last. */
static void
csv_begin(RestRows *rows, TupleDesc desc)
{
	rows->ncolumns = desc->natts;
	while (rows->ncolumns > 0 && strncmp(NameStr(TupleDescAttr(desc, rows->ncolumns - 1)->attname), REST_OWN_COLUMN, strlen(REST_OWN_COLUMN)) == 0)
		rows->ncolumns--;
	rows->columns = palloc(sizeof(struct RestRowsColumn) * (rows->ncolumns + 1));
	for (int i = 0; i < rows->ncolumns; i++)
	{
		Oid			function;
		bool		varlena;

		getTypeOutputInfo(TupleDescAttr(desc, i)->atttypid, &function, &varlena);
		fmgr_info(function, &rows->columns[i].output);
		if (i > 0)
			appendStringInfoChar(rows->body, ',');
		csv_value(rows->body, NameStr(TupleDescAttr(desc, i)->attname));
	}
}

static void
csv_row(RestRows *rows, TupleTableSlot *slot)
{
	appendStringInfoChar(rows->body, '\n');
	for (int i = 0; i < rows->ncolumns; i++)
	{
		if (i > 0)
			appendStringInfoChar(rows->body, ',');
		if (!slot->tts_isnull[i])
			csv_value(rows->body, OutputFunctionCall(&rows->columns[i].output, slot->tts_values[i]));
		rest_rows_check_size(rows->body->len);
	}
}

/* ---------------------------------------------------------------- JSON */

static void
json_row(RestRows *rows, TupleTableSlot *slot)
{
	if (rows->rows > 0)
		appendStringInfoString(rows->body, rows->separator);
	if (slot->tts_isnull[0])
		appendStringInfoString(rows->body, "null");
	else
	{
		text	   *value = DatumGetTextPP(slot->tts_values[0]);

		appendBinaryStringInfo(rows->body, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	}
	rest_rows_check_size(rows->body->len);
}

/* ---------------------------------------------------------------- the receiver */

static void
begin(DestReceiver *self, int operation, TupleDesc desc)
{
	RestRows   *rows = (RestRows *) self;

	rows->row_context = AllocSetContextCreate(CurrentMemoryContext, "msgsys row of an answer", ALLOCSET_DEFAULT_SIZES);
	if (rows->csv)
		csv_begin(rows, desc);
}

static bool
take(TupleTableSlot *slot, DestReceiver *self)
{
	RestRows   *rows = (RestRows *) self;
	MemoryContext old = MemoryContextSwitchTo(rows->row_context);

	slot_getallattrs(slot);
	if (rows->with_total && !rows->header_seen)
	{
		rows->header_seen = true;
		rows->total = DatumGetInt64(slot->tts_values[1]);
	}
	else
	{
		if (rows->rows == 0 || !rows->one)
		{
			if (rows->csv)
				csv_row(rows, slot);
			else
				json_row(rows, slot);
		}
		rows->rows++;
		if (rows->with_inserted && DatumGetBool(slot->tts_values[slot->tts_tupleDescriptor->natts - 1]))
			rows->inserted++;
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(rows->row_context);
	return true;
}

static void
end(DestReceiver *self)
{
	MemoryContextDelete(((RestRows *) self)->row_context);
}

static void
nothing(DestReceiver *self)
{
}

void
rest_rows_init(RestRows *rows, StringInfo body)
{
	memset(rows, 0, sizeof(RestRows));
	rows->pub = (DestReceiver)
	{
		.receiveSlot = take,
			.rStartup = begin,
			.rShutdown = end,
			.rDestroy = nothing,
			.mydest = DestNone
	};
	rows->body = body;
	rows->separator = ", ";
	rows->total = -1;
}
