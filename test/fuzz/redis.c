/*
 * redis.c
 *		Fuzzes what Redis, or whoever is there in its place, answers, and the URL that says where it
 *		is (src/cache.c).
 *
 * The first byte says what is asked: a value, that entries are kept, or that a URL is read.  A value
 * is what came; words of a stranger are UTF-8 without control characters; nothing waits for what
 * does not come.
 */
#include "cache.c"

#include <fcntl.h>
#include <unistd.h>

#include "fuzz.h"

extern int	fuzz_redis(const uint8_t *data, size_t size);

#define LONGEST	(64 * 1024)		/* bytes that a socket takes at once */

static void
check_words(const char *words)
{
	for (const unsigned char *c = (const unsigned char *) words; *c; c++)
		PROPERTY(*c >= ' ' && *c != 0x7f);
	PROPERTY(strlen(words) < 256);
}

/* A cache whose connection has everything that will ever come. */
static void
connect_to(Cache *cache, const uint8_t *answer, size_t length)
{
	int			ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0 ||
		write(ends[1], answer, length) != (ssize_t) length || shutdown(ends[1], SHUT_WR) != 0)
		abort();
	/* the other end stays open, for what is written to it */
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	memset(cache, 0, sizeof(*cache));
	cache->port = DEFAULT_PORT;
	cache->connect_timeout_ms = cache->timeout_ms = 5000;
	cache->connection = redisConnectFd(ends[0]);
	cache->connection->flags &= ~REDIS_BLOCK;
	PROPERTY(refuse_arrays(cache->connection));
	cache->db = ends[1];
}

static void
check_get(const uint8_t *answer, size_t length)
{
	Cache		cache;
	char		err[256] = "";
	char	   *value = NULL;
	size_t		n = 0;
	int			other;
	int			result;

	connect_to(&cache, answer, length);
	other = cache.db;
	result = cache_get(&cache, "key", &value, &n, err, sizeof(err));
	PROPERTY(result >= -1 && result <= 1);
	PROPERTY((result == 1) == (value != NULL));
	PROPERTY((result == -1) == (err[0] != '\0'));
	/* a value is some of what came, as it came */
	if (result == 1)
		PROPERTY(n <= length && value[n] == '\0' && memmem(answer, length, value, n) != NULL);
	PROPERTY((result == -1) == (cache.connection == NULL));
	PROPERTY(result != -1 || cache.backoff_ms > 0);
	check_words(err);
	free(value);
	disconnect(&cache);
	close(other);
}

static void
check_put(const uint8_t *answer, size_t length, int entries)
{
	static const CacheEntry all[] = {{"a", "1", 1}, {"b", "\0\n", 2}, {"c", "", 0}};
	Cache		cache;
	char		err[256] = "";
	int			other;
	bool		good;

	connect_to(&cache, answer, length);
	other = cache.db;
	good = cache_put(&cache, all, entries, 60, err, sizeof(err));
	PROPERTY(good == (err[0] == '\0'));
	PROPERTY(good == (cache.connection != NULL));
	check_words(err);
	disconnect(&cache);
	close(other);
}

static void
check_address(const char *url)
{
	CacheConfig config = {.url = url,.ca_file = "",.connect_timeout_ms = 1,.timeout_ms = 1};
	char		err[256] = "";
	Cache	   *cache = cache_open(&config, err, sizeof(err));

	PROPERTY((cache != NULL) == (err[0] == '\0'));
	check_words(err);
	if (cache)
	{
		PROPERTY(cache->host && cache->host[0] != '\0' && strlen(cache->host) <= strlen(url));
		PROPERTY(cache->port >= 0 && cache->port <= 65535 && cache->db >= 0);
		PROPERTY(cache->port > 0 || cache->host[0] == '/');
		PROPERTY(cache->password == NULL || strlen(cache->password) <= strlen(url));
	}
	cache_close(cache);
}

int
fuzz_redis(const uint8_t *data, size_t size)
{
	FuzzInput	input = fuzz_input(data, size);
	int			what = fuzz_byte(&input);
	size_t		length = (size_t) (input.end - input.at);

	if (length > LONGEST)
		return 0;
	if (what % 6 == 0)
		check_get(input.at, length);
	else if (what % 6 <= 3)
		check_put(input.at, length, what % 6);
	else
	{
		char	   *url = fuzz_rest(&input);

		check_address(url);
		free(url);
	}
	return 0;
}
