/*
 * rest_request.h
 *		What a request's header wants: preferences, media type, rows.
 */
#ifndef MSGSYS_REST_REQUEST_H
#define MSGSYS_REST_REQUEST_H

#include "msgsys.h"

#include "call.h"
#include "rest_parse.h"

typedef enum RestMedia
{
	MEDIA_JSON,
	MEDIA_OBJECT,				/* one row, without an array around it */
	MEDIA_CSV
} RestMedia;

typedef enum RestReturn
{
	RETURN_UNSAID,
	RETURN_MINIMAL,
	RETURN_HEADERS,
	RETURN_REPRESENTATION
} RestReturn;

typedef enum RestCount
{
	COUNT_NONE,
	COUNT_EXACT,
	COUNT_PLANNED,
	COUNT_ESTIMATED
} RestCount;

typedef enum RestResolution
{
	RESOLUTION_NONE,
	RESOLUTION_MERGE,
	RESOLUTION_IGNORE
} RestResolution;

typedef struct RestPrefer
{
	RestResolution resolution;
	RestReturn	returns;
	RestCount	count;
	int			missing;		/* 1 default, 2 null, 0 not said */
	int			handling;		/* 1 strict, 2 lenient, 0 not said */
	int			transaction;	/* 1 commit, 2 rollback, 0 not said or not allowed */
	const char *timezone;		/* NULL: not said */
	bool		has_max_affected;
	int64		max_affected;
	StringInfoData invalid;		/* what we do not know, ", " between */
} RestPrefer;

typedef struct RestWindow
{
	int64		low;			/* first row, from 0 */
	int64		limit;			/* -1: no limit */
} RestWindow;

extern void rest_prefer(const Call *call, RestPrefer *prefer);
extern void rest_prefer_applied(Call *call, const RestPrefer *prefer, bool resolution, bool missing, bool returns, bool max_affected);
extern RestMedia rest_media(const Call *call, bool *nulls_stripped);
extern void rest_window(const Call *call, const RestQuery *query, RestWindow *window);
extern void rest_content_range(Call *call, int64 low, int64 rows, int64 total);

/* Without parameters, in lower case; "application/json" where there is none. */
extern const char *rest_content_type(const Call *call);

#endif							/* MSGSYS_REST_REQUEST_H */
