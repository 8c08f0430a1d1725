/*
 * rest_write.c
 *		PostgREST's dialect: inserting, changing and deleting rows of a table.
 *
 * The body goes into its statement as one parameter, and jsonb_to_recordset() makes
 * rows of it, with the types of the table's columns.
 */
#include "msgsys.h"

#include "rest.h"
#include "rest_body.h"
#include "rest_error.h"
#include "url.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

/* ---------------------------------------------------------------- columns */

static const RestColumn *
table_column(const RestTable *table, const char *name)
{
	const RestColumn *column = rest_column(table->columns, table->ncolumns, name);

	if (column == NULL)
		rest_refuse(400, "PGRST204", psprintf("Could not find the '%s' column of '%s' in the schema cache", name, table->name), NULL, NULL);
	return column;
}

/* The columns that a request writes: those of columns=, or else those of its body; each once. */
static List *
written_columns(const Rest *rest, const RestTable *table, const RestBody *body)
{
	List	   *columns = NIL;
	ListCell   *lc;

	for (const RestName *name = rest->query->columns; name; name = name->next)
		columns = list_append_unique_ptr(columns, (void *) table_column(table, name->name));
	if (rest->query->columns == NULL)
		foreach(lc, body->names)
			columns = lappend(columns, (void *) table_column(table, lfirst(lc)));
	return columns;
}

/* Write each column: before, name, after. */
static void
write_columns(RestSql *sql, List *columns, const char *prefix, bool types)
{
	ListCell   *lc;

	foreach(lc, columns)
	{
		const RestColumn *column = lfirst(lc);

		appendStringInfo(&sql->text, "%s%s%s%s%s", foreach_current_index(lc) > 0 ? ", " : "", prefix, column->quoted,
						 types ? " " : "", types ? column->type_name : "");
	}
}

/* "pg_catalog.jsonb_to_recordset($1) AS p(...)": the body as rows; only the first of them where one is wanted. */
static void
write_rows(Rest *rest, const RestBody *body, List *columns, bool one)
{
	int			parameter = rest_sql_bind_datum(&rest->sql, JSONBOID, JsonbPGetDatum(body->json));

	if (body->array && !one)
		appendStringInfo(&rest->sql.text, "pg_catalog.jsonb_to_recordset($%d) AS p(", parameter);
	else
		appendStringInfo(&rest->sql.text, "pg_catalog.jsonb_to_record($%d%s) AS p(", parameter, body->array ? " -> 0" : "");
	write_columns(&rest->sql, columns, "", true);
	appendStringInfoChar(&rest->sql.text, ')');
}

/* Whether a column that an object does not have gets its default, not null. */
static bool
wants_defaults(const Rest *rest)
{
	return rest->prefer.missing == 1 && rest->query->columns != NULL;
}

/* A column's value: what the body has, or (with missing=default) the column's default where an object does not have it. */
static void
write_value(Rest *rest, const RestColumn *column)
{
	if (wants_defaults(rest) && column->default_expression)
		appendStringInfo(&rest->sql.text, "CASE WHEN e.v ? %s THEN p.%s ELSE (%s) END", quote_literal_cstr(column->name),
						 column->quoted, column->default_expression);
	else
		appendStringInfo(&rest->sql.text, "p.%s", column->quoted);
}

/* " FROM ...": where write_value() takes from; only the first of the rows where one is wanted. */
static void
write_from(Rest *rest, const RestBody *body, List *columns, bool one)
{
	int			parameter;

	appendStringInfoString(&rest->sql.text, " FROM ");
	if (!wants_defaults(rest))
	{
		write_rows(rest, body, columns, one);
		return;
	}
	parameter = rest_sql_bind_datum(&rest->sql, JSONBOID, JsonbPGetDatum(body->json));
	if (body->array && !one)
		appendStringInfo(&rest->sql.text, "pg_catalog.jsonb_array_elements($%d) AS e(v), ", parameter);
	else
		appendStringInfo(&rest->sql.text, "(SELECT $%d%s) AS e(v), ", parameter, body->array ? " -> 0" : "");
	appendStringInfoString(&rest->sql.text, "LATERAL pg_catalog.jsonb_to_record(e.v) AS p(");
	write_columns(&rest->sql, columns, "", true);
	appendStringInfoChar(&rest->sql.text, ')');
}

/* ---------------------------------------------------------------- results */

/* What a statement has to return. */
typedef struct Returning
{
	bool		body;			/* the rows */
	bool		inserted;		/* whether each is new */
	bool		keys;			/* the primary key, for Location */
} Returning;

