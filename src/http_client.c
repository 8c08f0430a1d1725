/*
 * http_client.c
 *		HTTP requests, many at once, on the reactor (http_client.h), with libcurl.
 *
 * libcurl tells which sockets to watch and when to call it again; all its work is
 * done within our calls, but for looking up names, which it does in threads of
 * its own.  What libcurl 7.88 needs to be told, and why:
 * - both callbacks on addresses: the first sees every address that is tried, but not
 *   a connection that is used again, perhaps one of another channel;
 * - CAPATH NULL: with a directory of certificates it reads all of them anew for each
 *   handshake (21 ms instead of 0.8);
 * - QUICK_EXIT: else a look-up that hangs is waited for, and with it everybody;
 * - PROXY "": else the postmaster's environment names one.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* SOCK_CLOEXEC, pthread_sigmask */
#endif

#include "http_client.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <curl/curl.h>

#include "explain.h"
#include "monotonic.h"
#include "plain_file.h"
#include "ssrf.h"
#include "trust.h"

#define IDLE_TRANSFERS_MAX	1024	/* handles that are kept for later requests */
#define IDLE_ANSWER_MAX		4096	/* bytes of room that they keep for an answer */
#define CONNECTION_LIFETIME	300L	/* s, so that a moved name is noticed */
#define MAX_OWN_ADDRESSES	64

/* A request under way, or a handle that waits for one. */
typedef struct Transfer
{
	struct Transfer *next;		/* in the list of idle or of reported ones */
	struct Transfer *newer;		/* in the list of all that are under way */
	struct Transfer *older;
	HttpClient *client;
	CURL	   *easy;
	struct curl_slist *headers;
	void	   *body;
	void	   *opaque;
	const char *refusal;		/* why an address was refused; NULL: none was */
	char		refused_address[64];
	char	   *answer;
	size_t		answer_length;
	size_t		answer_room;
	size_t		headers_length; /* of all that came before and after answers */
	bool		cut;
	bool		may_redirect;
	int			redirects_left;
	long		timeout_ms;		/* of what is still to come */
	long		spent_ms;		/* on requests that were answered by a redirect */
	char		words[CURL_ERROR_SIZE];
} Transfer;

struct HttpClient
{
	Reactor    *reactor;
	CURLM	   *multi;
	SsrfAllow  *allow;
	int			forbidden_ports[8];
	int			nforbidden_ports;
	struct sockaddr_storage own[MAX_OWN_ADDRESSES];
	int			nown;
	int64_t		deadline;		/* ms; -1: none */
	int			pending;
	Transfer   *active;			/* all under way */
	Transfer   *idle;
	int			nidle;
	Transfer   *reported;		/* whose results the caller has */
};

/* ---------- addresses ---------- */

static int
port_of(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return ntohs(((const struct sockaddr_in *) address)->sin_port);
	if (address->sa_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *) address)->sin6_port);
	return 0;
}

static bool
same_host(const struct sockaddr *a, const struct sockaddr *b)
{
	if (a->sa_family != b->sa_family)
		return false;
	if (a->sa_family == AF_INET)
		return ((const struct sockaddr_in *) a)->sin_addr.s_addr ==
			((const struct sockaddr_in *) b)->sin_addr.s_addr;
	return memcmp(&((const struct sockaddr_in6 *) a)->sin6_addr,
				  &((const struct sockaddr_in6 *) b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

/* A v4-mapped address as the IPv4 address that it is. */
static void
unmap(struct sockaddr_storage *address)
{
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *) address;
	struct sockaddr_in four = {.sin_family = AF_INET};

	if (address->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
		return;
	four.sin_port = six->sin6_port;
	memcpy(&four.sin_addr, &six->sin6_addr.s6_addr[12], 4);
	memcpy(address, &four, sizeof(four));
}

static bool
is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return (ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr) >> 24) == 127;
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *) address)->sin6_addr);
}

/* Is this a port of ours on this machine?  That is forbidden whatever is allowed. */
static bool
is_own_port(const HttpClient *client, const struct sockaddr *address)
{
	bool		own = is_loopback(address);
	bool		forbidden = false;

	for (int i = 0; i < client->nforbidden_ports; i++)
		forbidden |= client->forbidden_ports[i] == port_of(address);
	for (int i = 0; forbidden && i < client->nown; i++)
		own |= same_host(address, (const struct sockaddr *) &client->own[i]);
	return forbidden && own;
}

