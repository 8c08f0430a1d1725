/*
 * rest.c
 *		PostgREST's dialect: reading tables and views, and what all its requests share.
 */
#include "msgsys.h"

#include "rest.h"
#include "rest_error.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

/* ---------------------------------------------------------------- shared */

/*
 * A row is made whole before its size is known: what one can be asked to be is
 * bounded by its number of items, which is twice that of the widest table's columns.
 */
#define SELECTED_MAX	64

static void
check_selected(const RestSelect *select)
{
	int			n = 0;

	for (const RestSelect *item = select; item; item = item->next)
		if (++n > SELECTED_MAX)
			rest_refuse(400, "54011", psprintf("At most %d items can be selected", SELECTED_MAX), NULL, NULL);
}

/* Begin a request: its query string, preferences and media type.  arguments: of a function, in the query string. */
void
rest_begin(Rest *rest, Call *call, const RestCatalog *catalog, bool arguments)
{
	RestParseError error;

	memset(rest, 0, sizeof(Rest));
	rest->call = call;
	rest->catalog = catalog;
	rest->query = rest_parse(call->query, arguments, palloc, &error);
	if (rest->query == NULL)
		rest_refuse(400, "PGRST100", error.message, error.details, NULL);
	if (rest->query->embedded)
		rest_refuse(400, "PGRST108", psprintf("'%s' is not an embedded resource in this request", rest->query->embedded), NULL,
					psprintf("Verify that '%s' is included in the 'select' query parameter.", rest->query->embedded));
	check_selected(rest->query->select);
	rest_window(call, rest->query, &rest->window);
	rest_prefer(call, &rest->prefer);
	call_reply_field(call, "Vary", REST_VARY);
	rest->media = rest_media(call, &rest->nulls_stripped);
	call->rollback = rest->prefer.transaction == 2;
	rest_sql_init(&rest->sql);
}

