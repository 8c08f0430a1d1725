/*
 * store.c
 *		Every SQL statement that workers run on the tables of the extension (those of
 *		the webhook stage are in store_webhook.c).
 *
 * Where a statement moves a status, it names those that it may leave, so that
 * a late or repeated word changes nothing.
 */
#include "msgsys.h"

#include "names.h"
#include "notes.h"
#include "shmem.h"
#include "statement.h"
#include "store.h"
#include "store_mailing.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "tcop/dest.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"

typedef enum StoreStatement
{
	LOAD_CHANNELS,
	SWEEP_IDLE,
	SWEEP_RECEIVED,
	SWEEP_DUE,
	SWEEP_DEAD_LETTERS,
	CLAIM_IDLE_ROWS,
	CLAIM_DUE_ROWS,
	CLAIM_RESEND_ROWS,
	CLAIM_DEAD_LETTERS,
	CLAIM_WEBHOOK_IDLE_ROWS,
	CLAIM_WEBHOOK_RECEIVED_ROWS,
	CLAIM_WEBHOOK_DUE_ROWS,
	MARK_DEAD_LETTERS,
	MARK_SENT,
	MARK_UNACKNOWLEDGED,
	MARK_REFUSED,
	SET_ASIDE,
	WRITE_ELSEWHERE,
	UNWRITE_ELSEWHERE,
	SET_LETTER_ASIDE,
	MARK_EXPIRED,
	NEXT_DUE,
	MARK_READBACK,
	MARK_READBACK_WEBHOOK,
	LOCK_UNSENT,
	EXAMINE,
	COUNT_LOST,
	RENAME,
	HOLD,
	ACKNOWLEDGE,
	LOCK_FREE,
	RUN_BEGIN,
	RUN_MARK,
	RUN_END,
	PURGE_STEP,
	PURGE_RUNS,
	COUNT_IDLE,
	PRUNE_TOPICS,
	RECONCILE,
	POSITIONS,
	HAS_POSITIONS,
	ADD_POSITIONS,
	SET_POSITIONS,
	SET_LOOKS,
	ANY_UNREAD,
	SETTLE,
	CATCHING_UP,
	STATEMENTS
} StoreStatement;

/*
 * The worker that a row belongs to is that of its key, so that one worker sees
 * all messages of a key.
 */
#define OWN_ROWS(nworkers, worker) \
	" AND (" nworkers " = 1 OR CASE WHEN i.message_key IS NULL THEN i.id % " nworkers \
	" ELSE (hashtextextended(i.message_key, 0) & 9223372036854775807) % " nworkers " END = " worker ")"

/* Each channel's lowest, by hops from channel to channel on the index, however many rows wait. */
#define FIRST_OF_CHANNELS(column, condition) \
	"WITH RECURSIVE w AS (" \
	"(SELECT channel, " column " FROM @.messages WHERE " condition " ORDER BY channel, " column " LIMIT 1) UNION ALL " \
	"SELECT n.channel, n." column " FROM w, LATERAL (SELECT m.channel, m." column " FROM @.messages m " \
	"WHERE " condition " AND m.channel > w.channel ORDER BY m.channel, m." column " LIMIT 1) n) " \
	"SELECT channel, " column " FROM w"

/*
 * What all claims begin with: a share of each channel, from a mark or (a resend) an age on.  Claims of what
 * goes in order do not lock rows: whoever takes one locks it then, and so learns of those that somebody holds.
 */
#define CLAIM		"SELECT c.n, m.* FROM unnest($1, $2, $3) WITH ORDINALITY c(channel, low, share, n), LATERAL (SELECT i."

/* The row comparison keeps the planner off the primary key, whose order by id it would take for as good as that of the partial index. */
#define ABOVE_MARK	"(i.channel, i.id) > (c.channel, c.low) AND i.channel <= c.channel"
/* What is another installation's is not ours to send; the last parameter of a claim. */
#define OURS		" AND i.epoch <> ALL ($7)"

#define BY_ID		" ORDER BY i.channel, i.id LIMIT c.share"

#define CLAIM_ARGS	7, {TEXTARRAYOID, INT8ARRAYOID, INT4ARRAYOID, INT8OID, INT8OID, TIMESTAMPTZOID, INT4ARRAYOID}

#define CLAIMED_COLUMNS \
	"ctid, i.xmin, i.id, i.attempts, i.created_at, i.expires_at, i.message_key, i.payload, i.body, i.headers, i.content_type, i.event_type, i.epoch"

/* A record stands for a row if it has its name, and is one that could have been sent of it. */
#define RECORD_FITS	"m.epoch = u.e AND m.created_at = u.c AND u.a <= m.attempts + 1 AND "
#define READBACK_ARGS \
	7, {INT8ARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID}

/* What follows them: whether it is tried again, and what only dead letters tell. */
#define NEW_ROW		", false, NULL::text, NULL::timestamptz"
#define DUE_ROW		", i.status = 'retry', NULL::text, i.due_at"
#define SENT_ROW	", i.attempts > 1, NULL::text, NULL::timestamptz"
#define DEAD_ROW	", false, i.last_error, i.finished_at"
#define WEBHOOK_DUE_ROW	", false, NULL::text, i.due_at"

/* Both row comparisons are bounds of the index: what is due later is not looked at. */
#define CLAIM_BY_DUE(more) \
	"SELECT c.n, m.* FROM unnest($1, $2, $3, $8) WITH ORDINALITY c(channel, low, share, low_due, n), LATERAL (SELECT i." \
	CLAIMED_COLUMNS more " FROM @.messages i " \
	"WHERE i.status IN ('scheduled', 'retry') AND (i.channel, i.due_at, i.id) > (c.channel, c.low_due, c.low) " \
	"AND (i.channel, i.due_at) <= (c.channel, $6)" \
	OURS OWN_ROWS("$4", "$5") \
	" ORDER BY i.channel, i.due_at, i.id LIMIT c.share) m"
#define CLAIM_BY_DUE_ARGS \
	8, {TEXTARRAYOID, INT8ARRAYOID, INT4ARRAYOID, INT8OID, INT8OID, TIMESTAMPTZOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID}

/*
 * Channels as their rows are now: an array that is made once a statement, of those that are few
 * as a rule.  Not a subplan, whose cost would count for each row, and turn the join around; and by
 * the index, for a scan without one is forbidden and so dear that no plan is better than another.
 */
#define FINAL_CHANNELS	"ANY (ARRAY(SELECT s.channel FROM @.msg_channel_settings s WHERE s.channel >= '' AND s.ack = 'none'))"
#define NOT_READ_BACK	"ALL (ARRAY(SELECT s.channel FROM @.msg_channel_settings s WHERE s.channel >= '' AND s.ack <> 'readback'))"
#define WITH_WEBHOOK	"ANY (ARRAY(SELECT s.channel FROM @.msg_webhook_settings s WHERE s.channel >= ''))"

/* What the columns of a claim's result are; in the order of CLAIMED_COLUMNS. */
enum
{
	COL_SHARE,
	COL_CTID,
	COL_XMIN,
	COL_ID,
	COL_ATTEMPTS,
	COL_CREATED_AT,
	COL_EXPIRES_AT,
	COL_KEY,
	COL_PAYLOAD,
	COL_BODY,
	COL_HEADERS,
	COL_CONTENT_TYPE,
	COL_EVENT_TYPE,
	COL_EPOCH,
	COL_RETRY,					/* these as in NEW_ROW and its like */
	COL_LAST_ERROR,
	COL_FINISHED_AT
};

/* All topics that records of a channel "s" are read back from. */
#define READ_TOPICS \
	"(ARRAY[s.topic] || s.former_topics || CASE WHEN s.has_webhook THEN ARRAY[s.topic || '.retry'] || " \
	"ARRAY(SELECT f || '.retry' FROM unnest(s.former_topics) f) END)"

