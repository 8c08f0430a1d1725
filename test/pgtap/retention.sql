-- Retention: what the rules keep, delete and archive, by a clock that the test sets.
-- expect no-sent-time: rows are made finished, as if they had been sent
CREATE EXTENSION pgtap;
CREATE EXTENSION msgsys;
SET client_min_messages = warning;
SELECT no_plan();

SELECT msg_channel_set('a');
SELECT msg_channel_set('b');
SELECT throws_ok($$SELECT msg_retention_set('nowhere', 'dead', '1 day')$$, '42704', 'channel "nowhere" does not exist');
SELECT throws_ok($$SELECT msg_retention_set('a', 'idle', '1 day')$$, '22023', 'messages that are idle are not finished');
SELECT throws_ok($$SELECT msg_retention_set('a', 'dead', '-1 day')$$, '22023', 'messages are kept for a time that is not negative');
SELECT is(msg_purge(), 0::bigint, 'without rules nothing goes');

-- finished(channel, status, n): messages that end now
CREATE FUNCTION finished(channel text, status msg_status, n integer) RETURNS void LANGUAGE sql AS
$$INSERT INTO messages (channel, status, finished_at, payload) SELECT channel, status, msg_now(), to_jsonb(g) FROM generate_series(1, n) g$$;
SELECT finished('a', 'delivered', 3), finished('a', 'dead', 2), finished('b', 'delivered', 4), finished('b', 'cancelled', 1), finished('default', 'sent', 2);
INSERT INTO messages (channel, status, finished_at, payload, dlq_pending) VALUES ('b', 'dead', msg_now(), '1', true);
INSERT INTO messages (channel, payload) VALUES ('a', '"live"');
INSERT INTO msg_attempts (message_id, channel, attempt, at, milliseconds, class) SELECT id, channel, 1, now(), 1, 'status' FROM messages WHERE status = 'dead';

SELECT is((msg_retention_set(NULL, 'delivered', '7 days')).channel, '*', 'a rule for all channels');
SELECT is((msg_retention_set('b', 'delivered', '30 days', archive => true)).archive, true, 'one of a channel');
SELECT is((msg_retention_set(NULL, 'dead', '90 days')).keep, '90 days', 'one for another status');
SELECT is(msg_purge(), 0::bigint, 'all are young');
SET msgsys.clock_offset = '8d';
SELECT is(msg_purge(), 3::bigint, 'after 8 days: what was delivered');
SELECT is(count(*), 4::bigint, 'but in the channel with a rule of its own') FROM messages WHERE channel = 'b' AND status = 'delivered';
SET msgsys.clock_offset = '31d';
SELECT finished('b', 'delivered', 5);
SELECT is(msg_purge(), 4::bigint, 'after 31 days: what that kept');
SELECT is(count(*), 4::bigint, 'is archived') FROM msg_archive;
SELECT results_eq('SELECT payload FROM msg_archive ORDER BY id', 'SELECT to_jsonb(g) FROM generate_series(1, 4) g', 'as it was');
SET msgsys.clock_offset = '62d';
SELECT is(msg_purge(), 5::bigint, 'after another month');
SELECT cmp_ok(count(*), '>=', 2::bigint, 'it goes to a partition of its own') FROM pg_inherits WHERE inhparent = 'msg_archive'::regclass;
SELECT is(count(*), 0::bigint, 'each has the month of its rows') FROM msg_archive
WHERE tableoid::regclass::text <> 'msg_archive_' || to_char(finished_at AT TIME ZONE 'UTC', 'YYYY_MM');
SET msgsys.clock_offset = '91d';
SELECT is(msg_purge(), 2::bigint, 'after 91 days: what was dead');
SELECT is(count(*), 1::bigint, 'with its attempts') FROM msg_attempts;
SELECT is(status, 'dead', 'but not while its dead letter is to be written') FROM messages WHERE dlq_pending;
SELECT is(count(*), 4::bigint, 'no rule, not finished: kept for ever') FROM messages WHERE status IN ('idle', 'cancelled', 'sent');

-- the archive is dropped by months
SELECT throws_ok($$SELECT msg_archive_drop(msg_now() + interval '1 day')$$, '22023', 'only months that are over can be dropped');
SELECT is(msg_archive_drop(now() - interval '1 year'), 0, 'none is that old');
SELECT cmp_ok(msg_archive_drop(msg_now()), '>=', 1, 'months that are over are dropped');
SELECT is(count(*), 0::bigint, 'with their rows') FROM msg_archive WHERE finished_at < date_trunc('month', msg_now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
SELECT is(msg_retention_drop('b', 'delivered'), true, 'a rule is taken away');
SELECT is(msg_retention_drop('b', 'delivered'), false, 'once');

-- a step looks at so many rows, whatever it finds
SET msgsys.clock_offset = '200d';
SELECT finished('a', 'delivered', 250);
SET msgsys.clock_offset = '210d';
SELECT is((SELECT purged < 100 AND more AND last > 0 FROM msg_purge_step(0, 100)), true, 'a step is bounded');
SELECT is(msg_purge("limit" => 1) > 0, true, 'msg_purge goes on');
SELECT is(msg_purge(), 0::bigint, 'until nothing is left');
SELECT * FROM finish();
