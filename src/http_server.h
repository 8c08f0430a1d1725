/*
 * http_server.h
 *		An HTTP/1.1 server on the reactor, by libmicrohttpd: whole requests out, answers in.
 *
 * Plain C.  A request is handed out by http_server_next() once all of it is there;
 * until it is answered its connection is at rest, so that nothing of the
 * library is on the stack while the caller works on it.
 */
#ifndef MSGSYS_HTTP_SERVER_H
#define MSGSYS_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "reactor.h"

typedef struct HttpServer HttpServer;

typedef struct HttpServerConfig
{
	Reactor    *reactor;
	const char *address;		/* host:port, [v6]:port, or :port for any address */
	bool		share_port;		/* other processes listen there too (SO_REUSEPORT) */
	int			max_connections;
	int			max_per_peer;	/* of one address; 0: no limit */
	size_t		max_header;		/* bytes of request line and header */
	size_t		max_body;		/* bytes */
	int			deadline_ms;	/* for a request to arrive, an idle connection to be used, an answer to be taken */
} HttpServerConfig;

typedef struct HttpField
{
	const char *name;
	const char *value;
} HttpField;

/* A request that is there; valid until it is answered. */
typedef struct HttpExchange
{
	const char *method;
	const char *target;			/* path and query, as they were sent */
	const HttpField *fields;	/* the header */
	int			nfields;
	const char *body;			/* a NUL behind it */
	size_t		body_length;
	const char *peer;			/* address, numeric */
	void	   *private_data;
} HttpExchange;

typedef struct HttpReply
{
	int			status;
	const HttpField *fields;
	int			nfields;
	const void *body;
	size_t		length;
} HttpReply;

/* Listen, until the process ends.  NULL with words in err if that cannot be. */
extern HttpServer *http_server_open(const HttpServerConfig *config, char *err, size_t errlen);

/* Do what there is to do on the connections, without blocking. */
extern void http_server_run(HttpServer *server);

/* The next request that is there, or NULL. */
extern HttpExchange *http_server_next(HttpServer *server);

/* Answer a request; sent by http_server_run(). */
extern void http_server_answer(HttpServer *server, HttpExchange *exchange, const HttpReply *reply);

/* Whether so much is held that clients have not taken that nothing should be made for others. */
extern bool http_server_full(const HttpServer *server);

/* Milliseconds until http_server_run() is to be called though no descriptor is ready; -1: none. */
extern long http_server_timeout(HttpServer *server);

/* The open connections, and how many requests were refused before they were handed out. */
extern int	http_server_connections(const HttpServer *server);
extern unsigned long http_server_refused(const HttpServer *server);

/* A field of the request's header by its name, in any case; NULL: none. */
extern const char *http_exchange_field(const HttpExchange *exchange, const char *name);

#endif							/* MSGSYS_HTTP_SERVER_H */
