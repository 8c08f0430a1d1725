# A crash takes back the marks of what was sent last; it is read back before anything is sent again.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Checker;
use Test::More;

my $n = $ENV{CATCH_UP_MESSAGES} // 30000;
my ($bootstrap, $dir) = kafka_start();
my $node = new_node('catchup', 'msgsys.kafka_brokers' => $bootstrap, 'restart_after_crash' => 'on');
ok(wait_workers($node), 'workers run');
kafka_create_topic($bootstrap, 'drained', 4);
kafka_create_topic($bootstrap, 'removed', 1);
my $session = session($node);
$session->query(qq{SELECT msg_channel_set('$_', topic => '$_')}) for qw(drained removed);
my ($id) = $session->query(q{SELECT msg_create('1', 'removed')});
is($session->query("SELECT msg_wait($id, 'received', '10 s')"), 'received', 'a channel whose topic will be gone');
kafka_topic($bootstrap, 'delete', 'removed');
my $sent = q{(SELECT sum((counters ->> 'sent')::int) FROM msg_worker_slots() WHERE stage = 'relay')};
$session->query(q{SELECT msg_pause('drained')});
$session->query(qq{INSERT INTO messages (channel, message_key, payload) SELECT 'drained', 'key ' || g % 1000, to_jsonb(repeat('x', 100)) FROM generate_series(1, $n) g});
$session->query(qq{SELECT msg_resume('drained')});
$session->query(qq{DO \$\$ BEGIN WHILE $sent < $n / 3 LOOP PERFORM pg_sleep(0.001); END LOOP; END \$\$});
ok(kill_worker($node, 'relay'), 'the server answers again');
ok(poll_sql($node, 60, q{SELECT count(*) FROM messages WHERE channel = 'drained' AND status = 'received'}, $n), 'all are received');
cmp_ok(log_count($node, 'reads back what was sent before the crash'), '>=', 1, 'the relay has read back first');
my $c = Checker::check(dsn => $node->connstr('postgres'), bootstrap => $bootstrap, topics => ['drained'], where => "channel = 'drained'");
ok(Checker::good($c), 'nothing is lost, invented or reordered: ' . Checker::summary($c));
cmp_ok($c->{repeated}, '<=', 1000, "$c->{repeated} of $n came twice");
diag("$c->{repeated} of $n came twice");

# ---- the clock is set back meanwhile: what was looked at before counts for as late as there can be
$node->safe_psql('postgres', "ALTER SYSTEM SET msgsys.clock_offset = 3600");
$node->restart;
ok(wait_workers($node), 'workers run by a clock that is an hour ahead');
kafka('pause', $dir);
my $log = log_count($node);
ok(kill_worker($node, 'relay'), 'the server answers again');
ok(poll_until(20, sub { log_count($node, 'reads back what was sent before the crash', $log) }), 'the relay is to read back');
$node->safe_psql('postgres', $_) for 'ALTER SYSTEM RESET msgsys.clock_offset', 'SELECT pg_reload_conf()';
kafka('cont', $dir);
$node->safe_psql('postgres', q{SELECT msg_create('1', 'drained')});
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel = 'drained' AND status = 'received'}, $n + 1), 'it goes on although the clock was set back');

# ---- a clean stop needs none of that
$node->restart;
my $from = log_count($node);
ok(wait_workers($node), 'workers run after a clean stop');
my $before = log_count($node, 'reads back what was sent before the crash');
$node->restart;
ok(wait_workers($node), 'and again');
is(log_count($node, 'reads back what was sent before the crash'), $before, 'nothing is to be read back then');
$node->stop;
done_testing();
