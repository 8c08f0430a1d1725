/*
 * worker.c
 *		What the workers of all stages do: start, wait, run transactions.
 *
 * A worker does nothing with the rights of a superuser that an ordinary user
 * could steer: it runs as the owner of the extension inside a security-
 * restricted operation, as a replica (so that no trigger on messages fires but
 * those that the owner made to), and with a search_path that holds pg_catalog
 * alone.
 */
#include "msgsys.h"

#include "compat.h"
#include "monotonic.h"
#include "names.h"
#include "reactor.h"
#include "shmem.h"
#include "statement.h"
#include "store.h"
#include "worker.h"

#include <sys/epoll.h>

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

Installation installation;
MemoryContext cycle_context = NULL;

static Reactor *reactor = NULL;
static WaitEventSet *wait_set = NULL;
static uint64 seen_generation = 0;	/* configuration that is loaded */
static uint32 wait_event = 0;

/* What failed because of somebody's locks is tried again after this time, in ms. */
#define LOCKED_AGAIN	1000
static long longest_rest = LONG_MAX;	/* of the next worker_rest() alone */

static char *connected_as = NULL;	/* msgsys.role when this worker started */

/* What worker_begin() changed and worker_commit() puts back. */
static Oid	saved_user;
static int	saved_context;

/* The last thing that was reported goes to the slot, for msg_workers. */
static emit_log_hook_type prev_emit_log = NULL;

static void
remember_error(ErrorData *edata)
{
	if (edata->elevel >= ERROR && edata->message)
		slot_error(edata->message);
	if (prev_emit_log)
		prev_emit_log(edata);
}

static void
name_worker(void *arg)
{
	errcontext("msgsys %s %d", stage_name(slot_stage()), slot_number());
}

static void
force_setting(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

/* Settings of those that move messages, which HTTP's callers have for themselves. */
static void
force_settings_of_movers(void)
{
	force_setting("session_replication_role", "replica");
	force_setting("lock_timeout", "1s");

	/* a status that a crash takes back is only sent or read again */
	force_setting("synchronous_commit", "off");

	/* a plan made while the table was empty must do with five million rows */
	force_setting("plan_cache_mode", "force_generic_plan");
	force_setting("enable_seqscan", "off");
	force_setting("enable_bitmapscan", "off");
	force_setting("enable_hashjoin", "off");
	force_setting("enable_mergejoin", "off");
	force_setting("enable_sort", "off");
	force_setting("enable_material", "off");
	force_setting("enable_memoize", "off");
}

/* Settings that a role, a database or a configuration file must not change. */
static void
force_settings(void)
{
	force_setting("application_name", MyBgworkerEntry->bgw_name);
	force_setting("search_path", "pg_catalog, pg_temp");
	force_setting("default_transaction_isolation", "read committed");
	force_setting("default_transaction_read_only", "off");
	force_setting("default_transaction_deferrable", "off");
	force_setting("statement_timeout", "0");
	force_setting("idle_in_transaction_session_timeout", "0");
	force_setting("idle_session_timeout", "0");
#ifdef MSGSYS_HAS_TRANSACTION_TIMEOUT
	force_setting("transaction_timeout", "0");
#endif
	force_setting("jit", "off");
	if (slot_stage() != STAGE_HTTP)
		force_settings_of_movers();
}

/* The role that this worker connects as; empty: the superuser of the bootstrap, and works as the extension's owner. */
static const char *
own_role(void)
{
	return slot_stage() == STAGE_HTTP ? setting_http_role : setting_role;
}

/* Descriptors of librdkafka (brokers, wake-up pipes) are not PostgreSQL's. */
#define EXTERNAL_DESCRIPTORS	16

static void
create_wait_set(void)
{
	reactor = reactor_open();
	if (reactor == NULL)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not create an epoll descriptor: %m")));
	for (int i = 0; i < EXTERNAL_DESCRIPTORS; i++)
		ReserveExternalFD();
	wait_set = compat_create_wait_event_set(3);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, reactor_fd(reactor), NULL, NULL);
	wait_event = compat_wait_event("MsgsysWorkerMain");
}

/* ---------------------------------------------------------------- stopping */

static volatile sig_atomic_t stop_wanted = false;
static volatile sig_atomic_t beginning = false; /* waits for the extension, with nothing under way */
static volatile int64 stop_since;	/* by the clock of now_ms() */

/* The postmaster signals a process and its group, so that one signal may come twice. */
#define SAME_SIGNAL		500		/* ms */

