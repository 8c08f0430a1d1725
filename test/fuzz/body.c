/*
 * body.c
 *		Fuzzes the bodies of requests by HTTP, and how long a payload's text is said to be
 *		(src/rest_body.c, src/payload.c).
 *
 * A body is an object, or rows that are objects of the same names; the size of a payload's text is that of the text
 * that is then made.  First a byte for the type of the body.
 */
#include "backend.h"

#include "mb/pg_wchar.h"
#include "utils/jsonb.h"

#include "payload.h"
#include "rest_body.h"
#include "rest_error.h"

extern int	fuzz_body(const uint8_t *data, size_t size);

#define TEXT_MOST	(4 * 1024 * 1024)

typedef struct Reading
{
	Call	   *call;
	bool		any_names;
	bool		empty_object;
} Reading;

/* The size that is said is that of the text. */
static void
check_size(Jsonb *json)
{
	size_t		size = payload_text_size(json);

	PROPERTY(payload_fits(json, size));
	PROPERTY(size == 0 || !payload_fits(json, size - 1));
	if (size <= TEXT_MOST)
		PROPERTY(strlen(JsonbToCString(NULL, &json->root, VARSIZE(json))) == size);
}

static void
check_names(const RestBody *body)
{
	ListCell   *lc;

	foreach(lc, body->names)
		PROPERTY(fuzz_presentable(lfirst(lc), PG_INT32_MAX));
}

static void
read_body(void *arg)
{
	Reading    *reading = arg;
	RestBody	body;

	/* as read_target() of facade.c sees to it */
	pg_verify_mbstr(PG_UTF8, reading->call->http->body, strlen(reading->call->http->body), false);
	rest_body(reading->call, reading->any_names, reading->empty_object, &body);
	PROPERTY(body.json != NULL && !JB_ROOT_IS_SCALAR(body.json));
	PROPERTY(body.array == !JB_ROOT_IS_OBJECT(body.json));
	PROPERTY(body.nrows == (body.array ? JB_ROOT_COUNT(body.json) : 1));
	check_names(&body);
	check_size(body.json);
}

int
fuzz_body(const uint8_t *data, size_t size)
{
	static const char *const types[] = {"application/json", "application/x-www-form-urlencoded", "application/vnd.pgrst.array+json", "text/plain"};
	FuzzInput	input = fuzz_input(data, size);
	int			how = fuzz_byte(&input);
	FuzzInput	none = {0};
	char	   *text = fuzz_rest(&input);
	HttpField	type = {"Content-Type", types[how % 4]};
	Reading		reading = {.any_names = how & 4,.empty_object = how & 8};

	rest_error_reset();
	reading.call = fuzz_call(&none, text, size > 0 ? size - 1 : 0);
	((HttpExchange *) reading.call->http)->fields = &type;
	((HttpExchange *) reading.call->http)->nfields = 1;
	(void) fuzz_try(read_body, &reading);
	rest_error_reset();
	(free) (text);
	return 0;
}
