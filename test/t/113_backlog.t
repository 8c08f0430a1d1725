# Back-pressure: a channel that is full refuses messages, or warns, by counters that follow what is created, sent, cancelled and deleted.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

expect_findings('nobody: channel "other"' => 'there is nothing that sends');

my $sink = Sink->new;
my $node = new_node('backlog', 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.max_backlog' => 1000, 'restart_after_crash' => 'on');
ok(poll_sql($node, 20, "SELECT count(*) FROM msg_workers WHERE stage = 'webhook' AND state IN ('idle', 'not needed')", 1), 'a webhook worker runs');
expect_findings(nobody => 'channels without topic and webhook fill up');
my $session = session($node);
$session->query("SET client_min_messages = warning; SELECT msg_channel_set('full'); SELECT msg_channel_set('other')");
sub insert { my ($channel, $n) = @_; return $session->query("INSERT INTO messages (channel, payload) SELECT '$channel', to_jsonb(g) FROM generate_series(1, $n) g"); }
# how many more a channel takes, by trying
sub room { my $n = 0; for (1 .. 60) { $session->query("BEGIN; SELECT msg_create('1', '$_[0]')"); last if $session->error =~ /waiting to be sent/; $session->query('COMMIT'); $n++; } $session->query('ROLLBACK'); return $n; }

insert('full', 990);
is(room('full'), 10, 'a channel takes 1,000');
$session->query(q{DO $$BEGIN PERFORM msg_create('1', 'full'); EXCEPTION WHEN configuration_limit_exceeded THEN RAISE WARNING 'SQLSTATE %', SQLSTATE; END$$});
like($session->error, qr/SQLSTATE 53400/, 'and refuses the next with a SQLSTATE');
is($session->query('SELECT count(*) FROM messages'), 1000, 'nothing more is there');
insert('other', 1001);
like($session->error, qr/channel "other" has 1000 messages waiting to be sent/, 'one transaction cannot pass the limit either');
insert('other', 999);
is(room('other'), 1, 'and a refused one leaves no trace');
$session->query(q{SELECT msg_create('1', 'full', deliver_at => now() + interval '1 h')});
unlike($session->error, qr/waiting/, 'what is scheduled does not count');

# ---- what is there already is none more, in a channel that is full too
$session->query(q{SELECT msg_channel_set('dedup'); SELECT msg_create('1', 'dedup', dedup_key => 'k')});
my $first = $session->query(q{SELECT min(id) FROM messages WHERE channel = 'dedup'});
is($session->query(q{SELECT count(*) FILTER (WHERE msg_create('1', 'dedup', dedup_key => 'k') = }.$first.q{) FROM generate_series(1, 500)}), 500, 'a key that is there gives the first id');
$session->query(q{INSERT INTO messages (channel, payload, dedup_key) SELECT 'dedup', '1', 'k' FROM generate_series(1, 500) ON CONFLICT DO NOTHING});
insert('dedup', 989);
$session->query(q{SELECT msg_create_from_query('SELECT jsonb ''1'' AS payload, ''k'' || i % 2 AS dedup_key FROM generate_series(1, 50) i', 'dedup')});
is($session->error, '', 'and is not counted');
is(room('dedup'), 8, 'but each that was made is');
is($session->query(q{SELECT msg_create('1', 'dedup', dedup_key => 'k')}), $first, 'a full channel still answers with the first id');
$session->query(q{BEGIN; SELECT msg_create('1', 'dedup', dedup_key => 'new')});
like($session->error, qr/channel "dedup" has 1000 messages waiting/, 'and refuses a new one');
$session->query('ROLLBACK');
$session->query('SELECT msg_cancel(id) FROM messages WHERE channel = \'full\' AND status = \'idle\' ORDER BY id LIMIT 20');
is(room('full'), 20, 'what is cancelled does not count any more');
$session->query("SELECT msg_webhook_set('full', '" . $sink->url('/ok') . "')");
ok(poll_sql($node, 60, "SELECT count(*) FROM messages WHERE channel = 'full' AND status = 'idle'", 0), 'the messages are delivered');
insert('full', 900);
is($session->error, '', 'and there is room again');
ok(poll_sql($node, 60, "SELECT count(*) FROM messages WHERE channel = 'full' AND status = 'idle'", 0), 'which is used');

# ---- a restart forgets the numbers: they are counted again
$node->stop('immediate');
$node->start;
$session = session($node);
ok(poll_until(30, sub { $session->query(q{BEGIN; SELECT msg_create('1', 'other'); ROLLBACK}); $session->error =~ /has 1000 messages/ }), 'after a crash the backlog is counted');
# a DELETE is not seen, but a reload has it counted
$session->query("DELETE FROM messages WHERE channel = 'other' AND status = 'idle' AND id % 2 = 0");
$node->append_conf('postgresql.conf', "msgsys.sweep_interval = '1 s'\n");
$node->reload;
ok(poll_until(90, sub { $session->query(q{BEGIN; SELECT msg_create('1', 'other'); ROLLBACK}); $session->error !~ /waiting/ }), 'what was deleted is found out');

# ---- a warning
$node->append_conf('postgresql.conf', "msgsys.backlog_action = 'warning'\nmsgsys.max_backlog = 10\n");
$node->reload;
ok(poll_until(20, sub { $session->query('SHOW msgsys.backlog_action') eq 'warning' }), 'a warning in place of an error');
my $before = $session->query('SELECT count(*) FROM messages');
insert('other', 50);
is(() = $session->error =~ /WARNING/g, 1, 'is given once a transaction');
is($session->query('SELECT count(*) FROM messages'), $before + 50, 'and the messages are there');
$node->stop;
$sink->stop;
done_testing();
