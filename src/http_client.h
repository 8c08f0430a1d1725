/*
 * http_client.h
 *		HTTP requests, many at once, on the reactor; results are plain structs.
 *
 * Implemented with libcurl's multi interface.  Plain C: memory is malloc'ed,
 * failures are returned and never raised.  All calls come from one thread.
 */
#ifndef MSGSYS_HTTP_CLIENT_H
#define MSGSYS_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "reactor.h"

#define HTTP_ANSWER_MAX		65536	/* bytes of an answer that are kept */
#define HTTP_HEADERS_MAX	262144	/* bytes of headers and trailers of all answers to a request: libcurl keeps them */

typedef struct HttpClient HttpClient;

typedef struct HttpHeader
{
	const char *name;
	const char *value;
} HttpHeader;

/* What a request needs; copied by http_start(). */
typedef struct HttpRequest
{
	const char *method;			/* POST, PUT */
	const char *url;
	const HttpHeader *headers;
	int			nheaders;
	const void *body;
	size_t		body_length;
	int			connect_timeout_ms;
	int			timeout_ms;		/* in all */
	bool		http2;			/* allow it; else HTTP/1.1 */
	int			redirects;		/* how many may be followed; each is checked */
	const char *ca_file;		/* NULL: the system's bundle */
	const char *client_cert;	/* PEM, or NULL */
	const char *client_key;		/* PEM, or NULL */
	const char *proxy;			/* URL, or NULL: none, whatever the environment says */
	void	   *opaque;			/* comes back in the result */
} HttpRequest;

/* How a request ended. */
typedef enum HttpOutcome
{
	HTTP_ANSWERED,				/* status is set, whatever it is */
	HTTP_REFUSED_ADDRESS,		/* the address is forbidden: nothing was sent */
	HTTP_BAD_REQUEST,			/* the URL or a header cannot be used */
	HTTP_UNUSABLE,				/* a file, a certificate or memory that any request needs cannot be used */
	HTTP_RESOLVE_FAILED,
	HTTP_CONNECT_FAILED,
	HTTP_TLS_FAILED,
	HTTP_TIMED_OUT,
	HTTP_BROKEN					/* the connection broke, or what came was not HTTP */
} HttpOutcome;

typedef struct HttpResult
{
	void	   *opaque;
	HttpOutcome outcome;
	int			status;			/* 0: no answer */
	char		error[256];		/* words; empty when HTTP_ANSWERED */
	char		address[64];	/* connected to, "" if to none */
	long		elapsed_ms;
	long		retry_after_s;	/* what Retry-After says (both forms); -1: nothing */
	char		content_type[100];
	const char *body;			/* NUL terminated, cut at HTTP_ANSWER_MAX; valid until the next call of http_results() */
	size_t		body_length;
	bool		cut;			/* there was more */
} HttpResult;

typedef struct HttpClientConfig
{
	Reactor    *reactor;
	int			max_connections;	/* kept open, at most */
	const char *allow;			/* CIDR list that opens exceptions (ssrf.h) */
	const int  *forbidden_ports;	/* on loopback and own addresses, always */
	int			nforbidden_ports;
} HttpClientConfig;

/* A new client, or NULL with words in err. */
extern HttpClient *http_open(const HttpClientConfig *config, char *err, size_t errlen);

/* End all that is under way, without results, and free everything; at most ~100 ms. */
extern void http_close(HttpClient *client);

/* Change the exceptions; for requests that start, and connections reused, from now on. */
extern bool http_allow(HttpClient *client, const char *allow, char *err, size_t errlen);

/*
 * Start a request.  False, with words in err, where it cannot be started at all; *fault is then
 * HTTP_BAD_REQUEST where that is the request's own, or HTTP_UNUSABLE.
 */
extern bool http_start(HttpClient *client, const HttpRequest *request, HttpOutcome *fault, char *err, size_t errlen);

/* Milliseconds until http_tick() is wanted; -1: not at all. */
extern long http_timeout(const HttpClient *client);

/* Have time-outs looked after, if it is time. */
extern void http_tick(HttpClient *client);

/* Take up to max results; does not block. */
extern int	http_results(HttpClient *client, HttpResult *results, int max);

/* Requests under way. */
extern int	http_pending(const HttpClient *client);

/* Name and version of the library behind. */
extern const char *http_version(void);

#endif							/* MSGSYS_HTTP_CLIENT_H */