/*
 * A timer ends what outlasts the grace period, whatever it is: what waits for a
 * latch or looks for interrupts (SQL, a lock) ends as by any SIGTERM, and a system
 * call of a library is interrupted, again and again, since this signal's handler is
 * set without SA_RESTART.  PostgreSQL's own timers cannot be set in a handler.
 */
#define STOP_SIGNAL		SIGUSR2 /* nobody sends it to a background worker */
#define STOP_AGAIN		100		/* ms */
#define STOP_BLOCKED	1000	/* ms; somebody waits for us to leave the database */

static timer_t stop_timer;
static bool stop_timer_made = false;

static void
set_stop_timer(int64 in, int64 again)
{
	struct itimerspec spec = {
		.it_value = {in / 1000, in % 1000 * 1000000},
		.it_interval = {again / 1000, again % 1000 * 1000000}
	};

	if (stop_timer_made)
		(void) timer_settime(stop_timer, 0, &spec, NULL);
}

/* Leave the end itself alone: what it waits for has bounds of its own. */
static void
forget_stop_timer(int code, Datum arg)
{
	set_stop_timer(0, 0);
}

/* Make the timer, and its handler. */
static void
make_stop_timer(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL,.sigev_signo = STOP_SIGNAL};
	struct sigaction action = {.sa_handler = die};

	sigemptyset(&action.sa_mask);
	if (sigaction(STOP_SIGNAL, &action, NULL) != 0 || timer_create(CLOCK_MONOTONIC, &event, &stop_timer) != 0)
		ereport(ERROR, (errmsg("could not make a timer: %m")));
	stop_timer_made = true;
	before_shmem_exit(forget_stop_timer, (Datum) 0);
}

/* SIGTERM: what is under way is finished, within msgsys.grace_period; another one ends at once. */
static void
stop_gracefully(SIGNAL_ARGS)
{
	int			save_errno = errno;
	int64		now = now_ms();

	if (setting_grace_period == 0 || beginning || (stop_wanted && now > stop_since + SAME_SIGNAL))
	{
		set_stop_timer(STOP_AGAIN, STOP_AGAIN);
		die(postgres_signal_arg);
	}
	else if (!stop_wanted)
	{
		stop_since = now;
		stop_wanted = true;
		set_stop_timer(slot_blocked_now() ? Min(STOP_BLOCKED, setting_grace_period) : setting_grace_period, STOP_AGAIN);
		SetLatch(MyLatch);
	}
	errno = save_errno;
}

/* End now: by an error of severity FATAL, as PostgreSQL's own processes do. */
void
worker_stop(void)
{
	InterruptPending = true;
	ProcDiePending = true;
	CHECK_FOR_INTERRUPTS();
}

/* How many milliseconds what is under way may still take. */
static long
grace_left(void)
{
	if (database_blocked(slot_dboid()))
		return 0;				/* somebody waits for us to go */
	return Max(0, stop_since + setting_grace_period - now_ms());
}

/* Whether this worker is to end: it begins nothing more.  Does not return once its time is over. */
bool
worker_stopping(void)
{
	CHECK_FOR_INTERRUPTS();
	if (stop_wanted && grace_left() <= 0)
		worker_stop();
	return stop_wanted;
}

void
msgsys_worker_main(Datum arg)
{
	static ErrorContextCallback context = {.callback = name_worker};
	uint64		start;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	if (!slot_attach(DatumGetInt32(arg), start))
		proc_exit(0);			/* it was started for a seat that has another worker */
	BackgroundWorkerUnblockSignals();

	prev_emit_log = emit_log_hook;
	emit_log_hook = remember_error;
	context.previous = error_context_stack;
	error_context_stack = &context;

	/* a database that is being dropped was perhaps not yet so for the launcher */
	if (database_blocked(slot_dboid()))
		proc_exit(0);
	if (slot_stage() == STAGE_HTTP && own_role()[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("msgsys.http_role is not set"),
				 errhint("Make an ordinary role that may log in, and set msgsys.http_role to it.")));
	if (own_role()[0] != '\0')
	{
		char		database[NAMEDATALEN];

		slot_database(database);
		BackgroundWorkerInitializeConnection(database, own_role(), 0);
	}
	else
		BackgroundWorkerInitializeConnectionByOid(slot_dboid(), InvalidOid, 0);

	connected_as = MemoryContextStrdup(TopMemoryContext, own_role());
	force_settings();
	create_wait_set();
	cycle_context = AllocSetContextCreate(TopMemoryContext, "msgsys cycle",
										  ALLOCSET_DEFAULT_SIZES);
	make_stop_timer();
	pqsignal(SIGTERM, stop_gracefully);
	switch (slot_stage())
	{
		case STAGE_RELAY:
			relay_main();
			break;
		case STAGE_RECEIVER:
			receiver_main();
			break;
		case STAGE_WEBHOOK:
			webhook_main();
			break;
		case STAGE_SCHEDULER:
			scheduler_main();
			break;
		case STAGE_HTTP:
			facade_main();
			break;
		case STAGE_COUNT:
			break;
	}
}

