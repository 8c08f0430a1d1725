-- 90-rights.sql: who may do what; the last part.

/*
 * msg_grant(role, kind): let a role use msgsys as producer (create), consumer (acknowledge, wait), reader (see
 * everything) or operator (all of that, and change channels, pause, cancel, retry), or as worker (for msgsys.role) or http (for
 * msgsys.http_role). A kind adds
 * to what the role has.
 * Errors: 42704 no such role, 22023 no such kind.
 */
CREATE FUNCTION @extschema@.msg_grant(role name, kind text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t constant text := 'ON TABLE @extschema@.';
	rights text[] := ARRAY['USAGE ON SCHEMA @extschema@'];
	functions text[] := '{msg_now}';
	r text;
BEGIN
	IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
		RAISE undefined_object USING MESSAGE = format('role "%s" does not exist', role);
	END IF;
	IF kind NOT IN ('producer', 'consumer', 'reader', 'operator', 'worker', 'http') OR kind IS NULL THEN
		RAISE invalid_parameter_value USING MESSAGE = format('unknown kind of role "%s"', kind),
			HINT = 'One of producer, consumer, reader, operator, worker and http.';
	END IF;
	IF kind IN ('producer', 'operator', 'worker') THEN
		functions := functions || '{msg_epoch}'::text[];
	END IF;
	IF kind IN ('producer', 'operator') THEN
		functions := functions || '{msg_create,msg_create_raw,msg_create_many,msg_http_body,msg_http_000_create}'::text[];
		rights := rights || ARRAY[
			'INSERT (channel, message_key, event_type, content_type, headers, payload, body, dedup_key, due_at, expires_at) ' || t || 'messages',
			'SELECT (id, channel, dedup_key, status) ' || t || 'messages'];
	END IF;
	IF kind IN ('consumer', 'operator') THEN
		functions := functions || '{msg_ack,msg_wait}'::text[];
		rights := rights || ARRAY['SELECT (id, status) ' || t || 'messages'];
	END IF;
	IF kind IN ('reader', 'operator') THEN
		functions := functions || '{msg_openapi,msg_openapi_type,msg_http_time,msg_http_number,msg_http_measured,msg_http_000_messages,msg_http_001_sent,msg_http_002_reply,msg_http_002_working,msg_http_002_list,msg_http_002_two,msg_http_004_sent,msg_get,msg_list,msg_wait,msg_cached,msg_cache_name,msg_cache_get,msg_cache_entry,msg_live,msg_running,msg_worker_slots,msg_stats}'::text[];
		rights := rights || ARRAY['SELECT ' || t || 'messages', 'SELECT ' || t || 'msg_channels', 'SELECT ' || t || 'msg_channel_settings',
			'SELECT ' || t || 'msg_pauses', 'SELECT ' || t || 'msg_pause_log', 'SELECT ' || t || 'msg_paces', 'SELECT ' || t || 'msg_runs', 'SELECT ' || t || 'msg_statistics', 'SELECT ' || t || 'msg_retention', 'SELECT ' || t || 'msg_archive',
			'SELECT ' || t || 'msg_offsets', 'SELECT ' || t || 'msg_installation',
			'SELECT (epoch, uuid, system_identifier, database_oid, identity, timeline, place, host, ordinal, first_id, last_id, began_at, ended_at, held_at, adopted_at, theirs, lost_records, lost_last_at) ' || t || 'msg_names', 'SELECT ' || t || 'msg_backlog', 'SELECT ' || t || 'msg_unfinished', 'SELECT ' || t || 'msg_unreachable_channels', 'SELECT ' || t || 'msg_unreachable', 'SELECT ' || t || 'msg_workers', 'SELECT ' || t || 'msg_webhooks', 'SELECT ' || t || 'msg_webhook_settings',
			'SELECT ' || t || 'msg_breakers', 'SELECT (id, message_id, channel, attempt, at, milliseconds, class, code) ' || t || 'msg_attempts'];
	END IF;
	IF kind = 'operator' THEN
		functions := functions || '{msg_create_from_query,msg_known_names,msg_reconcile,msg_cancel,msg_cancel_many,msg_reschedule,msg_retry,msg_retry_many,msg_redrive,msg_pace_set,msg_pace_drop,msg_cron,msg_cron_drop,msg_crons,msg_cron_schema,msg_statistics_take,msg_retention_set,msg_retention_drop,msg_purge,msg_purge_step,msg_archive_partition,msg_archive_drop,msg_cache_fill,msg_cache_put,msg_channel_set,msg_channel_drop,msg_pause,msg_resume,msg_adopt,msg_webhook_set,msg_webhook_check,msg_webhook_keep_secret,msg_webhook_enable,msg_webhook_drop,msg_webhook_secret,msg_channel_rotate_secret,msg_test,msg_http_body,msg_http_001_toggle,msg_http_002_start,msg_http_002_stop,msg_http_002_toggle,msg_http_002_commit,msg_http_004_control}'::text[];
		rights := rights || ARRAY['UPDATE, DELETE ' || t || 'messages', 'INSERT, UPDATE, DELETE ' || t || 'msg_channels',
			'INSERT, UPDATE, DELETE ' || t || 'msg_pauses', 'INSERT ' || t || 'msg_pause_log', 'INSERT, UPDATE, DELETE ' || t || 'msg_paces',
			'INSERT, DELETE ' || t || 'msg_statistics', 'INSERT, UPDATE, DELETE ' || t || 'msg_retention', 'INSERT ' || t || 'msg_archive', 'DELETE ' || t || 'msg_attempts',
			'UPDATE ' || t || 'msg_runs', 'UPDATE (last_id) ' || t || 'msg_names',
			'SELECT ' || t || 'msg_attempts', 'INSERT, UPDATE, DELETE ' || t || 'msg_webhooks',
			'SELECT (channel), DELETE ' || t || 'msg_webhook_secrets', 'DELETE ' || t || 'msg_breakers'];
	END IF;
	IF kind = 'http' THEN
		functions := functions || '{msg_backlog_sample,msg_openapi,msg_openapi_type}'::text[];
	END IF;
	IF kind = 'worker' THEN
		functions := functions || '{msg_retry_delay,msg_reconcile,msg_purge_step,msg_archive_partition}'::text[];
		rights := rights || ARRAY['SELECT, UPDATE, DELETE ' || t || 'messages', 'SELECT, UPDATE ' || t || 'msg_channels', 'SELECT ' || t || 'msg_retention',
			'INSERT ' || t || 'msg_archive', 'DELETE ' || t || 'msg_runs', 'SELECT, DELETE ' || t || 'msg_attempts',
			'SELECT ' || t || 'msg_channel_settings', 'SELECT ' || t || 'msg_unreachable', 'SELECT ' || t || 'msg_pauses', 'SELECT, UPDATE ' || t || 'msg_paces',
			'SELECT, INSERT, UPDATE ' || t || 'msg_runs', 'SELECT, INSERT, UPDATE ' || t || 'msg_offsets',
			'SELECT, UPDATE (last_id, lost_records, lost_last_at, held_at) ' || t || 'msg_names', 'SELECT ON SEQUENCE @extschema@.messages_id_seq', 'SELECT, UPDATE ' || t || 'msg_webhooks', 'SELECT ' || t || 'msg_webhook_settings',
			'SELECT ' || t || 'msg_webhook_secrets', 'INSERT ' || t || 'msg_attempts', 'SELECT, INSERT, UPDATE, DELETE ' || t || 'msg_breakers'];
	END IF;
	-- fan-out
	IF kind IN ('producer', 'operator') THEN
		functions := functions || '{msg_publish,msg_event_matches}'::text[];
		rights := rights || ('SELECT (id, event_type, channel, filter) ' || t || 'msg_subscriptions');
	END IF;
	IF kind IN ('reader', 'operator') THEN
		functions := functions || '{msg_event_matches}'::text[];
		rights := rights || ('SELECT ' || t || 'msg_subscriptions');
	END IF;
	IF kind = 'operator' THEN
		functions := functions || '{msg_subscribe,msg_unsubscribe}'::text[];
		rights := rights || ('INSERT, DELETE ' || t || 'msg_subscriptions');
	END IF;
	-- Debezium's outbox, samples
	IF kind IN ('producer', 'operator') THEN
		functions := functions || '{msg_sample}'::text[];
		rights := rights || ('INSERT, SELECT (id) ' || t || 'msg_outbox');
	END IF;
	IF kind IN ('reader', 'operator') THEN
		rights := rights || ('SELECT ' || t || 'msg_outbox');
	END IF;
	-- mailings
	IF kind IN ('reader', 'operator') THEN
		functions := functions || '{msg_mailing_stats,msg_mailing_messages,msg_daily_report,msg_phone,msg_time_zone,msg_window}'::text[];
		rights := rights || ARRAY['SELECT ' || t || 'msg_clients', 'SELECT ' || t || 'msg_mailings', 'SELECT ' || t || 'msg_mailing_links',
			'SELECT ' || t || 'msg_mailing_log'];
	END IF;
	IF kind = 'operator' THEN
		functions := functions || '{msg_client_set,msg_client_drop,msg_client_follow,msg_mailing_create,msg_mailing_update,msg_mailing_cancel,msg_mailing_delete,msg_mailing_check}'::text[];
		rights := rights || ARRAY['INSERT, UPDATE, DELETE ' || t || 'msg_clients', 'INSERT, UPDATE, DELETE ' || t || 'msg_mailings',
			'DELETE ' || t || 'msg_mailing_links', 'USAGE ON SEQUENCE @extschema@.msg_clients_id_seq'];
	END IF;
	IF kind = 'worker' THEN
		functions := functions || '{msg_mailings_run,msg_mailing_reach,msg_mailing_pass_over,msg_mailing_expand,msg_window}'::text[];
		rights := rights || ARRAY['INSERT ' || t || 'messages', 'SELECT ' || t || 'msg_clients', 'SELECT, UPDATE, DELETE ' || t || 'msg_mailings',
			'SELECT, INSERT, DELETE ' || t || 'msg_mailing_links'];
	END IF;
	IF kind IN ('operator', 'worker') THEN
		functions := functions || '{msg_mailing_follow,msg_mailing_payload,msg_window}'::text[];
	END IF;
	-- the doctor
	IF kind IN ('reader', 'operator') THEN
		functions := functions || '{msg_check,msg_check_library,msg_check_files,msg_check_backlog,msg_check_troubles,msg_check_topics,msg_check_unfinished,msg_check_messages,msg_check_workers,msg_check_settings,msg_check_objects,msg_check_tables,msg_check_sequences,msg_check_holds}'::text[];
	END IF;
	-- system 003's routes
	IF kind IN ('reader', 'operator') THEN
		functions := functions || '{msg_http_body,msg_http_003_body,msg_http_003_id,msg_http_003_stats,msg_http_003_messages}'::text[];
	END IF;
	IF kind = 'operator' THEN
		functions := functions || '{msg_http_003_client,msg_http_003_mailing}'::text[];
	END IF;
	FOREACH r IN ARRAY rights LOOP
		EXECUTE format('GRANT %s TO %I', r, role);
	END LOOP;
	FOR r IN SELECT p.oid::regprocedure::text FROM pg_proc p
		JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
		JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'msgsys'
		WHERE p.proname = ANY (functions)
	LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', r, role);
	END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.msg_grant IS 'lets a role use msgsys: kind is producer, consumer, reader or operator; worker for msgsys.role, http for msgsys.http_role. A role may have several kinds';

-- Tells the workers that the extension is there, when this commits; warns where there are none.
CREATE FUNCTION @extschema@.msg_announce() RETURNS void AS 'MODULE_PATHNAME', 'msg_announce' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_announce IS 'wakes the workers of this database; called by the install script';

-- Nobody but who was granted it: functions are for PUBLIC by default, and ALTER DEFAULT PRIVILEGES may have given any role all there is, secrets too.
DO $$
DECLARE
	o record;
BEGIN
	FOR o IN SELECT DISTINCT m.kind, m.name, a.grantee FROM (
			SELECT 'FUNCTION' AS kind, p.oid::pg_catalog.regprocedure::text AS name, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) AS acl, p.proowner AS owner
			FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
			JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid AND e.extname = 'msgsys'
			UNION ALL
			SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::pg_catalog.regclass::text, c.relacl, c.relowner
			FROM pg_catalog.pg_class c JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'
			JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid AND e.extname = 'msgsys'
			WHERE c.relkind IN ('r', 'p', 'v', 'S')) m, pg_catalog.aclexplode(m.acl) a
		WHERE a.grantee <> m.owner
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s CASCADE', o.kind, o.name,
			CASE o.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(o.grantee)) END);
	END LOOP;
END $$;

SELECT @extschema@.msg_announce();
-- A PostgREST that serves this database reads its catalogue again.
NOTIFY pgrst, 'reload schema';
