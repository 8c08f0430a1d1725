# Scheduled messages of ordered webhooks: a claim is never filled by rows that have to wait for their key, messages that come due
# together go by id, and a breaker's probe is found behind any number of them.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

my $sink = Sink->new;
my $node = new_node('weborder', 'msgsys.webhook_allow' => '127.0.0.1', 'log_statement' => 'none', 'autovacuum' => 'off');
my $session = session($node);
$session->query("SELECT msg_channel_set('first'); SELECT msg_webhook_set('first', '" . $sink->url('/ok') . "')");
ok(poll_sql($node, 20, "SELECT count(*) FROM msg_workers WHERE stage = 'webhook' AND state = 'idle'", 1), 'a webhook worker runs');

sub channel
{
	my ($name, $path, $settings) = @_;
	$session->query("SET client_min_messages = error; SELECT msg_channel_set('$name', max_attempts => 1000, retry_base => '1 h', retry_max => '1 h')");
	$session->query("SELECT msg_webhook_set('$name', '" . $sink->url($path) . "', ordered => true, retry_schedule => '{1 s}', $settings)");
}

# schedule(CHANNEL, KEY, N): N messages of a key that come due together
sub schedule
{
	my ($channel, $key, $n) = @_;
	$session->query("INSERT INTO messages (channel, message_key, payload, due_at, status) SELECT '$channel', '$key', to_jsonb(g), clock_timestamp() + '200 ms', 'scheduled' FROM generate_series(1, $n) g");
}

sub all_end { my ($channel, $n, $what) = @_; return ok(poll_sql($node, 40, "SELECT count(*) FROM messages WHERE channel = '$channel' AND status = 'delivered'", $n), $what); }
sub delivered_in_order
{
	my ($channel, $what) = @_;
	is($session->query("SELECT count(*) FROM (SELECT id, lag(id) OVER (PARTITION BY message_key ORDER BY delivered_at, id) AS before FROM messages WHERE channel = '$channel') o WHERE before > id"), 0, $what);
}

# ---- 600 of one key behind a message that is tried again
channel('held', '/until/1/503', 'breaker_share => 2');
schedule('held', 'k', 600);
ok(poll_sql($node, 10, "SELECT count(*) FROM messages WHERE channel = 'held' AND status = 'retry'", 1), 'the first of 600 of a key is tried again');
schedule('held', 'other', 1);
ok(poll_sql($node, 10, "SELECT attempts > 0 FROM messages WHERE channel = 'held' AND message_key = 'other'"), 'one of another key is claimed behind them');
$session->query("UPDATE messages SET due_at = now() + '1 h' WHERE channel = 'held' AND status = 'retry'");
my $pid = worker_pid($node, 'webhook');
my $cpu = sub { open(my $f, '<', "/proc/$pid/stat") or die; my @f = split / /, <$f> =~ s/.*\) //sr; return $f[11] + $f[12] };
my $before = $cpu->();
$session->query('SELECT pg_sleep(2)');    # time that the worker must not use
cmp_ok($cpu->() - $before, '<', 10, 'the worker is at rest while a key waits (a hundredth of a second of processor time is one)');
$session->query("UPDATE messages SET due_at = now() WHERE channel = 'held' AND status = 'retry'");
$session->query("SELECT msg_webhook_set('held', '" . $sink->url('/ok/201') . "')");
all_end('held', 601, 'all are delivered');
delivered_in_order('held', 'in the order of the key');

# ---- a pace of two
channel('paced', '/until/1/503/paced', 'breaker_share => 2');
schedule('paced', 'k', 20);
schedule('paced', 'other', 4);
$session->query("SELECT msg_pace_set('paced', 2, '50 ms')");
$session->query("UPDATE messages SET due_at = now() WHERE channel = 'paced' AND status = 'retry'");
ok(poll_sql($node, 10, "SELECT count(*) > 0 FROM messages WHERE channel = 'paced' AND message_key = 'other' AND attempts > 0"), 'a pace of two reaches the other key');
$session->query("SELECT msg_webhook_set('paced', '" . $sink->url('/ok/202') . "')");
all_end('paced', 24, 'and all are delivered');

# ---- the probe of a breaker
channel('probed', '/status/503', q{breaker_calls => 1, breaker_pause => '100 ms', breaker_pause_max => '200 ms'});
schedule('probed', 'k', 400);
ok(poll_sql($node, 10, "SELECT count(*) FROM msg_breakers WHERE channel = 'probed'", 1), 'a breaker opens');
schedule('probed', 'other', 3);
$session->query("SELECT msg_webhook_set('probed', '" . $sink->url('/ok/203') . "')");
$session->query("UPDATE messages SET due_at = now() + '1 h' WHERE channel = 'probed' AND status = 'retry'");
ok(poll_sql($node, 10, "SELECT count(*) FROM messages WHERE channel = 'probed' AND message_key = 'other' AND status = 'delivered'", 3), 'it finds its probe behind 400 that have to wait');
ok(poll_sql($node, 10, "SELECT count(*) FROM msg_breakers WHERE channel = 'probed'", 0), 'and closes');
$session->query("UPDATE messages SET due_at = now() WHERE channel = 'probed' AND status = 'retry'");
all_end('probed', 403, 'all are delivered');

# ---- by id among those that come due together, whatever their place in the table
channel('table', '/ok/204', 'concurrency => 64');
$session->query("INSERT INTO messages (channel, message_key, payload, due_at, status) SELECT 'table', 'x', to_jsonb(g), now() + '1 h', 'scheduled' FROM generate_series(1, 50) g");
$session->query("INSERT INTO messages (channel, message_key, payload, due_at, status) SELECT 'table', 'k', to_jsonb(g), now() + '1 h', 'scheduled' FROM generate_series(1, 100) g");
$session->query("DELETE FROM messages WHERE channel = 'table' AND message_key = 'x'");
$session->query('VACUUM messages');
# the later half moves to the place of what was deleted
$session->query("UPDATE messages SET due_at = due_at WHERE channel = 'table' AND payload::text::int > 50");
$session->query("UPDATE messages SET due_at = date_trunc('second', now()) WHERE channel = 'table'");
all_end('table', 100, 'messages that come due together');
my @order = map { $_->{body} } sort { $a->{at} <=> $b->{at} } $sink->requests(sub { $_[0]{path} eq '/ok/204' });
is("@order", join(' ', 1 .. 100), 'go by id');

is(worker_pid($node, 'webhook'), $pid, 'by one and the same worker');
$sink->stop;
$node->stop;
done_testing();