static Statement statements[STATEMENTS] =
{
	[LOAD_CHANNELS] = {
		"SELECT s.channel, s.topic, s.ack, EXTRACT(epoch FROM s.resend_after)::float8, s.former_topics, "
		"EXISTS (SELECT FROM @.msg_pauses p WHERE p.channel IN ('*', s.channel)), s.has_webhook, "
		"p.batch::bigint, (EXTRACT(epoch FROM p.every) * 1000000)::bigint, p.next_at, r.id, r.succeeded, r.failed, s.max_attempts::bigint "
		"FROM @.msg_channel_settings s LEFT JOIN @.msg_paces p ON p.channel = s.channel "
		"LEFT JOIN @.msg_runs r ON r.channel = p.channel AND r.finished_at IS NULL"
	},

	[SWEEP_IDLE] = {FIRST_OF_CHANNELS("id", "status = 'idle'")},
	[SWEEP_RECEIVED] = {FIRST_OF_CHANNELS("id", "status = 'received' AND finished_at IS NULL")},
	[SWEEP_DUE] = {FIRST_OF_CHANNELS("due_at", "status IN ('scheduled', 'retry') AND epoch <> ALL ($1)"), 1, {INT4ARRAYOID}},

	[SWEEP_DEAD_LETTERS] = {FIRST_OF_CHANNELS("id", "dlq_pending")},

	[CLAIM_IDLE_ROWS] = {
		CLAIM CLAIMED_COLUMNS NEW_ROW " FROM @.messages i "
		"WHERE i.status = 'idle' AND " ABOVE_MARK
		OURS OWN_ROWS("$4", "$5")
		BY_ID ") m",
		CLAIM_ARGS
	},
	[CLAIM_DUE_ROWS] = {CLAIM_BY_DUE(DUE_ROW), CLAIM_BY_DUE_ARGS},
	[CLAIM_RESEND_ROWS] = {
		CLAIM CLAIMED_COLUMNS SENT_ROW " FROM @.messages i "
		"WHERE i.status = 'sent' AND i.finished_at IS NULL AND i.channel = c.channel "
		"AND i.sent_at <= $6 - c.low * '1 microsecond'::interval"
		OURS OWN_ROWS("$4", "$5")
		" ORDER BY i.sent_at LIMIT c.share FOR NO KEY UPDATE SKIP LOCKED) m",
		CLAIM_ARGS
	},

	[CLAIM_DEAD_LETTERS] = {
		CLAIM CLAIMED_COLUMNS DEAD_ROW " FROM @.messages i "
		"WHERE i.dlq_pending AND (i.channel, i.id) > (c.channel, 0) AND i.channel <= c.channel"
		OURS OWN_ROWS("$4", "$5")
		BY_ID " FOR NO KEY UPDATE SKIP LOCKED) m",
		CLAIM_ARGS
	},
	[CLAIM_WEBHOOK_IDLE_ROWS] = {
		CLAIM CLAIMED_COLUMNS NEW_ROW " FROM @.messages i "
		"WHERE i.status = 'idle' AND " ABOVE_MARK
		OURS OWN_ROWS("$4", "$5")
		BY_ID ") m",
		CLAIM_ARGS
	},
	[CLAIM_WEBHOOK_RECEIVED_ROWS] = {
		CLAIM CLAIMED_COLUMNS NEW_ROW " FROM @.messages i "
		"WHERE i.status = 'received' AND i.finished_at IS NULL AND " ABOVE_MARK
		OURS OWN_ROWS("$4", "$5")
		BY_ID ") m",
		CLAIM_ARGS
	},
	[CLAIM_WEBHOOK_DUE_ROWS] = {CLAIM_BY_DUE(WEBHOOK_DUE_ROW), CLAIM_BY_DUE_ARGS},
	[MARK_DEAD_LETTERS] = {
		"UPDATE @.messages m SET dlq_pending = NULL, last_error = CASE WHEN u.reason IS NULL THEN m.last_error ELSE concat_ws('; ', m.last_error, 'dead letter: ' || u.reason) END "
		"FROM unnest($1, $2) u(t, reason) WHERE m.ctid = u.t AND m.dlq_pending",
		2, {TIDARRAYOID, TEXTARRAYOID}
	},

	/*
	 * Claimed rows are locked, so that their place in the table holds.  Whether a mark is the end of a message is for the channel's row to say, as
	 * it is now: what a worker remembers of it may be older than a change that nobody will look at again.
	 */
	[MARK_SENT] = {
		"UPDATE @.messages m SET status = 'sent', sent_at = $4, attempts = m.attempts + 1, kafka_partition = u.p, kafka_offset = u.o, "
		"finished_at = CASE WHEN m.channel = " FINAL_CHANNELS " THEN $4 END "
		"FROM unnest($1, $2, $3) u(t, p, o) "
		"WHERE m.ctid = u.t AND m.status IN ('idle', 'scheduled', 'retry', 'sent')",
		4, {TIDARRAYOID, INT4ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID}
	},
	/* Sent as often as may be, and not acknowledged. */
	[MARK_UNACKNOWLEDGED] = {
		"UPDATE @.messages m SET status = 'dead', finished_at = $2, dlq_pending = CASE WHEN c.topic IS NOT NULL THEN true END, "
		"last_error = format('not acknowledged within %s of the last of %s attempts', c.resend_after, m.attempts) "
		"FROM unnest($1) u(t), @.msg_channel_settings c "
		"WHERE m.ctid = u.t AND c.channel = m.channel AND m.status = 'sent' AND m.attempts >= c.max_attempts",
		2, {TIDARRAYOID, TIMESTAMPTZOID}
	},
	[MARK_REFUSED] = {
		"UPDATE @.messages m SET attempts = m.attempts + 1, last_error = u.reason, "
		"status = CASE WHEN u.permanent OR m.attempts + 1 >= c.max_attempts THEN 'dead'::@.msg_status ELSE 'retry' END, "
		"finished_at = CASE WHEN u.permanent OR m.attempts + 1 >= c.max_attempts THEN $4 END, "
		"due_at = CASE WHEN u.permanent OR m.attempts + 1 >= c.max_attempts THEN m.due_at "
		"ELSE $4 + @.msg_retry_delay(c.retry_base, c.retry_max, m.attempts + 1) END, "
		"dlq_pending = CASE WHEN (u.permanent OR m.attempts + 1 >= c.max_attempts) AND c.topic IS NOT NULL THEN true END "
		"FROM unnest($1, $2, $3) u(t, permanent, reason), @.msg_channel_settings c "
		"WHERE m.ctid = u.t AND c.channel = m.channel AND m.status IN ('idle', 'scheduled', 'retry', 'sent')",
		4, {TIDARRAYOID, BOOLARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID}
	},
	[WRITE_ELSEWHERE] = {
		"INSERT INTO @.msg_breakers (channel, worker, state, since, calls, failures, trips) VALUES ('', -1 - $1, 'open', $2, 0, 0, 0)",
		2, {INT4OID, TIMESTAMPTZOID}
	},
	[UNWRITE_ELSEWHERE] = {
		"DELETE FROM @.msg_breakers WHERE channel = '' AND \"worker\" = -1 - $1",
		1, {INT4OID}
	},
	/* These fail alone, so that there is no record of them to be had for the dead letters either. */
	[SET_ASIDE] = {
		"UPDATE @.messages m SET status = 'dead', finished_at = $3, last_error = $2 "
		"WHERE m.id = $1 AND m.status IN ('idle', 'scheduled', 'retry', 'sent')",
		3, {INT8OID, TEXTOID, TIMESTAMPTZOID}
	},
	[SET_LETTER_ASIDE] = {
		"UPDATE @.messages m SET dlq_pending = NULL, last_error = concat_ws('; ', m.last_error, 'dead letter: ' || $2) "
		"WHERE m.id = $1 AND m.dlq_pending",
		2, {INT8OID, TEXTOID}
	},
	[MARK_EXPIRED] = {
		"UPDATE @.messages m SET status = 'expired', finished_at = $2 FROM unnest($1) u(t) "
		"WHERE m.ctid = u.t AND m.status IN ('idle', 'scheduled', 'retry', 'sent')",
		2, {TIDARRAYOID, TIMESTAMPTZOID}
	},
	[NEXT_DUE] = {
		"SELECT c.n, (SELECT i.due_at FROM @.messages i WHERE i.status IN ('scheduled', 'retry') AND i.channel = c.channel "
		"AND i.due_at > $2 AND i.epoch <> ALL ($3) ORDER BY i.due_at LIMIT 1) FROM unnest($1) WITH ORDINALITY c(channel, n)",
		3, {TEXTARRAYOID, TIMESTAMPTZOID, INT4ARRAYOID}
	},

	/* May find the relay's lock on the row, and then waits and looks again; the time is that before. */
	[MARK_READBACK] = {
		"UPDATE @.messages m SET status = 'received', received_at = greatest($5, m.sent_at), sent_at = coalesce(m.sent_at, $5), "
		"finished_at = CASE WHEN m.channel = " WITH_WEBHOOK " THEN NULL ELSE greatest($5, m.sent_at) END, "
		"attempts = greatest(m.attempts, u.a), kafka_partition = u.p, kafka_offset = u.o "
		"FROM unnest($1, $2, $3, $4, $6, $7) u(id, p, o, a, e, c) "
		"WHERE m.id = u.id AND " RECORD_FITS "m.status IN ('idle', 'scheduled', 'retry', 'sent') AND m.channel <> " NOT_READ_BACK "",
		READBACK_ARGS
	},
	/* The same where channels have webhooks, whose worker is to be told. */
	[MARK_READBACK_WEBHOOK] = {
		"WITH marked AS ("
		"UPDATE @.messages m SET status = 'received', received_at = greatest($5, m.sent_at), sent_at = coalesce(m.sent_at, $5), "
		"finished_at = CASE WHEN m.channel = " WITH_WEBHOOK " THEN NULL ELSE greatest($5, m.sent_at) END, "
		"attempts = greatest(m.attempts, u.a), kafka_partition = u.p, kafka_offset = u.o "
		"FROM unnest($1, $2, $3, $4, $6, $7) u(id, p, o, a, e, c) "
		"WHERE m.id = u.id AND " RECORD_FITS "m.status IN ('idle', 'scheduled', 'retry', 'sent') AND m.channel <> " NOT_READ_BACK " "
		/* the record of an attempt that the webhook has failed says nothing of the next */
		"AND (m.status <> 'retry' OR u.a > m.attempts OR NOT (m.channel = " WITH_WEBHOOK ")) "
		"RETURNING m.channel, m.id, m.finished_at IS NULL AS waits) "
		"SELECT channel, min(id), count(*), waits FROM marked GROUP BY channel, waits",
		READBACK_ARGS
	},
	[EXAMINE] = {
		"WITH s AS (SELECT CASE WHEN q.is_called THEN q.last_value ELSE q.last_value - 1 END AS last FROM @.messages_id_seq q) "
		"SELECT u.e, count(*) FILTER (WHERE m.id IS NULL AND (u.id > s.last OR EXISTS "
		"(SELECT FROM @.msg_names l WHERE l.ordinal > n.ordinal AND l.first_id <= u.id AND l.epoch <> ALL ($4)))), "
		"count(*) FILTER (WHERE m.id IS NULL AND u.id > s.last OR m.created_at <> u.c), "
		"array_agg(u.id ORDER BY u.id) FILTER (WHERE m.created_at <> u.c), n.place, n.timeline "
		"FROM unnest($1, $2, $3) u(id, e, c) JOIN @.msg_names n ON n.epoch = u.e AND n.first_id IS NOT NULL CROSS JOIN s "
		"LEFT JOIN @.messages m ON m.id = u.id AND m.epoch = u.e GROUP BY u.e, n.place, n.timeline",
		4, {INT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID}
	},
	[COUNT_LOST] = {
		"UPDATE @.msg_names n SET lost_records = n.lost_records + $2, lost_last_at = clock_timestamp() WHERE n.epoch = $1",
		2, {INT4OID, INT8OID}
	},
	[RENAME] = {
		"UPDATE @.messages m SET epoch = $3 WHERE m.id = ANY ($1) AND m.epoch = $2 AND m.sent_at IS NULL AND m.finished_at IS NULL",
		3, {INT8ARRAYOID, INT4OID, INT4OID}
	},
	[HOLD] = {
		"UPDATE @.msg_names n SET held_at = clock_timestamp() WHERE n.held_at IS NULL AND n.epoch <> ALL ($1)",
		1, {INT4ARRAYOID}
	},
	/* A consumer may be faster than the relay's commit: wait for that, so that the UPDATE after it sees the row as it is then. */
	[LOCK_UNSENT] = {
		"SELECT 1 FROM @.messages m WHERE m.id = ANY ($1) AND m.status IN ('idle', 'scheduled', 'retry') ORDER BY m.id FOR NO KEY UPDATE",
		1, {INT8ARRAYOID}
	},
	[ACKNOWLEDGE] = {
		"UPDATE @.messages m SET "
		"status = CASE u.o WHEN 0 THEN 'received'::@.msg_status WHEN 1 THEN 'delivered' "
		"ELSE CASE WHEN greatest(m.attempts, u.a, 1) >= c.max_attempts THEN 'dead'::@.msg_status ELSE 'retry' END END, "
		"received_at = CASE WHEN u.o < 2 THEN coalesce(m.received_at, $5) ELSE m.received_at END, "
		"delivered_at = CASE WHEN u.o = 1 THEN $5 ELSE m.delivered_at END, "
		"sent_at = coalesce(m.sent_at, $5), attempts = greatest(m.attempts, u.a, 1), "
		"finished_at = CASE WHEN u.o = 0 AND c.has_webhook THEN NULL WHEN u.o < 2 OR greatest(m.attempts, u.a, 1) >= c.max_attempts THEN $5 END, "
		"dlq_pending = CASE WHEN u.o = 2 AND greatest(m.attempts, u.a, 1) >= c.max_attempts AND c.topic IS NOT NULL THEN true END, "
		"due_at = CASE WHEN u.o < 2 OR greatest(m.attempts, u.a, 1) >= c.max_attempts THEN m.due_at "
		"ELSE $5 + @.msg_retry_delay(c.retry_base, c.retry_max, greatest(m.attempts, u.a, 1)) END, "
		"last_error = coalesce(u.e, m.last_error) "
		"FROM unnest($1, $2, $3, $4, $6) u(id, o, a, e, epoch), @.msg_channel_settings c "
		"WHERE m.id = u.id AND (u.epoch = 0 OR u.epoch = m.epoch) AND c.channel = m.channel AND CASE u.o "
		"WHEN 0 THEN m.status IN ('idle', 'scheduled', 'retry', 'sent') "
		"WHEN 1 THEN m.status IN ('idle', 'scheduled', 'retry', 'sent', 'received') "
		"ELSE m.status IN ('sent', 'received') AND (u.a = 0 OR u.a = m.attempts) "
		/* it was sent, for its consumer names the attempt, and a crash took back the mark */
		"OR m.status IN ('idle', 'scheduled', 'retry') AND u.a = m.attempts + 1 END "
		"RETURNING m.channel, m.due_at, m.status = 'retry', m.status = 'received' AND m.finished_at IS NULL, m.id, m.dlq_pending IS NOT NULL",
		6, {INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID, INT4ARRAYOID}
	},
	[LOCK_FREE] = {
		"SELECT e.id FROM unnest($1) u(id) JOIN @.messages e ON e.id = u.id "
		"LEFT JOIN LATERAL (SELECT i.id FROM @.messages i WHERE i.id = u.id FOR NO KEY UPDATE SKIP LOCKED) m ON true "
		"WHERE m.id IS NULL",
		1, {INT8ARRAYOID}
	},
	[RUN_BEGIN] = {
		"WITH p AS (UPDATE @.msg_paces SET next_at = $3 WHERE channel = $1 RETURNING channel) "
		"INSERT INTO @.msg_runs (channel, due_at, started_at) SELECT channel, $2, $4 FROM p RETURNING id",
		4, {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
	},
	[RUN_MARK] = {
		"UPDATE @.msg_runs SET claimed = $2, succeeded = succeeded + $3, failed = failed + $4, first_id = least(first_id, $5), "
		"last_id = greatest(last_id, $6), error = coalesce($7, error) WHERE id = $1",
		7, {INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTOID}
	},
	[RUN_END] = {
		"UPDATE @.msg_runs SET finished_at = $2, claimed = succeeded + failed WHERE id = $1 AND finished_at IS NULL",
		2, {INT8OID, TIMESTAMPTZOID}
	},
	[PURGE_STEP] = {
		"SELECT last, purged::bigint, more, (EXTRACT(epoch FROM shortest) * 1000)::bigint FROM @.msg_purge_step($1, $2)",
		2, {INT8OID, INT4OID}
	},
	[PURGE_RUNS] = {
		"DELETE FROM @.msg_runs WHERE finished_at < $1 AND id IN (SELECT id FROM @.msg_runs ORDER BY id LIMIT 10000)",
		1, {TIMESTAMPTZOID}
	},
	[COUNT_IDLE] = {
		"SELECT count(*) FROM (SELECT FROM @.messages WHERE status = 'idle' AND channel = $1 LIMIT $2) m",
		2, {TEXTOID, INT8OID}
	},
	[PRUNE_TOPICS] = {
		/* a batch that was under way at the change may not be marked yet */
		"UPDATE @.msg_channels c SET former_topics = NULL WHERE c.former_topics IS NOT NULL AND c.updated_at < now() - interval '10 min' AND NOT EXISTS ("
		"SELECT FROM @.messages m WHERE m.status = 'sent' AND m.finished_at IS NULL AND m.channel = c.channel)"
	},
	[RECONCILE] = {
		"SELECT @.msg_reconcile($1)", 1, {INT4OID}
	},
	[POSITIONS] = {
		"SELECT topic, \"partition\", next_offset, coalesce(record_time, '-infinity') FROM @.msg_offsets"
	},
	[HAS_POSITIONS] = {
		"SELECT 1 FROM @.msg_offsets WHERE topic = $1 LIMIT 1", 1, {TEXTOID}
	},
	[ADD_POSITIONS] = {
		"INSERT INTO @.msg_offsets (topic, \"partition\", next_offset, record_time) "
		"SELECT t, p, o, nullif(r, '-infinity') FROM unnest($1, $2, $3, $4) u(t, p, o, r) ON CONFLICT DO NOTHING",
		4, {TEXTARRAYOID, INT4ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID}
	},
	[SET_POSITIONS] = {
		"INSERT INTO @.msg_offsets (topic, \"partition\", next_offset, record_time) "
		"SELECT t, p, o, nullif(r, '-infinity') FROM unnest($1, $2, $3, $4) u(t, p, o, r) "
		"ON CONFLICT (topic, \"partition\") DO UPDATE SET next_offset = excluded.next_offset, record_time = excluded.record_time, updated_at = now()",
		4, {TEXTARRAYOID, INT4ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID}
	},
	[SET_LOOKS] = {
		"UPDATE @.msg_offsets o SET low = nullif(u.l, -1), high = nullif(u.h, -1), looked_at = u.a, "
		"gap_from = CASE WHEN u.gt > 0 THEN u.gf ELSE o.gap_from END, gap_to = CASE WHEN u.gt > 0 THEN u.gt ELSE o.gap_to END, "
		"gap_at = CASE WHEN u.gt > 0 THEN u.a ELSE o.gap_at END "
		"FROM unnest($1, $2, $3, $4, $5, $6, $7) u(t, p, l, h, gf, gt, a) WHERE o.topic = u.t AND o.\"partition\" = u.p",
		7, {TEXTARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID}
	},
	[ANY_UNREAD] = {
		"SELECT 1 FROM unnest($1) c WHERE EXISTS (SELECT FROM @.messages i "
		"WHERE i.status = 'sent' AND i.finished_at IS NULL AND i.channel = c AND i.sent_at < $2) LIMIT 1",
		2, {TEXTARRAYOID, TIMESTAMPTZOID}
	},

	/*
	 * A message whose record is in no topic of its channel up to where that was read: each partition was looked at well after the message was sent,
	 * and has been read to where it ended then, or is gone.  A topic without a position was not read when it was sent.
	 */
	[SETTLE] = {
		"WITH c AS (SELECT s.channel, s.has_webhook, (SELECT coalesce(min(CASE WHEN o.high IS NULL OR o.next_offset >= o.high "
		"THEN coalesce(o.looked_at - '5 s'::interval, '-infinity') ELSE '-infinity' END), 'infinity') "
		"FROM @.msg_offsets o WHERE o.topic = ANY (" READ_TOPICS ")) AS until "
		"FROM @.msg_channel_settings s WHERE s.channel = ANY ($1) AND s.ack = 'readback' "
		"AND (s.topic IS NOT NULL OR s.former_topics IS NOT NULL) AND s.resend_after IS NULL), "
		"w AS (SELECT i.t, c.has_webhook FROM c, LATERAL (SELECT i.ctid AS t FROM @.messages i WHERE i.status = 'sent' AND i.finished_at IS NULL "
		"AND i.channel = c.channel AND i.sent_at < least(c.until, $2) ORDER BY i.sent_at OFFSET $4 LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED) i) "
		"UPDATE @.messages m SET status = 'received', received_at = $5, finished_at = CASE WHEN w.has_webhook THEN NULL ELSE $5 END, "
		"last_error = 'confirmed by Kafka, and not read back: its record was gone, or its topic is read from a later one on' "
		"FROM w WHERE m.ctid = w.t AND m.status = 'sent' RETURNING m.channel, m.id, w.has_webhook",
		5, {TEXTARRAYOID, TIMESTAMPTZOID, INT8OID, INT8OID, TIMESTAMPTZOID}
	},
	/* Channels with a topic that has not been read to its end, as it was at a look after a time; none is null. */
	[CATCHING_UP] = {
		"SELECT s.channel, (SELECT max(looked_at) >= $1 FROM @.msg_offsets), EXISTS (SELECT FROM @.msg_pauses p WHERE p.channel IN ('*', s.channel)) FROM @.msg_channel_settings s "
		"WHERE s.ack = 'readback' AND s.topic IS NOT NULL AND EXISTS (SELECT FROM @.msg_offsets o WHERE o.topic = ANY (" READ_TOPICS ") "
		"AND (o.looked_at IS NULL OR o.looked_at < $1 OR o.next_offset < o.high))",
		1, {TIMESTAMPTZOID}
	},
};

/* Run one of them; nulls as SPI takes them.  Returns the rows processed. */
static uint64
run(StoreStatement s, Datum *values, const char *nulls)
{
	return statement_run(&statements[s], values, nulls);
}

/* Who we are, and whether this is a copy. */
void
store_load_installation(Installation *into)
{
	const Epoch *name;

	into->epoch = names_load(into->schema_oid, &into->copy);
	name = name_of_epoch(into->epoch);
	strlcpy(into->uuid, name ? name->uuid : "", sizeof(into->uuid));
}

static AckMode
ack_mode(const char *name)
{
	if (strcmp(name, "none") == 0)
		return ACK_NONE;
	return strcmp(name, "topic") == 0 ? ACK_TOPIC : ACK_READBACK;
}

/* A channel's pace, and the run of it that is under way. */
static void
read_pace(Pace *pace, uint64 row)
{
	int64		run_id = result_int64(row, 11, 0);
	bool		isnull;

	pace->batch = (int) result_int64(row, 8, 0);
	pace->every = Max(result_int64(row, 9, 0), 1);
	pace->next_at = DatumGetTimestampTz(result_column(row, 10, &isnull));
	if (run_id == pace->run_id)
		return;					/* we know more of it */
	pace->run_id = run_id;
	pace->succeeded = (int) result_int64(row, 12, 0);
	pace->failed = (int) result_int64(row, 13, 0);
	pace->exhausted = false;
}

/* Read the channels' settings. */
void
store_load_channels(void)
{
	uint64		n = run(LOAD_CHANNELS, NULL, NULL);

	channels_load_begin();
	for (uint64 i = 0; i < n; i++)
	{
		Channel    *channel = channel_define(result_text(i, 1));
		char	   *topic = result_text(i, 2);
		Datum		value;
		bool		isnull;

		if (topic)
			channel_set_topic(channel, topic);
		channel->ack = ack_mode(result_text(i, 3));
		value = result_column(i, 4, &isnull);
		channel->resend_after = isnull ? 0 : (int64) (DatumGetFloat8(value) * USECS_PER_SEC);
		value = result_column(i, 5, &isnull);
		if (!isnull)
		{
			Datum	   *topics;
			bool	   *nulls;
			int			ntopics;
			MemoryContext old;

			deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false,
							  TYPALIGN_INT, &topics, &nulls, &ntopics);
			old = MemoryContextSwitchTo(TopMemoryContext);
			for (int t = 0; t < ntopics; t++)
				if (!nulls[t])
					channel->former_topics = lappend(channel->former_topics,
													 TextDatumGetCString(topics[t]));
			MemoryContextSwitchTo(old);
		}
		channel->paused = DatumGetBool(result_column(i, 6, &isnull));
		channel->has_webhook = DatumGetBool(result_column(i, 7, &isnull));
		channel->max_attempts = (int) result_int64(i, 14, 1);
		read_pace(&channel->pace, i);
	}
	channels_load_end();
}

