/*
 * names.c
 *		Names of messages: a name is for ever, and no two messages have one.
 *
 * A name is the uuid of the epoch that gave the id, a colon, and the id.  An epoch is a
 * row of msg_names.  A new one begins wherever ids may have been given before: on another
 * timeline, in another database or data directory, after TRUNCATE, where the sequence was
 * set back, and for ids that did not come from the sequence.  Rows keep the epoch that they
 * were created in; the column's default is the current one, so that rows from elsewhere (a
 * dump, a publisher, COPY) bring theirs, and are seen to be another installation's.
 */
#include "msgsys.h"

#include "names.h"
#include "notes.h"
#include "shmem.h"
#include "siphash.h"
#include "statement.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(msg_epoch);
PG_FUNCTION_INFO_V1(msg_truncate_trigger);

#define DATABASES		64		/* whose highest id is kept; the others' sequences are not watched */
#define MOST_ARGS		8

/* ---------------------------------------------------------------- where we are */

/* The highest id that the sequence is known to have given in a database's current epoch. */
typedef struct HighId
{
	pg_atomic_uint32 dboid;		/* InvalidOid: free */
	pg_atomic_uint32 epoch;
	pg_atomic_uint64 id;
} HighId;

static HighId *high_ids = NULL;

/* The shared memory that this needs. */
Size
names_size(void)
{
	return sizeof(HighId) * DATABASES;
}

/* Make it, or find it; with AddinShmemInitLock held. */
void
names_init(void)
{
	bool		found;

	high_ids = ShmemInitStruct("msgsys highest ids", names_size(), &found);
	if (found)
		return;
	for (int i = 0; i < DATABASES; i++)
	{
		pg_atomic_init_u32(&high_ids[i].dboid, InvalidOid);
		pg_atomic_init_u32(&high_ids[i].epoch, 0);
		pg_atomic_init_u64(&high_ids[i].id, 0);
	}
}

/* That of this database; NULL where there is none. */
static HighId *
high_id(void)
{
	static HighId *mine = NULL;

	for (int i = 0; mine == NULL && high_ids && i < DATABASES; i++)
	{
		uint32		expected = InvalidOid;

		if (pg_atomic_compare_exchange_u32(&high_ids[i].dboid, &expected, MyDatabaseId) ||
			expected == MyDatabaseId)
			mine = &high_ids[i];
	}
	return mine;
}

/* What tells this data directory from a copy of it: a copy's files are others. */
static const char *
place(void)
{
	static char text[32] = "";
	struct stat status;

	if (text[0] == '\0' && stat(DataDir, &status) == 0)
		snprintf(text, sizeof(text), "%llu", (unsigned long long) status.st_ino);
	return text;
}

static const char *
host(void)
{
	static char text[256] = "";

	if (text[0] == '\0' && gethostname(text, sizeof(text) - 1) != 0)
		strlcpy(text, "?", sizeof(text));
	return text;
}

/* ---------------------------------------------------------------- SQL as the tables' owner */

/* Where a row of msg_names is this installation's; the first four parameters of each statement. */
#define FITS \
	"(n.system_identifier OPERATOR(pg_catalog.=) $1 AND n.database_oid OPERATOR(pg_catalog.=) $2 " \
	"AND n.identity OPERATOR(pg_catalog.=) $3 AND NOT n.theirs)"
#define HERE \
	"(n.timeline OPERATOR(pg_catalog.=) $4 AND n.place OPERATOR(pg_catalog.=) $5 AND n.ended_at IS NULL)"
#define HERE_ARGS	5

