# /metrics and /health: from shared memory, while messages go all the way, while the database is busy, and while something is down.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use MsgsysTest;
use Sink;
use Test::More;
use Time::HiRes 'time';

expect_findings('nobody: channel "waits"' => 'there is nothing that sends', 'broker-down: metrics postgres' => 'Kafka is stopped at the end');

my ($bootstrap, $kafka) = kafka_start();
my $sink = Sink->new;
my ($node, $facade) = facade_node('metrics', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.webhook_allow' => '127.0.0.1');
my $session = session($node);
# metrics(): name{labels} => value
sub metrics
{
	my $answer = $facade->ask('GET', '/metrics');
	return { map { /^([^#\s]\S*(?:\{.*\})?) (\S+)$/ ? ($1 => $2) : () } split /\n/, $answer->{body} };
}
# of(PATTERN, NAME, EXPECTED): a metric comes to a value
sub comes
{
	my ($name, $expected, $what) = @_;
	my $got;
	ok(poll_until(30, sub { $got = metrics()->{$name}; defined $got && $got == $expected }), $what) or diag("$name is " . ($got // 'not there'));
}

my $answer = $facade->ask('GET', '/metrics');
is_deeply([ $answer->{status}, $answer->{headers}{'content-type'} ], [ 200, 'text/plain; version=0.0.4; charset=utf-8' ], '/metrics needs no token');
is($facade->ask('POST', '/metrics', body => {})->{status}, 405, 'and takes nothing');
$session->query("SET client_min_messages = error; SELECT msg_channel_set('m', topic => 'm'); SELECT msg_webhook_set('m', '" . $sink->url('/ok') . "'); SELECT msg_channel_set('waits')");
$session->query(q{INSERT INTO messages (channel, payload) SELECT 'm', to_jsonb(g) FROM generate_series(1, 50) g});
ok(poll_sql($node, 60, "SELECT count(*) FROM messages WHERE status = 'delivered'", 50), 'fifty messages go through Kafka to a webhook');
comes('msgsys_deliveries_total{transport="kafka",outcome="success"}', 50, 'sent');
comes('msgsys_deliveries_total{transport="webhook",outcome="success"}', 50, 'delivered');
comes('msgsys_messages_received_total', 50, 'received');
comes(qq(msgsys_step_duration_seconds_count{step="$_"}), 50, "each was measured: $_") for qw(claim send receive deliver);
comes('msgsys_message_wait_seconds_count', 50, 'from creation to Kafka');
comes('msgsys_delivery_duration_seconds_count', 50, 'and each request');
my $m = metrics();
cmp_ok($m->{'msgsys_message_wait_seconds_sum'}, '>', 0, 'which took time');
cmp_ok($m->{'msgsys_message_wait_seconds_sum'}, '<', 50 * 10, 'but not too much');
is($m->{'msgsys_step_duration_seconds_bucket{step="send",le="+Inf"}'}, 50, 'the last bucket has all');
is($m->{"msgsys_worker_up{stage=\"$_\",worker=\"0\"}"}, 1, "$_ is up") for qw(relay receiver webhook http);
SKIP:
{
	my $promtool = work_dir() . '/clients/promtool';
	skip 'there is no promtool', 1 unless -x $promtool;
	my $file = tempdir() . '/metrics';
	open(my $out, '>', $file) or die;
	print $out $facade->ask('GET', '/metrics')->{body};
	close $out;
	is(qx('$promtool' check metrics <$file 2>&1), '', 'promtool has nothing to say');
}

# ---- what waits
$session->query(q{INSERT INTO messages (channel, payload) SELECT 'waits', to_jsonb(g) FROM generate_series(1, 7) g; SELECT msg_create('1', 'waits', deliver_at => now() + interval '1 h')});
$session->query("SELECT msg_pause('waits')");
comes('msgsys_messages{channel="waits",status="idle"}', 7, 'messages that wait are sampled');
comes('msgsys_messages{channel="waits",status="scheduled"}', 1, 'scheduled ones too');
comes('msgsys_channel_paused{channel="waits"}', 1, 'and pauses');
cmp_ok(metrics()->{'msgsys_oldest_pending_age_seconds{channel="waits"}'}, '>', 0, 'with their age');
$session->query(q{INSERT INTO messages (channel, payload) SELECT 'waits', to_jsonb(g) FROM generate_series(1, 10100) g});
comes('msgsys_messages{channel="waits",status="idle"}', 10000, 'up to a bound');

# ---- what alerts and dashboard ask for is there
my %known = map { $_ => 1 } $facade->ask('GET', '/metrics')->{body} =~ /^# HELP (\S+)/mg;
for my $file ('docs/monitoring/alerts.yml', 'docs/monitoring/grafana.json')
{
	my %asked = map { s/_(bucket|sum|count)$//r => 1 } do { open(my $in, '<', $file) or die "$file: $!"; local $/; <$in> } =~ /\b(msgsys_[a-z_]+)/g;
	is_deeply([ grep { !$known{$_} } sort keys %asked ], [], "every metric of $file is served");
}
SKIP:
{
	my $promtool = work_dir() . '/clients/promtool';
	skip 'there is no promtool', 1 unless -x $promtool;
	like(qx('$promtool' check rules docs/monitoring/alerts.yml 2>&1), qr/SUCCESS/, 'promtool takes the rules');
}

# ---- requests are counted
$facade->ask('GET', '/messages?limit=1', as => 'reader') for 1 .. 3;
$facade->ask('GET', '/rpc/nope', as => 'reader');
$m = metrics();
is($m->{'msgsys_http_requests_total{route="table",method="GET",code="200"}'}, 3, 'requests by route, method and status');
is($m->{'msgsys_http_requests_total{route="rpc",method="GET",code="404"}'}, 1, 'refused ones too');
raw_request($facade->{port}, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 2);
comes('msgsys_worker_events_total{stage="http",event="refused"}', 1, 'and those that are not read');
cmp_ok($m->{'msgsys_http_connections{worker="0"}'}, '>=', 1, 'open connections');

# ---- counters never go back
$session->query('SELECT pg_terminate_backend(' . worker_pid($node, 'relay') . ')');
ok(poll_sql($node, 20, "SELECT state = 'idle' AND started_at > now() - interval '5 s' FROM msg_workers WHERE stage = 'relay'"), 'the relay starts again');
is(metrics()->{'msgsys_deliveries_total{transport="kafka",outcome="success"}'}, 50, 'and its counters go on from where they were');

# ---- the database is busy
my $locker = session($node);
$locker->query('BEGIN; LOCK TABLE messages, msg_channels, msg_pauses IN ACCESS EXCLUSIVE MODE');
my @times;
for (1 .. 200)
{
	my $begin = time;
	$facade->ask('GET', '/metrics')->{status} == 200 or die 'no metrics';
	push @times, time - $begin;
}
@times = sort { $a <=> $b } @times;
cmp_ok($times[100], '<', 0.1 * slowness(), sprintf 'answers while all is locked (median %.1f ms)', 1000 * $times[100]);
$locker->query('ROLLBACK');

# ---- health
is($facade->ask('GET', '/health/live')->{status}, 200, 'live');
ok(poll_until(20, sub { $facade->ask('GET', '/health/ready')->{status} == 200 }), 'ready');
is($facade->ask('GET', '/health/nope')->{status}, 404, 'and nothing else');
kafka('stop', $kafka);
$session->query("SELECT msg_create('1', 'm')");
ok(poll_until(30, sub { $facade->ask('GET', '/health/ready')->{status} == 503 }), 'not ready without Kafka');
# the receiver may notice it first
ok(poll_until(30, sub { grep { $_->{stage} eq 'relay' && !$_->{well} && $_->{state} eq 'broker down' } @{ $facade->ask('GET', '/health/ready')->{json}{workers} } }), 'which says why');
comes('msgsys_worker_up{stage="relay",worker="0"}', 0, 'as the metrics do');
is($facade->ask('GET', '/health/live')->{status}, 200, 'but live');
$node->stop;
done_testing();
