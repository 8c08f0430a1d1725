/*
 * cache.c
 *		What was delivered, in Redis (cache.h), with hiredis.
 *
 * A call has one deadline, for all of it: a Redis that sends a byte now and then is as late as one that sends
 * none.  So hiredis is never let wait: the socket does not block, and each wait is a poll() of what time is left.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* strdup, strndup */
#endif

#include "cache.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <hiredis/hiredis.h>
#ifdef MSGSYS_HIREDIS_SSL
#include <arpa/inet.h>
#include <openssl/bio.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#endif

#include "explain.h"
#include "monotonic.h"
#include "plain_file.h"
#include "trust.h"

#define DEFAULT_PORT		6379
#define FIRST_BACKOFF_MS	1000
#define LONGEST_BACKOFF_MS	30000
#define REPLY_MAX			(64 * 1024 * 1024)	/* bytes; what is larger is quicker from the table */

struct Cache
{
	char	   *host;			/* or path of a socket */
	int			port;			/* 0: it is a path */
	char	   *user;			/* NULL: none */
	char	   *password;		/* NULL: none */
	int			db;
	bool		tls;
	int			connect_timeout_ms;
	int			timeout_ms;
	redisContext *connection;
	int64_t		deadline;		/* ms: of the call under way */
	struct Lookup *lookup;		/* of its name; NULL: none is under way */
	char	   *ca_file;		/* NULL: the system's */
#ifdef MSGSYS_HIREDIS_SSL
	SSL_CTX    *ssl;
#endif
	int64_t		again_at;		/* ms: not to be tried before */
	int			backoff_ms;
};

/* ---------- waiting ---------- */

/* Wait until the descriptor is ready; false at the call's deadline. */
static bool
await(const Cache *cache, int fd, short events)
{
	struct pollfd ready = {.fd = fd,.events = events};
	int64_t		left;

	while ((left = cache->deadline - now_ms()) > 0)
	{
		int			n = poll(&ready, 1, (int) left);

		if (n > 0)
			return true;
		if (n < 0 && errno != EINTR)
			return false;
	}
	return false;
}

static bool
late(char *err, size_t errlen)
{
	return explain(err, errlen, "no answer in time");
}

/* ---------- looking up the name ---------- */

/*
 * A resolver cannot be interrupted, so it is asked in a thread, which may be left
 * behind, but only one at a time: who comes back later finds the same one.
 */
typedef struct Lookup
{
	pthread_mutex_t mutex;
	pthread_cond_t done_cond;
	bool		done;
	bool		abandoned;		/* nobody waits any more: the thread frees it */
	char	   *host;
	char		port[8];
	int			failure;		/* of getaddrinfo() */
	struct addrinfo *found;
} Lookup;

static void
free_lookup(Lookup *lookup)
{
	if (lookup->found)
		freeaddrinfo(lookup->found);
	pthread_cond_destroy(&lookup->done_cond);
	pthread_mutex_destroy(&lookup->mutex);
	free(lookup->host);
	free(lookup);
}

static void *
look_up(void *arg)
{
	Lookup	   *lookup = arg;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	int			failure = getaddrinfo(lookup->host, lookup->port, &hints, &found);
	bool		abandoned;

	pthread_mutex_lock(&lookup->mutex);
	lookup->failure = failure;
	lookup->found = failure == 0 ? found : NULL;
	lookup->done = true;
	abandoned = lookup->abandoned;
	pthread_cond_signal(&lookup->done_cond);
	pthread_mutex_unlock(&lookup->mutex);
	if (abandoned)
		free_lookup(lookup);
	return NULL;
}

