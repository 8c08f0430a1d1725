-- 42-reconcile.sql: what is unfinished and nobody will act on, and its end.

/*
 * Its cost is that of the channels that have something unfinished, found by hops from channel to channel, and of the rows that it
 * shows. What was sent and will not be read back is not among them: the receiver finishes it (reading.c), which knows how far topics are read.
 */
CREATE VIEW @extschema@.msg_unreachable AS
WITH RECURSIVE
idle AS (
	(SELECT m.channel FROM @extschema@.messages m WHERE m.status = 'idle' ORDER BY m.channel, m.id LIMIT 1)
	UNION ALL SELECT n.channel FROM idle w, LATERAL (SELECT m.channel FROM @extschema@.messages m
		WHERE m.status = 'idle' AND m.channel > w.channel ORDER BY m.channel, m.id LIMIT 1) n),
due AS (
	(SELECT m.channel FROM @extschema@.messages m WHERE m.status IN ('scheduled', 'retry') ORDER BY m.channel, m.due_at LIMIT 1)
	UNION ALL SELECT n.channel FROM due w, LATERAL (SELECT m.channel FROM @extschema@.messages m
		WHERE m.status IN ('scheduled', 'retry') AND m.channel > w.channel ORDER BY m.channel, m.due_at LIMIT 1) n),
sent AS (
	(SELECT m.channel FROM @extschema@.messages m WHERE m.status = 'sent' AND m.finished_at IS NULL ORDER BY m.channel, m.sent_at LIMIT 1)
	UNION ALL SELECT n.channel FROM sent w, LATERAL (SELECT m.channel FROM @extschema@.messages m
		WHERE m.status = 'sent' AND m.finished_at IS NULL AND m.channel > w.channel ORDER BY m.channel, m.sent_at LIMIT 1) n),
received AS (
	(SELECT m.channel FROM @extschema@.messages m WHERE m.status = 'received' AND m.finished_at IS NULL ORDER BY m.channel, m.id LIMIT 1)
	UNION ALL SELECT n.channel FROM received w, LATERAL (SELECT m.channel FROM @extschema@.messages m
		WHERE m.status = 'received' AND m.finished_at IS NULL AND m.channel > w.channel ORDER BY m.channel, m.id LIMIT 1) n),
letters AS (
	(SELECT m.channel FROM @extschema@.messages m WHERE m.dlq_pending ORDER BY m.channel, m.id LIMIT 1)
	UNION ALL SELECT n.channel FROM letters w, LATERAL (SELECT m.channel FROM @extschema@.messages m
		WHERE m.dlq_pending AND m.channel > w.channel ORDER BY m.channel, m.id LIMIT 1) n),
live AS (
	SELECT 'idle' AS kind, channel FROM idle UNION ALL SELECT 'due', channel FROM due UNION ALL SELECT 'sent', channel FROM sent
	UNION ALL SELECT 'received', channel FROM received UNION ALL SELECT 'letter', channel FROM letters),
settings AS (
	SELECT l.kind, l.channel, c.channel IS NULL AS no_channel, c.topic, c.former_topics, c.ack, c.resend_after, coalesce(c.has_webhook, false) AS has_webhook,
		(SELECT w.disabled_at IS NOT NULL FROM @extschema@.msg_webhook_settings w WHERE w.channel = l.channel) AS disabled,
		coalesce(pg_catalog.current_setting('msgsys.kafka_brokers', true), '') = '' AS no_broker
	FROM live l LEFT JOIN @extschema@.msg_channel_settings c ON c.channel = l.channel),
judged AS (
	SELECT s.kind, s.channel, CASE
		WHEN s.no_channel THEN 'its channel does not exist'
		WHEN s.kind IN ('idle', 'due') THEN CASE
			WHEN s.topic IS NULL AND NOT s.has_webhook THEN 'its channel has neither topic nor webhook'
			WHEN s.topic IS NULL AND s.disabled THEN 'the webhook of its channel is disabled'
			WHEN s.topic IS NOT NULL AND s.no_broker THEN 'msgsys.kafka_brokers is empty' END
		WHEN s.kind = 'sent' THEN CASE
			WHEN s.ack = 'none' THEN 'its channel waits for no acknowledgement'
			WHEN s.topic IS NULL AND s.former_topics IS NULL THEN 'its channel has no topic that is read'
			WHEN s.no_broker THEN 'msgsys.kafka_brokers is empty' END
		WHEN s.kind = 'received' THEN CASE
			WHEN NOT s.has_webhook THEN 'its channel has no webhook'
			WHEN s.disabled THEN 'the webhook of its channel is disabled' END
		ELSE CASE
			WHEN s.topic IS NULL THEN 'its channel has no topic'
			WHEN s.no_broker THEN 'msgsys.kafka_brokers is empty' END
		END AS reason,
		s.kind = 'sent' AND (s.no_channel OR s.ack = 'none' OR s.topic IS NULL AND s.former_topics IS NULL)
			OR s.kind = 'received' AND NOT s.has_webhook OR s.kind = 'letter' AND s.topic IS NULL AS ends
	FROM settings s)
