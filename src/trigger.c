/*
 * trigger.c
 *		Triggers on the tables: what makes a plain INSERT as good as msg_create.
 */
#include "msgsys.h"

#include "backlog.h"
#include "headers.h"
#include "names.h"
#include "notes.h"
#include "payload.h"
#include "record.h"
#include "shmem.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(msg_message_trigger);
PG_FUNCTION_INFO_V1(msg_content_trigger);
PG_FUNCTION_INFO_V1(msg_config_trigger);
PG_FUNCTION_INFO_V1(msg_schedule_trigger);

#define LONGEST_KEY		1024

/* Columns of messages, in the order of sql/install/10-tables.sql; it never changes. */
enum
{
	COL_ID = 1,
	COL_CREATED_AT = 2,
	COL_DUE_AT = 3,
	COL_EXPIRES_AT = 4,
	COL_FINISHED_AT = 8,
	COL_STATUS = 11,
	COL_CHANNEL = 14,
	COL_KEY = 15,
	COL_CONTENT_TYPE = 17,
	COL_EVENT_TYPE = 16,
	COL_HEADERS = 18,
	COL_PAYLOAD = 19,
	COL_BODY = 20,
	COL_DEDUP_KEY = 21,
	COL_EPOCH = 25
};

/* The statuses, in the order of the enum. */
typedef enum Status
{
	SCHEDULED,
	IDLE,
	SENT,
	RECEIVED,
	RETRY,
	DELIVERED,
	DEAD,
	CANCELLED,
	EXPIRED,
	STATUSES
} Status;

static const char *const status_names[STATUSES] = {
	"scheduled", "idle", "sent", "received", "retry", "delivered", "dead",
	"cancelled", "expired"
};

#define TO(s)	(1 << (s))

/* Where a message may go from each status; all else is a mistake. */
static const int arrows[STATUSES] = {
	[SCHEDULED] = TO(IDLE) | TO(SENT) | TO(RECEIVED) | TO(RETRY) | TO(DELIVERED) | TO(DEAD) | TO(CANCELLED) | TO(EXPIRED),
	[IDLE] = TO(SCHEDULED) | TO(SENT) | TO(RECEIVED) | TO(RETRY) | TO(DELIVERED) | TO(DEAD) | TO(CANCELLED) | TO(EXPIRED),
	[SENT] = TO(RECEIVED) | TO(RETRY) | TO(DELIVERED) | TO(DEAD) | TO(EXPIRED),
	[RECEIVED] = TO(RETRY) | TO(DELIVERED) | TO(DEAD) | TO(EXPIRED),
	[RETRY] = TO(SENT) | TO(RECEIVED) | TO(DELIVERED) | TO(DEAD) | TO(CANCELLED) | TO(EXPIRED),
	[DELIVERED] = 0,
	[DEAD] = TO(RETRY),
	/* what happened, happened: an answer may come after the decision */
	[CANCELLED] = TO(DELIVERED),
	[EXPIRED] = TO(DELIVERED)
};

/* ---------------------------------------------------------------- lookups */

/* The oids of the enum's values; they change with the extension. */
static Oid	status_type = InvalidOid;
static Oid	status_oids[STATUSES];

static void
load_statuses(Oid type)
{
	if (type == status_type)
		return;
	for (int i = 0; i < STATUSES; i++)
	{
		HeapTuple	tuple = SearchSysCache2(ENUMTYPOIDNAME, ObjectIdGetDatum(type),
											CStringGetDatum(status_names[i]));

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "enum value \"%s\" is missing", status_names[i]);
		status_oids[i] = ((Form_pg_enum) GETSTRUCT(tuple))->oid;
		ReleaseSysCache(tuple);
	}
	status_type = type;
}

static Status
status_of(Datum value)
{
	for (int i = 0; i < STATUSES; i++)
		if (status_oids[i] == DatumGetObjectId(value))
			return i;
	elog(ERROR, "unknown message status %u", DatumGetObjectId(value));
}

/* Channels that are known to exist, as of one state of the configuration. */
static HTAB *known_channels = NULL;
static uint64 known_key = 0;
static Oid	known_relation = InvalidOid;

