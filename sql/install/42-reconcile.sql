-- 42-reconcile.sql: what is unfinished and nobody will act on, and its end.

/*
 * Which channels have unfinished messages, and how these wait. By hops from channel to channel on the indexes of live rows, so that
 * it costs what there are channels.
 */
CREATE VIEW @extschema@.msg_unfinished AS
WITH RECURSIVE
idle AS ((SELECT m.channel, m.id FROM @extschema@.messages m WHERE m.status = 'idle' ORDER BY m.channel, m.id LIMIT 1) UNION ALL
	SELECT n.channel, n.id FROM idle w, LATERAL (SELECT m.channel, m.id FROM @extschema@.messages m
		WHERE m.status = 'idle' AND m.channel > w.channel ORDER BY m.channel, m.id LIMIT 1) n),
due AS ((SELECT m.channel, m.id FROM @extschema@.messages m WHERE m.status IN ('scheduled', 'retry') ORDER BY m.channel, m.due_at LIMIT 1) UNION ALL
	SELECT n.channel, n.id FROM due w, LATERAL (SELECT m.channel, m.id FROM @extschema@.messages m
		WHERE m.status IN ('scheduled', 'retry') AND m.channel > w.channel ORDER BY m.channel, m.due_at LIMIT 1) n),
sent AS ((SELECT m.channel, m.id FROM @extschema@.messages m WHERE m.status = 'sent' AND m.finished_at IS NULL ORDER BY m.channel, m.sent_at LIMIT 1) UNION ALL
	SELECT n.channel, n.id FROM sent w, LATERAL (SELECT m.channel, m.id FROM @extschema@.messages m
		WHERE m.status = 'sent' AND m.finished_at IS NULL AND m.channel > w.channel ORDER BY m.channel, m.sent_at LIMIT 1) n),
received AS ((SELECT m.channel, m.id FROM @extschema@.messages m WHERE m.status = 'received' AND m.finished_at IS NULL ORDER BY m.channel, m.id LIMIT 1) UNION ALL
	SELECT n.channel, n.id FROM received w, LATERAL (SELECT m.channel, m.id FROM @extschema@.messages m
		WHERE m.status = 'received' AND m.finished_at IS NULL AND m.channel > w.channel ORDER BY m.channel, m.id LIMIT 1) n),
letters AS ((SELECT m.channel, m.id FROM @extschema@.messages m WHERE m.dlq_pending ORDER BY m.channel, m.id LIMIT 1) UNION ALL
	SELECT n.channel, n.id FROM letters w, LATERAL (SELECT m.channel, m.id FROM @extschema@.messages m
		WHERE m.dlq_pending AND m.channel > w.channel ORDER BY m.channel, m.id LIMIT 1) n)
SELECT channel, 'idle' AS waits, id AS first_id FROM idle UNION ALL SELECT channel, 'due', id FROM due UNION ALL SELECT channel, 'sent', id FROM sent
UNION ALL SELECT channel, 'received', id FROM received UNION ALL SELECT channel, 'dead letter', id FROM letters;
COMMENT ON VIEW @extschema@.msg_unfinished IS 'the channels that have unfinished messages, and how these wait';
COMMENT ON COLUMN @extschema@.msg_unfinished.channel IS 'the channel';
COMMENT ON COLUMN @extschema@.msg_unfinished.waits IS 'idle; due (scheduled or retry), sent, received; dead letter: dead, and still to be written to the dead letter topic';
COMMENT ON COLUMN @extschema@.msg_unfinished.first_id IS 'the message that has waited longest, about';

/*
 * Those of msg_unfinished for which nobody acts under the configuration as it is, and why: the one place that knows who acts, for
 * msg_check(), msg_unreachable and msg_reconcile(). The first reason counts. Severity is error where it is a state that no change of
 * the configuration may leave, warning where the configuration asks for it.
 */
