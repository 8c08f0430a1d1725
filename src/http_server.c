/*
 * http_server.c
 *		An HTTP/1.1 server on the reactor, by libmicrohttpd.
 *
 * The library runs in external epoll mode: its epoll descriptor is watched by the
 * reactor, and it works only inside http_server_run().  A request that is complete
 * suspends its connection until it is answered.
 *
 * What the library does not do: it closes a connection that is silent, but one that
 * sends a byte now and then lives for ever, so each phase of a connection
 * (waiting for a request, reading it, sending the answer) has an absolute deadline;
 * and it takes Content-Length together with Transfer-Encoding, or two of them, and names of fields that
 * are none, which two servers in a row may read differently (RFC 9112, 5.1, 6.1), so that is refused.
 */
#include "http_server.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <microhttpd.h>

#include "explain.h"
#include "monotonic.h"

#define BACKLOG			512
#define SWEEP_EVERY		500		/* ms between two looks at deadlines */
#define FIELDS_MAX		128		/* of a request */
#define BODY_FIRST		4096	/* bytes of a body's first buffer */
#define BODY_SMALL		65536	/* bytes of a body that is taken however many there are */
#define BODIES_LARGEST	8		/* so many of the largest bodies may be held at a time */
#define REPLY_HEADER_MAX	16384	/* bytes of fields of an answer; more than PostgREST's clients have a use for */
#define OVERHEAD		8192	/* bytes that the library needs for a connection besides: its fields' entries, the status line */
#define ANSWERS_MAX		(64 * 1024 * 1024)	/* bytes of answers that are not yet taken, beyond which there are too many */

/* An open connection. */
typedef struct Connection
{
	struct Connection *next;
	struct Connection *previous;
	int			fd;
	bool		busy;			/* the request is being worked on: no deadline */
	int64_t		since;			/* ms: begin of its present phase */
	char		peer[INET6_ADDRSTRLEN];
} Connection;

/* A request on its way in, and the answer on its way out. */
typedef struct Request
{
	HttpExchange exchange;		/* must be first */
	struct Request *next;		/* in the queue of those that are there */
	HttpServer *server;
	Connection *connection;
	struct MHD_Connection *mhd;
	struct MHD_Response *response;	/* the answer; NULL: none yet */
	int			status;
	size_t		answer_length;
	char	   *target;
	char	   *body;
	size_t		body_size;		/* allocated */
	HttpField	fields[FIELDS_MAX];
	bool		begun;			/* its header has been looked at */
	bool		there;			/* it is in the queue, or was */
	int			refused;		/* status of a body that is read, but not kept; 0: it is kept */
} Request;

struct HttpServer
{
	struct MHD_Daemon *daemon;
	size_t		max_header;
	size_t		max_body;
	size_t		bodies;			/* bytes of the buffers of bodies that are not small */
	size_t		answers;		/* bytes of answers that are not yet taken */
	int			deadline_ms;
	Connection *connections;
	int			nconnections;
	unsigned long refused;
	Request    *first;			/* the queue */
	Request    *last;
	int64_t		swept;			/* ms */
};

/* ---------------------------------------------------------------- connections */

static void
connection_changed(void *cls, struct MHD_Connection *mhd, void **context,
				   enum MHD_ConnectionNotificationCode code)
{
	HttpServer *server = cls;
	Connection *connection = *context;

	if (code == MHD_CONNECTION_NOTIFY_STARTED)
	{
		const union MHD_ConnectionInfo *info;

		connection = calloc(1, sizeof(Connection));
		*context = connection;
		if (connection == NULL)
			return;
		/* each answer may be in the same place as the one before (1.0) */
		info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
		connection->fd = info ? info->connect_fd : -1;
		connection->since = now_ms();
		info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
		if (info && info->client_addr)
			getnameinfo(info->client_addr,
						info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in),
						connection->peer, sizeof(connection->peer), NULL, 0, NI_NUMERICHOST);
		connection->next = server->connections;
		if (server->connections)
			server->connections->previous = connection;
		server->connections = connection;
		server->nconnections++;
	}
	else if (connection)
	{
		if (connection->previous)
			connection->previous->next = connection->next;
		else
			server->connections = connection->next;
		if (connection->next)
			connection->next->previous = connection->previous;
		server->nconnections--;
		free(connection);
		*context = NULL;
	}
}

