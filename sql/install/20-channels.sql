-- 20-channels.sql: channels and what they are set to.

CREATE VIEW @extschema@.msg_webhook_settings AS
SELECT channel, url, method, headers, body_template, cloudevents, timeout, connect_timeout, success_codes, retry_codes, retry_schedule,
	retry_after_max, concurrency, rate, ordered, http2, redirects, ca_file, proxy, keep_attempts, breaker_share, breaker_calls,
	breaker_window, breaker_pause, breaker_pause_max, disabled_at
FROM @extschema@.msg_webhooks
UNION ALL
SELECT 'default', pg_catalog.current_setting('msgsys.webhook_url', true), 'POST', NULL, NULL, false, '15 s', '5 s', NULL, NULL,
	'{5 s,5 min,30 min,2 h,5 h,10 h,14 h,20 h,24 h}', '1 day', 64, NULL, false, false, 0, NULL, NULL, false, 0.5, 20, '30 s', '5 s', '5 min', NULL
WHERE pg_catalog.current_setting('msgsys.webhook_url', true) <> ''
	AND NOT EXISTS (SELECT FROM @extschema@.msg_webhooks WHERE channel = 'default');
COMMENT ON VIEW @extschema@.msg_webhook_settings IS 'the webhooks in force: msg_webhooks, and that of the channel "default" from msgsys.webhook_url while it has no row';

CREATE VIEW @extschema@.msg_channel_settings AS
SELECT channel, topic, ack, max_attempts, retry_base, retry_max, resend_after, former_topics,
	EXISTS (SELECT FROM @extschema@.msg_webhook_settings w WHERE w.channel = c.channel) AS has_webhook
FROM @extschema@.msg_channels c
UNION ALL
SELECT 'default', NULLIF(pg_catalog.current_setting('msgsys.kafka_topic', true), ''),
	COALESCE(pg_catalog.current_setting('msgsys.kafka_ack', true), 'readback'), 10, '5 s', '1 h', NULL,
	-- no row remembers what msgsys.kafka_topic was: any topic that is read and is no channel's now, while something is on its way
	(SELECT pg_catalog.array_agg(DISTINCT o.topic) FROM @extschema@.msg_offsets o
		WHERE o.topic IS DISTINCT FROM pg_catalog.current_setting('msgsys.kafka_topic', true)
		AND o.topic IS DISTINCT FROM pg_catalog.current_setting('msgsys.acks_topic', true) AND o.topic !~ '\.retry$'
		AND o.updated_at > pg_catalog.now() - interval '7 days'
		AND NOT EXISTS (SELECT FROM @extschema@.msg_channels c WHERE c.topic = o.topic OR o.topic = ANY (c.former_topics))
		AND (EXISTS (SELECT FROM @extschema@.messages m WHERE m.status = 'sent' AND m.finished_at IS NULL AND m.channel = 'default')
			OR EXISTS (SELECT FROM @extschema@.messages m WHERE m.status = 'idle' AND m.channel = 'default'))),
	EXISTS (SELECT FROM @extschema@.msg_webhook_settings w WHERE w.channel = 'default')
WHERE NOT EXISTS (SELECT FROM @extschema@.msg_channels WHERE channel = 'default');
COMMENT ON VIEW @extschema@.msg_channel_settings IS 'the settings in force: msg_channels, and the channel "default" from the configuration while it has no row';

/*
 * msg_channel_set(channel, ...): make a channel or change it.
 * Parameters that are left out (NULL) stay as they are, in a new channel they take the table's defaults; the
 * empty string takes topic away, and the interval 0 takes resend_after away.
 * Returns the channel's row. Errors: 22023 for a value out of its range; a NOTICE where it leads nowhere.
 */
CREATE FUNCTION @extschema@.msg_channel_set(
	channel text, topic text DEFAULT NULL, ack text DEFAULT NULL, max_attempts integer DEFAULT NULL,
	retry_base interval DEFAULT NULL, retry_max interval DEFAULT NULL, resend_after interval DEFAULT NULL)
