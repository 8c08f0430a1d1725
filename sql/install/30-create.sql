-- 30-create.sql: creating messages.

/*
 * msg_create(payload, ...): create one message in the caller's transaction; it is sent when that commits.
 * payload: the value; channel; message_key: ordering and partition key; event_type; headers: object of strings;
 * dedup_key: where the channel has a message with it, that one's id is returned and nothing is created;
 * deliver_at: not before; expires_at: not after; content_type (application/json).
 * Returns the id; NULL where a trigger of the user's did not want the row. Errors: 42704 unknown channel, 23514 or 22023 for a value that cannot be, 54000 too large.
 */
CREATE FUNCTION @extschema@.msg_create(
	payload jsonb, channel text DEFAULT 'default', message_key text DEFAULT NULL, event_type text DEFAULT NULL,
	headers jsonb DEFAULT NULL, dedup_key text DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
	expires_at timestamptz DEFAULT NULL, content_type text DEFAULT NULL)
RETURNS bigint AS 'MODULE_PATHNAME', 'msg_create' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_create IS 'creates a message in the caller''s transaction and returns its id; a dedup_key that the channel has already returns the first id';

/*
 * msg_create_raw(body, ...): as msg_create, with bytes for a value (content_type application/octet-stream).
 */
CREATE FUNCTION @extschema@.msg_create_raw(
	body bytea, channel text DEFAULT 'default', message_key text DEFAULT NULL, event_type text DEFAULT NULL,
	headers jsonb DEFAULT NULL, dedup_key text DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
	expires_at timestamptz DEFAULT NULL, content_type text DEFAULT NULL)
RETURNS bigint AS 'MODULE_PATHNAME', 'msg_create_raw' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_create_raw IS 'creates a message whose value is bytes, and returns its id';

/*
 * msg_create_many(messages): create a message for each object of a JSON array, all or none.
 * The objects' names are msg_create's parameters. Returns the ids in the array's order.
 * Errors: 22023 not an array of objects, or a name that msg_create does not have; and msg_create's.
 */
CREATE FUNCTION @extschema@.msg_create_many(messages jsonb)
RETURNS SETOF bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wrong text;
BEGIN
	IF messages IS NULL OR jsonb_typeof(messages) <> 'array' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'messages must be a JSON array of objects';
	END IF;
	IF EXISTS (SELECT FROM jsonb_array_elements(messages) e WHERE jsonb_typeof(e) <> 'object') THEN
		RAISE invalid_parameter_value USING MESSAGE = 'messages must be a JSON array of objects';
	END IF;
	SELECT k INTO wrong FROM jsonb_array_elements(messages) e, jsonb_object_keys(e) k
	WHERE k NOT IN ('payload', 'channel', 'message_key', 'event_type', 'headers', 'dedup_key', 'deliver_at', 'expires_at', 'content_type')
	LIMIT 1;
	IF FOUND THEN
		RAISE invalid_parameter_value USING MESSAGE = format('unknown name "%s" in messages', wrong),
			HINT = 'The names are those of msg_create''s parameters.';
	END IF;
	IF EXISTS (SELECT FROM jsonb_array_elements(messages) e WHERE e ->> 'dedup_key' IS NOT NULL) THEN
		RETURN QUERY SELECT @extschema@.msg_create(r.payload, coalesce(r.channel, 'default'), r.message_key, r.event_type, r.headers,
			r.dedup_key, r.deliver_at, r.expires_at, r.content_type)
		FROM jsonb_array_elements(messages) WITH ORDINALITY a(e, n), jsonb_to_record(e) r(payload jsonb, channel text, message_key text,
			event_type text, headers jsonb, dedup_key text, deliver_at timestamptz, expires_at timestamptz, content_type text)
		ORDER BY n;
	ELSE
		RETURN QUERY INSERT INTO @extschema@.messages AS m (channel, message_key, event_type, headers, payload, content_type, due_at, expires_at)
		SELECT coalesce(r.channel, 'default'), r.message_key, r.event_type, r.headers, r.payload, r.content_type, r.deliver_at, r.expires_at
		FROM jsonb_array_elements(messages) WITH ORDINALITY a(e, n), jsonb_to_record(e) r(payload jsonb, channel text, message_key text,
			event_type text, headers jsonb, deliver_at timestamptz, expires_at timestamptz, content_type text)
		ORDER BY n
		RETURNING m.id;
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_create_many IS 'creates a message for each object of a JSON array (its names are msg_create''s parameters) and returns the ids in order';

