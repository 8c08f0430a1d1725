-- 76-check.sql: the doctor. msg_check() verifies what must be true of an installation; each part is a function of its own,
-- so that one which the caller may not read is said to be "not looked at", and the others are looked at all the same.

/*
 * msg_check_library(): what only the library knows: its version, whether it was preloaded, the launcher's process, and how many
 * of msgsys.max_channels are taken.
 */
CREATE FUNCTION @extschema@.msg_check_library(OUT version text, OUT preloaded boolean, OUT launcher integer, OUT channels integer)
RETURNS record AS 'MODULE_PATHNAME', 'msg_check_library' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_check_library IS 'the library''s version, whether it was preloaded, the launcher''s process, and the channels that have a place in shared memory';

/* msg_check_files(): settings whose files or secrets cannot be used, without telling what they are. */
CREATE FUNCTION @extschema@.msg_check_files(OUT setting text, OUT problem text)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'msg_check_files' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_check_files IS 'settings whose files or secrets cannot be used, and why';

/* msg_check_backlog(channel): how many idle messages the counter in shared memory has for a channel. */
CREATE FUNCTION @extschema@.msg_check_backlog(channel text) RETURNS bigint
AS 'MODULE_PATHNAME', 'msg_check_backlog' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION @extschema@.msg_check_backlog IS 'how many messages of a channel wait, by the counter that msgsys.max_backlog is compared with';

/* msg_check_troubles(): what this database's workers know, and no table shows: topics that take no records; acknowledgements that do not count. */
CREATE FUNCTION @extschema@.msg_check_troubles(OUT kind text, OUT stage text, OUT worker integer, OUT topic text, OUT reason text,
	OUT count bigint, OUT since timestamptz, OUT latest timestamptz) RETURNS SETOF record AS 'MODULE_PATHNAME', 'msg_check_troubles' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_check_troubles IS 'troubles that this database''s workers know of and no table shows';

