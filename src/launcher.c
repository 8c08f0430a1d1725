/*
 * launcher.c
 *		The launcher: one process a server, connected to no database, that keeps
 *		the workers of each stage running in each database of msgsys.databases.
 *
 * A seat is one worker that there may be.  It has a slot in shared memory for as
 * long as its database is listed.  The scheduler of a database always runs, and says
 * there which other stages its channels need (scheduler.c): these are started at
 * once, and ended when they have not been needed for a while.  A worker that ends is
 * started again after a pause that doubles while it keeps failing.
 *
 * A launcher that starts takes over the seats that it finds, and who sits there:
 * whatever it knows of a seat beyond the slot is only when to start the next one.
 *
 * On a standby it runs as soon as sessions may, and starts those who serve HTTP; the
 * schedulers are registered to begin at the promotion, and everything else follows.
 */
#include "msgsys.h"

#include "compat.h"
#include "monotonic.h"
#include "shmem.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/relcache.h"
#include "utils/varlena.h"

#define RESTART_FIRST	1000	/* ms before a worker that ended starts again */
#define RESTART_LONGEST 30000
#define HEALTHY_AFTER	60000	/* ms after which a worker counts as well */
#define LAUNCHER_NAP	5000	/* ms between two looks without a latch, and after an error */
#define NEEDED_AGAIN	5000	/* ms that a worker stays which is not needed: settings change back, too */

typedef struct Seat
{
	Oid			dboid;			/* InvalidOid: no such database */
	char		database[NAMEDATALEN];
	Stage		stage;
	int			number;
	bool		wanted;
	int			slot;
	BackgroundWorkerHandle *handle; /* of the process that this launcher started; NULL: none */
	bool		taken;			/* there is a process, whoever started it */
	int64		started_at;		/* by the clock of now_ms() */
	int64		start_after;
	int64		idle_since;		/* when it was needed last; 0: it is needed */
	int			pause;			/* ms before the next start */
	bool		complained;		/* its present trouble is in the log */
} Seat;

static List *seats = NIL;		/* of Seat, in TopMemoryContext */

/* One trouble is one line in the log, and stays in view in msg_workers. */
static void
complain(Seat *seat, WorkerState state, const char *trouble, const char *hint)
{
	slot_set_state(seat->slot, state, seat->complained ? NULL : trouble);
	if (!seat->complained)
		ereport(LOG,
				(errmsg("msgsys cannot start %s %d in database \"%s\": %s",
						stage_name(seat->stage), seat->number, seat->database,
						trouble),
				 hint ? errhint("%s", hint) : 0));
	seat->complained = true;
}

static Seat *
make_seat(const char *database, Stage stage, int number, int slot)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Seat	   *seat = palloc0(sizeof(Seat));

	strlcpy(seat->database, database, NAMEDATALEN);
	seat->stage = stage;
	seat->number = number;
	seat->slot = slot;
	seats = lappend(seats, seat);
	MemoryContextSwitchTo(old);
	return seat;
}

/* The seat of one worker, made if there is none; NULL when there is no slot. */
static Seat *
find_seat(const char *database, Stage stage, int number)
{
	ListCell   *lc;
	Seat	   *seat;

	foreach(lc, seats)
	{
		seat = lfirst(lc);
		if (seat->stage == stage && seat->number == number &&
			strcmp(seat->database, database) == 0)
			break;
		seat = NULL;
	}
	if (lc == NULL)
		seat = make_seat(database, stage, number, -1);
	if (seat->slot < 0)
		seat->slot = slot_reserve(InvalidOid, database, stage, number);
	return seat->slot < 0 ? NULL : seat;
}

/* The seats that a launcher before this one has left. */
static void
take_over(void)
{
	for (int i = 0; i < slot_count(); i++)
	{
		WorkerView	view;
		Seat	   *seat;

		if (!slot_view(i, &view))
			continue;
		seat = make_seat(view.database, view.stage, view.number, i);
		seat->dboid = view.dboid;
		seat->taken = view.pid != 0;
		seat->started_at = now_ms();
		if (seat->taken)
			ereport(DEBUG1,
					(errmsg_internal("msgsys launcher takes over %s %d in database \"%s\"",
									 stage_name(seat->stage), seat->number, seat->database)));
	}
}

/* Have the process of a seat end, if there is one, or if one is on its way. */
static void
end_seat(Seat *seat)
{
	if (seat->handle)
		TerminateBackgroundWorker(seat->handle);
	slot_end(seat->slot);
}

