/*
 * cache.c
 *		What was delivered, in Redis (cache.h), with hiredis.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* strdup, strndup */
#endif

#include "cache.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <hiredis/hiredis.h>
#ifdef MSGSYS_HIREDIS_SSL
#include <arpa/inet.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#endif

#include "explain.h"
#include "monotonic.h"
#include "trust.h"

#define DEFAULT_PORT		6379
#define FIRST_BACKOFF_MS	1000
#define LONGEST_BACKOFF_MS	30000

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
	char	   *ca_file;		/* NULL: the system's */
#ifdef MSGSYS_HIREDIS_SSL
	SSL_CTX    *ssl;
#endif
	int64_t		again_at;		/* ms: not to be tried before */
	int			backoff_ms;
};

static struct timeval
milliseconds(int ms)
{
	struct timeval tv = {.tv_sec = ms / 1000,.tv_usec = (ms % 1000) * 1000};

	return tv;
}

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
		unsigned int byte;

		if (text[i] == '%' && i + 2 < length && sscanf(text + i + 1, "%2x", &byte) == 1)
		{
			result[n++] = (char) byte;
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
		return cache->host && cache->host[0] == '/' ? true : explain(err, errlen, "unix:// needs an absolute path");
	}
	if (strncmp(url, "redis://", 8) == 0)
		rest = url + 8;
	else if (strncmp(url, "rediss://", 9) == 0)
	{
#ifndef MSGSYS_HIREDIS_SSL
		return explain(err, errlen, "this hiredis has no TLS");
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
	bool		late = cache->connection && cache->connection->err == REDIS_ERR_IO && errno == EAGAIN;

	explain(err, errlen, "%s", late ? "no answer in time" : words && *words ? words : "no answer");
	disconnect(cache);
	cache->backoff_ms = cache->backoff_ms == 0 ? FIRST_BACKOFF_MS : cache->backoff_ms * 2;
	if (cache->backoff_ms > LONGEST_BACKOFF_MS)
		cache->backoff_ms = LONGEST_BACKOFF_MS;
	cache->again_at = now_ms() + cache->backoff_ms;
	return false;
}

/* Run one command whose answer is only good or bad. */
static bool
command(Cache *cache, int argc, const char **argv, char *err, size_t errlen)
{
	redisReply *reply = redisCommandArgv(cache->connection, argc, argv, NULL);
	bool		ok = reply && reply->type != REDIS_REPLY_ERROR;

	if (!ok)
		explain(err, errlen, "%s", reply ? reply->str : cache->connection->errstr);
	if (reply)
		freeReplyObject(reply);
	return ok;
}

#ifdef MSGSYS_HIREDIS_SSL
static bool
explain_tls(char *err, size_t errlen)
{
	char		words[200];

	ERR_error_string_n(ERR_get_error(), words, sizeof(words));
	ERR_clear_error();
	return explain(err, errlen, "TLS: %s", words);
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
		if (SSL_CTX_load_verify_locations(cache->ssl, cache->ca_file ? cache->ca_file : SYSTEM_CA_FILE, NULL) != 1)
		{
			SSL_CTX_free(cache->ssl);
			cache->ssl = NULL;
			return explain_tls(err, errlen);
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
	/* owned by the connection, once that works */
	if (redisInitiateSSL(cache->connection, ssl) == REDIS_OK)
		return true;
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

/* Have a connection, if it is time to try. */
static bool
connected(Cache *cache, char *err, size_t errlen)
{
	struct timeval timeout = milliseconds(cache->connect_timeout_ms);
	char		words[256] = "";

	if (cache->connection)
		return true;
	if (now_ms() < cache->again_at)
		return explain(err, errlen, "it is left alone for a while after a failure");
	cache->connection = cache->port == 0 ? redisConnectUnixWithTimeout(cache->host, timeout) :
		redisConnectWithTimeout(cache->host, cache->port, timeout);
	if (cache->connection == NULL)
		return failed(cache, err, errlen, "out of memory");
	if (cache->connection->err)
	{
		snprintf(words, sizeof(words), "%s", cache->connection->errstr);
		return failed(cache, err, errlen, words);
	}
	redisSetTimeout(cache->connection, milliseconds(cache->timeout_ms));
	if (!greet(cache, words, sizeof(words)))
		return failed(cache, err, errlen, words);
	return true;
}

/* see cache.h */
bool
cache_put(Cache *cache, const CacheEntry *entries, int n, int ttl_s, char *err, size_t errlen)
{
	int64_t		limit = now_ms() + cache->timeout_ms + cache->connect_timeout_ms;
	char		ttl[16];
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
	for (int i = 0; i < n; i++)
	{
		void	   *reply = NULL;

		if (redisGetReply(cache->connection, &reply) != REDIS_OK)
		{
			snprintf(words, sizeof(words), "%s", cache->connection->errstr);
			return failed(cache, err, errlen, words);
		}
		if (((redisReply *) reply)->type == REDIS_REPLY_ERROR && words[0] == '\0')
			snprintf(words, sizeof(words), "%s", ((redisReply *) reply)->str);
		freeReplyObject(reply);
		if (now_ms() > limit)
			return failed(cache, err, errlen, "too slow");
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
	char		words[256];
	int			result = 0;

	if (!connected(cache, err, errlen))
		return -1;
	reply = redisCommandArgv(cache->connection, 2, argv, NULL);
	if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
	{
		snprintf(words, sizeof(words), "%s", reply ? reply->str : cache->connection->errstr);
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
