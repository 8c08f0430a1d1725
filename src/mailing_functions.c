/*
 * mailing_functions.c
 *		SQL functions and the trigger of mailings, in C because each runs a million times.
 */
#include "msgsys.h"

#include "compat.h"
#include "local_time.h"
#include "record.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/rangetypes.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(msg_phone);
PG_FUNCTION_INFO_V1(msg_time_zone);
PG_FUNCTION_INFO_V1(msg_window);
PG_FUNCTION_INFO_V1(msg_client_trigger);
PG_FUNCTION_INFO_V1(msg_mailing_payload);

/* Digits of a number after the +, as E.164 has them. */
#define SHORTEST_PHONE	7
#define LONGEST_PHONE	15

/* ---------------------------------------------------------------- values */

/*
 * A phone number as it is stored: + and digits.  Spaces, hyphens, dots and parentheses do not
 * count; eleven digits that begin with 7 need no +.
 */
static char *
normal_phone(const char *text)
{
	char		digits[LONGEST_PHONE + 2];
	int			n = 0;
	bool		plus = false;

	for (const char *c = text; *c; c++)
	{
		if (isdigit((unsigned char) *c) && n <= LONGEST_PHONE)
			digits[n++] = *c;
		else if (*c == '+' && n == 0 && !plus)
			plus = true;
		else if (strchr(" -.()", *c) == NULL)
			n = LONGEST_PHONE + 1;
	}
	digits[Min(n, LONGEST_PHONE)] = '\0';
	if (n < SHORTEST_PHONE || n > LONGEST_PHONE || digits[0] == '0' ||
		(!plus && (n != 11 || digits[0] != '7')))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid phone number \"%s\"", text),
				 errhint("Use E.164, such as +4915112345678; 7XXXXXXXXXX needs no plus sign.")));
	return psprintf("+%s", digits);
}

/* The operator code within a number of the zone +7: the three digits after that; NULL for others. */
static char *
operator_code(const char *phone)
{
	return strlen(phone) == 12 && phone[1] == '7' ? pnstrdup(phone + 2, 3) : NULL;
}

static void
read_zone(const char *text, Zone *zone)
{
	if (!zone_parse(text, zone))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid time zone \"%s\"", text),
				 errhint("Use a name of the IANA database, such as Europe/Moscow, or an offset, such as +03:00 (east of UTC).")));
}

/*
 * msg_phone(phone text) returns text
 * The SQL definition has the contract.
 */
