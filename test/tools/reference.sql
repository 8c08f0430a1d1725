-- Writes docs/reference.md from the catalogue of a database that has msgsys: functions by what they are for, tables, views, and their
-- comments. A function that is in none of the lists below fails it, so that no new one is forgotten.
--
--   psql -XAtq -v ON_ERROR_STOP=1 -f test/tools/reference.sql >docs/reference.md
\set QUIET on
\pset format unaligned
\pset tuples_only on
BEGIN;
CREATE TEMPORARY TABLE sections (n serial, title text, functions text[]) ON COMMIT DROP;
INSERT INTO sections (title, functions) VALUES
	('Creating messages', '{msg_create,msg_create_many,msg_create_raw,msg_create_from_query,msg_publish,msg_sample}'),
	('Asking', '{msg_get,msg_list,msg_wait,msg_cached,msg_running,msg_stats,msg_live,msg_now}'),
	('Changing messages', '{msg_cancel,msg_cancel_many,msg_reschedule,msg_ack,msg_retry,msg_retry_many,msg_redrive}'),
	('Channels', '{msg_channel_set,msg_channel_drop,msg_pause,msg_resume,msg_pace_set,msg_pace_drop}'),
	('Webhooks', '{msg_webhook_set,msg_webhook_enable,msg_webhook_drop,msg_channel_rotate_secret,msg_webhook_secret,msg_webhook_secret_valid,msg_webhook_check,msg_test,msg_webhook_guard,msg_webhook_origin}'),
	('Subscriptions', '{msg_subscribe,msg_unsubscribe,msg_event_matches}'),
	('Mailings', '{msg_client_set,msg_client_drop,msg_mailing_create,msg_mailing_update,msg_mailing_cancel,msg_mailing_delete,msg_mailing_stats,msg_mailing_messages,msg_daily_report,msg_phone,msg_time_zone,msg_window}'),
	('Retention, cache', '{msg_retention_set,msg_retention_drop,msg_purge,msg_archive_drop,msg_cache_fill}'),
	('Cron', '{msg_cron,msg_crons,msg_cron_drop,msg_statistics_take}'),
	('Administration', '{msg_check,msg_grant,msg_adopt,msg_reconcile,msg_openapi}'),
	-- called by other functions, by triggers, workers and the HTTP facade; not written
	(NULL, '{msg_epoch,msg_truncate_trigger,msg_announce,msg_archive_partition,msg_backlog_sample,msg_cache_entry,msg_cache_get,msg_cache_name,msg_cache_put,msg_check_library,msg_check_files,msg_check_backlog,msg_check_troubles,msg_check_topics,msg_check_unfinished,msg_check_messages,msg_check_workers,msg_check_settings,msg_check_objects,msg_check_tables,msg_check_sequences,msg_check_holds,msg_client_follow,msg_client_trigger,msg_config_trigger,msg_content_trigger,msg_cron_schema,msg_known_names,msg_mailing_check,msg_mailing_expand,msg_mailing_follow,msg_mailing_pass_over,msg_mailing_payload,msg_mailing_reach,msg_mailings_run,msg_message_trigger,msg_openapi_type,msg_purge_step,msg_retry_delay,msg_schedule_trigger,msg_webhook_keep_secret,msg_worker_slots}');

CREATE TEMPORARY VIEW functions AS
SELECT p.* FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'msgsys';
CREATE TEMPORARY VIEW relations AS
SELECT c.* FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'msgsys'
WHERE c.relkind IN ('r', 'p', 'v');

DO $$
DECLARE
	wrong text;
BEGIN
	SELECT string_agg(proname, ', ') INTO wrong FROM functions
	WHERE proname !~ '^msg_http_' AND NOT EXISTS (SELECT FROM sections WHERE proname = ANY (functions));
	IF wrong IS NOT NULL THEN
		RAISE EXCEPTION 'in no section of test/tools/reference.sql: %', wrong;
	END IF;
	SELECT string_agg(name, ', ') INTO wrong FROM sections s, unnest(s.functions) name WHERE NOT EXISTS (SELECT FROM functions WHERE proname = name);
	IF wrong IS NOT NULL THEN
		RAISE EXCEPTION 'in test/tools/reference.sql, but there is no such function: %', wrong;
	END IF;
END $$;

-- who may call what is what msg_grant does; the roles are gone with the transaction
CREATE ROLE msgsys_reference_producer;
CREATE ROLE msgsys_reference_consumer;
CREATE ROLE msgsys_reference_reader;
CREATE ROLE msgsys_reference_operator;
DO $$
DECLARE
	kind text;
BEGIN
	FOREACH kind IN ARRAY '{producer,consumer,reader,operator}'::text[] LOOP
		PERFORM msg_grant(('msgsys_reference_' || kind)::name, kind);
	END LOOP;
END $$;

