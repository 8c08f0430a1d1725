-- msg_check(): each invariant is broken by hand, found under its name, and found no more once it is put right.
CREATE EXTENSION pgtap;
CREATE EXTENSION msgsys;
SET client_min_messages = warning;
SELECT no_plan();

-- found(full): names of findings that are no mere information. The server of these tests works on another database, without a broker.
CREATE FUNCTION found("full" boolean DEFAULT false) RETURNS text LANGUAGE sql AS
$$SELECT coalesce(string_agg(DISTINCT "check", ' ' ORDER BY "check"), '') FROM msg_check("full") WHERE severity <> 'info' AND "check" <> 'not-listed'$$;
-- breaks(NAME, BREAK, MEND): what it finds after BREAK, and that MEND helps
CREATE FUNCTION breaks(name text, break text, mend text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE break;
	RETURN NEXT is(found(), name, 'found: ' || name || ' after ' || left(regexp_replace(break, '\s+', ' ', 'g'), 70));
	EXECUTE mend;
	RETURN NEXT is(found(), '', 'and not after that is put right');
END $$;

SELECT is(found(), '', 'a new installation is healthy');
SELECT is(found(true), '', 'in full, too');
SELECT ok(EXISTS (SELECT FROM msg_check() WHERE "check" = 'not-listed' AND severity = 'warning'), 'nobody works on this database');

-- rows against their status; workers' rights, so that no trigger refuses what is wrong
SELECT msg_channel_set('gone', topic => 'gone', ack => 'topic');
INSERT INTO messages (channel, status, payload, finished_at, sent_at, received_at, delivered_at, due_at, attempts)
SELECT 'gone', s, '1', now(), now(), now(), now(), now(), 1 FROM unnest('{sent,received,delivered,dead,cancelled,expired}'::msg_status[]) s;
SELECT is(found(), '', 'finished messages are healthy');
CREATE FUNCTION bad(name text, status text, change text) RETURNS SETOF text LANGUAGE sql AS $$
SELECT breaks(name, format('SET LOCAL session_replication_role = replica; UPDATE messages SET %s WHERE status = %L', change, status),
	format('UPDATE messages SET finished_at = now(), sent_at = now(), received_at = now(), delivered_at = now(), dlq_pending = NULL, attempts = 1, due_at = now(), status = %L WHERE channel = ''gone'' AND status = %L', status, status)) $$;
SELECT bad('unfinished-end', s, 'finished_at = NULL') FROM unnest('{delivered,dead,cancelled,expired}'::text[]) s;
SELECT bad('no-sent-time', 'sent', 'sent_at = NULL');
SELECT bad('no-received-time', 'received', 'received_at = NULL');
SELECT bad('no-delivered-time', 'delivered', 'delivered_at = NULL');
SELECT bad('attempts', 'dead', 'attempts = -1');
-- wait(STATUS, more): a message that waits, wrongly
CREATE FUNCTION waits(name text, status text, columns text, vals text) RETURNS SETOF text LANGUAGE sql AS $$
SELECT breaks(name, format('SET LOCAL session_replication_role = replica; INSERT INTO messages (channel, status, payload, %s) VALUES (''gone'', %L, ''2'', %s)', columns, status, vals),
	'DELETE FROM messages WHERE payload = ''2''') $$;
SELECT waits('finished-waiting nobody', 'idle', 'finished_at', 'now()');
SELECT waits('finished-waiting nobody', 'retry', 'finished_at, due_at, attempts', 'now(), now(), 1');
SELECT waits('no-due-time nobody', 'scheduled', 'due_at', 'NULL');
SELECT waits('idle-tried nobody', 'idle', 'attempts', '1');
SELECT waits('dead-letter-alive nobody', 'delivered', 'dlq_pending, delivered_at, finished_at', 'true, now(), now()');

-- who acts
SELECT waits('nobody', 'idle', 'message_key', '''no broker''');
SELECT waits('nobody', 'sent', 'sent_at', 'now()');
SELECT waits('nobody', 'received', 'sent_at, received_at', 'now(), now()');
-- reason(STATUS, CHANGE, REASON): why nobody acts on a message of that status after a change of its channel
CREATE FUNCTION reason(status text, change text, reason text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL session_replication_role = replica;
	INSERT INTO messages (channel, status, payload, sent_at, received_at) VALUES ('gone', reason.status::msg_status, '2', now(), now());
	EXECUTE 'UPDATE msg_channels SET ' || change || $q$ WHERE channel = 'gone'$q$;
	RETURN NEXT is((SELECT string_agg(n.reason, ', ' ORDER BY n.severity, n.reason) FROM msg_unreachable_channels n WHERE n.waits = reason.status), reason, format('%s, after %s', status, change));
	DELETE FROM messages WHERE payload = '2';
	UPDATE msg_channels SET topic = 'gone', ack = 'topic', former_topics = NULL WHERE channel = 'gone';
END $$;
SELECT reason('sent', 'ack = ''none''', 'the channel waits for no acknowledgement');
SELECT reason('sent', 'topic = NULL', 'the channel has no topic that is read');
SELECT reason('sent', 'topic = NULL, former_topics = ''{gone}''', 'msgsys.kafka_brokers is empty');
SELECT reason('received', 'ack = ''topic''', 'the channel has no webhook');
SELECT waits('nobody', 'dead', 'finished_at, dlq_pending', 'now(), true');
SELECT msg_channel_set('hook', topic => NULL);
SELECT msg_webhook_set('hook', 'https://example.com/');
INSERT INTO messages (channel, payload) VALUES ('hook', '3');
SELECT is(found(), '', 'a channel with a webhook has somebody who acts');
SELECT breaks('nobody', $$UPDATE msg_webhooks SET disabled_at = now()$$, $$UPDATE msg_webhooks SET disabled_at = NULL$$);
SELECT breaks('nobody orphan-setting', $$SET LOCAL session_replication_role = replica; DELETE FROM msg_channels WHERE channel = 'hook'$$, $$INSERT INTO msg_channels (channel) VALUES ('hook')$$);
SELECT results_eq($$SELECT waits, reason, severity FROM msg_unreachable_channels$$, $$SELECT ''::text, ''::text, ''::text WHERE false$$, 'nobody is missed now');
SELECT breaks('nobody', $$INSERT INTO messages (channel, payload) VALUES ('default', '4')$$, $$DELETE FROM messages WHERE payload = '4'$$);
DELETE FROM messages WHERE payload = '3';
INSERT INTO messages (channel, status, due_at, attempts, payload) VALUES ('hook', 'retry', now() + interval '1 h', 3, '3');
SELECT is(found(), '', 'retries are healthy');
UPDATE msg_channels SET max_attempts = 3 WHERE channel = 'hook';
SELECT is((SELECT severity FROM msg_check() WHERE "check" = 'last-attempt'), 'info', 'a last attempt is told of');
DELETE FROM messages WHERE payload = '3';

-- settings
SELECT breaks('topic-conflict', $$UPDATE msg_channels SET topic = 'msgsys.acks' WHERE channel = 'gone'$$, $$UPDATE msg_channels SET topic = 'gone'$$ || ' WHERE channel = ''gone''');
SELECT breaks('topic-conflict', $$INSERT INTO msg_channels (channel, topic) VALUES ('letters', 'gone.dlq')$$, $$DELETE FROM msg_channels WHERE channel = 'letters'$$);
SELECT breaks('webhook-without-ack', $$UPDATE msg_channels SET topic = 'hook', ack = 'none' WHERE channel = 'hook'$$, $$UPDATE msg_channels SET topic = NULL, ack = 'readback' WHERE channel = 'hook'$$);
SELECT breaks('orphan-setting', $$INSERT INTO msg_pauses (channel) VALUES ('nowhere')$$, $$DELETE FROM msg_pauses WHERE channel = 'nowhere'$$);
INSERT INTO msg_pauses (channel, paused_at) VALUES ('hook', now() - interval '2 days');
SELECT is((SELECT severity FROM msg_check() WHERE "check" = 'paused'), 'info', 'a long pause is told of');
DELETE FROM msg_pauses;

-- objects
SELECT breaks('public-rights', 'GRANT EXECUTE ON FUNCTION msg_adopt(text) TO PUBLIC', 'REVOKE EXECUTE ON FUNCTION msg_adopt(text) FROM PUBLIC');
SELECT breaks('public-rights', 'GRANT SELECT ON messages TO PUBLIC', 'REVOKE SELECT ON messages FROM PUBLIC');
SELECT breaks('public-rights', 'GRANT SELECT (value) ON msg_webhook_secrets TO PUBLIC', 'REVOKE SELECT (value) ON msg_webhook_secrets FROM PUBLIC');
CREATE ROLE check_other;
SELECT breaks('owner', 'ALTER FUNCTION msg_adopt(text) OWNER TO check_other', 'ALTER FUNCTION msg_adopt(text) OWNER TO ' || quote_ident(CURRENT_USER));
SELECT breaks('owner', 'ALTER TABLE msg_pauses OWNER TO check_other', 'ALTER TABLE msg_pauses OWNER TO ' || quote_ident(CURRENT_USER));
SELECT breaks('trigger', format('ALTER TABLE %s DISABLE TRIGGER %I', tgrelid::regclass, tgname), format('ALTER TABLE %s ENABLE%s TRIGGER %I', tgrelid::regclass, CASE tgenabled WHEN 'R' THEN ' REPLICA' END, tgname))
FROM pg_trigger WHERE tgname ~ '^zz_msgsys' AND NOT tgisinternal;
SELECT breaks('trigger', $$ALTER TABLE messages ENABLE REPLICA TRIGGER zz_msgsys_insert$$, $$ALTER TABLE messages ENABLE TRIGGER zz_msgsys_insert$$);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
SELECT breaks('foreign-trigger', 'CREATE TRIGGER zzz BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION nothing()', 'DROP TRIGGER zzz ON messages');
SELECT breaks('foreign-trigger', 'CREATE TRIGGER a AFTER UPDATE ON messages FOR EACH ROW EXECUTE FUNCTION nothing(); ALTER TABLE messages ENABLE ALWAYS TRIGGER a', 'DROP TRIGGER a ON messages');
SELECT breaks('rule', 'CREATE RULE r AS ON DELETE TO messages DO INSTEAD NOTHING', 'DROP RULE r ON messages');
SELECT breaks('rule', 'ALTER TABLE messages FORCE ROW LEVEL SECURITY', 'ALTER TABLE messages NO FORCE ROW LEVEL SECURITY');
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'messages_due'::regclass;
SELECT is(found(), 'index', 'found: an invalid index');
UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'messages_due'::regclass;
SELECT breaks('index', 'ALTER INDEX messages_received RENAME TO other', 'ALTER INDEX other RENAME TO messages_received');
SELECT breaks('unlogged', 'ALTER TABLE msg_statistics SET UNLOGGED', 'ALTER TABLE msg_statistics SET LOGGED');
SELECT breaks('archive', 'ALTER TABLE msg_archive ADD COLUMN more int', 'ALTER TABLE msg_archive DROP COLUMN more');
SELECT msg_archive_partition(now());
SELECT is(found(), '', 'a month of the archive is healthy');
SELECT breaks('archive', $x$DO $d$ BEGIN EXECUTE (SELECT format('ALTER TABLE %s OWNER TO check_other', inhrelid::regclass) FROM pg_inherits WHERE inhparent = 'msg_archive'::regclass); END $d$$x$,
	$x$DO $d$ BEGIN EXECUTE (SELECT format('ALTER TABLE %s OWNER TO %I', inhrelid::regclass, CURRENT_USER) FROM pg_inherits WHERE inhparent = 'msg_archive'::regclass); END $d$$x$);

-- tables
SELECT breaks('copy', 'UPDATE msg_names SET database_oid = 1', $$UPDATE msg_names SET database_oid = oid FROM pg_database WHERE datname = current_database()$$);
SELECT breaks('copy', $$UPDATE msg_names SET identity = 'x'$$, $$UPDATE msg_names SET identity = ''$$);
SELECT breaks('copy', 'UPDATE msg_names SET held_at = now()', 'UPDATE msg_names SET held_at = NULL');
CREATE TABLE kept AS SELECT * FROM msg_names;
SELECT breaks('installation', 'DELETE FROM msg_names', 'INSERT INTO msg_names SELECT * FROM kept');
SELECT breaks('open-run', $$INSERT INTO msg_runs (channel, due_at, started_at) VALUES ('hook', now(), now())$$, $$SELECT msg_pace_drop('hook')$$);
SELECT breaks('mailing-link', 'INSERT INTO msg_mailing_links VALUES (99, 1, 1)', 'DELETE FROM msg_mailing_links');
SELECT breaks('mailing', $$INSERT INTO msg_mailings (text, channel, starts_at, ends_at) VALUES ('x', 'nowhere', now(), now() + interval '1 h')$$, 'DELETE FROM msg_mailings');
INSERT INTO msg_breakers VALUES ('hook', 0, 'open', now(), now(), 1, 1, 1);
SELECT is(found(), '', 'a breaker that is open while nothing waits holds up nothing');
SELECT breaks('breaker', $$INSERT INTO messages (channel, payload) VALUES ('hook', '3')$$, $$DELETE FROM messages WHERE payload = '3'$$);
DELETE FROM msg_breakers;
SELECT breaks('position', $$INSERT INTO msg_offsets (topic, "partition", next_offset) VALUES ('gone', 0, -1)$$, $$DELETE FROM msg_offsets$$);
SELECT breaks('position', format($$INSERT INTO msg_offsets (topic, "partition", next_offset, low, high, looked_at) VALUES ('gone', 0, %s, 10, 20, now() + interval '1 min')$$, n), $$DELETE FROM msg_offsets$$)
FROM (VALUES (9), (21)) v(n);
INSERT INTO msg_offsets (topic, "partition", next_offset, low, high, looked_at) VALUES ('gone', 0, 10, 10, 20, now() + interval '1 min'), ('gone', 1, 20, 10, 20, now() + interval '1 min'),
	('gone', 2, 9, 10, 20, now()), ('gone', 3, 5, NULL, NULL, now() + interval '1 min');
SELECT is(found(), '', 'positions within what the topic has are healthy; so is one that has only just been looked at, and that of a partition that is not there');
UPDATE msg_offsets SET gap_from = 3, gap_to = 10, gap_at = now() WHERE "partition" = 0;
SELECT is((SELECT severity || ' ' || examples[1] FROM msg_check() WHERE "check" = 'gap'), 'info gone/0: 3 to 10', 'a gap is told of');
DELETE FROM msg_offsets;
SELECT breaks('sequence', $$SELECT setval('messages_id_seq', 1)$$, $$SELECT setval('messages_id_seq', (SELECT max(id) FROM messages))$$);
SELECT breaks('version', $$UPDATE pg_extension SET extversion = '0.0.0' WHERE extname = 'msgsys'$$, $$UPDATE pg_extension SET extversion = (SELECT version FROM msg_check_library()) WHERE extname = 'msgsys'$$);

-- who may, and how much is looked at
CREATE ROLE check_reader;
CREATE ROLE check_operator;
CREATE ROLE check_producer;
SELECT msg_grant('check_reader', 'reader'), msg_grant('check_operator', 'operator'), msg_grant('check_producer', 'producer');
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO check_reader, check_operator;
SET ROLE check_reader;
SELECT is((SELECT string_agg(examples[1], ' ' ORDER BY examples[1]) FROM msg_check() WHERE "check" = 'not-looked-at'), 'holds sequences', 'a reader is told what he may not see');
SET ROLE check_operator;
SELECT is((SELECT string_agg(examples[1], ' ' ORDER BY examples[1]) FROM msg_check() WHERE "check" = 'not-looked-at'), 'holds sequences', 'an operator, too');
RESET ROLE;
SELECT is(has_function_privilege('check_producer', 'msg_check(boolean)', 'EXECUTE'), false, 'a producer may not ask');
INSERT INTO messages (channel, status, payload, finished_at, delivered_at) SELECT 'gone', 'delivered', '5', now(), now() FROM generate_series(1, 60000);
ALTER TABLE messages DISABLE TRIGGER zz_msgsys_update;
UPDATE messages SET finished_at = NULL WHERE id = (SELECT min(id) + 20000 FROM messages WHERE payload = '5');
ALTER TABLE messages ENABLE TRIGGER zz_msgsys_update;
SELECT is((SELECT severity FROM msg_check() WHERE "check" = 'sampled'), 'info', 'a sample says that it is one');
SELECT is((SELECT count FROM msg_check(full => true) WHERE "check" = 'unfinished-end'), 1::bigint, 'in full, one row among many is found');
SELECT is((SELECT count(*) FROM msg_check(full => true) WHERE "check" = 'sampled'), 0::bigint, 'and nothing is sampled');
DELETE FROM messages;
DROP OWNED BY check_other, check_reader, check_operator, check_producer;
DROP ROLE check_other, check_reader, check_operator, check_producer;
SELECT * FROM finish();
