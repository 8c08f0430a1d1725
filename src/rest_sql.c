/*
 * rest_sql.c
 *		From a parsed query to SQL: identifiers from the catalogue, values bound.
 *
 * Rows are called t.  A value is bound as a parameter of the type that its column
 * has, made by that type's input function, so that errors are PostgreSQL's own and
 * indexes are used.  Text that comes from the request is in a statement only as a
 * quoted name (an alias) or a quoted key of JSON; all other names are the catalogue's.
 */
#include "msgsys.h"

#include "rest_error.h"
#include "rest_sql.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#define PLANS_MAX	256			/* kept at a time */
#define TEXT_MAX	4096		/* bytes of a statement whose plan is kept: longer ones are seldom asked twice */

void
rest_sql_init(RestSql *sql)
{
	memset(sql, 0, sizeof(RestSql));
	initStringInfo(&sql->text);
}

/* Add a parameter; returns its number. */
static int
add_parameter(RestSql *sql, Oid type, Datum value, bool isnull)
{
	if (sql->nparameters == sql->room)
	{
		sql->room = sql->room * 2 + 8;
		sql->types = sql->types ? repalloc(sql->types, sql->room * sizeof(Oid)) : palloc(sql->room * sizeof(Oid));
		sql->values = sql->values ? repalloc(sql->values, sql->room * sizeof(Datum)) : palloc(sql->room * sizeof(Datum));
		sql->nulls = sql->nulls ? repalloc(sql->nulls, sql->room) : palloc(sql->room);
	}
	sql->types[sql->nparameters] = type;
	sql->values[sql->nparameters] = value;
	sql->nulls[sql->nparameters] = isnull ? 'n' : ' ';
	return ++sql->nparameters;
}

static Datum
value_of(Oid type, const char *text)
{
	Oid			input;
	Oid			parameter;

	getTypeInputInfo(type, &input, &parameter);
	return OidInputFunctionCall(input, (char *) text, parameter, -1);
}

/* Bind a value of a type, given as its text (NULL: null); returns the parameter's number. */
int
rest_sql_bind(RestSql *sql, Oid type, const char *text)
{
	return add_parameter(sql, type, text ? value_of(type, text) : (Datum) 0, text == NULL);
}

int
rest_sql_bind_datum(RestSql *sql, Oid type, Datum value)
{
	return add_parameter(sql, type, value, false);
}

/* ---------------------------------------------------------------- fields */

static const RestColumn *
find_column(const RestSource *source, const char *name)
{
	const RestColumn *column = rest_column(source->columns, source->ncolumns, name);

	if (column == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column %s.%s does not exist", source->name, name)));
	return column;
}

/* Write a field's expression; returns its type. */
static Oid
write_field(RestSql *sql, const RestSource *source, const RestField *field)
{
	const RestColumn *column = find_column(source, field->name);
	Oid			type;
	const char *wrap = "";

	type = column->base_type;
	if (field->nsteps > 0 && type != JSONBOID && type != JSONOID)
	{
		/* what is inside an array or a row is reached as JSON too */
		wrap = "pg_catalog.to_jsonb";
		type = JSONBOID;
	}
	appendStringInfo(&sql->text, "%s(t.%s)", wrap, column->quoted);
	for (int i = 0; i < field->nsteps; i++)
	{
		const RestStep *step = &field->steps[i];

		appendStringInfoString(&sql->text, step->text ? " ->> " : " -> ");
		if (step->index)
			/* an index out of range is an error of the conversion, not of ours */
			appendStringInfo(&sql->text, "%d", DatumGetInt32(value_of(INT4OID, step->key)));
		else
			appendStringInfoString(&sql->text, quote_literal_cstr(step->key));
	}
	if (field->nsteps > 0 && field->steps[field->nsteps - 1].text)
		return TEXTOID;
	return type;
}

/* ---------------------------------------------------------------- conditions */

static const char *const operator_of[] = {
	[REST_EQ] = "=",
	[REST_NEQ] = "<>",
	[REST_GT] = ">",
	[REST_GTE] = ">=",
	[REST_LT] = "<",
	[REST_LTE] = "<=",
	[REST_LIKE] = "~~",
	[REST_ILIKE] = "~~*",
	[REST_MATCH] = "~",
	[REST_IMATCH] = "~*",
	[REST_IN] = "=",
	[REST_IS] = "IS",
	[REST_ISDISTINCT] = "IS DISTINCT FROM",
	[REST_CS] = "@>",
	[REST_CD] = "<@",
	[REST_OV] = "&&",
	[REST_SL] = "<<",
	[REST_SR] = ">>",
	[REST_NXR] = "&<",
	[REST_NXL] = "&>",
	[REST_ADJ] = "-|-",
	[REST_FTS] = "to_tsquery",
	[REST_PLFTS] = "plainto_tsquery",
	[REST_PHFTS] = "phraseto_tsquery",
	[REST_WFTS] = "websearch_to_tsquery",
};

static Oid
array_type(Oid type)
{
	Oid			result = get_array_type(type);

	if (!OidIsValid(result))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("could not find array type for data type %s", format_type_be(type))));
	return result;
}

