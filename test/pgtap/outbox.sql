-- Debezium's outbox table by another name, and samples.
CREATE EXTENSION pgtap;
SET client_min_messages = error;
CREATE EXTENSION msgsys;
SELECT no_plan();

-- what Debezium's tutorial has an application do, with a channel for its type of aggregates
SELECT (msg_channel_set('Order', topic => 'outbox.event.Order')).channel;
SELECT columns_are('msg_outbox', ARRAY['id', 'aggregatetype', 'aggregateid', 'type', 'payload']);
SELECT lives_ok($$INSERT INTO msg_outbox VALUES ('406c07f3-26f0-4eea-a50c-109940064b8f', 'Order', '1', 'OrderCreated',
	'{"id": 1, "lineItems": [{"id": 1, "item": "Debezium in Action", "status": "ENTERED", "quantity": 2}], "customerId": 123}')$$, 'a row of literals');
PREPARE typed (uuid, varchar(255), varchar(255), varchar(255), jsonb) AS INSERT INTO msg_outbox (id, aggregatetype, aggregateid, type, payload) VALUES ($1, $2, $3, $4, $5);
SELECT lives_ok($$EXECUTE typed ('cc74eac7-176b-44e6-8bda-413a5088ca66', 'Order', '2', 'OrderCreated', '{}')$$, 'parameters of the columns'' types in Debezium');
SELECT results_eq('SELECT dedup_key, channel, message_key, event_type, payload -> ''id'', status FROM messages ORDER BY id', $$VALUES
	('406c07f3-26f0-4eea-a50c-109940064b8f', 'Order', '1', 'OrderCreated', '1'::jsonb, 'idle'::msg_status),
	('cc74eac7-176b-44e6-8bda-413a5088ca66', 'Order', '2', 'OrderCreated', NULL, 'idle')$$, 'are messages');
SELECT is(type, 'OrderCreated', 'which the view shows') FROM msg_outbox WHERE id = '406c07f3-26f0-4eea-a50c-109940064b8f';
SELECT lives_ok($$DELETE FROM msg_outbox WHERE id = '406c07f3-26f0-4eea-a50c-109940064b8f'$$, 'a row is deleted');
SELECT is(count(*), 2::bigint, 'and its message is not') FROM messages;
BEGIN;
INSERT INTO msg_outbox VALUES (gen_random_uuid(), 'Order', '3', 'OrderCreated', '{}') RETURNING id;
DELETE FROM msg_outbox;
COMMIT;
SELECT is(count(*), 3::bigint, 'in the same transaction neither') FROM messages;
SELECT throws_ok($$INSERT INTO msg_outbox VALUES ('406c07f3-26f0-4eea-a50c-109940064b8f', 'Order', '1', 'OrderCreated', '{}')$$, '23505', NULL, 'an id is there once');
SELECT throws_ok($$INSERT INTO msg_outbox VALUES (gen_random_uuid(), 'Customer', '1', 'x', '{}')$$, '42704', 'channel "Customer" does not exist', 'without a channel, an error says so');
SELECT throws_ok($$INSERT INTO msg_outbox VALUES (gen_random_uuid(), 'Order', '1', 'x', NULL)$$, '23514', NULL, 'without a payload too');
INSERT INTO msg_outbox SELECT gen_random_uuid(), 'Order', g, 'x', to_jsonb(g) FROM generate_series(1, 1000) g;
SELECT is(count(*), 1003::bigint, 'many rows at once') FROM messages;
-- with the rights, and under the policies, of who inserts
CREATE ROLE msgsys_outbox;
SELECT msg_grant('msgsys_outbox', 'producer');
GRANT SELECT ON messages TO msgsys_outbox;
ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON messages TO msgsys_outbox USING (message_key = 'mine');
SET ROLE msgsys_outbox;
SELECT lives_ok($$INSERT INTO msg_outbox VALUES (gen_random_uuid(), 'Order', 'mine', 'x', '{}')$$, 'a producer inserts');
SELECT lives_ok($$DELETE FROM msg_outbox WHERE id = 'x'$$, 'and deletes');
SELECT throws_ok($$INSERT INTO msg_outbox VALUES (gen_random_uuid(), 'Order', 'theirs', 'x', '{}')$$, '42501', NULL, 'not what a policy forbids')
WHERE current_setting('server_version_num')::integer >= 150000;
RESET ROLE;
ALTER TABLE messages DISABLE ROW LEVEL SECURITY;

-- samples
DELETE FROM messages;
SELECT is(msg_sample(), 10::bigint, 'samples');
SELECT is(msg_sample(5, 2, 'Order'), 5::bigint, 'others');
SELECT is(count(*), 15::bigint, 'are added to what is there') FROM messages;
CREATE TEMP TABLE before AS SELECT channel, message_key, event_type, payload FROM messages;
DELETE FROM messages;
SELECT is(msg_sample(5, 2, 'Order') + msg_sample(), 15::bigint, 'the same again');
SELECT bag_eq('SELECT channel, message_key, event_type, payload FROM messages', 'TABLE before', 'are the same');
SELECT is(msg_sample(1000, 3), 1000::bigint, 'many');
SELECT cmp_ok(count(DISTINCT payload -> 'content'), '>', 900::bigint, 'of which each is another') FROM messages;
SELECT cmp_ok(count(DISTINCT event_type), '=', 5::bigint, 'of all events') FROM messages;
SELECT is(count(*), 0::bigint, 'all have a phone number, a text and a sum') FROM messages
WHERE payload ->> 'to' !~ '^\+90[5-9]\d{9}$' OR payload ->> 'content' !~ '^Dear [^ ]+, your order \d+ ' OR (payload -> 'total')::numeric <= 0 OR message_key <> 'customer-' || (payload #>> '{customer,id}');
SELECT is(msg_sample(0), 0::bigint, 'none');
SELECT throws_ok('SELECT msg_sample(-1)', '22023', 'n must not be negative');
SELECT throws_ok($$SELECT msg_sample(1, channel => 'nowhere')$$, '42704');
DROP OWNED BY msgsys_outbox;
DROP ROLE msgsys_outbox;
SELECT * FROM finish();