/*
 * msg_create_from_query(query, channel, message_key, event_type, search_path): create a message for each row of a SELECT, in one statement. A row with a
 * column payload is read by the names of msg_create's parameters (its channel, message_key and event_type win over those given here), any other row
 * is the payload itself, as an object. Rows whose dedup_key the channel has already make nothing.
 * The query runs with the caller's rights and search_path; msg_grant() gives the function to operators alone, because a query may become any role
 * that the session's user may become (not over HTTP). Returns how many messages were made. Errors: 22023 a column that msg_create
 * does not have, 42601 or 42P11 not one SELECT (42601 for one that changes data too), and msg_create's.
 */
CREATE FUNCTION @extschema@.msg_create_from_query(query text, channel text DEFAULT 'default', message_key text DEFAULT NULL,
	event_type text DEFAULT NULL, search_path text DEFAULT pg_catalog.current_setting('search_path'))
RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	one refcursor;
	made bigint;
BEGIN
	PERFORM set_config('search_path', msg_create_from_query.search_path, true);
	-- a cursor takes one statement, and parentheses take only what reads: together, one SELECT
	OPEN one NO SCROLL FOR EXECUTE msg_create_from_query.query;
	CLOSE one;
	EXECUTE pg_catalog.format(
		'WITH rows AS MATERIALIZED (SELECT pg_catalog.to_jsonb(q) AS r FROM (%s
		) q),
		checked AS (SELECT r, CASE WHEN r OPERATOR(pg_catalog.?) ''payload'' THEN (SELECT pg_catalog.min(k) FROM pg_catalog.jsonb_object_keys(r) k
			WHERE k OPERATOR(pg_catalog.<>) ALL (''{payload,channel,message_key,event_type,headers,dedup_key,deliver_at,expires_at,content_type}''::pg_catalog.text[])) END AS wrong FROM rows),
		made AS (INSERT INTO @extschema@.messages (channel, message_key, event_type, headers, payload, content_type, due_at, expires_at, dedup_key)
			SELECT COALESCE(v.channel, $1), COALESCE(v.message_key, $2), COALESCE(v.event_type, $3), v.headers,
				CASE WHEN c.r OPERATOR(pg_catalog.?) ''payload'' THEN c.r OPERATOR(pg_catalog.->) ''payload'' ELSE c.r END, v.content_type, v.deliver_at, v.expires_at, v.dedup_key
			FROM checked c LEFT JOIN LATERAL pg_catalog.jsonb_to_record(CASE WHEN c.r OPERATOR(pg_catalog.?) ''payload'' THEN @extschema@.msg_known_names(c.r, c.wrong) END)
				v(channel pg_catalog.text, message_key pg_catalog.text, event_type pg_catalog.text, headers pg_catalog.jsonb, content_type pg_catalog.text,
					deliver_at pg_catalog.timestamptz, expires_at pg_catalog.timestamptz, dedup_key pg_catalog.text) ON true
			ON CONFLICT (channel, dedup_key) WHERE dedup_key IS NOT NULL DO NOTHING RETURNING 1)
		SELECT pg_catalog.count(*) FROM made', msg_create_from_query.query)
	INTO made USING msg_create_from_query.channel, msg_create_from_query.message_key, msg_create_from_query.event_type;
	RETURN made;
END $$;
COMMENT ON FUNCTION @extschema@.msg_create_from_query IS 'creates a message for each row of a SELECT and returns how many';

/* msg_known_names(row, wrong): the row, where it has no wrong name. Errors: 22023. */
CREATE FUNCTION @extschema@.msg_known_names("row" jsonb, wrong text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF wrong IS NOT NULL THEN
		RAISE invalid_parameter_value USING MESSAGE = format('unknown column "%s" beside payload', wrong),
			HINT = 'The names are those of msg_create''s parameters; without a column payload, the whole row is the payload.';
	END IF;
	RETURN "row";
END $$;
COMMENT ON FUNCTION @extschema@.msg_known_names IS 'refuses names that msg_create does not have; called by msg_create_from_query()';