/*
 * The oid of a database that takes connections, or InvalidOid.  Not by the
 * system cache, which needs a database to fill itself from.
 */
static Oid
connectable_database(const char *name)
{
	Relation	rel = table_open(DatabaseRelationId, AccessShareLock);
	Oid			result = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_database_datname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(name));
	scan = systable_beginscan(rel, DatabaseNameIndexId, criticalSharedRelcachesBuilt,
							  NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple) && ((Form_pg_database) GETSTRUCT(tuple))->datallowconn)
		result = ((Form_pg_database) GETSTRUCT(tuple))->oid;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* Whether a database has workers of a stage: one port serves one database. */
static bool
stage_wanted(Stage stage, const char *database, List *databases)
{
	if (stage != STAGE_HTTP)
		return true;
	return strcmp(database, setting_http_database[0] ? setting_http_database : linitial(databases)) == 0;
}

/* Bring the seats in line with msgsys.databases and the catalogue. */
static void
want_seats(void)
{
	static bool complained = false;
	char	   *copy;
	List	   *names;
	ListCell   *lc;
	bool		full = false;

	foreach(lc, seats)
		((Seat *) lfirst(lc))->wanted = false;

	StartTransactionCommand();
	copy = pstrdup(setting_databases);
	if (!SplitGUCList(copy, ',', &names))
	{
		if (!complained)
			ereport(LOG,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("msgsys.databases is not a list of names")));
		complained = true;
		names = NIL;
	}
	foreach(lc, names)
	{
		const char *name = lfirst(lc);
		Oid			dboid = connectable_database(name);

		for (int stage = 0; stage < STAGE_COUNT; stage++)
			for (int number = 0; number < stage_workers(stage) && stage_wanted(stage, name, names); number++)
			{
				Seat	   *seat = find_seat(name, stage, number);

				if (seat == NULL)
				{
					full = true;
					continue;
				}
				seat->wanted = true;
				if (seat->dboid != dboid)
				{
					/* dropped, created again, or renamed */
					seat->complained = false;
					seat->pause = 0;
					seat->start_after = 0;
				}
				if (!seat->taken)
					seat->dboid = dboid;
				else if (seat->dboid != dboid)
					end_seat(seat);
			}
	}
	CommitTransactionCommand();

	if (full && !complained)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("msgsys.databases has more names than msgsys.max_databases allows")));
	if (full)
		complained = true;
	else if (names != NIL)
		complained = false;
}

/* Notice that a seat's process has ended, and when to start the next. */
static void
check_seat(Seat *seat, int64 now)
{
	pid_t		pid;

	if (!seat->taken ||
		(seat->handle && GetBackgroundWorkerPid(seat->handle, &pid) != BGWH_STOPPED) ||
		slot_pid(seat->slot) != 0)
		return;
	if (seat->handle)
		pfree(seat->handle);
	seat->handle = NULL;
	seat->taken = false;
	if (now - seat->started_at > HEALTHY_AFTER)
		seat->pause = 0;
	seat->pause = Min(RESTART_LONGEST, Max(RESTART_FIRST, seat->pause * 2));
	seat->start_after = now + seat->pause;
	slot_set_state(seat->slot, WORKER_STOPPED, NULL);
}

/* Whether a seat is to have a process; one that is not needed any more keeps its own for a while. */
static bool
is_needed(Seat *seat, int64 now)
{
	if (OidIsValid(seat->dboid) && !stage_needed(seat->dboid, seat->stage))
	{
		if (seat->idle_since == 0)
			seat->idle_since = now;
		return seat->taken && now < seat->idle_since + NEEDED_AGAIN;
	}
	if (seat->idle_since != 0)
	{
		/* how it fared in another configuration says nothing */
		seat->pause = 0;
		seat->start_after = 0;
	}
	seat->idle_since = 0;
	return true;
}