/*
 * Take the lock on messages that an UPDATE needs, before rows are locked, so
 * that whoever wants the table for himself cannot come between.  Returns false
 * if somebody has it.
 */
bool
store_lock_messages(void)
{
	Oid			relation = get_relname_relid("messages", installation.schema_oid);

	return OidIsValid(relation) &&
		ConditionalLockRelationOid(relation, RowExclusiveLock);
}

/* Look from the beginning: tell of each channel's first row of a kind that waits. */
void
store_sweep(WaitingKind kind, WaitingCallback found)
{
	uint64		n = run(kind == WAITING_IDLE ? SWEEP_IDLE : SWEEP_RECEIVED, NULL, NULL);

	for (uint64 i = 0; i < n; i++)
		found(result_text(i, 1), kind, result_int64(i, 2, 0));
}

/* Find when the first row of each channel comes due. */
void
store_sweep_due(void)
{
	Datum		values[1] = {names_foreign()};
	uint64		n = run(SWEEP_DUE, values, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		Channel    *channel = channel_find(result_text(i, 1));
		bool		isnull;

		if (channel)
			channel->next_due = DatumGetTimestampTz(result_column(i, 2, &isnull));
	}
}

/* Tell of each channel's first dead letter. */
void
store_sweep_dead_letters(WaitingCallback found)
{
	uint64		n = run(SWEEP_DEAD_LETTERS, NULL, NULL);

	for (uint64 i = 0; i < n; i++)
		found(result_text(i, 1), WAITING_IDLE, result_int64(i, 2, 0));
}