/* Run a statement with FITS and HERE, and parameters of its own from $6 on.  SPI is connected. */
static uint64
run_here(Oid schema, const char *format, int nargs, const Oid *own_types, const Datum *own_values)
{
	Oid			types[MOST_ARGS] = {INT8OID, OIDOID, TEXTOID, INT4OID, TEXTOID};
	Datum		values[MOST_ARGS] = {
		Int64GetDatum((int64) GetSystemIdentifier()), ObjectIdGetDatum(MyDatabaseId), CStringGetTextDatum(setting_identity),
		Int32GetDatum((int32) compat_timeline()), CStringGetTextDatum(place())
	};
	StringInfoData sql;
	const char *name = quote_identifier(get_namespace_name(schema));
	Oid			relation = get_relname_relid("msg_names", schema);
	Oid			user;
	int			context;
	HeapTuple	tuple;
	int			rc;

	for (int i = 0; i < nargs; i++)
	{
		types[HERE_ARGS + i] = own_types[i];
		values[HERE_ARGS + i] = own_values[i];
	}
	initStringInfo(&sql);
	for (const char *c = format; *c; c++)
		if (*c == '@')
			appendStringInfoString(&sql, name);
		else
			appendStringInfoChar(&sql, *c);

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "msg_names is missing in schema %s", name);
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(((Form_pg_class) GETSTRUCT(tuple))->relowner, context | SECURITY_LOCAL_USERID_CHANGE);
	ReleaseSysCache(tuple);
	rc = SPI_execute_with_args(sql.data, HERE_ARGS + nargs, types, values, NULL, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(rc));
	SetUserIdAndSecContext(user, context);
	return SPI_processed;
}

/* ---------------------------------------------------------------- the current epoch */

/* The epoch of new messages, as of one state of the configuration. */
static struct
{
	uint64		key;			/* of the configuration; 0: nothing is known */
	Oid			schema;
	TimeLineID	timeline;
	char		identity[64];
	int32		epoch;
}			current;

/* Ids that are given by this subtransaction itself have an epoch of their own. */
static struct
{
	LocalTransactionId transaction;
	SubTransactionId subtransaction;
	int32		epoch;
}			given;

/*
 * Begin an epoch, in the transaction under way; several sessions may do so at the same
 * time, and all of these are ours.  One of a copy that is not adopted is held: nothing is
 * sent.  Ids that did not come from the sequence get one that has ended already.
 */
static int32
begin_epoch(Oid schema, bool for_given, const char *why)
{
	static const Oid types[3] = {INT4OID, BYTEAOID, TEXTOID};
	Datum		values[3];
	bytea	   *key = palloc(VARHDRSZ + SIPHASH_KEY_BYTES);
	uint32		epoch;
	const char *format =
	"INSERT INTO @.msg_names (epoch, stamp_key, system_identifier, database_oid, identity, timeline, place, host, "
	"ordinal, first_id, held_at, ended_at) "
	"SELECT $6, $7, $1, $2, $3, $4, $5, $8, coalesce(pg_catalog.max(n.ordinal), 0) OPERATOR(pg_catalog.+) 1, %s, "
	"CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 "
	"AND NOT coalesce(pg_catalog.bool_or(" FITS " AND n.held_at IS NULL), false) "
	"THEN pg_catalog.clock_timestamp() END, %s FROM @.msg_names n";
	char	   *sql;

	SET_VARSIZE(key, VARHDRSZ + SIPHASH_KEY_BYTES);
	do
		if (!pg_strong_random(VARDATA(key), SIPHASH_KEY_BYTES) || !pg_strong_random(&epoch, sizeof(epoch)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
	while ((epoch &= PG_INT32_MAX) == 0);
	values[0] = Int32GetDatum((int32) epoch);
	values[1] = PointerGetDatum(key);
	values[2] = CStringGetTextDatum(host());
	sql = psprintf(format,
				   for_given ? "NULL" :
				   "(SELECT CASE WHEN s.is_called THEN s.last_value OPERATOR(pg_catalog.+) 1 ELSE s.last_value END FROM @.messages_id_seq s)",
				   for_given ? "pg_catalog.clock_timestamp()" : "NULL");
	run_here(schema, sql, lengthof(types), types, values);
	/* no trigger of the configuration fires in a worker */
	note_config();
	ereport(DEBUG1, (errmsg_internal("msgsys begins epoch %u: %s", epoch, why)));
	return (int32) epoch;
}

/* Begin an epoch for all messages from now on.  SPI is connected. */
int32
names_begin(Oid schema, const char *why)
{
	ereport(LOG,
			(errhidecontext(true), errhidestmt(true),
			 errmsg("msgsys gives messages names with a new uuid from now on: %s", why)));
	return begin_epoch(schema, false, why);
}

/* The epoch of messages that are created here now; one is begun where there is none. */
int32
names_current(Oid schema)
{
	uint64		key = config_cache_key();
	TimeLineID	timeline;
	int32		epoch;
	bool		isnull;

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("a standby gives messages no names")));
	timeline = compat_timeline();
	if (key != 0 && key == current.key && schema == current.schema && timeline == current.timeline &&
		strcmp(setting_identity, current.identity) == 0)
		return current.epoch;

	SPI_connect();
	if (run_here(schema, "SELECT n.epoch FROM @.msg_names n WHERE " FITS " AND " HERE
				 " ORDER BY n.ordinal DESC, n.epoch LIMIT 1", 0, NULL, NULL) > 0)
		epoch = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	else
		epoch = names_begin(schema, "this server or data directory has given none yet on its timeline");
	SPI_finish();

	/* one that this transaction has begun may be rolled back */
	current.key = config_cache_key() == 0 ? 0 : key;
	if (strlen(setting_identity) >= sizeof(current.identity))
		current.key = 0;
	current.schema = schema;
	current.timeline = timeline;
	strlcpy(current.identity, setting_identity, sizeof(current.identity));
	current.epoch = epoch;
	return epoch;
}

