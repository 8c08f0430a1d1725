/*
 * address.c
 *		Fuzzes what may be called (src/ssrf.c): addresses, lists of exceptions, URLs.
 *
 * An address that comes through is judged once more here, by other words; a URL that comes through
 * is read by libcurl, as it will be, and what that would connect to must be permitted.
 */
#include "ssrf.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <strings.h>

#include "fuzz.h"

extern int	fuzz_address(const uint8_t *data, size_t size);

/* ---------- addresses ---------- */

/* Whether an IPv4 address is certainly nobody's to call. */
static bool
is_inside4(const uint8_t *b)
{
	return b[0] == 0 || b[0] == 10 || b[0] == 127 || b[0] >= 224 || (b[0] == 169 && b[1] == 254) ||
		(b[0] == 172 && b[1] / 16 == 1) || (b[0] == 192 && b[1] == 168) || (b[0] == 100 && b[1] / 64 == 1) ||
		(b[0] == 198 && b[1] / 2 == 9) || (b[0] == 168 && b[1] == 63 && b[2] == 129 && b[3] == 16);
}

static bool
is_inside6(const struct in6_addr *address)
{
	const uint8_t *b = address->s6_addr;
	uint8_t		client[4] = {~b[12], ~b[13], ~b[14], ~b[15]};

	if (IN6_IS_ADDR_V4MAPPED(address))
		return is_inside4(b + 12);
	if (b[0] == 0 && b[1] == 0x64 && b[2] == 0xff && b[3] == 0x9b)
		return is_inside4(b + 12);
	if (b[0] == 0x20 && b[1] == 0x02)
		return is_inside4(b + 2);
	if (b[0] == 0x20 && b[1] == 0x01 && b[2] == 0 && b[3] == 0)
		return is_inside4(b + 4) || is_inside4(client);
	return b[0] / 32 != 1;
}

static bool
permits(const SsrfAllow *allow, const struct sockaddr *address)
{
	const char *reason = "";
	bool		result = ssrf_permits(allow, address, &reason);

	PROPERTY(result == (reason == NULL));
	PROPERTY(result || *reason != '\0');
	return result;
}

/* Judge an address of 4 or 16 bytes, without exceptions and with them. */
static void
check_address(const uint8_t *bytes, int family, const SsrfAllow *allow)
{
	struct sockaddr_in four = {.sin_family = AF_INET};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6};
	const struct sockaddr *address = family == AF_INET ? (struct sockaddr *) &four : (struct sockaddr *) &six;
	char		text[INET6_ADDRSTRLEN];
	char		err[200];
	SsrfAllow  *only;
	bool		public;

	memcpy(&four.sin_addr, bytes, 4);
	if (family == AF_INET6)
		memcpy(&six.sin6_addr, bytes, 16);
	public = permits(NULL, address);
	PROPERTY(!public || !(family == AF_INET ? is_inside4(bytes) : is_inside6(&six.sin6_addr)));
	PROPERTY(!public || permits(allow, address));

	/* a list of this address alone lets it in, and its neighbour no more than before */
	PROPERTY(inet_ntop(family, bytes, text, sizeof(text)) != NULL);
	only = ssrf_allow_parse(text, err, sizeof(err));
	PROPERTY(only != NULL && permits(only, address));
	four.sin_addr.s_addr ^= htonl(1);
	six.sin6_addr.s6_addr[15] ^= 1;
	PROPERTY(permits(only, address) == permits(NULL, address));
	ssrf_allow_free(only);
}

/* ---------- URLs ---------- */

/* Whether a host, as libcurl has it, is a literal address that is not permitted. */
static bool
is_forbidden(const SsrfAllow *allow, char *host)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST,.ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	size_t		length = strlen(host);
	bool		forbidden = false;

	if (host[0] == '[' && host[length - 1] == ']')
	{
		host[length - 1] = '\0';
		host++;
	}
	if (getaddrinfo(host, NULL, &hints, &found) == 0)
		forbidden = !permits(allow, found->ai_addr);
	if (found)
		freeaddrinfo(found);
	return forbidden;
}

/* Whether a path has a segment of dots, once it is decoded; its query does not count. */
static bool
has_dots(const char *path)
{
	const char *begin = path;

	for (const char *c = path;; c++)
		if (*c == '/' || *c == '\\' || *c == '\0')
		{
			size_t		length = (size_t) (c - begin);

			if ((length == 1 && *begin == '.') || (length == 2 && begin[0] == '.' && begin[1] == '.'))
				return true;
			if (*c == '\0')
				return false;
			begin = c + 1;
		}
}

static void
check_url(const SsrfAllow *allow, const char *url)
{
	char		err[200] = "";
	bool		good = ssrf_check_url(allow, url, err, sizeof(err));
	CURLU	   *parsed;
	char	   *part;

	PROPERTY(good == (err[0] == '\0'));
	PROPERTY(!good || ssrf_check_path(url, err, sizeof(err)));
	if (!good)
	{
		(void) ssrf_check_path(url, err, sizeof(err));
		return;
	}
	parsed = curl_url();
	/* PATH_AS_IS, as the requests have it */
	if (curl_url_set(parsed, CURLUPART_URL, url, CURLU_PATH_AS_IS) == CURLUE_OK)
	{
		PROPERTY(curl_url_get(parsed, CURLUPART_SCHEME, &part, 0) == CURLUE_OK);
		PROPERTY(strcasecmp(part, "http") == 0 || strcasecmp(part, "https") == 0);
		curl_free(part);
		PROPERTY(curl_url_get(parsed, CURLUPART_USER, &part, 0) == CURLUE_NO_USER);
		PROPERTY(curl_url_get(parsed, CURLUPART_PASSWORD, &part, 0) == CURLUE_NO_PASSWORD);
		PROPERTY(curl_url_get(parsed, CURLUPART_ZONEID, &part, 0) == CURLUE_NO_ZONEID);
		PROPERTY(curl_url_get(parsed, CURLUPART_HOST, &part, 0) == CURLUE_OK);
		PROPERTY(!is_forbidden(allow, part));
		curl_free(part);
		if (curl_url_get(parsed, CURLUPART_PATH, &part, CURLU_URLDECODE) == CURLUE_OK)
		{
			PROPERTY(!has_dots(part));
			curl_free(part);
		}
	}
	curl_url_cleanup(parsed);
}

int
fuzz_address(const uint8_t *data, size_t size)
{
	FuzzInput	input = fuzz_input(data, size);
	int			what = fuzz_byte(&input);
	char	   *list = fuzz_line(&input);
	char		err[200] = "";
	SsrfAllow  *allow = ssrf_allow_parse(list, err, sizeof(err));

	PROPERTY((allow != NULL) == (err[0] == '\0'));
	if (what % 3 == 0 && input.end - input.at >= 4)
		check_address(input.at, AF_INET, allow);
	else if (what % 3 == 1 && input.end - input.at >= 16)
		check_address(input.at, AF_INET6, allow);
	else if (what % 3 == 2)
	{
		char	   *url = fuzz_rest(&input);

		check_url(allow, url);
		free(url);
	}
	ssrf_allow_free(allow);
	free(list);
	return 0;
}