/* Ask msg_channels, with its owner's rights: a producer need not read it. */
static bool
channel_exists(Relation messages, const char *name)
{
	const char *schema = quote_identifier(get_namespace_name(RelationGetNamespace(messages)));
	Oid			types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(name)};
	Oid			user;
	int			context;
	bool		result;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(messages->rd_rel->relowner,
						   context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (SPI_execute_with_args(psprintf("SELECT 1 FROM %s.msg_channels WHERE channel OPERATOR(pg_catalog.=) $1", schema),
							  1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look up channel \"%s\"", name);
	result = SPI_processed > 0;
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	return result;
}

static void
check_channel(Relation messages, const char *name)
{
	char		key[CHANNEL_NAME_MAX] = {0};
	uint64		cache_key = config_cache_key();

	if (strcmp(name, DEFAULT_CHANNEL) == 0)
		return;
	if (strlen(name) < CHANNEL_NAME_MAX)
	{
		strlcpy(key, name, CHANNEL_NAME_MAX);
		if (cache_key != known_key || RelationGetRelid(messages) != known_relation)
		{
			if (known_channels)
				hash_destroy(known_channels);
			known_channels = NULL;
			known_key = cache_key;
			known_relation = RelationGetRelid(messages);
		}
		if (known_channels && hash_search(known_channels, key, HASH_FIND, NULL))
			return;
		if (channel_exists(messages, name))
		{
			HASHCTL		ctl = {
				.keysize = CHANNEL_NAME_MAX,
				.entrysize = CHANNEL_NAME_MAX,
				.hcxt = TopMemoryContext,
			};

			if (cache_key == 0)
				return;
			if (known_channels == NULL)
				known_channels = hash_create("msgsys known channels", 64, &ctl,
											 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
			hash_search(known_channels, key, HASH_ENTER, NULL);
			return;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("channel \"%s\" does not exist", name),
			 errhint("Make it with msg_channel_set().")));
}

/* ---------------------------------------------------------------- checks */

/* A header's name can stand in any protocol, and says nothing that we say. */
static void
check_header_name(const char *name, int length)
{
	if (length == 0 || has_control_character(name, length))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a header's name is empty or has a control character")));
	if (record_header_reserved(name, length))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("header \"%.*s\" is one that msgsys sets itself", length, name),
				 errhint("Use content_type and event_type for what the headers content-type and ce_type say.")));
}

static void
check_one_line(Datum value, const char *column)
{
	text	   *t = DatumGetTextPP(value);

	if (has_control_character(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s has a control character", column)));
}

/* Bytes of a payload as it is sent, where those are too many. */
static Size
payload_size(Datum payload)
{
	Jsonb	   *jsonb = DatumGetJsonbP(payload);

	return payload_fits(jsonb, setting_max_message_bytes) ? 0 : payload_text_size(jsonb);
}

static void
check_size(Size size)
{
	if (size > (Size) setting_max_message_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("message of %zu bytes is too large", size),
				 errdetail("msgsys.max_message_bytes is %d.", setting_max_message_bytes),
				 errhint("Send a reference to what is large, or raise the limit here and in Kafka.")));
}

/*
 * A message has a payload or a body.  This is no constraint of the table, which would
 * be read anew by each INSERT, and by each UPDATE of a worker.
 */
static void
check_payload_or_body(const bool *nulls)
{
	if (nulls[COL_PAYLOAD] == nulls[COL_BODY])
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg(nulls[COL_BODY] ? "message has neither payload nor body" :
						"message has both payload and body"),
				 errhint("Give exactly one of them.")));
}

/* What a message holds, in the columns of content, can be sent. */
static void
check_content(const Datum *values, const bool *nulls)
{
	check_payload_or_body(nulls);
	if (!nulls[COL_KEY] && toast_raw_datum_size(values[COL_KEY]) - VARHDRSZ > LONGEST_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("message key is longer than %d bytes", LONGEST_KEY)));
	if (!nulls[COL_HEADERS])
		headers_check(DatumGetJsonbP(values[COL_HEADERS]), check_header_name);
	if (!nulls[COL_EVENT_TYPE])
		check_one_line(values[COL_EVENT_TYPE], "event_type");
	if (!nulls[COL_CONTENT_TYPE])
		check_one_line(values[COL_CONTENT_TYPE], "content_type");
	check_size(nulls[COL_BODY] ? payload_size(values[COL_PAYLOAD]) :
			   toast_raw_datum_size(values[COL_BODY]) - VARHDRSZ);
}

/* ---------------------------------------------------------------- triggers */

/* Tell the workers of a row that they may take, now or later. */
static void
note_row(Status status, const char *channel, int64 id, Datum due, bool no_due)
{
	if (status == IDLE)
		note_claimable(channel, id);
	else if (status == SCHEDULED || status == RETRY)
	{
		if (no_due)
			ereport(ERROR,
					(errcode(ERRCODE_CHECK_VIOLATION),
					 errmsg("message " INT64_FORMAT " is %s but has no due_at", id,
							status_names[status])));
		note_due(channel, DatumGetTimestampTz(due));
	}
}

