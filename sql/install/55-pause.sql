-- 55-pause.sql: pausing, and pace.

/*
 * msg_pause(channel, reason): stop sending and receiving for one channel, or for all (NULL), until msg_resume().
 * Kept over restarts; workers obey within 100 ms of the commit. Returns false where it was paused already.
 * Errors: 42704 unknown channel.
 */
CREATE FUNCTION @extschema@.msg_pause(channel text DEFAULT NULL, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_pause.channel) AND msg_pause.channel IS NOT NULL THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_pause.channel);
	END IF;
	INSERT INTO @extschema@.msg_pauses (channel, reason) VALUES (coalesce(msg_pause.channel, '*'), msg_pause.reason)
	ON CONFLICT (channel) DO NOTHING;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	INSERT INTO @extschema@.msg_pause_log (channel, action, reason) VALUES (coalesce(msg_pause.channel, '*'), 'pause', msg_pause.reason);
	RETURN true;
END $$;
COMMENT ON FUNCTION @extschema@.msg_pause IS 'pauses a channel, or all of them (null), until msg_resume(); false where it was paused already';

/*
 * msg_resume(channel, reason): end a pause: of one channel, or the pause of all (NULL), which leaves those of single channels.
 * Returns false where there was none. Each pause and its end are in msg_pause_log.
 */
CREATE FUNCTION @extschema@.msg_resume(channel text DEFAULT NULL, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM @extschema@.msg_pauses p WHERE p.channel = coalesce(msg_resume.channel, '*');
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	INSERT INTO @extschema@.msg_pause_log (channel, action, reason) VALUES (coalesce(msg_resume.channel, '*'), 'resume', msg_resume.reason);
	RETURN true;
END $$;
COMMENT ON FUNCTION @extschema@.msg_resume IS 'ends the pause of a channel, or the pause of all (null)';

/* msg_running(channel): whether neither the channel nor everything is paused; NULL asks for everything alone. */
CREATE FUNCTION @extschema@.msg_running(channel text DEFAULT NULL) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT NOT EXISTS (SELECT FROM @extschema@.msg_pauses p WHERE p.channel IN ('*', msg_running.channel))
$$;
COMMENT ON FUNCTION @extschema@.msg_running IS 'whether a channel (null: everything) is not paused';

/*
 * msg_pace_set(channel, batch, every, at_once): have a channel send at most batch messages every so often: as runs, each a row of
 * msg_runs. at_once: whether the first run comes now or after one interval; NULL: now, but a pace that is there keeps its
 * phase. A run that falls in a time when the server is down or the channel paused is made up for once, then the phase goes on.
 * Where the channel has a topic the pace is that of sending to it, else that of its webhook; messages that are tried
 * again count. Returns the row. Errors: 42704 unknown channel, 22023 batch below 1 or interval below 10 ms.
 */
CREATE FUNCTION @extschema@.msg_pace_set(channel text, batch integer, every interval, at_once boolean DEFAULT NULL)
RETURNS @extschema@.msg_paces LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	pace @extschema@.msg_paces;
BEGIN
	IF NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_pace_set.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_pace_set.channel),
			HINT = 'Make it with msg_channel_set().';
	END IF;
	IF msg_pace_set.batch IS NULL OR msg_pace_set.batch < 1 OR msg_pace_set.every IS NULL OR msg_pace_set.every NOT BETWEEN '10 ms' AND '1 year' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'a pace is at least 1 message, every 10 ms to 1 year';
	END IF;
	INSERT INTO @extschema@.msg_paces AS p (channel, batch, every, next_at)
	VALUES (msg_pace_set.channel, msg_pace_set.batch, msg_pace_set.every,
		@extschema@.msg_now() + CASE WHEN msg_pace_set.at_once IS FALSE THEN msg_pace_set.every ELSE '0' END)
	ON CONFLICT (channel) DO UPDATE SET batch = excluded.batch, every = excluded.every, updated_at = now(), updated_by = CURRENT_USER,
		next_at = CASE WHEN msg_pace_set.at_once IS NULL THEN least(p.next_at, @extschema@.msg_now() + excluded.every) ELSE excluded.next_at END
	RETURNING p.* INTO pace;
	RETURN pace;
END $$;
COMMENT ON FUNCTION @extschema@.msg_pace_set IS 'has a channel send at most batch messages every so often; at_once: the first time now, or after one interval (null: now, but a pace that is there keeps its phase)';

