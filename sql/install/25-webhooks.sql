-- 25-webhooks.sql: webhooks: settings, secrets, checks.

/*
 * msg_webhook_check(url, headers, proxy): refuse what cannot be a webhook's: 22023 for a URL that is none, or not http(s), or whose host is a
 * literal address that may not be called, for a proxy's likewise, and for headers with control characters or of a reserved name.
 */
CREATE FUNCTION @extschema@.msg_webhook_check(url text, headers jsonb DEFAULT NULL, proxy text DEFAULT NULL) RETURNS void
AS 'MODULE_PATHNAME', 'msg_webhook_check' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_webhook_check IS 'refuses a URL, headers or a proxy that a webhook cannot have';

/* msg_webhook_secret(): a new signing secret, "whsec_" and 32 random bytes in base64. */
CREATE FUNCTION @extschema@.msg_webhook_secret() RETURNS text
AS 'MODULE_PATHNAME', 'msg_webhook_secret' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_webhook_secret IS 'makes a new signing secret of Standard Webhooks, and stores it nowhere';

/*
 * msg_webhook_set(channel, url, ...): give a channel a webhook, or change it. The parameters are the columns of msg_webhooks; what is
 * left out (NULL) stays as it is, or takes the table's default. Taken away by: an empty array (success_codes, retry_codes, retry_schedule),
 * an empty object (headers, body_template), an empty string (ca_file, proxy), 0 (rate). Secrets are never shown again, and forgotten
 * (a WARNING says so) where url changes its origin (scheme, host, port) or proxy changes, unless they are given with it: secret_headers
 * (an object of strings; null takes one away), bearer (a token), basic (user:password), client_cert and client_key (PEM); empty strings take them
 * away. Signing secrets are made by msg_channel_rotate_secret().
 * Returns the row. Errors: 42704 no such channel, 22023 or 23514 for a value that cannot be.
 */
CREATE FUNCTION @extschema@.msg_webhook_set(
	channel text, url text DEFAULT NULL, method text DEFAULT NULL, headers jsonb DEFAULT NULL, body_template jsonb DEFAULT NULL,
	cloudevents boolean DEFAULT NULL, timeout interval DEFAULT NULL, connect_timeout interval DEFAULT NULL,
	success_codes integer[] DEFAULT NULL, retry_codes integer[] DEFAULT NULL, retry_schedule interval[] DEFAULT NULL,
	retry_after_max interval DEFAULT NULL, concurrency integer DEFAULT NULL, rate double precision DEFAULT NULL, ordered boolean DEFAULT NULL,
	http2 boolean DEFAULT NULL, redirects integer DEFAULT NULL, ca_file text DEFAULT NULL, proxy text DEFAULT NULL,
	keep_attempts boolean DEFAULT NULL, breaker_share double precision DEFAULT NULL, breaker_calls integer DEFAULT NULL,
	breaker_window interval DEFAULT NULL, breaker_pause interval DEFAULT NULL, breaker_pause_max interval DEFAULT NULL,
	secret_headers jsonb DEFAULT NULL, bearer text DEFAULT NULL, basic text DEFAULT NULL, client_cert text DEFAULT NULL, client_key text DEFAULT NULL)
RETURNS @extschema@.msg_webhooks LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	c @extschema@.msg_channel_settings;
	w @extschema@.msg_webhooks;
	secret record;