/* Topics that take no records, and what waits for them; acknowledgements that do not count. */
CREATE FUNCTION @extschema@.msg_check_topics(rows bigint)
RETURNS TABLE ("check" text, severity text, count bigint, examples text[], detail text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT 'topic'::text, 'warning'::text, sum(w.n)::bigint, (array_agg(w.channel ORDER BY w.channel))[1:5],
		format('Topic "%s" does not take messages, since %s: %s. %s messages of channels wait for it: %s.', t.topic, date_trunc('second', t.since), t.reason, sum(w.n), string_agg(w.channel, ', ' ORDER BY w.channel)),
		CASE WHEN t.reason ~* 'authoriz' THEN 'Give the user that msgsys connects to Kafka as the rights to describe and write it; see msgsys.kafka_options_file.'
			WHEN t.reason ~* 'unknown topic' THEN 'Make it in Kafka, or name another one with msg_channel_set().'
			WHEN t.reason ~* 'invalid topic' THEN 'Name another one with msg_channel_set().'
			ELSE 'See whether its partitions have leaders, and whether their brokers answer.' END || ' The messages go by themselves once it takes them.'
	FROM (SELECT x.topic, min(x.since) AS since, (array_agg(x.reason ORDER BY x.latest DESC))[1] AS reason FROM @extschema@.msg_check_troubles() x WHERE x.kind = 'topic' GROUP BY x.topic) t
		CROSS JOIN LATERAL (SELECT s.channel,
			(SELECT count(*) FROM (SELECT FROM @extschema@.messages m WHERE m.status = 'idle' AND m.channel = s.channel AND t.topic IN (s.topic, a.topic) LIMIT rows) y)
			-- which of the two it is, an attempt before tells
			+ (SELECT count(*) FROM (SELECT FROM @extschema@.messages m WHERE m.status IN ('scheduled', 'retry') AND m.channel = s.channel AND m.due_at <= @extschema@.msg_now()
				AND t.topic IN (CASE WHEN m.status = 'retry' AND s.has_webhook THEN s.topic || '.retry' ELSE s.topic END, a.topic) LIMIT rows) y)
			+ (SELECT count(*) FROM (SELECT FROM @extschema@.messages m WHERE m.dlq_pending AND m.channel = s.channel AND t.topic = s.topic || '.dlq' LIMIT rows) y) AS n
			FROM @extschema@.msg_channel_settings s CROSS JOIN LATERAL (SELECT CASE WHEN s.ack = 'topic' THEN current_setting('msgsys.acks_topic', true) END AS topic) a
			WHERE s.topic IS NOT NULL AND t.topic IN (s.topic, s.topic || '.retry', s.topic || '.dlq', a.topic)) w
	WHERE w.n > 0 GROUP BY t.topic, t.since, t.reason;
	RETURN QUERY
	SELECT 'token'::text, 'warning'::text, sum(x.count)::bigint, array_agg(DISTINCT x.topic),
		format('Acknowledgements did not count: they have %s. The first came at %s, the latest at %s.', string_agg(DISTINCT x.reason, ', '), date_trunc('second', min(x.since)), date_trunc('second', max(x.latest))),
		'Have consumers copy the record''s header msgsys-stamp into the acknowledgement as token, or set msgsys.ack_token to off; where these are not your consumers'', close the topic to others.'::text
	FROM @extschema@.msg_check_troubles() x WHERE x.kind = 'acknowledgements' AND x.latest > clock_timestamp() - interval '1 day' HAVING count(*) > 0;
END $$;
COMMENT ON FUNCTION @extschema@.msg_check_topics IS 'part of msg_check(): topics that take no records, acknowledgements that do not count';

/* Who acts on what is unfinished, and whether he does: messages that nobody takes, and those that wait while a worker idles. */
CREATE FUNCTION @extschema@.msg_check_unfinished(rows bigint)
RETURNS TABLE ("check" text, severity text, count bigint, examples text[], detail text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
	-- twice the time within which a sweep finds what no note told of
	margin constant interval := 2 * coalesce(current_setting('msgsys.sweep_interval', true), '60s')::interval + interval '5 s';
	-- the epochs whose messages are sent here; others came from another installation, and are its affair
	ours constant integer[] := ARRAY(SELECT n.epoch FROM @extschema@.msg_names n, pg_control_system() c, pg_database d WHERE d.datname = current_database() AND NOT n.theirs
		AND n.system_identifier = c.system_identifier AND n.database_oid = d.oid AND n.identity = coalesce(current_setting('msgsys.identity', true), ''));
	-- channels that wait for a topic, which msg_check_topics() tells of
	held constant text[] := ARRAY(SELECT s.channel FROM @extschema@.msg_check_troubles() x JOIN @extschema@.msg_channel_settings s ON x.topic IN (s.topic, s.topic || '.retry', s.topic || '.dlq')
		OR s.ack = 'topic' AND x.topic = current_setting('msgsys.acks_topic', true) WHERE x.kind = 'topic');
	l record;
	late bigint[];
	due timestamptz;
	at timestamptz;
	moved timestamptz;
BEGIN
	RETURN QUERY
	SELECT 'nobody'::text, n.severity, c.count, ARRAY[n.first_id::text],
		format('Messages of channel "%s" are unfinished (%s), and nobody acts on them: %s.', n.channel, n.waits, n.reason), n.hint
	FROM @extschema@.msg_unreachable_channels n, LATERAL (SELECT CASE n.waits
		WHEN 'idle' THEN (SELECT count(*) FROM (SELECT FROM @extschema@.messages m WHERE m.channel = n.channel AND m.status = 'idle' LIMIT rows) x)
		WHEN 'due' THEN (SELECT count(*) FROM (SELECT FROM @extschema@.messages m WHERE m.channel = n.channel AND m.status IN ('scheduled', 'retry') LIMIT rows) x)
		WHEN 'sent' THEN (SELECT count(*) FROM (SELECT FROM @extschema@.messages m WHERE m.channel = n.channel AND m.status = 'sent' AND m.finished_at IS NULL LIMIT rows) x)
		WHEN 'received' THEN (SELECT count(*) FROM (SELECT FROM @extschema@.messages m WHERE m.channel = n.channel AND m.status = 'received' AND m.finished_at IS NULL LIMIT rows) x)
		ELSE (SELECT count(*) FROM (SELECT FROM @extschema@.messages m WHERE m.channel = n.channel AND m.dlq_pending LIMIT rows) x) END) c(count);

	-- Waiting, while whoever takes it idles. What holds a channel back on purpose is left out: a pause, an open breaker, a key that
	-- waits, a rate or pace by which the channel moves; and what came only just: a resume, a change, a start, a row that a transaction holds.
	FOR l IN
		WITH nobody AS MATERIALIZED (SELECT n.channel, n.waits FROM @extschema@.msg_unreachable_channels n)
		SELECT v.channel, v.waits, v.first_id, k.idle, k.workers, k.last_error, s.topic, s.ack, s.resend_after, x.stage, p.next_at, p.channel IS NOT NULL AS paced,
			x.stage = 'webhook' AND w.ordered AS ordered, CASE WHEN x.stage = 'webhook' THEN w.rate END AS rate,
			CASE WHEN x.stage = 'webhook' THEN w.timeout ELSE '0' END AS timeout
		FROM @extschema@.msg_unfinished v JOIN @extschema@.msg_channel_settings s ON s.channel = v.channel
			LEFT JOIN @extschema@.msg_webhook_settings w ON w.channel = v.channel
			LEFT JOIN @extschema@.msg_paces p ON p.channel = v.channel AND v.waits IN ('idle', 'due')
			CROSS JOIN LATERAL (SELECT CASE WHEN v.waits = 'sent' THEN 'receiver' WHEN v.waits = 'received' OR s.topic IS NULL AND v.waits <> 'dead letter' THEN 'webhook' ELSE 'relay' END AS stage) x
			CROSS JOIN LATERAL (SELECT bool_and(k.state = 'idle') AS idle, bool_and(k.state IN ('idle', 'busy') AND k.started_at < clock_timestamp() - margin) AS at_work, count(*) AS workers,
					(array_agg(k.last_error ORDER BY k.last_error_at DESC) FILTER (WHERE k.last_error <> '' AND k.error_over_at IS NULL))[1] AS last_error
				FROM @extschema@.msg_worker_slots() k WHERE k.database = current_database() AND k.stage = x.stage) k
		WHERE NOT EXISTS (SELECT FROM nobody n WHERE n.channel = v.channel AND n.waits = v.waits)
			-- said by its topic
			AND NOT (x.stage = 'relay' AND v.channel = ANY (held))
			AND NOT EXISTS (SELECT FROM @extschema@.msg_pauses q WHERE q.channel IN ('*', v.channel))
			AND NOT EXISTS (SELECT FROM @extschema@.msg_pause_log q WHERE q.channel IN ('*', v.channel) AND q.at > clock_timestamp() - margin)
			AND NOT EXISTS (SELECT FROM @extschema@.msg_breakers b WHERE b.channel = v.channel)
			AND NOT EXISTS (SELECT FROM @extschema@.msg_channels c WHERE c.channel = v.channel AND c.updated_at > clock_timestamp() - margin)
			AND NOT EXISTS (SELECT FROM @extschema@.msg_webhooks c WHERE c.channel = v.channel AND c.updated_at > clock_timestamp() - margin)
			AND NOT p.updated_at > clock_timestamp() - margin IS TRUE
			AND (v.waits <> 'sent' OR s.ack = 'readback')
			AND k.at_work
	LOOP
		due := @extschema@.msg_now() - margin;
		at := clock_timestamp() - margin - l.timeout;
		-- while a worker is busy a message may wait for its turn; but not where later ones of its channel went long ago
		CONTINUE WHEN NOT l.idle AND (l.waits <> 'idle' OR l.paced OR l.ordered OR l.rate IS NOT NULL OR NOT EXISTS (
			SELECT FROM @extschema@.messages m, LATERAL (SELECT * FROM @extschema@.messages e WHERE e.id > m.id ORDER BY e.id LIMIT 2500) e
			WHERE m.id = l.first_id AND e.channel = l.channel AND (l.workers = 1 OR e.message_key = m.message_key)
				AND CASE l.stage WHEN 'relay' THEN e.sent_at ELSE e.delivered_at END < at));
		-- a pace whose next run is to come, unless one is under way
		CONTINUE WHEN l.next_at > due AND NOT EXISTS (SELECT FROM @extschema@.msg_runs r WHERE r.channel = l.channel AND r.finished_at IS NULL);
		-- where not all may go at once: whether what came before them went just now
		IF l.paced OR l.rate IS NOT NULL THEN
			SELECT max(greatest(m.sent_at, m.received_at, m.delivered_at, m.finished_at, CASE WHEN m.status = 'retry' THEN m.due_at END)) INTO moved
			FROM (SELECT * FROM @extschema@.messages e WHERE e.id <= l.first_id + 2500 ORDER BY e.id DESC LIMIT 5000) m WHERE m.channel = l.channel;
			SELECT greatest(moved, max(r.started_at), max(r.finished_at)) INTO moved FROM @extschema@.msg_runs r WHERE r.channel = l.channel;
			CONTINUE WHEN moved > least(at, due) - coalesce(interval '1 s' / l.rate, '0');
		END IF;
		SELECT array_agg(m.id ORDER BY m.id) INTO late FROM (
			(SELECT m.id, m.xmax, m.message_key, m.epoch FROM @extschema@.messages m WHERE l.waits = 'idle' AND m.status = 'idle' AND m.channel = l.channel AND m.created_at < at
				AND (l.idle OR m.id = l.first_id) LIMIT 1000)
			UNION ALL (SELECT m.id, m.xmax, m.message_key, m.epoch FROM @extschema@.messages m WHERE l.waits = 'due' AND m.status IN ('scheduled', 'retry') AND m.channel = l.channel AND m.due_at < due LIMIT 1000)
			UNION ALL (SELECT m.id, m.xmax, m.message_key, m.epoch FROM @extschema@.messages m WHERE l.waits = 'sent' AND m.status = 'sent' AND m.finished_at IS NULL AND m.channel = l.channel AND m.sent_at < at LIMIT 1000)
			UNION ALL (SELECT m.id, m.xmax, m.message_key, m.epoch FROM @extschema@.messages m WHERE l.waits = 'received' AND m.status = 'received' AND m.finished_at IS NULL AND m.channel = l.channel AND m.received_at < at LIMIT 1000)
			UNION ALL (SELECT m.id, m.xmax, m.message_key, m.epoch FROM @extschema@.messages m WHERE l.waits = 'dead letter' AND m.dlq_pending AND m.channel = l.channel AND m.finished_at < at LIMIT 1000)) m
		WHERE m.epoch = ANY (ours) AND (m.xmax = '0'::xid OR NOT EXISTS (SELECT FROM pg_locks k WHERE k.locktype = 'transactionid' AND k.transactionid = m.xmax AND k.mode = 'ExclusiveLock'))
			-- an ordered key waits for the first of its messages that is tried again
			AND (NOT l.ordered OR m.message_key IS NULL OR NOT EXISTS (
				SELECT FROM (SELECT e.message_key, e.id FROM @extschema@.messages e WHERE e.status IN ('scheduled', 'retry') AND (e.status = 'retry' OR e.attempts > 0) AND e.channel = l.channel
					UNION ALL SELECT e.message_key, e.id FROM @extschema@.messages e WHERE e.status = 'sent' AND e.finished_at IS NULL AND e.attempts > 1 AND e.channel = l.channel
					UNION ALL SELECT e.message_key, e.id FROM @extschema@.messages e WHERE e.status = 'received' AND e.finished_at IS NULL AND e.attempts > 1 AND e.channel = l.channel) h
				WHERE h.message_key IS NOT NULL GROUP BY h.message_key HAVING h.message_key = m.message_key AND min(h.id) <> m.id));
		IF late IS NOT NULL THEN
			"check" := CASE l.waits WHEN 'sent' THEN 'not-read-back' ELSE 'waiting' END;
			severity := 'warning';
			count := cardinality(late);
			examples := late[1:5]::text[];
			detail := format('Messages of channel "%s" wait (%s) for longer than %s, while %s.', l.channel, l.waits, margin,
				CASE WHEN l.idle THEN format('every %s worker is idle', l.stage) ELSE 'later ones have gone' END)
				|| coalesce(format(' The latest error of a %s worker: ', l.stage) || nullif(l.last_error, '') || '.', '');
			hint := CASE WHEN l.waits = 'sent' THEN 'Their records may be gone from the topic (retention, compaction, a deleted topic): set resend_after with msg_channel_set() to send them again.'
				WHEN l.stage = 'relay' THEN 'Look again: it may be work under way. If they stay and the error names their topic, make it in Kafka, or name another with msg_channel_set();'
					|| ' otherwise restart that worker with pg_terminate_backend().'
				ELSE 'Look again: it may be work under way. If they stay, see last_error in msg_workers and restart that worker with pg_terminate_backend().' END;
			RETURN NEXT;
		END IF;
	END LOOP;

	RETURN QUERY
	SELECT 'not-ours'::text, 'info'::text, count(*), (array_agg(x.id::text ORDER BY x.id))[1:5], 'Messages came from another installation, by replication or a restore, and are not sent here.'::text,
		'Call msg_adopt() if it is gone, or shall not send them.'::text
	FROM ((SELECT m.id, m.epoch FROM @extschema@.messages m WHERE m.status = 'idle' LIMIT rows)
		UNION ALL (SELECT m.id, m.epoch FROM @extschema@.messages m WHERE m.status IN ('scheduled', 'retry') LIMIT rows)) x WHERE x.epoch <> ALL (ours) HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'paused'::text, 'info'::text, count(*), array_agg(p.channel ORDER BY p.channel), 'Channels are paused for more than a day.'::text,
		'Call msg_resume() if that is not meant any more.'::text
	FROM @extschema@.msg_pauses p WHERE p.paused_at < clock_timestamp() - interval '1 day' HAVING count(*) > 0;
END $$;
COMMENT ON FUNCTION @extschema@.msg_check_unfinished IS 'part of msg_check(): who acts on each unfinished message, and whether he does';

/* Rows of messages against the rules of their status, and against their channel. */
CREATE FUNCTION @extschema@.msg_check_messages(rows bigint)
RETURNS TABLE ("check" text, severity text, count bigint, examples text[], detail text, hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
	blocks constant float8 := greatest(pg_relation_size('@extschema@.messages') / current_setting('block_size')::bigint, 1);
	-- a block has some dozens of rows
	percent constant real := CASE WHEN rows IS NULL THEN 100 ELSE least(100, 100 * (rows / 20) / blocks) END;
	-- the live rows by their indexes, where not all rows are looked at
	walk constant bigint := CASE WHEN percent >= 100 THEN 0 ELSE rows END;
BEGIN
	RETURN QUERY
	WITH seen AS MATERIALIZED (
		SELECT m.id, m.status, m.channel, m.attempts, m.due_at, m.sent_at, m.received_at, m.delivered_at, m.finished_at, m.dlq_pending
		FROM @extschema@.messages m TABLESAMPLE SYSTEM (percent)
		UNION ALL (SELECT m.id, m.status, m.channel, m.attempts, m.due_at, m.sent_at, m.received_at, m.delivered_at, m.finished_at, m.dlq_pending
			FROM @extschema@.messages m ORDER BY m.id DESC LIMIT walk)
		UNION ALL (SELECT m.id, m.status, m.channel, m.attempts, m.due_at, m.sent_at, m.received_at, m.delivered_at, m.finished_at, m.dlq_pending
			FROM @extschema@.messages m WHERE m.status = 'idle' LIMIT walk)
		UNION ALL (SELECT m.id, m.status, m.channel, m.attempts, m.due_at, m.sent_at, m.received_at, m.delivered_at, m.finished_at, m.dlq_pending
			FROM @extschema@.messages m WHERE m.status IN ('scheduled', 'retry') LIMIT walk)
		UNION ALL (SELECT m.id, m.status, m.channel, m.attempts, m.due_at, m.sent_at, m.received_at, m.delivered_at, m.finished_at, m.dlq_pending
			FROM @extschema@.messages m WHERE m.status = 'sent' AND m.finished_at IS NULL LIMIT walk)
		UNION ALL (SELECT m.id, m.status, m.channel, m.attempts, m.due_at, m.sent_at, m.received_at, m.delivered_at, m.finished_at, m.dlq_pending
			FROM @extschema@.messages m WHERE m.status = 'received' AND m.finished_at IS NULL LIMIT walk)
		UNION ALL (SELECT m.id, m.status, m.channel, m.attempts, m.due_at, m.sent_at, m.received_at, m.delivered_at, m.finished_at, m.dlq_pending
			FROM @extschema@.messages m WHERE m.dlq_pending LIMIT walk)),
	broken AS (
		SELECT DISTINCT s.id, b.name, b.severity, b.words, b.hint
		FROM seen s LEFT JOIN @extschema@.msg_channel_settings c ON c.channel = s.channel CROSS JOIN LATERAL (VALUES
			(s.status IN ('delivered', 'dead', 'cancelled', 'expired') AND s.finished_at IS NULL, 'unfinished-end', 'error',
				'Messages have a final status but no finished_at: retention never takes them.', 'Set finished_at.'),
			(s.status IN ('scheduled', 'idle', 'retry') AND s.finished_at IS NOT NULL, 'finished-waiting', 'error',
				'Messages wait to be sent and have a finished_at.', 'Set finished_at to null, or cancel them.'),
			(s.status IN ('scheduled', 'retry') AND s.due_at IS NULL, 'no-due-time', 'error',
				'Messages wait for their time but have no due_at: no worker ever takes them.', 'Call msg_reschedule().'),
			(s.status = 'idle' AND (s.attempts > 0 OR s.sent_at IS NOT NULL OR s.received_at IS NOT NULL OR s.delivered_at IS NOT NULL), 'idle-tried', 'warning',
				'Messages are idle, as if new, but were tried before.', 'Use msg_retry() to send a message again.'),
			(s.status = 'sent' AND s.sent_at IS NULL, 'no-sent-time', 'error', 'Messages are sent but have no sent_at: resend_after never takes them.', 'Set sent_at.'),
			(s.status = 'received' AND s.received_at IS NULL, 'no-received-time', 'error', 'Messages are received but have no received_at.', 'Set received_at.'),
			(s.status = 'delivered' AND s.delivered_at IS NULL, 'no-delivered-time', 'error', 'Messages are delivered but have no delivered_at.', 'Set delivered_at.'),
			(s.dlq_pending AND s.status <> 'dead', 'dead-letter-alive', 'error', 'Messages that are not dead are to be written to the dead letter topic.', 'Set dlq_pending to null.'),
			(s.attempts < 0, 'attempts', 'error', 'Messages have a negative number of attempts.', 'Set attempts to 0.'),
			(s.status = 'retry' AND s.attempts >= c.max_attempts, 'last-attempt', 'info',
				'Messages have used all attempts that their channel allows now: the next is their last.', 'Raise max_attempts with msg_channel_set() if they shall have more.')
			) b(wrong, name, severity, words, hint)
		WHERE b.wrong)
	SELECT b.name::text, b.severity::text, count(*), (array_agg(b.id ORDER BY b.id))[1:5]::text[], b.words::text, b.hint::text
	FROM broken b GROUP BY b.name, b.severity, b.words, b.hint;
	IF percent < 100 THEN
		RETURN QUERY SELECT 'sampled'::text, 'info'::text, rows, NULL::text[],
			format('Only a sample of messages was looked at: %s rows of each kind that waits, the newest ones, and %s %% of the others.', rows, round(percent::numeric, 2)),
			'Call msg_check(full => true) to look at all.'::text;
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_check_messages IS 'part of msg_check(): statuses against timestamps, messages against their channels';

/* The processes: one for each seat, the launcher, the library. */
CREATE FUNCTION @extschema@.msg_check_workers(rows bigint)
RETURNS TABLE ("check" text, severity text, count bigint, examples text[], detail text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
	library record;
	here constant text := current_database();
	installed constant text := (SELECT extversion FROM pg_extension WHERE extname = 'msgsys');
	listed boolean;
BEGIN
	SELECT * INTO library FROM @extschema@.msg_check_library();
	IF library.version <> installed THEN
		RETURN QUERY SELECT 'version'::text, 'error'::text, 1::bigint, NULL::text[],
			format('The library is version %s, the extension in this database %s.', library.version, installed),
			'Restart the server with the newer library, and call ALTER EXTENSION msgsys UPDATE.'::text;
	END IF;
	IF NOT library.preloaded THEN
		RETURN QUERY SELECT 'not-preloaded'::text, 'warning'::text, 1::bigint, NULL::text[],
			'The library is not preloaded: there are no workers, and messages wait.'::text,
			'Add msgsys to shared_preload_libraries, and restart the server.'::text;
		RETURN;
	END IF;
	-- a standby has workers once it is promoted
	IF pg_is_in_recovery() THEN
		RETURN;
	END IF;
	listed := here = ANY (SELECT btrim(n, ' "') FROM unnest(string_to_array(current_setting('msgsys.databases', true), ',')) n);
	IF library.launcher IS NULL THEN
		RETURN QUERY SELECT 'no-launcher'::text, 'error'::text, 1::bigint, NULL::text[], 'The launcher does not run: a worker that ends is not started again.'::text,
			'It is started again within seconds; if not, see the server''s log and max_worker_processes.'::text;
	END IF;
	IF NOT listed THEN
		RETURN QUERY SELECT 'not-listed'::text, 'warning'::text, 1::bigint, NULL::text[], format('Nobody works on this database: "%s" is not in msgsys.databases.', here),
			'Add it there, and reload the configuration.'::text;
	ELSIF library.launcher IS NOT NULL THEN
		RETURN QUERY SELECT 'no-seat'::text, 'error'::text, count(*), array_agg(format('%s %s', s.stage, s.worker) ORDER BY s.stage, s.worker), 'There is no place for workers of this database.'::text,
			'See the server''s log; raise msgsys.max_databases if msgsys.databases has more names, and restart the server.'::text
		FROM (SELECT t.stage, generate_series(0, t.workers - 1) AS worker FROM (VALUES ('scheduler', 1), ('relay', current_setting('msgsys.relay_workers')::integer),
			('receiver', current_setting('msgsys.receiver_workers')::integer), ('webhook', current_setting('msgsys.webhook_workers')::integer)) t(stage, workers)) s
		WHERE NOT EXISTS (SELECT FROM @extschema@.msg_worker_slots() k WHERE k.database = here AND k.stage = s.stage AND k.worker = s.worker) HAVING count(*) > 0;
		-- the scheduler says which stages the channels need, and the launcher starts these
		RETURN QUERY SELECT 'not-started'::text, 'error'::text, count(*), array_agg(n.stage ORDER BY n.stage), 'Channels need workers of these stages, but they are not started.'::text,
			'See the scheduler''s last_error in msg_workers; restart it with pg_terminate_backend().'::text
		FROM (SELECT DISTINCT x.stage FROM @extschema@.msg_channel_settings s JOIN @extschema@.msg_channels c USING (channel) LEFT JOIN @extschema@.msg_webhooks w USING (channel),
				LATERAL (VALUES ('relay', s.topic IS NOT NULL), ('receiver', s.ack <> 'none' AND (s.topic IS NOT NULL OR s.former_topics IS NOT NULL)), ('webhook', s.has_webhook)) x(stage, needed)
			WHERE x.needed AND greatest(c.updated_at, w.updated_at) < clock_timestamp() - interval '10 s') n
		WHERE EXISTS (SELECT FROM @extschema@.msg_worker_slots() k WHERE k.database = here AND k.stage = 'scheduler' AND k.started_at < clock_timestamp() - interval '10 s')
			AND (SELECT bool_or(k.state = 'not needed') FROM @extschema@.msg_worker_slots() k WHERE k.database = here AND k.stage = n.stage) HAVING count(*) > 0;
	END IF;
	RETURN QUERY
	SELECT t.name, t.severity, count(*), array_agg(format('%s %s', k.stage, k.worker) ORDER BY k.stage, k.worker),
		t.words || coalesce(' The latest error: ' || (array_agg(k.last_error ORDER BY k.last_error_at DESC) FILTER (WHERE k.last_error <> '' AND k.error_over_at IS NULL))[1] || '.', ''), t.hint
	FROM @extschema@.msg_worker_slots() k JOIN (VALUES
		('stopped', 'worker-stopped', 'warning', 'Workers have ended, and are started again after a pause.', 'See their last_error in msg_workers, and the server''s log.'),
		('no worker slot', 'no-process', 'error', 'Workers cannot be started: no process is left for them.', 'Raise max_worker_processes, and restart the server.'),
		('no database', 'no-database', 'error', 'A database of msgsys.databases does not exist, or takes no connections.', 'Make it, or take it out of msgsys.databases.'),
		('extension absent', 'extension-absent', 'warning', 'Workers do not see the extension in this database.', 'Look again in a moment: they may have just been started.'),
		('broker settings wrong', 'broker-settings', 'error', 'The settings of the Kafka client cannot be used, so nothing is sent or read.',
			'Put msgsys.kafka_brokers, msgsys.kafka_options or msgsys.kafka_options_file right, and reload the configuration.'),
		('broker down', 'broker-down', 'warning', 'Kafka does not answer.',
			'See whether msgsys.kafka_brokers is right, whether this server can reach those brokers and the addresses that they advertise, and whether they want another protocol or password (msgsys.kafka_options).')
	) t(state, name, severity, words, hint) ON t.state = k.state
	WHERE k.database = here GROUP BY t.name, t.severity, t.words, t.hint;
	RETURN QUERY
	SELECT 'two-workers'::text, 'error'::text, count(*), array_agg(d.seat ORDER BY d.seat), 'Seats have more than one worker: messages are sent twice, and order by key breaks.'::text,
		'End the surplus processes with pg_terminate_backend().'::text
	FROM (SELECT format('%s %s', k.stage, k.worker) AS seat FROM @extschema@.msg_worker_slots() k WHERE k.database = here GROUP BY k.stage, k.worker HAVING count(*) > 1
		UNION
		-- processes that no slot knows; the type of others' processes is shown to those alone who may see statistics
		SELECT format('%s, process %s', a.backend_type, a.pid) FROM pg_stat_activity a
		WHERE a.datname = here AND a.backend_type ~ '^msgsys (relay|receiver|webhook|scheduler|http)$' AND a.backend_start < clock_timestamp() - interval '5 s'
			AND NOT EXISTS (SELECT FROM @extschema@.msg_worker_slots() k WHERE k.pid = a.pid)
			-- a process that is ending has given its slot back
			AND a.state IS NOT NULL) d
	HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'no-such-process'::text, 'error'::text, count(*), array_agg(format('%s %s', k.stage, k.worker)), 'Workers'' processes are gone, and nobody noticed.'::text,
		'Restart the server.'::text
	FROM @extschema@.msg_worker_slots() k
	WHERE k.database = here AND k.pid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = k.pid) HAVING count(*) > 0;
	IF library.channels >= current_setting('msgsys.max_channels')::integer THEN
		RETURN QUERY SELECT 'max-channels'::text, 'warning'::text, library.channels::bigint, NULL::text[],
			format('All %s places of msgsys.max_channels are taken: each commit in another channel costs a sweep.', library.channels),
			'Raise msgsys.max_channels, and restart the server.'::text;
	END IF;
	IF coalesce(current_setting('msgsys.max_backlog', true), '0') <> '0' THEN
		RETURN QUERY
		SELECT 'backlog-counter'::text, 'info'::text, count(*), array_agg(d.channel ORDER BY d.channel), 'The counter of waiting messages, by which channels are full, differs from the table by more than a tenth.'::text,
			'It is counted again once a minute.'::text
		FROM (SELECT s.channel, @extschema@.msg_check_backlog(s.channel) AS counted, n.is
			FROM @extschema@.msg_channel_settings s, LATERAL (SELECT count(*) AS is FROM (SELECT FROM @extschema@.messages m
				WHERE m.status = 'idle' AND m.channel = s.channel LIMIT least(rows, 2 * current_setting('msgsys.max_backlog')::bigint)) x) n) d
		WHERE d.is < coalesce(rows, d.is + 1) AND abs(d.counted - d.is) > greatest(10, current_setting('msgsys.max_backlog')::bigint / 10) HAVING count(*) > 0;
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_check_workers IS 'part of msg_check(): the processes, and what they share';

/* Settings that cannot work, or not with each other. */
CREATE FUNCTION @extschema@.msg_check_settings(rows bigint)
RETURNS TABLE ("check" text, severity text, count bigint, examples text[], detail text, hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
	databases constant text[] := ARRAY(SELECT btrim(n, ' "') FROM unnest(string_to_array(coalesce(current_setting('msgsys.databases', true), ''), ',')) n WHERE btrim(n, ' "') <> '');
	http constant boolean := coalesce(current_setting('msgsys.http_listen', true), '') <> '';
	http_role constant text := coalesce(current_setting('msgsys.http_role', true), '');
	anonymous constant text := coalesce(current_setting('msgsys.http_anonymous_role', true), '');
	http_database constant text := coalesce(nullif(current_setting('msgsys.http_database', true), ''), databases[1]);
	worker constant text := coalesce(current_setting('msgsys.role', true), '');
	acks constant text := coalesce(current_setting('msgsys.acks_topic', true), '');
	seats integer;
BEGIN
	-- a process for the launcher and for each seat that is needed now; on a standby none is, but for HTTP
	seats := 1 + (SELECT count(*) FROM @extschema@.msg_worker_slots() k WHERE k.state NOT IN ('not needed', 'no database', 'standby'));
	RETURN QUERY
	SELECT 'setting'::text, v.severity::text, 1::bigint, ARRAY[v.setting]::text[], v.words::text, v.hint::text
	FROM (VALUES
		(EXISTS (SELECT FROM unnest(databases) n WHERE NOT EXISTS (SELECT FROM pg_database d WHERE d.datname = n AND d.datallowconn)), 'error', 'msgsys.databases',
			'It names databases that do not exist or take no connections: ' || array_to_string(ARRAY(SELECT n FROM unnest(databases) n
				WHERE NOT EXISTS (SELECT FROM pg_database d WHERE d.datname = n AND d.datallowconn)), ', ') || '.', 'Make them, or take them out.'),
		(cardinality(databases) > coalesce(current_setting('msgsys.max_databases', true), '256')::integer, 'error', 'msgsys.databases',
			'It has more names than msgsys.max_databases allows: the last ones have no workers.', 'Raise msgsys.max_databases, and restart the server.'),
		(seats > current_setting('max_worker_processes')::integer, 'warning', 'max_worker_processes',
			format('msgsys needs %s processes, but only %s are allowed.', seats, current_setting('max_worker_processes')),
			'Raise it, and restart the server.'),
		(current_setting('max_worker_processes')::integer BETWEEN seats AND seats + least(current_setting('max_parallel_workers_per_gather')::integer, current_setting('max_parallel_workers')::integer) - 1,
			'info', 'max_worker_processes', format('msgsys needs %s processes of %s: a parallel query may find fewer than it may use.', seats, current_setting('max_worker_processes')),
			'Raise it, and restart the server.'),
		(current_setting('msgsys.sweep_interval', true)::interval < current_setting('msgsys.poll_interval', true)::interval, 'info', 'msgsys.sweep_interval',
			'It is shorter than msgsys.poll_interval, which then decides.', 'Let it be the longer of both.'),
		(current_setting('msgsys.clock_offset', true)::interval <> '0', 'info', 'msgsys.clock_offset', 'The clock of messages is not that of the system.', 'Reset it, unless this is a rehearsal.'),
		(worker <> '' AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = worker), 'error', 'msgsys.role', 'There is no such role: no worker can connect.', 'Make it, and call msg_grant(role, ''worker'').'),
		(worker <> '' AND EXISTS (SELECT FROM pg_roles r WHERE r.rolname = worker AND NOT r.rolcanlogin AND NOT r.rolsuper), 'info', 'msgsys.role', 'The role may not log in; workers do not need that.', 'Nothing needs to be done.'),
		(http AND http_role = '', 'error', 'msgsys.http_role', 'HTTP is to be served, but no role is set for that.', 'Make an ordinary role, call msg_grant(role, ''http''), and set msgsys.http_role to it.'),
		(http_role <> '' AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = http_role), 'error', 'msgsys.http_role', 'There is no such role.', 'Make an ordinary role, and call msg_grant(role, ''http'').'),
		(http_role <> '' AND EXISTS (SELECT FROM pg_roles r WHERE r.rolsuper AND CASE WHEN EXISTS (SELECT FROM pg_roles h WHERE h.rolname = http_role) THEN pg_has_role(http_role, r.oid, 'MEMBER') END), 'error', 'msgsys.http_role',
			'The role is a superuser or may become one.', 'Use an ordinary role.'),
		(anonymous <> '' AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = anonymous), 'error', 'msgsys.http_anonymous_role', 'There is no such role.', 'Make it, or leave the setting empty.'),
		(anonymous <> '' AND http_role <> '' AND CASE WHEN EXISTS (SELECT FROM pg_roles r WHERE r.rolname = anonymous) AND EXISTS (SELECT FROM pg_roles r WHERE r.rolname = http_role)
				THEN NOT pg_has_role(http_role, anonymous, 'MEMBER') END, 'error', 'msgsys.http_anonymous_role',
			'The role of msgsys.http_role may not become it.', 'GRANT it to the role of msgsys.http_role.'),
		(http AND http_database <> ALL (databases), 'error', 'msgsys.http_database', 'It is none of msgsys.databases: HTTP is not served.', 'Name one of msgsys.databases.'),
		(http AND coalesce(current_setting('msgsys.http_connections_per_peer', true), '0')::integer > coalesce(current_setting('msgsys.http_connections', true), '256')::integer, 'info', 'msgsys.http_connections_per_peer',
			'One address may take all connections.', 'Let it be less than msgsys.http_connections.')
	) v(wrong, severity, setting, words, hint)
	WHERE v.wrong;
	RETURN QUERY SELECT 'setting'::text, 'error'::text, 1::bigint, ARRAY[f.setting], format('What %s says cannot be used: %s.', f.setting, f.problem), 'Put it right, and reload the configuration.'::text
	FROM @extschema@.msg_check_files() f;
	RETURN QUERY
	SELECT 'topic-conflict'::text, 'error'::text, count(*), array_agg(s.channel ORDER BY s.channel), 'Channels write to the topic of acknowledgements, or to one that is another channel''s retries or dead letters.'::text,
		'Give them topics of their own.'::text
	FROM @extschema@.msg_channel_settings s
	WHERE acks IN (s.topic, s.topic || '.retry', s.topic || '.dlq')
		OR EXISTS (SELECT FROM @extschema@.msg_channel_settings o WHERE s.topic IN (o.topic || '.retry', o.topic || '.dlq')) HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'webhook-without-ack'::text, 'error'::text, count(*), array_agg(s.channel ORDER BY s.channel), 'Channels have a topic and a webhook, which waits for an acknowledgement, but ack is none.'::text,
		'Set ack to readback or topic with msg_channel_set().'::text
	FROM @extschema@.msg_channel_settings s WHERE s.topic IS NOT NULL AND s.has_webhook AND s.ack = 'none' HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'orphan-setting'::text, 'warning'::text, count(*), array_agg(o.channel ORDER BY o.channel), 'Webhooks, paces, pauses, subscriptions or rules of retention are for channels that do not exist.'::text,
		'Make the channel with msg_channel_set(), or drop them.'::text
	FROM (SELECT channel FROM @extschema@.msg_webhooks UNION SELECT channel FROM @extschema@.msg_paces UNION SELECT channel FROM @extschema@.msg_pauses
		UNION SELECT channel FROM @extschema@.msg_subscriptions UNION SELECT channel FROM @extschema@.msg_retention) o
	WHERE o.channel <> '*' AND NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings s WHERE s.channel = o.channel) HAVING count(*) > 0;