/* Whether a transfer may talk to an address; if not, keep why. */
static bool
permitted(Transfer *transfer, const struct sockaddr *address, socklen_t length)
{
	struct sockaddr_storage host = {0};
	const char *reason = NULL;

	if (length > sizeof(host))
		length = sizeof(host);
	memcpy(&host, address, length);
	unmap(&host);
	if (host.ss_family != AF_INET && host.ss_family != AF_INET6)
		reason = "not an internet address";
	else if (is_own_port(transfer->client, (struct sockaddr *) &host))
		reason = "a port of this server";
	else if (ssrf_permits(transfer->client->allow, (struct sockaddr *) &host, &reason))
		return true;
	transfer->refusal = reason ? reason : "forbidden";
	if (host.ss_family == AF_INET)
		inet_ntop(AF_INET, &((struct sockaddr_in *) &host)->sin_addr,
				  transfer->refused_address, sizeof(transfer->refused_address));
	else if (host.ss_family == AF_INET6)
		inet_ntop(AF_INET6, &((struct sockaddr_in6 *) &host)->sin6_addr,
				  transfer->refused_address, sizeof(transfer->refused_address));
	return false;
}

/* Called for each address that is about to be connected to. */
static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	(void) purpose;
	if (!permitted(arg, &address->addr, address->addrlen))
		return CURL_SOCKET_BAD;
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* Called before each request, also on a connection that was there already. */
static int
before_request(void *arg, char *remote, char *local, int remote_port, int local_port)
{
	struct sockaddr_in four = {.sin_family = AF_INET,.sin_port = htons((uint16_t) remote_port)};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6,.sin6_port = htons((uint16_t) remote_port)};
	bool		ok = false;

	(void) local;
	(void) local_port;
	if (inet_pton(AF_INET, remote, &four.sin_addr) == 1)
		ok = permitted(arg, (struct sockaddr *) &four, sizeof(four));
	else if (inet_pton(AF_INET6, remote, &six.sin6_addr) == 1)
		ok = permitted(arg, (struct sockaddr *) &six, sizeof(six));
	return ok ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

static void
find_own_addresses(HttpClient *client)
{
	struct ifaddrs *list;

	if (getifaddrs(&list) < 0)
		return;
	for (struct ifaddrs *i = list; i && client->nown < MAX_OWN_ADDRESSES; i = i->ifa_next)
	{
		if (i->ifa_addr == NULL)
			continue;
		if (i->ifa_addr->sa_family == AF_INET)
			memcpy(&client->own[client->nown++], i->ifa_addr, sizeof(struct sockaddr_in));
		else if (i->ifa_addr->sa_family == AF_INET6)
			memcpy(&client->own[client->nown++], i->ifa_addr, sizeof(struct sockaddr_in6));
	}
	freeifaddrs(list);
}

/* ---------- the loop ---------- */

/*
 * Have libcurl work.  It may start a thread that looks up a name, which inherits
 * our signal mask and must not run the handlers of a PostgreSQL process.
 */