SELECT m.id, m.channel, m.status, j.reason, j.ends
FROM judged j CROSS JOIN LATERAL (
	SELECT m.id, m.channel, m.status FROM @extschema@.messages m WHERE j.kind = 'idle' AND m.status = 'idle' AND m.channel = j.channel
	UNION ALL SELECT m.id, m.channel, m.status FROM @extschema@.messages m WHERE j.kind = 'due' AND m.status IN ('scheduled', 'retry') AND m.channel = j.channel
	UNION ALL SELECT m.id, m.channel, m.status FROM @extschema@.messages m WHERE j.kind = 'sent' AND m.status = 'sent' AND m.finished_at IS NULL AND m.channel = j.channel
	UNION ALL SELECT m.id, m.channel, m.status FROM @extschema@.messages m WHERE j.kind = 'received' AND m.status = 'received' AND m.finished_at IS NULL AND m.channel = j.channel
	UNION ALL SELECT m.id, m.channel, m.status FROM @extschema@.messages m WHERE j.kind = 'letter' AND m.dlq_pending AND m.channel = j.channel) m
WHERE j.reason IS NOT NULL;
COMMENT ON VIEW @extschema@.msg_unreachable IS 'what is not finished and no worker will act on under the configuration as it is, and why; pauses do not count. Where ends is true, msg_reconcile() finishes it';
COMMENT ON COLUMN @extschema@.msg_unreachable.id IS 'the message';
COMMENT ON COLUMN @extschema@.msg_unreachable.channel IS 'its channel';
COMMENT ON COLUMN @extschema@.msg_unreachable.status IS 'its status; dead: a dead letter that is still to be written';
COMMENT ON COLUMN @extschema@.msg_unreachable.ends IS 'whether nothing more can become of it, so that msg_reconcile() finishes it; else it waits for another configuration';
COMMENT ON COLUMN @extschema@.msg_unreachable.reason IS 'why nobody will act on it';

/*
 * msg_reconcile(max_rows): finish messages that their channel, as it is set now, does not wait for any more: as sent or received, in which status
 * they are; and give up dead letters whose channel has no topic. In last_error is why. At most so many, in the order of their ids, but
 * for those that somebody has locked. A word of Kafka's or a consumer's that comes later still counts. The scheduler calls it after each change of the configuration and hourly.
 * Returns how many.
 */
CREATE FUNCTION @extschema@.msg_reconcile(max_rows integer DEFAULT 10000) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
WITH found AS MATERIALIZED (SELECT u.id, u.status, u.reason FROM @extschema@.msg_unreachable u WHERE u.ends LIMIT max_rows),
locked AS MATERIALIZED (
	SELECT m.id, f.reason FROM found f JOIN @extschema@.messages m ON m.id = f.id AND m.status = f.status
	WHERE m.status IN ('sent', 'received') AND m.finished_at IS NULL OR m.dlq_pending
	ORDER BY m.id FOR NO KEY UPDATE OF m SKIP LOCKED),
done AS (
	UPDATE @extschema@.messages m SET finished_at = coalesce(m.finished_at, @extschema@.msg_now()), dlq_pending = NULL,
		last_error = CASE WHEN m.status = 'dead' THEN concat_ws('; ', m.last_error, 'dead letter: ' || l.reason) ELSE coalesce(m.last_error, l.reason) END
	FROM locked l WHERE m.id = l.id RETURNING 1)
SELECT count(*) FROM done
$$;
COMMENT ON FUNCTION @extschema@.msg_reconcile IS 'finishes messages that their channel, as it is set now, does not wait for any more, and returns how many; the scheduler calls it after each change of the configuration';
