/*
 * request.c
 *		A message as a request of its channel's webhook: URL, headers, body, signature.
 */
#include "msgsys.h"

#include "headers.h"
#include "json_fields.h"
#include "payload.h"
#include "record.h"
#include "request.h"
#include "worker.h"

#include "lib/stringinfo.h"
#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

/* A message, as the placeholders of templates see it. */
typedef struct Subject
{
	const ClaimedRow *row;
	const Webhook *webhook;
	const char *webhook_id;
	int			attempt;
} Subject;

/* Names that HTTP or we give a meaning of their own. */
static const char *const reserved[] = {
	"host", "content-length", "content-type", "transfer-encoding", "connection", "expect", "upgrade", "te", "trailer", "keep-alive",
	"proxy-authorization", "proxy-connection", "webhook-id", "webhook-timestamp", "webhook-signature"
};

/*
 * Names that a message does not set, beyond those: who it comes from, and the way that it takes, are
 * the webhook's to say.
 */
static const char *const not_of_messages[] = {
	"authorization", "cookie", "set-cookie", "forwarded", "via", "date", "user-agent", "content-encoding", "accept-encoding", "max-forwards", "http2-settings",
	"range", "content-range", "x-host", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-remote-addr", "x-remote-user", "remote-user", "client-ip",
	"true-client-ip", "cf-connecting-ip", "fastly-client-ip"
};

/* Beginnings of such names. */
static const char *const not_of_messages_beginnings[] = {
	"proxy-", "x-forwarded", "webhook-", "content-length", "transfer-encoding", "sec-",
	/* with these many servers and frameworks take the request for one with another method or path */
	"x-http-method", "x-method-override", "x-original-", "x-rewrite-"
};

/* A character of a name as a server may see it that makes a variable of it (RFC 3875, 4.1.18). */
static char
folded(char c)
{
	return isalnum((unsigned char) c) ? pg_tolower((unsigned char) c) : '-';
}

/* Whether two names are the same to a server that takes case, _, - and all other marks for one. */
static bool
look_alike(const char *name, size_t length, const char *other, size_t other_length)
{
	if (length != other_length)
		return false;
	for (size_t i = 0; i < length; i++)
		if (folded(name[i]) != folded(other[i]))
			return false;
	return true;
}

/* Whether a message's header is none that it may set, for a webhook with these headers. */
static bool
refused_of_message(const Webhook *webhook, const char *name, size_t length)
{
	for (int i = 0; i < lengthof(reserved); i++)
		if (look_alike(name, length, reserved[i], strlen(reserved[i])))
			return true;
	for (int i = 0; i < lengthof(not_of_messages); i++)
		if (look_alike(name, length, not_of_messages[i], strlen(not_of_messages[i])))
			return true;
	for (int i = 0; i < lengthof(not_of_messages_beginnings); i++)
	{
		size_t		begin = strlen(not_of_messages_beginnings[i]);

		if (length >= begin && look_alike(name, begin, not_of_messages_beginnings[i], begin))
			return true;
	}
	for (int i = 0; i < webhook->nheaders; i++)
		if (look_alike(name, length, webhook->headers[i].name, strlen(webhook->headers[i].name)))
			return true;
	return length >= 3 && look_alike(name, 3, "ce-", 3);
}

/* Whether a header may not be set by users. */
bool
request_header_reserved(const char *name, size_t length)
{
	for (int i = 0; i < lengthof(reserved); i++)
		if (strlen(reserved[i]) == length && pg_strncasecmp(reserved[i], name, length) == 0)
			return true;
	return length >= 3 && pg_strncasecmp(name, "ce-", 3) == 0;
}

/* ---------------------------------------------------------------- size */

/* A body may be so long, however little msgsys.max_message_bytes is now: the message was taken when it was more. */
#define BODY_LEAST		(16 * 1024 * 1024)

static size_t
body_most(void)
{
	return Max(setting_max_message_bytes, BODY_LEAST);
}

/* Refuse a body before it is made: one number of a few bytes may be a text of 147 kB. */
static void
check_body(size_t length)
{
	if (length > body_most())
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the body is longer than %zu bytes", body_most())));
}

static void
check_json(Jsonb *json)
{
	if (!payload_fits(json, body_most()))
		check_body(payload_text_size(json));
}

/* ---------------------------------------------------------------- placeholders */

static char *
text_or_empty(text *value)
{
	return value ? text_to_cstring(value) : "";
}

/* What a placeholder of a plain value stands for; NULL if there is no such one. */
static const char *
plain_value(const Subject *subject, const char *name, size_t length)
{
	const ClaimedRow *row = subject->row;

#define IS(word) (length == strlen(word) && strncmp(name, word, length) == 0)
	if (IS("id"))
		return psprintf(INT64_FORMAT, row->id);
	if (IS("uuid"))
		return subject->webhook_id;
	if (IS("key"))
		return row->key ? pnstrdup(row->key, row->key_length) : "";
	if (IS("event_type"))
		return text_or_empty(row->event_type);
	if (IS("channel"))
		return subject->webhook->channel;
	if (IS("created_at"))
		return record_time(row->created_at);
	if (IS("attempt"))
		return psprintf("%d", subject->attempt);
#undef IS
	return NULL;
}

