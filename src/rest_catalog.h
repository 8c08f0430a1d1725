/*
 * rest_catalog.h
 *		What the HTTP facade serves: tables, views and functions of the extension, from the catalogue.
 */
#ifndef MSGSYS_REST_CATALOG_H
#define MSGSYS_REST_CATALOG_H

#include "msgsys.h"

#include "nodes/pg_list.h"

typedef struct RestColumn
{
	char	   *name;
	char	   *quoted;
	char	   *type_name;		/* qualified and quoted, with its modifiers */
	Oid			type;
	Oid			base_type;		/* under a domain */
	bool		key;			/* of the primary key */
	bool		identity;		/* the database gives the value */
	char	   *default_expression; /* NULL: none */
} RestColumn;

typedef struct RestTable
{
	char	   *name;
	char	   *quoted;			/* qualified and quoted */
	Oid			oid;
	bool		insertable;
	bool		updatable;		/* and its rows can be deleted */
	RestColumn *columns;
	int			ncolumns;
	int			nkeys;			/* columns of the primary key */
} RestTable;

typedef struct RestParameter
{
	char	   *name;
	char	   *quoted;
	char	   *type_name;
	Oid			type;
	bool		required;
} RestParameter;

typedef enum RestReturns
{
	REST_VOID,
	REST_SCALAR,
	REST_COMPOSITE				/* or a record with names */
} RestReturns;

typedef struct RestFunction
{
	char	   *name;
	char	   *quoted;			/* qualified and quoted */
	Oid			oid;
	char		volatility;		/* as in pg_proc */
	bool		set;			/* returns a set */
	RestReturns returns;
	char	   *source;			/* what its rows are called: the table or type whose rows it returns, or else its name */
	RestParameter *parameters;
	int			nparameters;
	RestColumn *columns;		/* of what a composite result has */
	int			ncolumns;
} RestFunction;

typedef struct RestCatalog
{
	char	   *schema;			/* its name as it is */
	char	   *schema_quoted;
	char	   *version;		/* of the extension */
	List	   *tables;			/* of RestTable */
	List	   *functions;		/* of RestFunction */
} RestCatalog;

/* The catalogue as it is now; NULL: the extension is not there.  In a transaction, with SPI connected. */
extern const RestCatalog *rest_catalog(void);

extern const RestTable *rest_table(const RestCatalog *catalog, const char *name);
extern const RestFunction *rest_function(const RestCatalog *catalog, const char *name);
extern const RestColumn *rest_column(const RestColumn *columns, int ncolumns, const char *name);

/* A number that changes with the catalogue. */
extern uint64 rest_catalog_generation(void);

#endif							/* MSGSYS_REST_CATALOG_H */