/* Begin to look up the name; a thread of a PostgreSQL process handles no signals. */
static bool
begin_lookup(Cache *cache)
{
	Lookup	   *lookup = calloc(1, sizeof(Lookup));
	pthread_condattr_t clock;
	pthread_attr_t detached;
	pthread_t	thread;
	sigset_t	all;
	sigset_t	before;
	int			rc;

	if (lookup == NULL)
		return false;
	snprintf(lookup->port, sizeof(lookup->port), "%d", cache->port);
	lookup->host = strdup(cache->host);
	pthread_mutex_init(&lookup->mutex, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&lookup->done_cond, &clock);
	pthread_condattr_destroy(&clock);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	rc = lookup->host ? pthread_create(&thread, &detached, look_up, lookup) : ENOMEM;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&detached);
	if (rc != 0)
	{
		free_lookup(lookup);
		return false;
	}
	cache->lookup = lookup;
	return true;
}

/* Let the thread free it, if it is not there yet. */
static void
abandon_lookup(Cache *cache)
{
	Lookup	   *lookup = cache->lookup;
	bool		done;

	cache->lookup = NULL;
	if (lookup == NULL)
		return;
	pthread_mutex_lock(&lookup->mutex);
	done = lookup->done;
	lookup->abandoned = true;
	pthread_mutex_unlock(&lookup->mutex);
	if (done)
		free_lookup(lookup);
}

/* The host's addresses, to be freed; NULL with words in err. */
static struct addrinfo *
resolve(Cache *cache, char *err, size_t errlen)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,.ai_flags = AI_NUMERICHOST};
	struct addrinfo *found = NULL;
	struct timespec until = {cache->deadline / 1000, cache->deadline % 1000 * 1000000};
	char		port[8];
	bool		done;
	int			failure;

	snprintf(port, sizeof(port), "%d", cache->port);
	if (getaddrinfo(cache->host, port, &hints, &found) == 0)
		return found;
	if (cache->lookup == NULL && !begin_lookup(cache))
	{
		explain(err, errlen, "out of memory");
		return NULL;
	}
	pthread_mutex_lock(&cache->lookup->mutex);
	while (!cache->lookup->done && pthread_cond_timedwait(&cache->lookup->done_cond, &cache->lookup->mutex, &until) == 0)
		;
	done = cache->lookup->done;
	failure = cache->lookup->failure;
	found = cache->lookup->found;
	if (done)
		cache->lookup->found = NULL;
	pthread_mutex_unlock(&cache->lookup->mutex);
	if (!done)
	{
		explain(err, errlen, "its name could not be looked up in time");
		return NULL;
	}
	abandon_lookup(cache);
	if (failure != 0)
		explain(err, errlen, "its name could not be looked up: %s", gai_strerror(failure));
	return found;
}

/* ---------- the URL ---------- */

/* A part of a URL, its %XX decoded. */
static char *
decoded(const char *text, size_t length)
{
	char	   *result = malloc(length + 1);
	size_t		n = 0;

	if (result == NULL)
		return NULL;
	for (size_t i = 0; i < length; i++)
	{
		if (text[i] == '%' && i + 2 < length && isxdigit((unsigned char) text[i + 1]) && isxdigit((unsigned char) text[i + 2]))
		{
			const char	hex[3] = {text[i + 1], text[i + 2], '\0'};

			result[n++] = (char) strtol(hex, NULL, 16);
			i += 2;
		}
		else
			result[n++] = text[i];
	}
	result[n] = '\0';
	return result;
}

/* Read "user:password" in front of a host. */
static void
read_credentials(Cache *cache, const char *text, size_t length)
{
	const char *colon = memchr(text, ':', length);

	if (colon == NULL)
		cache->password = decoded(text, length);
	else
	{
		if (colon > text)
			cache->user = decoded(text, (size_t) (colon - text));
		cache->password = decoded(colon + 1, (size_t) (text + length - colon - 1));
	}
}

