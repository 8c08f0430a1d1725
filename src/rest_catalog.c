/*
 * rest_catalog.c
 *		What the HTTP facade serves: tables, views and functions of the extension, from the catalogue.
 *
 * It is read once and again after any change of a table, a function or the extension,
 * which the cache invalidation of PostgreSQL tells of at the begin of the next transaction.
 * Only what belongs to the extension is served, whatever else is in its schema.
 */
#include "msgsys.h"

#include "rest_catalog.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* Credentials are nobody's to read by HTTP, whatever a role may do in SQL. */
#define NEVER_SERVED	"msg_webhook_secrets"

static RestCatalog *catalog = NULL;
static MemoryContext context = NULL;
static bool stale = true;
static uint64 generation = 0;

/* Others' tables come and go all the time: a new one of ours comes with functions. */
static void
relation_changed(Datum arg, Oid relation)
{
	ListCell   *lc;

	if (relation == InvalidOid || catalog == NULL)
	{
		stale = true;
		return;
	}
	foreach(lc, catalog->tables)
		if (((RestTable *) lfirst(lc))->oid == relation)
			stale = true;
}

static void
function_changed(Datum arg, int cache, uint32 hash)
{
	stale = true;
}

uint64
rest_catalog_generation(void)
{
	return generation;
}

/* A column of the result as text in the catalogue's memory; NULL for null. */
static char *
text_of(uint64 row, int number)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number);

	return value ? MemoryContextStrdup(context, value) : NULL;
}

static bool
bool_of(uint64 row, int number)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number);

	return value && value[0] == 't';
}

static Oid
oid_of(uint64 row, int number)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number);

	return value ? (Oid) strtoul(value, NULL, 10) : InvalidOid;
}

