# After a crash a channel waits until its topic is read back: also where it is paused meanwhile, for as long as Kafka is
# away, and not for ever where no receiver runs.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Checker;
use Test::More;

my ($bootstrap, $dir) = kafka_start();
my $node = new_node('catchwaits', 'msgsys.kafka_brokers' => $bootstrap, 'restart_after_crash' => 'on', 'msgsys.catch_up_limit' => '2 s', 'msgsys.poll_interval' => '1 s');
my @channels = qw(paused alone);
kafka_create_topic($bootstrap, $_, 1) for @channels;
$node->safe_psql('postgres', join ';', map { "SELECT msg_channel_set('$_', topic => '$_')" } @channels);
ok(wait_workers($node), 'workers run');
sub answers { return eval { $node->psql('postgres', 'SELECT 1') == 0 } }
sub create { $node->safe_psql('postgres', "INSERT INTO messages (channel, message_key, payload) SELECT '$_[0]', 'key ' || g % 10, to_jsonb(g) FROM generate_series(1, $_[1]) g"); }
sub received { my ($channel, $n, $what) = @_; return ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE channel = '$channel' AND status = 'received'", $n), $what); }
sub crash { kill('KILL', $_[0] // worker_pid($node, 'relay')) == 1 or die 'no worker'; return ok(poll_until(30, \&answers), 'the server answers again'); }

# taken_back(CHANNEL, N): messages whose records are in Kafka, and whose marks a crash took back: their relay is killed
# while the receiver stands still
sub taken_back
{
	my ($channel, $n) = @_;
	kill('STOP', worker_pid($node, 'receiver')) == 1 or die 'no receiver';
	create($channel, $n);
	ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel = '$channel' AND status = 'sent'", $n), "$channel: $n are sent");
	# as a crash leaves them: the marks are lost, a batch was under way
	$node->safe_psql('postgres', "SET session_replication_role = replica; SELECT msg_pause('$channel'); UPDATE messages SET status = 'idle', sent_at = NULL, attempts = 0, kafka_partition = NULL, kafka_offset = NULL WHERE channel = '$channel' AND status = 'sent'");
	return;
}

# ---- paused when the limit runs out
create($_, 1) for @channels;
received($_, 1, "$_: a first one") for @channels;
taken_back('paused', 200);
# a batch is under way when it crashes: the broker hangs
kafka('pause', $dir);
create('alone', 1);
ok(poll_sql($node, 10, q{SELECT state FROM msg_workers WHERE stage = 'relay'}, 'busy'), 'a batch is under way');
crash();
kafka('cont', $dir);
received('alone', 2, 'the other channel is read back, and goes on');
my $from = log_count($node);
create('alone', 1);
received('alone', 3, 'as usual');
my $before = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
ok(poll_sql($node, 20, "SELECT clock_timestamp() > '$before'::timestamptz + interval '3 s'"), 'the limit is over');
$node->safe_psql('postgres', q{SELECT msg_resume('paused')});
received('paused', 201, 'what was paused is read back');
my $c = Checker::check(dsn => $node->connstr('postgres'), bootstrap => $bootstrap, topics => ['paused'], where => "channel = 'paused'");
is($c->{repeated}, 0, 'and not sent again') or diag(Checker::summary($c));
is(log_count($node, 'goes on before all topics are read back'), 0, 'for the limit does not count while it is paused');

# ---- no receiver
$node->safe_psql('postgres', q{ALTER SYSTEM SET msgsys.catch_up_limit = '6 s'});
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
kafka('pause', $dir);
create('alone', 1);
ok(poll_sql($node, 10, q{SELECT state FROM msg_workers WHERE stage = 'relay'}, 'busy'), 'a batch is under way');
crash();
# it stands still as soon as it is there
ok(poll_until(20, sub { my $pid = eval { worker_pid($node, 'receiver') }; $pid && kill('STOP', $pid) }), 'the receiver stands still');
kafka('cont', $dir);
ok(poll_until(20, sub { log_count($node, 'waits with channel "(alone|paused)" and \d+ others until their topics are read back', $from) }), 'what is waited for is said');
ok(poll_sql($node, 30, q{SELECT count(*) FROM messages WHERE channel = 'alone' AND status IN ('sent', 'received')}, 4), 'and then it goes on without');
is(log_count($node, 'goes on before all topics are read back', $from), 1, 'which is said, too');
kill('CONT', worker_pid($node, 'receiver'));
received('alone', 4, 'all are received');
$node->stop;
done_testing();
