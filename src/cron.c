/*
 * cron.c
 *		The end of pg_cron's jobs, when the extension is dropped.
 */
#include "msgsys.h"

#include "cron.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* The jobs that msg_cron() made would fail for ever without the extension: they go with it, whoever made them. */
void
cron_drop_jobs(void)
{
	Oid			schema = get_namespace_oid("cron", true);
	Oid			jobs = OidIsValid(schema) ? get_relname_relid("job", schema) : InvalidOid;
	HeapTuple	tuple = OidIsValid(jobs) ? SearchSysCache1(RELOID, ObjectIdGetDatum(jobs)) : NULL;
	Oid			owner;
	Oid			user;
	int			context;

	if (!HeapTupleIsValid(tuple))
		return;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	/* only pg_cron's own, not somebody's table of that name */
	if (!OidIsValid(getExtensionOfObject(RelationRelationId, jobs)) ||
		getExtensionOfObject(RelationRelationId, jobs) != get_extension_oid("pg_cron", true))
		return;
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	SPI_connect();
	if (SPI_execute("DELETE FROM cron.job WHERE pg_catalog.starts_with(jobname::pg_catalog.text, 'msgsys:') "
					"AND database::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text", false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not end the jobs of pg_cron");
	SPI_finish();
	SetUserIdAndSecContext(user, context);
}