/* Rows of this transaction that were given the default and have not yet come to the trigger. */
static struct
{
	LocalTransactionId transaction;
	int			n;
}			defaults;

/* Whether a row has the epoch by default, and did not bring it. */
bool
names_take_default(int32 epoch)
{
	if (defaults.transaction != compat_local_transaction() || defaults.n == 0 || epoch != current.epoch)
		return false;
	defaults.n--;
	return true;
}

/*
 * msg_epoch() returns integer
 * The default of the column epoch.
 */
Datum
msg_epoch(PG_FUNCTION_ARGS)
{
	Oid			schema = (Oid) (intptr_t) fcinfo->flinfo->fn_extra;

	if (!OidIsValid(schema))
	{
		schema = get_func_namespace(fcinfo->flinfo->fn_oid);
		fcinfo->flinfo->fn_extra = (void *) (intptr_t) schema;
	}
	if (defaults.transaction != compat_local_transaction())
		defaults.n = 0;
	defaults.transaction = compat_local_transaction();
	defaults.n++;
	PG_RETURN_INT32(names_current(schema));
}

/* Trigger on messages: after TRUNCATE, ids may come again. */
Datum
msg_truncate_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("msg_truncate_trigger must be called as a truncate trigger")));
	SPI_connect();
	names_begin(RelationGetNamespace(data->tg_relation), "messages was truncated");
	SPI_finish();
	return PointerGetDatum(NULL);
}

/* ---------------------------------------------------------------- checks of the insert trigger */

/* What is known of the rows of a statement. */
typedef struct StatementState
{
	int64		last_id;		/* of the row before; it came from the sequence */
	int32		given_epoch;	/* the last that came with a row; 0: none has */
	bool		given_is_ours;
	bool		held;			/* it is noted that others' messages were restored */
} StatementState;

static StatementState *
statement_state(void **state, MemoryContext memory)
{
	if (*state == NULL)
		*state = MemoryContextAllocZero(memory, sizeof(StatementState));
	return *state;
}

/*
 * An unfinished row brought its epoch with it.  If that is another installation's, it is
 * restored from a dump or the like: nothing is sent from here until msg_adopt().  (Rows that
 * arrive by logical replication fire no trigger: they are left to their publisher alone.)
 */
void
names_check_given(Relation messages, int32 epoch, void **state, MemoryContext memory)
{
	StatementState *statement = statement_state(state, memory);
	Oid			schema = RelationGetNamespace(messages);
	static const Oid types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(epoch)};

	if (statement->given_epoch != epoch)
	{
		SPI_connect();
		statement->given_is_ours = run_here(schema, "SELECT FROM @.msg_names n WHERE n.epoch OPERATOR(pg_catalog.=) $6 AND " FITS, 1, types, values) > 0;
		SPI_finish();
		statement->given_epoch = epoch;
	}
	if (statement->given_is_ours || statement->held)
		return;
	SPI_connect();
	run_here(schema, "UPDATE @.msg_names n SET held_at = pg_catalog.clock_timestamp() WHERE " FITS
			 " AND n.held_at IS NULL", 0, NULL, NULL);
	SPI_finish();
	note_config();
	statement->held = true;
}

/* Whether currval() of the sequence has a value in this session, and so raises no error. */
static Oid	defined_sequence = InvalidOid;

/* DISCARD has taken it away. */
void
names_forget_sequence(void)
{
	defined_sequence = InvalidOid;
}

