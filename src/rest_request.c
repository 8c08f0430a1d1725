/*
 * rest_request.c
 *		What a request's header wants: preferences (RFC 7240), media type, rows.
 */
#include "msgsys.h"

#include "rest_error.h"
#include "rest_request.h"

#include "utils/builtins.h"
#include "utils/guc.h"

/* ---------------------------------------------------------------- lists */

/* The next of a comma separated list, without blanks around it; NULL at the end. */
static char *
next_of_list(char **next)
{
	char	   *text = *next;
	char	   *end;

	if (text == NULL)
		return NULL;
	*next = strchr(text, ',');
	if (*next)
		*(*next)++ = '\0';
	text += strspn(text, " \t");
	end = text + strlen(text);
	while (end > text && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = '\0';
	return text;
}

static void
to_lower(char *text)
{
	for (; *text; text++)
		*text = pg_tolower((unsigned char) *text);
}

/* ---------------------------------------------------------------- Prefer */

/* One preference; the first of a kind wins. */
static void
take_preference(RestPrefer *prefer, const char *text)
{
	static const struct
	{
		const char *text;
		size_t		offset;
		int			value;
	}			known[] = {
		{"resolution=merge-duplicates", offsetof(RestPrefer, resolution), RESOLUTION_MERGE},
		{"resolution=ignore-duplicates", offsetof(RestPrefer, resolution), RESOLUTION_IGNORE},
		{"return=minimal", offsetof(RestPrefer, returns), RETURN_MINIMAL},
		{"return=headers-only", offsetof(RestPrefer, returns), RETURN_HEADERS},
		{"return=representation", offsetof(RestPrefer, returns), RETURN_REPRESENTATION},
		{"count=exact", offsetof(RestPrefer, count), COUNT_EXACT},
		{"count=planned", offsetof(RestPrefer, count), COUNT_PLANNED},
		{"count=estimated", offsetof(RestPrefer, count), COUNT_ESTIMATED},
		{"missing=default", offsetof(RestPrefer, missing), 1},
		{"missing=null", offsetof(RestPrefer, missing), 2},
		{"handling=strict", offsetof(RestPrefer, handling), 1},
		{"handling=lenient", offsetof(RestPrefer, handling), 2},
		{"tx=commit", offsetof(RestPrefer, transaction), 1},
		{"tx=rollback", offsetof(RestPrefer, transaction), 2},
	};

	for (int i = 0; i < lengthof(known); i++)
		if (strcmp(text, known[i].text) == 0)
		{
			int		   *place = (int *) ((char *) prefer + known[i].offset);

			if (*place == 0)
				*place = known[i].value;
			return;
		}
	if (strncmp(text, "timezone=", 9) == 0)
	{
		if (prefer->timezone == NULL)
			prefer->timezone = text + 9;
		return;
	}
	if (strncmp(text, "max-affected=", 13) == 0)
	{
		char	   *end;
		int64		n = strtoll(text + 13, &end, 10);

		if (!prefer->has_max_affected && end > text + 13 && *end == '\0')
		{
			prefer->has_max_affected = true;
			prefer->max_affected = n;
		}
		return;
	}
	appendStringInfo(&prefer->invalid, "%s%s", prefer->invalid.len > 0 ? ", " : "", text);
}

/* Read all Prefer fields; with handling=strict, what is not known is refused.  Applies a time zone. */
void
rest_prefer(const Call *call, RestPrefer *prefer)
{
	memset(prefer, 0, sizeof(RestPrefer));
	initStringInfo(&prefer->invalid);
	for (int i = 0; i < call->http->nfields; i++)
	{
		char	   *next;
		char	   *text;

		if (pg_strcasecmp(call->http->fields[i].name, "prefer") != 0)
			continue;
		next = pstrdup(call->http->fields[i].value);
		while ((text = next_of_list(&next)) != NULL)
			if (*text)
				take_preference(prefer, text);
	}
	if (!setting_http_tx_override)
		prefer->transaction = 0;
	if (prefer->handling == 1 && prefer->invalid.len > 0)
		rest_refuse(400, "PGRST122", "Invalid preferences given with handling=strict",
					psprintf("Invalid preferences: %s", prefer->invalid.data), NULL);
	/* one that PostgreSQL does not know is its error, whatever the handling */
	if (prefer->timezone)
		set_config_option("timezone", prefer->timezone, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

static void
applied(StringInfo list, const char *text)
{
	appendStringInfo(list, "%s%s", list->len > 0 ? ", " : "", text);
}

/* Tell which preferences were applied; the flags say which of them this kind of request knows. */
void
rest_prefer_applied(Call *call, const RestPrefer *prefer, bool resolution, bool missing, bool returns, bool max_affected)
{
	static const char *const resolutions[] = {"", "resolution=merge-duplicates", "resolution=ignore-duplicates"};
	static const char *const returned[] = {"", "return=minimal", "return=headers-only", "return=representation"};
	static const char *const counts[] = {"", "count=exact", "count=planned", "count=estimated"};
	static const char *const missed[] = {"", "missing=default", "missing=null"};
	static const char *const handled[] = {"", "handling=strict", "handling=lenient"};
	static const char *const transactions[] = {"", "tx=commit", "tx=rollback"};
	StringInfoData list;

	initStringInfo(&list);
	if (resolution && prefer->resolution)
		applied(&list, resolutions[prefer->resolution]);
	if (missing && prefer->missing)
		applied(&list, missed[prefer->missing]);
	if (returns && prefer->returns)
		applied(&list, returned[prefer->returns]);
	if (prefer->count)
		applied(&list, counts[prefer->count]);
	if (prefer->transaction)
		applied(&list, transactions[prefer->transaction]);
	if (prefer->handling)
		applied(&list, handled[prefer->handling]);
	if (prefer->timezone)
		applied(&list, psprintf("timezone=%s", prefer->timezone));
	if (max_affected && prefer->has_max_affected && prefer->handling == 1)
		applied(&list, psprintf("max-affected=" INT64_FORMAT, prefer->max_affected));
	if (list.len > 0)
		call_reply_field(call, "Preference-Applied", list.data);
}

/* ---------------------------------------------------------------- Accept and Content-Type */

/* The weight of a media type, from its parameter q; 1 without. */
static double
weight(const char *type)
{
	const char *q = strstr(type, ";q=");

	if (q == NULL)
		q = strstr(type, "; q=");
	return q ? strtod(strchr(q, '=') + 1, NULL) : 1.0;
}

/* Whether a media type is one that we make. */
static bool
understand(const char *type, RestMedia *media, bool *nulls_stripped)
{
	size_t		length = strcspn(type, "; ");

#define IS(name) (length == strlen(name) && strncmp(type, name, length) == 0)
	/* only of PostgREST's own types */
	*nulls_stripped = strncmp(type, "application/vnd.pgrst.", 22) == 0 && strstr(type, "nulls=stripped") != NULL;
	if (IS("*/*") || IS("application/*") || IS("application/json") || IS("application/vnd.pgrst.array+json") || IS("application/vnd.pgrst.array"))
		*media = MEDIA_JSON;
	else if (IS("application/vnd.pgrst.object+json") || IS("application/vnd.pgrst.object"))
		*media = MEDIA_OBJECT;
	else if (IS("text/csv"))
		*media = MEDIA_CSV;
	else
		return false;
#undef IS
	return true;
}

/* The media type that the client wants most, of those that we make. */
RestMedia
rest_media(const Call *call, bool *nulls_stripped)
{
	const char *field = call_field(call, "accept");
	char	   *list = pstrdup(field && *field ? field : "*/*");
	char	   *next = list;
	char	   *type;
	double		best = 0;
	RestMedia	result = MEDIA_JSON;
	bool		stripped;
	RestMedia	media;

	*nulls_stripped = false;
	to_lower(list);
	while ((type = next_of_list(&next)) != NULL)
		if (weight(type) > best && understand(type, &media, &stripped))
		{
			best = weight(type);
			result = media;
			*nulls_stripped = stripped;
		}
	if (best == 0)
		rest_refuse(406, "PGRST107", psprintf("None of these media types are available: %s", field ? field : ""), NULL, NULL);
	return result;
}

const char *
rest_content_type(const Call *call)
{
	const char *field = call_field(call, "content-type");
	char	   *next;
	char	   *type;

	if (field == NULL || *field == '\0')
		return "application/json";
	next = pstrdup(field);
	to_lower(next);
	type = next_of_list(&next);
	type[strcspn(type, "; ")] = '\0';
	return type;
}

/* ---------------------------------------------------------------- rows */

pg_noreturn static void
refuse_range(const char *details)
{
	rest_refuse(416, "PGRST103", "Requested range not satisfiable", details, NULL);
}

/* "Range: 0-24"; false: there is none that can be read. */
static bool
range_field(const Call *call, int64 *low, int64 *high)
{
	const char *field = call->method == METHOD_GET ? call_field(call, "range") : NULL;
	char	   *end;

	if (field == NULL)
		return false;
	if (*field < '0' || *field > '9')
		return false;
	*low = strtoll(field, &end, 10);
	if (*end++ != '-')
		return false;
	*high = PG_INT64_MAX;
	if (*end == '\0')
		return true;
	if (*end < '0' || *end > '9')
		return false;
	*high = strtoll(end, &end, 10);
	return *end == '\0';
}

/* Which rows are wanted: limit, offset and Range together. */
void
rest_window(const Call *call, const RestQuery *query, RestWindow *window)
{
	int64		low = Max(query->offset, 0);
	int64		high = PG_INT64_MAX;	/* last row */
	int64		range_low;
	int64		range_high;

	if (query->has_limit)
	{
		if (query->limit < 0)
			refuse_range("Limit should be greater than or equal to zero.");
		/* of a negative offset, rows before the first are part of the limit */
		if (query->limit == 0)
			high = low - 1;
		else
			high = query->limit > PG_INT64_MAX - low ? PG_INT64_MAX : query->offset + query->limit - 1;
		if (query->limit > 0 && high < low)
			refuse_range("Limit should be greater than or equal to zero.");
	}
	if (range_field(call, &range_low, &range_high) && !(query->has_limit && query->limit == 0))
	{
		if (range_low > range_high)
			refuse_range("The lower boundary must be lower than or equal to the upper boundary in the Range header.");
		low = Max(low, range_low);
		high = Min(high, range_high);
		if (low > high)
			refuse_range("Limit should be greater than or equal to zero.");
	}
	window->low = low;
	window->limit = high == PG_INT64_MAX ? -1 : high - low + 1;
	if (setting_http_max_rows > 0 && (window->limit < 0 || window->limit > setting_http_max_rows))
		window->limit = setting_http_max_rows;
}

/* Set Content-Range, of rows from low on, of a total (-1: not known). */
void
rest_content_range(Call *call, int64 low, int64 rows, int64 total)
{
	char		range[64] = "*";
	char		all[32] = "*";

	if (rows > 0)
		snprintf(range, sizeof(range), INT64_FORMAT "-" INT64_FORMAT, low, low + rows - 1);
	if (total >= 0)
		snprintf(all, sizeof(all), INT64_FORMAT, total);
	call_reply_field(call, "Content-Range", psprintf("%s/%s", range, all));
}
