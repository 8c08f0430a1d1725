-- The contract of the SQL surface: names, types, arguments, volatility.
\set QUIET on
CREATE EXTENSION pgtap;
SET client_min_messages = error;
CREATE EXTENSION msgsys;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on
SELECT * FROM no_plan();

SELECT enum_has_labels('msg_status', ARRAY['scheduled', 'idle', 'sent', 'received', 'retry', 'delivered', 'dead', 'cancelled', 'expired']);

SELECT tables_are('public', ARRAY['messages', 'msg_channels', 'msg_pauses', 'msg_offsets', 'msg_names', 'msg_webhooks', 'msg_webhook_secrets',
	'msg_attempts', 'msg_breakers', 'msg_pause_log', 'msg_paces', 'msg_runs', 'msg_retention', 'msg_archive', 'msg_statistics', 'msg_subscriptions', 'msg_clients',
	'msg_mailings', 'msg_mailing_links']);
SELECT has_view('public', v, v || ' is a view') FROM unnest(ARRAY['msg_workers', 'msg_backlog', 'msg_channel_settings', 'msg_webhook_settings', 'msg_mailing_log', 'msg_outbox', 'msg_installation']) v;
SELECT columns_are('public', 'messages', ARRAY['id', 'created_at', 'due_at', 'expires_at', 'sent_at', 'received_at', 'delivered_at',
	'finished_at', 'kafka_offset', 'kafka_partition', 'status', 'attempts', 'response_code', 'channel', 'message_key', 'event_type',
	'content_type', 'headers', 'payload', 'body', 'dedup_key', 'response_id', 'last_error', 'dlq_pending', 'epoch']);
SELECT col_type_is('messages', c, t, c || ' is ' || t) FROM (VALUES ('id', 'bigint'), ('status', 'msg_status'), ('payload', 'jsonb'),
	('body', 'bytea'), ('headers', 'jsonb'), ('due_at', 'timestamp with time zone'), ('kafka_offset', 'bigint'),
	('kafka_partition', 'integer'), ('attempts', 'integer'), ('channel', 'text')) c(c, t);
SELECT col_is_pk('messages', 'id');
SELECT col_not_null('messages', c) FROM unnest(ARRAY['id', 'created_at', 'status', 'attempts', 'channel']) c;
SELECT is(attnum::int, n, 'the trigger finds ' || attname || ' where it is') FROM pg_attribute JOIN (VALUES ('id', 1), ('created_at', 2), ('due_at', 3),
	('expires_at', 4), ('status', 11), ('channel', 14), ('message_key', 15), ('event_type', 16), ('content_type', 17), ('headers', 18),
	('payload', 19), ('body', 20), ('finished_at', 8), ('epoch', 25)) v(c, n) ON attname = c WHERE attrelid = 'messages'::regclass;

-- only what is live is indexed
SELECT indexes_are('public', 'messages', ARRAY['messages_pkey', 'messages_idle', 'messages_due', 'messages_unacknowledged', 'messages_received',
	'messages_dead_letters', 'messages_dedup']);
SELECT isnt(indpred, NULL, indexrelid::regclass || ' is partial') FROM pg_index WHERE indrelid = 'messages'::regclass AND NOT indisprimary;
SELECT is(count(*), 0::bigint, 'no foreign key on messages') FROM pg_constraint WHERE conrelid = 'messages'::regclass AND contype = 'f';

