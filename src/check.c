/*
 * check.c
 *		What msg_check() cannot know by SQL: the library, its shared memory, and
 *		whether files and secrets of settings can be used.
 */
#include "msgsys.h"

#include <unistd.h>

#include "backlog.h"
#include "jwt.h"
#include "shmem.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(msg_check_library);
PG_FUNCTION_INFO_V1(msg_check_files);
PG_FUNCTION_INFO_V1(msg_check_backlog);

#define SHORTEST_SECRET 32		/* bytes, as jwt.c asks for */

/* msg_check_library() returns the version, whether preloaded, the launcher's process, channels with a place */
Datum
msg_check_library(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {false};
	int			launcher = 0;
	int			nchannels = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (shmem_available())
		shmem_look(&launcher, &nchannels);
	values[0] = CStringGetTextDatum(MSGSYS_VERSION);
	values[1] = BoolGetDatum(shmem_available());
	values[2] = Int32GetDatum(launcher);
	nulls[2] = launcher == 0;
	values[3] = Int32GetDatum(nchannels);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* Why a file that a setting names cannot be read; NULL if it can, or there is none. */
static const char *
file_problem(const char *path)
{
	if (path == NULL || path[0] == '\0' || access(path, R_OK) == 0)
		return NULL;
	return pstrdup(strerror(errno));
}

/*
 * msg_check_files() returns setof record
 * Settings that name what cannot be used.  Any reader may call it, so it says
 * why, but neither what the setting is nor what is in the file.
 */
Datum
msg_check_files(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	struct
	{
		const char *setting;
		const char *problem;
	}		   *found;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;
		TupleDesc	desc;
		int			n = 0;
		bool		served = setting_http_listen && setting_http_listen[0];
		bool		secret = setting_http_jwt_secret[0] != '\0';
		struct
		{
			const char *setting;
			const char *path;
		}			files[] = {
			{"msgsys.kafka_options_file", setting_kafka_options_file},
			{"msgsys.http_jwt_keys_file", setting_http_jwt_keys_file},
			{"msgsys.redis_ca_file", setting_redis_ca_file},
			{"msgsys.http_files", setting_http_files},
		};

		context = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		context->tuple_desc = BlessTupleDesc(desc);
		found = palloc((lengthof(files) + 2) * sizeof(*found));
		for (int i = 0; i < lengthof(files); i++)
		{
			found[n].setting = files[i].setting;
			found[n].problem = file_problem(files[i].path);
			if (found[n].problem)
				n++;
		}
		if (secret && setting_http_jwt_algorithm == JWT_HS256 && strlen(setting_http_jwt_secret) < SHORTEST_SECRET)
		{
			found[n].setting = "msgsys.http_jwt_secret";
			found[n++].problem = "it has less than 32 bytes";
		}
		if (served && !secret && setting_http_jwt_keys_file[0] == '\0' && setting_http_anonymous_role[0] == '\0')
		{
			found[n].setting = "msgsys.http_listen";
			found[n++].problem = "nobody can ask, for there is neither a key of tokens nor an anonymous role";
		}
		context->user_fctx = found;
		context->max_calls = n;
		MemoryContextSwitchTo(old);
	}
	context = SRF_PERCALL_SETUP();
	if (context->call_cntr < context->max_calls)
	{
		Datum		values[2];
		bool		nulls[2] = {false};

		found = context->user_fctx;
		found += context->call_cntr;
		values[0] = CStringGetTextDatum(found->setting);
		values[1] = CStringGetTextDatum(found->problem);
		SRF_RETURN_NEXT(context, HeapTupleGetDatum(heap_form_tuple(context->tuple_desc, values, nulls)));
	}
	SRF_RETURN_DONE(context);
}

/* msg_check_backlog(channel) returns bigint: the counter of its idle messages */
Datum
msg_check_backlog(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(backlog_of(MyDatabaseId, text_to_cstring(PG_GETARG_TEXT_PP(0))));
}
