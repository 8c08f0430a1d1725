-- 45-retention.sql: retention and the archive.

/*
 * msg_retention_set(channel, status, keep, archive): keep messages of a channel (NULL: of all that have no rule of their own for the
 * status) that ended in a status for so long after their end; then they are deleted, or, with archive, moved to msg_archive. The
 * scheduler sees to it. Returns the row. Errors: 42704 unknown channel, 22023 a status that is no end, or a negative time.
 */
CREATE FUNCTION @extschema@.msg_retention_set(channel text, status @extschema@.msg_status, keep interval, archive boolean DEFAULT false)
RETURNS @extschema@.msg_retention LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	rule @extschema@.msg_retention;
BEGIN
	IF msg_retention_set.channel IS NOT NULL AND
		NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_retention_set.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_retention_set.channel),
			HINT = 'Make it with msg_channel_set().';
	END IF;
	IF msg_retention_set.status IN ('scheduled', 'idle', 'retry') OR msg_retention_set.status IS NULL THEN
		RAISE invalid_parameter_value USING MESSAGE = format('messages that are %s are not finished', msg_retention_set.status);
	END IF;
	IF msg_retention_set.keep IS NULL OR msg_retention_set.keep < '0' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'messages are kept for a time that is not negative';
	END IF;
	INSERT INTO @extschema@.msg_retention (channel, status, keep, archive)
	VALUES (coalesce(msg_retention_set.channel, '*'), msg_retention_set.status, msg_retention_set.keep, coalesce(msg_retention_set.archive, false))
	ON CONFLICT (channel, status) DO UPDATE SET keep = excluded.keep, archive = excluded.archive, updated_at = now(), updated_by = CURRENT_USER
	RETURNING * INTO rule;
	RETURN rule;
END $$;
COMMENT ON FUNCTION @extschema@.msg_retention_set IS 'says how long messages are kept that ended in a status, and whether they are archived then';

/* msg_retention_drop(channel, status): keep them for ever (NULL: the rule for all channels). Returns whether there was a rule. */
CREATE FUNCTION @extschema@.msg_retention_drop(channel text, status @extschema@.msg_status) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM @extschema@.msg_retention r
	WHERE r.channel = coalesce(msg_retention_drop.channel, '*') AND r.status = msg_retention_drop.status;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_retention_drop IS 'takes a rule of retention away; false where there was none';