END $$;
COMMENT ON FUNCTION @extschema@.msg_check_settings IS 'part of msg_check(): settings that cannot work';

/* The extension's objects, by the catalogue. */
CREATE FUNCTION @extschema@.msg_check_objects(rows bigint)
RETURNS TABLE ("check" text, severity text, count bigint, examples text[], detail text, hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
	extension constant oid := (SELECT e.oid FROM pg_extension e WHERE e.extname = 'msgsys');
	owner constant oid := (SELECT e.extowner FROM pg_extension e WHERE e.extname = 'msgsys');
	functions constant oid[] := ARRAY(SELECT d.objid FROM pg_depend d WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e');
	relations constant oid[] := ARRAY(SELECT d.objid FROM pg_depend d WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.classid = 'pg_class'::regclass AND d.deptype = 'e');
	worker constant text := coalesce(current_setting('msgsys.role', true), '');
BEGIN
	RETURN QUERY
	SELECT 'public-rights'::text, 'error'::text, count(*), (array_agg(o.name ORDER BY o.name))[1:5], 'Objects of the extension are open to PUBLIC.'::text,
		'REVOKE ALL ON them FROM PUBLIC; use msg_grant() for single roles.'::text
	FROM (SELECT p.oid::regprocedure::text AS name FROM pg_proc p WHERE p.oid = ANY (functions)
			AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
		UNION ALL SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = ANY (relations) AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 0)
		UNION ALL SELECT format('%s.%I', t.attrelid::regclass, t.attname) FROM pg_attribute t WHERE t.attrelid = ANY (relations) AND t.attacl IS NOT NULL
			AND EXISTS (SELECT FROM aclexplode(t.attacl) a WHERE a.grantee = 0)) o HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'owner'::text, 'error'::text, count(*), (array_agg(o.name ORDER BY o.name))[1:5], 'Objects of the extension belong to another role than the extension.'::text,
		'ALTER … OWNER TO the extension''s owner.'::text
	FROM (SELECT p.oid::regprocedure::text AS name FROM pg_proc p WHERE p.oid = ANY (functions) AND p.proowner <> owner
		UNION ALL SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = ANY (relations) AND c.relowner <> owner) o HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'trigger'::text, 'error'::text, count(*), array_agg(format('%s: %s', t.relation, t.function) ORDER BY t.relation, t.function),
		'Triggers of msgsys are missing or disabled: messages are not checked, workers not woken.'::text, 'ALTER TABLE … ENABLE TRIGGER (ENABLE REPLICA TRIGGER for zz_msgsys_replica); where it is gone, make it again as the install script does.'::text
	FROM (VALUES ('messages', 'msg_message_trigger', 6, 'O'), ('messages', 'msg_message_trigger', 4, 'O'), ('messages', 'msg_message_trigger', 16, 'O'), ('messages', 'msg_content_trigger', 16, 'O'), ('messages', 'msg_truncate_trigger', 32, 'O'),
		('msg_channels', 'msg_config_trigger', 4, 'O'), ('msg_webhooks', 'msg_config_trigger', 4, 'O'), ('msg_webhook_secrets', 'msg_config_trigger', 4, 'O'),
		('msg_pauses', 'msg_config_trigger', 4, 'O'), ('msg_paces', 'msg_config_trigger', 4, 'O'), ('msg_names', 'msg_config_trigger', 16, 'O'),
		('msg_retention', 'msg_schedule_trigger', 4, 'O'), ('msg_mailings', 'msg_schedule_trigger', 4, 'O'), ('msg_clients', 'msg_client_trigger', 6, 'O'),
		('msg_channels', 'msg_config_trigger', 4, 'R'), ('msg_webhooks', 'msg_config_trigger', 4, 'R'), ('msg_webhook_secrets', 'msg_config_trigger', 4, 'R'),
		('msg_pauses', 'msg_config_trigger', 4, 'R'), ('msg_paces', 'msg_config_trigger', 4, 'R'), ('msg_paces', 'msg_config_trigger', 16, 'R'),
		('msg_names', 'msg_config_trigger', 4, 'R'), ('msg_retention', 'msg_schedule_trigger', 4, 'R')) t(relation, function, event, fires)
	WHERE NOT EXISTS (SELECT FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid AND p.oid = ANY (functions) JOIN pg_class c ON c.oid = g.tgrelid AND c.oid = ANY (relations)
		WHERE c.relname = t.relation AND p.proname = t.function AND CASE WHEN t.event IN (4, 6) THEN g.tgtype & 6 = t.event ELSE g.tgtype & t.event <> 0 END AND g.tgenabled IN (t.fires::"char", 'A')) HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'foreign-trigger'::text, v.severity, count(*), array_agg(v.tgname::text ORDER BY v.tgname), v.words, v.hint
	FROM (SELECT g.tgname,
			CASE WHEN g.tgenabled IN ('A', 'R') THEN 'error' WHEN g.tgtype & 7 = 7 AND g.tgname > 'zz_msgsys_insert' THEN 'warning' ELSE 'info' END AS severity,
			CASE WHEN g.tgenabled IN ('A', 'R') THEN 'Triggers on messages that fire for replicas run with the workers'' rights, and may stop them.'
				WHEN g.tgtype & 7 = 7 AND g.tgname > 'zz_msgsys_insert' THEN 'Triggers on messages come after the one of msgsys: what they change is not checked.'
				ELSE 'There are triggers of others on messages; they do not see what workers do.' END AS words,
			CASE WHEN g.tgenabled IN ('A', 'R') THEN 'ALTER TABLE … ENABLE TRIGGER, without ALWAYS or REPLICA.' WHEN g.tgtype & 7 = 7 AND g.tgname > 'zz_msgsys_insert' THEN 'Give them names that come before zz_msgsys_insert.'
				ELSE 'Nothing needs to be done.' END AS hint
		FROM pg_trigger g WHERE g.tgrelid = '@extschema@.messages'::regclass AND NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgfoid <> ALL (functions)) v
	GROUP BY v.severity, v.words, v.hint;
	RETURN QUERY
	SELECT 'rule'::text, 'warning'::text, count(*), array_agg(o.name ORDER BY o.name), 'Tables of msgsys have rules or row-level security of others, which change what its statements do.'::text, 'Take them away.'::text
	FROM (SELECT c.relname || ': ' || r.rulename AS name FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE c.oid = ANY (relations) AND c.relkind IN ('r', 'p')
		UNION ALL SELECT c.relname || ': row-level security' FROM pg_class c WHERE c.oid = ANY (relations) AND (c.relforcerowsecurity OR c.relrowsecurity AND worker <> '')) o HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'index'::text, 'error'::text, count(*), array_agg(n.name ORDER BY n.name), 'Indexes are missing or invalid: claims read the whole table, or what is unique is not.'::text,
		'REINDEX them; where one is gone, make it again as the install script does.'::text
	FROM (SELECT i AS name FROM unnest('{messages_pkey,messages_idle,messages_due,messages_unacknowledged,messages_received,messages_dead_letters,messages_dedup,msg_runs_open,msg_names_pkey,msg_mailings_act,msg_mailing_links_message,msg_attempts_message}'::text[]) i
		WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.relname = i AND c.relnamespace = '@extschema@'::regnamespace AND c.relkind = 'i')
		UNION SELECT c.relname FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
		WHERE x.indrelid = ANY (relations) AND NOT (x.indisvalid AND x.indisready) AND c.relkind = 'i') n HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'unlogged'::text, 'error'::text, count(*), array_agg(c.relname::text ORDER BY c.relname), 'Tables of msgsys are unlogged: a crash empties them.'::text, 'ALTER TABLE … SET LOGGED.'::text
	FROM pg_class c WHERE c.oid = ANY (relations) AND c.relkind = 'r' AND c.relpersistence <> 'p' HAVING count(*) > 0;
	IF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = worker) THEN
		RETURN QUERY
		SELECT 'worker-rights'::text, 'error'::text, count(*), array_agg(t.right || ' on ' || t.name ORDER BY t.name, t.right), 'The role of msgsys.role lacks rights that workers need.'::text,
			format('Call msg_grant(%L, ''worker'').', worker)
		FROM (SELECT 'msg_' || n AS name, r AS right FROM unnest('{channels,webhooks,offsets,paces,runs,mailings}'::text[]) n, unnest('{SELECT,UPDATE}'::text[]) r
			UNION ALL SELECT 'messages', r FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) r
			UNION ALL SELECT 'msg_' || n, 'SELECT' FROM unnest('{webhook_secrets,pauses,retention,clients,channel_settings,webhook_settings}'::text[]) n
			UNION ALL SELECT 'msg_' || n, 'INSERT' FROM unnest('{attempts,breakers,archive,mailing_links}'::text[]) n) t
		WHERE NOT has_table_privilege(worker, ('@extschema@.' || t.name)::regclass, t.right) HAVING count(*) > 0;
	END IF;
	RETURN QUERY
	SELECT 'archive'::text, 'error'::text, count(*), array_agg(o.name ORDER BY o.name), 'The archive cannot take messages: its columns or partitions are not as they must be.'::text,
		'Give it the columns of messages in their order, and each partition the extension''s owner and a primary key.'::text
	FROM (SELECT coalesce(a.attname, b.attname)::text AS name
		FROM (SELECT row_number() OVER (ORDER BY t.attnum) AS n, t.attname, t.atttypid FROM pg_attribute t WHERE t.attrelid = '@extschema@.messages'::regclass AND t.attnum > 0 AND NOT t.attisdropped) a
			FULL JOIN (SELECT row_number() OVER (ORDER BY t.attnum) AS n, t.attname, t.atttypid FROM pg_attribute t WHERE t.attrelid = '@extschema@.msg_archive'::regclass AND t.attnum > 0 AND NOT t.attisdropped) b USING (n)
		WHERE (a.attname, a.atttypid) IS DISTINCT FROM (b.attname, b.atttypid)
		UNION ALL SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = '@extschema@.msg_archive'::regclass AND (c.relowner <> owner OR NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary AND x.indisvalid))) o
	HAVING count(*) > 0;
