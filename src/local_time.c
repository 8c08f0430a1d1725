/*
 * local_time.c
 *		Zones of people, and a span of the day as their clocks show it.
 *
 * Where clocks are put forward, some times of the day do not come; where they are put back,
 * some come twice.  A window is such that the clock shows a time within it from its
 * beginning to its end: what does not come begins, or ends, where the clock jumps; a
 * beginning that comes twice is the second, an end the first.
 */
#include "msgsys.h"

#include "local_time.h"

#include "utils/timestamp.h"

#define DAY				INT64CONST(86400)
#define LONGEST_OFFSET	(14 * 3600) /* Kiritimati; westward 12 hours are enough */
#define DAYS_AHEAD		4		/* a day may lack the window, or be left out by a zone that changes sides */

/* Seconds from 1970 to PostgreSQL's epoch. */
#define EPOCH_SECONDS	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * DAY)

/* An offset, such as +3, -0330, UTC+05:30 or Z, in the way of ISO 8601: east is positive. */
static bool
parse_offset(const char *text, Zone *zone)
{
	int			hours = 0;
	int			minutes = 0;
	int			digits;
	const char *at = text;
	bool		west;

	if (pg_strcasecmp(text, "Z") == 0)
		at = "+00";
	else if (pg_strncasecmp(text, "UTC", 3) == 0 || pg_strncasecmp(text, "GMT", 3) == 0)
		at += 3;
	if (*at != '+' && *at != '-')
		return false;
	west = *at++ == '-';
	digits = strspn(at, "0123456789");
	if (digits == 1 || digits == 2)
	{
		hours = atoi(at);
		at += digits;
		if (at[0] == ':' && strspn(at + 1, "0123456789") == 2)
		{
			minutes = atoi(at + 1);
			at += 3;
		}
	}
	else if (digits == 4)
	{
		hours = atoi(at) / 100;
		minutes = atoi(at) % 100;
		at += 4;
	}
	else
		return false;
	if (*at != '\0' || minutes > 59 || hours * 3600 + minutes * 60 > LONGEST_OFFSET)
		return false;
	zone->rules = NULL;
	zone->offset = (hours * 3600 + minutes * 60) * (west ? -1 : 1);
	snprintf(zone->name, sizeof(zone->name), "%c%02d:%02d", west && zone->offset != 0 ? '-' : '+', hours, minutes);
	return true;
}

/*
 * Read a zone: a name of the IANA database, in any case, or an offset.  Returns false
 * for everything else, POSIX rules among it, whose offsets point the other way.
 */
bool
zone_parse(const char *text, Zone *zone)
{
	const char *name;
	bool		lower = false;
	bool		digit = false;

	if (parse_offset(text, zone))
		return true;
	if (text[0] == '\0' || strlen(text) >= ZONE_NAME_MAX)
		return false;
	zone->rules = pg_tzset(text);
	if (zone->rules == NULL || !pg_tz_acceptable(zone->rules))
		return false;

	/* one of the database has its letters as there; a POSIX rule has digits and is all capitals */
	name = pg_get_timezone_name(zone->rules);
	for (const char *c = name; *c; c++)
	{
		lower |= islower((unsigned char) *c) != 0;
		digit |= isdigit((unsigned char) *c) != 0;
	}
	if (digit && !lower)
		return false;
	strlcpy(zone->name, name, sizeof(zone->name));
	return true;
}

/* Offset in force at a time, in seconds east of UTC. */
static int64
offset_at(const Zone *zone, int64 time)
{
	pg_time_t	t = time;
	struct pg_tm *local;

	if (zone->rules == NULL)
		return zone->offset;
	local = pg_localtime(&t, zone->rules);
	return local ? local->tm_gmtoff : 0;
}

/* The moment between two times at which the offset that is in force at the first ends. */
static int64
change_between(const Zone *zone, int64 before, int64 after)
{
	int64		offset = offset_at(zone, before);

	while (after - before > 1)
	{
		int64		middle = before + (after - before) / 2;

		if (offset_at(zone, middle) == offset)
			before = middle;
		else
			after = middle;
	}
	return after;
}

/*
 * When clocks show a local time (given as if it were UTC): the first and the last moment,
 * which differ where it comes twice; where it does not come, both are that of the jump.
 */
static void
moments_of(const Zone *zone, int64 local, int64 *first, int64 *last)
{
	int64		before = offset_at(zone, local - DAY);
	int64		after = offset_at(zone, local + DAY);
	bool		by_before;
	bool		by_after;

	*first = *last = local - before;
	if (before == after)
		return;
	by_before = offset_at(zone, local - before) == before;
	by_after = offset_at(zone, local - after) == after;
	if (by_before && by_after)
	{
		*first = Min(local - before, local - after);
		*last = Max(local - before, local - after);
	}
	else if (by_after)
		*first = *last = local - after;
	else if (!by_before)
		*first = *last = change_between(zone, local - DAY, local + DAY);
}

/*
 * The window from one time of the day to another (over midnight, where that is earlier)
 * that is open at a time, or the next one.
 */
void
zone_window(const Zone *zone, TimeADT from, TimeADT to, TimestampTz at,
			TimestampTz *opens, TimestampTz *closes)
{
	int64		from_s = from / USECS_PER_SEC;
	int64		to_s = to / USECS_PER_SEC + (to <= from ? DAY : 0);
	int64		now = at / USECS_PER_SEC + EPOCH_SECONDS - (at % USECS_PER_SEC < 0 ? 1 : 0);
	int64		local = now + offset_at(zone, now);
	int64		today = (local - (local % DAY + DAY) % DAY);

	for (int64 day = today - DAY; day <= today + DAYS_AHEAD * DAY; day += DAY)
	{
		int64		first_from;
		int64		last_from;
		int64		first_to;
		int64		last_to;

		moments_of(zone, day + from_s, &first_from, &last_from);
		moments_of(zone, day + to_s, &first_to, &last_to);
		/* both come twice: the window is open twice, and once is enough */
		if (last_from >= first_to)
			last_from = first_from;
		*opens = (last_from - EPOCH_SECONDS) * USECS_PER_SEC + from % USECS_PER_SEC;
		*closes = (first_to - EPOCH_SECONDS) * USECS_PER_SEC + to % USECS_PER_SEC;
		if (*closes > at && *opens < *closes)
			return;
	}
}