static Connection *
connection_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

/* End connections whose phase takes too long; the library sees the end of the stream, and cleans up. */
static void
sweep(HttpServer *server)
{
	int64_t		now = now_ms();

	if (now - server->swept < SWEEP_EVERY)
		return;
	server->swept = now;
	for (Connection *c = server->connections; c; c = c->next)
		if (!c->busy && c->fd >= 0 && now - c->since > server->deadline_ms)
			shutdown(c->fd, SHUT_RDWR);
}

/* ---------------------------------------------------------------- requests */

/* The request line is there: a request begins. */
static void *
request_begins(void *cls, const char *uri, struct MHD_Connection *mhd)
{
	HttpServer *server = cls;
	Request    *request = calloc(1, sizeof(Request));

	if (request == NULL)
		return NULL;
	request->server = server;
	request->mhd = mhd;
	request->connection = connection_of(mhd);
	request->target = strdup(uri);
	if (request->connection)
		request->connection->since = now_ms();
	return request;
}

/* Let go of a body. */
static void
drop_body(Request *request)
{
	if (request->body_size > BODY_SMALL)
		request->server->bodies -= request->body_size;
	free(request->body);
	request->body = NULL;
	request->body_size = 0;
}

static void
request_ends(void *cls, struct MHD_Connection *mhd, void **context,
			 enum MHD_RequestTerminationCode code)
{
	HttpServer *server = cls;
	Request    *request = *context;

	*context = NULL;
	if (request == NULL)
		return;
	if (request->there)
	{
		/* at shutdown it may still be in the queue */
		Request   **link = &server->first;

		server->last = NULL;
		while (*link)
		{
			if (*link == request)
				*link = request->next;
			else
			{
				server->last = *link;
				link = &(*link)->next;
			}
		}
	}
	if (request->connection)
	{
		request->connection->busy = false;
		request->connection->since = now_ms();
	}
	if (request->response)
		MHD_destroy_response(request->response);
	server->answers -= request->answer_length;
	free(request->target);
	drop_body(request);
	free(request);
}

static enum MHD_Result
take_field(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	Request    *request = cls;

	if (request->exchange.nfields == FIELDS_MAX)
		return MHD_NO;
	request->fields[request->exchange.nfields].name = name;
	request->fields[request->exchange.nfields].value = value ? value : "";
	request->exchange.nfields++;
	return MHD_YES;
}

/* Refuse a request before all of it is there; the connection is closed after that. */
static enum MHD_Result
refuse(HttpServer *server, struct MHD_Connection *mhd, int status, const char *message)
{
	char		body[256];
	int			length = snprintf(body, sizeof(body), "{\"code\":\"%s\",\"message\":\"%s\",\"details\":null,\"hint\":null}",
								  status == 413 ? "54000" : status == 503 ? "53000" : "08P01", message);
	struct MHD_Response *response = MHD_create_response_from_buffer(length, body, MHD_RESPMEM_MUST_COPY);
	enum MHD_Result result;

	if (response == NULL)
		return MHD_NO;
	server->refused++;
	MHD_add_response_header(response, "Content-Type", "application/json; charset=utf-8");
	MHD_add_response_header(response, "Connection", "close");
	result = MHD_queue_response(mhd, status, response);
	MHD_destroy_response(response);
	return result;
}

/* What a header says of its body, and whether all who read it read the same. */
typedef struct Framing
{
	bool		malformed;
	int			nhosts;
	int			nlengths;
	int			ncodings;
	const char *length;
	const char *coding;
	size_t		size;			/* of target and fields */
} Framing;

/*
 * Whether a field is as RFC 9110 (5.5, 5.6.2) wants it: the library takes a name with a blank at its end for another one, and
 * adds a folded line to the name before it.
 */
static bool
is_well_formed(const char *name, const char *value)
{
	static const char *const framed[] = {"Content-Length", "Transfer-Encoding"};

	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char) *c) && strchr("!#$%&'*+-.^_`|~", *c) == NULL)
			return false;
	for (const char *c = value; *c; c++)
		if (((unsigned char) *c < ' ' && *c != '\t') || *c == 0x7F)
			return false;
	for (int i = 0; i < 2; i++)
		if (strncasecmp(name, framed[i], strlen(framed[i])) == 0 && name[strlen(framed[i])] != '\0')
			return false;
	return true;
}