/* Begin a cycle: interrupts, reload, scratch memory.  Returns whether the settings were read again. */
bool
worker_cycle(void)
{
	bool		reloaded = ConfigReloadPending;

	/* only webhooks have something under way between two cycles, and see to it themselves */
	if (worker_stopping() && slot_stage() != STAGE_WEBHOOK)
		worker_stop();
	if (reloaded)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		seen_generation = 0;	/* channel "default" comes from settings */
		if (strcmp(own_role(), connected_as) != 0)
		{
			ereport(LOG, (errmsg("msgsys %s %d starts again as another role",
								 stage_name(slot_stage()), slot_number())));
			proc_exit(0);
		}
	}
	MemoryContextReset(cycle_context);
	MemoryContextSwitchTo(cycle_context);
	return reloaded;
}

/*
 * Read the extension's row: its oid (InvalidOid if it is not there), owner and
 * schema.  There is no syscache for it before PostgreSQL 15.
 */
static Oid
read_extension(Oid *owner, Oid *schema)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			result = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(MSGSYS_NAME));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_extension form = (Form_pg_extension) GETSTRUCT(tuple);

		result = form->oid;
		*owner = form->extowner;
		*schema = form->extnamespace;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

static void
end_transaction(void)
{
	SetUserIdAndSecContext(saved_user, saved_context);
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(cycle_context);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* Lock the extension that is known, then see whether it still is the one.  Returns InvalidOid where there is none. */
static Oid
lock_extension(Oid *owner, Oid *schema)
{
	Oid			extension = installation.extension;

	for (;;)
	{
		Oid			locked = extension;

		CHECK_FOR_INTERRUPTS();
		if (OidIsValid(locked))
			LockDatabaseObject(ExtensionRelationId, locked, 0, AccessShareLock);
		extension = read_extension(owner, schema);
		if (extension == locked)
			return extension;
	}
}

/*
 * The same, however long somebody drops or alters it: no lock_timeout ends this
 * wait, and no snapshot is held meanwhile.
 */
static Oid
await_extension(Oid *owner, Oid *schema)
{
	volatile Oid extension = InvalidOid;
	int			lock_timeout = LockTimeout;

	beginning = true;
	LockTimeout = 0;
	PG_TRY();
	{
		extension = lock_extension(owner, schema);
	}
	PG_FINALLY();
	{
		LockTimeout = lock_timeout;
		beginning = false;
	}
	PG_END_TRY();
	return extension;
}

/*
 * Begin a transaction in which the extension cannot be dropped.  Returns false,
 * without a transaction, where there is no extension.
 */
bool
worker_begin(void)
{
	Oid			owner = InvalidOid;
	Oid			schema = InvalidOid;
	Oid			extension;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	extension = await_extension(&owner, &schema);
	if (!OidIsValid(extension))
	{
		CommitTransactionCommand();
		MemoryContextSwitchTo(cycle_context);
		pgstat_report_activity(STATE_IDLE, NULL);
		installation.extension = InvalidOid;
		return false;
	}
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	GetUserIdAndSecContext(&saved_user, &saved_context);
	if (extension != installation.extension)
	{
		installation.extension = extension;
		installation.schema_oid = schema;
		strlcpy(installation.schema,
				quote_identifier(get_namespace_name(schema)),
				sizeof(installation.schema));
		statements_forget();
		seen_generation = 0;
	}
	if (setting_role[0] == '\0')
		SetUserIdAndSecContext(owner, saved_context | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_RESTRICTED_OPERATION);
	return true;
}

/* Commit what worker_begin() began. */
void
worker_commit(void)
{
	end_transaction();
}

/* Take the error that was caught, once what failed is rolled back, as a copy in cycle_context. */
static ErrorData *
take_error(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(cycle_context);
	error = CopyErrorData();
	FlushErrorState();
	return error;
}

/*
 * Run work in a transaction of its own, whatever happens in it.  Returns false, with
 * the error in cycle_context, where it was rolled back; nothing is logged.  An
 * error of severity FATAL still ends the worker.  Where there is no extension, work
 * is not run, which is no error.
 */
bool
worker_try_any(void (*work) (void *arg), void *arg, ErrorData **error)
{
	volatile bool done = false;

	*error = NULL;
	PG_TRY();
	{
		if (worker_begin())
		{
			work(arg);
			worker_commit();
		}
		done = true;
	}
	PG_CATCH();
	{
		/* this gives memory back, which the copy of the error may need */
		AbortCurrentTransaction();
		*error = take_error();
		pgstat_report_activity(STATE_IDLE, NULL);
	}
	PG_END_TRY();
	return done;
}

/* Whether an error is only that of somebody's locks: what failed may be tried again. */
bool
error_is_of_locks(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

/* Whether an error says that the server lacks something, or is to end: it tells nothing of a row. */
bool
error_is_of_server(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return false;
	}
}

/*
 * Run work in a transaction of its own.  Returns false when it was rolled back
 * because of somebody's locks, and may be tried again; other errors end the
 * worker, as errors do.
 */
bool
worker_try(void (*work) (void *arg), void *arg)
{
	ErrorData  *error;

	if (worker_try_any(work, arg, &error))
		return true;
	if (!error_is_of_locks(error))
		ReThrowError(error);
	return false;
}

/*
 * The same within a transaction: where work fails, only what it did is rolled back.
 * Rows that were locked outside are not to be changed inside: each would get a
 * MultiXactId.
 */
bool
worker_subtry(void (*work) (void *arg), void *arg, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	*error = NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		RollbackAndReleaseCurrentSubTransaction();
		*error = take_error();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}

static void
load_configuration(void *arg)
{
	store_load_installation(&installation);
	store_load_channels();
	*(bool *) arg = true;
}

/*
 * Read the configuration if it has changed: installation and channels; *reloaded
 * is set then.  Returns false, having set the worker's state, where there is
 * nothing to work on or it must not be worked on, or somebody holds the tables of
 * the configuration: then it is to be tried again soon.
 */
bool
worker_refresh(bool *reloaded)
{
	uint64		generation = config_generation();

	if (!OidIsValid(installation.extension) || generation != seen_generation || names_stale())
	{
		bool		loaded = false;

		if (!worker_try(load_configuration, &loaded))
		{
			/* no note tells when they are gone */
			longest_rest = LOCKED_AGAIN;
			return false;
		}
		if (!loaded)
		{
			slot_state(WORKER_ABSENT);
			return false;
		}
		seen_generation = generation;
		*reloaded = true;
	}
	if (installation.copy)
	{
		slot_state(WORKER_COPY);
		return false;
	}
	return true;
}

/* Whether somebody has changed the configuration since worker_refresh(). */
bool
worker_config_changed(void)
{
	return config_generation() != seen_generation || ConfigReloadPending;
}

/*
 * Wait until there is something to do: a note at a commit, something from a
 * watched descriptor, or timeout_ms over.  The only wait of a worker.
 */
void
worker_wait(long timeout_ms)
{
	WaitEvent	events[3];
	int			n;

	/* not in the middle of one: the relay waits for the broker within its batch's */
	if (!IsTransactionOrTransactionBlock())
		pgstat_report_stat(false);
	if (stop_wanted)
		timeout_ms = Min(timeout_ms, grace_left());
	n = WaitEventSetWait(wait_set, Max(timeout_ms, 0), events, 3, wait_event);
	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		if (events[i].events & WL_SOCKET_READABLE)
			reactor_dispatch(reactor);
	}
}