-- cell(TEXT): as a cell of a table
CREATE FUNCTION pg_temp.cell(text) RETURNS text LANGUAGE sql AS $$ SELECT replace(replace($1, '|', '\|'), '<', '&lt;') $$;
-- short(TEXT): types by their short names, and no casts of constants
CREATE FUNCTION pg_temp.short(text) RETURNS text LANGUAGE sql AS $$
SELECT replace(replace(regexp_replace($1, '::(?:[a-z_]+(?: with(?:out)? time zone)?(?:\[\])?)', '', 'g'), 'timestamp with time zone', 'timestamptz'), 'time without time zone', 'time') $$;
-- parameters(FUNCTION, RESULTS): what it takes, with defaults, or the columns that it returns
CREATE FUNCTION pg_temp.parameters(f oid, results boolean) RETURNS text LANGUAGE sql AS $$
SELECT coalesce(string_agg(replace(replace(pg_temp.short(a), ' DEFAULT ', ' = '), 'OUT ', ''), ', ' ORDER BY n), '')
-- no default has a comma
FROM regexp_split_to_table(pg_get_function_arguments(f), ', ') WITH ORDINALITY x(a, n) WHERE a <> '' AND (a ~ '^OUT ') = results $$;
-- callers(FUNCTION), readers(RELATION): the kinds of roles that may
CREATE FUNCTION pg_temp.callers(f oid) RETURNS text LANGUAGE sql AS $$
SELECT coalesce(string_agg(kind, ', ' ORDER BY n) FILTER (WHERE has_function_privilege('msgsys_reference_' || kind, f, 'EXECUTE')), 'owner')
FROM unnest('{producer,consumer,reader,operator}'::text[]) WITH ORDINALITY k(kind, n) $$;
CREATE FUNCTION pg_temp.readers(r oid) RETURNS text LANGUAGE sql AS $$
SELECT coalesce(string_agg(kind, ', ' ORDER BY n) FILTER (WHERE has_table_privilege('msgsys_reference_' || kind, r, 'SELECT')), 'owner')
FROM unnest('{producer,consumer,reader,operator}'::text[]) WITH ORDINALITY k(kind, n) $$;

SELECT $$<!-- Written by test/tools/reference.sql from the comments in sql/install/: change those. -->
# Reference

Functions, tables and views of msgsys, from their own descriptions: `\df+ msg_*` and `\d+ messages` say the same. Parameters can be given by name
(`topic => 'orders'`), and those with a default left out. In italics: the kinds of roles that [`msg_grant`](#administration) lets call or read it; *owner* is the extension's owner and superusers. Settings are in [README](../README.md#settings) and [HTTP](http.md#settings).
$$;

SELECT format(E'## %s\n\n', s.title) || string_agg(format('- **`%s(%s)`** → `%s`: %s. *%s*', p.proname, pg_temp.parameters(p.oid, false),
	CASE WHEN pg_temp.parameters(p.oid, true) = '' THEN pg_temp.short(pg_get_function_result(p.oid))
	ELSE CASE WHEN p.proretset THEN 'SETOF ' ELSE '' END || '(' || pg_temp.parameters(p.oid, true) || ')' END,
	replace(obj_description(p.oid, 'pg_proc'), '<', '&lt;'), pg_temp.callers(p.oid)), E'\n' ORDER BY o.n) || E'\n'
FROM sections s CROSS JOIN unnest(s.functions) WITH ORDINALITY o(name, n) JOIN functions p ON p.proname = o.name
WHERE s.title IS NOT NULL GROUP BY s.n, s.title ORDER BY s.n;

SELECT E'## Statuses\n\n`msg_status`, in this order: ' || string_agg('`' || enumlabel || '`', ', ' ORDER BY enumsortorder) ||
	E'.\n\n' || upper(left(d, 1)) || substr(d, 2) || E'.\n'
FROM pg_enum, obj_description('msg_status'::regtype, 'pg_type') d WHERE enumtypid = 'msg_status'::regtype GROUP BY d;

SELECT format(E'## %s\n\n%s. *%s*\n\n', c.relname, upper(left(obj_description(c.oid, 'pg_class'), 1)) || substr(obj_description(c.oid, 'pg_class'), 2), pg_temp.readers(c.oid)) || E'| column | type | |\n|---|---|---|\n' ||
	string_agg(format('| `%s` | %s%s | %s |', a.attname, pg_temp.short(format_type(a.atttypid, a.atttypmod)),
		coalesce(' = ' || pg_temp.cell(pg_temp.short(pg_get_expr(x.adbin, x.adrelid))), ''),
		pg_temp.cell(col_description(c.oid, a.attnum))), E'\n' ORDER BY a.attnum) || E'\n'
FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_attrdef x ON x.adrelid = c.oid AND x.adnum = a.attnum
WHERE c.relname <> 'msg_archive'
GROUP BY c.oid, c.relname ORDER BY c.relname COLLATE "C";

SELECT format(E'## msg_archive\n\n%s. Its columns are those of `messages`. *%s*', obj_description(oid, 'pg_class'), pg_temp.readers(oid)) FROM relations WHERE relname = 'msg_archive';
ROLLBACK;