BEGIN
	SELECT * INTO c FROM @extschema@.msg_channel_settings s WHERE s.channel = msg_webhook_set.channel;
	IF NOT FOUND THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_webhook_set.channel),
			HINT = 'Make it with msg_channel_set().';
	END IF;
	IF c.topic IS NOT NULL AND c.ack = 'none' THEN
		RAISE invalid_parameter_value USING MESSAGE = format('channel "%s" has a topic and the ack "none", so that nothing would reach its webhook', c.channel),
			HINT = 'Use the ack readback or topic, or take the topic away.';
	END IF;
	PERFORM @extschema@.msg_webhook_check(msg_webhook_set.url, msg_webhook_set.headers, msg_webhook_set.proxy),
		@extschema@.msg_webhook_check(NULL::text, jsonb_strip_nulls(msg_webhook_set.secret_headers), NULL::text);
	SELECT * INTO w FROM @extschema@.msg_webhooks o WHERE o.channel = msg_webhook_set.channel FOR UPDATE;
	IF NOT FOUND THEN
		IF msg_webhook_set.url IS NULL THEN
			RAISE invalid_parameter_value USING MESSAGE = format('channel "%s" has no webhook yet: its url is missing', msg_webhook_set.channel);
		END IF;
		INSERT INTO @extschema@.msg_webhooks (channel, url) VALUES (msg_webhook_set.channel, msg_webhook_set.url) RETURNING * INTO w;
	END IF;
	UPDATE @extschema@.msg_webhooks o SET
		url = coalesce(msg_webhook_set.url, w.url), method = coalesce(msg_webhook_set.method, w.method),
		headers = nullif(coalesce(msg_webhook_set.headers, w.headers), '{}'),
		body_template = nullif(coalesce(msg_webhook_set.body_template, w.body_template), '{}'),
		cloudevents = coalesce(msg_webhook_set.cloudevents, w.cloudevents),
		timeout = coalesce(msg_webhook_set.timeout, w.timeout), connect_timeout = coalesce(msg_webhook_set.connect_timeout, w.connect_timeout),
		success_codes = nullif(coalesce(msg_webhook_set.success_codes, w.success_codes), '{}'),
		retry_codes = nullif(coalesce(msg_webhook_set.retry_codes, w.retry_codes), '{}'),
		retry_schedule = nullif(coalesce(msg_webhook_set.retry_schedule, w.retry_schedule), '{}'),
		retry_after_max = coalesce(msg_webhook_set.retry_after_max, w.retry_after_max),
		concurrency = coalesce(msg_webhook_set.concurrency, w.concurrency), rate = nullif(coalesce(msg_webhook_set.rate, w.rate), 0),
		ordered = coalesce(msg_webhook_set.ordered, w.ordered), http2 = coalesce(msg_webhook_set.http2, w.http2),
		redirects = coalesce(msg_webhook_set.redirects, w.redirects), ca_file = nullif(coalesce(msg_webhook_set.ca_file, w.ca_file), ''),
		proxy = nullif(coalesce(msg_webhook_set.proxy, w.proxy), ''), keep_attempts = coalesce(msg_webhook_set.keep_attempts, w.keep_attempts),
		breaker_share = coalesce(msg_webhook_set.breaker_share, w.breaker_share), breaker_calls = coalesce(msg_webhook_set.breaker_calls, w.breaker_calls),
		breaker_window = coalesce(msg_webhook_set.breaker_window, w.breaker_window),
		breaker_pause = coalesce(msg_webhook_set.breaker_pause, w.breaker_pause),
		breaker_pause_max = coalesce(msg_webhook_set.breaker_pause_max, greatest(w.breaker_pause_max, msg_webhook_set.breaker_pause)),
		updated_at = now(), updated_by = CURRENT_USER
	WHERE o.channel = w.channel RETURNING o.* INTO w;
	FOR secret IN
		SELECT 'header' AS kind, h.key AS name, h.value FROM jsonb_each_text(msg_webhook_set.secret_headers) h
		UNION ALL SELECT v.kind, '', v.value FROM (VALUES ('bearer', msg_webhook_set.bearer), ('basic', msg_webhook_set.basic),
			('client_cert', msg_webhook_set.client_cert), ('client_key', msg_webhook_set.client_key)) v(kind, value) WHERE v.value IS NOT NULL
	LOOP
		PERFORM @extschema@.msg_webhook_keep_secret(w.channel, secret.kind, secret.name, secret.value);
	END LOOP;
	RETURN w;
END $$;
COMMENT ON FUNCTION @extschema@.msg_webhook_set IS 'gives a channel a webhook or changes it; the parameters are the columns of msg_webhooks, and what is left out stays as it is. An empty array, object or text, and a rate of 0, take a setting away. secret_headers (an object of strings), bearer (a token), basic (user:password), client_cert and client_key (PEM) are never shown again';

/* msg_webhook_keep_secret(channel, kind, name, value): store or (null, empty) forget a secret; with its owner's rights, for nobody else reads them. */
CREATE FUNCTION @extschema@.msg_webhook_keep_secret(channel text, kind text, name text, value text)
RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF msg_webhook_keep_secret.kind = 'header' THEN
		PERFORM @extschema@.msg_webhook_check(NULL::text, jsonb_build_object(msg_webhook_keep_secret.name, coalesce(msg_webhook_keep_secret.value, '')), NULL::text);
	ELSIF msg_webhook_keep_secret.kind IN ('bearer', 'basic') AND msg_webhook_keep_secret.value ~ '[[:cntrl:]]' THEN
		RAISE invalid_parameter_value USING MESSAGE = format('%s has a control character', msg_webhook_keep_secret.kind);
	END IF;
	-- here, for the error of a constraint would tell the log of it
	IF octet_length(msg_webhook_keep_secret.value) > 65536 OR octet_length(msg_webhook_keep_secret.name) > 256 THEN
		RAISE invalid_parameter_value USING MESSAGE = format('%s is too large', msg_webhook_keep_secret.kind), HINT = 'It has at most 65536 bytes, and its name 256.';
	END IF;
	DELETE FROM @extschema@.msg_webhook_secrets s
	WHERE s.channel = msg_webhook_keep_secret.channel AND s.kind = msg_webhook_keep_secret.kind AND lower(s.name) = lower(msg_webhook_keep_secret.name);
	IF msg_webhook_keep_secret.value <> '' THEN
		INSERT INTO @extschema@.msg_webhook_secrets (channel, kind, name, value)
		VALUES (msg_webhook_keep_secret.channel, msg_webhook_keep_secret.kind, msg_webhook_keep_secret.name, msg_webhook_keep_secret.value);
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_webhook_keep_secret IS 'stores a secret of a webhook; called by msg_webhook_set()';