/* The same between two cycles of a stage that takes notes: not at all while there are some. */
void
worker_rest(long timeout_ms)
{
	worker_wait(notes_waiting() ? 0 : Min(timeout_ms, longest_rest));
	longest_rest = LONG_MAX;
}

/* When to sweep next, by the clock of now_ms(): 0 is at once. */
static int64 next_sweep = 0;
static int64 swept_at = 0;
static int64 sweep_took = 0;

/* Channels beyond msgsys.max_channels are found by sweeps, which take a tenth of a worker's time at most. */
#define OVERFLOW_PAUSE	20		/* ms */
#define OVERFLOW_SHARE	10

/* There may be something that no note told of. */
void
worker_want_sweep(void)
{
	next_sweep = 0;
}

/* Milliseconds until the next sweep. */
long
worker_sweep_in(void)
{
	return Max(0, next_sweep - now_ms());
}

static void
sweep_work(void *arg)
{
	(*(void (**) (void)) arg) ();
}

/* If it is time, look in a transaction at all that waits; the cheaper that is, the sooner it is done again. */
void
worker_sweep(void (*look) (void))
{
	int64		began = now_ms();

	if (notes_overflowed())
		next_sweep = Min(next_sweep, swept_at + Max(OVERFLOW_PAUSE, sweep_took * OVERFLOW_SHARE));
	if (began < next_sweep)
		return;
	/* before the snapshot, so that what is noted later asks for another one */
	notes_overflow_seen();
	if (!worker_try(sweep_work, &look))
	{
		next_sweep = now_ms() + LOCKED_AGAIN;
		return;
	}
	swept_at = now_ms();
	sweep_took = swept_at - began;
	next_sweep = swept_at + Min(Max(setting_poll_interval, sweep_took * 100), setting_sweep_interval);
	slot_count_up(COUNT_SWEEPS, 1);
}

