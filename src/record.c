/*
 * record.c
 *		A message as a record of the broker: its headers, and how to read them.
 *
 * Headers are those of CloudEvents 1.0 in Kafka's binary mode (content-type and
 * ce_*), msgsys-stamp, msgsys-attempt from the second attempt on, and the message's
 * own.  The message's name outside the database is ce_id (names.c).
 */
#include "msgsys.h"

#include "headers.h"
#include "names.h"
#include "record.h"
#include "worker.h"

#include "commands/dbcommands.h"
#include "common/int.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define HEADER_ID		"ce_id"
#define HEADER_ATTEMPT	"msgsys-attempt"
#define HEADER_STAMP	"msgsys-stamp"
#define OUR_HEADERS		8
#define DEAD_HEADERS	4

/* The value of CloudEvents' source: a setting, or the database's name. */
const char *
record_source(void)
{
	static char *own = NULL;

	if (setting_source[0] != '\0')
		return setting_source;
	if (own == NULL)
		own = MemoryContextStrdup(TopMemoryContext,
								  psprintf("/msgsys/%s", get_database_name(MyDatabaseId)));
	return own;
}

/* Timestamp as RFC 3339 has it, in UTC; valid until the next call. */
const char *
record_time(TimestampTz time)
{
	static TimestampTz last = DT_NOBEGIN;
	static char text[40];
	struct pg_tm tm;
	fsec_t		fsec;

	/* rows of one transaction have the same time */
	if (time == last)
		return text;
	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		return "1970-01-01T00:00:00Z";
	snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ",
			 tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
			 (int) fsec);
	last = time;
	return text;
}

static void
set_header(BrokerHeader *header, const char *name, const void *value, size_t length)
{
	header->name = name;
	header->value = value;
	header->length = length;
}

