/*
 * compat.h
 *		Every difference between the PostgreSQL versions that msgsys supports
 *		(14 and later), and the only file that tests PG_VERSION_NUM.
 */
#ifndef MSGSYS_COMPAT_H
#define MSGSYS_COMPAT_H

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#if PG_VERSION_NUM >= 170000
#include "utils/wait_event.h"
#else
#include "pgstat.h"
#endif

#if PG_VERSION_NUM < 140000
#error "msgsys needs PostgreSQL 14 or later"
#endif

#if PG_VERSION_NUM >= 180000
#define MSGSYS_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "msgsys", .version = MSGSYS_VERSION)
#else
#define MSGSYS_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* 18 has a word for this that stands before a declaration. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

/* Shared memory is requested in a hook of its own since 15. */
#if PG_VERSION_NUM >= 150000
#define MSGSYS_HAS_SHMEM_REQUEST_HOOK 1
#endif

/* 17 has a timeout more that a worker must not inherit. */
#if PG_VERSION_NUM >= 170000
#define MSGSYS_HAS_TRANSACTION_TIMEOUT 1
#endif

static inline void
compat_reserve_prefix(const char *prefix)
{
#if PG_VERSION_NUM >= 150000
	MarkGUCPrefixReserved(prefix);
#else
	EmitWarningsOnPlaceholders(prefix);
#endif
}

static inline WaitEventSet *
compat_create_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/* A wait event shown in pg_stat_activity; before 17 there is one for all. */
static inline uint32
compat_wait_event(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	(void) name;
	return PG_WAIT_EXTENSION;
#endif
}

/* Have the WAL writer look at once whether there is something to write. */
static inline void
compat_wake_walwriter(void)
{
#if PG_VERSION_NUM >= 180000
	ProcNumber	writer = pg_atomic_read_u32(&ProcGlobal->walwriterProc);

	if (writer != INVALID_PROC_NUMBER)
		SetLatch(&GetPGProcByNumber(writer)->procLatch);
#else
	if (ProcGlobal->walwriterLatch)
		SetLatch(ProcGlobal->walwriterLatch);
#endif
}

/* The oldest transaction that the commit log still knows. */
static inline TransactionId
compat_oldest_clog_xid(void)
{
#if PG_VERSION_NUM >= 170000
	return TransamVariables->oldestClogXid;
#else
	return ShmemVariableCache->oldestClogXid;
#endif
}

/* The timeline that WAL is written to; not in recovery. */
static inline TimeLineID
compat_timeline(void)
{
#if PG_VERSION_NUM >= 150000
	return GetWALInsertionTimeLine();
#else
	(void) RecoveryInProgress();
	return ThisTimeLineID;
#endif
}

/* What this session calls the transaction under way. */
static inline LocalTransactionId
compat_local_transaction(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProc->vxid.lxid;
#else
	return MyProc->lxid;
#endif
}

static inline bool
compat_owns_database(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, role);
#else
	return pg_database_ownercheck(database, role);
#endif
}

#if PG_VERSION_NUM >= 160000
#define compat_make_range(type, lower, upper) make_range(type, lower, upper, false, NULL)
#else
#define compat_make_range(type, lower, upper) make_range(type, lower, upper, false)
#endif

static inline JsonLexContext *
compat_json_lexer(char *json, int length)
{
#if PG_VERSION_NUM >= 170000
	return makeJsonLexContextCstringLen(NULL, json, length, PG_UTF8, true);
#else
	return makeJsonLexContextCstringLen(json, length, PG_UTF8, true);
#endif
}

#if PG_VERSION_NUM >= 160000
#define COMPAT_JSON_ACTION JsonParseErrorType
#define COMPAT_JSON_ACTION_RETURN return JSON_SUCCESS
#else
#define COMPAT_JSON_ACTION void
#define COMPAT_JSON_ACTION_RETURN return
#endif

#endif							/* MSGSYS_COMPAT_H */
