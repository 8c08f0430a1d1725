/*
 * ssrf.c
 *		Which addresses a webhook may be sent to.
 *
 * An address is judged by tables: IPv4 by what is not public, IPv6 by what is
 * not public within 2000::/3, and nothing outside of it is.  An address that
 * carries an IPv4 address to where a gateway sends the packets is judged by
 * what it carries.
 */
#include "ssrf.h"
#include "explain.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HOST_MAX		255
#define URL_MAX			8192	/* bytes: servers take no longer request line */
#define LIST_SEPARATORS	", \t\r\n"

#define lengthof(array)		((int) (sizeof(array) / sizeof((array)[0])))

/* A network; IPv4 as the last four bytes. */
typedef struct Network
{
	int			family;
	int			bits;
	uint8_t		bytes[16];
} Network;

struct SsrfAllow
{
	int			count;
	Network		networks[];
};

typedef struct Forbidden4
{
	uint32_t	address;
	int			bits;
	const char *reason;
} Forbidden4;

#define IP4(a, b, c, d) \
	((uint32_t) (a) << 24 | (uint32_t) (b) << 16 | (uint32_t) (c) << 8 | (uint32_t) (d))

/* Single addresses first: the first that fits gives the word. */
static const Forbidden4 forbidden4[] = {
	{IP4(169, 254, 169, 254), 32, "metadata"},	/* nearly every cloud */
	{IP4(169, 254, 170, 2), 32, "metadata"},	/* AWS, containers */
	{IP4(100, 100, 100, 200), 32, "metadata"},	/* Alibaba */
	{IP4(168, 63, 129, 16), 32, "metadata"},	/* Azure; looks public */
	{IP4(192, 0, 0, 192), 32, "metadata"},	/* Oracle */
	{IP4(255, 255, 255, 255), 32, "broadcast"},
	{IP4(0, 0, 0, 0), 8, "unspecified"},
	{IP4(10, 0, 0, 0), 8, "private"},
	{IP4(100, 64, 0, 0), 10, "shared"},
	{IP4(127, 0, 0, 0), 8, "loopback"},
	{IP4(169, 254, 0, 0), 16, "link-local"},
	{IP4(172, 16, 0, 0), 12, "private"},
	{IP4(192, 0, 0, 0), 24, "reserved"},
	{IP4(192, 0, 2, 0), 24, "documentation"},
	{IP4(192, 88, 99, 0), 24, "reserved"},	/* the relays of 6to4 */
	{IP4(192, 168, 0, 0), 16, "private"},
	{IP4(198, 18, 0, 0), 15, "benchmarking"},
	{IP4(198, 51, 100, 0), 24, "documentation"},
	{IP4(203, 0, 113, 0), 24, "documentation"},
	{IP4(224, 0, 0, 0), 4, "multicast"},
	{IP4(240, 0, 0, 0), 4, "reserved"},
};

typedef struct Network6
{
	uint8_t		bytes[16];
	int			bits;
	const char *reason;			/* NULL: judged by the IPv4 address in it */
} Network6;

/* The first that fits decides; without one, an address is reserved. */
static const Network6 networks6[] = {
	{{[15] = 1}, 128, "loopback"},
	{{0}, 128, "unspecified"},
	{{0}, 96, "reserved"},		/* v4-compatible */
	{{0x00, 0x64, 0xff, 0x9b}, 96, NULL},	/* NAT64 */
	{{0xfd, 0x00, 0x0e, 0xc2,[14] = 0x02,[15] = 0x54}, 128, "metadata"},	/* AWS */
	{{0xfd, 0x20, 0x00, 0xce,[14] = 0x02,[15] = 0x54}, 128, "metadata"},	/* Google */
	{{0xfc}, 7, "private"},
	{{0xfe, 0x80}, 10, "link-local"},
	{{0xfe, 0xc0}, 10, "private"},
	{{0xff}, 8, "multicast"},
	{{0x20, 0x01, 0x00, 0x00}, 32, NULL},	/* Teredo */
	{{0x20, 0x01, 0x00, 0x00}, 23, "reserved"}, /* protocols' own */
	{{0x20, 0x01, 0x0d, 0xb8}, 32, "documentation"},
	{{0x20, 0x02}, 16, NULL},	/* 6to4 */
	{{0x3f, 0xff, 0x00, 0x00}, 20, "documentation"},
	{{0x20}, 3, ""},			/* public */
};