CREATE VIEW @extschema@.msg_unreachable_channels AS
SELECT l.channel, l.waits, l.first_id, r.ends, r.severity, r.reason, r.hint
FROM @extschema@.msg_unfinished l LEFT JOIN @extschema@.msg_channel_settings s ON s.channel = l.channel
	LEFT JOIN @extschema@.msg_webhook_settings w ON w.channel = l.channel
	CROSS JOIN LATERAL (SELECT coalesce(pg_catalog.current_setting('msgsys.kafka_brokers', true), '') = '' AS no_broker,
		-- by webhook, and not (yet) by topic
		w.channel IS NOT NULL AND (l.waits = 'received' OR l.waits IN ('idle', 'due') AND s.topic IS NULL) AS hooked) c
	CROSS JOIN LATERAL (SELECT * FROM (VALUES
		(1, s.channel IS NULL, l.waits NOT IN ('idle', 'due'), 'error', 'the channel does not exist',
			'Make it with msg_channel_set(), or finish its messages with msg_channel_drop(channel, discard => true) after that.'),
		(2, l.waits IN ('idle', 'due') AND s.topic IS NULL AND w.channel IS NULL, false, 'warning', 'the channel has neither topic nor webhook',
			'Give it one with msg_channel_set() or msg_webhook_set(), or cancel its messages.'),
		(3, l.waits = 'sent' AND s.ack = 'none', true, 'error', 'the channel waits for no acknowledgement', 'Call msg_reconcile().'),
		(4, l.waits = 'sent' AND s.topic IS NULL AND s.former_topics IS NULL, true, 'error', 'the channel has no topic that is read', 'Call msg_reconcile(), or give it its topic back.'),
		(5, l.waits = 'received' AND w.channel IS NULL, true, 'error', 'the channel has no webhook', 'Call msg_reconcile(), or give it one.'),
		(6, l.waits = 'dead letter' AND s.topic IS NULL, true, 'error', 'the channel has no topic', 'Call msg_reconcile(), or give it one.'),
		(7, l.waits <> 'received' AND NOT c.hooked AND c.no_broker, false, 'warning', 'msgsys.kafka_brokers is empty', 'Set it.'),
		(8, l.waits = 'sent' AND s.ack = 'topic' AND pg_catalog.current_setting('msgsys.acks_topic', true) = '', false, 'warning', 'msgsys.acks_topic is empty', 'Set it.'),
		(9, c.hooked AND w.disabled_at IS NOT NULL, false, 'warning', 'the webhook of the channel is disabled', 'See disabled_reason in msg_webhooks; then call msg_webhook_enable().'),
		(10, c.hooked AND pg_catalog.current_setting('msgsys.webhook_workers', true) = '0', false, 'warning', 'msgsys.webhook_workers is 0', 'Raise it, and restart the server.')
	) x(n, wrong, ends, severity, reason, hint) WHERE x.wrong ORDER BY x.n LIMIT 1) r;
COMMENT ON VIEW @extschema@.msg_unreachable_channels IS 'the channels with unfinished messages that no worker will act on under the configuration as it is, and why; pauses do not count';
COMMENT ON COLUMN @extschema@.msg_unreachable_channels.channel IS 'the channel';
COMMENT ON COLUMN @extschema@.msg_unreachable_channels.waits IS 'how they wait, as in msg_unfinished';
COMMENT ON COLUMN @extschema@.msg_unreachable_channels.first_id IS 'the message that has waited longest, about';
COMMENT ON COLUMN @extschema@.msg_unreachable_channels.ends IS 'whether nothing more can become of them, so that msg_reconcile() finishes them; else they wait for another configuration';
COMMENT ON COLUMN @extschema@.msg_unreachable_channels.severity IS 'of msg_check()''s finding: error or warning';
COMMENT ON COLUMN @extschema@.msg_unreachable_channels.reason IS 'why nobody will act on them';
COMMENT ON COLUMN @extschema@.msg_unreachable_channels.hint IS 'what to do';

/* Its cost is that of msg_unfinished, and of the rows that it shows; of channels that are read back, that of their messages in status sent. */
CREATE VIEW @extschema@.msg_unreachable AS
WITH nobody AS MATERIALIZED (SELECT * FROM @extschema@.msg_unreachable_channels)
SELECT m.id, m.channel, m.status, n.reason, n.ends
FROM nobody n CROSS JOIN LATERAL (
	SELECT m.id, m.channel, m.status FROM @extschema@.messages m WHERE n.waits = 'idle' AND m.status = 'idle' AND m.channel = n.channel
	UNION ALL SELECT m.id, m.channel, m.status FROM @extschema@.messages m WHERE n.waits = 'due' AND m.status IN ('scheduled', 'retry') AND m.channel = n.channel
	UNION ALL SELECT m.id, m.channel, m.status FROM @extschema@.messages m WHERE n.waits = 'sent' AND m.status = 'sent' AND m.finished_at IS NULL AND m.channel = n.channel
	UNION ALL SELECT m.id, m.channel, m.status FROM @extschema@.messages m WHERE n.waits = 'received' AND m.status = 'received' AND m.finished_at IS NULL AND m.channel = n.channel
	UNION ALL SELECT m.id, m.channel, m.status FROM @extschema@.messages m WHERE n.waits = 'dead letter' AND m.dlq_pending AND m.channel = n.channel) m
UNION ALL
-- the receiver is past it in every topic where its record may be, and it is not sent again; what is to go on to a webhook is for the receiver to settle
SELECT m.id, m.channel, m.status, 'its topic is read from a later record on', true
FROM @extschema@.msg_channel_settings s JOIN @extschema@.messages m ON m.channel = s.channel
WHERE s.ack = 'readback' AND s.resend_after IS NULL AND NOT EXISTS (SELECT FROM nobody n WHERE n.channel = s.channel AND n.waits = 'sent')
	AND NOT (s.has_webhook AND s.topic IS NOT NULL)
	AND m.status = 'sent' AND m.finished_at IS NULL AND m.kafka_offset IS NOT NULL
	AND NOT EXISTS (SELECT FROM @extschema@.msg_offsets o
		WHERE o.topic IN (SELECT x.t || y.suffix FROM pg_catalog.unnest(s.former_topics || s.topic) x(t), (VALUES (''), ('.retry')) y(suffix))
		GROUP BY o.topic
		-- a partition without a position is read from its beginning
		HAVING coalesce(max(o.next_offset) FILTER (WHERE o."partition" = m.kafka_partition), 0) <= m.kafka_offset);
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
