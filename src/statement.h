/*
 * statement.h
 *		Prepared statements on the tables of the extension.
 */
#ifndef MSGSYS_STATEMENT_H
#define MSGSYS_STATEMENT_H

#include "msgsys.h"

#include "executor/spi.h"

#define STATEMENT_ARGS	12

/*
 * A statement, prepared at its first use and kept until the extension is another
 * or in another schema.  "@" in its text stands for the quoted schema.
 */
typedef struct Statement
{
	const char *text;
	int			nargs;
	Oid			args[STATEMENT_ARGS];
	SPIPlanPtr	plan;			/* the rest is statement.c's */
	uint64		generation;
} Statement;

extern void statements_forget(void);
extern SPIPlanPtr statement_plan(Statement *statement, const char *schema);
extern uint64 statement_run_in(const char *schema, Statement *statement, Datum *values, const char *nulls);
extern uint64 statement_run(Statement *statement, Datum *values, const char *nulls);

/* Reading the last result. */
extern Datum result_column(uint64 row, int number, bool *isnull);
extern char *result_text(uint64 row, int number);
extern int64 result_int64(uint64 row, int number, int64 if_null);

/* Making arrays of parameters. */
extern Datum array_of(Datum *values, int n, Oid type);
extern Datum text_array(const char **strings, int n);

#endif							/* MSGSYS_STATEMENT_H */