RETURNS @extschema@.msg_channels LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	old @extschema@.msg_channels;
	new @extschema@.msg_channels;
BEGIN
	IF msg_channel_set.channel IS NULL OR msg_channel_set.channel !~ '^[A-Za-z0-9._:-]{1,63}$' THEN
		RAISE invalid_parameter_value USING MESSAGE = format('invalid channel name "%s"', msg_channel_set.channel),
			HINT = 'A name has 1 to 63 letters, digits, dots, underscores, colons and hyphens.';
	END IF;
	IF msg_channel_set.topic <> '' AND (msg_channel_set.topic !~ '^[A-Za-z0-9._-]{1,249}$' OR msg_channel_set.topic IN ('.', '..')) THEN
		RAISE invalid_parameter_value USING MESSAGE = format('invalid topic name "%s"', msg_channel_set.topic),
			HINT = 'Kafka takes 1 to 249 letters, digits, dots, underscores and hyphens.';
	END IF;
	IF msg_channel_set.ack NOT IN ('none', 'readback', 'topic') THEN
		RAISE invalid_parameter_value USING MESSAGE = format('invalid ack "%s"', msg_channel_set.ack),
			HINT = 'One of none, readback and topic.';
	END IF;
	INSERT INTO @extschema@.msg_channels (channel) VALUES (msg_channel_set.channel)
	ON CONFLICT (channel) DO NOTHING;
	SELECT * INTO STRICT old FROM @extschema@.msg_channels c WHERE c.channel = msg_channel_set.channel FOR UPDATE;
	new := old;
	new.topic := CASE WHEN msg_channel_set.topic IS NULL THEN old.topic ELSE NULLIF(msg_channel_set.topic, '') END;
	new.ack := COALESCE(msg_channel_set.ack, old.ack);
	new.max_attempts := COALESCE(msg_channel_set.max_attempts, old.max_attempts);
	new.retry_base := COALESCE(msg_channel_set.retry_base, old.retry_base);
	new.retry_max := COALESCE(msg_channel_set.retry_max, GREATEST(old.retry_max, new.retry_base));
	new.resend_after := CASE WHEN msg_channel_set.resend_after IS NULL THEN old.resend_after
		ELSE NULLIF(msg_channel_set.resend_after, '0') END;
	IF old.topic IS DISTINCT FROM new.topic THEN
		-- what is on its way in the old topic is still to be acknowledged
		new.former_topics := NULLIF(array_remove(old.former_topics || old.topic, new.topic), '{}');
		new.former_topics := NULLIF(array_remove(new.former_topics, NULL), '{}');
	END IF;
	UPDATE @extschema@.msg_channels c SET topic = new.topic, ack = new.ack, max_attempts = new.max_attempts,
		retry_base = new.retry_base, retry_max = new.retry_max, resend_after = new.resend_after,
		former_topics = new.former_topics, updated_at = now(), updated_by = CURRENT_USER
	WHERE c.channel = new.channel RETURNING c.* INTO new;
	IF new.ack = 'none' AND old.ack <> 'none' THEN
		-- nothing will acknowledge what is on its way any more
		UPDATE @extschema@.messages m SET finished_at = @extschema@.msg_now()
		WHERE m.channel = new.channel AND m.status = 'sent' AND m.finished_at IS NULL;
	END IF;
	IF EXISTS (SELECT FROM @extschema@.msg_webhook_settings w WHERE w.channel = new.channel) THEN
		IF new.topic IS NOT NULL AND new.ack = 'none' THEN
			RAISE invalid_parameter_value USING MESSAGE = format('channel "%s" has a webhook, which waits for an acknowledgement', new.channel),
				HINT = 'Use the ack readback or topic.';
		END IF;
	ELSIF new.topic IS NULL THEN
		RAISE NOTICE 'channel "%" has neither topic nor webhook: its messages stay idle', new.channel;
	END IF;
	RETURN new;
END $$;
COMMENT ON FUNCTION @extschema@.msg_channel_set IS 'makes a channel or changes it; what is left out stays as it is, an empty topic or a resend_after of 0 is taken away';

