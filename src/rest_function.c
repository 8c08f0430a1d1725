/*
 * rest_function.c
 *		PostgREST's dialect: /rpc/, calls of functions with named arguments.
 */
#include "msgsys.h"

#include "rest.h"
#include "rest_body.h"
#include "rest_error.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/* No function has this name and these arguments. */
pg_noreturn static void
refuse_function(const Rest *rest, const char *name, List *arguments)
{
	const char *schema = rest->catalog->schema;
	StringInfoData list;
	List	   *names = NIL;
	ListCell   *lc;
	const char *similar;

	initStringInfo(&list);
	list_sort(arguments, compare_names);
	foreach(lc, arguments)
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", (char *) lfirst(lc));
	foreach(lc, rest->catalog->functions)
		names = lappend(names, ((RestFunction *) lfirst(lc))->name);
	similar = rest_function(rest->catalog, name) ? NULL : rest_similar(name, names);
	rest_refuse(404, "PGRST202",
				arguments == NIL ? psprintf("Could not find the function %s.%s without parameters in the schema cache", schema, name) :
				psprintf("Could not find the function %s.%s(%s) in the schema cache", schema, name, list.data),
				arguments == NIL ? psprintf("Searched for the function %s.%s without parameters%s, but no matches were found in the schema cache.", schema, name,
											rest->call->method == METHOD_POST ? " or with a single unnamed json/jsonb parameter" : "") :
				psprintf("Searched for the function %s.%s with parameter%s %s%s, but no matches were found in the schema cache.", schema, name,
						 list_length(arguments) > 1 ? "s" : "", list.data,
						 rest->call->method == METHOD_POST ? " or with a single unnamed json/jsonb parameter" : ""),
				similar ? psprintf("Perhaps you meant to call the function %s.%s", schema, similar) : NULL);
}

static const RestParameter *
find_parameter(const RestFunction *function, const char *name)
{
	for (int i = 0; i < function->nparameters; i++)
		if (strcmp(function->parameters[i].name, name) == 0)
			return &function->parameters[i];
	return NULL;
}

/* The parameters that are given; refuses where one is unknown, or a required one is missing. */
static List *
given_parameters(const Rest *rest, const RestFunction *function, const char *name, List *names)
{
	List	   *given = NIL;
	ListCell   *lc;
	bool		good = function != NULL;

	if (good)
	{
		foreach(lc, names)
		{
			const RestParameter *parameter = find_parameter(function, lfirst(lc));

			good = good && parameter != NULL;
			given = list_append_unique_ptr(given, (void *) parameter);
		}
		for (int i = 0; i < function->nparameters; i++)
			good = good && (!function->parameters[i].required || list_member_ptr(given, &function->parameters[i]));
	}
	if (!good)
		refuse_function(rest, name, names);
	return given;
}

/* "function(name => value, ...)", with the arguments of the query string bound. */
static char *
call_by_query(Rest *rest, const RestFunction *function, const char *name)
{
	StringInfoData text;
	List	   *names = NIL;
	const char *separator = "";

	for (const RestArgument *argument = rest->query->arguments; argument; argument = argument->next)
		names = lappend(names, (void *) argument->name);
	given_parameters(rest, function, name, names);
	initStringInfo(&text);
	appendStringInfo(&text, "%s(", function->quoted);
	for (const RestArgument *argument = rest->query->arguments; argument; argument = argument->next)
	{
		const RestParameter *parameter = find_parameter(function, argument->name);
		bool		again = false;

		/* of several of a name the last counts */
		for (const RestArgument *later = argument->next; later; later = later->next)
			again = again || strcmp(later->name, argument->name) == 0;
		if (again)
			continue;
		appendStringInfo(&text, "%s%s => $%d", separator, parameter->quoted, rest_sql_bind(&rest->sql, parameter->type, argument->value));
		separator = ", ";
	}
	appendStringInfoChar(&text, ')');
	return text.data;
}