/* Run a query, and go on in the catalogue's memory: SPI leaves its own as the current one. */
static void
select_from_catalog(const char *query)
{
	if (SPI_execute(query, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the catalogue");
	MemoryContextSwitchTo(context);
}

static void
load_tables(void)
{
	RestTable  *table = NULL;
	uint64		n;

	select_from_catalog(
						"SELECT c.oid, c.relname, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),"
						" (pg_catalog.pg_relation_is_updatable(c.oid, false) & 8) <> 0, (pg_catalog.pg_relation_is_updatable(c.oid, false) & 20) = 20,"
						" a.attname, pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid,"
						" CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END,"
						" EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey)),"
						" a.attidentity, (SELECT pg_catalog.pg_get_expr(x.adbin, x.adrelid) FROM pg_catalog.pg_attrdef x WHERE x.adrelid = c.oid AND x.adnum = a.attnum AND a.attgenerated = '')"
						" FROM pg_catalog.pg_extension e"
						" JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid"
						" AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e'"
						" JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'v', 'm')"
						" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
						" JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
						" JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
						" WHERE e.extname = '" MSGSYS_NAME "' AND c.relname <> '" NEVER_SERVED "' ORDER BY c.relname, a.attnum");
	n = SPI_processed;
	for (uint64 row = 0; row < n; row++)
	{
		Oid			oid = oid_of(row, 1);
		RestColumn *column;

		if (table == NULL || table->oid != oid)
		{
			uint64		after = row;

			table = palloc0(sizeof(RestTable));
			table->oid = oid;
			table->name = text_of(row, 2);
			table->quoted = text_of(row, 3);
			table->insertable = bool_of(row, 4);
			table->updatable = bool_of(row, 5);
			while (after < n && oid_of(after, 1) == oid)
				after++;
			table->columns = palloc0((after - row) * sizeof(RestColumn));
			catalog->tables = lappend(catalog->tables, table);
		}
		column = &table->columns[table->ncolumns++];
		column->name = text_of(row, 6);
		column->quoted = text_of(row, 7);
		column->type_name = text_of(row, 8);
		column->type = oid_of(row, 9);
		column->base_type = oid_of(row, 10);
		column->key = bool_of(row, 11);
		column->identity = text_of(row, 12)[0] != '\0';
		column->default_expression = text_of(row, 13);
		table->nkeys += column->key;
	}
}

static void
load_functions(void)
{
	uint64		n;

	select_from_catalog(
						"SELECT p.oid, p.proname, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(p.proname), p.provolatile, p.proretset,"
						" CASE WHEN p.prorettype = 'void'::pg_catalog.regtype THEN 0 WHEN t.typtype = 'c' OR p.prorettype = 'record'::pg_catalog.regtype"
						" AND p.proargmodes && '{o,b,t}'::pg_catalog.\"char\"[] THEN 2 ELSE 1 END,"
						" CASE t.typtype WHEN 'c' THEN t.typname ELSE p.proname END"
						" FROM pg_catalog.pg_extension e"
						" JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid"
						" AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e'"
						" JOIN pg_catalog.pg_proc p ON p.oid = d.objid AND p.prokind = 'f'"
						" JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_type t ON t.oid = p.prorettype"
						" WHERE e.extname = '" MSGSYS_NAME "' AND p.proname LIKE 'msg\\_%'"
						" AND p.prorettype NOT IN ('trigger'::pg_catalog.regtype, 'event_trigger'::pg_catalog.regtype, 'internal'::pg_catalog.regtype)"
						" ORDER BY p.proname, p.oid");
	n = SPI_processed;
	for (uint64 row = 0; row < n; row++)
	{
		RestFunction *function = palloc0(sizeof(RestFunction));

		function->oid = oid_of(row, 1);
		function->name = text_of(row, 2);
		function->quoted = text_of(row, 3);
		function->volatility = text_of(row, 4)[0];
		function->set = bool_of(row, 5);
		function->returns = (RestReturns) oid_of(row, 6);
		function->source = text_of(row, 7);
		catalog->functions = lappend(catalog->functions, function);
	}
}

/* Parameters, and the columns that results have. */
static void
load_parameters(void)
{
	uint64		n;
	uint64		row = 0;
	ListCell   *lc;

	select_from_catalog(
						"SELECT q.oid, a.name, pg_catalog.quote_ident(a.name), pg_catalog.format_type(a.type, a.modifier), a.type, a.mode,"
						" a.input > q.pronargs - q.pronargdefaults, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END"
						" FROM pg_catalog.pg_extension e"
						" JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid"
						" AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e'"
						" JOIN pg_catalog.pg_proc q ON q.oid = d.objid,"
						" LATERAL (SELECT x.type, NULL::integer AS modifier, coalesce(q.proargnames[x.n], '') AS name, coalesce(q.proargmodes[x.n], 'i') AS mode, x.n,"
						" pg_catalog.count(*) FILTER (WHERE coalesce(q.proargmodes[x.n], 'i') IN ('i', 'b', 'v')) OVER (ORDER BY x.n) AS input"
						" FROM pg_catalog.unnest(coalesce(q.proallargtypes, q.proargtypes::pg_catalog.oid[])) WITH ORDINALITY x(type, n)"
						" UNION ALL SELECT c.atttypid, c.atttypmod, c.attname, 'c', c.attnum + 1000, 0 FROM pg_catalog.pg_type t"
						" JOIN pg_catalog.pg_attribute c ON c.attrelid = t.typrelid AND c.attnum > 0 AND NOT c.attisdropped WHERE t.oid = q.prorettype) a"
						" JOIN pg_catalog.pg_type t ON t.oid = a.type WHERE e.extname = '" MSGSYS_NAME "' ORDER BY q.proname, q.oid, a.n");
	n = SPI_processed;
	foreach(lc, catalog->functions)
	{
		RestFunction *function = lfirst(lc);
		uint64		after;

		while (row < n && oid_of(row, 1) != function->oid)
			row++;
		for (after = row; after < n && oid_of(after, 1) == function->oid; after++)
			;
		if (row == after)
		{
			/* one without parameters and columns */
			row = 0;
			continue;
		}
		function->parameters = palloc0((after - row) * sizeof(RestParameter));
		function->columns = palloc0((after - row) * sizeof(RestColumn));
		for (; row < after; row++)
		{
			char		mode = text_of(row, 6)[0];

			if (mode == 'i' || mode == 'b' || mode == 'v')
			{
				RestParameter *parameter = &function->parameters[function->nparameters++];

				parameter->name = text_of(row, 2);
				parameter->quoted = text_of(row, 3);
				parameter->type_name = text_of(row, 4);
				parameter->type = oid_of(row, 5);
				parameter->required = !bool_of(row, 7);
			}
			if (mode == 'o' || mode == 'b' || mode == 't' || mode == 'c')
			{
				RestColumn *column = &function->columns[function->ncolumns++];

				column->name = text_of(row, 2);
				column->quoted = text_of(row, 3);
				column->type_name = text_of(row, 4);
				column->type = oid_of(row, 5);
				column->base_type = oid_of(row, 8);
			}
		}
	}
}

static void
load(void)
{
	MemoryContext old = CurrentMemoryContext;

	/* what changes while it is read makes it stale again */
	stale = false;
	generation++;
	if (context)
		MemoryContextDelete(context);
	catalog = NULL;
	context = NULL;
	context = AllocSetContextCreate(TopMemoryContext, "msgsys HTTP catalogue", ALLOCSET_DEFAULT_SIZES);
	select_from_catalog("SELECT n.nspname, pg_catalog.quote_ident(n.nspname), e.extversion FROM pg_catalog.pg_extension e"
						" JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = '" MSGSYS_NAME "'");
	if (SPI_processed == 0)
	{
		MemoryContextSwitchTo(old);
		return;
	}
	catalog = palloc0(sizeof(RestCatalog));
	catalog->schema = text_of(0, 1);
	catalog->schema_quoted = text_of(0, 2);
	catalog->version = text_of(0, 3);
	load_tables();
	load_functions();
	load_parameters();
	MemoryContextSwitchTo(old);
}

const RestCatalog *
rest_catalog(void)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, function_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, function_changed, (Datum) 0);
		registered = true;
	}
	if (stale)
	{
		PG_TRY();
		{
			load();
		}
		PG_CATCH();
		{
			stale = true;
			catalog = NULL;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	return catalog;
}

const RestTable *
rest_table(const RestCatalog *from, const char *name)
{
	ListCell   *lc;

	foreach(lc, from->tables)
	{
		const RestTable *table = lfirst(lc);

		if (strcmp(table->name, name) == 0)
			return table;
	}
	return NULL;
}

const RestFunction *
rest_function(const RestCatalog *from, const char *name)
{
	ListCell   *lc;

	foreach(lc, from->functions)
	{
		const RestFunction *function = lfirst(lc);

		if (strcmp(function->name, name) == 0)
			return function;
	}
	return NULL;
}

const RestColumn *
rest_column(const RestColumn *columns, int ncolumns, const char *name)
{
	for (int i = 0; i < ncolumns; i++)
		if (strcmp(columns[i].name, name) == 0)
			return &columns[i];
	return NULL;
}