END $$;
COMMENT ON FUNCTION @extschema@.msg_check_objects IS 'part of msg_check(): the extension''s objects, their rights and owners';

/* What stands in the tables beside messages. */
CREATE FUNCTION @extschema@.msg_check_tables(rows bigint)
RETURNS TABLE ("check" text, severity text, count bigint, examples text[], detail text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
	i record;
BEGIN
	SELECT count(*) AS n, bool_and(x.system_identifier = s.system_identifier) AS server, bool_and(x.database_oid = d.oid) AS database,
		bool_and(x.identity = coalesce(current_setting('msgsys.identity', true), '')) AS identity, bool_or(x.restored_at IS NOT NULL) AS held,
		-- what is held and fits here began elsewhere: a copy's files are others
		bool_or(EXISTS (SELECT FROM @extschema@.msg_names e, @extschema@.msg_names o WHERE e.epoch = x.epoch AND o.held_at IS NOT NULL AND o.place <> e.place
			AND (o.system_identifier, o.database_oid, o.identity) = (x.system_identifier, x.database_oid, x.identity))) AS directory,
		bool_or(EXISTS (SELECT FROM @extschema@.msg_names o WHERE (o.system_identifier, o.database_oid) <> (s.system_identifier, d.oid) AND NOT o.theirs)) AS restored
	INTO i FROM @extschema@.msg_installation x, pg_control_system() s, pg_database d WHERE d.datname = current_database();
	IF i.n <> 1 THEN
		RETURN QUERY SELECT 'installation'::text, 'error'::text, i.n::bigint, NULL::text[], 'msg_names has no row: the names of messages are lost, and nothing that is there is sent.'::text,
			'Put its rows back from a backup; or have messages named anew with msg_adopt(''lives'').'::text;
	ELSIF NOT (i.server AND i.database AND i.identity) OR i.held THEN
		RETURN QUERY SELECT 'copy'::text, 'error'::text, 1::bigint, NULL::text[],
			CASE WHEN i.directory THEN 'This is a copy of a data directory whose original goes on' WHEN i.restored THEN 'Messages were restored from another installation'
				ELSE 'This is a copy of another installation, by msgsys.identity' END || ': nothing is sent until msg_adopt().',
			'If it shall send, say what became of the other one: msg_adopt(''gone'') or msg_adopt(''lives'').'::text;
	END IF;
	RETURN QUERY
	SELECT 'lost-tail'::text, 'info'::text, sum(n.lost_records)::bigint, (array_agg(n.uuid::text ORDER BY n.lost_last_at DESC))[1:5],
		'Kafka has records that no message stands for: a failover or a restore lost these messages here.'::text, 'Their consumers have them; see msg_names.'::text
	FROM @extschema@.msg_names n WHERE n.lost_records > 0 HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'open-run'::text, 'error'::text, count(*), array_agg(r.channel ORDER BY r.channel), 'Runs are under way in channels that have no pace any more: nobody ends them.'::text,
		'Call msg_pace_drop(channel).'::text
	FROM @extschema@.msg_runs r WHERE r.finished_at IS NULL AND NOT EXISTS (SELECT FROM @extschema@.msg_paces p WHERE p.channel = r.channel) HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'long-run'::text, 'info'::text, count(*), array_agg(r.channel ORDER BY r.channel), 'Runs are under way for more than a day.'::text, 'See their error in msg_runs, and msg_breakers.'::text
	FROM @extschema@.msg_runs r WHERE r.finished_at IS NULL AND r.started_at < @extschema@.msg_now() - interval '1 day' HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'mailing-link'::text, 'error'::text, count(*), array_agg(DISTINCT l.mailing_id::text), 'Messages are linked to mailings that do not exist.'::text, 'Delete these rows of msg_mailing_links.'::text
	FROM (SELECT k.mailing_id FROM @extschema@.msg_mailing_links k LIMIT rows) l WHERE NOT EXISTS (SELECT FROM @extschema@.msg_mailings g WHERE g.id = l.mailing_id) HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'mailing'::text, 'warning'::text, count(*), (array_agg(g.id::text ORDER BY g.id))[1:5], 'Mailings are overdue: the scheduler does not act on them, or their channel is gone.'::text,
		'See the scheduler''s last_error in msg_workers.'::text
	FROM @extschema@.msg_mailings g
	WHERE g.act_at < @extschema@.msg_now() - interval '5 min' AND EXISTS (SELECT FROM @extschema@.msg_worker_slots() k WHERE k.database = current_database() AND k.stage = 'scheduler' AND k.state = 'idle')
		OR g.status IN ('planned', 'running', 'expanded') AND NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings s WHERE s.channel = g.channel) HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'breaker'::text, 'warning'::text, count(*), array_agg(DISTINCT b.channel), 'Circuit breakers are open: these endpoints fail, and their messages wait.'::text, 'See msg_attempts.'::text
	FROM @extschema@.msg_breakers b
	-- one that nothing comes to stays open, and holds up nothing
	WHERE EXISTS (SELECT FROM @extschema@.msg_unfinished u WHERE u.channel = b.channel AND u.waits IN ('idle', 'due', 'received')) HAVING count(*) > 0;
	-- positions against what the receiver last saw; it corrects them itself, soon after it has looked
	RETURN QUERY
	SELECT 'position'::text, 'error'::text, count(*), (array_agg(format('%s/%s', o.topic, o.partition) ORDER BY o.topic, o.partition))[1:5],
		'Positions are outside of what the topic has: records were not read, or the topic is another one.'::text,
		'See the receiver''s last_error in msg_workers; restart it with pg_terminate_backend().'::text
	FROM @extschema@.msg_offsets o WHERE o.looked_at > o.updated_at + interval '5 s' AND (o.next_offset < o.low OR o.next_offset > o.high) HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'gap'::text, 'info'::text, count(*), (array_agg(format('%s/%s: %s to %s', o.topic, o.partition, o.gap_from, o.gap_to) ORDER BY o.gap_at DESC))[1:5],
		'Kafka removed records before they were read; their messages are finished, or sent again where the channel has resend_after.'::text,
		'See last_error of the messages; keep records longer (retention.ms), or keep the receiver running.'::text
	FROM @extschema@.msg_offsets o WHERE o.gap_at > clock_timestamp() - interval '1 week' HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'position'::text, 'error'::text, count(*), array_agg(format('%s/%s', o.topic, o.partition)), 'Positions are negative.'::text, 'Delete these rows of msg_offsets: the topic is read from its beginning.'::text
	FROM @extschema@.msg_offsets o WHERE o.next_offset < 0 OR o.partition < 0 HAVING count(*) > 0;