/* Nothing may be written by this request. */
void
rest_read_only(void)
{
	set_config_option("transaction_read_only", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/* No more rows may be changed than the client allows. */
void
rest_check_affected(const Rest *rest, int64 rows)
{
	if (rest->prefer.handling == 1 && rest->prefer.has_max_affected && rows > rest->prefer.max_affected)
		rest_refuse(400, "PGRST124", "Query result exceeds max-affected preference constraint",
					psprintf("The query affects " INT64_FORMAT " rows", rows), NULL);
}

/* The name of a list that is most like one that is not in it; NULL: none is. */
const char *
rest_similar(const char *name, const List *names)
{
	const char *best = NULL;
	int			best_distance = strlen(name) / 3;
	ListCell   *lc;

	if (strlen(name) >= NAMEDATALEN)
		return NULL;
	foreach(lc, names)
	{
		const char *other = lfirst(lc);
		int			distance = varstr_levenshtein_less_equal(name, strlen(name), other, strlen(other), 1, 1, 1, best_distance, true);

		if (distance <= best_distance)
		{
			best_distance = distance;
			best = other;
		}
	}
	return best;
}

/* ---------------------------------------------------------------- bodies */

const char *
rest_media_name(const Rest *rest)
{
	switch (rest->media)
	{
		case MEDIA_OBJECT:
			return rest->nulls_stripped ? "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8" :
				"application/vnd.pgrst.object+json; charset=utf-8";
		case MEDIA_CSV:
			return "text/csv; charset=utf-8";
		default:
			return rest->nulls_stripped ? "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8" :
				"application/json; charset=utf-8";
	}
}

/* A number in the only row of the last result; -1 for null. */
static int64
result_int(int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? -1 : DatumGetInt64(value);
}

/* A single object is wanted, and it must be just one. */
void
rest_check_singular(const Rest *rest, int64 rows)
{
	if (rest->media == MEDIA_OBJECT && rows != 1)
		rest_refuse(406, "PGRST116", "Cannot coerce the result to a single JSON object",
					psprintf("The result contains " INT64_FORMAT " rows", rows), NULL);
}

/* What makes a value of a row s in JSON. */
static char *
json_expression(const Rest *rest, const char *element)
{
	return psprintf("%spg_catalog.to_json(%s)%s", rest->nulls_stripped ? "pg_catalog.json_strip_nulls(" : "", element ? element : "s",
					rest->nulls_stripped ? ")" : "");
}

/* The statement in rest->sql as one whose first column is such a value. */
static void
write_json_statement(Rest *rest, const RestRun *run)
{
	char	   *source = rest->sql.text.data;
	char	   *value = json_expression(rest, run->element);
	const char *sort = rest->sort ? rest->sort : "";

	initStringInfo(&rest->sql.text);
	appendStringInfo(&rest->sql.text, "WITH %s%spgrst_source AS (%s) ", run->with ? run->with : "", run->with ? ", " : "", source);
	if (run->count)
		appendStringInfo(&rest->sql.text, "SELECT NULL::pg_catalog.json, %s UNION ALL (SELECT %s, NULL::pg_catalog.int8 FROM pgrst_source s%s)",
						 run->count, value, sort);
	else
		appendStringInfo(&rest->sql.text, "SELECT %s%s FROM pgrst_source s%s", value,
						 run->inserted ? ", s." REST_OWN_COLUMN "inserted" : "", sort);
}

/* The statement in rest->sql as one whose rows are those of the answer. */
static void
write_csv_statement(Rest *rest, const RestRun *run)
{
	char	   *source = rest->sql.text.data;

	initStringInfo(&rest->sql.text);
	if (rest->sort)
		appendStringInfo(&rest->sql.text, "WITH pgrst_source AS (%s) SELECT s.* FROM pgrst_source s%s", source, rest->sort);
	else
		appendStringInfo(&rest->sql.text, "%s%s%s", run->with ? "WITH " : "", run->with ? run->with : "", source);
}

/*
 * Run the statement in rest->sql and make its rows the body; rest->rows tells what came.  Returns their number.
 */
int64
rest_run(Rest *rest, const RestRun *run)
{
	StringInfo	body = &rest->call->body;
	RestRows   *rows = &rest->rows;

	rest_rows_init(rows, body);
	rows->csv = rest->media == MEDIA_CSV;
	rows->with_total = run->count != NULL;
	rows->with_inserted = run->inserted;
	rows->one = rest->media == MEDIA_OBJECT;
	/* as json_agg() has it */
	rows->separator = rest->nulls_stripped ? "," : run->scalar ? ", " : ", \n ";
	if (rows->csv)
	{
		write_csv_statement(rest, run);
		rest_sql_run_into(&rest->sql, &rows->pub);
	}
	else
	{
		bool		array = rest->media != MEDIA_OBJECT && !run->single;

		write_json_statement(rest, run);
		if (array)
			appendStringInfoChar(body, '[');
		rest_sql_run_into(&rest->sql, &rows->pub);
		rest_check_singular(rest, rows->rows);
		if (array)
			appendStringInfoChar(body, ']');
		else if (rows->rows == 0)
			appendStringInfoString(body, "null");
	}
	call_reply_field(rest->call, "Content-Type", rest_media_name(rest));
	return rows->rows;
}

/* ---------------------------------------------------------------- counts */

/* "(SELECT count(*) FROM from WHERE ...)", its parameters bound. */
static char *
count_expression(Rest *rest, const char *from)
{
	StringInfoData saved = rest->sql.text;
	char	   *result;

	initStringInfo(&rest->sql.text);
	appendStringInfo(&rest->sql.text, "(SELECT pg_catalog.count(*) FROM %s", from);
	rest_sql_where(&rest->sql, &rest->source, rest->query->filters);
	appendStringInfoChar(&rest->sql.text, ')');
	result = rest->sql.text.data;
	rest->sql.text = saved;
	return result;
}

/* The number of rows, counted by a statement of its own. */
static int64
counted_rows(Rest *rest, const char *from, const char *with)
{
	RestSql		saved = rest->sql;
	int64		rows;

	rest_sql_init(&rest->sql);
	appendStringInfo(&rest->sql.text, "%s%s SELECT ", with ? "WITH " : "", with ? with : "");
	appendStringInfoString(&rest->sql.text, count_expression(rest, from));
	rest_sql_run(&rest->sql);
	rows = result_int(1);
	rest->sql = saved;
	return rows;
}

/* How many rows the planner expects. */
static int64
planned_rows(Rest *rest, const char *from)
{
	RestSql		saved = rest->sql;
	const char *found;
	int64		rows = 0;

	rest_sql_init(&rest->sql);
	appendStringInfo(&rest->sql.text, "EXPLAIN (FORMAT JSON) SELECT FROM %s", from);
	rest_sql_where(&rest->sql, &rest->source, rest->query->filters);
	rest->sql.once = true;
	if (rest_sql_run(&rest->sql) > 0)
	{
		found = strstr(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1), "\"Plan Rows\": ");
		if (found)
			rows = strtoll(found + strlen("\"Plan Rows\": "), NULL, 10);
	}
	rest->sql = saved;
	return rows;
}

/* ---------------------------------------------------------------- reading */

/* Status and headers of what was read; total: -1 where it was not counted. */
static void
reply_rows(Rest *rest, int64 rows, int64 total)
{
	Call	   *call = rest->call;
	int64		low = rest->window.low;

	if (total >= 0 && low > total)
	{
		rest_refuse_field("Content-Range", psprintf("*/" INT64_FORMAT, total));
		rest_refuse(416, "PGRST103", "Requested range not satisfiable",
					psprintf("An offset of " INT64_FORMAT " was requested, but there are only " INT64_FORMAT " rows.", low, total), NULL);
	}
	rest_content_range(call, low, rows, total);
	call->status = total >= 0 && rows < total ? 206 : 200;
}

/*
 * Answer with rows of from (which calls them t) as the query wants them; returns their number.  run: how, but for the
 * count.
 */
int64
rest_read(Rest *rest, const char *from, RestRun *run)
{
	int64		total = -1;
	int64		rows;
	RestCount	wanted = rest->prefer.count;

	if (wanted == COUNT_PLANNED || wanted == COUNT_ESTIMATED)
	{
		total = planned_rows(rest, from);
		if (wanted == COUNT_ESTIMATED && (setting_http_max_rows == 0 || total <= setting_http_max_rows))
			wanted = COUNT_EXACT;
	}
	/* of a scalar, whose source has no columns, nothing but all can be selected */
	appendStringInfoString(&rest->sql.text, "SELECT ");
	rest_sql_select(&rest->sql, &rest->source, rest->query->select, false);
	appendStringInfo(&rest->sql.text, " FROM %s", from);
	rest_sql_where(&rest->sql, &rest->source, rest->query->filters);
	rest_sql_order(&rest->sql, &rest->source, rest->query->order);

	/* as numbers of the statement, not its parameters: the planner has to know them */
	if (rest->window.limit >= 0)
		appendStringInfo(&rest->sql.text, " LIMIT " INT64_FORMAT, rest->window.limit);
	if (rest->window.low > 0)
		appendStringInfo(&rest->sql.text, " OFFSET " INT64_FORMAT, rest->window.low);
	rest->sql.once = rest->window.low > 0;
	if (wanted == COUNT_EXACT && rest->media == MEDIA_CSV)
		total = counted_rows(rest, from, run->with);
	else if (wanted == COUNT_EXACT)
		run->count = count_expression(rest, from);
	rows = rest_run(rest, run);
	if (run->count)
		total = rest->rows.total;
	reply_rows(rest, rows, total);
	return rows;
}

#define CANONICAL_MAX	4096	/* of the room for the header of an answer (http_server.c) */

static void
read_table(Rest *rest, const RestTable *table)
{
	RestRun		run = {.single = false};

	rest_read_only();
	rest_read(rest, psprintf("%s AS t", table->quoted), &run);
	rest_prefer_applied(rest->call, &rest->prefer, false, false, false, false);
	/* nobody needs to be told again what he has written at length */
	if (strlen(rest->query->canonical) < CANONICAL_MAX)
		call_reply_field(rest->call, "Content-Location",
						 rest->query->canonical[0] ? psprintf("%s?%s", rest->call->path, rest->query->canonical) : rest->call->path);
}

/* ---------------------------------------------------------------- /name */

pg_noreturn static void
refuse_table(const RestCatalog *catalog, const char *name)
{
	List	   *names = NIL;
	ListCell   *lc;
	const char *similar;

	foreach(lc, catalog->tables)
		names = lappend(names, ((RestTable *) lfirst(lc))->name);
	similar = rest_similar(name, names);
	rest_refuse(404, "PGRST205", psprintf("Could not find the table '%s.%s' in the schema cache", catalog->schema, name), NULL,
				similar ? psprintf("Perhaps you meant the table '%s.%s'", catalog->schema, similar) : NULL);
}

static void
table_options(Call *call, const RestTable *table)
{
	call->status = 200;
	call_reply_field(call, "Vary", REST_VARY);
	call_reply_field(call, "Allow", psprintf("OPTIONS,GET,HEAD%s%s%s", table->insertable ? ",POST" : "",
											 table->insertable && table->updatable && table->nkeys > 0 ? ",PUT" : "",
											 table->updatable ? ",PATCH,DELETE" : ""));
}

void
rest_table_request(Call *call, const RestCatalog *catalog, const char *name)
{
	const RestTable *table = rest_table(catalog, name);
	Rest		rest;

	if (call->method == METHOD_OTHER)
		rest_refuse(405, "PGRST117", psprintf("Unsupported HTTP method: %s", call->http->method), NULL, NULL);
	if (table == NULL)
		refuse_table(catalog, name);
	if (call->method == METHOD_OPTIONS)
	{
		table_options(call, table);
		return;
	}
	rest_begin(&rest, call, catalog, false);
	rest.source.name = table->name;
	rest.source.schema = catalog->schema;
	rest.source.columns = table->columns;
	rest.source.ncolumns = table->ncolumns;
	rest_sql_check_select(&rest.source, rest.query->select);
	switch (call->method)
	{
		case METHOD_POST:
			rest_insert(&rest, table);
			break;
		case METHOD_PUT:
			rest_upsert(&rest, table);
			break;
		case METHOD_PATCH:
			rest_update(&rest, table);
			break;
		case METHOD_DELETE:
			rest_delete(&rest, table);
			break;
		default:
			read_table(&rest, table);
			break;
	}
}