/* An array of a type of what a list has. */
static Datum
array_value(Oid type, const char **list, int n)
{
	Datum	   *values = palloc(Max(n, 1) * sizeof(Datum));
	int16		length;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	for (int i = 0; i < n; i++)
		values[i] = value_of(type, list[i]);
	return PointerGetDatum(construct_array(values, n, type, length, by_value, align));
}

/* In patterns, * is as good as %. */
static char *
pattern(const char *value)
{
	char	   *result = pstrdup(value);

	for (char *c = result; *c; c++)
		if (*c == '*')
			*c = '%';
	return result;
}

/* PostgreSQL's parser of to_tsquery() holds 32 operators, and calls it a fault of its own where there are more. */
#define NEGATIONS_MAX	30

static void
check_negations(const char *query)
{
	int			n = 0;

	for (const char *c = query; *c; c++)
	{
		if (*c == '!')
			n++;
		else if (!isspace((unsigned char) *c))
			n = 0;
		if (n > NEGATIONS_MAX)
			rest_refuse(400, "54001", psprintf("At most %d negations can follow each other in a text search", NEGATIONS_MAX), NULL, NULL);
	}
}

static void
write_filter(RestSql *sql, const RestSource *source, const RestLogic *filter)
{
	bool		like = filter->op == REST_LIKE || filter->op == REST_ILIKE;
	bool		text = like || filter->op == REST_MATCH || filter->op == REST_IMATCH;
	const char *value = like ? pattern(filter->value) : filter->value;
	Oid			type;
	int			parameter;

	if (filter->op == REST_FTS)
		check_negations(filter->value);
	if (filter->negated)
		appendStringInfoString(&sql->text, "NOT ");
	appendStringInfoChar(&sql->text, '(');
	if (filter->op >= REST_FTS)
	{
		appendStringInfoString(&sql->text, "pg_catalog.to_tsvector(");
		if (filter->language)
			appendStringInfo(&sql->text, "$%d, ", rest_sql_bind(sql, REGCONFIGOID, filter->language));
	}
	type = write_field(sql, source, &filter->field);
	if (filter->op >= REST_FTS)
	{
		appendStringInfo(&sql->text, ") @@ pg_catalog.%s(", operator_of[filter->op]);
		if (filter->language)
			appendStringInfo(&sql->text, "$%d, ", sql->nparameters);
		parameter = rest_sql_bind(sql, TEXTOID, value);
		appendStringInfo(&sql->text, "$%d))", parameter);
		return;
	}
	appendStringInfo(&sql->text, " %s ", operator_of[filter->op]);
	if (text)
		type = TEXTOID;
	switch (filter->op)
	{
		case REST_IS:
			appendStringInfo(&sql->text, "%s)", strcmp(value, "not_null") == 0 ? "NOT NULL" : value);
			return;
		case REST_IN:
			parameter = rest_sql_bind_datum(sql, array_type(type), array_value(type, filter->list, filter->nlist));
			appendStringInfo(&sql->text, "ANY ($%d))", parameter);
			return;
		default:
			break;
	}
	if (filter->quantifier == REST_ONE)
		appendStringInfo(&sql->text, "$%d)", rest_sql_bind(sql, type, value));
	else
		appendStringInfo(&sql->text, "%s ($%d))", filter->quantifier == REST_ANY ? "ANY" : "ALL",
						 rest_sql_bind(sql, array_type(type), value));
}

static void
write_logic(RestSql *sql, const RestSource *source, const RestLogic *logic)
{
	if (logic->kind == REST_FILTER)
	{
		write_filter(sql, source, logic);
		return;
	}
	appendStringInfoString(&sql->text, logic->negated ? "NOT (" : "(");
	for (const RestLogic *part = logic->first; part; part = part->next)
	{
		write_logic(sql, source, part);
		if (part->next)
			appendStringInfoString(&sql->text, logic->kind == REST_AND ? " AND " : " OR ");
	}
	appendStringInfoChar(&sql->text, ')');
}

