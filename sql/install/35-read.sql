-- 35-read.sql: reading messages, and the cache of those delivered.

-- ---------------------------------------------------------------- reading

/* msg_get(id): the message, or NULL. */
CREATE FUNCTION @extschema@.msg_get(id bigint) RETURNS @extschema@.messages
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT m FROM @extschema@.messages m WHERE m.id = msg_get.id
$$;
COMMENT ON FUNCTION @extschema@.msg_get IS 'the message with this id, or null';

/* msg_list(status, channel, limit, offset): messages, the newest first; NULL for status or channel means any. */
CREATE FUNCTION @extschema@.msg_list(
	status @extschema@.msg_status DEFAULT NULL, channel text DEFAULT NULL, "limit" integer DEFAULT 100, "offset" bigint DEFAULT 0)
RETURNS SETOF @extschema@.messages LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF msg_list."limit" < 0 OR msg_list."offset" < 0 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'limit and offset must not be negative';
	END IF;
	-- separate statements, so that each can use its index
	IF msg_list.status IN ('idle') THEN
		RETURN QUERY SELECT m.* FROM @extschema@.messages m
		WHERE m.status = 'idle' AND (msg_list.channel IS NULL OR m.channel = msg_list.channel)
		ORDER BY m.id DESC LIMIT msg_list."limit" OFFSET msg_list."offset";
	ELSE
		RETURN QUERY SELECT m.* FROM @extschema@.messages m
		WHERE (msg_list.status IS NULL OR m.status = msg_list.status) AND (msg_list.channel IS NULL OR m.channel = msg_list.channel)
		ORDER BY m.id DESC LIMIT msg_list."limit" OFFSET msg_list."offset";
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_list IS 'messages, the newest first, of one status and channel or of any (null)';

CREATE VIEW @extschema@.msg_backlog AS
SELECT channel, status, pg_catalog.count(*) AS count, pg_catalog.now() - pg_catalog.min(since) AS oldest_age
FROM (
	SELECT channel, status, created_at AS since FROM @extschema@.messages WHERE status = 'idle'
	UNION ALL
	SELECT channel, status, created_at FROM @extschema@.messages WHERE status IN ('scheduled', 'retry')
	UNION ALL
	SELECT channel, status, sent_at FROM @extschema@.messages WHERE status = 'sent' AND finished_at IS NULL
	UNION ALL
	SELECT channel, status, received_at FROM @extschema@.messages WHERE status = 'received' AND finished_at IS NULL
) live
GROUP BY channel, status;
COMMENT ON VIEW @extschema@.msg_backlog IS 'what waits now, by channel and status; its cost is that of the live rows, however long the history';

/*
 * msg_wait(id, status, timeout): wait until a message has reached a status, or is past it, or ended otherwise.
 * timeout: at most 10 minutes. Returns the status that it has then; at the timeout, the one it has now.
 * Runs with its owner's rights, so that who may wait need not read the table.
 * Errors: 55000 above READ COMMITTED or for a message of this transaction (neither could ever see it change),
 * P0002 no such message, 22023 timeout out of range.
 */
CREATE FUNCTION @extschema@.msg_wait(id bigint, status @extschema@.msg_status DEFAULT 'sent', timeout interval DEFAULT '30 s')
RETURNS @extschema@.msg_status AS 'MODULE_PATHNAME', 'msg_wait' LANGUAGE C VOLATILE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION @extschema@.msg_wait IS 'waits, without polling, until a message has reached a status or ended, and returns the status it has; for 10 minutes at most, and only for messages of other, committed transactions';

-- ---------------------------------------------------------------- the cache

/* msg_cache_name(id): the message's name in Redis, after the prefix: several installations may share one. */
CREATE FUNCTION @extschema@.msg_cache_name(id bigint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT i.uuid || ':' || id FROM @extschema@.msg_installation i
$$;
COMMENT ON FUNCTION @extschema@.msg_cache_name IS 'a message''s key in Redis, after msgsys.redis_prefix';

/* msg_cache_get(name): what Redis has of a message, or NULL. */
CREATE FUNCTION @extschema@.msg_cache_get(name text) RETURNS text
AS 'MODULE_PATHNAME', 'msg_cache_get' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION @extschema@.msg_cache_get IS 'what Redis has of a message; null where it has nothing or does not answer';

/* msg_cache_put(names, entries): write entries into Redis. Errors: 08006, 55000. */
CREATE FUNCTION @extschema@.msg_cache_put(names text[], entries text[]) RETURNS void
AS 'MODULE_PATHNAME', 'msg_cache_put' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION @extschema@.msg_cache_put IS 'writes entries into Redis; called by msg_cache_fill()';

/* msg_cache_entry(message): what the cache holds of a delivered message. */
CREATE FUNCTION @extschema@.msg_cache_entry(message @extschema@.messages) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT jsonb_build_object('message', message.payload, 'messageId', message.response_id,
	'sentAt', to_char(message.delivered_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'code', message.response_code)
$$;
COMMENT ON FUNCTION @extschema@.msg_cache_entry IS 'what the cache holds of a delivered message';

/*
 * msg_cached(id): {"message", "messageId", "sentAt", "code"} of a delivered message, from Redis, or else from the table;
 * NULL where there is no such delivered message.
 */
CREATE FUNCTION @extschema@.msg_cached(id bigint) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	found_there text := @extschema@.msg_cache_get(@extschema@.msg_cache_name(msg_cached.id));
BEGIN
	IF found_there IS NOT NULL THEN
		RETURN found_there::jsonb;
	END IF;
	RETURN (SELECT @extschema@.msg_cache_entry(m) FROM @extschema@.messages m WHERE m.id = msg_cached.id AND m.status = 'delivered');
END $$;
COMMENT ON FUNCTION @extschema@.msg_cached IS 'a delivered message as the cache holds it, from Redis or else from the table';

/*
 * msg_cache_fill(since): write all that was delivered since then into Redis again, 1,000 at a time.
 * Returns how many. Errors: 55000 no Redis is set, 08006 it does not take them.
 */
CREATE FUNCTION @extschema@.msg_cache_fill(since timestamptz DEFAULT pg_catalog.now() - interval '1 day') RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	last bigint := 0;
	done bigint := 0;
	names text[];
	entries text[];
BEGIN
	LOOP
		SELECT array_agg(@extschema@.msg_cache_name(b.id) ORDER BY b.id), array_agg(b.entry ORDER BY b.id), max(b.id) INTO names, entries, last
		FROM (SELECT m.id, @extschema@.msg_cache_entry(m)::text AS entry FROM @extschema@.messages m
			WHERE m.id > last AND m.status = 'delivered' AND m.delivered_at >= since ORDER BY m.id LIMIT 1000) b;
		EXIT WHEN names IS NULL;
		PERFORM @extschema@.msg_cache_put(names, entries);
		done := done + array_length(names, 1);
	END LOOP;
	RETURN done;
END $$;
COMMENT ON FUNCTION @extschema@.msg_cache_fill IS 'writes what was delivered since a time into Redis again, and returns how many';