/* msg_archive_partition(at): make the partition of msg_archive for the month of a time, if it is not there. With its owner's rights. */
CREATE FUNCTION @extschema@.msg_archive_partition(at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	month constant timestamp := date_trunc('month', at AT TIME ZONE 'UTC');
	name constant text := 'msg_archive_' || to_char(month, 'YYYY_MM');
	grantee oid;
BEGIN
	IF EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = '@extschema@.msg_archive'::regclass AND c.relname = name AND c.relnamespace = '@extschema@'::regnamespace) THEN
		RETURN;
	END IF;
	-- another table of this name is not taken for it: this fails then
	BEGIN
		EXECUTE format('CREATE TABLE @extschema@.%I PARTITION OF @extschema@.msg_archive (PRIMARY KEY (id)) FOR VALUES FROM (%L) TO (%L)',
			name, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
	EXCEPTION WHEN duplicate_table THEN
		RAISE duplicate_table USING MESSAGE = format('"%s" is there, and is no partition of msg_archive', name),
			HINT = 'Rename it, or drop it: finished messages of that month are archived into a table of this name.';
	END;
	-- what default privileges gave: who may read messages is said by rights on msg_archive
	FOR grantee IN SELECT DISTINCT a.grantee FROM pg_class c, aclexplode(c.relacl) a
		WHERE c.relname = name AND c.relnamespace = '@extschema@'::regnamespace AND a.grantee <> c.relowner
	LOOP
		EXECUTE format('REVOKE ALL ON @extschema@.%I FROM %s CASCADE', name, CASE grantee WHEN '0'::oid THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END);
	END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.msg_archive_partition IS 'makes a month''s partition of msg_archive; called by msg_purge_step()';

/*
 * msg_archive_drop(before): drop the partitions of msg_archive for months that were over at a time, whole, with the owner's rights.
 * Returns how many. Errors: 22023 a time that is not past.
 */
CREATE FUNCTION @extschema@.msg_archive_drop(before timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	partition record;
	dropped integer := 0;
BEGIN
	IF before IS NULL OR before > @extschema@.msg_now() THEN
		RAISE invalid_parameter_value USING MESSAGE = 'only months that are over can be dropped';
	END IF;
	FOR partition IN SELECT c.oid::regclass AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = '@extschema@.msg_archive'::regclass
			AND (to_timestamp(right(c.relname, 7), 'YYYY_MM')::timestamp + interval '1 month') AT TIME ZONE 'UTC' <= before
	LOOP
		EXECUTE format('DROP TABLE %s', partition.name);
		dropped := dropped + 1;
	END LOOP;
	RETURN dropped;
END $$;
COMMENT ON FUNCTION @extschema@.msg_archive_drop IS 'drops the partitions of msg_archive for months that are over';

/*
 * msg_purge_step(above, rows): look at so many messages, those with the next ids above one, and delete or archive what the rules of
 * retention do not keep any more, with its attempts. Rows that somebody holds are left for the next time.
 * last is the highest id looked at (NULL: there are none), purged how many went, more whether those with higher ids may be old
 * enough, shortest the shortest time of all rules (NULL: there are no rules).
 */
CREATE FUNCTION @extschema@.msg_purge_step(above bigint, rows integer, OUT last bigint, OUT purged integer, OUT more boolean, OUT shortest interval)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	now_is constant timestamptz := @extschema@.msg_now();
	old bigint[];
	archived bigint[];
	month timestamptz;
BEGIN
	purged := 0;
	more := false;
	SELECT min(r.keep) INTO shortest FROM @extschema@.msg_retention r;
	IF shortest IS NULL THEN
		RETURN;
	END IF;
	-- a look of bounded cost, whatever it finds
	SELECT max(c.id), count(*) = msg_purge_step.rows AND NOT bool_and(c.created_at > now_is - shortest),
		array_agg(c.id ORDER BY c.id) FILTER (WHERE c.over), array_agg(c.id) FILTER (WHERE c.over AND c.archive)
	INTO last, more, old, archived
	FROM (SELECT m.id, m.created_at, r.archive, m.finished_at < now_is - r.keep AND m.dlq_pending IS NULL AS over
		FROM (SELECT n.id, n.created_at, n.channel, n.status, n.finished_at, n.dlq_pending FROM @extschema@.messages n
			WHERE n.id > msg_purge_step.above ORDER BY n.id LIMIT msg_purge_step.rows) m
		LEFT JOIN LATERAL (SELECT s.keep, s.archive FROM @extschema@.msg_retention s
			WHERE s.status = m.status AND s.channel IN (m.channel, '*') ORDER BY s.channel = '*' LIMIT 1) r ON true) c;
	more := coalesce(more, false);
	IF old IS NULL THEN
		RETURN;
	END IF;
	FOR month IN SELECT DISTINCT date_trunc('month', m.finished_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
		FROM @extschema@.messages m WHERE m.id = ANY (archived) AND m.finished_at IS NOT NULL
	LOOP
		PERFORM @extschema@.msg_archive_partition(month);
	END LOOP;
	WITH free AS (
		SELECT m.id FROM @extschema@.messages m WHERE m.id = ANY (old) ORDER BY m.id FOR UPDATE SKIP LOCKED),
	gone AS (
		DELETE FROM @extschema@.messages m USING free WHERE m.id = free.id AND m.finished_at IS NOT NULL RETURNING m.*),
	kept AS (
		INSERT INTO @extschema@.msg_archive SELECT g.* FROM gone g WHERE g.id = ANY (archived)),
	attempts AS (
		DELETE FROM @extschema@.msg_attempts a USING gone g WHERE a.message_id = g.id AND g.id <> ALL (coalesce(archived, '{}'))),
	highest AS (
		SELECT g.epoch, max(g.id) AS id FROM gone g GROUP BY g.epoch),
	named AS (
		-- what was given is not given again, also when no row tells of it any more
		UPDATE @extschema@.msg_names n SET last_id = h.id FROM highest h WHERE n.epoch = h.epoch AND h.id > coalesce(n.last_id, 0))
	SELECT count(*) INTO purged FROM gone;
END $$;
COMMENT ON FUNCTION @extschema@.msg_purge_step IS 'applies the rules of retention to the next messages above an id';

/*
 * msg_purge("limit"): apply the rules of retention now, from the oldest message on, in this transaction, until about so many are gone.
 * Returns how many. The scheduler does this by itself, in small transactions.
 */
CREATE FUNCTION @extschema@.msg_purge("limit" bigint DEFAULT 100000) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	step record;
	above bigint := 0;
	gone bigint := 0;
BEGIN
	LOOP
		SELECT * INTO step FROM @extschema@.msg_purge_step(above, 10000);
		gone := gone + step.purged;
		EXIT WHEN NOT step.more OR gone >= "limit";
		above := step.last;
	END LOOP;
	RETURN gone;
END $$;
COMMENT ON FUNCTION @extschema@.msg_purge IS 'deletes or archives now what the rules of retention do not keep any more, and returns how many';