/* msg_pace_drop(channel): let a channel send at full speed. Returns whether it had a pace. */
CREATE FUNCTION @extschema@.msg_pace_drop(channel text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	UPDATE @extschema@.msg_runs r SET finished_at = @extschema@.msg_now(), claimed = r.succeeded + r.failed
	WHERE r.channel = msg_pace_drop.channel AND r.finished_at IS NULL;
	DELETE FROM @extschema@.msg_paces p WHERE p.channel = msg_pace_drop.channel;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_pace_drop IS 'takes a channel''s pace away; false where it had none';

/*
 * msg_adopt(original): let a copy send: a restored dump, a cloned, moved or upgraded server, a subscriber. original says what became of the installation
 * that it is a copy of: 'gone': unfinished messages keep their names, so that acknowledgements of what was sent still count; 'lives': they get names of
 * this installation's own, and what waits for an acknowledgement is sent again; NULL: it does not matter, since there are no such messages. New
 * messages have a new name in any case. Returns its uuid. Errors: 55000 there are such messages and original is NULL, or their names are not in msg_names;
 * 22023 another word. With its owner's rights.
 */
CREATE FUNCTION @extschema@.msg_adopt(original text DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	new_epoch constant integer := @extschema@.msg_epoch();
	here @extschema@.msg_names;
	mine integer[];
	others bigint;
	nameless integer;
BEGIN
	IF msg_adopt.original NOT IN ('gone', 'lives') THEN
		RAISE invalid_parameter_value USING MESSAGE = format('unknown word "%s" for the original', msg_adopt.original), HINT = 'One of gone and lives.';
	END IF;
	LOCK TABLE @extschema@.msg_names IN SHARE ROW EXCLUSIVE MODE;
	SELECT * INTO here FROM @extschema@.msg_names n WHERE n.epoch = new_epoch;
	-- what began in this very data directory, and what was adopted here
	SELECT array_agg(n.epoch) INTO mine FROM @extschema@.msg_names n
	WHERE n.system_identifier = here.system_identifier AND n.database_oid = here.database_oid AND n.identity = here.identity AND NOT n.theirs
		AND (n.place = here.place OR here.held_at IS NULL);
	SELECT count(*) INTO others FROM @extschema@.messages m
	WHERE m.epoch <> ALL (mine) AND (m.finished_at IS NULL OR m.dlq_pending);
	IF others > 0 AND msg_adopt.original IS NULL THEN
		RAISE object_not_in_prerequisite_state USING
			MESSAGE = format('%s unfinished messages are another installation''s', others),
			HINT = 'Say msg_adopt(''gone'') if it is no more: they keep their names. Say msg_adopt(''lives'') if it goes on: it sends them, and from here they are sent under new names.';
	END IF;
	IF msg_adopt.original = 'gone' THEN
		SELECT m.epoch INTO nameless FROM @extschema@.messages m
		WHERE m.finished_at IS NULL AND NOT EXISTS (SELECT FROM @extschema@.msg_names n WHERE n.epoch = m.epoch) LIMIT 1;
		IF FOUND THEN
			RAISE object_not_in_prerequisite_state USING MESSAGE = format('the name of epoch %s is not in msg_names', nameless),
				HINT = 'Copy that row of msg_names from where the messages come from, or say msg_adopt(''lives'').';
		END IF;
		UPDATE @extschema@.msg_names n SET system_identifier = here.system_identifier, database_oid = here.database_oid,
			identity = here.identity, place = here.place, ended_at = coalesce(n.ended_at, clock_timestamp()), theirs = false, adopted_at = clock_timestamp()
		WHERE n.epoch <> ALL (mine);
	ELSIF msg_adopt.original = 'lives' THEN
		UPDATE @extschema@.messages m SET epoch = new_epoch, dlq_pending = NULL,
			status = CASE WHEN m.status = 'sent' AND m.finished_at IS NULL THEN 'retry' ELSE m.status END,
			due_at = CASE WHEN m.status = 'sent' AND m.finished_at IS NULL THEN @extschema@.msg_now() ELSE m.due_at END
		WHERE m.epoch <> ALL (mine) AND (m.finished_at IS NULL OR m.dlq_pending);
		UPDATE @extschema@.msg_names n SET theirs = true WHERE n.epoch <> ALL (mine) AND NOT n.theirs;
	END IF;
	-- mailings that are not yet messages have no names to keep
	UPDATE @extschema@.msg_mailings g SET epoch = new_epoch WHERE g.epoch <> ALL (mine) AND g.act_at IS NOT NULL;
	UPDATE @extschema@.msg_names n SET held_at = NULL, adopted_at = clock_timestamp()
	WHERE n.system_identifier = here.system_identifier AND n.database_oid = here.database_oid AND n.identity = here.identity AND NOT n.theirs
		AND (n.held_at IS NOT NULL OR n.epoch = new_epoch);
	RETURN here.uuid;
END $$;
COMMENT ON FUNCTION @extschema@.msg_adopt IS 'makes a copy an installation of its own that may send; original (gone or lives) says what became of the one that it is a copy of, where unfinished messages are that one''s';