/* The same where it is not known whether there is one: what fails is rolled back. */
static bool
try_currval(Oid sequence, int64 *value)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Oid			user;
	int			context;
	volatile bool found = false;

	GetUserIdAndSecContext(&user, &context);
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		*value = DatumGetInt64(DirectFunctionCall1(currval_oid, ObjectIdGetDatum(sequence)));
		ReleaseCurrentSubTransaction();
		found = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(memory);
		if (geterrcode() != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
	SetUserIdAndSecContext(user, context);
	return found;
}

/* Whether the sequence gave this session an id just now.  Also, how far it is; as the table's owner. */
static bool
from_sequence(Relation messages, int64 id, int64 *last)
{
	static Oid	relation = InvalidOid;
	static Oid	sequence = InvalidOid;
	int64		value = 0;
	bool		known = true;
	Oid			user;
	int			context;

	if (relation != RelationGetRelid(messages) || !OidIsValid(sequence))
	{
		relation = RelationGetRelid(messages);
		sequence = get_relname_relid("messages_id_seq", RelationGetNamespace(messages));
		if (!OidIsValid(sequence))
			elog(ERROR, "messages_id_seq is missing");
	}
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(messages->rd_rel->relowner, context | SECURITY_LOCAL_USERID_CHANGE);
	if (last)
	{
		LOCAL_FCINFO(call, 1);

		InitFunctionCallInfoData(*call, NULL, 1, InvalidOid, NULL, NULL);
		call->args[0].value = ObjectIdGetDatum(sequence);
		call->args[0].isnull = false;
		*last = DatumGetInt64(pg_sequence_last_value(call));
		if (call->isnull)
			*last = 0;
	}
	else if (sequence == defined_sequence && shmem_available())
		value = DatumGetInt64(DirectFunctionCall1(currval_oid, ObjectIdGetDatum(sequence)));
	else
	{
		known = try_currval(sequence, &value);
		defined_sequence = known ? sequence : InvalidOid;
	}
	SetUserIdAndSecContext(user, context);
	return known && value == id;
}

/* The highest id of rows of an epoch, also of those that are not kept any more. */
static int64
highest_stored(Oid schema, int32 epoch)
{
	static const Oid types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(epoch)};
	int64		result;
	bool		isnull;

	SPI_connect();
	run_here(schema,
			 "SELECT greatest((SELECT pg_catalog.max(m.id) FROM @.messages m WHERE m.epoch OPERATOR(pg_catalog.=) $6), n.last_id, 0) "
			 "FROM @.msg_names n WHERE n.epoch OPERATOR(pg_catalog.=) $6", 1, types, values);
	result = SPI_processed == 0 ? 0 :
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return result;
}

/*
 * Whether the sequence has been set back: it gave this id, and had given a higher one
 * before.  Sessions come here a little out of order, so a lower id alone says nothing; but
 * the sequence itself is never behind what it gave.
 */
static bool
set_back(Relation messages, int32 epoch, int64 id)
{
	HighId	   *high = high_id();
	uint64		before;
	int64		last;

	if (high == NULL)
		return false;
	if (pg_atomic_read_u32(&high->epoch) != (uint32) epoch)
	{
		/* the first here since the epoch or the server began */
		if (config_cache_key() == 0)
			return false;
		before = (uint64) highest_stored(RelationGetNamespace(messages), epoch);
		pg_atomic_write_u64(&high->id, before);
		pg_write_barrier();
		pg_atomic_write_u32(&high->epoch, (uint32) epoch);
	}
	before = pg_atomic_read_u64(&high->id);
	while ((uint64) id > before)
		if (pg_atomic_compare_exchange_u64(&high->id, &before, (uint64) id))
			return false;
	(void) from_sequence(messages, id, &last);
	return (uint64) last < before;
}

/*
 * A row has the current epoch by default.  Returns the epoch that it is to have: another
 * one where its id may have been given before.
 */
