/*
 * rest_sql.h
 *		From a parsed query to SQL: identifiers from the catalogue, values bound.
 */
#ifndef MSGSYS_REST_SQL_H
#define MSGSYS_REST_SQL_H

#include "msgsys.h"

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#include "rest_catalog.h"
#include "rest_parse.h"

/* Columns whose names begin so are ours, and stand behind those of the body. */
#define REST_OWN_COLUMN	"pgrst_own_"

/* A statement in the making. */
typedef struct RestSql
{
	StringInfoData text;
	Oid		   *types;			/* of its parameters */
	Datum	   *values;
	char	   *nulls;			/* as SPI takes them */
	int			nparameters;
	int			room;
	bool		once;			/* not worth to be kept as a plan */
} RestSql;

/* What rows come from: a table's columns, or those of a function's result. */
typedef struct RestSource
{
	const char *name;			/* for errors */
	const char *schema;
	const RestColumn *columns;
	int			ncolumns;
} RestSource;

extern void rest_sql_init(RestSql *sql);
extern int	rest_sql_bind(RestSql *sql, Oid type, const char *text);
extern int	rest_sql_bind_datum(RestSql *sql, Oid type, Datum value);

extern void rest_sql_check_select(const RestSource *source, const RestSelect *select);
extern void rest_sql_select(RestSql *sql, const RestSource *source, const RestSelect *select, bool expand);
extern void rest_sql_select_names(RestSql *sql, const RestSource *source, const RestSelect *select);
extern void rest_sql_where(RestSql *sql, const RestSource *source, const RestLogic *filters);
extern void rest_sql_order(RestSql *sql, const RestSource *source, const RestOrder *order);
extern char *rest_sql_order_later(RestSql *sql, const RestSource *source, const RestOrder *order);

/* The same, with its rows handed to a receiver as they come. */
extern void rest_sql_run_into(RestSql *sql, DestReceiver *receiver);

/* Run it; the result is SPI's.  Plans are kept, by text. */
extern uint64 rest_sql_run(RestSql *sql);

#endif							/* MSGSYS_REST_SQL_H */