static enum MHD_Result
look_at_field(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	Framing    *framing = cls;

	if (value == NULL)
		value = "";
	framing->size += strlen(name) + strlen(value) + strlen(": \r\n");
	framing->malformed = framing->malformed || !is_well_formed(name, value);
	framing->nhosts += strcasecmp(name, "Host") == 0;
	if (strcasecmp(name, "Content-Length") == 0)
	{
		framing->nlengths++;
		framing->length = value;
	}
	else if (strcasecmp(name, "Transfer-Encoding") == 0)
	{
		framing->ncodings++;
		framing->coding = value;
	}
	return MHD_YES;
}

/* The first look at a request: its header is there. */
static enum MHD_Result
look_at_header(HttpServer *server, const Request *request, struct MHD_Connection *mhd, const char *version)
{
	Framing		framing = {.nlengths = 0};

	framing.size = strlen(request->target);
	if (MHD_get_connection_values(mhd, MHD_HEADER_KIND, look_at_field, &framing) > FIELDS_MAX)
		return refuse(server, mhd, 431, "the header of the request has too many fields");
	if (strlen(request->target) > server->max_header)
		return refuse(server, mhd, 414, "the target of the request is too long");
	if (framing.size > server->max_header)
		return refuse(server, mhd, 431, "the header of the request is too large");
	if (framing.malformed)
		return refuse(server, mhd, 400, "a field of the header is malformed");
	if (framing.nhosts > 1)
		return refuse(server, mhd, 400, "a request has one Host");
	if (framing.nlengths + framing.ncodings > 1)
		return refuse(server, mhd, 400, "a request has one Content-Length or one Transfer-Encoding");
	if (framing.coding && strcasecmp(framing.coding, "chunked") != 0)
		return refuse(server, mhd, 501, "no other transfer coding than chunked is known");
	if (framing.coding && strcmp(version, MHD_HTTP_VERSION_1_0) == 0)
		return refuse(server, mhd, 400, "HTTP/1.0 has no transfer codings");
	if (framing.length && strtoull(framing.length, NULL, 10) > server->max_body)
		return refuse(server, mhd, 413, "the body of the request is too large");
	return MHD_YES;
}

/* Add to the body; otherwise the status to refuse it with. */
static int
take_body(HttpServer *server, Request *request, const char *data, size_t size)
{
	size_t		needed = request->exchange.body_length + size + 1;

	if (needed - 1 > server->max_body)
		return 413;
	if (needed > request->body_size)
	{
		size_t		grown = request->body_size ? request->body_size : BODY_FIRST;
		size_t		before = request->body_size > BODY_SMALL ? request->body_size : 0;
		char	   *body;

		while (grown < needed)
			grown *= 2;
		if (grown > BODY_SMALL && grown > server->max_body)
			grown = server->max_body + 1;
		/* senders need no token to have them held */
		if (grown > BODY_SMALL && server->bodies - before + grown > BODIES_LARGEST * (server->max_body + 1))
			return 503;
		body = realloc(request->body, grown);
		if (body == NULL)
			return 503;
		if (grown > BODY_SMALL)
			server->bodies += grown - before;
		request->body = body;
		request->body_size = grown;
	}
	memcpy(request->body + request->exchange.body_length, data, size);
	request->exchange.body_length += size;
	return 0;
}

/* All of a request is there: into the queue with it. */
static void
complete(HttpServer *server, Request *request, struct MHD_Connection *mhd, const char *method)
{
	HttpExchange *exchange = &request->exchange;

	if (request->body)
		request->body[exchange->body_length] = '\0';
	MHD_get_connection_values(mhd, MHD_HEADER_KIND, take_field, request);
	exchange->method = method;
	exchange->target = request->target;
	exchange->fields = request->fields;
	exchange->body = request->body ? request->body : "";
	exchange->peer = request->connection ? request->connection->peer : "";
	request->there = true;
	if (request->connection)
		request->connection->busy = true;
	request->next = NULL;
	if (server->last)
		server->last->next = request;
	else
		server->first = request;
	server->last = request;
	MHD_suspend_connection(mhd);
}

