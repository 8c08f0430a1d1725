/*
 * hooks.c
 *		Hooks into utility commands, and into the end of an extension.
 *
 * DROP DATABASE, RENAME and a copy by CREATE DATABASE ... TEMPLATE need a
 * database without sessions, so its workers are ended first and kept out until
 * the command is over, whether it succeeds or fails; but only where the role
 * may do that, which PostgreSQL itself checks later than this.  COMMIT PREPARED
 * makes rows visible whose notes are lost with the session that wrote them.  The schema of the
 * extension keeps its name, and jobs of pg_cron go with the extension.
 */
#include "msgsys.h"

#include "commits.h"
#include "compat.h"
#include "cron.h"
#include "names.h"
#include "notes.h"
#include "shmem.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

static bool
is_template(Oid dboid)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return result;
}

/* Whether the role may create databases; PostgreSQL's own test is not in every minor version's interface. */
static bool
may_create_databases(Oid role)
{
	HeapTuple	tuple;
	bool		result;

	if (superuser_arg(role))
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return result;
}

/* The string value of an option, or NULL. */
static const char *
option_value(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, name) == 0 && option->arg)
			return defGetString(option);
	}
	return NULL;
}

/*
 * The database that a command needs without sessions, if the role may do that
 * to it; InvalidOid otherwise, and the command then fails, or not, by itself.
 */
static Oid
database_to_empty(Node *parsetree)
{
	const char *name = NULL;
	bool		copy = false;
	Oid			dboid;

	switch (nodeTag(parsetree))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) parsetree)->dbname;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) parsetree)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) parsetree)->subname;
			break;
		case T_AlterDatabaseStmt:
			if (option_value(((AlterDatabaseStmt *) parsetree)->options, "tablespace"))
				name = ((AlterDatabaseStmt *) parsetree)->dbname;
			break;
		case T_CreatedbStmt:
			name = option_value(((CreatedbStmt *) parsetree)->options, "template");
			copy = true;
			break;
		default:
			break;
	}
	if (name == NULL || !IsTransactionState())
		return InvalidOid;
	dboid = get_database_oid(name, true);
	if (!OidIsValid(dboid) || dboid == MyDatabaseId)
		return InvalidOid;
	if (copy && !may_create_databases(GetUserId()))
		return InvalidOid;
	if (!compat_owns_database(dboid, GetUserId()) && !(copy && is_template(dboid)))
		return InvalidOid;
	return dboid;
}

static void
unblock(int code, Datum arg)
{
	database_unblock(DatumGetObjectId(arg));
}

/* What would be done without us. */
static void
do_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
		   ProcessUtilityContext context, ParamListInfo params,
		   QueryEnvironment *environment, DestReceiver *dest,
		   QueryCompletion *completion)
{
	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params,
							 environment, dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								environment, dest, completion);
}

/* Whether the schema of this name is that of the extension, whose functions name it. */
static bool
is_our_schema(const char *name)
{
	Oid			schema = get_namespace_oid(name, true);
	bool		found = false;
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum(MSGSYS_NAME));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		found = OidIsValid(schema) && ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace == schema;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* Refuse to rename the schema of the extension: its functions have the schema's name in their text. */
static void
check_rename(const RenameStmt *rename)
{
	if (rename->renameType == OBJECT_SCHEMA && IsTransactionState() && is_our_schema(rename->subname))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("schema \"%s\" cannot be renamed while it has the extension msgsys", rename->subname),
				 errdetail("The functions of the extension name the schema that they were made in."),
				 errhint("Move your own objects to another schema; or dump the database, and restore it with the extension in another one.")));
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *dest,
				QueryCompletion *completion)
{
	Node	   *parsetree = pstmt->utilityStmt;
	Oid			dboid = shmem_available() ? database_to_empty(parsetree) : InvalidOid;

	if (OidIsValid(dboid))
	{
		database_block(dboid);
		PG_ENSURE_ERROR_CLEANUP(unblock, ObjectIdGetDatum(dboid));
		{
			do_utility(pstmt, query, read_only_tree, context, params,
					   environment, dest, completion);
		}
		PG_END_ENSURE_ERROR_CLEANUP(unblock, ObjectIdGetDatum(dboid));
		database_unblock(dboid);
		if (IsA(parsetree, DropdbStmt))
			channels_forget(dboid, NULL);
		return;
	}

	if (IsA(parsetree, RenameStmt))
		check_rename((RenameStmt *) parsetree);
	if (IsA(parsetree, TransactionStmt) &&
		((TransactionStmt *) parsetree)->kind == TRANS_STMT_COMMIT_PREPARED)
	{
		note_prepared();
		do_utility(pstmt, query, read_only_tree, context, params, environment,
				   dest, completion);
		publish_config(MyDatabaseId);
		publish_sweep(MyDatabaseId);
		commit_ends();
		return;
	}
	do_utility(pstmt, query, read_only_tree, context, params, environment,
			   dest, completion);
	if (IsA(parsetree, DiscardStmt))
		names_forget_sequence();
}

/*
 * Whatever drops the extension, a schema's CASCADE for one: idle workers would not
 * notice that it was ours, nor would pg_cron.
 */
static void
object_access(ObjectAccessType access, Oid class, Oid object, int subobject, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class, object, subobject, arg);
	if (access == OAT_DROP && class == ExtensionRelationId)
	{
		char	   *name = get_extension_name(object);

		note_config();
		if (name && strcmp(name, MSGSYS_NAME) == 0)
			cron_drop_jobs();
	}
}

/* Called from _PG_init while the postmaster preloads the library. */
void
hooks_install(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
}
