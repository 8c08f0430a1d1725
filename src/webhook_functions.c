/*
 * webhook_functions.c
 *		SQL functions of webhooks: checking what is to be stored, and secrets.
 */
#include "msgsys.h"

#include "headers.h"
#include "request.h"
#include "signature.h"
#include "ssrf.h"

#include "common/base64.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(msg_webhook_check);
PG_FUNCTION_INFO_V1(msg_webhook_secret);
PG_FUNCTION_INFO_V1(msg_webhook_secret_valid);

#define SECRET_BYTES	32
#define SECRET_PREFIX	"whsec_"

/* A URL's placeholders filled with something harmless, so that what is around them can be checked. */
static char *
without_placeholders(const char *url)
{
	static const char *const names[] = {"{id}", "{uuid}", "{key}", "{event_type}", "{channel}", "{created_at}", "{attempt}"};
	StringInfoData out;

	initStringInfo(&out);
	while (*url)
	{
		size_t		length = 0;

		for (int i = 0; i < lengthof(names); i++)
			if (strncmp(url, names[i], strlen(names[i])) == 0)
				length = strlen(names[i]);
		appendStringInfoChar(&out, length ? '0' : *url);
		url += length ? length : 1;
	}
	return out.data;
}

/*
 * A proxy's URL as one whose host can be judged as a webhook's: the protocols that libcurl
 * knows proxies of, none for http, may have a user and a password.  NULL: it is none.
 */
static const char *
proxy_as_url(const char *proxy)
{
	static const char *const schemes[] = {"http", "https", "socks4", "socks4a", "socks5", "socks5h"};
	const char *rest = strstr(proxy, "://");
	bool		known = rest == NULL;
	const char *at;

	for (int i = 0; rest && i < lengthof(schemes); i++)
		known |= strlen(schemes[i]) == rest - proxy && pg_strncasecmp(proxy, schemes[i], rest - proxy) == 0;
	if (!known)
		return NULL;
	rest = rest ? rest + strlen("://") : proxy;
	for (const char *c = proxy; *c; c++)
		if ((unsigned char) *c <= ' ' || *c == 0x7f)
			return NULL;
	at = memchr(rest, '@', strcspn(rest, "/?#"));
	return psprintf("http://%s", at ? at + 1 : rest);
}

/* Refuse what is certainly no URL to be called; what its name leads to is judged when it is. */
static void
check_url(const char *what, const char *url)
{
	char		err[256];
	SsrfAllow  *allow = ssrf_allow_parse(setting_webhook_allow ? setting_webhook_allow : "", err, sizeof(err));
	bool		ok;

	if (allow == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("msgsys.webhook_allow is not a list of networks: %s", err)));
	ok = ssrf_check_url(allow, without_placeholders(url), err, sizeof(err));
	ssrf_allow_free(allow);
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("not a URL that %s can have: %s", what, err),
				 errhint("It is http or https; addresses that are not public have to be in msgsys.webhook_allow.")));
}

/* A name is a token of RFC 9110, and none that HTTP or we give a meaning. */
static void
check_header_name(const char *name, int length)
{
	if (!header_name_is_token(name, length))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a header's name is empty or has characters that HTTP does not allow")));
	if (request_header_reserved(name, length))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("header \"%.*s\" is one that msgsys sets itself", length, name)));
}

/*
 * msg_webhook_check(url text, headers jsonb, proxy text) returns void
 * The SQL definition has the contract.
 */
Datum
msg_webhook_check(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(0))
		check_url("a webhook", text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (!PG_ARGISNULL(1))
		headers_check(PG_GETARG_JSONB_P(1), check_header_name);
	/* an empty one takes it away */
	if (!PG_ARGISNULL(2) && VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(2)) > 0)
	{
		const char *url = proxy_as_url(text_to_cstring(PG_GETARG_TEXT_PP(2)));

		if (url)
			check_url("a proxy", url);
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("not a URL that a proxy can have"),
					 errhint("It is http, https, socks4, socks4a, socks5 or socks5h, without blanks.")));
	}
	PG_RETURN_VOID();
}

/*
 * msg_webhook_secret() returns text
 * The SQL definition has the contract.
 */
Datum
msg_webhook_secret(PG_FUNCTION_ARGS)
{
	char		bytes[SECRET_BYTES];
	char		text[sizeof(SECRET_PREFIX) + SECRET_BYTES * 2] = SECRET_PREFIX;
	int			n;

	if (!pg_strong_random(bytes, sizeof(bytes)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not make random bytes")));
	n = pg_b64_encode((void *) bytes, sizeof(bytes), text + strlen(SECRET_PREFIX),
					  sizeof(text) - strlen(SECRET_PREFIX) - 1);
	text[strlen(SECRET_PREFIX) + Max(n, 0)] = '\0';
	PG_RETURN_TEXT_P(cstring_to_text(text));
}

/*
 * msg_webhook_secret_valid(secret text) returns boolean
 * The SQL definition has the contract.
 */
Datum
msg_webhook_secret_valid(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(signature_secret_valid(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}