Datum
msg_phone(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(normal_phone(text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}

/*
 * msg_time_zone(time_zone text) returns text
 * The SQL definition has the contract.
 */
Datum
msg_time_zone(PG_FUNCTION_ARGS)
{
	Zone		zone;

	read_zone(text_to_cstring(PG_GETARG_TEXT_PP(0)), &zone);
	PG_RETURN_TEXT_P(cstring_to_text(zone.name));
}

/*
 * Windows that a statement has asked for, for it asks for a few zones again and again: a
 * zone's entry is the one that the hash of its name says.
 */
#define WINDOWS		64

typedef struct KnownWindow
{
	char		zone[ZONE_NAME_MAX];
	TimeADT		from;
	TimeADT		to;
	TimestampTz at;
	RangeType  *span;			/* NULL: an empty entry */
} KnownWindow;

typedef struct WindowMemory
{
	TypeCacheEntry *type;
	KnownWindow windows[WINDOWS];
} WindowMemory;

/* A bound of a range whose lower bound is in it and whose upper bound is not. */
static void
set_bound(RangeBound *bound, bool lower, Datum value, bool infinite)
{
	bound->lower = lower;
	bound->inclusive = lower && !infinite;
	bound->infinite = infinite;
	bound->val = value;
}

/* Find a window that is not known yet, and keep it. */
static void
learn_window(WindowMemory *memory, KnownWindow *window, MemoryContext context)
{
	RangeType  *old_span = window->span;
	TimestampTz opens;
	TimestampTz closes;
	RangeBound	lower;
	RangeBound	upper;
	MemoryContext old;
	Zone		zone;

	/* an entry that is found must be whole, and reading the zone may fail */
	window->span = NULL;
	if (TIMESTAMP_NOT_FINITE(window->at) || window->from == window->to)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a window needs two different times of the day, and a finite time to look from")));
	read_zone(window->zone, &zone);
	zone_window(&zone, window->from, window->to, window->at, &opens, &closes);
	set_bound(&lower, true, TimestampTzGetDatum(opens), false);
	set_bound(&upper, false, TimestampTzGetDatum(closes), false);
	old = MemoryContextSwitchTo(context);
	window->span = compat_make_range(memory->type, &lower, &upper);
	MemoryContextSwitchTo(old);
	if (old_span)
		pfree(old_span);
}

/*
 * msg_window(time_zone text, window_from time, window_to time, at timestamptz) returns tstzrange
 * The SQL definition has the contract.
 */
Datum
msg_window(PG_FUNCTION_ARGS)
{
	WindowMemory *memory = fcinfo->flinfo->fn_extra;
	MemoryContext context = fcinfo->flinfo->fn_mcxt;
	KnownWindow *window;
	text	   *name;
	int			length;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(3))
		PG_RETURN_NULL();
	if (memory == NULL)
	{
		fcinfo->flinfo->fn_extra = memory = MemoryContextAllocZero(context, sizeof(WindowMemory));
		memory->type = lookup_type_cache(TSTZRANGEOID, TYPECACHE_RANGE_INFO);
	}
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
	{
		RangeBound	lower;
		RangeBound	upper;

		set_bound(&lower, true, (Datum) 0, true);
		set_bound(&upper, false, (Datum) 0, true);
		PG_RETURN_RANGE_P(compat_make_range(memory->type, &lower, &upper));
	}
	name = PG_GETARG_TEXT_PP(0);
	length = Min(VARSIZE_ANY_EXHDR(name), ZONE_NAME_MAX - 1);
	window = &memory->windows[hash_bytes((unsigned char *) VARDATA_ANY(name), length) % WINDOWS];
	if (window->span == NULL || window->at != PG_GETARG_TIMESTAMPTZ(3) || window->from != PG_GETARG_TIMEADT(1) ||
		window->to != PG_GETARG_TIMEADT(2) || strncmp(window->zone, VARDATA_ANY(name), length) != 0 || window->zone[length] != '\0')
	{
		memcpy(window->zone, VARDATA_ANY(name), length);
		window->zone[length] = '\0';
		window->at = PG_GETARG_TIMESTAMPTZ(3);
		window->from = PG_GETARG_TIMEADT(1);
		window->to = PG_GETARG_TIMEADT(2);
		learn_window(memory, window, context);
	}
	PG_RETURN_RANGE_P(window->span);
}

/* ---------------------------------------------------------------- clients */

/* A column of type text of a row; NULL for null. */
static char *
column_text(HeapTuple tuple, TupleDesc desc, int number)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, number, desc, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/*
 * Trigger on msg_clients, before each row that is inserted or updated: brings phone and time zone into one form, and
 * derives the operator code where none is given.
 */
Datum
msg_client_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	tuple;
	int			columns[3];
	Datum		values[3];
	bool		nulls[3] = {false};
	char	   *phone;
	char	   *code;
	char	   *zone_name;
	Zone		zone;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("msg_client_trigger must be called as a row trigger")));
	desc = RelationGetDescr(data->tg_relation);
	tuple = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple;
	columns[0] = get_attnum(RelationGetRelid(data->tg_relation), "phone");
	columns[1] = get_attnum(RelationGetRelid(data->tg_relation), "operator_code");
	columns[2] = get_attnum(RelationGetRelid(data->tg_relation), "time_zone");
	phone = column_text(tuple, desc, columns[0]);
	code = column_text(tuple, desc, columns[1]);
	zone_name = column_text(tuple, desc, columns[2]);
	/* these have NOT NULL constraints, whose words are clear */
	if (phone == NULL || zone_name == NULL)
		return PointerGetDatum(tuple);

	phone = normal_phone(phone);
	if (code && code[0] == '\0')
		code = NULL;
	if (code && TRIGGER_FIRED_BY_UPDATE(data->tg_event))
	{
		/* one that was derived is derived again from another number */
		char	   *old_code = column_text(data->tg_trigtuple, desc, columns[1]);
		char	   *derived = operator_code(column_text(data->tg_trigtuple, desc, columns[0]));

		if (old_code && derived && strcmp(code, old_code) == 0 && strcmp(old_code, derived) == 0)
			code = NULL;
	}
	if (code == NULL)
		code = operator_code(phone);
	read_zone(zone_name, &zone);
	values[0] = CStringGetTextDatum(phone);
	nulls[1] = code == NULL;
	values[1] = code ? CStringGetTextDatum(code) : (Datum) 0;
	values[2] = CStringGetTextDatum(zone.name);
	return PointerGetDatum(heap_modify_tuple_by_cols(tuple, desc, 3, columns, values, nulls));
}

/* ---------------------------------------------------------------- texts */

/* What the placeholders of a mailing's text stand for. */
typedef struct Recipient
{
	int64		mailing_id;
	int64		client_id;
	text	   *phone;
	text	   *operator_code;
	text	   *tag;
	text	   *time_zone;
	Jsonb	   *attributes;
} Recipient;