/* Add RETURNING; nothing where nothing is wanted, so that no right to read is needed. */
static void
write_returning(Rest *rest, const RestTable *table, const Returning *wanted)
{
	const char *separator = " RETURNING ";

	if (wanted->body)
	{
		appendStringInfoString(&rest->sql.text, separator);
		rest_sql_select(&rest->sql, &rest->source, rest->query->select, true);
		if (rest->query->order)
			rest->sort = rest_sql_order_later(&rest->sql, &rest->source, rest->query->order);
		separator = ", ";
	}
	if (wanted->keys)
		for (int i = 0; i < table->ncolumns; i++)
			if (table->columns[i].key)
			{
				appendStringInfo(&rest->sql.text, "%st.%s", separator, table->columns[i].quoted);
				separator = ", ";
			}
	if (wanted->inserted)
		/* a row that was there has the updating transaction in xmax */
		appendStringInfo(&rest->sql.text, "%s(t.xmax = 0) AS " REST_OWN_COLUMN "inserted", separator);
}

/* The row s without our own columns, as an element of the body. */
static char *
element_without_own(Rest *rest)
{
	StringInfoData saved = rest->sql.text;
	char	   *result;

	initStringInfo(&rest->sql.text);
	appendStringInfoString(&rest->sql.text, "(SELECT y FROM (SELECT ");
	rest_sql_select_names(&rest->sql, &rest->source, rest->query->select);
	appendStringInfoString(&rest->sql.text, ") y)");
	result = rest->sql.text.data;
	rest->sql.text = saved;
	return result;
}

/*
 * Run the statement; returns how many rows it changed, and in *inserted how many of them are new (all, unless
 * that was asked for).
 */
static int64
run(Rest *rest, const RestTable *table, const Returning *wanted, int64 *inserted)
{
	int64		rows;

	if (wanted->body)
	{
		RestRun		run = {
			.element = wanted->inserted || rest->sort ? element_without_own(rest) : NULL,
			.inserted = wanted->inserted
		};

		rows = rest_run(rest, &run);
	}
	else
	{
		rows = rest_sql_run(&rest->sql);
		rest_check_singular(rest, rows);
	}
	*inserted = rows;
	if (wanted->inserted && wanted->body)
		*inserted = rest->rows.inserted;
	else if (wanted->inserted)
	{
		bool		isnull;

		*inserted = 0;
		for (int64 row = 0; row < rows; row++)
			*inserted += DatumGetBool(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, SPI_tuptable->tupdesc->natts, &isnull));
	}
	return rows;
}

/* Location: of the only row of the last result, by its key. */
static void
reply_location(Rest *rest, const RestTable *table)
{
	StringInfoData location;
	int			number = 0;

	initStringInfo(&location);
	appendStringInfo(&location, "%s?", rest->call->path);
	for (int i = 0; i < table->ncolumns; i++)
	{
		char	   *value;

		if (!table->columns[i].key)
			continue;
		value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, ++number);
		appendStringInfo(&location, "%s%s=eq.", number > 1 ? "&" : "", table->columns[i].name);
		if (value == NULL)
			continue;
		enlargeStringInfo(&location, (int) url_encode(NULL, value));
		location.len += (int) url_encode(location.data + location.len, value);
		location.data[location.len] = '\0';
	}
	call_reply_field(rest->call, "Location", location.data);
}

/* The rows that were changed, if they are to be counted. */
static int64
total_of(const Rest *rest, int64 rows)
{
	return rest->prefer.count == COUNT_EXACT || rest->prefer.count == COUNT_ESTIMATED ? rows : -1;
}

static void
empty_body(Rest *rest)
{
	if (rest->prefer.returns != RETURN_REPRESENTATION)
		return;
	rest_check_singular(rest, 0);
	appendStringInfoString(&rest->call->body, rest->media == MEDIA_CSV ? "" : "[]");
	call_reply_field(rest->call, "Content-Type", rest_media_name(rest));
}

/* Views that cannot be written are told before PostgreSQL does, which blames the server. */
static void
check_writable(const Rest *rest, const RestTable *table, bool possible)
{
	if (!possible)
		rest_refuse(405, "PGRST117", psprintf("Unsupported HTTP method: %s", rest->call->http->method),
					psprintf("%s cannot be changed", table->name), NULL);
}

/* ---------------------------------------------------------------- POST */