static void
start_seat(Seat *seat, int64 now)
{
	MemoryContext old;
	bool		started;
	bool		standby = RecoveryInProgress() && seat->stage != STAGE_HTTP;
	uint64		start;
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = seat->stage == STAGE_HTTP ? BgWorkerStart_ConsistentState : BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = MSGSYS_NAME,
		.bgw_function_name = "msgsys_worker_main",
		.bgw_main_arg = Int32GetDatum(seat->slot),
		.bgw_notify_pid = MyProcPid,
	};

	if (!OidIsValid(seat->dboid))
	{
		complain(seat, WORKER_NO_DATABASE,
				 "there is no such database, or it takes no connections", NULL);
		return;
	}
	if (database_blocked(seat->dboid) || now < seat->start_after)
		return;
	snprintf(worker.bgw_name, BGW_MAXLEN, "msgsys %s %d", stage_name(seat->stage),
			 seat->number);
	snprintf(worker.bgw_type, BGW_MAXLEN, "msgsys %s", stage_name(seat->stage));

	start = slot_begin(seat->slot, seat->dboid);
	if (start == 0)
	{
		/* somebody was still on his way here */
		seat->taken = true;
		return;
	}
	memcpy(worker.bgw_extra, &start, sizeof(start));
	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &seat->handle);
	MemoryContextSwitchTo(old);
	if (!started)
	{
		seat->handle = NULL;
		seat->start_after = now + LAUNCHER_NAP;
		complain(seat, WORKER_NO_SLOT, "no background worker slot is free",
				 "Raise max_worker_processes.");
		return;
	}
	seat->taken = true;
	seat->started_at = now;
	seat->complained = false;
	if (standby)
		slot_set_state(seat->slot, WORKER_STANDBY, NULL);
}

/* Milliseconds until there is a seat to look at again. */
static long
next_look(int64 now)
{
	int64		until = now + LAUNCHER_NAP;
	ListCell   *lc;

	foreach(lc, seats)
	{
		Seat	   *seat = lfirst(lc);

		if (!seat->wanted || !OidIsValid(seat->dboid))
			continue;
		if (seat->idle_since == 0 && !seat->taken)
			until = Min(until, Max(now + 10, seat->start_after));
		else if (seat->idle_since != 0 && seat->taken)
			until = Min(until, Max(now + 10, seat->idle_since + NEEDED_AGAIN));
	}
	return until - now;
}

/* Give each seat a process or end it, as is wanted; forget those that are not. */
static void
tend_seats(int64 now)
{
	ListCell   *lc;

	foreach(lc, seats)
	{
		Seat	   *seat = lfirst(lc);

		if (seat->slot < 0)
		{
			/* want_seats() asks for a slot again */
			seats = foreach_delete_current(seats, lc);
			pfree(seat);
			continue;
		}
		check_seat(seat, now);
		if (seat->wanted && is_needed(seat, now))
		{
			if (!seat->taken)
				start_seat(seat, now);
		}
		else if (seat->taken)
			end_seat(seat);
		else if (seat->wanted)
			slot_set_state(seat->slot, RecoveryInProgress() ? WORKER_STANDBY : WORKER_NOT_NEEDED, NULL);
		else
		{
			slot_release(seat->slot);
			seats = foreach_delete_current(seats, lc);
			pfree(seat);
		}
	}
}

/* After an error, as PostgreSQL's own processes do: put everything back that a transaction may have held. */
static void
recover(MemoryContext cycle)
{
	HOLD_INTERRUPTS();
	EmitErrorReport();
	LWLockReleaseAll();
	pgstat_report_wait_end();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(TopMemoryContext);
	FlushErrorState();
	MemoryContextReset(cycle);
	RESUME_INTERRUPTS();
}

static void
wait_for_news(long timeout_ms)
{
	WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
			  timeout_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

void
msgsys_launcher_main(Datum arg)
{
	MemoryContext cycle;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	slot_publish_launcher();
	cycle = AllocSetContextCreate(TopMemoryContext, "msgsys launcher cycle",
								  ALLOCSET_DEFAULT_SIZES);
	take_over();

	for (;;)
	{
		volatile long timeout = LAUNCHER_NAP;

		PG_TRY();
		{
			CHECK_FOR_INTERRUPTS();
			if (ConfigReloadPending)
			{
				ConfigReloadPending = false;
				ProcessConfigFile(PGC_SIGHUP);
			}
			MemoryContextSwitchTo(cycle);
			want_seats();
			tend_seats(now_ms());
			timeout = next_look(now_ms());
			MemoryContextSwitchTo(TopMemoryContext);
			MemoryContextReset(cycle);
		}
		PG_CATCH();
		{
			/* workers go on without us meanwhile */
			recover(cycle);
		}
		PG_END_TRY();
		wait_for_news(timeout);
	}
}