static void
act(HttpClient *client, curl_socket_t socket, int events)
{
	sigset_t	all;
	sigset_t	before;
	int			running;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	curl_multi_socket_action(client->multi, socket, events, &running);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void
socket_ready(int fd, uint32_t events, void *arg)
{
	int			flags = 0;

	if (events & EPOLLIN)
		flags |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		flags |= CURL_CSELECT_OUT;
	if (events & (EPOLLERR | EPOLLHUP))
		flags |= CURL_CSELECT_ERR;
	act(arg, fd, flags);
}

/* libcurl says what to watch a socket for. */
static int
watch_socket(CURL *easy, curl_socket_t socket, int what, void *arg, void *unused)
{
	HttpClient *client = arg;

	(void) easy;
	(void) unused;
	if (what == CURL_POLL_REMOVE)
		reactor_forget(client->reactor, socket);
	else
		reactor_watch(client->reactor, socket,
					  (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0),
					  socket_ready, client);
	return 0;
}

/* libcurl says when it wants to be called; it must not be called from here. */
static int
set_timer(CURLM *multi, long timeout_ms, void *arg)
{
	HttpClient *client = arg;

	(void) multi;
	client->deadline = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
	return 0;
}

/* Take a part of an answer; ends the transfer where there is enough. */
static size_t
take_answer(char *data, size_t size, size_t n, void *arg)
{
	Transfer   *transfer = arg;
	size_t		length = size * n;
	size_t		left = HTTP_ANSWER_MAX - transfer->answer_length;

	if (length > left)
	{
		transfer->cut = true;
		length = left;
	}
	if (transfer->answer_length + length + 1 > transfer->answer_room)
	{
		size_t		room = (transfer->answer_length + length) * 2 < HTTP_ANSWER_MAX ?
		(transfer->answer_length + length) * 2 + 1 : HTTP_ANSWER_MAX + 1;
		char	   *grown = realloc(transfer->answer, room);

		if (grown == NULL)
			return 0;
		transfer->answer = grown;
		transfer->answer_room = room;
	}
	memcpy(transfer->answer + transfer->answer_length, data, length);
	transfer->answer_length += length;
	return transfer->cut ? 0 : size * n;
}

/* Count a header, of an answer before the last one too, or a trailer: there are not any number of them. */
static size_t
take_header(char *data, size_t size, size_t n, void *arg)
{
	Transfer   *transfer = arg;

	(void) data;
	transfer->headers_length += size * n;
	return transfer->headers_length <= HTTP_HEADERS_MAX ? size * n : 0;
}

/* ---------- transfers ---------- */

static void
free_transfer(Transfer *transfer)
{
	if (transfer->easy)
		curl_easy_cleanup(transfer->easy);
	curl_slist_free_all(transfer->headers);
	free(transfer->body);
	free(transfer->answer);
	free(transfer);
}

/* Keep a handle for another request. */
static void
retire(HttpClient *client, Transfer *transfer)
{
	curl_slist_free_all(transfer->headers);
	transfer->headers = NULL;
	free(transfer->body);
	transfer->body = NULL;
	if (transfer->answer_room > IDLE_ANSWER_MAX)
	{
		free(transfer->answer);
		transfer->answer = NULL;
		transfer->answer_room = 0;
	}
	if (client->nidle >= IDLE_TRANSFERS_MAX)
	{
		free_transfer(transfer);
		return;
	}
	transfer->next = client->idle;
	client->idle = transfer;
	client->nidle++;
}

/*
 * Whether a handle must not be used again: from 7.83 to 8.1.0, an answer whose header begins with a folded line makes
 * libcurl use the freed header of the handle's answer before (its pull request 11103).
 */
static bool
keeps_dead_header(void)
{
	static unsigned int version = 0;

	if (version == 0)
		version = curl_version_info(CURLVERSION_NOW)->version_num;
	return version >= 0x075300 && version <= 0x080100;
}

/* A handle in place of one; the settings go over where that is wanted.  False: there is no memory for it. */
static bool
renew_handle(Transfer *transfer, bool settings)
{
	CURL	   *fresh = settings ? curl_easy_duphandle(transfer->easy) : curl_easy_init();

	if (fresh == NULL)
		return false;
	curl_easy_cleanup(transfer->easy);
	transfer->easy = fresh;
	return true;
}

/* A handle without any setting. */
static Transfer *
new_transfer(HttpClient *client)
{
	Transfer   *transfer = client->idle;

	if (transfer)
	{
		client->idle = transfer->next;
		client->nidle--;
		if (!keeps_dead_header())
			curl_easy_reset(transfer->easy);
		else if (!renew_handle(transfer, false))
		{
			free_transfer(transfer);
			return NULL;
		}
	}
	else
	{
		transfer = calloc(1, sizeof(Transfer));
		if (transfer == NULL)
			return NULL;
		transfer->easy = curl_easy_init();
		if (transfer->easy == NULL)
		{
			free(transfer);
			return NULL;
		}
	}
	transfer->client = client;
	transfer->refusal = NULL;
	transfer->refused_address[0] = '\0';
	transfer->answer_length = 0;
	transfer->headers_length = 0;
	transfer->cut = false;
	transfer->spent_ms = 0;
	transfer->words[0] = '\0';
	return transfer;
}

static bool
add_header(Transfer *transfer, const char *name, const char *value)
{
	size_t		size = strlen(name) + strlen(value) + 3;
	char		small[512];
	char	   *line = size <= sizeof(small) ? small : malloc(size);
	struct curl_slist *longer = NULL;

	if (line)
	{
		/* libcurl takes "name;" for an empty header, "name:" for none */
		snprintf(line, size, *value ? "%s: %s" : "%s;", name, value);
		longer = curl_slist_append(transfer->headers, line);
	}
	if (line != small)
		free(line);
	if (longer == NULL)
		return false;
	transfer->headers = longer;
	return true;
}

/* A header with a control character would be a header more, or a request. */
static bool
clean(const char *text)
{
	for (const unsigned char *c = (const unsigned char *) text; *c; c++)
		if ((*c < 0x20 && *c != '\t') || *c == 0x7f)
			return false;
	return true;
}

static void
set_blob(CURL *easy, CURLoption option, const char *pem)
{
	struct curl_blob blob = {(void *) pem, strlen(pem), CURL_BLOB_COPY};

	curl_easy_setopt(easy, option, &blob);
}

/*
 * The certificate that we show, its key with it: libcurl takes a connection that is there where the certificate is
 * the same, whatever the key, and who knows a certificate, which is no secret, would get into it.
 */
static bool
set_client_cert(CURL *easy, const HttpRequest *request)
{
	const char *key = request->client_key ? request->client_key : "";
	size_t		size = strlen(request->client_cert) + strlen(key) + 2;
	char	   *both = malloc(size);

	if (both == NULL)
		return false;
	snprintf(both, size, "%s\n%s", request->client_cert, key);
	set_blob(easy, CURLOPT_SSLCERT_BLOB, both);
	free(both);
	return true;
}

/* A bundle of certificates that was read: most endpoints share a few. */
#define BUNDLES_MAX		16

typedef struct Bundle
{
	char	   *path;
	struct stat status;			/* of the file as it was read */
	char	   *pem;
} Bundle;

/*
 * The bundle at a path, which an operator has named, read anew where it has changed; NULL with
 * words in err.  libcurl would open whatever is there, and wait for it.
 */
static const char *
read_bundle(const char *path, char *err, size_t errlen)
{
	static Bundle bundles[BUNDLES_MAX];
	static unsigned int next = 0;
	Bundle	   *bundle = NULL;
	struct stat status;
	size_t		length;
	char	   *pem;

	for (int i = 0; i < BUNDLES_MAX; i++)
		if (bundles[i].path && strcmp(bundles[i].path, path) == 0)
			bundle = &bundles[i];
	if (stat(path, &status) != 0)
	{
		explain(err, errlen, "could not open \"%s\": %s", path, strerror(errno));
		return NULL;
	}
	if (bundle && bundle->status.st_ino == status.st_ino && bundle->status.st_dev == status.st_dev &&
		bundle->status.st_size == status.st_size && bundle->status.st_mtim.tv_sec == status.st_mtim.tv_sec &&
		bundle->status.st_mtim.tv_nsec == status.st_mtim.tv_nsec)
		return bundle->pem;
	pem = plain_file_read(path, PLAIN_FILE_MAX, &length, err, errlen);
	if (pem == NULL)
		return NULL;
	if (bundle == NULL)
		bundle = &bundles[next++ % BUNDLES_MAX];
	free(bundle->path);
	free(bundle->pem);
	bundle->path = strdup(path);
	bundle->status = status;
	bundle->pem = pem;
	return pem;
}

/* Settings of the connection: protocol, TLS, proxy, redirects; false where a file of them cannot be used. */
static bool
configure_connection(Transfer *transfer, const HttpRequest *request, char *err, size_t errlen)
{
	CURL	   *easy = transfer->easy;

	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
#else
	/* Ubuntu 22.04 */
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
	curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, before_request);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_PROXY, request->proxy ? request->proxy : "");
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) request->connect_timeout_ms);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) request->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, CONNECTION_LIFETIME);
	if (request->http2)
	{
		curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
		curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
	}
	else
		curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	/* by its path: libcurl keeps the system's bundle parsed */
	if (request->ca_file == NULL || strcmp(request->ca_file, SYSTEM_CA_FILE) == 0)
		curl_easy_setopt(easy, CURLOPT_CAINFO, SYSTEM_CA_FILE);
	else
	{
		const char *pem = read_bundle(request->ca_file, err, errlen);

		if (pem == NULL)
			return false;
		curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
		set_blob(easy, CURLOPT_CAINFO_BLOB, pem);
	}
	if (request->client_cert && !set_client_cert(easy, request))
		return explain(err, errlen, "out of memory");
	if (request->client_key)
		set_blob(easy, CURLOPT_SSLKEY_BLOB, request->client_key);
	/* or OpenSSL would ask a terminal for that of a key that is encrypted, and wait */
	curl_easy_setopt(easy, CURLOPT_KEYPASSWD, "");
	/* followed by us (follow()), for libcurl takes our headers along */
	transfer->may_redirect = request->redirects > 0;
	transfer->redirects_left = request->redirects;
	transfer->timeout_ms = request->timeout_ms;
	return true;
}

