-- Everything that is refused, with its SQLSTATE.
CREATE FUNCTION pg_temp.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RETURN SQLSTATE || ': ' || SQLERRM || CASE WHEN hint <> '' THEN ' (' || hint || ')' ELSE '' END;
END $$;
\pset format unaligned
\pset tuples_only on
SELECT pg_temp.try($$SELECT msg_create('1', 'nowhere')$$);
SELECT pg_temp.try($$SELECT msg_create('1', repeat('x', 100))$$);
SELECT pg_temp.try($$SELECT msg_create('1', NULL)$$);
SELECT pg_temp.try($$SELECT msg_create(NULL)$$);
SELECT pg_temp.try($$SELECT msg_create('null')$$);
SELECT pg_temp.try($$INSERT INTO messages (payload, body) VALUES ('1', '\x01')$$);
-- nor what is restored
SELECT pg_temp.try($$INSERT INTO messages (epoch) SELECT epoch FROM msg_installation$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '[]')$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '"x"')$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '{"a": 1}')$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '{"a": {"b": "c"}}')$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '{"": "c"}')$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '{"a": "b\r\nx: y"}')$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '{"a\n": "b"}')$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '{"CE_id": "b"}')$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '{"Content-Type": "b"}')$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '{"msgsys-attempt": "9"}')$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '{}')$$);
SELECT pg_temp.try($$SELECT msg_create('1', headers => '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}')$$);
SELECT pg_temp.try($$SELECT msg_create('1', event_type => E'a\nb')$$);
SELECT pg_temp.try($$SELECT msg_create('1', content_type => E'a\tb')$$);
SELECT pg_temp.try($$SELECT msg_create('1', message_key => repeat('k', 1024))$$);
SELECT pg_temp.try($$SELECT msg_create('1', message_key => repeat('k', 1025))$$);
SELECT pg_temp.try($$SELECT msg_create('1', message_key => E'k\x00')$$);
SELECT pg_temp.try($$SELECT msg_create(to_jsonb(repeat('x', 999998)))$$);
SELECT pg_temp.try($$SELECT msg_create(to_jsonb(repeat('x', 999999)))$$);
SELECT pg_temp.try($$SELECT msg_create(('1e' || 131000)::jsonb)$$);

-- the size is that of the text, which a number of a few bytes may have much of; 117 kB of jsonb with a text of 1.08 GB
SELECT pg_temp.try($$SELECT msg_create((SELECT jsonb_agg(round('1e131071'::numeric, 16383)) FROM generate_series(1, 7300)))$$);
-- it is exact for all that a jsonb may hold
WITH parts AS (
	SELECT jsonb_build_object('n', n, 'list', jsonb_build_array(n, -n, true, false, null, '[]'::jsonb, '{}'::jsonb), E'a"\\\b\f\n\r\t\x01\x7fé', chr(8364) || E'\x1f') part
	FROM unnest('{0, 0.00, 1, 10, 999, 1000, 9999, 10000, 123456789, 0.1, 0.0001, 0.00001, 1e20, 1e-20, 1.5e300, 1e-1000, 99999999.99999999, 12345678901234567890.12345, 1e64, 1e63, 1e256, 0.1e-16382}'::numeric[]) n),
whole AS (SELECT jsonb_agg(part) payload FROM parts, generate_series(1, 60))
SELECT octet_length(payload::text) > 1000000, pg_temp.try(format('SELECT msg_create(%L)', payload)) = '54000: message of ' || octet_length(payload::text)
	|| ' bytes is too large (Send a reference to what is large, or raise the limit here and in Kafka.)' FROM whole;
SELECT pg_temp.try($$SELECT msg_create_raw(convert_to(repeat('x', 1000000), 'UTF8'))$$);
SELECT pg_temp.try($$SELECT msg_create_raw(convert_to(repeat('x', 1000001), 'UTF8'))$$);
SELECT pg_temp.try($$SELECT msg_create('1', expires_at => now())$$) ~ '^22023: message expires before it can be sent';
SELECT pg_temp.try($$SELECT msg_create('1', deliver_at => now() + interval '2 h', expires_at => now() + interval '1 h')$$) ~ '^22023';
SELECT pg_temp.try($$SELECT msg_create('1', expires_at => now() + interval '1 h')$$);
SELECT pg_temp.try($$INSERT INTO messages (id, payload) VALUES (1, '1')$$);
SELECT pg_temp.try($$INSERT INTO messages (status, payload) VALUES ('gone', '1')$$);
SELECT pg_temp.try($$INSERT INTO messages (status, payload) VALUES ('scheduled', '1')$$) ~ '^23514: message \d+ is scheduled but has no due_at$';

-- a status moves along the arrows only
CREATE TABLE moves AS
SELECT f AS from_status, t AS to_status FROM unnest(enum_range(NULL::msg_status)) f, unnest(enum_range(NULL::msg_status)) t WHERE f <> t;
CREATE FUNCTION pg_temp.move(f msg_status, t msg_status) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	i bigint;
BEGIN
	INSERT INTO messages (created_at, status, due_at, payload) VALUES ('2020-01-01', f, '2020-01-01', '1') RETURNING id INTO i;
	UPDATE messages SET status = t WHERE id = i;
	RETURN true;
