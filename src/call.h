/*
 * call.h
 *		A request to the HTTP facade and its reply, while it is worked on.
 */
#ifndef MSGSYS_CALL_H
#define MSGSYS_CALL_H

#include "msgsys.h"

#include "lib/stringinfo.h"

#include "http_server.h"

#define CALL_FIELDS_MAX	40

typedef enum CallMethod
{
	METHOD_GET,
	METHOD_HEAD,
	METHOD_POST,
	METHOD_PUT,
	METHOD_PATCH,
	METHOD_DELETE,
	METHOD_OPTIONS,
	METHOD_OTHER
} CallMethod;

/* Their names, in the order of CallMethod. */
extern const char *const call_method_names[METHOD_OTHER + 1];

typedef struct Call
{
	const HttpExchange *http;
	MemoryContext context;		/* lives as long as the call */
	CallMethod	method;
	const char *path;			/* decoded */
	const char *query;			/* as it was sent, without "?"; NULL: none */

	/* who asks */
	bool		authenticated;	/* by a token, not as the anonymous role */
	const char *role;
	const char *claims;			/* JSON */

	/* what is answered */
	int			status;
	const char *failure;		/* words of what went wrong; NULL: nothing */
	StringInfoData body;
	HttpField	fields[CALL_FIELDS_MAX];
	int			nfields;
	bool		rollback;		/* the transaction is not to be committed */
} Call;

/* A field of the request's header; NULL: none. */
extern const char *call_field(const Call *call, const char *name);

/* Add a field to the reply's header; the name is constant, the value is kept. */
extern void call_reply_field(Call *call, const char *name, const char *value);

#endif							/* MSGSYS_CALL_H */
