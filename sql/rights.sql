-- Who may do what.
SELECT (msg_channel_set('r', topic => 'r')).channel;
CREATE ROLE msgsys_producer;
CREATE ROLE msgsys_consumer;
CREATE ROLE msgsys_reader;
CREATE ROLE msgsys_operator;
CREATE ROLE msgsys_nobody;
SELECT msg_grant('msgsys_producer', 'producer');
SELECT msg_grant('msgsys_consumer', 'consumer');
SELECT msg_grant('msgsys_reader', 'reader');
SELECT msg_grant('msgsys_operator', 'operator');
CREATE TABLE actions (n serial, action text);
INSERT INTO actions (action) VALUES
	($$SELECT msg_create('1', 'r')$$),
	($$SELECT msg_create('1', 'r', dedup_key => 'd')$$),
	($$SELECT msg_create_raw('\x01', 'r')$$),
	($$SELECT msg_create_many('[{"payload": 1, "channel": "r"}]')$$),
	($$INSERT INTO messages (channel, payload) VALUES ('r', '1')$$),
	($$INSERT INTO messages (channel, payload, status) VALUES ('r', '1', 'sent')$$),
	($$SELECT payload FROM messages$$),
	($$SELECT msg_get(1)$$),
	($$SELECT msg_list()$$),
	($$SELECT * FROM msg_backlog$$),
	($$SELECT * FROM msg_workers$$),
	($$SELECT msg_stats()$$),
	($$SELECT * FROM msg_channels$$),
	($$SELECT msg_ack(1)$$),
	($$SELECT msg_wait(-1)$$),
	($$SELECT msg_cancel(1)$$),
	($$SELECT msg_retry(1)$$),
	($$SELECT msg_pause('r')$$),
	($$SELECT msg_resume('r')$$),
	($$SELECT msg_channel_set('s', topic => 's')$$),
	($$SELECT msg_channel_drop('s')$$),
	($$UPDATE messages SET payload = '2'$$),
	($$DELETE FROM messages WHERE id = -1$$),
	($$TRUNCATE messages$$),
	($$INSERT INTO msg_outbox VALUES ('d', 'r', 'k', 't', '1')$$),
	($$SELECT count(payload) FROM msg_outbox$$),
	($$SELECT msg_sample(2, channel => 'r')$$),
	($$SELECT msg_publish('e', '1')$$),
	($$SELECT msg_subscribe('e', 'r')$$),
	($$SELECT msg_unsubscribe(1)$$),
	($$SELECT count(*) FROM msg_subscriptions$$),
	($$SELECT msg_client_set('79161234567')$$),
	($$SELECT msg_client_drop(1)$$),
	($$SELECT msg_mailing_create('x', '2999-01-01', channel => 'r')$$),
	($$SELECT msg_mailing_cancel(1)$$),
	($$SELECT msg_mailing_delete(1)$$),
	($$SELECT msg_mailing_stats()$$),
	($$SELECT msg_daily_report()$$),
	($$SELECT count(*) FROM msg_mailing_log$$),
	($$SELECT msg_mailings_run()$$),
	($$SELECT msg_adopt()$$),
	($$SELECT msg_grant('msgsys_nobody', 'operator')$$),
	($$SELECT msg_announce()$$);
GRANT SELECT ON actions TO PUBLIC;
CREATE FUNCTION pg_temp.may(role name, action text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text := 'yes';
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	BEGIN
		EXECUTE action;
		RAISE sqlstate 'ZZ000';
	EXCEPTION
		WHEN sqlstate 'ZZ000' OR no_data_found OR undefined_object THEN result := 'yes';
		WHEN insufficient_privilege THEN result := '-';
	END;
	RESET ROLE;
	RETURN result;
END $$;
SELECT action, pg_temp.may('msgsys_nobody', action) AS nobody, pg_temp.may('msgsys_producer', action) AS producer,
	pg_temp.may('msgsys_consumer', action) AS consumer, pg_temp.may('msgsys_reader', action) AS reader,
	pg_temp.may('msgsys_operator', action) AS operator
FROM actions ORDER BY n;

-- row security is obeyed
ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON messages FOR INSERT TO msgsys_producer WITH CHECK (message_key = 'mine');
CREATE POLICY see ON messages FOR SELECT TO msgsys_producer USING (message_key = 'mine');
SET ROLE msgsys_producer;
SELECT msg_create('1', 'r', 'mine') > 0 AS mine;
SELECT msg_create('1', 'r', 'theirs');
RESET ROLE;
DROP POLICY own ON messages;
DROP POLICY see ON messages;
ALTER TABLE messages DISABLE ROW LEVEL SECURITY;

-- nothing is for everybody
SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'msgsys'
WHERE has_function_privilege('msgsys_nobody', p.oid, 'EXECUTE');
-- each name once, so that named arguments find their function
SELECT proname FROM pg_proc WHERE proname LIKE 'msg\_%' GROUP BY proname HAVING count(*) > 1;
DROP TABLE actions;
DROP OWNED BY msgsys_producer, msgsys_consumer, msgsys_reader, msgsys_operator;
DROP ROLE msgsys_producer, msgsys_consumer, msgsys_reader, msgsys_operator, msgsys_nobody;