/* Give a row another value of a column. */
static HeapTuple
with_value(HeapTuple tuple, TupleDesc desc, int column, Datum value)
{
	bool		isnull = false;

	return heap_modify_tuple_by_cols(tuple, desc, 1, &column, &value, &isnull);
}

/*
 * A row that is created here is checked.  One that brings its epoch (a dump is being
 * restored, when channels are not there yet and expiry is long past) is taken as it is.
 */
static HeapTuple
before_insert(TriggerData *data, FmgrInfo * flinfo)
{
	Relation	rel = data->tg_relation;
	TupleDesc	desc = RelationGetDescr(rel);
	HeapTuple	tuple = data->tg_trigtuple;
	Datum		values[COL_EPOCH + 1];
	bool		nulls[COL_EPOCH + 1] = {false};
	bool		created_here;
	static const int wanted[] = {COL_ID, COL_CREATED_AT, COL_DUE_AT, COL_EXPIRES_AT, COL_STATUS, COL_CHANNEL,
	COL_KEY, COL_EVENT_TYPE, COL_CONTENT_TYPE, COL_HEADERS, COL_PAYLOAD, COL_BODY, COL_FINISHED_AT, COL_EPOCH};
	Status		status;
	char	   *channel;
	int32		epoch;
	bool		has_dedup_key = !heap_attisnull(tuple, COL_DEDUP_KEY, desc);
	TimestampTz began = GetCurrentTransactionStartTimestamp();
	TimestampTz now = began + setting_clock_offset * USECS_PER_SEC;

	for (int i = 0; i < lengthof(wanted); i++)
		values[wanted[i]] = heap_getattr(tuple, wanted[i], desc, &nulls[wanted[i]]);
	/* these have NOT NULL constraints, whose words are clear */
	if (nulls[COL_ID] || nulls[COL_CREATED_AT] || nulls[COL_STATUS] || nulls[COL_CHANNEL] || nulls[COL_EPOCH])
		return tuple;

	/* claims begin above 0, and an acknowledgement's id has no sign */
	if (DatumGetInt64(values[COL_ID]) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("message id " INT64_FORMAT " is not positive",
						DatumGetInt64(values[COL_ID]))));

	created_here = names_take_default(DatumGetInt32(values[COL_EPOCH]));
	load_statuses(TupleDescAttr(desc, COL_STATUS - 1)->atttypid);
	status = status_of(values[COL_STATUS]);
	channel = TextDatumGetCString(values[COL_CHANNEL]);

	if (created_here)
	{
		check_channel(rel, channel);
		check_content(values, nulls);
		if (!nulls[COL_EXPIRES_AT])
		{
			TimestampTz expires = DatumGetTimestampTz(values[COL_EXPIRES_AT]);

			if (expires <= now ||
				(!nulls[COL_DUE_AT] && expires <= DatumGetTimestampTz(values[COL_DUE_AT])))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("message expires before it can be sent"),
						 errdetail("expires_at is %s.", timestamptz_to_str(expires))));
		}
		if (status == IDLE && !nulls[COL_DUE_AT] && DatumGetTimestampTz(values[COL_DUE_AT]) > now)
		{
			status = SCHEDULED;
			tuple = with_value(tuple, desc, COL_STATUS, ObjectIdGetDatum(status_oids[SCHEDULED]));
		}
		if (status == IDLE && !has_dedup_key)
			backlog_check(channel, noted_backlog(channel));
		/* last, for a new epoch has its cost */
		epoch = names_check_default(rel, DatumGetInt32(values[COL_EPOCH]), DatumGetInt64(values[COL_ID]),
									&flinfo->fn_extra, flinfo->fn_mcxt);
		if (epoch != DatumGetInt32(values[COL_EPOCH]))
			tuple = with_value(tuple, desc, COL_EPOCH, Int32GetDatum(epoch));
	}
	else
	{
		check_payload_or_body(nulls);
		if (nulls[COL_FINISHED_AT])
			names_check_given(rel, DatumGetInt32(values[COL_EPOCH]), &flinfo->fn_extra, flinfo->fn_mcxt);
	}
	/* whether one with a deduplication key becomes a row is not known before it is one */
	if (status == IDLE && !has_dedup_key)
		note_backlog(channel, 1);
	note_row(status, channel, DatumGetInt64(values[COL_ID]), values[COL_DUE_AT], nulls[COL_DUE_AT]);
	return tuple;
}

