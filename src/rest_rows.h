/*
 * rest_rows.h
 *		Rows as the body of an answer, written as they come.
 */
#ifndef MSGSYS_REST_ROWS_H
#define MSGSYS_REST_ROWS_H

#include "msgsys.h"

#include "lib/stringinfo.h"
#include "tcop/dest.h"

/* What the executor hands rows to; set up by rest_rows_init(), the first members then as it is wanted. */
typedef struct RestRows
{
	DestReceiver pub;
	StringInfo	body;
	bool		csv;			/* all columns but our own, in CSV; else the first one, which is JSON */
	bool		with_total;		/* the first row is none: its second column is the number of all */
	bool		with_inserted;	/* the last column tells whether a row is new */
	bool		one;			/* only the first row is written */
	const char *separator;		/* between values in JSON */

	/* what came */
	int64		rows;
	int64		total;			/* -1: was not there */
	int64		inserted;

	/* of the statement that runs */
	bool		header_seen;
	int			ncolumns;
	struct RestRowsColumn *columns;
	MemoryContext row_context;
} RestRows;

extern void rest_rows_init(RestRows *rows, StringInfo body);

/* Refuse an answer that has become larger than msgsys.http_max_response. */
extern void rest_rows_check_size(int64 size);

#endif							/* MSGSYS_REST_ROWS_H */
