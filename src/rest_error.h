/*
 * rest_error.h
 *		Failures of a request, as PostgREST tells them: a status, and four keys.
 */
#ifndef MSGSYS_REST_ERROR_H
#define MSGSYS_REST_ERROR_H

#include "msgsys.h"

#include "utils/jsonb.h"

#include "call.h"
#include "compat.h"

/* Refuse the request with a code of PostgREST's; details and hint may be NULL.  Ends as an ERROR does. */
pg_noreturn extern void rest_refuse(int status, const char *code, const char *message, const char *details,
									const char *hint);

/* A header field of the refusal that comes next. */
extern void rest_refuse_field(const char *name, const char *value);

/* Answer a call with the error that was caught. */
extern void rest_error_reply(Call *call, const ErrorData *error);

/* The same four keys for a reply that no error led to. */
extern void rest_reply(Call *call, int status, const char *code, const char *message, const char *details, const char *hint);

/* A text as JSON; NULL: it is none. */
extern Jsonb *rest_try_json(const char *text);

/* Add the members of a JSON object to the reply's header; false: one is not a string. */
extern bool rest_reply_fields(Call *call, JsonbContainer *object);

/* Copy a refusal's words into the current memory, before that of its transaction goes. */
extern void rest_error_keep(void);

/* Forget a refusal: a call begins. */
extern void rest_error_reset(void);

/* Whether an error is one for the server's log: neither the client nor we ourselves expected it. */
extern bool rest_error_blames_server(const Call *call, const ErrorData *error);

#endif							/* MSGSYS_REST_ERROR_H */