/* ---------------------------------------------------------------- claims */

ClaimPoint	claim_point = {0};

/* Takes rows from the executor one by one, so that sending overlaps claiming. */
typedef struct ClaimReceiver
{
	DestReceiver pub;
	ClaimCallback callback;
	void	   *arg;
	MemoryContext row_context;
	TransactionId checked_xid;
	bool		by_due;			/* the last column is due_at */
	int			n;
} ClaimReceiver;

/* Where the claim that runs locks rows that are taken; NULL: its statement locks them. */
static Relation claimed_table = NULL;
static TupleTableSlot *locked_row = NULL;

/*
 * See to it that the transaction that wrote a row is on disk, for its caller
 * may have committed with synchronous_commit = off, and what is sent must not
 * be undone by a crash.  The commit log knows how far WAL must be flushed for
 * such a transaction; for any other this is a look at a cached page.
 */
static void
ensure_durable(TransactionId xid)
{
	XLogRecPtr	lsn = InvalidXLogRecPtr;

	if (!TransactionIdIsNormal(xid))
		return;
	LWLockAcquire(XactTruncationLock, LW_SHARED);

	/*
	 * Older ones are frozen, long since on disk, and not in the log any more.  After a wraparound, a frozen row's number may seem to be one of the
	 * future, or that of a transaction of today, which does no harm.
	 */
	if (!TransactionIdPrecedes(xid, compat_oldest_clog_xid()) && TransactionIdPrecedes(xid, ReadNextTransactionId()))
		lsn = TransactionIdGetCommitLSN(xid);
	LWLockRelease(XactTruncationLock);
	if (!XLogRecPtrIsInvalid(lsn))
		XLogFlush(lsn);
}

