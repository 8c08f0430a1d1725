/*
 * cache.h
 *		What was delivered, in Redis: a cache that may be down, slow or wiped.
 *
 * Implemented with hiredis.  Plain C: nothing raises, nothing blocks for longer
 * than the times given.
 */
#ifndef MSGSYS_CACHE_H
#define MSGSYS_CACHE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Cache Cache;

typedef struct CacheConfig
{
	const char *url;			/* redis://[user:password@]host[:port][/db], rediss:// with TLS where the library has it, unix:///path[?db=n] */
	const char *ca_file;		/* who signs Redis' certificate; NULL or empty: the system's */
	int			connect_timeout_ms;
	int			timeout_ms;		/* of a whole call */
} CacheConfig;

typedef struct CacheEntry
{
	const char *key;
	const char *value;
	size_t		length;
} CacheEntry;

/* A handle that connects at its first use; NULL with words in err for a bad URL. */
extern Cache *cache_open(const CacheConfig *config, char *err, size_t errlen);
extern void cache_close(Cache *cache);

/*
 * SET each entry with a time to live, pipelined.  False, with words in err (never
 * a password), when Redis did not take them all within the time; the connection is
 * then closed and tried again after a backoff of 1 to 30 s: until that is over
 * the call returns false at once.
 */
extern bool cache_put(Cache *cache, const CacheEntry *entries, int n, int ttl_s,
					  char *err, size_t errlen);

/*
 * GET a key: 1 and a malloc'ed value, 0 if it is not there, -1 with words in err.
 */
extern int	cache_get(Cache *cache, const char *key, char **value, size_t *length,
					  char *err, size_t errlen);

#endif							/* MSGSYS_CACHE_H */