EXCEPTION WHEN check_violation THEN
	RETURN false;
END $$;
SELECT from_status || ' -> ' || string_agg(to_status::text, ', ' ORDER BY to_status) FILTER (WHERE pg_temp.move(from_status, to_status))
FROM moves GROUP BY from_status ORDER BY from_status;
DELETE FROM messages;
DROP TABLE moves;
SELECT pg_temp.try($$UPDATE messages SET channel = 'nowhere' WHERE id = msg_create('1')$$);
SELECT msg_create('1') AS id \gset
SELECT pg_temp.try(format($$UPDATE messages SET channel = 'nowhere' WHERE id = %s$$, :id));
SELECT pg_temp.try(format($$UPDATE messages SET payload = NULL WHERE id = %s$$, :id)) ~ '^23514';

-- a channel of a transaction that was rolled back is not there, whatever was remembered of it
BEGIN;
SELECT (msg_channel_set('ghost', topic => 'x')).channel;
SELECT msg_create('1', 'ghost') > 0;
ROLLBACK;
SELECT pg_temp.try($$SELECT msg_create('1', 'ghost')$$);
BEGIN;
SAVEPOINT s;
SELECT (msg_channel_set('ghost', topic => 'x')).channel;
SELECT msg_create('1', 'ghost') > 0;
ROLLBACK TO s;
SELECT pg_temp.try($$SELECT msg_create('1', 'ghost')$$);
COMMIT;
SELECT pg_temp.try($$SELECT msg_create('1', 'ghost')$$);

-- functions that refuse
SELECT pg_temp.try($$SELECT msg_list("limit" => -1)$$);
SELECT pg_temp.try($$SELECT msg_wait(-1)$$);
SELECT pg_temp.try($$SELECT msg_wait(1, timeout => '11 minutes')$$);
SELECT pg_temp.try($$SELECT msg_wait(1, timeout => '-1 s')$$);
SELECT pg_temp.try($$SELECT msg_ack(1, 'lost')$$);
SELECT pg_temp.try($$SELECT msg_pause('nowhere')$$);
SELECT pg_temp.try($$SELECT msg_channel_drop('nowhere')$$);
SELECT pg_temp.try($$SELECT msg_pace_set('nowhere', 2, '1 min')$$);
SELECT pg_temp.try($$SELECT msg_retention_set('nowhere', 'dead', '1 day')$$);
SELECT pg_temp.try($$SELECT msg_channel_set('a b')$$);
SELECT pg_temp.try($$SELECT msg_channel_set('')$$);
SELECT pg_temp.try($$SELECT msg_channel_set('*')$$);
SELECT pg_temp.try($$SELECT msg_channel_set('x', topic => 'a/b')$$);
SELECT pg_temp.try($$SELECT msg_channel_set('x', ack => 'perhaps')$$);
SELECT pg_temp.try($$SELECT msg_channel_set('x', max_attempts => 0)$$);
SELECT pg_temp.try($$SELECT msg_channel_set('x', retry_base => '0')$$);
SELECT pg_temp.try($$SELECT msg_channel_set('x', resend_after => '1 ms')$$);
SELECT pg_temp.try($$SELECT msg_grant('nobody', 'producer')$$);
SELECT pg_temp.try($$SELECT msg_grant(current_user, 'king')$$);

-- every object is described
SELECT pg_describe_object(classid, objid, 0)
FROM pg_depend d WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'msgsys')
	AND NOT EXISTS (SELECT FROM pg_description c WHERE c.objoid = d.objid AND c.classoid = d.classid AND c.objsubid = 0)
	AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND d.classid = 'pg_class'::regclass AND c.relkind = 'S')
	AND NOT EXISTS (SELECT FROM pg_type t WHERE t.oid = d.objid AND d.classid = 'pg_type'::regclass AND (t.typrelid <> 0 OR t.typelem <> 0));
SELECT a.attrelid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
	JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
WHERE c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NULL;

-- what depends on nothing else may run in a parallel worker; what writes or asks others may not; the rest is read
CREATE TEMP VIEW labels AS
SELECT p.oid::regprocedure::text AS function, p.provolatile AS volatile, p.proparallel AS parallel, p.proretset, p.prosrc FROM pg_proc p
	JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'msgsys';
SELECT function FROM labels WHERE volatile = 'i' AND parallel <> 's';
SELECT function FROM labels WHERE volatile = 'v' AND parallel <> 'u';
SELECT function, volatile, parallel FROM labels WHERE parallel <> 'u' ORDER BY function;
SELECT function, volatile FROM labels WHERE volatile <> 'v' AND prosrc ~* '\m(insert into|update public|delete from|nextval|random\(|clock_timestamp)' ORDER BY function;

-- every table and sequence is dumped, but the one that tells a copy from the original
SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'msgsys'
WHERE c.relkind = 'r' AND NOT c.oid = ANY (e.extconfig) ORDER BY 1;
SELECT c.relname FROM pg_class c, pg_extension e WHERE c.relkind = 'S' AND c.oid = ANY (e.extconfig) AND e.extname = 'msgsys' ORDER BY 1;

