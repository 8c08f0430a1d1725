/*
 * fields.c
 *		Fuzzes the header of a request by HTTP: Prefer, Accept, Range, Content-Type, Origin, Authorization
 *		(src/rest_request.c, src/http_auth.c, setting_lists() of src/msgsys.c).
 *
 * Rows asked for are within bounds, a media type is one that we make, no token of a stranger counts,
 * and no value comes back as another line.  First a byte for the method, then a line with a query, then
 * "name: value" lines.
 */
#include "backend.h"

#include "utils/memutils.h"

#include "http_auth.h"
#include "rest_error.h"
#include "rest_request.h"

extern int	fuzz_fields(const uint8_t *data, size_t size);

#define MAX_ROWS	1000

typedef struct Fields
{
	Call	   *call;
	RestQuery  *query;
	RestPrefer	prefer;
} Fields;

static void
read_prefer(void *arg)
{
	Fields	   *fields = arg;

	rest_prefer(fields->call, &fields->prefer);
	PROPERTY(fields->prefer.resolution <= RESOLUTION_IGNORE && fields->prefer.returns <= RETURN_REPRESENTATION &&
			 fields->prefer.count <= COUNT_ESTIMATED);
	PROPERTY(fields->prefer.missing >= 0 && fields->prefer.missing <= 2 && fields->prefer.transaction == 0);
	rest_prefer_applied(fields->call, &fields->prefer, true, true, true, true);
}

static void
read_media(void *arg)
{
	bool		stripped;
	RestMedia	media = rest_media(((Fields *) arg)->call, &stripped);

	PROPERTY(media == MEDIA_JSON || media == MEDIA_OBJECT || media == MEDIA_CSV);
	PROPERTY(!stripped || media != MEDIA_CSV);
}

static void
read_content_type(void *arg)
{
	const char *type = rest_content_type(((Fields *) arg)->call);

	PROPERTY(type != NULL && strpbrk(type, "; ,") == NULL);
	for (const char *c = type; *c; c++)
		PROPERTY(!isupper((unsigned char) *c));
}

static void
read_window(void *arg)
{
	Fields	   *fields = arg;
	RestWindow	window;

	if (fields->query == NULL)
		return;
	rest_window(fields->call, fields->query, &window);
	PROPERTY(window.low >= 0 && window.limit >= 0 && window.limit <= MAX_ROWS);
	/* so far behind, there is no row */
	PROPERTY(!fields->query->has_limit || window.limit <= fields->query->limit || window.low > PG_INT64_MAX - fields->query->limit);
	rest_content_range(fields->call, window.low, Min(window.limit, PG_INT64_MAX - window.low), -1);
}

static void
read_token(void *arg)
{
	Call	   *call = ((Fields *) arg)->call;

	http_auth(call);
	PROPERTY(!call->authenticated && strcmp(call->role, "nobody") == 0);
}

int
fuzz_fields(const uint8_t *data, size_t size)
{
	static bool ready = false;
	FuzzInput	input = fuzz_input(data, size);
	CallMethod	method = (CallMethod) (fuzz_byte(&input) % (METHOD_OTHER + 1));
	char	   *line = fuzz_line(&input);
	RestParseError error;
	Fields		fields = {0};
	void		(*const parts[]) (void *) = {read_prefer, read_media, read_content_type, read_window, read_token};

	if (!ready)
	{
		setting_http_jwt_secret = "a secret of tests, of 32 bytes or more";
		setting_http_anonymous_role = "nobody";
		setting_http_max_rows = MAX_ROWS;
		PROPERTY(http_auth_load());
		ready = true;
	}
	rest_error_reset();
	fields.call = fuzz_call(&input, "", 0);
	fields.call->method = method;
	fields.query = rest_parse(line, false, palloc, &error);
	for (int i = 0; i < lengthof(parts); i++)
		(void) fuzz_try(parts[i], &fields);
	(void) setting_lists(line, "http://a");
	PROPERTY(!setting_lists("", line));
	for (int i = 0; i < fields.call->nfields; i++)
		for (const char *c = fields.call->fields[i].value; *c; c++)
			PROPERTY((unsigned char) *c >= ' ' && *c != 0x7f);
	rest_error_reset();
	(free) (line);
	return 0;
}
