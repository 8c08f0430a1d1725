/*
 * request.h
 *		A message as a request of its channel's webhook.
 */
#ifndef MSGSYS_REQUEST_H
#define MSGSYS_REQUEST_H

#include "msgsys.h"

#include "store.h"
#include "store_webhook.h"

#define REQUEST_SIGNATURE_HEADERS	3

/* What is sent; all in the memory that it was built in. */
typedef struct Request
{
	const char *url;
	const char *webhook_id;		/* the same at each attempt */
	HttpHeader *headers;		/* room for REQUEST_SIGNATURE_HEADERS more */
	int			nheaders;
	const char *body;
	size_t		body_length;
	bool		json;			/* the body is certainly JSON */
	char		timestamp[24];
	char		signature[SIGNATURE_SECRETS_MAX * SIGNATURE_LENGTH];
} Request;

extern void request_build(Request *request, const Webhook *webhook, const ClaimedRow *row, int attempt);
extern bool request_sign(Request *request, const Webhook *webhook);
extern void request_http(const Request *request, const Webhook *webhook, HttpRequest *http);
extern void request_client_config(HttpClientConfig *config, Reactor *reactor, int max_connections);
extern bool request_header_reserved(const char *name, size_t length);

#endif							/* MSGSYS_REQUEST_H */
