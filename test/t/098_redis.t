# What was delivered is in Redis; which may be down, stopped, wiped, full or closed to us, and holds up nothing.
use strict;
use warnings;
use lib 'test/lib';
use IO::Socket::INET;
use JSON::PP;
use MsgsysTest;
use Program;
use Sink;
use Test::More;

my $port = do { my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1'); $s->sockport };
my $redis;
sub redis_start
{
	$redis = Program->new('redis-server', '--port', $port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', tempdir(), '--requirepass', 'pässword', @_);
	$redis->await(qr/Ready to accept connections/, 20);
}
sub cli { my $out = `redis-cli -p $port -a pässword --no-auth-warning @_ 2>/dev/null`; chomp $out; return $out }

redis_start();
my $sink = Sink->new;
my $node = new_node('redis', 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.redis_url' => "redis://:p%C3%A4ssword\@127.0.0.1:$port/2", 'msgsys.redis_prefix' => 'm:',
	'msgsys.redis_ttl' => '1h', 'msgsys.redis_timeout' => '200ms');
expect_findings('not-listed' => 'a second database has no workers');
my $session = session($node);
ok(poll_sql($node, 20, "SELECT count(*) FROM msg_workers WHERE stage = 'webhook' AND state IN ('idle', 'not needed')", 1), 'a webhook worker runs');
$session->query("SET client_min_messages = error; SELECT msg_channel_set('c'); SELECT msg_webhook_set('c', '" . $sink->url('/id') . "', breaker_share => 2)");

# deliver(N): create messages and wait until all are delivered; the slowest one's time in seconds
sub deliver
{
	my ($n) = @_;
	$session->query("INSERT INTO messages (channel, payload) SELECT 'c', jsonb_build_object('n', g) FROM generate_series(1, $n) g");
	ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE status <> 'delivered'", 0), "$n are delivered");
	return $session->query('SELECT extract(epoch FROM max(delivered_at - created_at)) FROM messages WHERE id > (SELECT max(id) FROM messages) - ' . $n);
}
my $last = sub { $session->query('SELECT max(id) FROM messages') };

deliver(500);
ok(poll_until(10, sub { cli('-n 2 dbsize') eq '500' }), 'all are in Redis, in its database 2');
my $id = $last->();
# keys are messages' names: the installation's uuid is in them
my $prefix = 'm:' . $session->query('SELECT uuid FROM msg_installation') . ':';
my $value = decode_json(cli("-n 2 get $prefix$id"));
is_deeply($value->{message}, { n => 500 }, 'the message');
like($value->{messageId}, qr/^m-.*:$id$/, 'the id that the answer named');
is($value->{code}, 200, 'the code');
like($value->{sentAt}, qr/^\d{4}-\d\d-\d\dT[\d:.]+Z$/, 'the time');
my $ttl = cli("-n 2 ttl $prefix$id");
ok($ttl > 3500 && $ttl <= 3600, 'it goes after msgsys.redis_ttl');
is($session->query("SELECT msg_cached($id) ->> 'code'"), 200, 'msg_cached answers');
cli("-n 2 set $prefix$id '{\"code\": 7}'");
is($session->query("SELECT msg_cached($id)"), '{"code": 7}', 'from Redis');
my $older = $id;
# another installation that shares the Redis and the prefix, and has a message with this id
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', "SET client_min_messages = error; CREATE EXTENSION msgsys");
is($node->safe_psql('second', "SELECT msg_cached($id) IS NULL"), 't', "one database does not answer with another's message");
$prefix = 'm:' . $session->query('SELECT uuid FROM msg_installation') . ':';
ok(poll_until(20, sub { deliver(1); cli("-n 2 exists $prefix" . $last->()) eq '1' }), 'what is delivered is cached under its name');
$session->query("DELETE FROM messages WHERE id > $id"); cli('-n 2 flushdb'); $session->query('SELECT msg_cache_fill()');
$id = $session->query(q{SELECT msg_create_raw('\xff', 'c')});
is($session->query("SELECT msg_wait($id, 'delivered', '10 s')"), 'delivered', 'bytes are delivered');
ok(poll_until(10, sub { cli("-n 2 get $prefix$id") =~ /"message": null/ }), 'and cached without them');

# ---- wiped
cli('flushall');
like($session->query("SELECT msg_cached($older)"), qr/"code": 200/, 'wiped: the table answers');
is($session->query('SELECT msg_cache_fill()'), 501, 'it can be filled again');
is(cli('-n 2 dbsize'), 501, 'with all');

# ---- full
cli('config set maxmemory 1');
cmp_ok(deliver(200), '<', 3 * slowness(), 'full: it slows nothing');
is(log_count($node, 'has lost Redis'), 1, 'one line says so');
cli('config set maxmemory 0');
ok(poll_until(20, sub { deliver(1); log_count($node, 'has Redis back') == 1 }), 'it is used again, and one line says so');

# ---- stopped in its tracks
my $pid = cli('info server') =~ /process_id:(\d+)/ ? $1 : die;
kill 'STOP', $pid;
cmp_ok(deliver(500), '<', 3 * slowness(), 'stopped: it slows nothing');
is(log_count($node, 'has lost Redis'), 2, 'one line says so');
kill 'CONT', $pid;
ok(poll_until(20, sub { deliver(1); log_count($node, 'has Redis back') == 2 }), 'it is used again');

# ---- killed
kill 'KILL', $pid;
cmp_ok(deliver(500), '<', 3 * slowness(), 'killed: it slows nothing');
is($session->query("SELECT msg_cached($id) ->> 'code'"), 200, 'the table answers');
redis_start();
ok(poll_until(30, sub { deliver(1); log_count($node, 'has Redis back') == 3 }), 'it is used again');
is(stats($node)->{'webhook.cached'} + stats($node)->{'webhook.uncached'}, stats($node)->{'webhook.delivered'}, 'each delivery was cached or counted as not');

# ---- a Redis that is no friend: a byte now and then, and claims of what is to come
my $there;    # its port
sub foe
{
	my ($answer, $pause) = @_;
	my $foe = Program->new('perl', '-MIO::Socket::INET', '-MTime::HiRes=sleep', '-e', q{
		$SIG{PIPE} = 'IGNORE'; $| = 1; my ($answer, $pause) = @ARGV; $answer =~ s/\\\\r\\\\n/\r\n/g; $answer =~ s/\\\\x(..)/chr hex $1/ge;
		my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1'); print $s->sockport, "\n";
		while (my $c = $s->accept) { $c->sysread(my $question, 65536); print "asked\n"; for my $byte (split(//, $answer), ('x') x 1000) { last unless $c->syswrite($byte); sleep $pause if $pause } close $c }}, '--', $answer, $pause);
	($there) = $foe->await(qr/(\d+)/, 10) =~ /(\d+)/ or die $foe->{err};
	$node->append_conf('postgresql.conf', "msgsys.redis_url = 'redis://127.0.0.1:$there'\n");
	$node->reload;
	return $foe;
}
my $foe = foe('$100000\r\n', 0.05);
ok(poll_until(20, sub { deliver(1); log_count($node, 'has lost Redis.*no answer in time') >= 1 }), 'one that drips bytes is late as one that sends none');
cmp_ok(deliver(100), '<', 3 * slowness(), 'it slows nothing');
is($session->query("SELECT msg_cached($id) ->> 'code'"), 200, 'the table answers');
$foe->stop;
$foe = foe('*2000000000\r\n', 0);
is($node->safe_psql('postgres', "SELECT msg_cached($id) ->> 'code'"), 200, 'one that claims two thousand million answers makes nothing large: the table answers');
$foe->stop;
# what it has of a message is no entry, or what the database could not hold: each connection gets the next
my @entries = ('{]}x', '{"a": "\\u0000"}', '{"a": "\x00"}', '{"a": "\xff\xfe"}', '{"code": 1e131071}', '[' x 100_000, '7', '"text"', '[]', '', '{"code": 1');
for my $entry (@entries)
{
	my $length = length($entry =~ s/\\x../x/gr);
	$foe = foe("\$$length\\r\\n$entry\\r\\n", 0);
	ok(poll_sql($node, 10, 'SHOW msgsys.redis_url', "redis://127.0.0.1:$there"), 'Redis is another');
	is(($node->psql('postgres', "SELECT msg_cached($id) ->> 'code'"))[1], 200, 'the table answers in place of ' . substr($entry, 0, 20));
	like($foe->output, qr/asked/, 'which Redis was asked before');
	$foe->stop;
}
# and its words are for a terminal, or for no database
$foe = foe('-ERR \x1b[31m\xff\xc3' . '\xc3\xa9' x 200 . '\r\n', 0);
# a new worker tells it
$session->query("SELECT pg_terminate_backend(pid) FROM msg_workers WHERE stage = 'webhook'");
ok(poll_until(20, sub { deliver(1); (($node->psql('postgres', "SELECT last_error FROM msg_workers WHERE last_error LIKE 'ERR %'"))[1] // '') =~ /^ERR \?\[31m\?\?(\xc3\xa9)+\??$/ }), 'an error is told without what is no text');
is(log_count($node, '\x1b'), 0, 'in the log too');
$foe->stop;

# ---- a wrong URL
$node->append_conf('postgresql.conf', "msgsys.redis_url = 'http://127.0.0.1/'\n");
$node->reload;
ok(poll_until(20, sub { deliver(1); log_count($node, 'msgsys.redis_url cannot be used') >= 1 }), 'a wrong URL is said');
$session->query("SELECT msg_cache_fill()");
like($node->safe_psql('postgres', "DO \$\$BEGIN PERFORM msg_cache_fill(); EXCEPTION WHEN config_file_error THEN CREATE TEMP TABLE refused (); END\$\$; SELECT to_regclass('refused')"),
	qr/refused/, 'and an error in a session');
# ---- TLS
SKIP:
{
	if (system('pkg-config --exists hiredis_ssl') != 0)
	{
		$node->append_conf('postgresql.conf', "msgsys.redis_url = 'rediss://127.0.0.1'\n");
		$node->reload;
		ok(poll_until(20, sub { deliver(1); log_count($node, 'msgsys.redis_url cannot be used: rediss:// needs TLS') >= 1 }), 'TLS where hiredis has none: that is said');
		my ($code, $out, $err) = $node->psql('postgres', 'SELECT msg_cache_fill()');
		like($err, qr/rediss:.* needs TLS, which hiredis has from version 1.0 on/, 'and an error in a session');
		skip 'this hiredis has no TLS', 1;
	}
	my $dir = tempdir();
	my $openssl = sub { system("cd $dir && openssl $_[0] 2>/dev/null") == 0 or die "openssl $_[0]" };
	$openssl->("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=$_ -keyout $_.key -out $_.pem -batch") for qw(ca other);
	append_to_file("$dir/ext", "subjectAltName=IP:127.0.0.1\n");
	$openssl->('req -newkey rsa:2048 -nodes -subj /CN=redis -keyout redis.key -out redis.csr -batch');
	$openssl->('x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out redis.pem');
	my $tls_port = do { my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1'); $s->sockport };
	my $tls = Program->new('redis-server', '--port', 0, '--tls-port', $tls_port, '--bind', '127.0.0.1', '--save', '', '--dir', $dir,
		'--tls-cert-file', "$dir/redis.pem", '--tls-key-file', "$dir/redis.key", '--tls-ca-cert-file', "$dir/ca.pem", '--tls-auth-clients', 'no');
	$tls->await(qr/Ready to accept connections/, 20);
	my $cached = sub { `redis-cli -p $tls_port --tls --cacert $dir/ca.pem dbsize` + 0 };
	my $configure = sub {
		my ($host, $ca) = @_;
		$node->append_conf('postgresql.conf', "msgsys.redis_url = 'rediss://$host:$tls_port'\nmsgsys.redis_ca_file = '$dir/$ca.pem'\n");
		$node->reload;
	};
	$configure->('127.0.0.1', 'ca');
	ok(poll_until(20, sub { deliver(1); $cached->() > 0 }), 'TLS: it is cached');
	$configure->('127.0.0.1', 'other');
	ok(poll_until(20, sub { deliver(1); log_count($node, 'has lost Redis.*certificate') >= 1 }), 'not where somebody else signed the certificate');
	$configure->('127.0.0.1', 'ca');
	my $back = log_count($node, 'has Redis back');
	ok(poll_until(20, sub { deliver(1); log_count($node, 'has Redis back') > $back }), 'it is used again');
	$configure->('localhost', 'ca');
	ok(poll_until(20, sub { deliver(1); log_count($node, 'mismatch') == 1 }), 'nor where it is another host\'s');
	$tls->stop;
}
is(log_count($node, 'pässword|p%C3%A4ssword@.*ERROR'), 0, 'no password in the log');
$node->stop;
$redis->stop;
done_testing();