/* Add " WHERE ..." where there are conditions. */
void
rest_sql_where(RestSql *sql, const RestSource *source, const RestLogic *filters)
{
	for (const RestLogic *filter = filters; filter; filter = filter->next)
	{
		appendStringInfoString(&sql->text, filter == filters ? " WHERE " : " AND ");
		write_logic(sql, source, filter);
	}
}

/* ---------------------------------------------------------------- select and order */

/* The name under which an item is in the result: its alias, the last key of its path, or its column. */
static const char *
output_name(const RestSelect *item)
{
	if (item->alias)
		return item->alias;
	for (int i = item->field.nsteps - 1; i >= 0; i--)
		if (!item->field.steps[i].index)
			return item->field.steps[i].key;
	return item->field.name;
}

/* What PostgREST knows and we do not serve. */
static void
check_select(const RestSource *source, const RestSelect *item)
{
	if (item->kind == REST_SELECT_AGGREGATE)
		rest_refuse(400, "PGRST123", "Use of aggregate functions is not allowed", NULL, NULL);
	if (item->kind == REST_SELECT_RELATION)
		rest_refuse(400, "PGRST200",
					psprintf("Could not find a relationship between '%s' and '%s' in the schema cache", source->name, item->field.name),
					psprintf("Searched for a foreign key relationship between '%s' and '%s' in the schema '%s', but no matches were found.",
							 source->name, item->field.name, source->schema),
					NULL);
}

/* Refuse what cannot be selected of any row, before one is changed. */
void
rest_sql_check_select(const RestSource *source, const RestSelect *select)
{
	for (const RestSelect *item = select; item; item = item->next)
		check_select(source, item);
}

/* The list of what is selected; expand: each column by its name, in place of t.*. */
void
rest_sql_select(RestSql *sql, const RestSource *source, const RestSelect *select, bool expand)
{
	static const RestSelect all = {.kind = REST_SELECT_ALL};
	const char *separator = "";

	for (const RestSelect *item = select ? select : &all; item; item = item->next)
	{
		check_select(source, item);
		appendStringInfoString(&sql->text, separator);
		separator = ", ";
		if (item->kind == REST_SELECT_ALL && !expand)
			appendStringInfoString(&sql->text, "t.*");
		else if (item->kind == REST_SELECT_ALL)
			for (int i = 0; i < source->ncolumns; i++)
				appendStringInfo(&sql->text, "%st.%s", i > 0 ? ", " : "", source->columns[i].quoted);
		else
		{
			if (item->cast)
				appendStringInfoString(&sql->text, "CAST(");
			write_field(sql, source, &item->field);
			if (item->cast)
				appendStringInfo(&sql->text, " AS %s)",
								 format_type_be_qualified(DatumGetObjectId(DirectFunctionCall1(regtypein, CStringGetDatum(item->cast)))));
			appendStringInfo(&sql->text, " AS %s", quote_identifier(output_name(item)));
		}
	}
}

/* The names that rest_sql_select() gives, expanded. */
void
rest_sql_select_names(RestSql *sql, const RestSource *source, const RestSelect *select)
{
	static const RestSelect all = {.kind = REST_SELECT_ALL};
	const char *separator = "";

	for (const RestSelect *item = select ? select : &all; item; item = item->next)
	{
		if (item->kind == REST_SELECT_ALL)
			for (int i = 0; i < source->ncolumns; i++)
			{
				appendStringInfo(&sql->text, "%s%s", separator, source->columns[i].quoted);
				separator = ", ";
			}
		else
		{
			appendStringInfo(&sql->text, "%s%s", separator, quote_identifier(output_name(item)));
			separator = ", ";
		}
	}
}

/* What an order sorts by. */
static void
write_order_field(RestSql *sql, const RestSource *source, const RestOrder *item)
{
	if (item->relation)
		rest_refuse(400, "PGRST108", psprintf("'%s' is not an embedded resource in this request", item->relation), NULL,
					psprintf("Verify that '%s' is included in the 'select' query parameter.", item->relation));
	write_field(sql, source, &item->field);
}

