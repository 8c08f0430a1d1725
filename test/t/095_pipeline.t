# The whole line: Kafka, then the webhook; retries and dead letters through topics of their own.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

my ($bootstrap) = kafka_start();
my $sink = Sink->new;
my $node = new_node('pipeline', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.webhook_allow' => '127.0.0.1',
	'msgsys.webhook_workers' => 2);
ok(wait_workers($node), 'workers run');
my $session = session($node);
my $uuid = $session->query('SELECT uuid FROM msg_installation');

sub channel
{
	my ($name, $path, $settings) = @_;
	$session->query("SELECT msg_channel_set('$name', topic => '$name', max_attempts => 4, retry_base => '20 ms', retry_max => '50 ms')");
	$session->query("SELECT msg_webhook_set('$name', '" . $sink->url($path) . "', retry_schedule => '{}', breaker_share => 2" . ($settings ? ", $settings" : '') . ')');
}
sub all_end { my ($channel, $status, $n, $what) = @_; return ok(poll_sql($node, 60, "SELECT count(*) FROM messages WHERE channel = '$channel' AND status = '$status'", $n), $what); }
sub ids { my ($path) = @_; my %n; $n{ $_->{id} }++ for $sink->requests(sub { $_[0]{path} eq $path }); return \%n; }

# ---- every stage
channel('line', '/id');
$session->query("INSERT INTO messages (channel, message_key, payload) SELECT 'line', (g % 100)::text, to_jsonb(g) FROM generate_series(1, 3000) g");
all_end('line', 'delivered', 3000, 'sent, received, delivered');
is($session->query("SELECT count(*) FROM messages WHERE channel = 'line' AND sent_at <= received_at AND received_at <= delivered_at AND finished_at = delivered_at AND attempts = 1 AND kafka_offset IS NOT NULL"),
	3000, 'with the time of each stage');
is(scalar keys %{ ids('/id') }, 3000, 'each was posted');
is($session->query("SELECT count(*) FROM msg_workers WHERE stage = 'webhook' AND delivered > 0"), 2, 'by two workers');
is((grep { $_ > 1 } values %{ ids('/id') }) + 0, 0, 'once');
check_topic($node, $bootstrap, 'line', "channel = 'line'", 'the topic has each once');

# ---- what the webhook refuses for a while goes again through <topic>.retry
channel('again', '/until/2/503');
$session->query("INSERT INTO messages (channel, message_key, payload) SELECT 'again', (g % 10)::text, to_jsonb(g) FROM generate_series(1, 200) g");
all_end('again', 'delivered', 200, 'two failures, and a success');
is($session->query("SELECT DISTINCT attempts FROM messages WHERE channel = 'again'"), 3, 'three attempts each');
is($session->query("SELECT count(*) FROM msg_attempts a JOIN messages m ON m.id = a.message_id WHERE m.channel = 'again' AND a.attempt IN (1, 2)"), 400, 'each failure is a row');
is(scalar(read_topic($bootstrap, 'again')), 200, 'the topic has each once');
my @retries = read_topic($bootstrap, 'again.retry');
is(scalar @retries, 400, 'the others went through the topic for retries');
is((grep { ($_->{headers}{'msgsys-attempt'} // 1) =~ /^[23]$/ } @retries) + 0, 400, 'and say which attempt they are');

# ---- dead letters
channel('dead', '/status/503');
$session->query("INSERT INTO messages (channel, message_key, payload) SELECT 'dead', (g % 10)::text, to_jsonb(g) FROM generate_series(1, 50) g");
all_end('dead', 'dead', 50, 'attempts are used up');
ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE dlq_pending", 0), 'dead letters are written');
my @letters = read_topic($bootstrap, 'dead.dlq');
is(scalar @letters, 50, 'to the topic for them');
my ($letter) = @letters;
is($letter->{headers}{'msgsys-error'}, 'status 503', 'with the reason');
is($letter->{headers}{'msgsys-attempts'}, 4, 'the attempts');
like($letter->{headers}{$_}, qr/^\d{4}-\d\d-\d\dT[\d:.]+Z$/, "and $_") for qw(msgsys-first-at msgsys-last-at);
like($letter->{headers}{ce_id}, qr/^$uuid:\d+$/, 'under the same name');
$session->query("SELECT msg_webhook_set('dead', '" . $sink->url('/ok/201') . "')");
is($session->query("SELECT msg_redrive('dead', error => '%503%')"), 50, 'all are redriven');
all_end('dead', 'delivered', 50, 'and delivered');
is(scalar(read_topic($bootstrap, 'dead')), 50, 'without being in the topic twice');

# ---- a consumer acknowledges, and only then it is the webhook's turn
channel('acked', '/ok/202');
$session->query("SELECT msg_channel_set('acked', ack => 'topic')");
my $id = $session->query("SELECT msg_create('1', 'acked')");
is($session->query("SELECT msg_wait($id, 'sent', '10 s')"), 'sent', 'sent');
kcat_produce($bootstrap, 'msgsys.acks', qq({"id": "$uuid:$id", "status": "received"}));
is($session->query("SELECT msg_wait($id, 'delivered', '10 s')"), 'delivered', 'received by a consumer, delivered to the webhook');
$id = $session->query("SELECT msg_create('2', 'acked')");
is($session->query("SELECT msg_wait($id, 'sent', '10 s'); SELECT msg_ack($id); SELECT msg_wait($id, 'delivered', '10 s')") =~ s/.*\n//sr, 'delivered', 'the same by SQL');

# ---- order over Kafka's retries too
channel('ordered', '/fail/20/ok/203', 'ordered => true');
$session->query("SELECT msg_channel_set('ordered', max_attempts => 1000)");
$session->query("INSERT INTO messages (channel, message_key, payload) SELECT 'ordered', (g % 20)::text, to_jsonb(g) FROM generate_series(1, 400) g");
all_end('ordered', 'delivered', 400, 'an ordered channel, where one in five fails, delivers all');
my (%last, $disorder);
for my $r ($sink->requests(sub { $_[0]{path} =~ m{^/fail} && $_[0]{code} == 203 }))
{
	my $key = $r->{body} % 20;
	$disorder++ if $r->{body} < ($last{$key} // 0);
	$last{$key} = $r->{body};
}
is($disorder, undef, 'in the order of each key');

# ---- the webhook goes away: what waits for it is finished as received
channel('lost', '/hang');
$session->query("INSERT INTO messages (channel, payload) SELECT 'lost', to_jsonb(g) FROM generate_series(1, 20) g");
ok(poll_sql($node, 20, "SELECT count(*) FROM msg_backlog WHERE channel = 'lost' AND status = 'received' AND count = 20", 1), 'they wait for the webhook, and the backlog says so');
$session->query("SELECT msg_webhook_drop('lost')");
is($session->query("SELECT count(*) FROM messages WHERE channel = 'lost' AND status = 'received' AND finished_at IS NOT NULL"), 20, 'without a webhook they are done');
$node->stop;
$sink->stop;
done_testing();