static bool
claim_row(TupleTableSlot *slot, DestReceiver *self)
{
	ClaimReceiver *receiver = (ClaimReceiver *) self;
	MemoryContext old = MemoryContextSwitchTo(receiver->row_context);
	Datum	   *values;
	bool	   *nulls;
	TransactionId xid;
	ClaimedRow	row;
	bool		more;

	slot_getallattrs(slot);
	values = slot->tts_values;
	nulls = slot->tts_isnull;
	claim_point.id = DatumGetInt64(values[COL_ID]);
	claim_point.share = (int) DatumGetInt64(values[COL_SHARE]) - 1;
	claim_point.due = receiver->by_due && !nulls[COL_FINISHED_AT] ? DatumGetTimestampTz(values[COL_FINISHED_AT]) : DT_NOBEGIN;
	xid = DatumGetTransactionId(values[COL_XMIN]);
	if (xid != receiver->checked_xid)
	{
		ensure_durable(xid);
		receiver->checked_xid = xid;
	}
	row.tid = *(ItemPointer) DatumGetPointer(values[COL_CTID]);
	row.id = claim_point.id;
	row.share = claim_point.share;
	row.attempts = DatumGetInt32(values[COL_ATTEMPTS]);
	row.created_at = DatumGetTimestampTz(values[COL_CREATED_AT]);
	row.expires_at = nulls[COL_EXPIRES_AT] ? DT_NOEND :
		DatumGetTimestampTz(values[COL_EXPIRES_AT]);
	row.key = NULL;
	row.key_length = 0;
	if (!nulls[COL_KEY])
	{
		text	   *key = DatumGetTextPP(values[COL_KEY]);

		row.key = VARDATA_ANY(key);
		row.key_length = VARSIZE_ANY_EXHDR(key);
	}
	row.payload = nulls[COL_PAYLOAD] ? NULL : DatumGetJsonbP(values[COL_PAYLOAD]);
	/* a row that no trigger saw may have neither, which is nothing to send */
	row.body = !nulls[COL_BODY] ? DatumGetByteaPP(values[COL_BODY]) : nulls[COL_PAYLOAD] ? (bytea *) cstring_to_text("") : NULL;
	row.headers = nulls[COL_HEADERS] ? NULL : DatumGetJsonbP(values[COL_HEADERS]);
	row.content_type = nulls[COL_CONTENT_TYPE] ? NULL : DatumGetTextPP(values[COL_CONTENT_TYPE]);
	row.event_type = nulls[COL_EVENT_TYPE] ? NULL : DatumGetTextPP(values[COL_EVENT_TYPE]);
	row.retry = DatumGetBool(values[COL_RETRY]);
	row.last_error = nulls[COL_LAST_ERROR] ? NULL : DatumGetTextPP(values[COL_LAST_ERROR]);
	row.due_at = claim_point.due;
	row.finished_at = receiver->by_due || nulls[COL_FINISHED_AT] ? DT_NOEND : DatumGetTimestampTz(values[COL_FINISHED_AT]);

	row.epoch = DatumGetInt32(values[COL_EPOCH]);
	if (row.epoch != installation.epoch && !name_is_ours(row.epoch))
	{
		/* the claim ends here, so that nothing after it is passed over */
		names_met_unknown(row.epoch);
		MemoryContextSwitchTo(old);
		MemoryContextReset(receiver->row_context);
		return false;
	}

	receiver->n++;
	more = receiver->callback(&row, receiver->arg);
	MemoryContextSwitchTo(old);
	MemoryContextReset(receiver->row_context);
	claim_point.id = 0;
	return more;
}

/*
 * Lock a row of the claim that runs, until the end of the transaction, for it is to be taken.  Returns false if
 * somebody holds it, or has changed it just now.
 */
bool
store_lock_claimed(const ClaimedRow *row)
{
	ItemPointerData tid = row->tid;
	TM_FailureData failure;
	TM_Result	result;

	if (claimed_table == NULL)
		return true;
	result = table_tuple_lock(claimed_table, &tid, GetActiveSnapshot(), locked_row, GetCurrentCommandId(true),
							  LockTupleNoKeyExclusive, LockWaitSkip, 0, &failure);
	ExecClearTuple(locked_row);
	return result == TM_Ok;
}

