/*
 * store_mailing.c
 *		The SQL statements of mailings.
 *
 * No trigger of messages fires in a worker, so what the others are to be told of is noted here.
 */
#include "msgsys.h"

#include "names.h"
#include "notes.h"
#include "statement.h"
#include "store_mailing.h"
#include "worker.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

typedef enum MailingStatement
{
	RUN,
	PASS_OVER,
	POSTPONE,
	POSTPONE_ROWS,
	STATEMENTS
} MailingStatement;

/* A number that a message names, if it is one. */
#define NUMBER(text)	"CASE WHEN " text " ~ '^[0-9]{1,18}$' THEN (" text ")::bigint END"

/*
 * What is left of a mailing when a window closes waits for the next one, where that opens
 * before the mailing's end.  A message names mailing and client, in what anyone may have
 * written: it is that mailing's if the link says so too.
 */
#define POSTPONE_FROM(source) \
	"WITH late AS MATERIALIZED (" \
	"SELECT m.id, greatest(lower(w.span), $2) AS opens, least(upper(w.span), whose.ends_at) AS expires " \
	"FROM " source \
	" CROSS JOIN LATERAL (SELECT " NUMBER("m.payload ->> 'mailing_id'") " AS mailing_id, " NUMBER("m.message_key") " AS client_id OFFSET 0) named " \
	"CROSS JOIN LATERAL (SELECT g.window_from, g.window_to, g.ends_at, c.time_zone FROM @.msg_mailing_links l " \
	"JOIN @.msg_mailings g ON g.id = l.mailing_id JOIN @.msg_clients c ON c.id = l.client_id " \
	"WHERE l.mailing_id = named.mailing_id AND l.client_id = named.client_id AND l.message_id = m.id AND g.status IN ('running', 'expanded') LIMIT 1) whose " \
	"CROSS JOIN LATERAL (SELECT @.msg_window(whose.time_zone, whose.window_from, whose.window_to, $2) AS span OFFSET 0) w " \
	"WHERE m.event_type = 'mailing' AND m.expires_at <= $2 AND m.status IN ('idle', 'scheduled', 'retry', 'sent', 'received') AND m.finished_at IS NULL " \
	"AND greatest(lower(w.span), $2) < whose.ends_at AND NOT lower_inf(w.span)) " \
	"UPDATE @.messages m SET status = CASE WHEN m.status IN ('idle', 'scheduled') THEN 'scheduled'::@.msg_status ELSE 'retry' END, " \
	"due_at = late.opens, expires_at = late.expires FROM late WHERE m.id = late.id RETURNING m.channel, m.due_at"

static Statement statements[STATEMENTS] =
{
	[RUN] = {
		"SELECT mailing, channel, first_client, last_client, created, changed, cancelled, first_id, last_id, lowest_id, earliest_due, next_at "
		"FROM @.msg_mailings_run($1, $2, $3)",
		3, {TIMESTAMPTZOID, INT4OID, INT4ARRAYOID}
	},
	[PASS_OVER] = {
		"SELECT mailing, client FROM @.msg_mailing_pass_over($1, $2)",
		2, {TIMESTAMPTZOID, INT4ARRAYOID}
	},
	[POSTPONE] = {
		POSTPONE_FROM("unnest($1) u(id) JOIN @.messages m ON m.id = u.id"),
		2, {INT8ARRAYOID, TIMESTAMPTZOID}
	},
	[POSTPONE_ROWS] = {
		POSTPONE_FROM("unnest($1) u(t) JOIN @.messages m ON m.ctid = u.t"),
		2, {TIDARRAYOID, TIMESTAMPTZOID}
	},
};

/* Columns of the result of RUN. */
enum
{
	RUN_MAILING = 1, RUN_CHANNEL, RUN_FIRST_CLIENT, RUN_LAST_CLIENT, RUN_CREATED, RUN_CHANGED, RUN_CANCELLED, RUN_FIRST_ID, RUN_LAST_ID,
	RUN_LOWEST, RUN_DUE, RUN_NEXT
};

/* Do one piece of the work that mailings have: at most so many clients are looked at. */
void
store_mailings_run(TimestampTz now, int most, MailingWork *work)
{
	Datum		values[3] = {
		TimestampTzGetDatum(now), Int32GetDatum(most), names_foreign()
	};
	bool		isnull;
	Datum		due;
	int64		lowest;
	char	   *channel;

	statement_run(&statements[RUN], values, NULL);
	channel = result_text(0, RUN_CHANNEL);
	work->mailing = result_int64(0, RUN_MAILING, 0);
	work->first_client = result_int64(0, RUN_FIRST_CLIENT, 0);
	work->last_client = result_int64(0, RUN_LAST_CLIENT, 0);
	work->created = result_int64(0, RUN_CREATED, 0);
	work->changed = result_int64(0, RUN_CHANGED, 0);
	work->cancelled = result_int64(0, RUN_CANCELLED, 0);
	work->first_id = result_int64(0, RUN_FIRST_ID, 0);
	work->last_id = result_int64(0, RUN_LAST_ID, 0);
	work->next_at = result_int64(0, RUN_NEXT, DT_NOEND);

	lowest = result_int64(0, RUN_LOWEST, PG_INT64_MAX);
	if (lowest != PG_INT64_MAX)
		note_claimable(channel, lowest);
	due = result_column(0, RUN_DUE, &isnull);
	if (!isnull)
		note_due(channel, DatumGetTimestampTz(due));
}

/*
 * Leave out the client that the mailing cannot go on with that waits first; 0: it is at none, and waits for a while.
 * Returns false where there is no such mailing.
 */
bool
store_mailing_pass_over(TimestampTz now, int64 *mailing, int64 *client)
{
	Datum		values[2] = {TimestampTzGetDatum(now), names_foreign()};

	statement_run(&statements[PASS_OVER], values, NULL);
	*mailing = result_int64(0, 1, 0);
	*client = result_int64(0, 2, 0);
	return *mailing != 0;
}

/* Tell of the rows that the last statement has postponed. */
static void
note_postponed(uint64 rows)
{
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		note_due(result_text(i, 1), DatumGetTimestampTz(result_column(i, 2, &isnull)));
	}
}

/* These messages have expired: those of mailings that go on wait for their next window instead. */
void
store_mailings_postpone(const int64 *ids, int n)
{
	Datum	   *items = palloc(n * sizeof(Datum));
	Datum		values[2];

	for (int i = 0; i < n; i++)
		items[i] = Int64GetDatum(ids[i]);
	values[0] = array_of(items, n, INT8OID);
	values[1] = TimestampTzGetDatum(clock_now());
	note_postponed(statement_run(&statements[POSTPONE], values, NULL));
}

/* The same by the places of rows, which this transaction has claimed. */
void
store_mailings_postpone_rows(const ItemPointerData *tids, int n)
{
	Datum	   *items = palloc(n * sizeof(Datum));
	Datum		values[2];

	for (int i = 0; i < n; i++)
		items[i] = PointerGetDatum(&tids[i]);
	values[0] = array_of(items, n, TIDOID);
	values[1] = TimestampTzGetDatum(clock_now());
	note_postponed(statement_run(&statements[POSTPONE_ROWS], values, NULL));
}
