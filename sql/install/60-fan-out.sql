-- 60-fan-out.sql: subscriptions and publishing.

CREATE TABLE @extschema@.msg_subscriptions (
	id				bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	event_type		text NOT NULL,
	channel			text NOT NULL,
	filter			jsonpath,
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	created_by		text NOT NULL DEFAULT CURRENT_USER
);
-- By the words before the first wildcard, so that a publication looks at those subscriptions alone that begin like its event type.
CREATE INDEX msg_subscriptions_prefix ON @extschema@.msg_subscriptions
	(pg_catalog.rtrim(pg_catalog.split_part(pg_catalog.translate(event_type, '#', '*'), '*', 1), '.'));
CREATE UNIQUE INDEX msg_subscriptions_once ON @extschema@.msg_subscriptions (channel, event_type, COALESCE(filter::text, ''));
COMMENT ON TABLE @extschema@.msg_subscriptions IS 'which channels get a message of which events; see msg_subscribe() and msg_publish()';
COMMENT ON COLUMN @extschema@.msg_subscriptions.id IS 'a number, for msg_unsubscribe()';
COMMENT ON COLUMN @extschema@.msg_subscriptions.event_type IS 'words between dots; the word * stands for any one word, # for any number of words, none included';
COMMENT ON COLUMN @extschema@.msg_subscriptions.channel IS 'the channel that gets the message';
COMMENT ON COLUMN @extschema@.msg_subscriptions.filter IS 'what the payload must have: the first item that this path selects is neither false nor null; an error of the path counts as no item; null: anything';
COMMENT ON COLUMN @extschema@.msg_subscriptions.created_at IS 'when it was made';
COMMENT ON COLUMN @extschema@.msg_subscriptions.created_by IS 'who made it';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_subscriptions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_subscriptions_id_seq', '');

/*
 * msg_event_matches(pattern, event_type): whether an event type matches a subscription's pattern. Words stand between dots; the word "*" of
 * the pattern stands for any one word, "#" for any number of words, none included (AMQP 0-9-1's topic exchange).
 */
CREATE FUNCTION @extschema@.msg_event_matches(pattern text, event_type text) RETURNS boolean
AS 'MODULE_PATHNAME', 'msg_event_matches' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.msg_event_matches IS 'whether an event type matches a pattern, in which * stands for one word and # for any number of them';

/*
 * msg_subscribe(event_type, channel, filter): let a channel have a message of each event that matches.
 * event_type: a pattern, as in msg_event_matches(); filter: a jsonpath, see the column. Returns the subscription's id; the same one again where it
 * is there already. Errors: 42704 no such channel, 22023 a pattern or filter that cannot be.
 */
CREATE FUNCTION @extschema@.msg_subscribe(event_type text, channel text DEFAULT 'default', filter jsonpath DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	made bigint;
BEGIN
	IF msg_subscribe.event_type IS NULL OR octet_length(msg_subscribe.event_type) > 255 OR msg_subscribe.event_type ~ '[[:cntrl:]]'
		OR msg_subscribe.event_type !~ '^([^.*#]+|\*|#)(\.([^.*#]+|\*|#))*$' THEN
		RAISE invalid_parameter_value USING MESSAGE = format('invalid pattern of event types "%s"', msg_subscribe.event_type),
			HINT = 'Words between dots, at most 255 bytes; the word * stands for one word, # for any number of words.';
	END IF;
	-- a variable has no value here, and would make each publication fail; what is quoted is none
	IF regexp_replace(msg_subscribe.filter::text, '"(\\.|[^"\\])*"', '""', 'g') ~ '\$"' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'filter has a variable', HINT = 'Write its value instead.';
	END IF;
	IF NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_subscribe.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_subscribe.channel),
			HINT = 'Make it with msg_channel_set().';
	END IF;
	INSERT INTO @extschema@.msg_subscriptions (event_type, channel, filter)
	VALUES (msg_subscribe.event_type, msg_subscribe.channel, msg_subscribe.filter)
	ON CONFLICT (channel, event_type, (COALESCE(filter::text, ''))) DO NOTHING RETURNING id INTO made;
	IF made IS NULL THEN
		SELECT s.id INTO made FROM @extschema@.msg_subscriptions s
		WHERE s.channel = msg_subscribe.channel AND s.event_type = msg_subscribe.event_type
			AND coalesce(s.filter::text, '') = coalesce(msg_subscribe.filter::text, '');
	END IF;
	RETURN made;