int32
names_check_default(Relation messages, int32 epoch, int64 id, void **state, MemoryContext memory)
{
	static int64 latest = 0;	/* of this session; it is not given twice in an epoch */
	static int32 latest_epoch = 0;
	StatementState *statement = statement_state(state, memory);
	Oid			schema = RelationGetNamespace(messages);
	int64		before = statement->last_id;

	/* within a statement, what follows on an id of the sequence is the next of it */
	statement->last_id = id;
	if ((before > 0 && id == before + 1) || from_sequence(messages, id, NULL))
	{
		if (set_back(messages, epoch, id))
		{
			SPI_connect();
			epoch = names_begin(schema, "the sequence of ids was set back");
			SPI_finish();
		}
		if (epoch != latest_epoch || id > latest)
		{
			latest_epoch = epoch;
			latest = id;
			return epoch;
		}
	}
	statement->last_id = 0;
	if (given.transaction != compat_local_transaction() || given.subtransaction != GetCurrentSubTransactionId())
	{
		SPI_connect();
		given.epoch = begin_epoch(schema, true, "ids were given");
		SPI_finish();
		given.transaction = compat_local_transaction();
		given.subtransaction = GetCurrentSubTransactionId();
	}
	return given.epoch;
}

/* ---------------------------------------------------------------- in workers */

static Epoch *names = NULL;
static int	nnames = 0;
static int32 *unknown = NULL;	/* epochs of rows that msg_names says nothing of */
static int	nunknown = 0;
static bool stale = false;