-- functions: each once, arguments by name, honest volatility
SELECT is(pg_get_function_identity_arguments(p.oid), v.arguments, v.name || '''s arguments')
FROM (VALUES
	('msg_create', 'payload jsonb, channel text, message_key text, event_type text, headers jsonb, dedup_key text, deliver_at timestamp with time zone, expires_at timestamp with time zone, content_type text'),
	('msg_create_raw', 'body bytea, channel text, message_key text, event_type text, headers jsonb, dedup_key text, deliver_at timestamp with time zone, expires_at timestamp with time zone, content_type text'),
	('msg_create_many', 'messages jsonb'),
	('msg_get', 'id bigint'),
	('msg_list', 'status msg_status, channel text, "limit" integer, "offset" bigint'),
	('msg_cancel', 'id bigint'),
	('msg_redrive', 'channel text, "from" timestamp with time zone, "to" timestamp with time zone, error text, "limit" bigint'),
	('msg_channel_rotate_secret', 'channel text, overlap interval, secret text'),
	('msg_webhook_enable', 'channel text, enabled boolean, reason text'),
	('msg_webhook_drop', 'channel text'),
	('msg_retry', 'id bigint'),
	('msg_cancel_many', 'ids bigint[]'),
	('msg_retry_many', 'ids bigint[]'),
	('msg_subscribe', 'event_type text, channel text, filter jsonpath'),
	('msg_unsubscribe', 'id bigint'),
	('msg_sample', 'n integer, seed bigint, channel text'),
	('msg_client_set', 'phone text, operator_code text, tag text, time_zone text, attributes jsonb, id bigint'),
	('msg_client_drop', 'id bigint'),
	('msg_mailing_create', 'text text, ends_at timestamp with time zone, starts_at timestamp with time zone, channel text, operator_codes text[], tags text[], window_from time without time zone, window_to time without time zone'),
	('msg_mailing_update', 'id bigint, text text, ends_at timestamp with time zone, starts_at timestamp with time zone, channel text, operator_codes text[], tags text[], window_from time without time zone, window_to time without time zone'),
	('msg_mailing_cancel', 'id bigint'),
	('msg_mailing_delete', 'id bigint'),
	('msg_mailing_messages', 'id bigint, status msg_status, "limit" integer, after bigint'),
	('msg_window', 'time_zone text, window_from time without time zone, window_to time without time zone, at timestamp with time zone'),
	('msg_event_matches', 'pattern text, event_type text'),
	('msg_publish', 'event_type text, payload jsonb, message_key text, headers jsonb, event_id uuid, deliver_at timestamp with time zone, expires_at timestamp with time zone, content_type text, OUT event uuid, OUT messages bigint[]'),
	('msg_ack', 'id bigint, outcome text, error text, attempt integer'),
	('msg_wait', 'id bigint, status msg_status, timeout interval'),
	('msg_channel_set', 'channel text, topic text, ack text, max_attempts integer, retry_base interval, retry_max interval, resend_after interval'),
	('msg_channel_drop', 'channel text, discard boolean'),
	('msg_pause', 'channel text, reason text'),
	('msg_resume', 'channel text, reason text'),
	('msg_reschedule', 'id bigint, deliver_at timestamp with time zone'),
	('msg_pace_set', 'channel text, batch integer, every interval, at_once boolean'),
	('msg_pace_drop', 'channel text'),
	('msg_retention_set', 'channel text, status msg_status, keep interval, archive boolean'),
	('msg_retention_drop', 'channel text, status msg_status'),
	('msg_purge', '"limit" bigint'),
	('msg_create_from_query', 'query text, channel text, message_key text, event_type text, search_path text'),
	('msg_cron', 'name text, schedule text, payload jsonb, query text, job text, channel text, message_key text, event_type text, search_path text'),
	('msg_cron_drop', 'name text'),
	('msg_statistics_take', ''),
	('msg_archive_drop', 'before timestamp with time zone'),
	('msg_running', 'channel text'),
	('msg_stats', 'OUT stage text, OUT counter text, OUT value bigint'),
	('msg_adopt', 'original text'),
	('msg_grant', 'role name, kind text')) v(name, arguments)
LEFT JOIN pg_proc p ON p.proname = v.name;
SELECT is(provolatile, CASE WHEN proname IN ('msg_get', 'msg_list', 'msg_running', 'msg_live', 'msg_check_messages', 'msg_check_settings', 'msg_check_objects',
	'msg_check_sequences', 'msg_cache_entry', 'msg_cache_name', 'msg_cron_schema', 'msg_time_zone', 'msg_window',
	'msg_mailing_payload', 'msg_mailing_reach', 'msg_mailing_stats', 'msg_mailing_messages', 'msg_daily_report', 'msg_openapi', 'msg_openapi_type', 'msg_http_time', 'msg_http_number', 'msg_http_body',
	'msg_http_000_messages', 'msg_http_001_sent', 'msg_http_002_reply', 'msg_http_002_working', 'msg_http_002_list', 'msg_http_002_two', 'msg_http_003_body', 'msg_http_003_stats', 'msg_http_003_messages', 'msg_http_004_sent') THEN 's' WHEN proname IN ('msg_webhook_secret_valid', 'msg_known_names', 'msg_event_matches', 'msg_phone', 'msg_http_003_id', 'msg_webhook_origin') THEN 'i' ELSE 'v' END::"char", proname || '''s volatility')
FROM pg_proc WHERE proname LIKE 'msg\_%' ORDER BY proname;
SELECT is(count(*), 1::bigint, 'one function is called ' || proname) FROM pg_proc WHERE proname LIKE 'msg\_%' GROUP BY proname ORDER BY proname;
SELECT ok(prosecdef, proname || ' runs as its owner') FROM pg_proc WHERE proname IN ('msg_ack', 'msg_wait', 'msg_webhook_keep_secret', 'msg_webhook_guard', 'msg_channel_rotate_secret', 'msg_test', 'msg_archive_partition', 'msg_archive_drop', 'msg_backlog_sample', 'msg_adopt');
SELECT ok(NOT prosecdef, proname || ' runs as its caller') FROM pg_proc WHERE proname LIKE 'msg\_%' AND proname NOT IN ('msg_ack', 'msg_wait', 'msg_webhook_keep_secret', 'msg_webhook_guard', 'msg_channel_rotate_secret', 'msg_test', 'msg_archive_partition', 'msg_archive_drop', 'msg_backlog_sample', 'msg_adopt');
SELECT ok('search_path=pg_catalog, pg_temp' = ANY (proconfig), proname || ' has a search_path of its own')
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE proname LIKE 'msg\_%' AND l.lanname IN ('sql', 'plpgsql');

-- a call by names, as PostgREST makes it
SELECT lives_ok($$SELECT msg_create(payload => '1', channel => 'default', message_key => 'k')$$, 'msg_create by names');
SELECT lives_ok($$SELECT * FROM msg_list(status => 'idle', "limit" => 1, "offset" => 0)$$, 'msg_list by names');
SELECT throws_ok($$SELECT msg_create('1', 'nowhere')$$, '42704', 'channel "nowhere" does not exist');
SELECT * FROM finish();