static enum MHD_Result
handle(void *cls, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
	   const char *data, size_t *size, void **context)
{
	HttpServer *server = cls;
	Request    *request = *context;

	if (request == NULL || request->target == NULL)
		return refuse(server, mhd, 503, "out of memory");
	if (request->response)
	{
		/* awake again, with an answer */
		enum MHD_Result result = MHD_queue_response(mhd, request->status, request->response);

		MHD_destroy_response(request->response);
		request->response = NULL;
		return result;
	}
	if (!request->begun)
	{
		request->begun = true;
		return look_at_header(server, request, mhd, version);
	}
	if (*size > 0)
	{
		/* an answer is possible before a body and after it, not within */
		if (request->refused == 0)
		{
			request->refused = take_body(server, request, data, *size);
			if (request->refused != 0)
				drop_body(request);
		}
		*size = 0;
		return MHD_YES;
	}
	if (request->refused == 413)
		return refuse(server, mhd, 413, "the body of the request is too large");
	if (request->refused != 0)
		return refuse(server, mhd, 503, "too many large requests at a time");
	if (!request->there)
		complete(server, request, mhd, method);
	return MHD_YES;
}

/* Names and values stay as they were sent. */
static size_t
no_unescape(void *cls, struct MHD_Connection *mhd, char *text)
{
	return strlen(text);
}

static void
no_log(void *cls, const char *format, va_list args)
{
}

/* ---------------------------------------------------------------- the interface */

/* Split "host:port" or "[host]:port"; false if it is neither. */
static bool
split_address(const char *address, char *host, size_t hostlen, char *port, size_t portlen)
{
	const char *colon = strrchr(address, ':');
	const char *begin = address;
	size_t		length;

	if (colon == NULL || colon[1] == '\0' || strlen(colon + 1) >= portlen ||
		strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return false;
	length = colon - address;
	if (length >= 2 && begin[0] == '[' && begin[length - 1] == ']')
	{
		begin++;
		length -= 2;
	}
	else if (memchr(begin, ':', length))
		return false;
	if (length >= hostlen)
		return false;
	memcpy(host, begin, length);
	host[length] = '\0';
	strcpy(port, colon + 1);
	if (strcmp(host, "*") == 0)
		host[0] = '\0';
	return true;
}

/* A listening socket, or -1. */
static int
listen_at(const HttpServerConfig *config, char *err, size_t errlen)
{
	char		host[256];
	char		port[8];
	struct addrinfo hints = {.ai_family = AF_UNSPEC,.ai_socktype = SOCK_STREAM,.ai_flags = AI_PASSIVE};
	struct addrinfo *found = NULL;
	int			rc;
	int			fd = -1;
	int			on = 1;

	if (!split_address(config->address, host, sizeof(host), port, sizeof(port)))
	{
		explain(err, errlen, "\"%s\" is not host:port", config->address);
		return -1;
	}
	rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
	if (rc != 0)
	{
		explain(err, errlen, "\"%s\": %s", config->address, gai_strerror(rc));
		return -1;
	}
	for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
	{
		fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (fd < 0)
			continue;
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (config->share_port)
			setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
		if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0)
		{
			int			saved = errno;

			close(fd);
			errno = saved;
			fd = -1;
		}
	}
	if (fd < 0)
		explain(err, errlen, "cannot listen at \"%s\": %s", config->address, strerror(errno));
	freeaddrinfo(found);
	return fd;
}

/* The library works in http_server_run() alone. */
static void
ready(int fd, uint32_t events, void *arg)
{
}