/* The part of the payload that "payload.a.b" names; false if there is none. */
static bool
payload_value(const Subject *subject, const char *name, size_t length, JsonbValue *value)
{
	const char *end = name + length;
	const char *part = name + strlen("payload");
	JsonbContainer *container;

	if (subject->row->payload == NULL)
		return false;
	container = &subject->row->payload->root;
	value->type = jbvBinary;
	value->val.binary.data = container;
	value->val.binary.len = VARSIZE(subject->row->payload) - VARHDRSZ;
	/* a scalar at the root is an array that says so */
	if (JsonContainerIsScalar(container))
		*value = *getIthJsonbValueFromContainer(container, 0);
	while (part < end)
	{
		const char *stop = memchr(part + 1, '.', end - part - 1);
		JsonbValue *found;

		if (stop == NULL)
			stop = end;
		if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
			return false;
		found = getKeyJsonValueFromContainer(value->val.binary.data, part + 1, stop - part - 1, NULL);
		if (found == NULL)
			return false;
		*value = *found;
		part = stop;
	}
	return true;
}

static bool
is_payload(const char *name, size_t length)
{
	return length >= 7 && strncmp(name, "payload", 7) == 0 && (length == 7 || name[7] == '.');
}

/*
 * As it may stand in a URL: only what RFC 3986 calls unreserved, and of that no dots before the
 * query, since they mean something in a path.
 */
static void
append_encoded(StringInfo out, const char *text)
{
	const char *as_they_are = strchr(out->data, '?') ? "-._~" : "-_~";

	for (; *text; text++)
		if (isalnum((unsigned char) *text) || strchr(as_they_are, *text))
			appendStringInfoChar(out, *text);
		else
			appendStringInfo(out, "%%%02X", (unsigned char) *text);
}

/* A template with its placeholders replaced; what is none stays as it is. */
static char *
fill(const char *template, size_t length, const Subject *subject, bool for_url)
{
	StringInfoData out;
	const char *end = template + length;

	initStringInfo(&out);
	while (template < end)
	{
		const char *close = *template == '{' ? memchr(template, '}', end - template) : NULL;
		const char *name = template + 1;
		size_t		n = close ? close - name : 0;
		const char *plain = close ? plain_value(subject, name, n) : NULL;
		JsonbValue	value;

		if (plain && for_url)
			append_encoded(&out, plain);
		else if (plain)
			appendStringInfoString(&out, plain);
		else if (close && !for_url && is_payload(name, n))
		{
			if (payload_value(subject, name, n, &value))
				record_append_json(&out, &value);
		}
		else
		{
			appendStringInfoChar(&out, *template++);
			continue;
		}
		template = close + 1;
		check_body(out.len);
	}
	return out.data;
}

/* A string of the template as a value: a placeholder alone is what it stands for, with its type. */
static void
fill_value(JsonbValue *value, const Subject *subject)
{
	const char *text = value->val.string.val;
	int			length = value->val.string.len;
	char	   *filled;

	if (length > 2 && text[0] == '{' && memchr(text, '}', length) == text + length - 1)
	{
		if (is_payload(text + 1, length - 2) && subject->row->payload)
		{
			if (!payload_value(subject, text + 1, length - 2, value))
				value->type = jbvNull;
			return;
		}
		if (length == 4 && strncmp(text, "{id}", 4) == 0)
		{
			value->type = jbvNumeric;
			value->val.numeric = DatumGetNumeric(DirectFunctionCall1(int8_numeric, Int64GetDatum(subject->row->id)));
			return;
		}
	}
	filled = fill(text, length, subject, false);
	value->val.string.val = filled;
	value->val.string.len = strlen(filled);
}

/* The body that a template makes. */
static void
fill_body(Request *request, Jsonb *template, const Subject *subject)
{
	JsonbIterator *it = JsonbIteratorInit(&template->root);
	JsonbParseState *state = NULL;
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbValue *result = NULL;
	Jsonb	   *body;
	size_t		length = 0;

	if (subject->row->payload)
		check_json(subject->row->payload);
	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		if ((token == WJB_VALUE || token == WJB_ELEM) && value.type == jbvString)
		{
			fill_value(&value, subject);
			length += value.type == jbvString ? value.val.string.len : value.type == jbvBinary ? value.val.binary.len : 1;
			check_body(length);
		}
		result = pushJsonbValue(&state, token,
								token == WJB_KEY || token == WJB_VALUE || token == WJB_ELEM ? &value : NULL);
	}
	body = JsonbValueToJsonb(result);
	check_json(body);
	request->body = JsonbToCString(NULL, &body->root, VARSIZE(body));
	request->body_length = strlen(request->body);
}

/* ---------------------------------------------------------------- the request */

static void
add(Request *request, const char *name, const char *value)
{
	request->headers[request->nheaders].name = name;
	request->headers[request->nheaders++].value = value;
}