static void
name_from_row(Epoch *name, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	bytea	   *key = DatumGetByteaPP(SPI_getbinval(tuple, desc, 3, &isnull));

	name->epoch = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
	strlcpy(name->uuid, DatumGetCString(DirectFunctionCall1(uuid_out, SPI_getbinval(tuple, desc, 2, &isnull))), sizeof(name->uuid));
	if (VARSIZE_ANY_EXHDR(key) < SIPHASH_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the key of epoch %d is too short", name->epoch)));
	name->key[0] = siphash_word((const unsigned char *) VARDATA_ANY(key));
	name->key[1] = siphash_word((const unsigned char *) VARDATA_ANY(key) + 8);
	name->ours = DatumGetBool(SPI_getbinval(tuple, desc, 4, &isnull));
}

/* The data directory is where it was, and the host is another: say so, and go on. */
static void
note_host(Oid schema, int32 epoch, const char *before)
{
	static const Oid types[2] = {INT4OID, TEXTOID};
	Datum		values[2] = {Int32GetDatum(epoch), CStringGetTextDatum(host())};

	if (strcmp(before, host()) == 0)
		return;
	ereport(WARNING,
			(errmsg("msgsys runs on host \"%s\", and was on \"%s\" before", host(), before),
			 errdetail("It goes on, for the data directory is the same.")));
	run_here(schema, "UPDATE @.msg_names n SET host = $7 WHERE n.epoch OPERATOR(pg_catalog.=) $6",
			 2, types, values);
}

/*
 * Read msg_names.  Returns the current epoch (0 on a standby); *copy says whether this is
 * a copy that is not adopted.  SPI is connected.
 */
int32
names_load(Oid schema, bool *copy)
{
	int32		epoch = RecoveryInProgress() ? 0 : names_current(schema);
	uint64		n = run_here(schema, "SELECT n.epoch, n.uuid, n.stamp_key, " FITS ", n.held_at IS NOT NULL, n.host, "
							 HERE " FROM @.msg_names n ORDER BY n.ordinal, n.epoch", 0, NULL, NULL);
	SPITupleTable *rows = SPI_tuptable;
	char	   *before = NULL;
	int			kept = 0;

	if (names)
		pfree(names);
	names = MemoryContextAllocHuge(TopMemoryContext, sizeof(Epoch) * Max(n, 1));
	*copy = true;
	for (nnames = 0; nnames < (int) n; nnames++)
	{
		bool		isnull;

		name_from_row(&names[nnames], rows->vals[nnames], rows->tupdesc);
		if (names[nnames].ours && !DatumGetBool(SPI_getbinval(rows->vals[nnames], rows->tupdesc, 5, &isnull)))
			*copy = false;
		if (names[nnames].epoch == epoch)
			before = SPI_getvalue(rows->vals[nnames], rows->tupdesc, 6);
	}
	for (int i = 0; i < nunknown; i++)
		if (name_of_epoch(unknown[i]) == NULL)
			unknown[kept++] = unknown[i];
	nunknown = kept;
	stale = false;
	if (before && IsBackgroundWorker)
		note_host(schema, epoch, before);
	return epoch;
}

/* Whether they must be read again, because a row has an epoch that is not among them. */
bool
names_stale(void)
{
	return stale;
}

/* NULL: msg_names says nothing of it. */
const Epoch *
name_of_epoch(int32 epoch)
{
	static int	last = 0;

	if (last < nnames && names[last].epoch == epoch)
		return &names[last];
	for (int i = nnames - 1; i >= 0; i--)
		if (names[i].epoch == epoch)
			return &names[last = i];
	return NULL;
}

/* The epoch of ours whose uuid a text begins with, which has that many characters at least; NULL: none. */
const Epoch *
name_of_uuid(const char *text)
{
	static int	last = 0;

	if (last < nnames && names[last].ours && memcmp(names[last].uuid, text, UUID_LENGTH) == 0)
		return &names[last];
	for (int i = nnames - 1; i >= 0; i--)
		if (names[i].ours && memcmp(names[i].uuid, text, UUID_LENGTH) == 0)
			return &names[last = i];
	return NULL;
}

/* Whether messages of an epoch are to be sent from here. */
bool
name_is_ours(int32 epoch)
{
	const Epoch *name = name_of_epoch(epoch);

	return name && name->ours;
}

/* A row has an epoch that we do not know, or not as ours: look once more, and then leave its rows alone. */
void
names_met_unknown(int32 epoch)
{
	for (int i = 0; i < nunknown; i++)
		if (unknown[i] == epoch)
			return;
	if (unknown == NULL)
		unknown = MemoryContextAlloc(TopMemoryContext, sizeof(int32));
	else
		unknown = repalloc(unknown, sizeof(int32) * (nunknown + 1));
	unknown[nunknown++] = epoch;
	stale = true;
}

/* The epochs whose rows are not ours to send, as an array of integers. */
Datum
names_foreign(void)
{
	Datum	   *epochs = palloc((nnames + nunknown + 1) * sizeof(Datum));
	int			n = 0;

	for (int i = 0; i < nnames; i++)
		if (!names[i].ours)
			epochs[n++] = Int32GetDatum(names[i].epoch);
	for (int i = 0; i < nunknown; i++)
		epochs[n++] = Int32GetDatum(unknown[i]);
	return array_of(epochs, n, INT4OID);
}

/* Whether an epoch began in a data directory that this one is a copy of, and not its standby. */
bool
names_of_copied(const char *from, int32 timeline)
{
	return timeline == (int32) compat_timeline() && strcmp(from, place()) != 0;
}

/* ---------------------------------------------------------------- stamps */

/*
 * A stamp proves that a record is ours: the attempt, the time of creation (µs since 2000),
 * and a keyed hash of both and the id.  A consumer may have to bring it back.
 */
static uint64
stamp_hash(const Epoch *name, int64 id, int attempt, TimestampTz created_at)
{
	uint64		words[3] = {(uint64) id, (uint64) attempt, (uint64) created_at};

	return siphash_words(name->key, words, lengthof(words));
}

/* Write it; returns its length, which is less than STAMP_ROOM. */
int
stamp_write(char *into, const Epoch *name, int64 id, int attempt, TimestampTz created_at)
{
	return snprintf(into, STAMP_ROOM, "%d." INT64_FORMAT ".%016llx", attempt, (int64) created_at,
					(unsigned long long) stamp_hash(name, id, attempt, created_at));
}

/* Read one that anyone may have written; false if it is not ours of this message. */
bool
stamp_read(const char *text, size_t length, const Epoch *name, int64 id, Stamp *stamp)
{
	char		given_text[STAMP_ROOM];
	char		right[STAMP_ROOM];
	char	   *end;
	long		attempt;
	int			differs = 0;

	if (length >= STAMP_ROOM || memchr(text, '\0', length) != NULL)
		return false;
	memcpy(given_text, text, length);
	given_text[length] = '\0';
	errno = 0;
	attempt = strtol(given_text, &end, 10);
	if (errno != 0 || *end != '.' || attempt < 1 || attempt > PG_INT32_MAX)
		return false;
	stamp->attempt = (int) attempt;
	stamp->created_at = strtoll(end + 1, &end, 10);
	if (errno != 0 || *end != '.')
		return false;
	if (stamp_write(right, name, id, stamp->attempt, stamp->created_at) != (int) length)
		return false;
	/* in a time that does not tell where they differ */
	for (size_t i = 0; i < length; i++)
		differs |= right[i] ^ given_text[i];
	return differs == 0;
}
