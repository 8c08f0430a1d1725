# Retention by the scheduler: it blocks nobody, takes what is held later, and what it archives survives a dump and a restore.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

expect_findings('not-listed: retention restored' => 'a dump is restored into a database that nobody works on');

my $node = new_node('retention', 'msgsys.databases' => 'postgres');
ok(poll_sql($node, 20, "SELECT count(*) FROM msg_workers WHERE stage = 'scheduler' AND state = 'idle'", 1), 'a scheduler runs');
my $session = session($node);
my $finished = "INSERT INTO messages (status, finished_at, payload) SELECT 'sent', clock_timestamp(), to_jsonb(g) FROM generate_series";
$session->query("$finished(1, 20000) g");
my $holder = session($node);
$holder->query('BEGIN; SELECT id FROM messages WHERE id = 7 FOR UPDATE');
$session->query(q{SELECT msg_retention_set(NULL, 'sent', '0', archive => true)});
ok(poll_sql($node, 30, 'SELECT count(*) FROM messages', 1), 'all are archived but one');
is($session->query('SELECT id FROM messages'), 7, 'that somebody holds');
is($session->query('SELECT count(*), count(DISTINCT id) FROM msg_archive'), '19999|19999', 'each once');
$session->query("$finished(1, 100) g");
ok(poll_sql($node, 30, 'SELECT count(*) FROM msg_archive', 20099), 'nothing waits for the one that is held');
$holder->query('ROLLBACK');
ok(poll_sql($node, 30, 'SELECT count(*) FROM messages', 0), 'which follows');
cmp_ok(stats($node)->{'scheduler.purged'}, '==', 20100, 'they are counted');

# somebody has the table for himself
$session->query("SELECT msg_retention_drop(NULL, 'sent')");
$session->query("$finished(1, 10) g");
$holder->query('BEGIN; LOCK TABLE messages IN EXCLUSIVE MODE');
$session->query(q{SELECT msg_retention_set(NULL, 'sent', '0')});
is($holder->query('SELECT count(*) FROM messages'), 10, 'a table lock is not waited for');
$holder->query('COMMIT');
ok(poll_sql($node, 30, 'SELECT count(*) FROM messages', 0), 'and purging goes on after it');
is($session->query('SELECT count(*) FROM msg_archive'), 20100, 'a rule without archive deletes');

# a dump and a restore
my $dump = tempdir() . '/dump';
command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'restore');
is($node->safe_psql('restored', 'SELECT count(*) FROM msg_archive'), 20100, 'the archive is there');
is($node->safe_psql('restored', 'SELECT channel, status, keep FROM msg_retention'), '*|sent|00:00:00', 'and the rules');
is($node->safe_psql('restored', "SELECT msg_archive_drop(date_trunc('month', now()))"), 0, 'partitions are still those of their months');
$session->query(q{SET msgsys.clock_offset = '32d'});
cmp_ok($session->query('SELECT msg_archive_drop(msg_now())'), '>=', 1, 'a month that is over is dropped whole');
is($session->query('SELECT count(*) FROM msg_archive'), 0, 'with all its rows');
ok($node->safe_psql('postgres', 'DROP EXTENSION msgsys; SELECT NOT EXISTS (SELECT FROM pg_class WHERE relname LIKE $$msg\_archive%$$)') eq 't', 'DROP EXTENSION leaves nothing');
$node->stop;
done_testing();
