/*
 * http_auth.h
 *		Who asks: the token of a call, and the role that it names.
 */
#ifndef MSGSYS_HTTP_AUTH_H
#define MSGSYS_HTTP_AUTH_H

#include "msgsys.h"

#include "call.h"

/* Read the keys of the configuration; false, with the reason in the log, where they cannot be used. */
extern bool http_auth_load(void);

/* The token of "Authorization: Bearer <token>"; NULL: none is sent. */
extern const char *http_auth_token(const Call *call);

/* Set the call's role and claims, or refuse it.  Needs no transaction. */
extern void http_auth(Call *call);

#endif							/* MSGSYS_HTTP_AUTH_H */
