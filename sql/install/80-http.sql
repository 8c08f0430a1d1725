-- 80-http.sql: what the HTTP facade calls: the sample for its metrics, and the routes of other systems.

/*
 * msg_backlog_sample(channels, most): what waits in each of the first so many channels, by name, each status counted up to so many: its cost
 * is bounded, however much waits. oldest_age: seconds that the oldest message has waited which could go on now.
 * Runs with its owner's rights, for the HTTP workers' metrics, which read no message.
 */
CREATE FUNCTION @extschema@.msg_backlog_sample(channels integer DEFAULT 100, most integer DEFAULT 10000)
RETURNS TABLE (channel text, idle bigint, scheduled bigint, retry bigint, sent bigint, received bigint, oldest_age double precision,
	circuit_open boolean, paused boolean)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT c.channel, i.n, d.scheduled, d.retry, s.n, r.n,
	greatest(0, extract(epoch FROM clock_timestamp() - least(i.since, d.since, r.since))),
	EXISTS (SELECT FROM @extschema@.msg_breakers b WHERE b.channel = c.channel AND b.state = 'open'),
	EXISTS (SELECT FROM @extschema@.msg_pauses p WHERE p.channel IN ('*', c.channel))
FROM (SELECT o.channel FROM @extschema@.msg_channel_settings o ORDER BY 1 LIMIT channels) c,
	LATERAL (SELECT count(*) AS n, min(m.created_at) AS since FROM (SELECT created_at FROM @extschema@.messages m
		WHERE m.status = 'idle' AND m.channel = c.channel ORDER BY m.id LIMIT most) m) i,
	LATERAL (SELECT count(*) FILTER (WHERE m.status = 'scheduled') AS scheduled, count(*) FILTER (WHERE m.status = 'retry') AS retry,
		min(m.due_at) FILTER (WHERE m.due_at < now()) AS since FROM (SELECT status, due_at FROM @extschema@.messages m
		WHERE m.status IN ('scheduled', 'retry') AND m.channel = c.channel ORDER BY m.due_at LIMIT most) m) d,
	LATERAL (SELECT count(*) AS n FROM (SELECT FROM @extschema@.messages m
		WHERE m.status = 'sent' AND m.finished_at IS NULL AND m.channel = c.channel ORDER BY m.sent_at LIMIT most) m) s,
	LATERAL (SELECT count(*) AS n, min(m.received_at) AS since FROM (SELECT received_at FROM @extschema@.messages m
		WHERE m.status = 'received' AND m.finished_at IS NULL AND m.channel = c.channel ORDER BY m.id LIMIT most) m) r
ORDER BY c.channel
$$;
COMMENT ON FUNCTION @extschema@.msg_backlog_sample IS 'what waits, by channel, counted up to a bound; for the metrics of the HTTP facade';

-- The routes of other systems (msgsys.http_compat): each function takes a request as src/http_compat.c makes it, and
-- answers as that system's clients expect it. What they call a message's text and its receiver are the members content and to of the payload.