static bool
read_url(Cache *cache, const char *url, char *err, size_t errlen)
{
	const char *rest;
	const char *at;
	const char *slash;
	const char *colon;

	if (strncmp(url, "unix://", 7) == 0)
	{
		const char *query = strstr(url, "?db=");

		cache->host = query ? strndup(url + 7, (size_t) (query - url - 7)) : strdup(url + 7);
		cache->db = query ? atoi(query + 4) : 0;
		if (cache->host == NULL || cache->host[0] != '/' || cache->db < 0)
			return explain(err, errlen, "unix:// needs an absolute path, and a database that is not negative");
		return true;
	}
	if (strncmp(url, "redis://", 8) == 0)
		rest = url + 8;
	else if (strncmp(url, "rediss://", 9) == 0)
	{
#ifndef MSGSYS_HIREDIS_SSL
		return explain(err, errlen, "rediss:// needs TLS, which hiredis has from version 1.0 on, and msgsys was built without it");
#endif
		cache->tls = true;
		rest = url + 9;
	}
	else
		return explain(err, errlen, "a Redis URL begins with redis://, rediss:// or unix://");
	slash = strchr(rest, '/');
	if (slash == NULL)
		slash = rest + strlen(rest);
	else
		cache->db = atoi(slash + 1);
	for (at = slash; at > rest && at[-1] != '@'; at--)
		;
	if (at > rest)
		read_credentials(cache, rest, (size_t) (at - rest - 1));
	for (colon = slash; colon > at && colon[-1] != ':'; colon--)
		;
	cache->port = colon > at ? atoi(colon) : DEFAULT_PORT;
	cache->host = strndup(at, (size_t) ((colon > at ? colon - 1 : slash) - at));
	if (cache->host == NULL || cache->host[0] == '\0' || cache->port < 1 || cache->port > 65535 || cache->db < 0)
		return explain(err, errlen, "the Redis URL has no host, or a wrong port or database");
	return true;
}

/* see cache.h */
Cache *
cache_open(const CacheConfig *config, char *err, size_t errlen)
{
	Cache	   *cache = calloc(1, sizeof(Cache));

	if (cache == NULL)
	{
		explain(err, errlen, "out of memory");
		return NULL;
	}
	cache->connect_timeout_ms = config->connect_timeout_ms;
	cache->timeout_ms = config->timeout_ms;
	if (config->ca_file && *config->ca_file)
		cache->ca_file = strdup(config->ca_file);
	if (!read_url(cache, config->url, err, errlen))
	{
		cache_close(cache);
		return NULL;
	}
	return cache;
}

static void
disconnect(Cache *cache)
{
	if (cache->connection)
		redisFree(cache->connection);
	cache->connection = NULL;
}

/* see cache.h */
void
cache_close(Cache *cache)
{
	if (cache == NULL)
		return;
	disconnect(cache);
	abandon_lookup(cache);
#ifdef MSGSYS_HIREDIS_SSL
	if (cache->ssl)
		SSL_CTX_free(cache->ssl);
#endif
	free(cache->ca_file);
	free(cache->host);
	free(cache->user);
	free(cache->password);
	free(cache);
}

/* Give up on the connection, and leave Redis alone for a while that grows. */
static bool
failed(Cache *cache, char *err, size_t errlen, const char *words)
{
	explain(err, errlen, "%s", words && *words ? words : "no answer");
	disconnect(cache);
	cache->backoff_ms = cache->backoff_ms == 0 ? FIRST_BACKOFF_MS : cache->backoff_ms * 2;
	if (cache->backoff_ms > LONGEST_BACKOFF_MS)
		cache->backoff_ms = LONGEST_BACKOFF_MS;
	cache->again_at = now_ms() + cache->backoff_ms;
	return false;
}

/* ---------- commands ---------- */

/* Send what has been appended. */
static bool
send_all(Cache *cache, char *err, size_t errlen)
{
	int			done = 0;

	while (!done)
	{
		if (redisBufferWrite(cache->connection, &done) != REDIS_OK)
			return explain(err, errlen, "%s", cache->connection->errstr);
		if (!done && !await(cache, cache->connection->fd, POLLOUT))
			return late(err, errlen);
	}
	return true;
}