-- names: no two messages have one, whatever ids are given
CREATE FUNCTION pg_temp.named(command text, OUT same boolean, OUT known boolean) LANGUAGE plpgsql AS $$
DECLARE
	before integer;
	m messages;
BEGIN
	SELECT epoch INTO before FROM msg_installation;
	EXECUTE command INTO m;
	same := m.epoch = before;
	known := EXISTS (SELECT FROM msg_names n WHERE n.epoch = m.epoch);
	DELETE FROM messages WHERE id = m.id;
END $$;
SELECT * FROM pg_temp.named($$INSERT INTO messages (payload) VALUES ('1') RETURNING *$$);
SELECT last_value AS last FROM messages_id_seq \gset
SELECT * FROM pg_temp.named(format($$INSERT INTO messages (id, payload) OVERRIDING SYSTEM VALUE VALUES (%s, '1') RETURNING *$$, :last));
SELECT * FROM pg_temp.named(format($$INSERT INTO messages (id, payload) OVERRIDING SYSTEM VALUE VALUES (%s, '1') RETURNING *$$, :last + 1));
SELECT * FROM pg_temp.named($$INSERT INTO messages (created_at, payload) VALUES ('2020-01-01', '1') RETURNING *$$);
SELECT setval('messages_id_seq', :last - 1) < :last AS set_back;
SELECT * FROM pg_temp.named($$INSERT INTO messages (payload) VALUES ('1') RETURNING *$$);
SELECT * FROM pg_temp.named($$INSERT INTO messages (payload) VALUES ('1') RETURNING *$$);
SELECT epoch FROM msg_installation \gset
TRUNCATE messages RESTART IDENTITY;
SELECT epoch <> :epoch AS another FROM msg_installation;
SELECT * FROM pg_temp.named($$INSERT INTO messages (payload) VALUES ('1') RETURNING *$$);
SELECT msg_create('1') AS id \gset
UPDATE messages SET status = 'sent' WHERE id = :id;
SELECT pg_temp.try(format($$UPDATE messages SET created_at = '2020-01-01' WHERE id = %s$$, :id)) ~ '^23514: created_at';
SELECT pg_temp.try(format($$UPDATE messages SET id = DEFAULT WHERE id = %s$$, :id)) ~ '^23514: id of message';
-- what gives its created_at is checked as all is
SELECT pg_temp.try($$INSERT INTO messages (created_at, channel, payload) VALUES ('2020-01-01', 'nowhere', '1')$$);
-- a sequence that is behind is an error, not silence
SELECT setval('messages_id_seq', (SELECT max(id) FROM messages), false) > 0;
SELECT pg_temp.try($$SELECT msg_create('1', dedup_key => 'behind')$$) ~ '^23505';
SELECT msg_create('1', dedup_key => 'behind') > 0;
-- nor is it for an event, or for a row of a query
SELECT msg_subscribe('behind.#') > 0;
SELECT setval('messages_id_seq', (SELECT max(id) FROM messages), false) > 0;
SELECT pg_temp.try($$SELECT * FROM msg_publish('behind.x', '1')$$) ~ '^23505';
SELECT setval('messages_id_seq', (SELECT max(id) FROM messages), false) > 0;
SELECT pg_temp.try($$SELECT msg_create_from_query('SELECT 1 AS n')$$) ~ '^23505';
SELECT msg_unsubscribe(id) FROM msg_subscriptions;
SELECT msg_adopt() = uuid FROM msg_installation;
SELECT pg_temp.try($$SELECT msg_adopt('lost')$$);
DELETE FROM messages;
SELECT msg_create('1') > 0 AS left;
-- a payload is measured as it is sent, whatever its numbers take here; also where it is changed
BEGIN;
SELECT pg_temp.try($$SELECT msg_create(('[' || repeat('1e131071,', 2000) || '1]')::jsonb)$$);
SELECT pg_temp.try($$SELECT msg_create(('[' || repeat('1e255,', 9000) || '1]')::jsonb)$$);
SELECT pg_temp.try($$INSERT INTO messages (payload) VALUES (('[' || repeat('1e131071,', 7500) || '1]')::jsonb)$$);
SELECT pg_temp.try($$SELECT msg_create('{"large": 1e131071, "small": [1, 2.50, "x"]}')$$);
INSERT INTO messages (payload) VALUES ('{"n": 1}');
SELECT pg_temp.try($$UPDATE messages SET payload = ('[' || repeat('1e131071,', 2000) || '1]')::jsonb WHERE payload = '{"n": 1}'$$);
SELECT pg_temp.try($$UPDATE messages SET headers = '{"a": "b\u000ac"}' WHERE payload = '{"n": 1}'$$);
SELECT pg_temp.try($$UPDATE messages SET message_key = repeat('k', 1025) WHERE payload = '{"n": 1}'$$);
SELECT pg_temp.try($$UPDATE messages SET payload = '{"n": 2}', headers = '{"a": "b"}' WHERE payload = '{"n": 1}'$$);
ROLLBACK;
