-- Channels: making, changing, dropping, pausing; what waits in them.
\pset null '-'
\set columns 'channel, topic, ack, max_attempts, retry_base, retry_max, resend_after, former_topics'
SELECT :columns FROM msg_channel_set('c', topic => 't1');
SELECT :columns FROM msg_channel_set('c', ack => 'topic', max_attempts => 3, retry_base => '1 s', retry_max => '1 min', resend_after => '5 min');
-- what is left out stays
SELECT :columns FROM msg_channel_set('c');
-- a former topic is still read, and so is the other after going back
SELECT :columns FROM msg_channel_set('c', topic => 't2');
SELECT :columns FROM msg_channel_set('c', topic => 't1');
-- empty takes away, and says what that means
SELECT :columns FROM msg_channel_set('c', topic => '', resend_after => '0');
SELECT updated_by = CURRENT_USER AS by_me FROM msg_channels WHERE channel = 'c';
-- a base above the longest wait raises that
SELECT retry_base, retry_max FROM msg_channel_set('c', retry_base => '2 h');
-- the channel "default" comes from the configuration until it is set
SELECT :columns FROM msg_channel_settings ORDER BY channel;
SELECT :columns FROM msg_channel_set('default', topic => 'own', ack => 'none');
SELECT :columns FROM msg_channel_settings ORDER BY channel;
SELECT msg_channel_drop('default');
SELECT channel, topic FROM msg_channel_settings WHERE channel = 'default';

-- no acknowledgement any more: what waits for one is finished
SELECT (msg_channel_set('c', topic => 't1', ack => 'readback')).channel;
INSERT INTO messages (created_at, channel, status, sent_at, payload) VALUES ('2020-01-01', 'c', 'sent', now(), '1');
SELECT msg_live('c');
SELECT channel, status, count FROM msg_backlog;
SELECT (msg_channel_set('c', ack => 'none')).channel;
SELECT msg_live('c'), count(*) FILTER (WHERE finished_at IS NOT NULL) AS finished FROM messages WHERE channel = 'c';

-- dropping
SELECT msg_create('1', 'c') > 0 AS created, msg_create('2', 'c', deliver_at => now() + interval '1 h') > 0 AS scheduled;
SELECT msg_channel_drop('c');
SELECT channel, status, count, oldest_age < '1 h' AS young FROM msg_backlog ORDER BY status;
SELECT msg_channel_drop('c', discard => true);
SELECT status, count(*) FROM messages WHERE channel = 'c' GROUP BY status ORDER BY status;
SELECT msg_create('1', 'c');

-- pausing
SELECT msg_running(), msg_running('default');
SELECT msg_pause('default', 'lunch'), msg_pause('default'), msg_running(), msg_running('default');
SELECT msg_pause(), msg_running(), msg_running('default');
SELECT channel, reason, paused_by = CURRENT_USER AS by_me FROM msg_pauses ORDER BY channel;
SELECT msg_resume(), msg_resume(), msg_running(), msg_running('default');
SELECT msg_resume('default'), msg_running('default');

-- reading
DELETE FROM messages;
SELECT count(*) FROM msg_create_many((SELECT jsonb_agg(jsonb_build_object('payload', g)) FROM generate_series(1, 5) g));
SELECT payload FROM msg_list("limit" => 2);
SELECT payload FROM msg_list("limit" => 2, "offset" => 4);
SELECT count(*) FROM msg_list('idle', 'default');
SELECT count(*) FROM msg_list('sent');
SELECT count(*) FROM msg_list(channel => 'c');
SELECT (msg_get(max(id))).payload, msg_get(-1) IS NULL AS none FROM messages;

-- another schema, and away without a trace
CREATE SCHEMA "Odd Schema";
DROP EXTENSION msgsys;
SET client_min_messages = error;
CREATE EXTENSION msgsys SCHEMA "Odd Schema";
RESET client_min_messages;
SELECT ("Odd Schema".msg_channel_set('x', topic => 'x')).channel, "Odd Schema".msg_create('1') > 0 AS created;
SELECT "Odd Schema".msg_create('1', 'x', dedup_key => 'd') = "Odd Schema".msg_create('1', 'x', dedup_key => 'd') AS same;
SELECT "Odd Schema".msg_ack((SELECT max(id) FROM "Odd Schema".messages), 'delivered');
SELECT count(*) FROM "Odd Schema".msg_stats() WHERE value < 0;
ALTER EXTENSION msgsys SET SCHEMA public;
DROP EXTENSION msgsys;
SELECT count(*) FROM pg_class WHERE relnamespace = '"Odd Schema"'::regnamespace;
DROP SCHEMA "Odd Schema";
