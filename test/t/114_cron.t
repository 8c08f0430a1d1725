# Jobs by pg_cron: a message each minute, messages from a query, the jobs that are ready; each as who asked for it.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

expect_findings('nobody: channel "c"' => 'there is nothing that sends');

plan skip_all => 'pg_cron is not there' unless -e qx(pg_config --pkglibdir) =~ s/\n//r . '/pg_cron.so';
my $node = new_node('cron', extension => 0, start => 0, 'cron.database_name' => 'postgres', 'cron.use_background_workers' => 'on');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'msgsys,pg_cron'\n");
$node->start;
my $session = session($node);
$session->query('SET client_min_messages = warning; CREATE EXTENSION msgsys; CREATE EXTENSION pg_cron');
$session->query(q{CREATE ROLE op LOGIN; SELECT msg_grant('op', 'operator'); GRANT USAGE ON SCHEMA cron TO op; SELECT msg_channel_set('c');
	CREATE TABLE due (id int); INSERT INTO due VALUES (1), (2); GRANT SELECT ON due TO op});
my $operator = session($node, 'postgres', 'op');

like($operator->query(q{SELECT msg_cron('each minute', '* * * * *', payload => '{"a": "it''s"}', channel => 'c', event_type => 'tick')}), qr/^\d+$/, 'a job is made');
is($operator->query(q{SELECT msg_cron('rows', '* * * * *', query => 'SELECT id FROM due', channel => 'c') > 0}), 't', 'one of a query');
is($operator->query(q{SELECT msg_cron('stats', '* * * * *', job => 'statistics') > 0}), 't', 'one that is ready');
is($operator->query(q{SELECT msg_cron('purge', '0 3 * * *', job => 'retention') = msg_cron('purge', '5 3 * * *', job => 'retention')}), 't', 'one that is replaced');
is($operator->query(q{SELECT string_agg(concat_ws(' ', name, schedule, active), ', ') FROM msg_crons()}),
	'each minute * * * * * t, purge 5 3 * * * t, rows * * * * * t, stats * * * * * t', 'they are listed');
$operator->query(q{SELECT msg_cron('bad', 'tomorrow', payload => '1')});
like($operator->error, qr/ERROR:.*schedule/, 'a schedule that is none is refused');
ok(poll_sql($node, 90, q{SELECT count(*) >= 3 FROM messages WHERE channel = 'c'}, 't'), 'they run');
is($operator->query(q{SELECT payload ->> 'a' FROM messages WHERE event_type = 'tick' LIMIT 1}), q{it's}, 'one makes a message');
is($operator->query(q{SELECT array_agg(DISTINCT payload ->> 'id' ORDER BY payload ->> 'id') FROM messages WHERE event_type IS NULL}), '{1,2}', 'one makes a message for each row');
ok(poll_until(10, sub { $operator->query(q{SELECT bool_and(last_status = 'succeeded') FROM msg_crons() WHERE name IN ('each minute', 'rows', 'stats')}) eq 't' }), 'their latest runs are shown');
is($session->query(q{SELECT count(DISTINCT username) || max(username) FROM cron.job}), '1op', 'as who made them');
is($operator->query(q{SELECT msg_cron_drop('rows'), msg_cron_drop('rows')}), 't|f', 'a job is ended, once');
is($operator->query(q{SELECT count(*) FROM msg_crons()}), 3, 'the others stay');

# ---- the extension goes, and its jobs with it, whoever made them and however it is dropped; not those of others
$session->query(q{SELECT cron.schedule('mine', '0 3 * * *', 'SELECT 1'); SELECT msg_cron('owner', '0 3 * * *', payload => '1')});
$session->query('BEGIN; DROP EXTENSION msgsys');
is($session->query(q{SELECT string_agg(jobname, ' ' ORDER BY jobname) FROM cron.job}), 'mine', 'DROP EXTENSION ends the jobs of msgsys');
$session->query('ROLLBACK');
is($session->query(q{SELECT count(*) FROM cron.job}), 5, 'if it commits');
$session->query('DROP EXTENSION msgsys; CREATE SCHEMA s; CREATE EXTENSION msgsys SCHEMA s');
$session->query(q{SELECT s.msg_cron('again', '0 3 * * *', payload => '1'); DROP SCHEMA s CASCADE});
is($session->query(q{SELECT string_agg(jobname, ' ' ORDER BY jobname) FROM cron.job}), 'mine', 'as does DROP SCHEMA CASCADE');
$session->query(q{CREATE EXTENSION msgsys; SELECT msg_cron('last', '0 3 * * *', payload => '1'); DROP EXTENSION pg_cron, msgsys});
is($session->query(q{SELECT count(*) FROM pg_extension WHERE extname IN ('pg_cron', 'msgsys')}), 0, 'both may be dropped in one command') or diag($session->error);
$node->stop;
done_testing();
