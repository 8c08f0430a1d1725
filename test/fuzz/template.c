/*
 * template.c
 *		Fuzzes requests that templates and messages make: URLs, headers, bodies (src/request.c, src/headers.c,
 *		src/webhook_functions.c).
 *
 * What a message fills into a URL changes none of its parts but those where its placeholders are; no header of
 * a message takes the place of one of ours; a body that is said to be JSON is.  A line each: URL, proxy, key, event
 * type, headers of the webhook, headers of the message, body template, payload.
 */
#include "backend.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "headers.h"
#include "names.h"
#include "record.h"
#include "request.h"
#include "rest_error.h"
#include "ssrf.h"

extern int	fuzz_template(const uint8_t *data, size_t size);
extern Datum msg_webhook_check(PG_FUNCTION_ARGS);

typedef struct Parts
{
	char	   *lines[8];
} Parts;

enum
{
	URL, PROXY, KEY, EVENT_TYPE, WEBHOOK_HEADERS, HEADERS, TEMPLATE, PAYLOAD
};

static int
count(const char *text, char c)
{
	int			n = 0;

	for (; *text; text++)
		n += *text == c;
	return n;
}

/* A message's headers, as the trigger has them checked. */
static void
check_name(const char *name, int length)
{
	if (length == 0 || has_control_character(name, length) || record_header_reserved(name, length))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a header's name")));
}

/* The URL is as the template, but for its placeholders. */
static void
check_url(const char *template, const char *url)
{
	char		err[200];
	const char *marks = "/?#&=@:";
	size_t		fixed = strcspn(template, "{");

	PROPERTY(strncmp(url, template, fixed) == 0);
	for (const char *mark = marks; *mark; mark++)
		PROPERTY(count(url, *mark) == count(template, *mark));
	for (const char *c = url; *c; c++)
		PROPERTY((unsigned char) *c > ' ' && *c != 0x7f && *c != '\\');
	/* where the host is without placeholders, it is what was checked when the template was stored */
	if (fixed >= strlen("https://") + strcspn(template + strlen("https://"), "/?#") && ssrf_check_path(url, err, sizeof(err)))
		PROPERTY(ssrf_check_url(NULL, url, err, sizeof(err)) || strlen(url) > 8192);
}

static void
check_headers(const Request *request, const Webhook *webhook)
{
	static const char *const once[] = {"Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Authorization", "User-Agent", "webhook-id", "Cookie"};

	for (int i = 0; i < request->nheaders; i++)
	{
		const char *name = request->headers[i].name;

		PROPERTY(header_name_is_token(name, strlen(name)));
		PROPERTY(!has_control_character(request->headers[i].value, strlen(request->headers[i].value)));
	}
	for (int k = 0; k < lengthof(once); k++)
	{
		int			ours = 0;
		int			all = 0;

		for (int i = 0; i < webhook->nheaders; i++)
			ours += pg_strcasecmp(webhook->headers[i].name, once[k]) == 0;
		for (int i = 0; i < request->nheaders; i++)
			all += pg_strcasecmp(request->headers[i].name, once[k]) == 0;
		/* one of ours, and the webhook's; none of the message's */
		PROPERTY(all == ours + (k == 2 || k == 5));
	}
}

static Jsonb *
json(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

static void
add_headers(Webhook *webhook, Jsonb *headers)
{
	HeaderWalk	walk;
	JsonbValue	name;
	JsonbValue	value;

	webhook->headers = palloc((JB_ROOT_COUNT(headers) + 1) * sizeof(HttpHeader));
	headers_begin(&walk, headers);
	while (headers_next(&walk, &name, &value))
	{
		webhook->headers[webhook->nheaders].name = pnstrdup(name.val.string.val, name.val.string.len);
		webhook->headers[webhook->nheaders++].value = pnstrdup(value.val.string.val, value.val.string.len);
	}
}

/* Store a webhook and a message, and make the request. */
static void
build(void *arg)
{
	char	  **lines = ((Parts *) arg)->lines;
	Webhook		webhook = {.channel = "c",.url = lines[URL],.cloudevents = lines[KEY][0] == 'c'};
	ClaimedRow	row = {.id = 42,.epoch = FUZZ_EPOCH,.created_at = 0,.expires_at = DT_NOEND,.key = lines[KEY]};
	Request		request;
	Jsonb	   *headers = NULL;
	LOCAL_FCINFO(info, 3);

	/* the trigger lets none in */
	if (has_control_character(lines[EVENT_TYPE], strlen(lines[EVENT_TYPE])))
		return;
	for (int i = 0; i < lengthof(((Parts *) arg)->lines); i++)
		pg_verify_mbstr(PG_UTF8, lines[i], strlen(lines[i]), false);
	row.key_length = strlen(row.key);
	row.event_type = cstring_to_text(lines[EVENT_TYPE]);
	if (lines[WEBHOOK_HEADERS][0])
		headers = json(lines[WEBHOOK_HEADERS]);
	InitFunctionCallInfoData(*info, NULL, 3, InvalidOid, NULL, NULL);
	info->args[0] = (NullableDatum)
	{
		CStringGetTextDatum(lines[URL]), false
	};
	info->args[1] = (NullableDatum)
	{
		headers ? JsonbPGetDatum(headers) : (Datum) 0, headers == NULL
	};
	info->args[2] = (NullableDatum)
	{
		CStringGetTextDatum(lines[PROXY]), false
	};
	msg_webhook_check(info);
	if (headers)
		add_headers(&webhook, headers);
	if (lines[HEADERS][0])
	{
		row.headers = json(lines[HEADERS]);
		headers_check(row.headers, check_name);
	}
	if (lines[TEMPLATE][0])
		webhook.body_template = json(lines[TEMPLATE]);
	row.payload = lines[PAYLOAD][0] ? json(lines[PAYLOAD]) : NULL;
	row.body = (bytea *) cstring_to_text("\1\2");
	request_build(&request, &webhook, &row, 1);
	check_url(webhook.url, request.url);
	check_headers(&request, &webhook);
	PROPERTY(!request.json || (strlen(request.body) == request.body_length && rest_try_json(request.body) != NULL));
}

int
fuzz_template(const uint8_t *data, size_t size)
{
	FuzzInput	input = fuzz_input(data, size);
	Parts		parts;

	for (int i = 0; i < lengthof(parts.lines); i++)
		parts.lines[i] = fuzz_line(&input);
	(void) fuzz_try(build, &parts);
	for (int i = 0; i < lengthof(parts.lines); i++)
		(free) (parts.lines[i]);
	return 0;
}
