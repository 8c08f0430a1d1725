-- 40-act.sql: acting on messages: acknowledge, cancel, retry.

/*
 * msg_cancel(id): cancel a message that has not been sent.
 * Returns whether it was cancelled: false where it is sent, finished or not there.
 */
CREATE FUNCTION @extschema@.msg_cancel(id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	UPDATE @extschema@.messages m SET status = 'cancelled', finished_at = @extschema@.msg_now()
	WHERE m.id = msg_cancel.id AND m.status IN ('scheduled', 'idle', 'retry');
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_cancel IS 'cancels a message that is not yet sent; false where it is too late';

/*
 * msg_reschedule(id, deliver_at): send a message that waits at another time; NULL or a past time: now. One that is to be tried
 * again keeps its attempts.
 * Returns whether it was waiting: false where it is sent, finished or not there. Errors: 22023 it would expire before that.
 */
CREATE FUNCTION @extschema@.msg_reschedule(id bigint, deliver_at timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	at timestamptz := greatest(msg_reschedule.deliver_at, @extschema@.msg_now());
	expires timestamptz;
BEGIN
	UPDATE @extschema@.messages m SET due_at = at,
		status = CASE WHEN m.status = 'retry' THEN 'retry' ELSE 'scheduled' END::@extschema@.msg_status
	WHERE m.id = msg_reschedule.id AND m.status IN ('scheduled', 'idle', 'retry') RETURNING m.expires_at INTO expires;
	IF FOUND AND expires <= at THEN
		RAISE invalid_parameter_value USING MESSAGE = 'message expires before it can be sent', DETAIL = format('expires_at is %s.', expires);
	END IF;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_reschedule IS 'has a message that waits be sent at another time (null: now); false where it is too late';

/*
 * msg_retry(id): send a dead message again, with all its attempts before it.
 * Returns whether there was such a dead message.
 */
CREATE FUNCTION @extschema@.msg_retry(id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	UPDATE @extschema@.messages m SET status = 'retry', due_at = @extschema@.msg_now(), attempts = 0, finished_at = NULL, dlq_pending = NULL
	WHERE m.id = msg_retry.id AND m.status = 'dead';
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_retry IS 'sends a dead message again; false where there is no dead message with this id';

/*
 * msg_cancel_many(ids), msg_retry_many(ids): msg_cancel() and msg_retry() for each of these, in the order of their ids. They return for how many it was done.
 */
CREATE FUNCTION @extschema@.msg_cancel_many(ids bigint[]) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT count(*) FILTER (WHERE @extschema@.msg_cancel(o.id)) FROM (SELECT DISTINCT u.id FROM unnest(ids) u(id) ORDER BY 1) o
$$;
COMMENT ON FUNCTION @extschema@.msg_cancel_many IS 'cancels those of these messages that are not yet sent, and returns how many';

CREATE FUNCTION @extschema@.msg_retry_many(ids bigint[]) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT count(*) FILTER (WHERE @extschema@.msg_retry(o.id)) FROM (SELECT DISTINCT u.id FROM unnest(ids) u(id) ORDER BY 1) o
$$;
COMMENT ON FUNCTION @extschema@.msg_retry_many IS 'sends those of these messages that are dead again, and returns how many';

/*
 * msg_redrive(channel, from, to, error, limit): send dead messages again, with all their attempts before them: of a channel (NULL: of any),
 * that died within a time (NULL: ever), whose last_error is LIKE a pattern (NULL: any), at most so many, the oldest first.
 * Returns how many. Errors: 42704 there is neither a channel nor a dead message of that name.
 */
CREATE FUNCTION @extschema@.msg_redrive(channel text DEFAULT NULL, "from" timestamptz DEFAULT NULL, "to" timestamptz DEFAULT NULL,
	error text DEFAULT NULL, "limit" bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	driven bigint;
BEGIN
	WITH chosen AS (
		SELECT m.id FROM @extschema@.messages m
		WHERE m.status = 'dead' AND (msg_redrive.channel IS NULL OR m.channel = msg_redrive.channel)
			AND (msg_redrive."from" IS NULL OR m.finished_at >= msg_redrive."from") AND (msg_redrive."to" IS NULL OR m.finished_at < msg_redrive."to")
			AND (msg_redrive.error IS NULL OR m.last_error LIKE msg_redrive.error)
		ORDER BY m.id LIMIT msg_redrive."limit" FOR NO KEY UPDATE SKIP LOCKED)
	UPDATE @extschema@.messages m SET status = 'retry', due_at = @extschema@.msg_now(), attempts = 0, finished_at = NULL, dlq_pending = NULL
	FROM chosen WHERE m.id = chosen.id;
	GET DIAGNOSTICS driven = ROW_COUNT;
	-- a channel that was dropped may have left dead messages
	IF driven = 0 AND NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_redrive.channel)
		AND NOT EXISTS (SELECT FROM @extschema@.messages m WHERE m.channel = msg_redrive.channel AND m.status = 'dead') AND msg_redrive.channel IS NOT NULL THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_redrive.channel);
	END IF;
	RETURN driven;
END $$;
COMMENT ON FUNCTION @extschema@.msg_redrive IS 'sends dead messages again, chosen by channel, time of death and error, and returns how many';

/*
 * msg_ack(id, outcome, error, attempt): a consumer without Kafka acknowledges by SQL.
 * outcome: received, delivered or failed; error: why it failed (its first 1,000 bytes are kept); attempt: the one that is meant (failed
 * counts only for the current one). Returns whether the message was waiting for that.
 * Runs with its owner's rights, so that a consumer needs no rights on the table. Errors: 22023 unknown outcome.
 */
CREATE FUNCTION @extschema@.msg_ack(id bigint, outcome text DEFAULT 'received', error text DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean AS 'MODULE_PATHNAME', 'msg_ack' LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION @extschema@.msg_ack IS 'acknowledges a message: received, delivered or failed; false where it was not waiting for that';

/*
 * msg_retry_delay(base, max, attempts): a random share of base * 2^(attempts - 1), at most max ("full jitter"). Computed in
 * seconds, since an interval has no room for a day doubled thirty times; at most a hundred years.
 */
CREATE FUNCTION @extschema@.msg_retry_delay(base interval, max interval, attempts integer) RETURNS interval
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT random() * least(3155760000, EXTRACT(epoch FROM max)::float8,
	EXTRACT(epoch FROM base)::float8 * power(2::float8, least(greatest(attempts, 1) - 1, 62))) * '1 second'::interval
$$;
COMMENT ON FUNCTION @extschema@.msg_retry_delay IS 'wait before the next attempt: exponential backoff with full jitter';