static void
claim_startup(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
claim_nothing(DestReceiver *self)
{
}

/* Channel names of shares, as an array. */
static Datum
share_names(ClaimShare *shares, int nshares)
{
	const char **names = palloc(nshares * sizeof(char *));

	for (int i = 0; i < nshares; i++)
		names[i] = shares[i].channel->name;
	return text_array(names, nshares);
}

/* What the marks of a claim are made from, once its snapshot is taken. */
typedef struct ClaimLows
{
	ClaimShare *shares;
	int			nshares;
	MemoryContext memory;		/* of the claim */
	bool		awaited;		/* not yet made */
	bool		by_due;			/* they are due times, and ids within one */
	WaitingKind kind;			/* of the rows */
} ClaimLows;

/* The second parameter of a claim: marks, none above the floor; or of a resend, its ages. */
static Datum
lows_array(const ClaimLows *lows, bool resend, int64 floor)
{
	Datum	   *values = palloc(lows->nshares * sizeof(Datum));

	for (int i = 0; i < lows->nshares; i++)
		values[i] = Int64GetDatum(resend ? lows->shares[i].channel->resend_after :
								  Min(lows->shares[i].low, floor));
	return array_of(values, lows->nshares, INT8OID);
}

/* The due times that belong to the ids of lows_array(). */
static Datum
due_lows_array(const ClaimLows *lows, bool from_first)
{
	Datum	   *values = palloc(lows->nshares * sizeof(Datum));

	for (int i = 0; i < lows->nshares; i++)
		values[i] = TimestampTzGetDatum(from_first ? DT_NOBEGIN : lows->shares[i].low_due);
	return array_of(values, lows->nshares, TIMESTAMPTZOID);
}

/*
 * Called by the executor when it first needs a parameter, which is after the
 * snapshot was taken: only then it is known how low the marks must be, lest
 * later rows of a transaction are claimed before its first (commits.c).
 */
static ParamExternData *
fetch_claim_param(ParamListInfo params, int number, bool speculative, ParamExternData *room)
{
	ClaimLows  *lows = params->paramFetchArg;

	if ((number == 2 || number == 8) && lows->awaited && !speculative)
	{
		MemoryContext old = MemoryContextSwitchTo(lows->memory);

		if (lows->by_due)
		{
			/* what is just becoming visible may have been due long since: then from the first on */
			bool		from_first = commits_due(MyDatabaseId);

			params->params[1].value = lows_array(lows, false, from_first ? PG_INT64_MIN : PG_INT64_MAX);
			params->params[7].value = due_lows_array(lows, from_first);
		}
		else
			params->params[1].value = lows_array(lows, false, notes_floor(lows->kind));
		MemoryContextSwitchTo(old);
		lows->awaited = false;
	}
	return &params->params[number - 1];
}

/* Whether a claim goes on behind a mark of due times. */
static bool
claims_by_due(ClaimKind kind)
{
	return kind == CLAIM_DUE || kind == CLAIM_WEBHOOK_DUE;
}

/*
 * Claim rows of several channels, at most shares[i].limit of each, that belong
 * to worker (of nworkers), and hand each to callback as it comes.  Idle and due rows
 * are to be locked by it (store_lock_claimed); the others are locked here, and those
 * that somebody holds left out.  Returns how many were handed.
 */
int
store_claim(ClaimKind kind, ClaimShare *shares, int nshares, int worker,
			int nworkers, ClaimCallback callback, void *arg)
{
	static const StoreStatement claims[] = {
		[CLAIM_IDLE] = CLAIM_IDLE_ROWS,
		[CLAIM_DUE] = CLAIM_DUE_ROWS,
		[CLAIM_RESEND] = CLAIM_RESEND_ROWS,
		[CLAIM_DEAD_LETTER] = CLAIM_DEAD_LETTERS,
		[CLAIM_WEBHOOK_IDLE] = CLAIM_WEBHOOK_IDLE_ROWS,
		[CLAIM_WEBHOOK_RECEIVED] = CLAIM_WEBHOOK_RECEIVED_ROWS,
		[CLAIM_WEBHOOK_DUE] = CLAIM_WEBHOOK_DUE_ROWS
	};
	StoreStatement statement = claims[kind];
	ClaimReceiver receiver = {
		.pub = {
			.receiveSlot = claim_row,
			.rStartup = claim_startup,
			.rShutdown = claim_nothing,
			.rDestroy = claim_nothing,
			.mydest = DestNone
		},
		.callback = callback,
		.arg = arg,
		.by_due = claims_by_due(kind),
		.checked_xid = InvalidTransactionId
	};
	Datum	   *limits = palloc(nshares * sizeof(Datum));
	SPIExecuteOptions options = {0};
	ParamListInfo params = makeParamList(statements[statement].nargs);
	ClaimLows	lows = {
		.shares = shares,
		.nshares = nshares,
		.memory = CurrentMemoryContext,
		.awaited = kind != CLAIM_RESEND && kind != CLAIM_DEAD_LETTER,
		.by_due = claims_by_due(kind),
		.kind = kind == CLAIM_WEBHOOK_RECEIVED ? WAITING_RECEIVED : WAITING_IDLE
	};
	Datum		values[8];

	claim_point.id = 0;
	for (int i = 0; i < nshares; i++)
		limits[i] = Int32GetDatum(shares[i].limit);
	values[0] = share_names(shares, nshares);
	values[1] = lows_array(&lows, kind == CLAIM_RESEND, PG_INT64_MAX);
	values[2] = array_of(limits, nshares, INT4OID);
	values[3] = Int64GetDatum(nworkers);
	values[4] = Int64GetDatum(worker);
	values[5] = TimestampTzGetDatum(clock_now());
	values[6] = names_foreign();
	values[7] = lows.by_due ? due_lows_array(&lows, false) : (Datum) 0;
	for (int i = 0; i < params->numParams; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = statements[statement].args[i];
	}
	params->paramFetch = fetch_claim_param;
	params->paramFetchArg = &lows;
	receiver.row_context = AllocSetContextCreate(CurrentMemoryContext, "msgsys claimed row",
												 ALLOCSET_DEFAULT_SIZES);
	options.params = params;
	options.dest = &receiver.pub;
	claimed_table = NULL;
	if (kind == CLAIM_IDLE || kind == CLAIM_DUE)
	{
		claimed_table = table_open(get_relname_relid("messages", installation.schema_oid), RowShareLock);
		locked_row = table_slot_create(claimed_table, NULL);
	}
	SPI_execute_plan_extended(statement_plan(&statements[statement], installation.schema), &options);
	if (claimed_table)
	{
		ExecDropSingleTupleTableSlot(locked_row);
		table_close(claimed_table, NoLock);
		claimed_table = NULL;
	}
	MemoryContextDelete(receiver.row_context);
	return receiver.n;
}

/* ---------------------------------------------------------------- marks */

/*
 * Before a statement that reads a channel's settings and marks its messages by them: be
 * a transaction with a number, which the reconciler waits for (reconcile.c) if it
 * changes those settings after the statement has begun.
 */
void
store_before_marks(void)
{
	/* where it cannot write, the mark says so better */
	if (!XactReadOnly)
		(void) GetCurrentTransactionId();
}

/* Places of rows in the table, as an array. */
static Datum
tid_array(const ItemPointerData *tids, int n)
{
	Datum	   *values = palloc(n * sizeof(Datum));

	for (int i = 0; i < n; i++)
		values[i] = PointerGetDatum(&tids[i]);
	return array_of(values, n, TIDOID);
}

/* The broker confirmed these messages, which this transaction has claimed. */
void
store_mark_sent(const SentMark *marks, int n)
{
	Datum	   *tids = palloc(n * sizeof(Datum));
	Datum	   *partitions = palloc(n * sizeof(Datum));
	Datum	   *offsets = palloc(n * sizeof(Datum));
	Datum		values[4];

	for (int i = 0; i < n; i++)
	{
		tids[i] = PointerGetDatum(&marks[i].tid);
		partitions[i] = Int32GetDatum(marks[i].partition);
		offsets[i] = Int64GetDatum(marks[i].offset);
	}
	values[0] = array_of(tids, n, TIDOID);
	values[1] = array_of(partitions, n, INT4OID);
	values[2] = array_of(offsets, n, INT8OID);
	values[3] = TimestampTzGetDatum(clock_now());
	run(MARK_SENT, values, NULL);
}

/* These messages, which this transaction has claimed, were sent as often as may be without an acknowledgement. */
void
store_mark_unacknowledged(const ItemPointerData *tids, int n)
{
	Datum		values[2] = {tid_array(tids, n), TimestampTzGetDatum(clock_now())};

	run(MARK_UNACKNOWLEDGED, values, NULL);
}

/* The broker refused these messages, which this transaction has claimed. */
void
store_mark_refused(const RefusedMark *marks, int n)
{
	Datum	   *tids = palloc(n * sizeof(Datum));
	Datum	   *permanent = palloc(n * sizeof(Datum));
	const char **reasons = palloc(n * sizeof(char *));
	Datum		values[4];

	for (int i = 0; i < n; i++)
	{
		tids[i] = PointerGetDatum(&marks[i].tid);
		permanent[i] = BoolGetDatum(marks[i].permanent);
		reasons[i] = marks[i].reason;
	}
	values[0] = array_of(tids, n, TIDOID);
	values[1] = array_of(permanent, n, BOOLOID);
	values[2] = text_array(reasons, n);
	values[3] = TimestampTzGetDatum(clock_now());
	run(MARK_REFUSED, values, NULL);
}

/* These dead letters, which this transaction has claimed, were written, or refused with a reason. */
void
store_mark_dead_letters(const RefusedMark *marks, int n)
{
	Datum	   *tids = palloc(n * sizeof(Datum));
	const char **reasons = palloc(n * sizeof(char *));
	Datum		values[2];

	for (int i = 0; i < n; i++)
	{
		tids[i] = PointerGetDatum(&marks[i].tid);
		reasons[i] = marks[i].reason;
	}
	values[0] = array_of(tids, n, TIDOID);
	values[1] = text_array(reasons, n);
	run(MARK_DEAD_LETTERS, values, NULL);
}

/* Write something, and take it back, in a table that has nothing to do with messages. */
void
store_write_elsewhere(void)
{
	Datum		values[2] = {Int32GetDatum(slot_number()), TimestampTzGetDatum(clock_now())};

	run(WRITE_ELSEWHERE, values, NULL);
	run(UNWRITE_ELSEWHERE, values, NULL);
}

/* A message, or its dead letter, cannot be handled: it is done with. */
void
store_set_aside(int64 id, bool dead_letter, const char *error)
{
	Datum		values[3] = {Int64GetDatum(id), CStringGetTextDatum(error), TimestampTzGetDatum(clock_now())};

	run(dead_letter ? SET_LETTER_ASIDE : SET_ASIDE, values, NULL);
}

/* These messages, which this transaction has claimed, came too late; those of mailings may have another day. */
void
store_mark_expired(const ItemPointerData *tids, int n)
{
	Datum		values[2];

	/* a row that is postponed is not there any more */
	store_mailings_postpone_rows(tids, n);
	values[0] = tid_array(tids, n);
	values[1] = TimestampTzGetDatum(clock_now());
	run(MARK_EXPIRED, values, NULL);
}

/* Find when the next row of each of these channels comes due, after a time. */
void
store_next_due(ClaimShare *shares, int nshares, TimestampTz after)
{
	Datum		values[3] = {share_names(shares, nshares), TimestampTzGetDatum(after), names_foreign()};
	uint64		n = run(NEXT_DUE, values, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		int			share = (int) DatumGetInt64(result_column(i, 1, &isnull)) - 1;
		Datum		due = result_column(i, 2, &isnull);

		shares[share].channel->next_due = isnull ? DT_NOEND : DatumGetTimestampTz(due);
	}
}

/* Whether any channel has a webhook, as far as this worker knows. */
static bool
any_webhook(void)
{
	ListCell   *lc;

	foreach(lc, channels)
		if (((Channel *) lfirst(lc))->has_webhook)
			return true;
	return false;
}

/*
 * These records were read back: their messages are received, where their channels
 * wait for that.  Records are in the order of their ids, without repetition.
 * Returns how many messages were waiting for that.
 */
int
store_mark_readback(const Readback *records, int n)
{
	Datum	   *ids = palloc(n * sizeof(Datum));
	Datum	   *partitions = palloc(n * sizeof(Datum));
	Datum	   *offsets = palloc(n * sizeof(Datum));
	Datum	   *attempts = palloc(n * sizeof(Datum));
	Datum	   *epochs = palloc(n * sizeof(Datum));
	Datum	   *times = palloc(n * sizeof(Datum));
	Datum		values[7];
	uint64		rows;
	int			marked = 0;

	for (int i = 0; i < n; i++)
	{
		ids[i] = Int64GetDatum(records[i].id);
		partitions[i] = Int32GetDatum(records[i].partition);
		offsets[i] = Int64GetDatum(records[i].offset);
		attempts[i] = Int32GetDatum(records[i].attempt);
		epochs[i] = Int32GetDatum(records[i].epoch);
		times[i] = TimestampTzGetDatum(records[i].created_at);
	}
	values[5] = array_of(epochs, n, INT4OID);
	values[6] = array_of(times, n, TIMESTAMPTZOID);
	values[0] = array_of(ids, n, INT8OID);
	values[1] = array_of(partitions, n, INT4OID);
	values[2] = array_of(offsets, n, INT8OID);
	values[3] = array_of(attempts, n, INT4OID);
	values[4] = TimestampTzGetDatum(clock_now());
	store_before_marks();
	if (!any_webhook())
		return (int) run(MARK_READBACK, values, NULL);

	rows = run(MARK_READBACK_WEBHOOK, values, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		marked += (int) result_int64(i, 3, 0);
		/* the webhook worker learns of it when we have committed */
		if (DatumGetBool(result_column(i, 4, &isnull)))
			note_received(result_text(i, 1), result_int64(i, 2, 0));
	}
	return marked;
}

/*
 * Some of these records, which are all ours, stand for no row as it is.  Those of a tail
 * that a failover or a restore lost count for nobody, and are counted.  Where the current
 * epoch has such records, or other messages under the names of rows, this database is behind
 * what it gave before (the disk or the machine is back at a snapshot): another epoch begins,
 * and rows whose names Kafka holds are named anew.  If also the data directory is another,
 * this is a copy whose original goes on: nothing is sent until msg_adopt().
 */
void
store_examine_records(const Readback *records, int n)
{
	Datum	   *ids = palloc(n * sizeof(Datum));
	Datum	   *epochs = palloc(n * sizeof(Datum));
	Datum	   *times = palloc(n * sizeof(Datum));
	Datum		values[4];
	uint64		rows;
	SPITupleTable *found;
	int32		current = installation.epoch;

	for (int i = 0; i < n; i++)
	{
		ids[i] = Int64GetDatum(records[i].id);
		epochs[i] = Int32GetDatum(records[i].epoch);
		times[i] = TimestampTzGetDatum(records[i].created_at);
	}
	values[0] = array_of(ids, n, INT8OID);
	values[1] = array_of(epochs, n, INT4OID);
	values[2] = array_of(times, n, TIMESTAMPTZOID);
	values[3] = names_foreign();
	rows = run(EXAMINE, values, NULL);
	found = SPI_tuptable;
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		bool		none;
		int32		epoch = DatumGetInt32(SPI_getbinval(found->vals[i], found->tupdesc, 1, &isnull));
		int64		lost = DatumGetInt64(SPI_getbinval(found->vals[i], found->tupdesc, 2, &isnull));
		int64		newer = DatumGetInt64(SPI_getbinval(found->vals[i], found->tupdesc, 3, &isnull));
		Datum		taken = SPI_getbinval(found->vals[i], found->tupdesc, 4, &none);
		char	   *from = SPI_getvalue(found->vals[i], found->tupdesc, 5);
		int32		timeline = DatumGetInt32(SPI_getbinval(found->vals[i], found->tupdesc, 6, &isnull));

		if (lost > 0)
		{
			Datum		counts[2] = {Int32GetDatum(epoch), Int64GetDatum(lost)};

			run(COUNT_LOST, counts, NULL);
		}
		if (lost > 0 && names_of_copied(from, timeline))
		{
			run(HOLD, &values[3], NULL);
			note_config();
			ereport(LOG,
					(errmsg("msgsys runs in a copy of a data directory whose original goes on, and sends nothing"),
					 errdetail("Kafka has newer messages of it than are here."),
					 errhint("Call msg_adopt().")));
			return;
		}
		if (newer > 0 && epoch == current)
			current = names_begin(installation.schema_oid,
								  "Kafka has newer messages of ours than are here, so this is an older state of the database");
		if (!none && epoch != current)
		{
			Datum		renames[3] = {taken, Int32GetDatum(epoch), Int32GetDatum(current)};

			run(RENAME, renames, NULL);
		}
	}
}