static void
append_text(StringInfo out, text *value)
{
	if (value)
		appendBinaryStringInfo(out, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* The value of a placeholder: one of the client's columns, or else an attribute; nothing where there is none. */
static void
append_value(StringInfo out, const Recipient *recipient, const char *name, int length)
{
	JsonbValue	room;

#define IS(word) (length == strlen(word) && strncmp(name, word, length) == 0)
	if (IS("client_id"))
		appendStringInfo(out, INT64_FORMAT, recipient->client_id);
	else if (IS("mailing_id"))
		appendStringInfo(out, INT64_FORMAT, recipient->mailing_id);
	else if (IS("phone"))
		append_text(out, recipient->phone);
	else if (IS("operator_code"))
		append_text(out, recipient->operator_code);
	else if (IS("tag"))
		append_text(out, recipient->tag);
	else if (IS("time_zone"))
		append_text(out, recipient->time_zone);
#undef IS
	else if (recipient->attributes && JB_ROOT_IS_OBJECT(recipient->attributes))
	{
		JsonbValue *value = getKeyJsonValueFromContainer(&recipient->attributes->root, name, length, &room);

		if (value)
			record_append_json(out, value);
	}
}

/* Length of the name at the beginning of a text: letters, digits and underscores, no digit first; 0: none. */
static int
name_length(const char *text, const char *end)
{
	const char *c = text;

	if (c < end && isdigit((unsigned char) *c))
		return 0;
	while (c < end && ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '_'))
		c++;
	return c - text;
}

/* A mailing's text for one client; false where it gets longer than a message may be. */
static bool
fill_text(StringInfo out, text *template, const Recipient *recipient)
{
	const char *at = VARDATA_ANY(template);
	const char *end = at + VARSIZE_ANY_EXHDR(template);

	while (at < end)
	{
		const char *brace = memchr(at, '{', end - at);
		int			length;

		appendBinaryStringInfo(out, at, (brace ? brace : end) - at);
		if (brace == NULL)
			break;
		length = name_length(brace + 1, end);
		at = brace + 1 + length;
		if (length > 0 && at < end && *at == '}')
		{
			append_value(out, recipient, brace + 1, length);
			at++;
		}
		else
		{
			appendStringInfoChar(out, '{');
			at = brace + 1;
		}
		if (out->len > setting_max_message_bytes)
			return false;
	}
	return out->len <= setting_max_message_bytes;
}

static void
push_string(JsonbParseState **state, const char *name, const char *value, int length)
{
	JsonbValue	v = {.type = jbvString};

	v.val.string.val = unconstify(char *, name);
	v.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &v);
	v.val.string.val = unconstify(char *, value);
	v.val.string.len = length;
	pushJsonbValue(state, WJB_VALUE, &v);
}

static void
push_number(JsonbParseState **state, const char *name, int64 value)
{
	JsonbValue	v = {.type = jbvString};

	v.val.string.val = unconstify(char *, name);
	v.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &v);
	v.type = jbvNumeric;
	v.val.numeric = int64_to_numeric(value);
	pushJsonbValue(state, WJB_VALUE, &v);
}

static text *
text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : PG_GETARG_TEXT_PP(number);
}

/*
 * msg_mailing_payload(template text, mailing_id bigint, client_id bigint, phone text, operator_code text, tag text, time_zone text,
 * attributes jsonb) returns jsonb
 * The SQL definition has the contract.
 */
Datum
msg_mailing_payload(PG_FUNCTION_ARGS)
{
	Recipient	recipient;
	StringInfoData content;
	JsonbParseState *state = NULL;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
		PG_RETURN_NULL();
	recipient.mailing_id = PG_GETARG_INT64(1);
	recipient.client_id = PG_GETARG_INT64(2);
	recipient.phone = PG_GETARG_TEXT_PP(3);
	recipient.operator_code = text_argument(fcinfo, 4);
	recipient.tag = text_argument(fcinfo, 5);
	recipient.time_zone = text_argument(fcinfo, 6);
	recipient.attributes = PG_ARGISNULL(7) ? NULL : PG_GETARG_JSONB_P(7);

	initStringInfo(&content);
	if (!fill_text(&content, PG_GETARG_TEXT_PP(0), &recipient))
		PG_RETURN_NULL();
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_string(&state, "text", content.data, content.len);
	push_string(&state, "phone", VARDATA_ANY(recipient.phone), VARSIZE_ANY_EXHDR(recipient.phone));
	push_number(&state, "client_id", recipient.client_id);
	push_number(&state, "mailing_id", recipient.mailing_id);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}
