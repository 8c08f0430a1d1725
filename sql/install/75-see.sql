-- 75-see.sql: what the workers do.

CREATE FUNCTION @extschema@.msg_worker_slots(
	OUT database text, OUT stage text, OUT worker integer, OUT pid integer, OUT state text, OUT started_at timestamptz,
	OUT active_at timestamptz, OUT counters jsonb, OUT last_error text, OUT last_error_at timestamptz, OUT error_over_at timestamptz)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'msg_worker_slots' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_worker_slots IS 'the workers of all databases, from shared memory; see the view msg_workers';

CREATE VIEW @extschema@.msg_workers AS
SELECT database, stage, worker, pid, state, started_at, active_at,
	(counters ->> 'claimed')::bigint AS claimed, (counters ->> 'sent')::bigint AS sent, (counters ->> 'refused')::bigint AS refused,
	(counters ->> 'records')::bigint AS records, (counters ->> 'received')::bigint AS received,
	(counters ->> 'delivered')::bigint AS delivered, (counters ->> 'failed')::bigint AS failed, last_error, last_error_at, error_over_at
FROM @extschema@.msg_worker_slots();
COMMENT ON VIEW @extschema@.msg_workers IS 'one row a worker: process, state, counters since its start, latest error';

/* msg_stats(): counters of this database's workers since their start, added up by stage. */
CREATE FUNCTION @extschema@.msg_stats(OUT stage text, OUT counter text, OUT value bigint) RETURNS SETOF record
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT s.stage, c.key, sum(c.value::bigint)::bigint
FROM @extschema@.msg_worker_slots() s, jsonb_each_text(s.counters) c
WHERE s.database = current_database()
GROUP BY s.stage, c.key ORDER BY s.stage, c.key
$$;
COMMENT ON FUNCTION @extschema@.msg_stats IS 'counters of this database''s workers since they started, by stage';

COMMENT ON COLUMN @extschema@.msg_workers.database IS 'the database that it works for';
COMMENT ON COLUMN @extschema@.msg_workers.stage IS 'relay, receiver, webhook, scheduler or http';
COMMENT ON COLUMN @extschema@.msg_workers.worker IS 'its number within the stage, from 0';
COMMENT ON COLUMN @extschema@.msg_workers.pid IS 'its process; null while it has none';
COMMENT ON COLUMN @extschema@.msg_workers.state IS 'busy or idle; paused (all channels are), no broker set, broker settings wrong (see last_error), broker down, extension absent, copy, not adopted (see msg_adopt()); not needed (no process: no channel has a topic, or one that is read, or a webhook), standby (starts at the promotion); starting, stopped, no worker slot (raise max_worker_processes), no database';
COMMENT ON COLUMN @extschema@.msg_workers.started_at IS 'when it was started the last time';
COMMENT ON COLUMN @extschema@.msg_workers.active_at IS 'when it last had something to do, or looked';
COMMENT ON COLUMN @extschema@.msg_workers.claimed IS 'messages that it took to send them';
COMMENT ON COLUMN @extschema@.msg_workers.sent IS 'messages that Kafka confirmed';
COMMENT ON COLUMN @extschema@.msg_workers.refused IS 'messages that Kafka refused; of http: requests that were refused before they were read';
COMMENT ON COLUMN @extschema@.msg_workers.records IS 'records of Kafka that it read';
COMMENT ON COLUMN @extschema@.msg_workers.received IS 'messages that such a record marked';
COMMENT ON COLUMN @extschema@.msg_workers.delivered IS 'messages that a webhook took';
COMMENT ON COLUMN @extschema@.msg_workers.failed IS 'attempts at a webhook that failed; of http: answers that did';
COMMENT ON COLUMN @extschema@.msg_workers.last_error IS 'what went wrong last, also when it is well again';
COMMENT ON COLUMN @extschema@.msg_workers.last_error_at IS 'when that was';
COMMENT ON COLUMN @extschema@.msg_workers.error_over_at IS 'since when it is over, as far as the worker knows: at once where its end is known, else a minute after the last error; null: it may last';
COMMENT ON COLUMN @extschema@.msg_backlog.channel IS 'the channel';
COMMENT ON COLUMN @extschema@.msg_backlog.status IS 'scheduled, idle, retry, or sent and received where more is to come';
COMMENT ON COLUMN @extschema@.msg_backlog.count IS 'how many messages';
COMMENT ON COLUMN @extschema@.msg_backlog.oldest_age IS 'for how long the oldest of them: since its creation; when sent or received, since then';
COMMENT ON COLUMN @extschema@.msg_mailing_log.mailing_id IS 'the mailing';
COMMENT ON COLUMN @extschema@.msg_mailing_log.client_id IS 'the client';
COMMENT ON COLUMN @extschema@.msg_mailing_log.message_id IS 'its message';
COMMENT ON COLUMN @extschema@.msg_mailing_log.phone IS 'the client''s number; null: the client is gone';
COMMENT ON COLUMN @extschema@.msg_mailing_log.text IS 'what is sent';
COMMENT ON COLUMN @extschema@.msg_channel_settings.has_webhook IS 'whether it has a webhook';
COMMENT ON COLUMN @extschema@.msg_outbox.id IS 'dedup_key of messages: unique within the channel';
COMMENT ON COLUMN @extschema@.msg_outbox.aggregatetype IS 'channel of messages';
COMMENT ON COLUMN @extschema@.msg_outbox.aggregateid IS 'message_key of messages';
COMMENT ON COLUMN @extschema@.msg_outbox.type IS 'event_type of messages';
COMMENT ON COLUMN @extschema@.msg_outbox.payload IS 'payload of messages';
-- the rest of these views' columns are those of a table
DO $$
DECLARE
	c record;
BEGIN
	FOR c IN SELECT v.relation, a.attname, pg_catalog.col_description(b.attrelid, b.attnum) AS words
		FROM (VALUES ('@extschema@.msg_mailing_log'::regclass, '@extschema@.messages'::regclass),
				('@extschema@.msg_channel_settings', '@extschema@.msg_channels'), ('@extschema@.msg_installation', '@extschema@.msg_names'), ('@extschema@.msg_webhook_settings', '@extschema@.msg_webhooks')) v(relation, source)
			JOIN pg_catalog.pg_attribute a ON a.attrelid = v.relation AND a.attnum > 0 AND pg_catalog.col_description(a.attrelid, a.attnum) IS NULL
			JOIN pg_catalog.pg_attribute b ON b.attrelid = v.source AND b.attname = a.attname
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', c.relation, c.attname, c.words);
	END LOOP;
END $$;