/* Are the first bits of two addresses equal? */
static bool
same_bits(const uint8_t *a, const uint8_t *b, int bits)
{
	int			whole = bits / 8;
	int			rest = bits % 8;

	if (memcmp(a, b, whole) != 0)
		return false;
	return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

/* ---------- addresses ---------- */

/* The bytes of an address, a v4-mapped one as IPv4; 0 if it is neither. */
static int
unwrap(const struct sockaddr *address, uint8_t *bytes)
{
	static const uint8_t mapped[12] = {[10] = 0xff,[11] = 0xff};

	if (address->sa_family == AF_INET)
	{
		memcpy(bytes, &((const struct sockaddr_in *) address)->sin_addr, 4);
		return AF_INET;
	}
	if (address->sa_family != AF_INET6)
		return 0;
	memcpy(bytes, &((const struct sockaddr_in6 *) address)->sin6_addr, 16);
	if (memcmp(bytes, mapped, sizeof(mapped)) != 0)
		return AF_INET6;
	memmove(bytes, bytes + 12, 4);
	return AF_INET;
}

/* Why an IPv4 address is not public; NULL if it is. */
static const char *
judge4(const uint8_t *bytes)
{
	uint32_t	address = IP4(bytes[0], bytes[1], bytes[2], bytes[3]);

	for (int i = 0; i < lengthof(forbidden4); i++)
		if (((address ^ forbidden4[i].address) >> (32 - forbidden4[i].bits)) == 0)
			return forbidden4[i].reason;
	return NULL;
}

/* Why an address that tunnels to IPv4 addresses is not public; NULL if it is. */
static const char *
judge_tunnel(const uint8_t *bytes)
{
	const char *reason;
	uint8_t		client[4];

	if (bytes[0] == 0x00)		/* NAT64 */
		return judge4(bytes + 12);
	if (bytes[1] == 0x02)		/* 6to4 */
		return judge4(bytes + 2);

	/* Teredo: its server, and the client's address with all bits inverted */
	reason = judge4(bytes + 4);
	for (int i = 0; i < 4; i++)
		client[i] = (uint8_t) ~bytes[12 + i];
	return reason ? reason : judge4(client);
}

/* Why an IPv6 address is not public; NULL if it is. */
static const char *
judge6(const uint8_t *bytes)
{
	for (int i = 0; i < lengthof(networks6); i++)
	{
		const Network6 *network = &networks6[i];

		if (!same_bits(bytes, network->bytes, network->bits))
			continue;
		if (network->reason == NULL)
			return judge_tunnel(bytes);
		return *network->reason ? network->reason : NULL;
	}
	return "reserved";
}

bool
ssrf_permits(const SsrfAllow *allow, const struct sockaddr *address, const char **reason)
{
	uint8_t		bytes[16];
	int			family = unwrap(address, bytes);
	const char *why;

	if (family == 0)
		why = "no internet address";
	else
		why = family == AF_INET ? judge4(bytes) : judge6(bytes);
	for (int i = 0; why && allow && i < allow->count; i++)
		if (allow->networks[i].family == family &&
			same_bits(bytes, allow->networks[i].bytes, allow->networks[i].bits))
			why = NULL;
	if (reason)
		*reason = why;
	return why == NULL;
}

/* ---------- the list of exceptions ---------- */

/* Read "address" or "address/bits"; a v4-mapped network becomes one of IPv4. */
static bool
read_network(const char *text, Network *network)
{
	struct sockaddr_in6 six = {.sin6_family = AF_INET6};
	char		address[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	size_t		length = slash ? (size_t) (slash - text) : strlen(text);
	int			most;

	if (length >= sizeof(address))
		return false;
	memcpy(address, text, length);
	address[length] = '\0';
	if (inet_pton(AF_INET, address, network->bytes) == 1)
		network->family = AF_INET;
	else if (inet_pton(AF_INET6, address, &six.sin6_addr) == 1)
		network->family = AF_INET6;
	else
		return false;

	most = network->family == AF_INET ? 32 : 128;
	network->bits = most;
	if (slash)
	{
		char	   *end;

		if (!isdigit((unsigned char) slash[1]) || strlen(slash + 1) > 3)
			return false;
		network->bits = (int) strtol(slash + 1, &end, 10);
		if (*end || network->bits > most)
			return false;
	}
	if (network->family == AF_INET6)
	{
		network->family = unwrap((struct sockaddr *) &six, network->bytes);
		if (network->family == AF_INET && network->bits < 96)
			return false;
		if (network->family == AF_INET)
			network->bits -= 96;
	}
	return true;
}

/* Has a network bits beyond its length ("10.0.0.1/8")?  That is mostly a slip. */
static bool
has_host_bits(const Network *network)
{
	int			most = network->family == AF_INET ? 32 : 128;

	for (int i = network->bits; i < most; i++)
		if (network->bytes[i / 8] & 0x80 >> i % 8)
			return true;
	return false;
}

SsrfAllow *
ssrf_allow_parse(const char *list, char *err, size_t errlen)
{
	size_t		most = (list ? strlen(list) : 0) / 2 + 1;	/* "a,b,c" */
	SsrfAllow  *allow = calloc(1, sizeof(SsrfAllow) + most * sizeof(Network));
	char	   *copy = strdup(list ? list : "");
	char	   *rest = NULL;

	if (allow == NULL || copy == NULL)
		explain(err, errlen, "out of memory");
	else
	{
		char	   *text = strtok_r(copy, LIST_SEPARATORS, &rest);

		for (; text; text = strtok_r(NULL, LIST_SEPARATORS, &rest))
		{
			Network    *network = &allow->networks[allow->count];

			if (!read_network(text, network))
				explain(err, errlen, "\"%.60s\" is not a network", text);
			else if (has_host_bits(network))
				explain(err, errlen, "network \"%.60s\" has bits set to the right of its mask", text);
			else
			{
				allow->count++;
				continue;
			}
			break;
		}
		if (text == NULL)
		{
			free(copy);
			return allow;
		}
	}
	free(copy);
	free(allow);
	return NULL;
}

void
ssrf_allow_free(SsrfAllow *allow)
{
	free(allow);
}

/* ---------- URLs ---------- */

/* Is the port behind a host absent, empty, or a number that is one? */
static bool
check_port(const char *text, size_t length)
{
	long		port = 0;

	if (length == 0)
		return true;
	if (text[0] != ':')
		return false;
	for (size_t i = 1; i < length; i++)
	{
		if (!isdigit((unsigned char) text[i]))
			return false;
		port = port * 10 + (text[i] - '0');
		if (port > 65535)
			return false;
	}
	return length == 1 || port > 0;
}

/* Judge a host that is a literal address; true for a name. */
static bool
check_literal(const SsrfAllow *allow, char *host, bool bracketed, char *err, size_t errlen)
{
	struct sockaddr_in four = {.sin_family = AF_INET};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6,.sin6_addr = IN6ADDR_LOOPBACK_INIT};
	const struct sockaddr *address = (struct sockaddr *) &four;
	size_t		length = strlen(host);
	const char *reason;

	if (!bracketed && host[length - 1] == '.')
		host[--length] = '\0';	/* the root of names; libcurl cuts it off too */
	if (length == 0)
		return explain(err, errlen, "the URL has no host");

	if (bracketed)
	{
		if (inet_pton(AF_INET6, host, &six.sin6_addr) != 1)
			return explain(err, errlen, "the URL has a wrong IPv6 address");
		address = (struct sockaddr *) &six;
	}
	else if (strcasecmp(host, "localhost") == 0 ||
			 (length > 10 && strcasecmp(host + length - 10, ".localhost") == 0))
	{
		/* no resolver is asked for this name: either address will do */
		if (ssrf_permits(allow, (struct sockaddr *) &six, NULL))
			return true;
		four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	}
	else if (inet_aton(host, &four.sin_addr) == 0)
		return true;
	if (!ssrf_permits(allow, address, &reason))
		return explain(err, errlen, "address \"%s\" is not permitted: %s", host, reason);
	return true;
}

/* The value of a hexadecimal digit. */
static int
digit(char c)
{
	return isdigit((unsigned char) c) ? c - '0' : (tolower((unsigned char) c) - 'a') + 10;
}

bool
ssrf_check_path(const char *url, char *err, size_t errlen)
{
	const char *c = strstr(url, "//");
	size_t		length = 0;		/* of the segment so far */
	bool		dots = true;	/* it has nothing else so far */

	c = c ? c + 2 : url;
	if (memchr(c, '@', strcspn(c, "/?#")))
		return explain(err, errlen, "the URL has a user or a password");
	if (memchr(c, '%', strcspn(c, "/?#")))
		return explain(err, errlen, "the URL's host has a character that is not allowed");
	for (c += strcspn(c, "/?#");; c++)
	{
		bool		encoded = *c == '%' && isxdigit((unsigned char) c[1]) && isxdigit((unsigned char) c[2]);
		char		byte = encoded ? (char) (digit(c[1]) * 16 + digit(c[2])) : *c;

		if (encoded)
			c += 2;
		if (byte == '/' || byte == '\\' || (!encoded && (byte == '\0' || byte == '?' || byte == '#')))
		{
			if (dots && (length == 1 || length == 2))
				return explain(err, errlen, "the URL's path has a segment \".\" or \"..\"");
			length = 0;
			dots = true;
			if (!encoded && byte != '/' && byte != '\\')
				return true;
			continue;
		}
		length++;
		dots = dots && byte == '.';
	}
}

bool
ssrf_check_url(const SsrfAllow *allow, const char *url, char *err, size_t errlen)
{
	const char *authority;
	size_t		length;
	size_t		end;
	bool		bracketed;
	char		host[HOST_MAX + 1];

	if (strlen(url) > URL_MAX)
		return explain(err, errlen, "the URL has more than %d bytes", URL_MAX);
	for (const char *c = url; *c; c++)
		if ((unsigned char) *c <= ' ' || *c == 0x7f || *c == '\\')
			return explain(err, errlen, "the URL has a blank, a backslash or a control character");
	if (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0)
		return explain(err, errlen, "the URL starts neither with http:// nor with https://");
	authority = strstr(url, "//") + 2;
	length = strcspn(authority, "/?#");
	if (memchr(authority, '@', length))
		return explain(err, errlen, "the URL has a user or a password");

	bracketed = authority[0] == '[';
	if (bracketed)
	{
		authority++;
		length--;
		end = strcspn(authority, "]");
	}
	else
		end = strcspn(authority, ":/?#");
	if (end >= (bracketed ? length : length + 1))
		return explain(err, errlen, "the URL has a wrong IPv6 address");
	if (end == 0)
		return explain(err, errlen, "the URL has no host");
	if (end > HOST_MAX)
		return explain(err, errlen, "the URL's host is too long");
	memcpy(host, authority, end);
	host[end] = '\0';

	/* libcurl would decode a %; letters beyond ASCII are for IDN */
	for (const char *c = host; *c && !bracketed; c++)
		if (!isalnum((unsigned char) *c) && !strchr("-._", *c) && (unsigned char) *c < 0x80)
			return explain(err, errlen, "the URL's host has a character that is not allowed");
	if (bracketed)
		end++;
	if (!check_port(authority + end, length - end))
		return explain(err, errlen, "the URL's port is wrong");
	return check_literal(allow, host, bracketed, err, errlen) && ssrf_check_path(url, err, errlen);
}