/* What all descriptors are watched with. */
Reactor *
worker_reactor(void)
{
	return reactor;
}

/* Readiness is all that a broker's descriptor tells: its stage polls it. */
static void
broker_ready(int fd, uint32_t events, void *arg)
{
}

/* Put what the library logged into the server's log, at most at LOG. */
void
worker_broker_log(Broker *broker)
{
	char		line[512];
	int			level;

	while (broker_log(broker, &level, line, sizeof(line)))
		ereport(level <= 4 ? DEBUG1 : DEBUG2,
				(errmsg_internal("%s: %s", broker_version(), line)));
}

/* The settings that an open broker was made with, to notice a change. */
static char *
broker_settings(void)
{
	return psprintf("%s\n%s\n%s\n%s\n%d", setting_kafka_brokers,
					setting_kafka_options, setting_kafka_options_file,
					setting_kafka_group, setting_max_message_bytes);
}

static char *opened_with = NULL;
static bool complained = false; /* of what it was opened with */
static char trouble[256] = "";	/* with that */
static bool exit_registered = false;

/* Whether the settings differ from those of the last worker_open_broker(). */
bool
worker_broker_settings_changed(void)
{
	return opened_with == NULL || strcmp(opened_with, broker_settings()) != 0;
}

/* The worker's brokers, to be closed at exit: their threads must not outlive us. */
static List *opened = NIL;

static void
close_at_exit(int code, Datum arg)
{
	ListCell   *lc;

	foreach(lc, opened)
		broker_close(lfirst(lc));
	opened = NIL;
}

/* Close a broker of the worker's, and forget it. */
void
worker_close_broker(Broker **broker)
{
	if (*broker == NULL)
		return;
	reactor_forget(reactor, broker_fd(*broker));
	opened = list_delete_ptr(opened, *broker);
	broker_close(*broker);
	*broker = NULL;
}

/*
 * Open a producer or a consumer with the present settings.  NULL where none is
 * configured, or configured wrongly, which is logged once a change.
 */
Broker *
worker_open_broker(BrokerRole role)
{
	char		err[512] = "";
	char		client[NAMEDATALEN * 2];
	char		group[NAMEDATALEN];
	Broker	   *broker;
	MemoryContext old;
	BrokerConfig config = {
		.role = role,
		.servers = setting_kafka_brokers,
		.client_id = client,
		.group = setting_kafka_group,
		.options = setting_kafka_options,
		.options_file = setting_kafka_options_file[0] ? setting_kafka_options_file : NULL,
		/* room for key and headers */
		.max_message_bytes = (size_t) setting_max_message_bytes + 65536,
		.max_queued = setting_batch_size + 1000,
	};

	if (worker_broker_settings_changed())
	{
		if (opened_with)
			pfree(opened_with);
		opened_with = MemoryContextStrdup(TopMemoryContext, broker_settings());
		complained = false;
		slot_error_over(trouble);
	}
	if (setting_kafka_brokers[0] == '\0')
	{
		slot_state(WORKER_NO_BROKER);
		return NULL;
	}
	snprintf(client, sizeof(client), "msgsys-%s-%d", stage_name(slot_stage()), slot_number());
	snprintf(group, sizeof(group), "msgsys-%s", installation.uuid);
	if (setting_kafka_group[0] == '\0')
		config.group = group;
	broker = broker_open(&config, err, sizeof(err));
	if (broker == NULL)
	{
		slot_state(WORKER_BROKER_SETTINGS);
		strlcpy(trouble, err, sizeof(trouble));
		slot_error(trouble);
		if (!complained)
			ereport(LOG,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("msgsys cannot use the settings of its Kafka client: %s", err)));
		complained = true;
		return NULL;
	}
	/* before this worker's seat is another one's, and before its transaction lets go of its rows */
	if (!exit_registered)
		before_shmem_exit(close_at_exit, (Datum) 0);
	exit_registered = true;
	old = MemoryContextSwitchTo(TopMemoryContext);
	opened = lappend(opened, broker);
	MemoryContextSwitchTo(old);
	if (reactor_watch(reactor, broker_fd(broker), EPOLLIN, broker_ready, NULL) < 0)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not watch the broker's descriptor: %m")));
	return broker;
}