/* The request itself; *fault says whose fault it is where it cannot be made. */
static bool
configure_request(Transfer *transfer, const HttpRequest *request, HttpOutcome *fault, char *err, size_t errlen)
{
	CURL	   *easy = transfer->easy;
	bool		ok;

	*fault = HTTP_BAD_REQUEST;
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	if (!ssrf_check_path(request->url, err, errlen))
		return false;
	if (curl_easy_setopt(easy, CURLOPT_URL, request->url) != CURLE_OK)
		return explain(err, errlen, "the URL cannot be used");
	/* taken away: a large body would wait for an answer to it */
	transfer->headers = curl_slist_append(NULL, "Expect:");
	ok = transfer->headers != NULL;
	for (int i = 0; ok && i < request->nheaders; i++)
	{
		if (!clean(request->headers[i].name) || !clean(request->headers[i].value))
			return explain(err, errlen, "header \"%.40s\" has a control character",
						   clean(request->headers[i].name) ? request->headers[i].name : "?");
		ok = add_header(transfer, request->headers[i].name, request->headers[i].value);
	}
	*fault = HTTP_UNUSABLE;
	transfer->body = malloc(request->body_length + 1);
	if (!ok || transfer->body == NULL)
		return explain(err, errlen, "out of memory");
	memcpy(transfer->body, request->body, request->body_length);
	curl_easy_setopt(easy, CURLOPT_POST, 1L);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->body);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) request->body_length);
	if (request->method && strcmp(request->method, "POST") != 0)
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->words);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
	transfer->opaque = request->opaque;
	return true;
}