/* Add ON CONFLICT; returns whether there is something that can conflict. */
static bool
write_conflict(Rest *rest, const RestTable *table, List *columns)
{
	const char *separator = " ON CONFLICT (";

	if (rest->prefer.resolution == RESOLUTION_NONE || (rest->query->on_conflict == NULL && table->nkeys == 0))
		return false;
	for (const RestName *name = rest->query->on_conflict; name; name = name->next)
	{
		appendStringInfo(&rest->sql.text, "%s%s", separator, table_column(table, name->name)->quoted);
		separator = ", ";
	}
	if (rest->query->on_conflict == NULL)
		for (int i = 0; i < table->ncolumns; i++)
			if (table->columns[i].key)
			{
				appendStringInfo(&rest->sql.text, "%s%s", separator, table->columns[i].quoted);
				separator = ", ";
			}
	if (rest->prefer.resolution == RESOLUTION_IGNORE || columns == NIL)
		appendStringInfoString(&rest->sql.text, ") DO NOTHING");
	else
	{
		ListCell   *lc;

		appendStringInfoString(&rest->sql.text, ") DO UPDATE SET ");
		foreach(lc, columns)
		{
			const RestColumn *column = lfirst(lc);

			appendStringInfo(&rest->sql.text, "%s%s = EXCLUDED.%s", foreach_current_index(lc) > 0 ? ", " : "", column->quoted, column->quoted);
		}
	}
	return true;
}

void
rest_insert(Rest *rest, const RestTable *table)
{
	Returning	wanted = {.body = rest->prefer.returns == RETURN_REPRESENTATION,.keys = rest->prefer.returns == RETURN_HEADERS};
	RestBody	body;
	List	   *columns;
	ListCell   *lc;
	bool		conflicts;
	int64		inserted = 0;
	int64		rows = 0;

	check_writable(rest, table, table->insertable);
	rest_body(rest->call, rest->query->columns != NULL, false, &body);
	columns = written_columns(rest, table, &body);
	appendStringInfo(&rest->sql.text, "INSERT INTO %s AS t", table->quoted);
	if (columns != NIL)
	{
		appendStringInfoString(&rest->sql.text, " (");
		write_columns(&rest->sql, columns, "", false);
		appendStringInfoChar(&rest->sql.text, ')');
		appendStringInfoString(&rest->sql.text, " SELECT ");
		foreach(lc, columns)
		{
			appendStringInfoString(&rest->sql.text, foreach_current_index(lc) > 0 ? ", " : "");
			write_value(rest, lfirst(lc));
		}
		write_from(rest, &body, columns, false);
	}
	else
		appendStringInfoString(&rest->sql.text, " DEFAULT VALUES");
	conflicts = write_conflict(rest, table, columns);
	wanted.inserted = conflicts && rest->prefer.resolution == RESOLUTION_MERGE;
	if (body.nrows == 0)
		empty_body(rest);
	else
	{
		write_returning(rest, table, &wanted);
		rows = run(rest, table, &wanted, &inserted);
		if (wanted.keys && rows == 1 && table->nkeys > 0)
			reply_location(rest, table);
	}
	rest->call->status = conflicts && rest->prefer.resolution == RESOLUTION_MERGE && inserted == 0 ? 200 : 201;
	rest_content_range(rest->call, 0, 0, total_of(rest, rows));
	rest_prefer_applied(rest->call, &rest->prefer, conflicts, true, true, false);
}

/* ---------------------------------------------------------------- PUT */

/* The filters must name the row: each column of the key, once, by eq. */
static void
check_key_filters(const Rest *rest, const RestTable *table)
{
	List	   *keys = NIL;
	bool		good = table->nkeys > 0;

	for (const RestLogic *filter = rest->query->filters; filter; filter = filter->next)
	{
		const RestColumn *column = filter->kind == REST_FILTER ? rest_column(table->columns, table->ncolumns, filter->field.name) : NULL;

		good = good && column && column->key && filter->op == REST_EQ && filter->quantifier == REST_ONE &&
			!filter->negated && filter->field.nsteps == 0 && !list_member_ptr(keys, column);
		keys = lappend(keys, (void *) column);
	}
	if (!good || list_length(keys) != table->nkeys)
		rest_refuse(405, "PGRST105", "Filters must include all and only primary key columns with 'eq' operators", NULL, NULL);
}