END $$;
COMMENT ON FUNCTION @extschema@.msg_check_tables IS 'part of msg_check(): installation, runs, mailings, breakers, positions';

/* Sequences that would give out ids again. */
CREATE FUNCTION @extschema@.msg_check_sequences(rows bigint)
RETURNS TABLE ("check" text, severity text, count bigint, examples text[], detail text, hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
	s record;
	highest bigint;
	given bigint;
BEGIN
	FOR s IN SELECT d.objid AS sequence, d.refobjid::regclass AS relation, a.attname, a.attidentity = 'd' AS given
		FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S' JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
		WHERE d.deptype = 'i' AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND EXISTS (
			SELECT FROM pg_depend e JOIN pg_extension x ON x.oid = e.refobjid AND x.extname = 'msgsys'
			WHERE e.classid = 'pg_class'::regclass AND e.objid = d.refobjid AND e.refclassid = 'pg_extension'::regclass AND e.deptype = 'e')
	LOOP
		IF NOT has_sequence_privilege(s.sequence, 'SELECT, USAGE') OR NOT has_column_privilege(s.relation, s.attname, 'SELECT') THEN
			CONTINUE WHEN s.relation <> '@extschema@.messages'::regclass;
			RAISE insufficient_privilege USING MESSAGE = format('permission denied for sequence %s', s.sequence::regclass);
		END IF;
		EXECUTE format('SELECT max(%I) FROM %s', s.attname, s.relation) INTO highest;
		given := coalesce(pg_sequence_last_value(s.sequence), 0);
		IF highest > given THEN
			RETURN QUERY SELECT 'sequence'::text, CASE WHEN s.given THEN 'warning' ELSE 'error' END, highest - given, ARRAY[s.relation::text], format('The sequence of %s is at %s, but there is the id %s: ids are given out again.', s.relation, given, highest),
				format('SELECT setval(%L, %s);', s.sequence::regclass, highest);
		END IF;
	END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.msg_check_sequences IS 'part of msg_check(): sequences against the ids that there are';

/* What keeps the server from cleaning up, or rows from being taken; for how long, so that a test need not wait for it. */
CREATE FUNCTION @extschema@.msg_check_holds(rows bigint, prepared_for interval, open_for interval, transactions integer)
RETURNS TABLE ("check" text, severity text, count bigint, examples text[], detail text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	SELECT 'prepared'::text, 'warning'::text, count(*), (array_agg(p.gid ORDER BY p.prepared))[1:5], format('Transactions are prepared for more than %s: what they hold is not sent, and dead rows stay.', prepared_for),
		'COMMIT PREPARED or ROLLBACK PREPARED.'::text
	FROM pg_prepared_xacts p WHERE p.prepared < clock_timestamp() - prepared_for HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'replication-slot'::text, 'warning'::text, count(*), (array_agg(s.slot_name::text ORDER BY s.slot_name))[1:5], 'Replication slots without a consumer hold dead rows or WAL.'::text,
		'Start their consumers, or drop them with pg_drop_replication_slot().'::text
	FROM pg_replication_slots s WHERE NOT s.active AND NOT s.temporary AND (age(s.xmin) > transactions OR age(s.catalog_xmin) > transactions OR s.wal_status IN ('unreserved', 'lost')) HAVING count(*) > 0;
	RETURN QUERY
	SELECT 'old-snapshot'::text, 'info'::text, count(*), (array_agg(a.pid::text ORDER BY a.xact_start))[1:5], format('Transactions are open for more than %s: rows that are done with stay in the tables.', open_for),
		'End them, or set idle_in_transaction_session_timeout.'::text
	FROM pg_stat_activity a WHERE a.xact_start < clock_timestamp() - open_for AND a.pid <> pg_backend_pid() AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL) HAVING count(*) > 0;
	IF NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') THEN
		RAISE insufficient_privilege USING MESSAGE = 'other roles'' sessions are not shown';
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_check_holds IS 'part of msg_check(): prepared transactions, replication slots, old snapshots';

/*
 * msg_check(full): what is wrong with this installation, a row a finding; none: all is well. full: look at every message, not only at
 * a sample, which an info "sampled" tells of. severity is error (what must never be), warning (something waits, or will) or info (nothing
 * is wrong). count is at least so many; examples are ids of messages or names. What the caller has no right to see, or where somebody holds a lock for
 * longer than a second, is "not-looked-at".
 */
CREATE FUNCTION @extschema@.msg_check("full" boolean DEFAULT false)
RETURNS TABLE ("check" text, severity text, count bigint, examples text[], detail text, hint text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET lock_timeout = '1s' AS $$
#variable_conflict use_column
DECLARE
	-- of each kind so many rows are looked at, without full
	sample constant bigint := 10000;
	part text;
	-- with all arguments, and their types: no function of others fits better
	calls constant text[] := ARRAY['workers($1)', 'topics($1)', 'settings($1)', 'objects($1)', 'tables($1)', 'sequences($1)',
		$c$holds($1, interval '10 min', interval '1 h', 1000000)$c$, 'unfinished($1)', 'messages($1)'];
	call text;
BEGIN
	FOREACH call IN ARRAY calls LOOP
		part := split_part(call, '(', 1);
		BEGIN
			RETURN QUERY EXECUTE format('SELECT * FROM @extschema@.msg_check_%s', call) USING CASE WHEN "full" THEN NULL ELSE sample END;
		EXCEPTION WHEN insufficient_privilege THEN
			"check" := 'not-looked-at';
			severity := 'info';
			count := 1;
			examples := ARRAY[part];
			detail := format('You may not see all of this: %s.', SQLERRM);
			hint := 'Ask the extension''s owner, or a superuser.';
			RETURN NEXT;
		WHEN lock_not_available THEN
			"check" := 'not-looked-at';
			severity := 'warning';
			count := 1;
			examples := ARRAY[part];
			detail := format('Somebody holds a lock on a table: %s. Workers wait for it, too.', SQLERRM);
			hint := 'See pg_locks and pg_blocking_pids(); look again once it is released.';
			RETURN NEXT;
		END;
	END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.msg_check IS 'verifies the invariants of the whole installation, and returns a row a finding, with what to do; none: all is well. full: looks at every message, in place of a sample';