/* see http_client.h */
bool
http_start(HttpClient *client, const HttpRequest *request, HttpOutcome *fault, char *err, size_t errlen)
{
	Transfer   *transfer = new_transfer(client);

	*fault = HTTP_UNUSABLE;
	if (transfer == NULL)
		return explain(err, errlen, "out of memory");
	if (!configure_connection(transfer, request, err, errlen) ||
		!configure_request(transfer, request, fault, err, errlen))
	{
		retire(client, transfer);
		return false;
	}
	if (curl_multi_add_handle(client->multi, transfer->easy) != CURLM_OK)
	{
		retire(client, transfer);
		return explain(err, errlen, "libcurl does not take the request");
	}
	transfer->older = client->active;
	transfer->newer = NULL;
	if (client->active)
		client->active->newer = transfer;
	client->active = transfer;
	client->pending++;
	return true;
}

/* see http_client.h */
long
http_timeout(const HttpClient *client)
{
	int64_t		left;

	if (client->deadline < 0)
		return -1;
	left = client->deadline - now_ms();
	return left > 0 ? (long) left : 0;
}

/* see http_client.h */
void
http_tick(HttpClient *client)
{
	if (client->deadline < 0 || client->deadline > now_ms())
		return;
	client->deadline = -1;		/* libcurl sets it anew where it wants to */
	act(client, CURL_SOCKET_TIMEOUT, 0);
}

/* ---------- results ---------- */

