/*
 * http_compat.h
 *		Routes of other systems, whose clients work against msgsys.
 */
#ifndef MSGSYS_HTTP_COMPAT_H
#define MSGSYS_HTTP_COMPAT_H

#include "msgsys.h"

#include "call.h"
#include "rest_catalog.h"

typedef struct CompatRoute CompatRoute;

/* The route that a call is for, of the systems in msgsys.http_compat; NULL: none.  Its last part goes to *id, where it has one. */
extern const CompatRoute *compat_route(const Call *call, const char **id);

/* Whether the route is a page of Swagger UI; *name is set to the file then. */
extern bool compat_page(const Call *call, const char **name);

/* Whether it changes something though it is a GET. */
extern bool compat_changes(const CompatRoute *route);

/* Whether it is answered without the database, and so has been. */
extern bool compat_constant(const CompatRoute *route, Call *call);

/* Answer by the route's function, in a transaction that has the caller's role. */
extern void compat_answer(const CompatRoute *route, Call *call, const RestCatalog *catalog, const char *id);

/* Tell a failure as the route's system does. */
extern void compat_failure(const CompatRoute *route, Call *call);

#endif							/* MSGSYS_HTTP_COMPAT_H */
