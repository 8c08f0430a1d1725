/*
 * launcher.c
 *		The launcher: one process a server, connected to no database, that keeps
 *		the workers of each stage running in each database of msgsys.databases.
 *
 * A seat is one worker that there should be.  It has a slot in shared memory
 * for as long as it is wanted; a worker that ends is started again after a
 * pause that doubles while it keeps failing.
 */
#include "msgsys.h"

#include "compat.h"
#include "shmem.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#define RESTART_FIRST	1000	/* ms before a worker that ended starts again */
#define RESTART_LONGEST 30000
#define HEALTHY_AFTER	60000	/* ms after which a worker counts as well */
#define LAUNCHER_NAP	5000	/* ms between two looks without a latch */

typedef struct Seat
{
	Oid			dboid;			/* InvalidOid: no such database */
	char		database[NAMEDATALEN];
	Stage		stage;
	int			number;
	bool		wanted;
	int			slot;
	BackgroundWorkerHandle *handle; /* NULL: no process */
	TimestampTz started_at;
	TimestampTz start_after;
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

/* The seat of one worker, made if there is none; NULL when there is no slot. */
static Seat *
find_seat(const char *database, Stage stage, int number)
{
	ListCell   *lc;
	Seat	   *seat;
	int			slot;

	foreach(lc, seats)
	{
		seat = lfirst(lc);
		if (seat->stage == stage && seat->number == number &&
			strcmp(seat->database, database) == 0)
			return seat;
	}
	slot = slot_reserve(InvalidOid, database, stage, number);
	if (slot < 0)
		return NULL;
	seat = MemoryContextAllocZero(TopMemoryContext, sizeof(Seat));
	strlcpy(seat->database, database, NAMEDATALEN);
	seat->stage = stage;
	seat->number = number;
	seat->slot = slot;
	seats = lappend(seats, seat);
	return seat;
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
				MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
				Seat	   *seat = find_seat(name, stage, number);

				MemoryContextSwitchTo(old);
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
				if (seat->handle == NULL)
					seat->dboid = dboid;
				else if (seat->dboid != dboid)
					TerminateBackgroundWorker(seat->handle);
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
check_seat(Seat *seat, TimestampTz now)
{
	pid_t		pid;

	if (seat->handle == NULL ||
		GetBackgroundWorkerPid(seat->handle, &pid) != BGWH_STOPPED)
		return;
	pfree(seat->handle);
	seat->handle = NULL;
	if (TimestampDifferenceExceeds(seat->started_at, now, HEALTHY_AFTER))
		seat->pause = 0;
	seat->pause = Min(RESTART_LONGEST, Max(RESTART_FIRST, seat->pause * 2));
	seat->start_after = TimestampTzPlusMilliseconds(now, seat->pause);
	slot_set_state(seat->slot, WORKER_STOPPED, NULL);
}

static void
start_seat(Seat *seat, TimestampTz now)
{
	MemoryContext old;
	bool		started;
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
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

	slot_set_database(seat->slot, seat->dboid);
	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &seat->handle);
	MemoryContextSwitchTo(old);
	if (!started)
	{
		seat->handle = NULL;
		seat->start_after = TimestampTzPlusMilliseconds(now, LAUNCHER_NAP);
		complain(seat, WORKER_NO_SLOT, "no background worker slot is free",
				 "Raise max_worker_processes.");
		return;
	}
	seat->started_at = now;
	seat->complained = false;
	slot_set_state(seat->slot, WORKER_STARTING, NULL);
}

/* Milliseconds until the next seat is to be started. */
static long
next_start(TimestampTz now)
{
	long		result = LAUNCHER_NAP;
	ListCell   *lc;

	foreach(lc, seats)
	{
		Seat	   *seat = lfirst(lc);

		if (seat->wanted && seat->handle == NULL && OidIsValid(seat->dboid))
			result = Min(result, Max(10, TimestampDifferenceMilliseconds(now, seat->start_after)));
	}
	return result;
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

	for (;;)
	{
		ListCell   *lc;
		TimestampTz now;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		MemoryContextSwitchTo(cycle);
		want_seats();
		now = GetCurrentTimestamp();
		foreach(lc, seats)
		{
			Seat	   *seat = lfirst(lc);

			check_seat(seat, now);
			if (seat->wanted && seat->handle == NULL)
				start_seat(seat, now);
			else if (!seat->wanted && seat->handle != NULL)
				TerminateBackgroundWorker(seat->handle);
			else if (!seat->wanted)
			{
				slot_release(seat->slot);
				seats = foreach_delete_current(seats, lc);
				pfree(seat);
			}
		}
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextReset(cycle);

		WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
				  next_start(now), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