/* The next reply, or NULL with words in err. */
static redisReply *
next_reply(Cache *cache, char *err, size_t errlen)
{
	redisReader *reader = cache->connection->reader;

	for (;;)
	{
		void	   *reply = NULL;
		size_t		unread;

		if (redisReaderGetReply(reader, &reply) != REDIS_OK)
			explain(err, errlen, "%s", reader->errstr);
		else if (reply)
			return reply;
		else if ((unread = reader->len - reader->pos) > REPLY_MAX)
			explain(err, errlen, "its answer is too large");
		else if (now_ms() >= cache->deadline)
			late(err, errlen);
		else if (redisBufferRead(cache->connection) != REDIS_OK)
			explain(err, errlen, "%s", cache->connection->errstr);
		else if (reader->len - reader->pos > unread || await(cache, cache->connection->fd, POLLIN))
			continue;
		else
			late(err, errlen);
		return NULL;
	}
}

/* Run one command whose answer is only good or bad. */
static bool
command(Cache *cache, int argc, const char **argv, char *err, size_t errlen)
{
	redisReply *reply;
	bool		ok;

	if (redisAppendCommandArgv(cache->connection, argc, argv, NULL) != REDIS_OK)
		return explain(err, errlen, "out of memory");
	if (!send_all(cache, err, errlen) || (reply = next_reply(cache, err, errlen)) == NULL)
		return false;
	ok = reply->type != REDIS_REPLY_ERROR;
	if (!ok)
		explain(err, errlen, "%s", reply->str);
	freeReplyObject(reply);
	return ok;
}

/* ---------- connecting ---------- */

#ifdef MSGSYS_HIREDIS_SSL
static bool
explain_tls(char *err, size_t errlen)
{
	char		words[200];

	ERR_error_string_n(ERR_get_error(), words, sizeof(words));
	ERR_clear_error();
	return explain(err, errlen, "TLS: %s", words);
}

/* Add the certificates of a PEM bundle to those that are trusted. */
static bool
trust_bundle(SSL_CTX * ssl, const char *pem, size_t length, char *err, size_t errlen)
{
	BIO		   *bio = BIO_new_mem_buf(pem, (int) length);
	X509	   *certificate;
	int			n = 0;

	/* a password, or OpenSSL would ask a terminal for one where the file is encrypted, and wait */
	while (bio && (certificate = PEM_read_bio_X509(bio, NULL, NULL, (void *) "")) != NULL)
	{
		n += X509_STORE_add_cert(SSL_CTX_get_cert_store(ssl), certificate);
		X509_free(certificate);
	}
	BIO_free(bio);
	ERR_clear_error();
	return n > 0 || explain(err, errlen, "TLS: there is no certificate in the CA file");
}

static bool
trust_file(SSL_CTX * ssl, const char *path, char *err, size_t errlen)
{
	size_t		length;
	char	   *pem = plain_file_read(path, PLAIN_FILE_MAX, &length, err, errlen);
	bool		ok = pem && trust_bundle(ssl, pem, length, err, errlen);

	free(pem);
	return ok;
}

/* Shake hands on a socket that does not block. */
static bool
shake_hands(Cache *cache, SSL * ssl, char *err, size_t errlen)
{
	while (!SSL_is_init_finished(ssl))
	{
		int			rc = SSL_do_handshake(ssl);
		int			wanted = SSL_get_error(ssl, rc);

		if (rc == 1)
			break;
		if (wanted != SSL_ERROR_WANT_READ && wanted != SSL_ERROR_WANT_WRITE)
			return explain(err, errlen, "TLS: %s", SSL_get_verify_result(ssl) == X509_V_OK ? "the handshake failed" :
						   X509_verify_cert_error_string(SSL_get_verify_result(ssl)));
		if (!await(cache, cache->connection->fd, wanted == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT))
			return late(err, errlen);
	}
	return true;
}