static const char *
order_direction(const RestOrder *item)
{
	return psprintf("%s%s", item->descending ? " DESC" : "", item->nulls > 0 ? " NULLS FIRST" : item->nulls < 0 ? " NULLS LAST" : "");
}

/* Add " ORDER BY ..." where an order is asked for. */
void
rest_sql_order(RestSql *sql, const RestSource *source, const RestOrder *order)
{
	for (const RestOrder *item = order; item; item = item->next)
	{
		appendStringInfoString(&sql->text, item == order ? " ORDER BY " : ", ");
		write_order_field(sql, source, item);
		appendStringInfoString(&sql->text, order_direction(item));
	}
}

/*
 * The same in two steps, for rows that can be sorted only when they are there (of RETURNING): add what to sort by as columns,
 * and return the " ORDER BY ..." of those rows, called s.
 */
char *
rest_sql_order_later(RestSql *sql, const RestSource *source, const RestOrder *order)
{
	StringInfoData sort;
	int			number = 0;

	initStringInfo(&sort);
	for (const RestOrder *item = order; item; item = item->next)
	{
		appendStringInfoString(&sql->text, ", ");
		write_order_field(sql, source, item);
		appendStringInfo(&sql->text, " AS " REST_OWN_COLUMN "order_%d", ++number);
		appendStringInfo(&sort, "%s s." REST_OWN_COLUMN "order_%d%s", number > 1 ? "," : " ORDER BY", number, order_direction(item));
	}
	return sort.data;
}

/* ---------------------------------------------------------------- plans */

typedef struct KeptPlan
{
	uint32		hash;
	char	   *text;
	SPIPlanPtr	plan;
	uint64		used;			/* when, in statements */
} KeptPlan;

static KeptPlan plans[PLANS_MAX];
static int	nplans = 0;
static uint64 statements_run = 0;
static uint64 plans_of = 0;		/* the catalogue's generation that they were made for */

static void
forget_plan(KeptPlan *kept)
{
	SPI_freeplan(kept->plan);
	pfree(kept->text);
	memset(kept, 0, sizeof(KeptPlan));
}

/* The plan of a statement, from those that are kept, or made and kept. */
static SPIPlanPtr
find_plan(RestSql *sql)
{
	uint32		hash = string_hash(sql->text.data, sql->text.len + 1);
	KeptPlan   *place = NULL;
	SPIPlanPtr	plan;
	char	   *text;

	if (plans_of != rest_catalog_generation())
	{
		/* parameters may be of other types now */
		while (nplans > 0)
			forget_plan(&plans[--nplans]);
		plans_of = rest_catalog_generation();
	}
	for (int i = 0; i < nplans; i++)
	{
		if (plans[i].hash == hash && strcmp(plans[i].text, sql->text.data) == 0)
		{
			plans[i].used = statements_run;
			return plans[i].plan;
		}
		if (place == NULL || plans[i].used < place->used)
			place = &plans[i];
	}
	plan = SPI_prepare(sql->text.data, sql->nparameters, sql->types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	if (sql->once || sql->text.len > TEXT_MAX)
		return plan;
	/* what may fail first: no place is left half empty */
	text = MemoryContextStrdup(TopMemoryContext, sql->text.data);
	SPI_keepplan(plan);
	if (nplans < PLANS_MAX)
		place = &plans[nplans];
	else
		forget_plan(place);
	place->text = text;
	place->plan = plan;
	place->hash = hash;
	place->used = statements_run;
	if (nplans < PLANS_MAX)
		nplans++;
	return plan;
}

uint64
rest_sql_run(RestSql *sql)
{
	int			rc;

	statements_run++;
	rc = SPI_execute_plan(find_plan(sql), sql->values, sql->nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

void
rest_sql_run_into(RestSql *sql, DestReceiver *receiver)
{
	SPIExecuteOptions options = {.dest = receiver};
	int			rc;

	statements_run++;
	if (sql->nparameters > 0)
	{
		options.params = makeParamList(sql->nparameters);
		for (int i = 0; i < sql->nparameters; i++)
			options.params->params[i] = (ParamExternData)
		{
			.value = sql->values[i],
				.isnull = sql->nulls[i] == 'n',
				.pflags = PARAM_FLAG_CONST,
				.ptype = sql->types[i]
		};
	}
	rc = SPI_execute_plan_extended(find_plan(sql), &options);
	if (rc < 0)
		elog(ERROR, "SPI_execute_plan_extended failed: %s", SPI_result_code_string(rc));
}