static HttpOutcome
outcome_of(const Transfer *transfer, CURLcode code)
{
	long		sent = 0;
	long		status = 0;

	switch (code)
	{
		case CURLE_OK:
			/* libcurl takes a status of one digit or of four, and an interim one for the last */
			curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
			return status >= 200 && status <= 999 ? HTTP_ANSWERED : HTTP_BROKEN;
		case CURLE_HTTP2_STREAM:
			/* a server may answer and end the stream before it has read the body (RFC 9113, 8.1) */
			curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
			return status >= 200 ? HTTP_ANSWERED : HTTP_BROKEN;
		case CURLE_WRITE_ERROR:
			return transfer->cut ? HTTP_ANSWERED : HTTP_BROKEN;
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_RESOLVE_PROXY:
			return HTTP_RESOLVE_FAILED;
		case CURLE_COULDNT_CONNECT:
		case CURLE_ABORTED_BY_CALLBACK:
			return transfer->refusal ? HTTP_REFUSED_ADDRESS : HTTP_CONNECT_FAILED;
		case CURLE_OPERATION_TIMEDOUT:
			return HTTP_TIMED_OUT;
		case CURLE_UNSUPPORTED_PROTOCOL:
			/* said of the URL, and of an answer that is not HTTP */
			curl_easy_getinfo(transfer->easy, CURLINFO_REQUEST_SIZE, &sent);
			return sent > 0 ? HTTP_BROKEN : HTTP_BAD_REQUEST;
		case CURLE_URL_MALFORMAT:
		case CURLE_BAD_FUNCTION_ARGUMENT:
			return HTTP_BAD_REQUEST;
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CACERT_BADFILE:
			return HTTP_UNUSABLE;
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
		case CURLE_SSL_INVALIDCERTSTATUS:
			return HTTP_TLS_FAILED;
		default:
			return HTTP_BROKEN;
	}
}

/* ---------- redirects ---------- */

/* The only headers that go to another origin: the rest may be secrets, or the message's own affair. */
static bool
for_everybody(const char *line)
{
	static const char *const names[] = {"Expect:", "Content-Type:", "User-Agent:", "webhook-id:", "webhook-timestamp:", "ce-"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strncasecmp(line, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

/* Take away what is not for another origin, or (a GET) what speaks of a body. */
static bool
strip_headers(Transfer *transfer, bool foreign, bool bodiless)
{
	struct curl_slist *left = NULL;

	for (const struct curl_slist *line = transfer->headers; line; line = line->next)
	{
		struct curl_slist *longer;

		if ((foreign && !for_everybody(line->data)) ||
			(bodiless && (strncasecmp(line->data, "Content-Type:", 13) == 0 || strncasecmp(line->data, "webhook-signature:", 18) == 0)))
			continue;
		longer = curl_slist_append(left, line->data);
		if (longer == NULL)
		{
			curl_slist_free_all(left);
			return false;
		}
		left = longer;
	}
	curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, left);
	curl_slist_free_all(transfer->headers);
	transfer->headers = left;
	return true;
}

/* Scheme, host and port of a URL, in lower case; false: it is none, or names a user. */
static bool
origin_of(const char *url, char *origin, size_t size)
{
	CURLU	   *parsed = curl_url();
	char	   *scheme = NULL;
	char	   *host = NULL;
	char	   *port = NULL;
	char	   *user = NULL;
	bool		ok;

	ok = parsed && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
		curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
		curl_url_get(parsed, CURLUPART_USER, &user, 0) == CURLUE_NO_USER;
	if (ok)
		snprintf(origin, size, "%s://%s:%s", scheme, host, port);
	for (char *c = origin; ok && *c; c++)
		*c = (char) tolower((unsigned char) *c);
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_free(user);
	curl_url_cleanup(parsed);
	return ok;
}

#define ORIGIN_MAX	512			/* bytes; names of hosts have 253 */

/* What became of an answer that may be a redirect. */
typedef enum Following
{
	FOLLOW_NOT,					/* it is none, or none is followed */
	FOLLOWING,					/* the next request is under way */
	FOLLOW_REFUSED				/* words say why */
} Following;

static Following
refuse_redirect(Transfer *transfer, const char *words)
{
	snprintf(transfer->words, sizeof(transfer->words), "a redirect is refused: %s", words);
	return FOLLOW_REFUSED;
}

/*
 * Make the next request of a transfer that was answered by a redirect.  301, 302, 307 and 308
 * repeat the request with its body; 303 asks for an answer elsewhere, by GET (RFC 9110, 15.4).
 * What is secret stays with the origin that it is for, and TLS is not given up.
 */
static Following
follow(HttpClient *client, Transfer *transfer)
{
	CURL	   *easy = transfer->easy;
	char		from[ORIGIN_MAX];
	char		to[ORIGIN_MAX];
	char	   *url = NULL;
	char	   *target = NULL;
	char		err[200];
	curl_off_t	elapsed = 0;
	long		status = 0;
	bool		foreign;
	bool		renewed;

	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &target);
	if (!transfer->may_redirect || target == NULL ||
		!(status == 301 || status == 302 || status == 303 || status == 307 || status == 308))
		return FOLLOW_NOT;
	if (transfer->redirects_left-- == 0)
		return refuse_redirect(transfer, "there were as many as are allowed");
	curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url);
	if (!origin_of(url, from, sizeof(from)) || !origin_of(target, to, sizeof(to)))
		return refuse_redirect(transfer, "its URL cannot be used");
	if (strncmp(to, "http://", 7) != 0 && strncmp(to, "https://", 8) != 0)
		return refuse_redirect(transfer, "it leads to another protocol");
	if (strncmp(from, "https://", 8) == 0 && strncmp(to, "http://", 7) == 0)
		return refuse_redirect(transfer, "it leads from https to http");
	if (!ssrf_check_path(target, err, sizeof(err)))
		return refuse_redirect(transfer, err);
	curl_easy_getinfo(easy, CURLINFO_TOTAL_TIME_T, &elapsed);
	transfer->spent_ms += (long) (elapsed / 1000);
	if (transfer->spent_ms >= transfer->timeout_ms)
		return refuse_redirect(transfer, "there is no time left for it");

	foreign = strcmp(from, to) != 0;
	target = strdup(target);	/* libcurl's own goes with the next request */
	curl_multi_remove_handle(client->multi, easy);
	renewed = !keeps_dead_header() || renew_handle(transfer, true);
	easy = transfer->easy;
	if (!renewed || target == NULL || !strip_headers(transfer, foreign, status == 303) ||
		curl_easy_setopt(easy, CURLOPT_URL, target) != CURLE_OK)
		refuse_redirect(transfer, "out of memory");
	else
	{
		if (foreign)
		{
			curl_easy_setopt(easy, CURLOPT_SSLCERT_BLOB, NULL);
			curl_easy_setopt(easy, CURLOPT_SSLKEY_BLOB, NULL);
		}
		if (status == 303)
		{
			curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, NULL);
			curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
		}
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, transfer->timeout_ms - transfer->spent_ms);
		transfer->answer_length = 0;
		transfer->cut = false;
		transfer->words[0] = '\0';
	}
	free(target);
	/* back it goes in any case: who ends it takes it out */
	if (curl_multi_add_handle(client->multi, easy) != CURLM_OK && transfer->words[0] == '\0')
		refuse_redirect(transfer, "out of memory");
	return transfer->words[0] == '\0' ? FOLLOWING : FOLLOW_REFUSED;
}

