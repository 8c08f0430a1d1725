/*
 * local_time.h
 *		Zones of people, and a span of the day as their clocks show it.
 */
#ifndef MSGSYS_LOCAL_TIME_H
#define MSGSYS_LOCAL_TIME_H

#include "msgsys.h"

#include "datatype/timestamp.h"
#include "pgtime.h"
#include "utils/date.h"

#define ZONE_NAME_MAX	64		/* bytes of a zone's name, the terminating NUL included */

typedef struct Zone
{
	pg_tz	   *rules;			/* NULL: always at the same offset */
	int64		offset;			/* seconds east of UTC */
	char		name[ZONE_NAME_MAX];	/* as it is stored: Europe/Berlin, +03:00 */
} Zone;

extern bool zone_parse(const char *text, Zone *zone);
extern void zone_window(const Zone *zone, TimeADT from, TimeADT to, TimestampTz at,
						TimestampTz *opens, TimestampTz *closes);

#endif							/* MSGSYS_LOCAL_TIME_H */