/* Begin TLS, and see to it that the certificate is that of the host, which hiredis' own contexts do not. */
static bool
encrypt(Cache *cache, char *err, size_t errlen)
{
	unsigned char address[sizeof(struct in6_addr)];
	bool		is_address = inet_pton(AF_INET, cache->host, address) == 1 || inet_pton(AF_INET6, cache->host, address) == 1;
	SSL		   *ssl;

	if (cache->ssl == NULL)
	{
		cache->ssl = SSL_CTX_new(TLS_client_method());
		if (cache->ssl == NULL)
			return explain_tls(err, errlen);
		SSL_CTX_set_verify(cache->ssl, SSL_VERIFY_PEER, NULL);
		SSL_CTX_set_min_proto_version(cache->ssl, TLS1_2_VERSION);
		if (!trust_file(cache->ssl, cache->ca_file ? cache->ca_file : SYSTEM_CA_FILE, err, errlen))
		{
			SSL_CTX_free(cache->ssl);
			cache->ssl = NULL;
			return false;
		}
	}
	ssl = SSL_new(cache->ssl);
	if (ssl == NULL)
		return explain_tls(err, errlen);
	if (is_address)
		X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), cache->host);
	else
	{
		SSL_set_tlsext_host_name(ssl, cache->host);
		SSL_set1_host(ssl, cache->host);
	}
	/* owned by the connection, once that has begun; the verdict on the certificate comes with the handshake */
	if (redisInitiateSSL(cache->connection, ssl) == REDIS_OK)
		return shake_hands(cache, ssl, err, errlen);
	explain(err, errlen, "TLS: %s", SSL_get_verify_result(ssl) == X509_V_OK ? cache->connection->errstr :
			X509_verify_cert_error_string(SSL_get_verify_result(ssl)));
	ERR_clear_error();
	SSL_free(ssl);
	return false;
}
#endif

/* TLS, credentials and database of a new connection. */
static bool
greet(Cache *cache, char *err, size_t errlen)
{
	char		db[16];

#ifdef MSGSYS_HIREDIS_SSL
	if (cache->tls && !encrypt(cache, err, errlen))
		return false;
#endif
	if (cache->password)
	{
		const char *with_user[] = {"AUTH", cache->user, cache->password};
		const char *without[] = {"AUTH", cache->password};

		if (!command(cache, cache->user ? 3 : 2, cache->user ? with_user : without, err, errlen))
			return false;
	}
	if (cache->db > 0)
	{
		const char *select[] = {"SELECT", db};

		snprintf(db, sizeof(db), "%d", cache->db);
		if (!command(cache, 2, select, err, errlen))
			return false;
	}
	return true;
}

/* Redis answers us with no arrays: one that claims to be large would be allocated before it came. */
#if HIREDIS_MAJOR >= 1
static void *
refuse_array(const redisReadTask * task, size_t elements)
#else
static void *
refuse_array(const redisReadTask * task, int elements)
#endif
{
	(void) task;
	(void) elements;
	return NULL;
}

static bool
refuse_arrays(redisContext *connection)
{
	static redisReplyObjectFunctions functions;

	functions = *connection->reader->fn;
	functions.createArray = refuse_array;
	connection->reader->fn = &functions;
	return true;
}

/* Wait for a connection that has begun. */
static bool
await_connection(Cache *cache, char *err, size_t errlen)
{
	int			error = 0;
	socklen_t	length = sizeof(error);

	if (cache->connection == NULL)
		return explain(err, errlen, "out of memory");
	if (cache->connection->err)
		return explain(err, errlen, "%s", cache->connection->errstr);
	if (!await(cache, cache->connection->fd, POLLOUT))
		return late(err, errlen);
	if (getsockopt(cache->connection->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0)
		return explain(err, errlen, "%s", strerror(error != 0 ? error : errno));
	return refuse_arrays(cache->connection);
}

/* Connect to one of the host's addresses. */
static bool
connect_host(Cache *cache, char *err, size_t errlen)
{
	struct addrinfo *addresses = resolve(cache, err, errlen);
	bool		ok = false;

	for (struct addrinfo *a = addresses; a && !ok; a = a->ai_next)
	{
		char		host[NI_MAXHOST];

		if (getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST) != 0)
			continue;
		disconnect(cache);
		cache->connection = redisConnectNonBlock(host, cache->port);
		ok = await_connection(cache, err, errlen);
	}
	if (addresses)
		freeaddrinfo(addresses);
	return ok;
}