/* A text, or what stands in for it. */
static void
set_text_header(BrokerHeader *header, const char *name, text *value, const char *otherwise)
{
	if (value)
		set_header(header, name, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	else
		set_header(header, name, otherwise, strlen(otherwise));
}

/* The message's own headers; the trigger has seen to it that they are strings. */
static int
own_headers(BrokerHeader *headers, Jsonb *own)
{
	HeaderWalk	walk;
	JsonbValue	name = {0};
	JsonbValue	value;
	int			n = 0;

	headers_begin(&walk, own);
	while (headers_next(&walk, &name, &value))
		if (value.type == jbvString)
			set_header(&headers[n++], pnstrdup(name.val.string.val, name.val.string.len),
					   value.val.string.val, value.val.string.len);
	return n;
}

/*
 * Make a claimed row a record for a topic.  What the record points to lives in
 * the row's memory, or until the next call.
 */
void
record_build(BrokerRecord *record, const ClaimedRow *row, const char *topic)
{
	static BrokerHeader fixed[OUR_HEADERS];
	static char id[64];
	static char attempt[16];
	static char stamp[STAMP_ROOM];
	const Epoch *name = name_of_epoch(row->epoch ? row->epoch : installation.epoch);
	static StringInfoData json = {0};
	BrokerHeader *headers = fixed;
	const char *time = record_time(row->created_at);
	const char *from = record_source();
	int			id_length;
	int			n = 0;

	if (json.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(&json);
		MemoryContextSwitchTo(old);
	}
	if (row->headers)
		headers = palloc((OUR_HEADERS + JB_ROOT_COUNT(row->headers)) * sizeof(BrokerHeader));

	if (name == NULL)
		elog(ERROR, "message " INT64_FORMAT " has no name", row->id);
	id_length = snprintf(id, sizeof(id), "%s:" INT64_FORMAT, name->uuid, row->id);
	set_header(&headers[n++], "ce_specversion", "1.0", 3);
	set_header(&headers[n++], HEADER_ID, id, id_length);
	set_header(&headers[n++], "ce_source", from, strlen(from));
	set_text_header(&headers[n++], "ce_type", row->event_type, "msgsys.message");
	set_header(&headers[n++], "ce_time", time, strlen(time));
	set_text_header(&headers[n++], "content-type", row->content_type,
					row->payload ? "application/json" : "application/octet-stream");
	set_header(&headers[n++], HEADER_STAMP, stamp,
			   stamp_write(stamp, name, row->id, row->attempts + 1, row->created_at));
	if (row->attempts > 0)
	{
		int			length = snprintf(attempt, sizeof(attempt), "%d", row->attempts + 1);

		set_header(&headers[n++], HEADER_ATTEMPT, attempt, length);
	}
	if (row->headers)
		n += own_headers(headers + n, row->headers);

	record->topic = topic;
	record->headers = headers;
	record->nheaders = n;
	if (row->key)
	{
		record->key = row->key;
		record->key_length = row->key_length;
	}
	else
	{
		/* the id, which ends the message's name */
		record->key = strchr(id, ':') + 1;
		record->key_length = strlen(record->key);
	}
	if (row->payload)
	{
		resetStringInfo(&json);
		JsonbToCString(&json, &row->payload->root, VARSIZE(row->payload));
		record->value = json.data;
		record->value_length = json.len;
	}
	else
	{
		record->value = VARDATA_ANY(row->body);
		record->value_length = VARSIZE_ANY_EXHDR(row->body);
	}
}

/*
 * Make a dead row a record for its topic of dead letters: as it was, and with why it
 * died, after how many attempts, when it was created and when it died.
 */
void
record_build_dead(BrokerRecord *record, const ClaimedRow *row, const char *topic)
{
	BrokerHeader *headers;
	char	   *attempts = psprintf("%d", row->attempts);
	char	   *created = pstrdup(record_time(row->created_at));
	char	   *died = pstrdup(row->finished_at == DT_NOEND ? "" : record_time(row->finished_at));

	record_build(record, row, topic);
	headers = palloc((record->nheaders + DEAD_HEADERS) * sizeof(BrokerHeader));
	memcpy(headers, record->headers, record->nheaders * sizeof(BrokerHeader));
	set_text_header(&headers[record->nheaders++], "msgsys-error", row->last_error, "");
	set_header(&headers[record->nheaders++], "msgsys-attempts", attempts, strlen(attempts));
	set_header(&headers[record->nheaders++], "msgsys-first-at", created, strlen(created));
	set_header(&headers[record->nheaders++], "msgsys-last-at", died, strlen(died));
	record->headers = headers;
}

/* A message's name outside the database. */
char *
message_name(int32 epoch, int64 id)
{
	const Epoch *name = name_of_epoch(epoch ? epoch : installation.epoch);

	return psprintf("%s:" INT64_FORMAT, name ? name->uuid : installation.uuid, id);
}

/* Read an id, of as many digits as there can be. */
static bool
parse_id(const char *text, size_t length, int64 *id)
{
	if (length == 0 || length > 19)
		return false;
	*id = 0;
	for (size_t i = 0; i < length; i++)
		if (text[i] < '0' || text[i] > '9' ||
			pg_mul_s64_overflow(*id, 10, id) || pg_add_s64_overflow(*id, text[i] - '0', id))
			return false;
	return *id > 0;
}

/* Read a message's name; NULL if it is not one of this installation's. */
const Epoch *
message_name_parse(const char *text, size_t length, int64 *id)
{
	if (length <= UUID_LENGTH + 1 || text[UUID_LENGTH] != ':' ||
		!parse_id(text + UUID_LENGTH + 1, length - UUID_LENGTH - 1, id))
		return NULL;
	return name_of_uuid(text);
}

/* Which of our messages a record is; false if it is none, or does not prove it. */
bool
record_name(const BrokerMessage *message, RecordName *name)
{
	const Epoch *of;
	const void *value;
	size_t		length;
	Stamp		stamp;

	if (!broker_header(message, HEADER_ID, &value, &length) ||
		(of = message_name_parse(value, length, &name->id)) == NULL ||
		!broker_header(message, HEADER_STAMP, &value, &length) ||
		!stamp_read(value, length, of, name->id, &stamp))
		return false;
	name->epoch = of->epoch;
	name->attempt = stamp.attempt;
	name->created_at = stamp.created_at;
	return true;
}

/*
 * When a record was written, as its producer or the broker says; DT_NOBEGIN: it does not say, or
 * says what is no time of PostgreSQL's: whoever wrote it may have set any number.
 */
TimestampTz
record_written_at(const BrokerMessage *message)
{
	int64		time;

	if (message->time_ms < 0 || pg_mul_s64_overflow(message->time_ms, 1000, &time))
		return DT_NOBEGIN;
	time -= (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	return IS_VALID_TIMESTAMP(time) ? time : DT_NOBEGIN;
}

/* Whether a header's name is one that msgsys sets itself. */
bool
record_header_reserved(const char *name, size_t length)
{
	return (length >= 3 && pg_strncasecmp(name, "ce_", 3) == 0) ||
		(length >= 7 && pg_strncasecmp(name, "msgsys-", 7) == 0) ||
		(length == 12 && pg_strncasecmp(name, "content-type", 12) == 0);
}

/* A value of JSON within a text: a string as it is, null as nothing. */
void
record_append_json(StringInfo out, const JsonbValue *value)
{
	Jsonb	   *jsonb;

	if (value->type == jbvNull)
		return;
	if (value->type == jbvString)
	{
		appendBinaryStringInfo(out, value->val.string.val, value->val.string.len);
		return;
	}
	jsonb = JsonbValueToJsonb(unconstify(JsonbValue *, value));
	JsonbToCString(out, &jsonb->root, VARSIZE(jsonb));
}
