/*
 * rest.h
 *		PostgREST's dialect: requests to tables, views and functions.
 *
 * To be called within a transaction that has the caller's role, with SPI connected.
 */
#ifndef MSGSYS_REST_H
#define MSGSYS_REST_H

#include "msgsys.h"

#include "call.h"
#include "rest_catalog.h"
#include "rest_request.h"
#include "rest_rows.h"
#include "rest_sql.h"

/* What an answer depends on, besides its URL. */
#define REST_VARY	"Accept, Prefer, Range"

/* A request while it is worked on: what its URL and its header say. */
typedef struct Rest
{
	Call	   *call;
	const RestCatalog *catalog;
	RestQuery  *query;
	RestPrefer	prefer;
	RestMedia	media;
	bool		nulls_stripped;
	RestWindow	window;			/* of what is read */
	RestSource	source;			/* where rows come from */
	RestSql		sql;			/* what gives the rows */
	const char *sort;			/* ORDER BY of rows s that are sorted when they are there; NULL: not so */
	RestRows	rows;			/* what came */
} Rest;

/* How the rows of a statement become the body. */
typedef struct RestRun
{
	const char *with;			/* common table expressions that it uses; NULL: none */
	const char *element;		/* what a row s is in JSON; NULL: s itself */
	const char *count;			/* an expression that counts all there are; NULL: nobody asks (not with CSV) */
	bool		inserted;		/* the last column tells which rows are new */
	bool		single;			/* the body is one value, not an array */
	bool		scalar;			/* values are no rows */
} RestRun;

/* Answer /name and /rpc/name. */
extern void rest_table_request(Call *call, const RestCatalog *catalog, const char *name);
extern void rest_function_request(Call *call, const RestCatalog *catalog, const char *name);

/* The methods of /name that change rows (rest_write.c). */
extern void rest_insert(Rest *rest, const RestTable *table);
extern void rest_upsert(Rest *rest, const RestTable *table);
extern void rest_update(Rest *rest, const RestTable *table);
extern void rest_delete(Rest *rest, const RestTable *table);

/* What they share (rest.c). */
extern void rest_begin(Rest *rest, Call *call, const RestCatalog *catalog, bool arguments);
extern void rest_read_only(void);
extern int64 rest_run(Rest *rest, const RestRun *run);
extern const char *rest_media_name(const Rest *rest);
extern int64 rest_read(Rest *rest, const char *from, RestRun *run);
extern void rest_check_singular(const Rest *rest, int64 rows);
extern void rest_check_affected(const Rest *rest, int64 rows);
extern const char *rest_similar(const char *name, const List *names);

#endif							/* MSGSYS_REST_H */