/* Have a connection, if it is time to try; the call's time begins. */
static bool
connected(Cache *cache, char *err, size_t errlen)
{
	char		words[256] = "";
	bool		ok;

	cache->deadline = now_ms() + cache->timeout_ms;
	if (cache->connection)
		return true;
	if (now_ms() < cache->again_at)
		return explain(err, errlen, "it is left alone for a while after a failure");
	cache->deadline += cache->connect_timeout_ms;
	if (cache->port > 0)
		ok = connect_host(cache, words, sizeof(words));
	else
	{
		cache->connection = redisConnectUnixNonBlock(cache->host);
		ok = await_connection(cache, words, sizeof(words));
	}
	if (!ok || !greet(cache, words, sizeof(words)))
		return failed(cache, err, errlen, words);
	return true;
}

/* see cache.h */
bool
cache_put(Cache *cache, const CacheEntry *entries, int n, int ttl_s, char *err, size_t errlen)
{
	char		ttl[16];
	char		late_words[256] = "";
	char		words[256] = "";

	if (!connected(cache, err, errlen))
		return false;
	snprintf(ttl, sizeof(ttl), "%d", ttl_s);
	for (int i = 0; i < n; i++)
	{
		const char *argv[] = {"SET", entries[i].key, entries[i].value, "EX", ttl};
		size_t		lengths[] = {3, strlen(entries[i].key), entries[i].length, 2, strlen(ttl)};

		if (redisAppendCommandArgv(cache->connection, 5, argv, lengths) != REDIS_OK)
			return failed(cache, err, errlen, "out of memory");
	}
	if (!send_all(cache, late_words, sizeof(late_words)))
		return failed(cache, err, errlen, late_words);
	for (int i = 0; i < n; i++)
	{
		redisReply *reply = next_reply(cache, late_words, sizeof(late_words));

		if (reply == NULL)
			return failed(cache, err, errlen, late_words);
		if (reply->type == REDIS_REPLY_ERROR && words[0] == '\0')
			snprintf(words, sizeof(words), "%s", reply->str);
		freeReplyObject(reply);
	}
	/* full, read-only, or the like: it took none, or not all */
	if (words[0] != '\0')
		return failed(cache, err, errlen, words);
	cache->backoff_ms = 0;
	return true;
}

/* see cache.h */
int
cache_get(Cache *cache, const char *key, char **value, size_t *length, char *err, size_t errlen)
{
	const char *argv[] = {"GET", key};
	redisReply *reply;
	char		words[256] = "";
	int			result = 0;

	if (!connected(cache, err, errlen))
		return -1;
	if (redisAppendCommandArgv(cache->connection, 2, argv, NULL) != REDIS_OK)
	{
		failed(cache, err, errlen, "out of memory");
		return -1;
	}
	reply = send_all(cache, words, sizeof(words)) ? next_reply(cache, words, sizeof(words)) : NULL;
	if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
	{
		if (reply)
			snprintf(words, sizeof(words), "%s", reply->str);
		if (reply)
			freeReplyObject(reply);
		failed(cache, err, errlen, words);
		return -1;
	}
	if (reply->type == REDIS_REPLY_STRING)
	{
		*length = reply->len;
		*value = malloc(reply->len + 1);
		if (*value)
		{
			memcpy(*value, reply->str, reply->len);
			(*value)[reply->len] = '\0';
			result = 1;
		}
	}
	freeReplyObject(reply);
	cache->backoff_ms = 0;
	return result;
}