/* Fill a result from a transfer that has ended. */
static void
fill_result(Transfer *transfer, CURLcode code, HttpResult *result)
{
	CURL	   *easy = transfer->easy;
	long		number = 0;
	curl_off_t	big = 0;
	char	   *text = NULL;

	memset(result, 0, sizeof(*result));
	result->opaque = transfer->opaque;
	result->outcome = outcome_of(transfer, code);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &number);
	result->status = result->outcome == HTTP_ANSWERED || code != CURLE_OK ? (int) number : 0;
	if (result->outcome == HTTP_REFUSED_ADDRESS)
		snprintf(result->error, sizeof(result->error), "address %s is refused: %s",
				 transfer->refused_address, transfer->refusal);
	else if (result->outcome != HTTP_ANSWERED && transfer->headers_length > HTTP_HEADERS_MAX)
		snprintf(result->error, sizeof(result->error), "headers and trailers are longer than %d bytes", HTTP_HEADERS_MAX);
	else if (result->outcome != HTTP_ANSWERED)
		snprintf(result->error, sizeof(result->error), "%s",
				 transfer->words[0] ? transfer->words : code == CURLE_OK ? "the answer has no status that ends a request" :
				 curl_easy_strerror(code));
	curl_easy_getinfo(easy, CURLINFO_PRIMARY_IP, &text);
	if (text && *text && result->outcome != HTTP_REFUSED_ADDRESS)
	{
		curl_easy_getinfo(easy, CURLINFO_PRIMARY_PORT, &number);
		snprintf(result->address, sizeof(result->address), strchr(text, ':') ? "[%s]:%ld" : "%s:%ld",
				 text, number);
	}
	curl_easy_getinfo(easy, CURLINFO_TOTAL_TIME_T, &big);
	result->elapsed_ms = transfer->spent_ms + (long) (big / 1000);
	big = 0;
	curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &big);
	result->retry_after_s = big > 0 ? (long) big : -1;
	text = NULL;
	curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &text);
	if (text)
		snprintf(result->content_type, sizeof(result->content_type), "%s", text);
	if (transfer->answer_room > 0)
		transfer->answer[transfer->answer_length] = '\0';
	result->body = transfer->answer_length > 0 ? transfer->answer : "";
	result->body_length = transfer->answer_length;
	result->cut = transfer->cut;
}

