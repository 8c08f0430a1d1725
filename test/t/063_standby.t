# A standby serves what can be read: msg_wait, msg_workers, HTTP, metrics and probes; at its promotion it begins to work. And workers end when they
# are told to, whatever they are at.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use IO::Socket::INET;
use MsgsysTest;
use Sink;
use Test::More;
use Time::HiRes 'time';

my $sink = Sink->new;
my ($primary, $facade) = facade_node('primary', 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.poll_interval' => '1h');
$primary->safe_psql('postgres', qq{SELECT msg_channel_set('hook'); SELECT msg_webhook_set('hook', '@{[$sink->url('/ok')]}'); SELECT msg_pause('hook')});
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
my $port = free_port();
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "msgsys.http_listen = '127.0.0.1:$port'\n");
$standby->start;
facade_ready($standby);
my $reader = Facade->new($port);
my $states = q{SELECT string_agg(stage || ' ' || state, ', ' ORDER BY stage) FROM msg_workers WHERE stage <> 'http'};
ok(poll_sql($standby, 10, $states, 'receiver standby, relay standby, scheduler standby, webhook standby'), 'msg_workers shows who waits for the promotion');
is($standby->safe_psql('postgres', q{SELECT string_agg(backend_type, ', ' ORDER BY backend_type) FROM pg_stat_activity WHERE backend_type LIKE 'msgsys%'}),
	'msgsys http, msgsys launcher', 'and only who serves HTTP runs');

# ---- msg_wait
my $id = $primary->safe_psql('postgres', q{SELECT msg_create('1', 'hook')});
$primary->wait_for_catchup($standby);
my $waiter = session($standby);
$waiter->send("SELECT msg_wait($id, 'delivered', '60 s')");
$primary->safe_psql('postgres', q{SELECT msg_resume('hook')});
my $began = time;
is($waiter->answer, 'delivered', 'msg_wait on a standby sees what comes by replication');
cmp_ok(time - $began, '<', 30, 'without waiting for its timeout');
is($waiter->query("SELECT msg_wait($id, 'delivered', '60 s')"), 'delivered', 'and what is so already');
$waiter->stop;

# ---- HTTP
is($reader->ask('GET', "/messages?id=eq.$id&select=status", as => 'reader')->{body}, '[{"status":"delivered"}]', 'messages can be read');
is($reader->ask('POST', '/rpc/msg_get', as => 'reader', body => { id => 0 + $id })->{status}, 200, 'by functions too');
my $answer = $reader->ask('POST', '/rpc/msg_create', as => 'producer', body => { payload => 1 });
is("$answer->{status} $answer->{json}{code} $answer->{headers}{'retry-after'}", '503 25006 1', 'nothing can be changed');
is($reader->ask('PATCH', "/messages?id=eq.$id", as => 'operator', body => { priority => 1 })->{status} >= 400, 1, 'nor by tables');
is($reader->ask('GET', '/rpc/msg_create?payload=1', as => 'producer')->{status}, 405, 'GET changes nothing on any server');
$answer = $reader->ask('GET', '/health/ready');
is("$answer->{status} $answer->{json}{status}", '200 standby', 'a probe says that it is a standby');
is($reader->ask('GET', '/health/live')->{status}, 200, 'that lives');
$answer = $facade->ask('GET', '/health/ready');
is("$answer->{status} $answer->{json}{status}", '200 ready', 'the primary is ready');
like($reader->ask('GET', '/metrics')->{body}, qr/^msgsys_worker_up\{stage="relay",worker="0"\} 1$/m, 'metrics are there, and nobody is missed');
ok(poll_until(20, sub { $reader->ask('GET', '/metrics')->{body} =~ /^msgsys_last_sample_timestamp_seconds/m }), 'what waits is counted');
is($reader->ask('GET', '/openapi.json')->{status}, 200, 'so is the description');

# ---- promotion
$primary->stop('immediate');
$standby->promote;
ok(poll_sql($standby, 20, $states, 'receiver not needed, relay not needed, scheduler idle, webhook idle'), 'promoted, it works');
$answer = $reader->ask('POST', '/rpc/msg_create', as => 'producer', body => { payload => 1, channel => 'hook' });
is($answer->{status}, 200, 'the same HTTP worker takes messages') or diag($answer->{body});
is($standby->safe_psql('postgres', "SELECT msg_wait($answer->{body}, 'delivered', '20 s')"), 'delivered', 'which are delivered');
$answer = $reader->ask('GET', '/health/ready');
is("$answer->{status} $answer->{json}{status}", '200 ready', 'and it is ready');
unlike(slurp_file($standby->logfile), qr/\b(FATAL|PANIC)\b.*msgsys|recovery.*msgsys/, 'no worker met an error');

# ---- a signal ends a worker whatever it is at: SQL that takes long, a file that does not open
$standby->append_conf('postgresql.conf', "msgsys.grace_period = '300ms'\nmsgsys.http_statement_timeout = 0\n");
$standby->reload;
my $session = session($standby);
$id = $session->query(q{SELECT msg_create('1', 'hook', deliver_at => now() + interval '1 day')});
# waits(): the HTTP worker is within a request that would take ten minutes
sub waits
{
	my $body = qq({"id": $id, "timeout": "10 min"});
	my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") or die "no HTTP: $!";
	$socket->print("POST /rpc/msg_wait HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " . token({ role => 'reader' }) . "\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
	$socket->flush;
	ok(poll_sql($standby, 20, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'msgsys http' AND query = 'POST /rpc/msg_wait' AND wait_event IS NOT NULL}, 1), 'a request waits');
	return $socket;
}
my $http = q{(SELECT pid FROM pg_stat_activity WHERE backend_type = 'msgsys http')};
my $waiting = waits();
is($session->query("SELECT pg_terminate_backend($http, 5000)"), 't', 'the worker ends within it');
facade_ready($standby);

my $fifo = tempdir() . '/keys';
system('mkfifo', '-m', '644', $fifo) == 0 or die;
my $pid = $session->query("SELECT $http");
$standby->append_conf('postgresql.conf', "msgsys.http_jwt_keys_file = '$fifo'\n");
$standby->reload;
# whether it reads the file, or refuses it, it is told to end at a time when it has been told of it
ok(poll_until(10, sub { my $settings = $session->query('SHOW msgsys.http_jwt_keys_file'); $settings eq $fifo }), 'a file of keys that nobody writes to');
is($session->query("SELECT pg_terminate_backend($pid, 5000)"), 't', 'a worker that opens it ends, too');
$standby->append_conf('postgresql.conf', "msgsys.http_jwt_keys_file = ''\n");
$standby->reload;
$session->query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE backend_type = 'msgsys http'");
facade_ready($standby);
$waiting = waits();
$began = time;
$standby->stop('fast');
cmp_ok(time - $began, '<', 20 * slowness(), 'and a fast shutdown ends');
done_testing();