/*
 * Consumers acknowledged these messages; acks are in the order of their ids,
 * without repetition.  Returns how many messages were waiting for that.  Also
 * for msg_ack, from a session with SPI connected.
 */
int
store_acknowledge(const char *schema, const Ack *acks, int n)
{
	Datum	   *ids = palloc(n * sizeof(Datum));
	Datum	   *outcomes = palloc(n * sizeof(Datum));
	Datum	   *attempts = palloc(n * sizeof(Datum));
	Datum	   *epochs = palloc(n * sizeof(Datum));
	const char **errors = palloc(n * sizeof(char *));
	Datum	   *failed = palloc(n * sizeof(Datum));
	int			nfailed = 0;
	Datum		values[7];

	for (int i = 0; i < n; i++)
	{
		if (acks[i].outcome == ACK_FAILED)
			failed[nfailed++] = Int64GetDatum(acks[i].id);
		ids[i] = Int64GetDatum(acks[i].id);
		outcomes[i] = Int32GetDatum(acks[i].outcome);
		attempts[i] = Int32GetDatum(acks[i].attempt);
		errors[i] = acks[i].error;
		epochs[i] = Int32GetDatum(acks[i].epoch);
	}
	values[0] = array_of(ids, n, INT8OID);
	values[1] = array_of(outcomes, n, INT4OID);
	values[2] = array_of(attempts, n, INT4OID);
	values[3] = text_array(errors, n);
	values[4] = TimestampTzGetDatum(clock_now());
	values[5] = array_of(epochs, n, INT4OID);
	if (nfailed > 0)
	{
		values[6] = array_of(failed, nfailed, INT8OID);
		statement_run_in(schema, &statements[LOCK_UNSENT], &values[6], NULL);
	}
	store_before_marks();
	statement_run_in(schema, &statements[ACKNOWLEDGE], values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		/* whoever goes on with them learns of it when we have committed */
		if (DatumGetBool(result_column(i, 3, &isnull)))
			note_due(result_text(i, 1), DatumGetTimestampTz(result_column(i, 2, &isnull)));
		if (DatumGetBool(result_column(i, 4, &isnull)))
			note_received(result_text(i, 1), result_int64(i, 5, 0));
		if (DatumGetBool(result_column(i, 6, &isnull)))
			note_due(result_text(i, 1), clock_now());
	}
	return (int) SPI_processed;
}

/*
 * Lock those of these messages that nobody else holds, until the end of the
 * transaction; ids are in their order.  Says of each whether somebody holds it, and
 * returns how many those are.
 */