/* The same with the arguments of the body, or those of it that columns= names; jsonb_to_record() makes values of them. */
static char *
call_by_body(Rest *rest, const RestFunction *function, const char *name)
{
	StringInfoData record;
	StringInfoData text;
	RestBody	body;
	List	   *given;
	ListCell   *lc;

	rest_body(rest->call, rest->query->columns != NULL, true, &body);
	for (const RestName *column = rest->query->columns; column; column = column->next)
	{
		if (column == rest->query->columns)
			body.names = NIL;
		body.names = lappend(body.names, (void *) column->name);
	}
	given = given_parameters(rest, function, name, body.names);
	initStringInfo(&record);
	initStringInfo(&text);
	if (given != NIL)
	{
		appendStringInfo(&record, "pg_catalog.jsonb_to_record($%d%s) AS p(", rest_sql_bind_datum(&rest->sql, JSONBOID, JsonbPGetDatum(body.json)),
						 body.array ? " -> 0" : "");
		foreach(lc, given)
		{
			const RestParameter *parameter = lfirst(lc);

			appendStringInfo(&record, "%s%s %s", foreach_current_index(lc) > 0 ? ", " : "", parameter->quoted, parameter->type_name);
			appendStringInfo(&text, "%s%s => p.%s", foreach_current_index(lc) > 0 ? ", " : "", parameter->quoted, parameter->quoted);
		}
		appendStringInfoString(&record, "), LATERAL ");
	}
	return psprintf("%s%s(%s)", record.data, function->quoted, text.data);
}

static void
function_options(Call *call, const RestFunction *function)
{
	call->status = 200;
	call_reply_field(call, "Vary", REST_VARY);
	call_reply_field(call, "Allow", function->volatility == PROVOLATILE_VOLATILE ? "OPTIONS,POST" : "OPTIONS,GET,HEAD,POST");
}

void
rest_function_request(Call *call, const RestCatalog *catalog, const char *name)
{
	const RestFunction *function = rest_function(catalog, name);
	bool		by_body = call->method == METHOD_POST;
	Rest		rest;
	RestRun		run;
	char	   *from;
	char	   *with = NULL;
	bool		scalar;
	RestCount	count;

	if (call->method == METHOD_OPTIONS && function)
	{
		function_options(call, function);
		return;
	}
	if (!by_body && call->method != METHOD_GET && call->method != METHOD_HEAD && call->method != METHOD_OPTIONS)
		rest_refuse(405, "PGRST101", psprintf("Cannot use the %s method on RPC", call->http->method), NULL, NULL);
	rest_begin(&rest, call, catalog, !by_body);
	if (!by_body || (function && function->volatility != PROVOLATILE_VOLATILE))
		rest_read_only();
	from = by_body ? call_by_body(&rest, function, name) : call_by_query(&rest, function, name);
	if (!function->set && rest.prefer.handling == 1 && rest.prefer.has_max_affected)
		rest_refuse(400, "PGRST128", "Function must return SETOF or TABLE when max-affected preference is used with handling=strict", NULL, NULL);
	if (function->returns == REST_VOID)
	{
		appendStringInfo(&rest.sql.text, "SELECT FROM %s AS t(v)", from);
		rest_sql_run(&rest.sql);
		call->status = 204;
		rest_content_range(call, 0, 1, rest.prefer.count == COUNT_EXACT || rest.prefer.count == COUNT_ESTIMATED ? 1 : -1);
		rest_prefer_applied(call, &rest.prefer, false, false, false, false);
		return;
	}
	scalar = function->returns == REST_SCALAR;
	from = psprintf("%s AS t%s", from, scalar ? "(pgrst_scalar)" : "");
	rest.source.name = function->source;
	rest.source.schema = catalog->schema;
	rest.source.columns = function->columns;
	rest.source.ncolumns = function->ncolumns;
	/* the planner knows nothing of a function's rows */
	count = rest.prefer.count;
	rest.prefer.count = count == COUNT_EXACT || count == COUNT_ESTIMATED ? COUNT_EXACT : COUNT_NONE;
	if (rest.prefer.count != COUNT_NONE)
	{
		/* called once, however often its rows are looked at */
		with = psprintf("pgrst_call AS MATERIALIZED (SELECT t.* FROM %s)", from);
		from = "pgrst_call AS t";
	}
	run = (RestRun)
	{
		.with = with,
			.element = scalar ? "s.pgrst_scalar" : NULL,
			.single = !function->set,
			.scalar = scalar
	};
	rest_check_affected(&rest, rest_read(&rest, from, &run));
	rest.prefer.count = count;
	rest_prefer_applied(call, &rest.prefer, false, false, false, true);
}