void
rest_upsert(Rest *rest, const RestTable *table)
{
	Returning	wanted = {.body = rest->prefer.returns == RETURN_REPRESENTATION,.inserted = true};
	RestBody	body;
	List	   *columns;
	int64		inserted;

	check_writable(rest, table, table->insertable && table->updatable);
	if (rest->query->has_limit || rest->query->offset != 0)
		rest_refuse(400, "PGRST114", "limit/offset querystring parameters are not allowed for PUT", NULL, NULL);
	check_key_filters(rest, table);
	rest->query->columns = NULL;	/* PUT does not know columns= */
	rest_body(rest->call, false, false, &body);
	columns = written_columns(rest, table, &body);
	for (int i = 0; i < table->ncolumns; i++)
		if (table->columns[i].key && !list_member_ptr(columns, &table->columns[i]))
			rest_refuse(400, "PGRST115", "Payload values do not match URL in primary key column(s)", NULL, NULL);

	appendStringInfo(&rest->sql.text, "INSERT INTO %s AS t (", table->quoted);
	write_columns(&rest->sql, columns, "", false);
	appendStringInfoString(&rest->sql.text, ") SELECT t.* FROM (SELECT ");
	write_columns(&rest->sql, columns, "p.", false);
	appendStringInfoString(&rest->sql.text, " FROM ");
	write_rows(rest, &body, columns, true);
	appendStringInfoString(&rest->sql.text, ") AS t");
	rest_sql_where(&rest->sql, &rest->source, rest->query->filters);
	rest->prefer.resolution = RESOLUTION_MERGE;
	rest->query->on_conflict = NULL;
	write_conflict(rest, table, columns);
	write_returning(rest, table, &wanted);
	if (run(rest, table, &wanted, &inserted) == 0)
		rest_refuse(400, "PGRST115", "Payload values do not match URL in primary key column(s)", NULL, NULL);
	rest->call->status = !wanted.body ? 204 : inserted > 0 ? 201 : 200;
	rest_prefer_applied(rest->call, &rest->prefer, false, false, true, false);
}

/* ---------------------------------------------------------------- PATCH and DELETE */

/* All rows at once are more often a mistake than wanted; the words are pg-safeupdate's. */
static void
check_filtered(const Rest *rest, const char *command)
{
	if (rest->query->filters == NULL)
		rest_refuse(400, "21000", psprintf("%s requires a WHERE clause", command), NULL, NULL);
}

static void
changed(Rest *rest, int64 rows, bool ranged)
{
	rest_check_affected(rest, rows);
	rest->call->status = rest->prefer.returns == RETURN_REPRESENTATION ? 200 : 204;
	rest_content_range(rest->call, 0, ranged ? rows : 0, total_of(rest, rows));
	rest_prefer_applied(rest->call, &rest->prefer, false, ranged, true, true);
}

void
rest_update(Rest *rest, const RestTable *table)
{
	Returning	wanted = {.body = rest->prefer.returns == RETURN_REPRESENTATION};
	RestBody	body;
	List	   *columns;
	ListCell   *lc;
	int64		rows = 0;
	int64		inserted;

	check_writable(rest, table, table->updatable);
	check_filtered(rest, "UPDATE");
	rest_body(rest->call, rest->query->columns != NULL, false, &body);
	columns = written_columns(rest, table, &body);
	if (columns == NIL || body.nrows == 0)
		empty_body(rest);
	else
	{
		appendStringInfo(&rest->sql.text, "UPDATE %s AS t SET ", table->quoted);
		foreach(lc, columns)
		{
			const RestColumn *column = lfirst(lc);

			appendStringInfo(&rest->sql.text, "%s%s = ", foreach_current_index(lc) > 0 ? ", " : "", column->quoted);
			write_value(rest, column);
		}
		write_from(rest, &body, columns, true);
		rest_sql_where(&rest->sql, &rest->source, rest->query->filters);
		write_returning(rest, table, &wanted);
		rows = run(rest, table, &wanted, &inserted);
	}
	changed(rest, rows, true);
}

void
rest_delete(Rest *rest, const RestTable *table)
{
	Returning	wanted = {.body = rest->prefer.returns == RETURN_REPRESENTATION};
	int64		inserted;
	int64		rows;

	check_writable(rest, table, table->updatable);
	check_filtered(rest, "DELETE");
	appendStringInfo(&rest->sql.text, "DELETE FROM %s AS t", table->quoted);
	rest_sql_where(&rest->sql, &rest->source, rest->query->filters);
	write_returning(rest, table, &wanted);
	rows = run(rest, table, &wanted, &inserted);
	changed(rest, rows, false);
}
