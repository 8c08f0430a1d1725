-- Messages from queries, and what cron jobs say where there is no pg_cron.
CREATE EXTENSION pgtap;
CREATE EXTENSION msgsys;
SET client_min_messages = warning;
SELECT no_plan();

CREATE SCHEMA shop;
CREATE TABLE shop.orders (id bigint, total numeric);
INSERT INTO shop.orders SELECT g, g * 10 FROM generate_series(1, 5) g;
SELECT msg_channel_set('orders');

SELECT is(msg_create_from_query('SELECT id, total FROM shop.orders WHERE id <= 2', 'orders'), 2::bigint, 'a message for each row');
SELECT results_eq('SELECT payload::text FROM messages ORDER BY id', $$VALUES ('{"id": 1, "total": 10}'), ('{"id": 2, "total": 20}')$$, 'the row is the payload');
SELECT is(msg_create_from_query($$SELECT jsonb_build_object('o', id) AS payload, 'orders' AS channel, 'k' || id AS message_key, '{"h": "1"}'::jsonb AS headers,
	now() + interval '1 h' AS deliver_at, 'd' || id % 2 AS dedup_key FROM shop.orders WHERE id > 2$$, event_type => 'order.late'), 2::bigint, 'or its columns are named');
SELECT results_eq($$SELECT channel, message_key, event_type, status::text, headers ->> 'h' FROM messages WHERE event_type = 'order.late' ORDER BY id$$,
	$$VALUES ('orders', 'k3', 'order.late', 'scheduled', '1'), ('orders', 'k4', 'order.late', 'scheduled', '1')$$, 'as msg_create''s parameters');
SET search_path = shop, public;
SELECT is(msg_create_from_query('TABLE orders'), 5::bigint, 'the caller''s search_path is that of the query');
RESET search_path;
SELECT is(msg_create_from_query('WITH o AS (SELECT 1 AS a) SELECT a FROM o -- and a comment'), 1::bigint, 'a comment at the end does no harm');
SELECT is(msg_create_from_query('VALUES (1), (2)'), 2::bigint, 'VALUES will do');
SELECT is(msg_create_from_query('SELECT 1 AS payload WHERE false'), 0::bigint, 'no row, no message');

SELECT throws_ok($$SELECT msg_create_from_query('SELECT 1 AS payload, 2 AS other')$$, '22023', 'unknown column "other" beside payload');
SELECT throws_ok($$SELECT msg_create_from_query('SELECT 1; SELECT 2')$$, '42P11', NULL, 'two statements are refused');
SELECT throws_ok($$SELECT msg_create_from_query('SELECT 1) q; DROP TABLE shop.orders; --')$$, '42601', NULL, 'so is what ends the parenthesis');
SELECT throws_ok($$SELECT msg_create_from_query('DELETE FROM shop.orders')$$, '42P11', NULL, 'so is what changes data');
SELECT throws_ok($$SELECT msg_create_from_query('DELETE FROM shop.orders RETURNING id')$$, '42601', NULL, 'also where it returns rows');
SELECT throws_ok($$SELECT msg_create_from_query('WITH d AS (DELETE FROM shop.orders RETURNING id) SELECT * FROM d')$$, '0A000', NULL, 'and within a SELECT');
SELECT throws_ok($$SELECT msg_create_from_query('SELECT 1 AS a INTO t')$$, NULL, NULL, 'and SELECT INTO');
SELECT is(count(*), 5::bigint, 'nothing was changed') FROM shop.orders;
SELECT throws_ok($$SELECT msg_create_from_query('SELECT 1', 'nowhere')$$, '42704', 'channel "nowhere" does not exist');

CREATE ROLE asker;
SELECT msg_grant('asker', 'producer');
SET ROLE asker;
SELECT throws_ok($$SELECT msg_create_from_query('SELECT 1 AS a')$$, '42501', 'permission denied for function msg_create_from_query', 'a producer may not ask: over HTTP, a query could become another role');
RESET ROLE;
SELECT msg_grant('asker', 'operator');
SET ROLE asker;
SELECT throws_ok($$SELECT msg_create_from_query('SELECT id FROM shop.orders')$$, '42501', NULL, 'it runs as the caller');
SELECT is(msg_create_from_query('SELECT 1 AS a'), 1::bigint, 'who may operate');
RESET ROLE;

SELECT throws_ok($$SELECT msg_cron('n', '* * * * *', payload => '1')$$, '0A000', 'pg_cron is not installed in this database');
SELECT throws_ok($$SELECT msg_crons()$$, '0A000', NULL, 'also for the list');
SELECT throws_ok($$SELECT msg_cron('n', '* * * * *')$$, '22023', NULL, 'a job needs something to do');
SELECT throws_ok($$SELECT msg_cron('n', '* * * * *', job => 'dance')$$, '22023', 'there is no job "dance"');
SELECT is(msg_statistics_take() > 0, true, 'statistics are taken');
SELECT is(sum(count), (SELECT sum(count) FROM msg_backlog), 'of the backlog') FROM msg_statistics;
SELECT * FROM finish();
