-- Due times, by a clock that the test sets.
CREATE EXTENSION pgtap;
CREATE EXTENSION msgsys;
SET client_min_messages = warning;
SELECT no_plan();

SELECT ok(abs(extract(epoch FROM msg_now() - clock_timestamp())) < 1, 'the clock is the system''s');
SET msgsys.clock_offset = '1d';
SELECT ok(abs(extract(epoch FROM msg_now() - clock_timestamp()) - 86400) < 1, 'or ahead of it');
SELECT msg_create('1', deliver_at => now() + interval '23 h') AS id \gset
SELECT is(status, 'idle', 'what is due by that clock is idle') FROM msg_get(:id);
SELECT msg_create('1', deliver_at => now() + interval '25 h') AS id \gset
SELECT is(status, 'scheduled', 'what is not, is scheduled') FROM msg_get(:id);
SELECT throws_ok($$SELECT msg_create('1', expires_at => now() + interval '23 h')$$, '22023', 'message expires before it can be sent');
CREATE ROLE somebody;
SET ROLE somebody;
SELECT throws_ok($$SET msgsys.clock_offset = 0$$, '42501', NULL, 'only a superuser sets it');
RESET ROLE;
RESET msgsys.clock_offset;
SELECT * FROM finish();