/*
 * msg_channel_rotate_secret(channel, overlap, secret): a new signing secret for a channel's webhook, made here or given; those
 * before it go on to sign too until overlap is over, so that receivers can change in their own time.
 * Returns the new secret, which is not shown again. Errors: 42704 no webhook, 22023 not a secret ("whsec_" and base64 of 24 to 64 bytes),
 * 54000 more than 4 would be in use.
 */
CREATE FUNCTION @extschema@.msg_channel_rotate_secret(channel text, overlap interval DEFAULT '24 h', secret text DEFAULT NULL)
RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	made text := coalesce(msg_channel_rotate_secret.secret, @extschema@.msg_webhook_secret());
BEGIN
	IF NOT EXISTS (SELECT FROM @extschema@.msg_webhook_settings w WHERE w.channel = msg_channel_rotate_secret.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" has no webhook', msg_channel_rotate_secret.channel),
			HINT = 'Give it one with msg_webhook_set().';
	END IF;
	IF NOT @extschema@.msg_webhook_secret_valid(made) THEN
		RAISE invalid_parameter_value USING MESSAGE = 'not a signing secret', HINT = 'It is "whsec_" and the base64 of 24 to 64 bytes.';
	END IF;
	DELETE FROM @extschema@.msg_webhook_secrets s WHERE s.channel = msg_channel_rotate_secret.channel AND s.kind = 'signing'
		AND (s.expires_at <= clock_timestamp() OR msg_channel_rotate_secret.overlap <= '0');
	UPDATE @extschema@.msg_webhook_secrets s SET expires_at = clock_timestamp() + msg_channel_rotate_secret.overlap
	WHERE s.channel = msg_channel_rotate_secret.channel AND s.kind = 'signing' AND s.expires_at IS NULL;
	INSERT INTO @extschema@.msg_webhook_secrets (channel, kind, value) VALUES (msg_channel_rotate_secret.channel, 'signing', made);
	IF (SELECT count(*) > 4 FROM @extschema@.msg_webhook_secrets s WHERE s.channel = msg_channel_rotate_secret.channel AND s.kind = 'signing') THEN
		RAISE program_limit_exceeded USING MESSAGE = format('channel "%s" has 4 signing secrets in use already', msg_channel_rotate_secret.channel),
			HINT = 'Wait until one expires, or use overlap => ''0'' to end them.';
	END IF;
	RETURN made;
END $$;
COMMENT ON FUNCTION @extschema@.msg_channel_rotate_secret IS 'gives a channel''s webhook a new signing secret and returns it; the old ones sign too until the overlap is over';

/* msg_webhook_secret_valid(secret): whether it is "whsec_" and the base64 of 24 to 64 bytes. */
CREATE FUNCTION @extschema@.msg_webhook_secret_valid(secret text) RETURNS boolean
AS 'MODULE_PATHNAME', 'msg_webhook_secret_valid' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.msg_webhook_secret_valid IS 'whether a text is a signing secret';

/*
 * msg_webhook_guard(): secrets belong to the origin that they were given for. Where a webhook is pointed at another one (scheme, host, port), or is to go through
 * another proxy, they are forgotten; so they are with the webhook. And no headers are written into the table that msg_webhook_set() would refuse. With its owner's rights, for nobody else sees them.
 */
CREATE FUNCTION @extschema@.msg_webhook_guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	gone bigint;
BEGIN
	-- what msg_webhook_set() refuses, the table does
	IF TG_OP <> 'DELETE' THEN
		PERFORM @extschema@.msg_webhook_check(NULL::text, NEW.headers, NULL::text);
	END IF;
	IF TG_OP = 'INSERT' THEN
		-- before its first row, the channel "default" has secrets for the URL of the configuration
		IF NEW.channel <> 'default' OR @extschema@.msg_webhook_origin(NEW.url) = @extschema@.msg_webhook_origin(current_setting('msgsys.webhook_url', true)) THEN
			RETURN NULL;
		END IF;
	ELSIF TG_OP = 'UPDATE' THEN
		IF NEW.channel = OLD.channel AND NEW.proxy IS NOT DISTINCT FROM OLD.proxy
			AND @extschema@.msg_webhook_origin(NEW.url) = @extschema@.msg_webhook_origin(OLD.url) THEN
			RETURN NULL;
		END IF;
	END IF;
	DELETE FROM @extschema@.msg_webhook_secrets s WHERE s.channel IN (OLD.channel, NEW.channel);
	GET DIAGNOSTICS gone = ROW_COUNT;
	IF gone > 0 AND TG_OP <> 'DELETE' THEN
		RAISE WARNING 'the secrets of the webhook of channel "%" are forgotten: they were for another origin', NEW.channel
			USING HINT = 'Give them anew: to msg_webhook_set(), and with msg_channel_rotate_secret().';
	END IF;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION @extschema@.msg_webhook_guard IS 'forgets the secrets of a webhook that is pointed at another origin; called by triggers';

/* msg_webhook_origin(url): scheme, host and port of a URL as they are written, in lower case; empty for none. */
CREATE FUNCTION @extschema@.msg_webhook_origin(url text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
SELECT coalesce(lower(substring(url FROM '^[^/?#]*//[^/?#]*')), '')
$$;
COMMENT ON FUNCTION @extschema@.msg_webhook_origin IS 'scheme, host and port of a URL; called by msg_webhook_guard()';

CREATE TRIGGER msgsys_guard AFTER INSERT OR UPDATE OF channel, url, proxy, headers OR DELETE ON @extschema@.msg_webhooks
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_webhook_guard();

/*
 * msg_webhook_enable(channel, enabled, reason): end or begin a webhook's being disabled; while it is, its messages wait.
 * Returns whether that changed anything. Errors: 42704 no webhook.
 */
CREATE FUNCTION @extschema@.msg_webhook_enable(channel text, enabled boolean DEFAULT true, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF NOT EXISTS (SELECT FROM @extschema@.msg_webhooks w WHERE w.channel = msg_webhook_enable.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" has no webhook', msg_webhook_enable.channel);
	END IF;
	-- also where it is: an answer 410 that was asked for before counts no more
	UPDATE @extschema@.msg_webhooks w SET updated_at = clock_timestamp() WHERE w.channel = msg_webhook_enable.channel AND enabled;
	UPDATE @extschema@.msg_webhooks w SET disabled_at = CASE WHEN NOT enabled THEN now() END,
		disabled_reason = CASE WHEN NOT enabled THEN coalesce(reason, 'by ' || CURRENT_USER) END
	WHERE w.channel = msg_webhook_enable.channel AND (w.disabled_at IS NULL) IS DISTINCT FROM enabled;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_webhook_enable IS 'enables a webhook that an answer 410 or somebody has disabled, or disables it';

/*
 * msg_webhook_drop(channel): take a channel's webhook away. What was received and waited for it is finished as received.
 * Returns whether there was one.
 */
CREATE FUNCTION @extschema@.msg_webhook_drop(channel text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	found_one boolean;
BEGIN
	DELETE FROM @extschema@.msg_webhooks w WHERE w.channel = msg_webhook_drop.channel;
	found_one := FOUND;
	DELETE FROM @extschema@.msg_webhook_secrets s WHERE s.channel = msg_webhook_drop.channel;
	DELETE FROM @extschema@.msg_breakers b WHERE b.channel = msg_webhook_drop.channel;
	UPDATE @extschema@.messages m SET finished_at = @extschema@.msg_now()
	WHERE m.channel = msg_webhook_drop.channel AND m.status = 'received' AND m.finished_at IS NULL;
	RETURN found_one;
END $$;
COMMENT ON FUNCTION @extschema@.msg_webhook_drop IS 'takes a channel''s webhook away; what waited for it is finished as received';

/*
 * msg_test(channel, payload, message_key, event_type): one request to a channel's webhook, now, from this session, whether or not the channel is paused
 * or its webhook disabled; nothing is stored. Returns the exact request (secret headers as ***) and the answer; class is as in
 * msg_attempts. Runs with its owner's rights, for the secrets. Errors: 42704 no webhook, 22023 the request cannot be made.
 */
CREATE FUNCTION @extschema@.msg_test(
	channel text, payload jsonb DEFAULT '{"test": true}', message_key text DEFAULT 'test', event_type text DEFAULT 'msgsys.test',
	OUT method text, OUT url text, OUT request_headers jsonb, OUT request_body text, OUT class text, OUT code integer, OUT address text,
	OUT milliseconds integer, OUT response_body text, OUT error text)
RETURNS record AS 'MODULE_PATHNAME', 'msg_test' LANGUAGE C VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION @extschema@.msg_test IS 'makes one request to a channel''s webhook and shows it and its answer';
