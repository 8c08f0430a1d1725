/*
 * delivered.c
 *		What was delivered, into the cache; and the SQL functions that use that.
 *
 * Redis may be down, slow or full: it is told after the commit, all at once, with
 * a bound of msgsys.redis_timeout, and is left alone for a while after a failure.  What
 * it misses is served from the table.
 */
#include "msgsys.h"

#include <ctype.h>

#include "cache.h"
#include "delivered.h"
#include "record.h"
#include "rest_error.h"
#include "shmem.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(msg_cache_get);
PG_FUNCTION_INFO_V1(msg_cache_put);

static Cache *cache = NULL;
static char *opened_with = NULL;
static bool failing = false;	/* and that has been logged */
static List *entries = NIL;		/* of CacheEntry, in the cycle's memory */

/* The cache, or NULL where none is set; a wrong setting is an error, or logged once. */
static Cache *
open_cache(int elevel)
{
	char		err[256] = "";
	CacheConfig config = {
		.url = setting_redis_url,
		.ca_file = setting_redis_ca_file,
		.connect_timeout_ms = setting_redis_timeout,
		.timeout_ms = setting_redis_timeout
	};
	char	   *settings;

	if (setting_redis_url == NULL || setting_redis_url[0] == '\0')
		return NULL;
	settings = psprintf("%s %s %d", setting_redis_url, setting_redis_ca_file, setting_redis_timeout);
	if (opened_with && strcmp(opened_with, settings) == 0 && (cache || elevel < ERROR))
		return cache;
	if (opened_with)
		pfree(opened_with);
	opened_with = MemoryContextStrdup(TopMemoryContext, settings);
	cache_close(cache);
	cache = cache_open(&config, err, sizeof(err));
	if (cache == NULL)
		ereport(elevel,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("msgsys.redis_url cannot be used: %s", err)));
	return cache;
}

/* Several installations may share a Redis: a key is the message's name, by the uuid of this one. */
static char *
cache_key(const char *name)
{
	return psprintf("%s%s", setting_redis_prefix, name);
}

/* A value: {"message": …, "messageId": …, "sentAt": …, "code": …}; body is JSON, or NULL. */
static void
build_value(StringInfo out, const char *body, size_t length, const char *response_id, TimestampTz at, int code)
{
	appendStringInfoString(out, "{\"message\": ");
	if (body)
		appendBinaryStringInfo(out, body, length);
	else
		appendStringInfoString(out, "null");
	appendStringInfoString(out, ", \"messageId\": ");
	if (response_id)
		escape_json(out, response_id);
	else
		appendStringInfoString(out, "null");
	appendStringInfo(out, ", \"sentAt\": \"%s\", \"code\": %d}", record_time(at), code);
}

/* A message was delivered; remembered until delivered_flush(). */
void
delivered_add(const Job *job, const WebhookMark *mark)
{
	StringInfoData value;
	CacheEntry *entry;

	if (setting_redis_url[0] == '\0')
		return;
	initStringInfo(&value);
	build_value(&value, job->request.json ? job->request.body : NULL, job->request.body_length, mark->response_id, clock_now(), mark->code);
	entry = palloc(sizeof(CacheEntry));
	entry->key = cache_key(psprintf("%s:" INT64_FORMAT, installation.uuid, job->id));
	entry->value = value.data;
	entry->length = value.len;
	entries = lappend(entries, entry);
}

/* Tell the cache of all that was added; to be called in the cycle that added it. */
void
delivered_flush(void)
{
	char		err[256] = "";
	CacheEntry *array;
	ListCell   *lc;
	int			n = list_length(entries);

	if (n == 0)
		return;
	array = palloc(n * sizeof(CacheEntry));
	foreach(lc, entries)
		array[foreach_current_index(lc)] = *(CacheEntry *) lfirst(lc);
	entries = NIL;
	if (open_cache(LOG) == NULL)
		return;
	if (cache_put(cache, array, n, setting_redis_ttl, err, sizeof(err)))
	{
		slot_count_up(COUNT_CACHED, n);
		if (failing)
			ereport(LOG, (errmsg("msgsys has Redis back")));
		failing = false;
		return;
	}
	slot_count_up(COUNT_UNCACHED, n);
	if (!failing)
	{
		ereport(LOG,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("msgsys has lost Redis, and goes on without it: %s", err)));
		slot_error(err);
	}
	failing = true;
}

/* Whether a JSON text has a number with an exponent, which is short here and long in the database. */
static bool
has_exponent(const char *text)
{
	bool		string = false;

	for (const char *c = text; *c; c++)
	{
		if (*c == '"')
			string = !string;
		else if (string && *c == '\\' && c[1])
			c++;
		else if (!string && (*c == 'e' || *c == 'E') && c > text && (isdigit((unsigned char) c[-1]) || c[-1] == '.'))
			return true;
	}
	return false;
}

/*
 * Whether a value can be one that build_value() made.  Whoever writes to Redis may have written it;
 * what it is not is as good as nothing, for the table has the message too.
 */
static bool
is_entry(const char *value, size_t length)
{
	Jsonb	   *json;

	if (strlen(value) != length || !pg_verifymbstr(value, length, true) || has_exponent(value))
		return false;
	json = rest_try_json(value);
	return json && JB_ROOT_IS_OBJECT(json);
}

/*
 * msg_cache_get(name text) returns text
 * What Redis has of a message of this name (uuid:id), a JSON object; NULL where it has none, or does not answer.
 */
Datum
msg_cache_get(PG_FUNCTION_ARGS)
{
	char		err[256];
	char	   *value = NULL;
	size_t		length = 0;
	char	   *kept;

	if (open_cache(WARNING) == NULL ||
		cache_get(cache, cache_key(text_to_cstring(PG_GETARG_TEXT_PP(0))), &value, &length, err, sizeof(err)) != 1)
		PG_RETURN_NULL();
	kept = pnstrdup(value, length);
	free(value);
	if (!is_entry(kept, length))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text_with_len(kept, length));
}

/*
 * msg_cache_put(names text[], entries text[]) returns void
 * Write entries into Redis.  Errors: 08006 where it does not take them, 55000 where none is set.
 */
Datum
msg_cache_put(PG_FUNCTION_ARGS)
{
	Datum	   *names;
	Datum	   *values;
	int			nnames;
	int			nvalues;
	CacheEntry *array;
	char		err[256];

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &nnames);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &values, NULL, &nvalues);
	if (nnames != nvalues)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("there must be as many entries as names")));
	if (open_cache(ERROR) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("msgsys.redis_url is not set")));
	array = palloc(Max(nnames, 1) * sizeof(CacheEntry));
	for (int i = 0; i < nnames; i++)
	{
		array[i].key = cache_key(TextDatumGetCString(names[i]));
		array[i].value = TextDatumGetCString(values[i]);
		array[i].length = strlen(array[i].value);
	}
	if (nnames > 0 && !cache_put(cache, array, nnames, setting_redis_ttl, err, sizeof(err)))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("Redis does not take the entries: %s", err)));
	PG_RETURN_VOID();
}