/* The message's own headers, but for those that HTTP cannot carry or that are not theirs. */
static void
add_own(Request *request, const Webhook *webhook, Jsonb *own)
{
	HeaderWalk	walk;
	JsonbValue	name = {0};
	JsonbValue	value;

	headers_begin(&walk, own);
	while (headers_next(&walk, &name, &value))
		if (value.type == jbvString && header_name_is_token(name.val.string.val, name.val.string.len) &&
			!refused_of_message(webhook, name.val.string.val, name.val.string.len))
			add(request, pnstrdup(name.val.string.val, name.val.string.len),
				pnstrdup(value.val.string.val, value.val.string.len));
}

/* Make a claimed row the request of this attempt, but for its signature. */
void
request_build(Request *request, const Webhook *webhook, const ClaimedRow *row, int attempt)
{
	Subject		subject = {.row = row,.webhook = webhook,.attempt = attempt};
	int			room = 8 + webhook->nheaders + (row->headers ? JB_ROOT_COUNT(row->headers) : 0) +
	REQUEST_SIGNATURE_HEADERS;

	memset(request, 0, sizeof(*request));
	request->webhook_id = subject.webhook_id = message_name(row->epoch, row->id);
	request->url = strchr(webhook->url, '{') ? fill(webhook->url, strlen(webhook->url), &subject, true) :
		pstrdup(webhook->url);
	if (webhook->body_template)
		fill_body(request, webhook->body_template, &subject);
	else if (row->payload)
	{
		check_json(row->payload);
		request->body = JsonbToCString(NULL, &row->payload->root, VARSIZE(row->payload));
		request->body_length = strlen(request->body);
	}
	else
	{
		request->body_length = VARSIZE_ANY_EXHDR(row->body);
		request->body = memcpy(palloc(request->body_length + 1), VARDATA_ANY(row->body), request->body_length);
	}

	request->json = webhook->body_template || row->payload;
	request->headers = palloc(room * sizeof(HttpHeader));
	add(request, "Content-Type", webhook->body_template ? "application/json" :
		row->content_type ? text_to_cstring(row->content_type) :
		row->payload ? "application/json" : "application/octet-stream");
	add(request, "User-Agent", MSGSYS_NAME "/" MSGSYS_VERSION);
	if (webhook->cloudevents)
	{
		add(request, "ce-specversion", "1.0");
		add(request, "ce-id", request->webhook_id);
		add(request, "ce-source", pstrdup(record_source()));
		add(request, "ce-type", row->event_type ? text_to_cstring(row->event_type) : "msgsys.message");
		add(request, "ce-time", pstrdup(record_time(row->created_at)));
	}
	for (int i = 0; i < webhook->nheaders; i++)
		add(request, pstrdup(webhook->headers[i].name), pstrdup(webhook->headers[i].value));
	if (row->headers)
		add_own(request, webhook, row->headers);
}

/*
 * Sign a request, now: https://www.standardwebhooks.com, 1.0.0.  Its id and time
 * are sent without a secret too.  Returns false where a secret cannot be read.
 */
bool
request_sign(Request *request, const Webhook *webhook)
{
	TimestampTz now = GetCurrentTimestamp();
	const char *secrets[SIGNATURE_SECRETS_MAX];
	int			n = 0;
	pg_time_t	seconds = timestamptz_to_time_t(now);

	for (int i = 0; i < webhook->nsecrets; i++)
		if (webhook->secrets[i].expires_at > now)
			secrets[n++] = webhook->secrets[i].value;
	snprintf(request->timestamp, sizeof(request->timestamp), INT64_FORMAT, (int64) seconds);
	add(request, "webhook-id", request->webhook_id);
	add(request, "webhook-timestamp", request->timestamp);
	if (n == 0)
		return true;
	if (!signature_sign(secrets, n, request->webhook_id, (long) seconds, request->body,
						request->body_length, request->signature))
		return false;
	add(request, "webhook-signature", request->signature);
	return true;
}

/* A request as the HTTP client takes it. */
void
request_http(const Request *request, const Webhook *webhook, HttpRequest *http)
{
	memset(http, 0, sizeof(*http));
	http->method = webhook->method;
	http->url = request->url;
	http->headers = request->headers;
	http->nheaders = request->nheaders;
	http->body = request->body;
	http->body_length = request->body_length;
	http->connect_timeout_ms = webhook->connect_timeout_ms;
	http->timeout_ms = webhook->timeout_ms;
	http->http2 = webhook->http2;
	http->redirects = webhook->redirects;
	http->ca_file = webhook->ca_file;
	http->client_cert = webhook->client_cert;
	http->client_key = webhook->client_key;
	http->proxy = webhook->proxy;
}

/* How a client for webhooks is opened: PostgreSQL's own port is never called. */
void
request_client_config(HttpClientConfig *config, Reactor *reactor, int max_connections)
{
	static int	ports[1];

	ports[0] = PostPortNumber;
	memset(config, 0, sizeof(*config));
	config->reactor = reactor;
	config->max_connections = max_connections;
	config->allow = setting_webhook_allow;
	config->forbidden_ports = ports;
	config->nforbidden_ports = lengthof(ports);
}
