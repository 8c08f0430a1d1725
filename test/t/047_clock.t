# The clock is set while something waits: an hour back, an hour forward. Each goes on at once when what it waits for is there.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

my ($bootstrap, $dir) = kafka_start();
my $sink = Sink->new;
my $node = new_node('clock', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.sweep_interval' => '3s',
	'msgsys.send_timeout' => '1s');
kafka_create_topic($bootstrap, 'topic', 1);
expect_findings(breaker => 'an endpoint failed just now', setting => 'the clock is set');
my $session = session($node);
$session->query('SET client_min_messages = error');
$session->query(q{SELECT msg_channel_set('topic', topic => 'topic')});
for my $channel (qw(open fails quiet paced))
{
	$session->query("SELECT msg_channel_set('$channel', max_attempts => 100)");
	$session->query("SELECT msg_webhook_set('$channel', '" . $sink->url($channel =~ /open|fails/ ? "/mode/$channel" : '/ok') . "', breaker_share => "
		. ($channel eq 'open' ? "0.1, breaker_calls => 1, breaker_pause => '2 s'" : '2') . q{, retry_schedule => '{1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s}')});
	die $session->error if $session->error =~ /ERROR/;
}
ok(wait_workers($node), 'workers run');

sub mode
{
	my ($channel, $mode) = @_;
	open(my $file, '>', "$sink->{log}.$channel") or die;
	print $file $mode;
	return close $file;
}

sub set_clock
{
	my ($offset) = @_;
	$node->append_conf('postgresql.conf', "msgsys.clock_offset = $offset\n");
	$node->reload;
	return ok(poll_sql($node, 10, "SELECT setting = '$offset' FROM pg_settings WHERE name = 'msgsys.clock_offset'"), "the clock is set by $offset s");
}

my $state = 0;
for my $step ([ 3600, 'forward' ], [ 0, 'back' ])
{
	my ($offset, $way) = @$step;
	# the causes
	# when a message is tried again is a time of day, in its row: set back, the clock comes to it later
	my @fail = $way eq 'back' ? ('open') : ('open', 'fails');
	mode($_, '/status/503') for @fail;
	$session->query("SELECT msg_create('1', '$_')") for @fail;
	ok(poll_sql($node, 20, q{SELECT count(*) > 0 FROM msg_breakers WHERE channel = 'open'}), 'a breaker is open');
	ok(poll_sql($node, 20, q{SELECT count(*) > 0 FROM messages WHERE channel = 'fails' AND status = 'retry'}), 'a webhook backs off') if @fail > 1;
	$session->query(q{SELECT msg_pace_set('paced', 1, '1 s')});
	$session->query(q{SELECT msg_create('1', 'paced') FROM generate_series(1, 5)});
	ok(poll_sql($node, 20, q{SELECT count(*) > 0 FROM messages WHERE channel = 'paced' AND finished_at IS NOT NULL}), 'a pace runs');
	kafka('pause', $dir);
	my $id = $session->query(q{SELECT msg_create('1', 'topic')});
	ok(poll_sql($node, 20, q{SELECT count(*) > 0 FROM msg_workers WHERE stage = 'relay' AND state = 'broker down'}), 'the broker is away');
	# what no note tells of
	$session->query(q{BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO messages (channel, payload, epoch) SELECT 'quiet', '1', epoch FROM messages ORDER BY id DESC LIMIT 1; COMMIT});

	set_clock($offset);

	# and their ends
	kafka('cont', $dir);
	mode($_, '/ok') for @fail;
	# the breaker's message failed, too, and waits for its time
	$session->query(q{SELECT msg_reschedule(id, NULL) FROM messages WHERE channel = 'open' AND status = 'retry'}) if $way eq 'back';
	is($session->query("SELECT msg_wait($id, 'received', '20 s')"), 'received', "$way: the broker is back, and messages go");
	ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel = '$_->[0]' AND status = 'delivered' AND id > $state", $_->[0] eq 'paced' ? 5 : 1), "$way: $_->[1]")
	  or diag($session->query("SELECT status, attempts, due_at, msg_now(), last_error FROM messages WHERE channel = '$_->[0]'"), $session->query('SELECT * FROM msg_breakers'), $session->query('SELECT * FROM msg_paces'))
	  for grep { $_->[0] ne 'fails' || @fail > 1 } [ 'quiet', 'a sweep finds what no note told of' ], [ 'paced', 'the pace goes on' ], [ 'open', 'the breaker closes' ], [ 'fails', 'what was to be tried again is' ];
	is($session->query(q{SELECT count(*) FROM messages WHERE finished_at IS NULL}), 0, "$way: nothing waits");
	$state = $session->query('SELECT max(id) FROM messages');
}
$session->stop;
$node->stop;
$sink->stop;
done_testing();