/* An id stays as it is, and the time of creation once there may be a record, which has it. */
static void
check_identity(TriggerData *data, Status from)
{
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	static const int columns[] = {COL_ID, COL_CREATED_AT};
	bool		isnull;

	for (int i = 0; i < lengthof(columns); i++)
		if ((columns[i] == COL_ID || (from != IDLE && from != SCHEDULED)) &&
			DatumGetInt64(heap_getattr(data->tg_trigtuple, columns[i], desc, &isnull)) !=
			DatumGetInt64(heap_getattr(data->tg_newtuple, columns[i], desc, &isnull)))
			ereport(ERROR,
					(errcode(ERRCODE_CHECK_VIOLATION),
					 errmsg("%s of message " INT64_FORMAT " cannot be changed", columns[i] == COL_ID ? "id" : "created_at",
							DatumGetInt64(heap_getattr(data->tg_trigtuple, COL_ID, desc, &isnull))),
					 errdetail("Its records are recognised by it.")));
}

/* A user changed what a message holds. */
static void
after_content(TriggerData *data)
{
	static const int wanted[] = {COL_KEY, COL_EVENT_TYPE, COL_CONTENT_TYPE, COL_HEADERS, COL_PAYLOAD, COL_BODY};
	Datum		values[COL_BODY + 1];
	bool		nulls[COL_BODY + 1] = {false};

	for (int i = 0; i < lengthof(wanted); i++)
		values[wanted[i]] = heap_getattr(data->tg_newtuple, wanted[i], RelationGetDescr(data->tg_relation), &nulls[wanted[i]]);
	check_content(values, nulls);
}

/*
 * A row with a deduplication key was made: only now it counts as one that waits, since
 * one whose key the channel has already makes none.
 */
static void
after_insert(TriggerData *data)
{
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	HeapTuple	tuple = data->tg_trigtuple;
	bool		isnull;
	char	   *channel = TextDatumGetCString(heap_getattr(tuple, COL_CHANNEL, desc, &isnull));

	/* one that is restored is taken as it is */
	if (DatumGetInt32(heap_getattr(tuple, COL_EPOCH, desc, &isnull)) == names_current(RelationGetNamespace(data->tg_relation)))
		backlog_check(channel, noted_backlog(channel));
	note_backlog(channel, 1);
}

/* A user changed a status, a channel, a due time, or what a message is recognised by. */
static void
after_update(TriggerData *data)
{
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	HeapTuple	tuple = data->tg_newtuple;
	bool		isnull;
	bool		no_due;
	Status		from;
	Status		to;
	int64		id = DatumGetInt64(heap_getattr(tuple, COL_ID, desc, &isnull));
	char	   *channel = TextDatumGetCString(heap_getattr(tuple, COL_CHANNEL, desc, &isnull));
	Datum		due = heap_getattr(tuple, COL_DUE_AT, desc, &no_due);

	load_statuses(TupleDescAttr(desc, COL_STATUS - 1)->atttypid);
	from = status_of(heap_getattr(data->tg_trigtuple, COL_STATUS, desc, &isnull));
	to = status_of(heap_getattr(tuple, COL_STATUS, desc, &isnull));
	check_identity(data, from);
	if (from != to && (arrows[from] & TO(to)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("message " INT64_FORMAT " cannot go from %s to %s", id,
						status_names[from], status_names[to])));
	check_channel(data->tg_relation, channel);
	if (from == IDLE)
		note_backlog(TextDatumGetCString(heap_getattr(data->tg_trigtuple, COL_CHANNEL, desc, &isnull)), -1);
	if (to == IDLE)
		note_backlog(channel, 1);
	note_row(to, channel, id, due, no_due);
	note_status(id);
}

/*
 * Trigger on messages: checks what is inserted or changed, and tells the workers
 * when that commits.
 */
Datum
msg_message_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("msg_message_trigger must be called as a row trigger")));
	if (!TRIGGER_FIRED_BY_INSERT(data->tg_event))
		after_update(data);
	else if (TRIGGER_FIRED_BEFORE(data->tg_event))
		return PointerGetDatum(before_insert(data, fcinfo->flinfo));
	else
		after_insert(data);
	return PointerGetDatum(NULL);
}

/* Trigger on messages: checks what a message holds where that is changed. */
Datum
msg_content_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) || !TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("msg_content_trigger must be called as a row trigger of UPDATE")));
	after_content(data);
	return PointerGetDatum(NULL);
}

/* Trigger on the tables of the configuration: workers read them again. */
Datum
msg_config_trigger(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("msg_config_trigger must be called as a trigger")));
	note_config();
	return PointerGetDatum(NULL);
}

/* Trigger on the tables of the scheduler's jobs: it looks at them again. */
Datum
msg_schedule_trigger(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("msg_schedule_trigger must be called as a trigger")));
	note_schedule();
	return PointerGetDatum(NULL);
}