/* Take a transfer out of libcurl and of those under way. */
static void
remove_active(HttpClient *client, Transfer *transfer)
{
	curl_multi_remove_handle(client->multi, transfer->easy);
	if (transfer->newer)
		transfer->newer->older = transfer->older;
	else
		client->active = transfer->older;
	if (transfer->older)
		transfer->older->newer = transfer->newer;
	client->pending--;
}

/* see http_client.h */
int
http_results(HttpClient *client, HttpResult *results, int max)
{
	CURLMsg    *message;
	int			left;
	int			n = 0;

	while (client->reported)
	{
		Transfer   *transfer = client->reported;

		client->reported = transfer->next;
		retire(client, transfer);
	}
	while (n < max && (message = curl_multi_info_read(client->multi, &left)) != NULL)
	{
		Transfer   *transfer = NULL;
		CURLcode	code = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &transfer);
		if (outcome_of(transfer, code) == HTTP_ANSWERED)
		{
			Following	following = follow(client, transfer);

			if (following == FOLLOWING)
				continue;
			if (following == FOLLOW_REFUSED)
				code = CURLE_TOO_MANY_REDIRECTS;
		}
		fill_result(transfer, code, &results[n++]);
		remove_active(client, transfer);
		transfer->next = client->reported;
		client->reported = transfer;
	}
	return n;
}

/* see http_client.h */
int
http_pending(const HttpClient *client)
{
	return client->pending;
}

/* ---------- the client ---------- */

/* see http_client.h */
HttpClient *
http_open(const HttpClientConfig *config, char *err, size_t errlen)
{
	static bool initialised = false;
	HttpClient *client = calloc(1, sizeof(HttpClient));

	if (client == NULL)
	{
		explain(err, errlen, "out of memory");
		return NULL;
	}
	if (!initialised && curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK)
	{
		free(client);
		explain(err, errlen, "libcurl cannot be initialised");
		return NULL;
	}
	initialised = true;
	client->reactor = config->reactor;
	client->deadline = -1;
	for (int i = 0; i < config->nforbidden_ports && i < 8; i++)
		client->forbidden_ports[client->nforbidden_ports++] = config->forbidden_ports[i];
	client->allow = ssrf_allow_parse(config->allow ? config->allow : "", err, errlen);
	client->multi = client->allow ? curl_multi_init() : NULL;
	if (client->multi == NULL)
	{
		if (client->allow)
			explain(err, errlen, "out of memory");
		ssrf_allow_free(client->allow);
		free(client);
		return NULL;
	}
	find_own_addresses(client);
	curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
	curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
	curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long) config->max_connections);
	return client;
}

/* see http_client.h */
bool
http_allow(HttpClient *client, const char *allow, char *err, size_t errlen)
{
	SsrfAllow  *parsed = ssrf_allow_parse(allow, err, errlen);

	if (parsed == NULL)
		return false;
	ssrf_allow_free(client->allow);
	client->allow = parsed;
	return true;
}

/* see http_client.h */
void
http_close(HttpClient *client)
{
	if (client == NULL)
		return;
	while (client->active)
	{
		Transfer   *transfer = client->active;

		remove_active(client, transfer);
		free_transfer(transfer);
	}
	while (client->reported)
	{
		Transfer   *transfer = client->reported;

		client->reported = transfer->next;
		free_transfer(transfer);
	}
	while (client->idle)
	{
		Transfer   *transfer = client->idle;

		client->idle = transfer->next;
		free_transfer(transfer);
	}
	curl_multi_cleanup(client->multi);
	ssrf_allow_free(client->allow);
	free(client);
}

/* see http_client.h */
const char *
http_version(void)
{
	return curl_version();
}