HttpServer *
http_server_open(const HttpServerConfig *config, char *err, size_t errlen)
{
	HttpServer *server = calloc(1, sizeof(HttpServer));
	const union MHD_DaemonInfo *info;
	int			fd;

	if (server == NULL)
	{
		explain(err, errlen, "out of memory");
		return NULL;
	}
	server->max_header = config->max_header;
	server->max_body = config->max_body;
	server->deadline_ms = config->deadline_ms;
	fd = listen_at(config, err, errlen);
	if (fd < 0)
	{
		free(server);
		return NULL;
	}
	server->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_ERROR_LOG | MHD_USE_TURBO | MHD_ALLOW_SUSPEND_RESUME, 0,
									  NULL, NULL, handle, server,
									  MHD_OPTION_EXTERNAL_LOGGER, no_log, NULL,
									  MHD_OPTION_LISTEN_SOCKET, fd,
									  MHD_OPTION_CONNECTION_MEMORY_LIMIT, config->max_header + REPLY_HEADER_MAX + OVERHEAD,
									  MHD_OPTION_CONNECTION_LIMIT, (unsigned int) config->max_connections,
									  MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned int) config->max_per_peer,
									  MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int) (config->deadline_ms / 1000 + 1),
									  MHD_OPTION_NOTIFY_CONNECTION, connection_changed, server,
									  MHD_OPTION_NOTIFY_COMPLETED, request_ends, server,
									  MHD_OPTION_URI_LOG_CALLBACK, request_begins, server,
									  MHD_OPTION_UNESCAPE_CALLBACK, no_unescape, NULL,
									  MHD_OPTION_STRICT_FOR_CLIENT, 1,
									  MHD_OPTION_END);
	info = server->daemon ? MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (info == NULL || reactor_watch(config->reactor, info->epoll_fd, EPOLLIN, ready, NULL) < 0)
	{
		explain(err, errlen, "cannot start libmicrohttpd");
		if (server->daemon)
			MHD_stop_daemon(server->daemon);
		else
			close(fd);
		free(server);
		return NULL;
	}
	return server;
}

void
http_server_run(HttpServer *server)
{
	sweep(server);
	MHD_run(server->daemon);
}

HttpExchange *
http_server_next(HttpServer *server)
{
	Request    *request = server->first;

	if (request == NULL)
		return NULL;
	server->first = request->next;
	if (server->first == NULL)
		server->last = NULL;
	request->next = NULL;
	return &request->exchange;
}

void
http_server_answer(HttpServer *server, HttpExchange *exchange, const HttpReply *reply)
{
	Request    *request = (Request *) exchange;
	struct MHD_Response *response = MHD_create_response_from_buffer(reply->length, (void *) reply->body,
																	MHD_RESPMEM_MUST_COPY);

	size_t		header = 0;

	for (int i = 0; i < reply->nfields; i++)
		header += strlen(reply->fields[i].name) + strlen(reply->fields[i].value) + strlen(": \r\n");
	request->status = reply->status;
	if (header > REPLY_HEADER_MAX && response)
	{
		/* the library would close the connection without a word */
		MHD_destroy_response(response);
		response = NULL;
		request->status = 500;
	}
	else if (response == NULL)
		request->status = 503;
	if (response == NULL)
		/* an empty one takes no memory of ours */
		response = MHD_create_response_from_buffer(0, (void *) "", MHD_RESPMEM_PERSISTENT);
	else
	{
		for (int i = 0; i < reply->nfields; i++)
			MHD_add_response_header(response, reply->fields[i].name, reply->fields[i].value);
		request->answer_length = reply->length;
		server->answers += reply->length;
	}
	request->response = response;
	drop_body(request);
	if (request->connection)
	{
		request->connection->busy = false;
		request->connection->since = now_ms();
	}
	MHD_resume_connection(request->mhd);
}

bool
http_server_full(const HttpServer *server)
{
	return server->answers > ANSWERS_MAX;
}

long
http_server_timeout(HttpServer *server)
{
	unsigned long long timeout;
	long		result = server->nconnections > 0 ? SWEEP_EVERY : -1;

	if (server->first)
		return 0;
	if (MHD_get_timeout(server->daemon, &timeout) == MHD_YES && (result < 0 || timeout < (unsigned long long) result))
		result = (long) timeout;
	return result;
}

int
http_server_connections(const HttpServer *server)
{
	return server->nconnections;
}

unsigned long
http_server_refused(const HttpServer *server)
{
	return server->refused;
}

const char *
http_exchange_field(const HttpExchange *exchange, const char *name)
{
	for (int i = 0; i < exchange->nfields; i++)
		if (strcasecmp(exchange->fields[i].name, name) == 0)
			return exchange->fields[i].value;
	return NULL;
}