/* msg_http_time(at): a time as RFC 3339 in UTC; null stays null. */
CREATE FUNCTION @extschema@.msg_http_time(at timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
COMMENT ON FUNCTION @extschema@.msg_http_time IS 'a time as other systems write it';

/* msg_http_number(request, name, default): a whole number of the query string; default where it is not said, null where it is none. */
CREATE FUNCTION @extschema@.msg_http_number(request jsonb, name text, "default" bigint DEFAULT NULL) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN NOT request -> 'query' ? name THEN "default"
	WHEN request -> 'query' ->> name ~ '^-?[0-9]{1,15}$' THEN (request -> 'query' ->> name)::bigint END
$$;
COMMENT ON FUNCTION @extschema@.msg_http_number IS 'a whole number of a request''s query string';

/* msg_http_body(request): the body as JSON, or null where it is none. */
CREATE FUNCTION @extschema@.msg_http_body(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN (request ->> 'body')::jsonb;
EXCEPTION WHEN data_exception THEN
	RETURN NULL;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_body IS 'the body of a request as JSON';

/* 000: {"message": text} becomes a message of the channel default. */
CREATE FUNCTION @extschema@.msg_http_000_create(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	message jsonb := @extschema@.msg_http_body(request) -> 'message';
BEGIN
	status := 400;
	IF jsonb_typeof(coalesce(message, '""')) <> 'string' OR jsonb_typeof(@extschema@.msg_http_body(request)) IS DISTINCT FROM 'object' THEN
		body := '{"error":"Bad request","message":"wrond data provided"}';
	ELSIF coalesce(message #>> '{}', '') = '' THEN
		body := '{"error":"Bad request","message":"message cannot be empty"}';
	ELSE
		PERFORM @extschema@.msg_create(jsonb_build_object('message', message), 'default', NULL::text, NULL::text, NULL::jsonb, NULL::text, NULL::timestamptz, NULL::timestamptz, NULL::text);
		status := 200;
		body := '{"status":"created"}';
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_000_create IS 'POST /api/v1/create of system 000';

/* msg_http_measured(part): the same text; counted, where an answer to HTTP is made, towards msgsys.http_max_response. Errors: 54000 that is reached. */
CREATE FUNCTION @extschema@.msg_http_measured(part text) RETURNS text
AS 'MODULE_PATHNAME', 'msg_http_measured' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION @extschema@.msg_http_measured IS 'counts a part of an answer, which must not become too large; called by the routes of other systems';

/* 000: all messages, the newest 10,000 of them, in the order of their ids; its word for sent is send. */
CREATE FUNCTION @extschema@.msg_http_000_messages(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, coalesce(json_agg(json_build_object('id', m.id, 'message', coalesce(@extschema@.msg_http_measured(m.payload ->> 'message'), @extschema@.msg_http_measured(m.payload #>> '{}')),
	'status', CASE m.status WHEN 'sent' THEN 'send' ELSE m.status::text END) ORDER BY m.id), '[]')::text
FROM (SELECT * FROM @extschema@.messages ORDER BY id DESC LIMIT 10000) m
$$;
COMMENT ON FUNCTION @extschema@.msg_http_000_messages IS 'GET /api/v1/getMessages of system 000';

/* 001: what has come to a good end, 20 at a time, 100 at most. */
CREATE FUNCTION @extschema@.msg_http_001_sent(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, json_build_object('data', json_build_object('sentMessages', coalesce(json_agg(json_build_object(
	'id', m.id, 'content', @extschema@.msg_http_measured(m.payload ->> 'content'), 'to', @extschema@.msg_http_measured(m.payload ->> 'to'), 'sent', true,
	'sent_at', json_build_object('Time', @extschema@.msg_http_time(coalesce(m.delivered_at, m.sent_at, m.finished_at)), 'Valid', true),
	'created_at', @extschema@.msg_http_time(m.created_at)) ORDER BY m.id), '[]')), 'message', 'success')::text
FROM (SELECT * FROM @extschema@.messages s WHERE s.status IN ('sent', 'received', 'delivered') AND s.finished_at IS NOT NULL ORDER BY s.id
	LIMIT least(100, greatest(0, coalesce(@extschema@.msg_http_number(request, 'limit', 20::bigint), 20))) OFFSET greatest(0, coalesce(@extschema@.msg_http_number(request, 'offset', 0::bigint), 0))) m
$$;
COMMENT ON FUNCTION @extschema@.msg_http_001_sent IS 'GET /sent-messages of system 001';

/* 001: {"workerStatus": boolean} ends or begins the pause of all. */
CREATE FUNCTION @extschema@.msg_http_001_toggle(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	wanted jsonb := @extschema@.msg_http_body(request) -> 'workerStatus';
BEGIN
	content_type := 'text/plain; charset=utf-8';
	IF jsonb_typeof(wanted) IS DISTINCT FROM 'boolean' THEN
		status := 400;
		body := E'Invalid request body\n';
	ELSE
		status := 200;
		IF wanted::boolean THEN
			PERFORM @extschema@.msg_resume(NULL::text, NULL::text);
		ELSE
			PERFORM @extschema@.msg_pause(NULL::text, 'by POST /toggle-worker');
		END IF;
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_001_toggle IS 'POST /toggle-worker of system 001';

/* 002: its envelope. */
CREATE FUNCTION @extschema@.msg_http_002_reply(status integer, code integer, message text, data json) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
SELECT json_strip_nulls(json_build_object('status', status, 'internalCode', code, 'message', message, 'data', data))::text
$$;
COMMENT ON FUNCTION @extschema@.msg_http_002_reply IS 'the envelope of system 002';

CREATE FUNCTION @extschema@.msg_http_002_start(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN r.done THEN 200 ELSE 400 END, NULL, CASE WHEN r.done THEN @extschema@.msg_http_002_reply(200, 0, NULL::text, '"succeeded"'::json)
	ELSE @extschema@.msg_http_002_reply(400, 400001, 'messenger job is already working', NULL::json) END
FROM (SELECT @extschema@.msg_resume(NULL::text, NULL::text) AS done) r
$$;
COMMENT ON FUNCTION @extschema@.msg_http_002_start IS 'GET /job-scheduler/messenger/start of system 002';

CREATE FUNCTION @extschema@.msg_http_002_stop(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN r.done THEN 200 ELSE 400 END, NULL, CASE WHEN r.done THEN @extschema@.msg_http_002_reply(200, 0, NULL::text, '"succeeded"'::json)
	ELSE @extschema@.msg_http_002_reply(400, 400002, 'messenger job is already stopped', NULL::json) END
FROM (SELECT @extschema@.msg_pause(NULL::text, 'by GET /job-scheduler/messenger/stop') AS done) r
$$;
COMMENT ON FUNCTION @extschema@.msg_http_002_stop IS 'GET /job-scheduler/messenger/stop of system 002';

CREATE FUNCTION @extschema@.msg_http_002_working(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, @extschema@.msg_http_002_reply(200, 0, NULL::text, to_json(CASE WHEN @extschema@.msg_running(NULL::text) THEN 'Working' ELSE 'Not Working' END))
$$;
COMMENT ON FUNCTION @extschema@.msg_http_002_working IS 'GET /job-scheduler/messenger/is-working of system 002';

CREATE FUNCTION @extschema@.msg_http_002_toggle(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	CASE request -> 'query' ->> 'command'
		WHEN 'start' THEN status := (@extschema@.msg_http_002_start(request)).status;
		WHEN 'stop' THEN status := (@extschema@.msg_http_002_stop(request)).status;
		ELSE
			status := 400;
			body := @extschema@.msg_http_002_reply(400, 0, 'Invalid command. Use ''start'' or ''stop''.', NULL::json);
			RETURN;
	END CASE;
	body := CASE status WHEN 200 THEN @extschema@.msg_http_002_reply(200, 0, NULL::text, '"succeeded"'::json)
		ELSE @extschema@.msg_http_002_reply(status, 0, 'there''s an error occurred!', NULL::json) END;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_002_toggle IS 'GET /api/messenger/messenger-job-toggle of system 002';

CREATE FUNCTION @extschema@.msg_http_002_list(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	most bigint := @extschema@.msg_http_number(request, 'limit', NULL::bigint);
	first bigint := @extschema@.msg_http_number(request, 'offset', NULL::bigint);
BEGIN
	status := 400;
	IF most IS NULL THEN
		body := @extschema@.msg_http_002_reply(400, 0, 'Limit must be an integer!', NULL::json);
	ELSIF first IS NULL THEN
		body := @extschema@.msg_http_002_reply(400, 0, 'Offset must be an integer!', NULL::json);
	ELSE
		status := 200;
		body := @extschema@.msg_http_002_reply(200, 0, NULL::text, (SELECT coalesce(json_agg(json_build_object('id', m.id::text, 'to', @extschema@.msg_http_measured(m.payload ->> 'to'), 'content', @extschema@.msg_http_measured(m.payload ->> 'content'),
			'status', CASE WHEN m.status IN ('idle', 'scheduled', 'retry') THEN 'pending' WHEN m.status IN ('sent', 'received', 'delivered') THEN 'sent' ELSE 'invalid' END,
			'sent_at', @extschema@.msg_http_time(coalesce(m.delivered_at, m.sent_at)), 'created_at', @extschema@.msg_http_time(m.created_at)) ORDER BY m.id), '[]')
			FROM (SELECT * FROM @extschema@.messages ORDER BY id LIMIT least(50, greatest(0, most)) OFFSET greatest(0, first)) m));
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_002_list IS 'GET /api/messenger/ of system 002';

CREATE FUNCTION @extschema@.msg_http_002_two(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	first bigint := @extschema@.msg_http_number(request, 'offset', NULL::bigint);
BEGIN
	status := 400;
	IF first IS NULL THEN
		body := @extschema@.msg_http_002_reply(400, 0, 'Offset must be an integer!', NULL::json);
	ELSE
		status := 200;
		body := @extschema@.msg_http_002_reply(200, 0, NULL::text, (SELECT coalesce(json_agg(json_build_object('id', m.id::text, 'to', @extschema@.msg_http_measured(m.payload ->> 'to'), 'content', @extschema@.msg_http_measured(m.payload ->> 'content')) ORDER BY m.id), '[]')
			FROM (SELECT * FROM @extschema@.messages o WHERE o.status = 'idle' ORDER BY o.id LIMIT 2 OFFSET greatest(0, first)) m));
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_002_two IS 'GET /api/messenger/get-two of system 002';

CREATE FUNCTION @extschema@.msg_http_002_commit(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF request ->> 'id' ~ '^[0-9]{1,18}$' AND @extschema@.msg_ack((request ->> 'id')::bigint, 'delivered', NULL::text, NULL::integer) THEN
		BEGIN
			PERFORM @extschema@.msg_cache_put(ARRAY[@extschema@.msg_cache_name(m.id)], ARRAY[@extschema@.msg_cache_entry(m)::text]) FROM @extschema@.messages m WHERE m.id = (request ->> 'id')::bigint;
		EXCEPTION WHEN connection_failure OR object_not_in_prerequisite_state THEN
			-- a cache that does not answer, or that there is none of, holds up nothing
			NULL;
		END;
		status := 200;
		body := @extschema@.msg_http_002_reply(200, 0, NULL::text, '"succeeded"'::json);
	ELSE
		status := 500;
		body := @extschema@.msg_http_002_reply(500, 0, 'Couldn''t commit the message!', NULL::json);
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_002_commit IS 'PUT /api/messenger/commit/{id} of system 002';

/*
 * 003: what the body of a request gives, which must be an object of texts and numbers. Its clients may send all members of one, with Go's zeros for
 * those that they do not mean; only a time_zone of 0 means something. Errors: 22023.
 */
CREATE FUNCTION @extschema@.msg_http_003_body(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	body jsonb := @extschema@.msg_http_body(request);
BEGIN
	IF jsonb_typeof(body) IS DISTINCT FROM 'object' OR EXISTS (SELECT FROM jsonb_each(body) m WHERE jsonb_typeof(m.value) IN ('object', 'array', 'boolean')) THEN
		RAISE invalid_parameter_value USING MESSAGE = 'Bad request, invalid JSON data';
	END IF;
	RETURN (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}') FROM jsonb_each(body) m
		WHERE m.value NOT IN ('null', '""', '0', '"0001-01-01T00:00:00Z"') OR m.key = 'time_zone' AND m.value = '0');
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_003_body IS 'what the body of a request of system 003 gives';

/* 003: the id in a body. Errors: 22023 there is none. */
CREATE FUNCTION @extschema@.msg_http_003_id(body jsonb) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT (body ->> 'id' ~ '^[0-9]{1,18}$') IS TRUE THEN
		RAISE invalid_parameter_value USING MESSAGE = 'id must be a whole number';
	END IF;
	RETURN (body ->> 'id')::bigint;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_003_id IS 'the id in the body of a request of system 003';

/* 003: {"id", "phone_number", "mobile_operator_code", "tag", "time_zone"}: PUT makes a client, whose id the database gives, PATCH changes what is given, DELETE drops it. */
CREATE FUNCTION @extschema@.msg_http_003_client(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	given jsonb := @extschema@.msg_http_003_body(request);
	-- a number in its eyes, and so without a plus sign
	phone text := regexp_replace(given ->> 'phone_number', '^([0-9]+)$', '+\1');
	code text := given ->> 'mobile_operator_code';
	quarters numeric := given ->> 'time_zone';
	zone text := CASE WHEN quarters < 0 THEN '-' ELSE '+' END || to_char(make_interval(mins => (15 * abs(quarters))::integer), 'HH24:MI');
BEGIN
	IF quarters <> trunc(quarters) OR abs(quarters) > 56 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'time_zone is in quarter-hours from UTC, from -56 to 56';
	END IF;
	status := 204;
	CASE request ->> 'method'
		WHEN 'PUT' THEN
			INSERT INTO @extschema@.msg_clients (phone, operator_code, tag, time_zone) VALUES (phone, code, given ->> 'tag', coalesce(zone, 'UTC'));
			status := 201;
		WHEN 'PATCH' THEN
			PERFORM FROM @extschema@.msg_clients c WHERE c.id = @extschema@.msg_http_003_id(given) FOR UPDATE;
			IF NOT FOUND THEN
				RAISE undefined_object USING MESSAGE = format('client %s does not exist', given ->> 'id');
			END IF;
			PERFORM @extschema@.msg_client_set(phone, code, given ->> 'tag', zone, NULL, @extschema@.msg_http_003_id(given));
		WHEN 'DELETE' THEN
			PERFORM @extschema@.msg_client_drop(@extschema@.msg_http_003_id(given));
	END CASE;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_003_client IS 'PUT, PATCH and DELETE /v1/client/ of system 003';

/*
 * 003: {"id", "message_text", "mobile_operator_code", "tag", "filter_choice", "datetime_start", "datetime_end", "interval_start", "interval_end"}: PUT plans a
 * mailing through the channel default, PATCH changes what is given, DELETE cancels and forgets it. Of the interval the times of the day count, as they are
 * written: they are by each client's own clock.
 */
CREATE FUNCTION @extschema@.msg_http_003_mailing(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	given jsonb := @extschema@.msg_http_003_body(request);
	choice text := given ->> 'filter_choice';
	-- of two filters the one that was not chosen is none
	codes text[] := CASE WHEN choice = 'tag' THEN '{}' WHEN given ? 'mobile_operator_code' THEN ARRAY[given ->> 'mobile_operator_code'] END;
	tags text[] := CASE WHEN choice = 'code' THEN '{}' WHEN given ? 'tag' THEN ARRAY[given ->> 'tag'] END;
	begins timestamptz := given ->> 'datetime_start';
	ends timestamptz := given ->> 'datetime_end';
	opens time := regexp_replace(given ->> 'interval_start', '^.*[T ]([0-9:.]+).*$', '\1');
	closes time := regexp_replace(given ->> 'interval_end', '^.*[T ]([0-9:.]+).*$', '\1');
BEGIN
	IF choice NOT IN ('tag', 'code') THEN
		RAISE invalid_parameter_value USING MESSAGE = 'filter_choice must be tag or code';
	END IF;
	IF opens = closes THEN
		opens := '00:00';
		closes := '24:00';
	END IF;
	status := 204;
	CASE request ->> 'method'
		WHEN 'PUT' THEN
			IF choice = 'tag' AND tags IS NULL OR choice = 'code' AND codes IS NULL THEN
				RAISE invalid_parameter_value USING MESSAGE = format('filter_choice is %s, and there is none', choice);
			END IF;
			PERFORM @extschema@.msg_mailing_create(given ->> 'message_text', ends, begins, 'default', codes, tags, opens, closes);
			status := 201;
		WHEN 'PATCH' THEN
			PERFORM @extschema@.msg_mailing_update(@extschema@.msg_http_003_id(given), given ->> 'message_text', ends, begins, NULL, codes, tags, opens, closes);
		WHEN 'DELETE' THEN
			PERFORM @extschema@.msg_mailing_delete(@extschema@.msg_http_003_id(given));
	END CASE;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_003_mailing IS 'PUT, PATCH and DELETE /v1/mailing/ of system 003';

/* 003: how many messages of each mailing have come to a good end (its word: succesed), and how many to another; the rest is on its way. */
CREATE FUNCTION @extschema@.msg_http_003_stats(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, coalesce(json_agg(json_build_object('mailing_id', g.id, 'datetime_start', @extschema@.msg_http_time(g.starts_at),
	'datetime_end', @extschema@.msg_http_time(g.ends_at), 'succesed', s.good, 'failed', s.ended - s.good) ORDER BY g.id), '[]')::text
FROM @extschema@.msg_mailings g, LATERAL (
	SELECT count(*) AS ended, count(*) FILTER (WHERE m.status IN ('sent', 'received', 'delivered')) AS good
	FROM @extschema@.msg_mailing_links l JOIN @extschema@.messages m ON m.id = l.message_id
	WHERE l.mailing_id = g.id AND m.finished_at IS NOT NULL) s
WHERE g.status <> 'deleting'
$$;
COMMENT ON FUNCTION @extschema@.msg_http_003_stats IS 'GET /v1/mailing/stats of system 003';

/* 003: the messages of the mailing {"id"}, the first 10,000 clients' of them. */
CREATE FUNCTION @extschema@.msg_http_003_messages(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, coalesce(json_agg(json_build_object('id', m.id, 'date_time_creation', @extschema@.msg_http_time(m.created_at), 'try', m.attempts,
	'delivery_status', m.finished_at IS NOT NULL AND m.status IN ('sent', 'received', 'delivered'), 'mailing_id', l.mailing_id, 'client_id', l.client_id)
	ORDER BY l.client_id), '[]')::text
FROM @extschema@.msg_mailing_messages(@extschema@.msg_http_003_id(@extschema@.msg_http_003_body(request)), NULL::@extschema@.msg_status, 10000, 0::bigint) l
JOIN @extschema@.messages m ON m.id = l.message_id
$$;
COMMENT ON FUNCTION @extschema@.msg_http_003_messages IS 'POST /v1/mailing/ of system 003';

/* 004: {"action": "start" | "stop"}. */
CREATE FUNCTION @extschema@.msg_http_004_control(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	given jsonb := @extschema@.msg_http_body(request);
BEGIN
	IF jsonb_typeof(given) IS DISTINCT FROM 'object' OR jsonb_typeof(coalesce(given -> 'action', '""')) <> 'string' THEN
		status := 400;
		body := '{"error":"invalid JSON payload"}';
		RETURN;
	END IF;
	CASE given ->> 'action'
		WHEN 'start' THEN
			PERFORM @extschema@.msg_resume(NULL::text, NULL::text);
			status := 200;
			body := '{"message":"Cron job started"}';
		WHEN 'stop' THEN
			PERFORM @extschema@.msg_pause(NULL::text, 'by POST /api/v1/cron/control');
			status := 202;
			body := '{"message":"Cron job will be stopped"}';
		ELSE
			status := 400;
			body := '{"error":"action must be ''start'' or ''stop''"}';
	END CASE;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_004_control IS 'POST /api/v1/cron/control of system 004';

/* 004: what has come to a good end, the newest 10,000 of them; null where there is none, as its clients know it. */
CREATE FUNCTION @extschema@.msg_http_004_sent(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, json_build_object('message', 'Messages fetched successfully', 'data', json_agg(json_build_object('ID', m.id::text,
	'Content', coalesce(@extschema@.msg_http_measured(m.payload ->> 'content'), ''), 'PhoneNumber', coalesce(@extschema@.msg_http_measured(m.payload ->> 'to'), ''), 'IsSent', true) ORDER BY m.id))::text
FROM (SELECT * FROM @extschema@.messages s WHERE s.status IN ('sent', 'received', 'delivered') AND s.finished_at IS NOT NULL ORDER BY s.id DESC LIMIT 10000) m
$$;
COMMENT ON FUNCTION @extschema@.msg_http_004_sent IS 'GET /api/v1/list/sent-messages of system 004';
