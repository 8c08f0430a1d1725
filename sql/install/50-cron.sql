-- 50-cron.sql: jobs by pg_cron.

/* msg_statistics_take(): write the backlog into msg_statistics, and forget there what is older than 30 days. Returns the number of rows. */
CREATE FUNCTION @extschema@.msg_statistics_take() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DELETE FROM @extschema@.msg_statistics WHERE at < @extschema@.msg_now() - interval '30 days';
WITH taken AS (INSERT INTO @extschema@.msg_statistics (at, channel, status, count, oldest_age)
	SELECT @extschema@.msg_now(), b.channel, b.status, b.count, b.oldest_age FROM @extschema@.msg_backlog b RETURNING 1)
SELECT count(*) FROM taken
$$;
COMMENT ON FUNCTION @extschema@.msg_statistics_take IS 'writes the backlog into msg_statistics';

/* msg_cron_schema(): the quoted schema of pg_cron. Errors: 0A000 it is not in this database. */
CREATE FUNCTION @extschema@.msg_cron_schema() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') THEN
		RAISE feature_not_supported USING MESSAGE = 'pg_cron is not installed in this database',
			HINT = 'Add pg_cron to shared_preload_libraries, set cron.database_name to this database, and CREATE EXTENSION pg_cron. Retention needs no pg_cron: its rules are applied by the scheduler.';
	END IF;
	RETURN 'cron';
END $$;
COMMENT ON FUNCTION @extschema@.msg_cron_schema IS 'the schema of pg_cron, or an error that says how to install it';

/*
 * msg_cron(name, schedule, payload, query, job, channel, message_key, event_type): have pg_cron do something by a schedule in its syntax ('0 9 * * 1'): create a
 * message with a payload, or one for each row of a query (see msg_create_from_query()), or do a job that is ready: 'retention' (msg_purge()) or
 * 'statistics' (msg_statistics_take()). Exactly one of payload, query and job. It runs as the caller; a job of this name is replaced.
 * Returns pg_cron's number of it. Errors: 0A000 without pg_cron, 22023.
 */
CREATE FUNCTION @extschema@.msg_cron(name text, schedule text, payload jsonb DEFAULT NULL, query text DEFAULT NULL, job text DEFAULT NULL,
	channel text DEFAULT 'default', message_key text DEFAULT NULL, event_type text DEFAULT NULL, search_path text DEFAULT pg_catalog.current_setting('search_path'))
RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	command text;
	id bigint;
BEGIN
	IF name IS NULL OR name = '' OR schedule IS NULL OR num_nonnulls(payload, query, job) <> 1 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'a cron job needs a name, a schedule, and one of payload, query and job';
	END IF;
	IF NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_cron.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_cron.channel),
			HINT = 'Make it with msg_channel_set().';
	END IF;
	command := CASE
		WHEN payload IS NOT NULL THEN format('SELECT @extschema@.msg_create(%L::jsonb, channel => %L, message_key => %L, event_type => %L)',
			payload, channel, message_key, event_type)
		WHEN query IS NOT NULL THEN format('SELECT @extschema@.msg_create_from_query(%L, channel => %L, message_key => %L, event_type => %L, search_path => %L)',
			query, channel, message_key, event_type, search_path)
		WHEN job = 'retention' THEN 'SELECT @extschema@.msg_purge()'
		WHEN job = 'statistics' THEN 'SELECT @extschema@.msg_statistics_take()'
	END;
	IF command IS NULL THEN
		RAISE invalid_parameter_value USING MESSAGE = format('there is no job "%s"', job), HINT = 'One of retention and statistics.';
	END IF;
	EXECUTE format('SELECT %s.schedule($1, $2, $3)', @extschema@.msg_cron_schema()) INTO id USING 'msgsys:' || name, schedule, command;
	RETURN id;
END $$;
COMMENT ON FUNCTION @extschema@.msg_cron IS 'has pg_cron do something by a schedule, and returns its number of the job: create a message (payload) or one for each row of a SELECT (query), or do a job of msgsys (job: retention or statistics). A job of this name is replaced';

/* msg_cron_drop(name): end a job that msg_cron() made. Returns whether there was one of the caller's. Errors: 0A000 without pg_cron. */
CREATE FUNCTION @extschema@.msg_cron_drop(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	there boolean;
	gone boolean;
BEGIN
	EXECUTE format('SELECT EXISTS (SELECT FROM %s.job WHERE jobname = $1 AND username = CURRENT_USER)', @extschema@.msg_cron_schema())
	INTO there USING 'msgsys:' || name;
	IF NOT there THEN
		RETURN false;
	END IF;
	EXECUTE format('SELECT %s.unschedule($1)', @extschema@.msg_cron_schema()) INTO gone USING 'msgsys:' || name;
	RETURN gone;
END $$;
COMMENT ON FUNCTION @extschema@.msg_cron_drop IS 'ends a job that msg_cron() made; false where there is none';

/* msg_crons(): the jobs that msg_cron() made and the caller may see, with the time and outcome of the latest run. Errors: 0A000 without pg_cron. */
CREATE FUNCTION @extschema@.msg_crons(OUT name text, OUT schedule text, OUT command text, OUT active boolean, OUT last_run timestamptz, OUT last_status text,
	OUT last_message text)
RETURNS SETOF record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT substr(j.jobname, 8)::text, j.schedule, j.command, j.active, d.start_time, d.status, d.return_message
		FROM %1$s.job j LEFT JOIN LATERAL (SELECT r.start_time, r.status, r.return_message FROM %1$s.job_run_details r
			WHERE r.jobid = j.jobid ORDER BY r.runid DESC LIMIT 1) d ON true
		WHERE starts_with(j.jobname::text, ''msgsys:'') ORDER BY 1', @extschema@.msg_cron_schema());
END $$;
COMMENT ON FUNCTION @extschema@.msg_crons IS 'the jobs that msg_cron() made, with their latest runs';