/*
 * msg_channel_drop(channel, discard): drop a channel.
 * Refuses (55006) while messages wait in it or are to be acknowledged; with discard, those that wait are cancelled
 * and nobody waits for acknowledgements any more. Finished messages stay. Blocks writers of messages for the moment.
 * Errors: 42704 no such channel.
 */
CREATE FUNCTION @extschema@.msg_channel_drop(channel text, discard boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	live bigint;
BEGIN
	-- no message may slip into the channel between the check and the commit
	LOCK TABLE @extschema@.messages IN SHARE ROW EXCLUSIVE MODE;
	IF discard THEN
		UPDATE @extschema@.messages m SET status = 'cancelled', finished_at = @extschema@.msg_now()
		WHERE m.channel = msg_channel_drop.channel AND m.status = 'idle';
		UPDATE @extschema@.messages m SET status = 'cancelled', finished_at = @extschema@.msg_now()
		WHERE m.channel = msg_channel_drop.channel AND m.status IN ('scheduled', 'retry');
		UPDATE @extschema@.messages m SET finished_at = @extschema@.msg_now()
		WHERE m.channel = msg_channel_drop.channel AND m.status = 'sent' AND m.finished_at IS NULL;
		UPDATE @extschema@.messages m SET finished_at = @extschema@.msg_now()
		WHERE m.channel = msg_channel_drop.channel AND m.status = 'received' AND m.finished_at IS NULL;
	ELSE
		SELECT count INTO live FROM @extschema@.msg_live(msg_channel_drop.channel) AS count;
		IF live > 0 THEN
			RAISE object_in_use USING MESSAGE = format('channel "%s" still has messages under way: %s', msg_channel_drop.channel, live),
				HINT = 'Wait for them, or use discard => true to cancel those that wait.';
		END IF;
	END IF;
	IF EXISTS (SELECT FROM @extschema@.msg_mailings g WHERE g.channel = msg_channel_drop.channel AND g.status IN ('planned', 'running', 'expanded')) THEN
		RAISE object_in_use USING MESSAGE = format('channel "%s" has mailings that are not over', msg_channel_drop.channel), HINT = 'Cancel them with msg_mailing_cancel().';
	END IF;
	DELETE FROM @extschema@.msg_pauses p WHERE p.channel = msg_channel_drop.channel;
	PERFORM @extschema@.msg_pace_drop(msg_channel_drop.channel);
	DELETE FROM @extschema@.msg_webhook_secrets p WHERE p.channel = msg_channel_drop.channel;
	DELETE FROM @extschema@.msg_webhooks p WHERE p.channel = msg_channel_drop.channel;
	DELETE FROM @extschema@.msg_subscriptions p WHERE p.channel = msg_channel_drop.channel;
	DELETE FROM @extschema@.msg_channels c WHERE c.channel = msg_channel_drop.channel;
	IF NOT FOUND THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_channel_drop.channel);
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_channel_drop IS 'drops a channel that has no message under way; with discard => true cancels those that wait';

/* msg_live(channel): how many messages of a channel wait or are to be acknowledged; reads only the indexes of live rows. */
CREATE FUNCTION @extschema@.msg_live(channel text) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT (SELECT count(*) FROM @extschema@.messages m WHERE m.status = 'idle' AND m.channel = msg_live.channel)
	+ (SELECT count(*) FROM @extschema@.messages m WHERE m.status IN ('scheduled', 'retry') AND m.channel = msg_live.channel)
	+ (SELECT count(*) FROM @extschema@.messages m WHERE m.status = 'sent' AND m.finished_at IS NULL AND m.channel = msg_live.channel)
	+ (SELECT count(*) FROM @extschema@.messages m WHERE m.status = 'received' AND m.finished_at IS NULL AND m.channel = msg_live.channel)
$$;
COMMENT ON FUNCTION @extschema@.msg_live IS 'number of messages of a channel that wait or are to be acknowledged';
