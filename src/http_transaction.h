/*
 * http_transaction.h
 *		A call in the database: a transaction of its own, under the role of who asks.
 */
#ifndef MSGSYS_HTTP_TRANSACTION_H
#define MSGSYS_HTTP_TRANSACTION_H

#include "msgsys.h"

#include "call.h"
#include "rest_catalog.h"

typedef void (*HttpHandler) (Call *call, const RestCatalog *catalog);

/*
 * Run a handler in a transaction, as the role that the call's token names, or (what needs no token) as the login role;
 * its failure is the call's answer.
 */
extern void http_transaction(Call *call, HttpHandler handler, bool as_caller);

/*
 * Its parts, for a transaction of the worker's own.  Begin one, with SPI, that is cancelled after timeout milliseconds (0: never), and end
 * it; or, in PG_CATCH(), take the error, in memory of a context that outlives it, with interrupts held, and abort.
 */
extern void http_begin(int timeout);
extern void http_end(bool rollback);
extern ErrorData *http_failure(MemoryContext context);
extern void http_abort(void);

#endif							/* MSGSYS_HTTP_TRANSACTION_H */