int
store_lock_free(const int64 *ids, int n, bool *held)
{
	Datum	   *datums = palloc(Max(n, 1) * sizeof(Datum));
	Datum		values[1];
	uint64		nheld;
	int			at = 0;

	for (int i = 0; i < n; i++)
	{
		datums[i] = Int64GetDatum(ids[i]);
		held[i] = false;
	}
	values[0] = array_of(datums, n, INT8OID);
	nheld = run(LOCK_FREE, values, NULL);
	for (uint64 i = 0; i < nheld; i++)
	{
		int64		id = result_int64(i, 1, 0);

		while (at < n && ids[at] < id)
			at++;
		/* an id may be there more than once */
		for (; at < n && ids[at] == id; at++)
			held[at] = true;
	}
	return (int) nheld;
}

/* Begin a run of a channel, and say when the next is due.  Returns its id; 0: the channel has no pace. */
int64
store_run_begin(const char *channel, TimestampTz due, TimestampTz next, TimestampTz now)
{
	Datum		values[4] = {CStringGetTextDatum(channel), TimestampTzGetDatum(due), TimestampTzGetDatum(next), TimestampTzGetDatum(now)};

	return run(RUN_BEGIN, values, NULL) > 0 ? result_int64(0, 1, 0) : 0;
}

/* Write down what became of messages of a run, of which so many are claimed in all. */
void
store_run_mark(int64 id, int claimed, int succeeded, int failed, int64 first_id, int64 last_id, const char *error)
{
	Datum		values[7] = {Int64GetDatum(id), Int64GetDatum(claimed), Int64GetDatum(succeeded), Int64GetDatum(failed),
	Int64GetDatum(first_id), Int64GetDatum(last_id)};

	if (error)
		values[6] = CStringGetTextDatum(error);
	run(RUN_MARK, values, error ? NULL : "      n");
}

/* A run has ended. */
void
store_run_end(int64 id)
{
	Datum		values[2] = {Int64GetDatum(id), TimestampTzGetDatum(clock_now())};

	run(RUN_END, values, NULL);
}

/* Apply the rules of retention to the next rows above an id. */
void
store_purge_step(int64 above, int rows, PurgeStep *step)
{
	Datum		values[2] = {Int64GetDatum(above), Int32GetDatum(rows)};
	bool		isnull;

	run(PURGE_STEP, values, NULL);
	step->last = result_int64(0, 1, 0);
	step->purged = (int) result_int64(0, 2, 0);
	step->more = DatumGetBool(result_column(0, 3, &isnull));
	step->shortest_ms = result_int64(0, 4, PG_INT32_MAX);
}

/* Forget runs that ended before a time, 10,000 at most. */
void
store_purge_runs(TimestampTz before)
{
	Datum		values[1] = {TimestampTzGetDatum(before)};

	run(PURGE_RUNS, values, NULL);
}

/* How many messages of a channel are idle, at most so many. */
int64
store_count_idle(const char *channel, int64 most)
{
	Datum		values[2] = {CStringGetTextDatum(channel), Int64GetDatum(most)};

	run(COUNT_IDLE, values, NULL);
	return result_int64(0, 1, 0);
}

/* Finish what its channel does not wait for any more, so many messages at most.  Returns how many. */
int64
store_reconcile(int most)
{
	Datum		values[1] = {Int32GetDatum(most)};

	run(RECONCILE, values, NULL);
	return result_int64(0, 1, 0);
}

/* Forget the former topics of channels that wait for no acknowledgement. */
void
store_prune_topics(void)
{
	if (run(PRUNE_TOPICS, NULL, NULL) > 0)
		note_config();
}

/* ---------------------------------------------------------------- positions */

/* All stored positions, in cycle_context. */
StoredPosition *
store_positions(int *n)
{
	uint64		rows = run(POSITIONS, NULL, NULL);
	StoredPosition *result;
	bool		isnull;

	result = MemoryContextAlloc(cycle_context, Max(rows, 1) * sizeof(StoredPosition));
	for (uint64 i = 0; i < rows; i++)
	{
		result[i].topic = MemoryContextStrdup(cycle_context, result_text(i, 1));
		result[i].partition = DatumGetInt32(result_column(i, 2, &isnull));
		result[i].next_offset = DatumGetInt64(result_column(i, 3, &isnull));
		result[i].record_time = DatumGetTimestampTz(result_column(i, 4, &isnull));
	}
	*n = (int) rows;
	return result;
}

/* Whether the start position of a topic has been set. */
bool
store_has_positions(const char *topic)
{
	Datum		values[1] = {CStringGetTextDatum(topic)};

	return run(HAS_POSITIONS, values, NULL) > 0;
}

/* Store positions; only_new leaves those that are there as they are. */
void
store_set_positions(const StoredPosition *positions, int n, bool only_new)
{
	const char **topics = palloc(Max(n, 1) * sizeof(char *));
	Datum	   *partitions = palloc(Max(n, 1) * sizeof(Datum));
	Datum	   *offsets = palloc(Max(n, 1) * sizeof(Datum));
	Datum	   *times = palloc(Max(n, 1) * sizeof(Datum));
	Datum		values[4];

	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
	{
		topics[i] = positions[i].topic;
		partitions[i] = Int32GetDatum(positions[i].partition);
		offsets[i] = Int64GetDatum(positions[i].next_offset);
		times[i] = TimestampTzGetDatum(positions[i].record_time);
	}
	values[0] = text_array(topics, n);
	values[1] = array_of(partitions, n, INT4OID);
	values[2] = array_of(offsets, n, INT8OID);
	values[3] = array_of(times, n, TIMESTAMPTZOID);
	run(only_new ? ADD_POSITIONS : SET_POSITIONS, values, NULL);
}

/* Write down what was seen of partitions whose positions are stored. */
void
store_set_looks(const StoredLook *looks, int n)
{
	const char **topics = palloc(n * sizeof(char *));
	Datum	   *columns[6];
	Datum		values[7];

	for (int c = 0; c < lengthof(columns); c++)
		columns[c] = palloc(n * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		topics[i] = looks[i].topic;
		columns[0][i] = Int32GetDatum(looks[i].partition);
		columns[1][i] = Int64GetDatum(Max(looks[i].low, -1));
		columns[2][i] = Int64GetDatum(Max(looks[i].high, -1));
		columns[3][i] = Int64GetDatum(looks[i].gap_from);
		columns[4][i] = Int64GetDatum(looks[i].gap_to);
		columns[5][i] = TimestampTzGetDatum(looks[i].looked_at);
	}
	values[0] = text_array(topics, n);
	values[1] = array_of(columns[0], n, INT4OID);
	for (int c = 1; c < 5; c++)
		values[c + 1] = array_of(columns[c], n, INT8OID);
	values[6] = array_of(columns[5], n, TIMESTAMPTZOID);
	run(SET_LOOKS, values, NULL);
}

/* Names (of char *) as an array. */
static Datum
name_array(List *names)
{
	const char **strings = palloc(Max(list_length(names), 1) * sizeof(char *));
	ListCell   *lc;

	foreach(lc, names)
		strings[foreach_current_index(lc)] = lfirst(lc);
	return text_array(strings, list_length(names));
}

/* Whether one of these channels (of char *) has a message that was sent before a time and is not read back. */
bool
store_any_unread(List *names, TimestampTz sent_before)
{
	Datum		values[2] = {name_array(names), TimestampTzGetDatum(sent_before)};

	return run(ANY_UNREAD, values, NULL) > 0;
}

/*
 * Finish messages of these channels whose record will not be read back any more: of each, so
 * many, without the first ones.  Returns how many they were.
 */
int
store_settle(List *names, TimestampTz sent_before, int limit, int skip, SettledCallback settled)
{
	Datum		values[5] = {name_array(names), TimestampTzGetDatum(sent_before), Int64GetDatum(limit), Int64GetDatum(skip),
	TimestampTzGetDatum(clock_now())};
	uint64		n = run(SETTLE, values, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		settled(result_text(i, 1), result_int64(i, 2, 0), DatumGetBool(result_column(i, 3, &isnull)));
	}
	return (int) n;
}

/*
 * The channels (n, in cycle_context) with a topic that has not been read to where it
 * ended at some time after this one; whether any topic was looked at since.
 */
CatchingUp *
store_catching_up(TimestampTz looked_after, int *n, bool *any_look)
{
	Datum		values[1] = {TimestampTzGetDatum(looked_after)};
	MemoryContext old;
	CatchingUp *result;

	*n = (int) run(CATCHING_UP, values, NULL);
	*any_look = false;
	old = MemoryContextSwitchTo(cycle_context);
	result = palloc(Max(*n, 1) * sizeof(CatchingUp));
	for (int i = 0; i < *n; i++)
	{
		bool		isnull;
		Datum		looked = result_column(i, 2, &isnull);

		*any_look |= !isnull && DatumGetBool(looked);
		result[i].channel = result_text(i, 1);
		result[i].paused = DatumGetBool(result_column(i, 3, &isnull));
	}
	MemoryContextSwitchTo(old);
	return result;
}