END $$;
COMMENT ON FUNCTION @extschema@.msg_subscribe IS 'lets a channel have a message of each event whose type matches a pattern and whose payload a filter, and returns the subscription''s id';

/* msg_unsubscribe(id): end a subscription; what was published before stays. Returns whether there was one. */
CREATE FUNCTION @extschema@.msg_unsubscribe(id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM @extschema@.msg_subscriptions s WHERE s.id = msg_unsubscribe.id;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_unsubscribe IS 'ends a subscription; false where there is none with this id';

/*
 * msg_publish(event_type, payload, ...): one message for each subscription that matches, in one statement of the caller's transaction.
 * Two subscriptions of one channel that match make two messages. They share the header event-id: a new uuid, or the one that is given; with a given one,
 * publishing the same event again creates nothing (as long as its messages are kept).
 * The other parameters are those of msg_create(). Returns the event's id and the ids of the messages, in the order of the subscriptions.
 * Errors: 22023 no event type, or a longer one than 255 bytes; and msg_create()'s.
 */
CREATE FUNCTION @extschema@.msg_publish(
	event_type text, payload jsonb, message_key text DEFAULT NULL, headers jsonb DEFAULT NULL, event_id uuid DEFAULT NULL,
	deliver_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL, content_type text DEFAULT NULL,
	OUT event uuid, OUT messages bigint[])
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	words text[] := string_to_array(msg_publish.event_type, '.');
	prefixes text[];
BEGIN
	IF coalesce(msg_publish.event_type, '') = '' OR octet_length(msg_publish.event_type) > 255 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'event_type must have 1 to 255 bytes';
	END IF;
	IF msg_publish.payload IS NULL THEN
		RAISE invalid_parameter_value USING MESSAGE = 'an event needs a payload';
	END IF;
	IF msg_publish.headers IS NOT NULL AND jsonb_typeof(msg_publish.headers) <> 'object' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'headers must be an object of strings';
	END IF;
	event := coalesce(msg_publish.event_id, gen_random_uuid());
	prefixes := ARRAY(SELECT array_to_string(words[1:n], '.') FROM generate_series(0, array_length(words, 1)) n);
	WITH made AS (
		INSERT INTO @extschema@.messages AS m (channel, message_key, event_type, content_type, headers, payload, dedup_key, due_at, expires_at)
		SELECT s.channel, msg_publish.message_key, msg_publish.event_type, msg_publish.content_type,
			coalesce(msg_publish.headers, '{}') || jsonb_build_object('event-id', msg_publish.event), msg_publish.payload,
			msg_publish.event_id || ':' || s.id, msg_publish.deliver_at, msg_publish.expires_at
		FROM @extschema@.msg_subscriptions s
		WHERE rtrim(split_part(translate(s.event_type, '#', '*'), '*', 1), '.') = ANY (prefixes)
			AND @extschema@.msg_event_matches(s.event_type, msg_publish.event_type)
			AND CASE WHEN s.filter IS NULL THEN true
				ELSE coalesce(jsonb_path_query_first_tz(msg_publish.payload, s.filter, '{}', true) NOT IN ('false', 'null'), false) END
		ORDER BY s.id
		ON CONFLICT (channel, dedup_key) WHERE dedup_key IS NOT NULL DO NOTHING
		RETURNING m.id)
	SELECT coalesce(array_agg(made.id ORDER BY made.id), '{}') INTO messages FROM made;
END $$;
COMMENT ON FUNCTION @extschema@.msg_publish IS 'creates a message for each subscription that matches an event, and returns the event''s id and theirs';
