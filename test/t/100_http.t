# The HTTP worker as a server: when it starts, keep-alive, limits, deadlines, requests that are slow, broken or forged, queries that
# fail or take too long, several workers at a port.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use IO::Socket::INET;
use JSON::PP;
use MsgsysTest;
use Test::More;
use Time::HiRes qw(time sleep);

expect_findings('nobody: channel "default"' => 'there is nothing that sends', 'worker-stopped: {"http 0"}' => 'the address is one that it cannot listen at');

my ($node, $facade) = facade_node('http', 'msgsys.http_request_timeout' => '2s', 'msgsys.http_max_body' => '64kB', 'msgsys.http_max_header' => '16kB',
	'msgsys.http_statement_timeout' => '1s', 'msgsys.http_lock_timeout' => '300ms', 'msgsys.http_connections_per_peer' => 20, 'msgsys.http_connections' => 40);
my $port = $facade->{port};
expect_findings('worker-stopped' => 'wrong settings are the last that it tries', nobody => 'the channel default has no way out');
my $token = token({ role => 'operator' });
my $pid = worker_pid($node, 'http');
my $alive = sub { return $facade->ask('GET', '/rpc/msg_running', as => 'reader')->{status} };
# request(LINE, header lines…): as text
sub request { return join("\r\n", $_[0], 'Host: x', @_[1 .. $#_], '', ''); }
sub status { my ($answer) = @_; return ($answer // '') =~ m{^HTTP/1\.[01] (\d+)} ? $1 : 'closed'; }
sub connect_to { return IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port"); }

# ---- keep-alive and pipelining
my $socket = connect_to();
my $get = request('GET /rpc/msg_running HTTP/1.1', "Authorization: Bearer $token");
for my $n (1 .. 3)
{
	$socket->syswrite($get);
	my $answer = '';
	$socket->sysread($answer, 65536, length $answer) until $answer =~ /true$/;
	is(status($answer), 200, "request $n of a connection");
}
my $answer = raw_request($port, $get x 5 . $get =~ s/\r\n\r\n$/\r\nConnection: close\r\n\r\n/r);
is(scalar(() = $answer =~ /HTTP\/1.1 200/g), 6, 'six requests at once are answered one by one');
like(raw_request($port, $get =~ s/HTTP\/1.1/HTTP\/1.0/r), qr/^HTTP\/1\.[01] 200.*true$/s, 'HTTP/1.0');
is(status(raw_request($port, request('POST /messages HTTP/1.1', "Authorization: Bearer $token", 'Content-Type: application/json', 'Transfer-Encoding: chunked', 'Connection: close') . "8\r\n{\"payloa\r\n6\r\nd\": 1}\r\n0\r\n\r\n")), 201, 'a chunked body');
like(status(raw_request($port, request('POST /messages HTTP/1.1', "Authorization: Bearer $token", 'Content-Type: application/json', 'Content-Length: 14', 'Expect: 100-continue', 'Connection: close'), 1)), qr/^100$/, 'Expect: 100-continue is answered');

# ---- what is broken, and what is forged
my $post = sub { return raw_request($port, request('POST /messages HTTP/1.1', "Authorization: Bearer $token", 'Content-Type: application/json', @_[1 .. $#_]) . $_[0], 3) };
my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM messages');
is(status($post->("0\r\n\r\n" . request('DELETE /messages?id=gt.0 HTTP/1.1', "Authorization: Bearer $token"), 'Content-Length: 5', 'Transfer-Encoding: chunked')), 400, 'Content-Length with Transfer-Encoding is refused');
is(scalar(() = $post->("0\r\n\r\n" . request('DELETE /messages?id=gt.0 HTTP/1.1', "Authorization: Bearer $token"), 'Transfer-Encoding: chunked', 'Content-Length: 5') =~ /HTTP\//g), 1, 'and what comes behind it is not read');
is($node->safe_psql('postgres', 'SELECT count(*) FROM messages'), $before, 'nothing is deleted');
like(status($post->('{}', 'Transfer-Encoding: gzip, chunked')), qr/^(400|501)$/, 'another transfer coding');
is(status($post->('{"payload":1}', 'Content-Length: 13', 'Content-Length: 14')), 400, 'two lengths');
for my $bad ('-1', 'x', '99999999999999999999999') { is(status($post->('', "Content-Length: $bad")), 400 + ($bad =~ /^9/ ? 13 : 0), "a length of $bad"); }
for my $bad ("Content-Length : 13", "Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked", "Transfer-Encoding:\r\n chunked", "Content-Length: 1\r\n 3", "X: a\rContent-Length: 13", "X\x01: a", "Host: y")
{
	my $answer = $post->('{"payload":1}' . request('DELETE /messages?id=gt.0 HTTP/1.1', "Authorization: Bearer $token"), $bad);
	is(status($answer) . ' ' . (() = $answer =~ /HTTP\//g), '400 1', "a field that two servers may read differently: " . $bad =~ s/[\r\n\t\x01]+/?/gr);
}
like(status(raw_request($port, request('POST /messages HTTP/1.0', "Authorization: Bearer $token", 'Transfer-Encoding: chunked') . "0\r\n\r\n", 3)), qr/^400$/, 'HTTP/1.0 with a transfer coding');
is(status($post->('{"payload": ' . '1' x 70000 . '}', 'Content-Length: 70013')), 413, 'a body that is too large');
is(status($post->(sprintf("%x\r\n", 70000) . '1' x 70000 . "\r\n0\r\n\r\n", 'Transfer-Encoding: chunked')), 413, 'a chunked one');
is(status(raw_request($port, request('GET /messages HTTP/1.1', 'X: ' . 'x' x 20000), 3)), 431, 'a header that is too large');
is(status(raw_request($port, request('GET /messages?' . 'x' x 20000 . ' HTTP/1.1'), 3)), 414, 'a URL that is too long');
is(status(raw_request($port, request('GET /messages HTTP/1.1', map { "X-$_: 1" } 1 .. 200), 3)), 431, 'too many fields');
is(status(raw_request($port, "GET /messages HTTP/1.1\r\nConnection: close\r\n\r\n", 3)), 400, 'no Host');
is(status(raw_request($port, "GET /messages\x00x HTTP/1.1\r\nHost: x\r\n\r\n", 3)) =~ /^(40\d|closed)$/, 1, 'a NUL');
is(status(raw_request($port, request("GET $_ HTTP/1.1", 'Connection: close'), 3)), 404, "GET $_") for '?x=1', '*', 'messages';
is(status(raw_request($port, request('GET http://x/health/live HTTP/1.1', 'Connection: close'), 3)), 200, 'as to a proxy');
is($facade->ask('GET', '/messages?message_key=eq.%00', as => 'reader')->{status}, 400, 'an encoded one');
is($facade->ask('GET', '/messages?message_key=eq.%ff', as => 'reader')->{json}{code}, '22021', 'bytes that are no text');
is($facade->ask('POST', '/messages', as => 'operator', body => "{\"payload\":\"\xff\"}")->{json}{code}, '22021', 'nor in a body');
is(status(raw_request($port, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 3)), 505, 'HTTP/2');
is(status(raw_request($port, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . 'x' x 500, 3)) =~ /^(40\d|closed)$/, 1, 'TLS');
is(status(raw_request($port, 'x' x 100 . "\r\n\r\n", 3)) =~ /^(40\d|closed)$/, 1, 'noise');
is($alive->(), 200, 'it goes on');

# ---- slow requests have a deadline
# drip(TEXT): send a byte each 100 ms; how long until the other side closed
sub drip
{
	my ($text) = @_;
	my $to = connect_to();
	my $begin = time;
	local $SIG{PIPE} = 'IGNORE';
	for my $byte (split //, $text)
	{
		$to->syswrite($byte) or last;
		my $ready = '';
		vec($ready, fileno $to, 1) = 1;
		last if select($ready, undef, undef, 0.1) && !$to->sysread(my $data, 1000);
	}
	return time - $begin;
}
cmp_ok(drip('x' x 100), '<', 6 * slowness(), 'a request line that comes byte by byte');
cmp_ok(drip(request('GET / HTTP/1.1', 'X: ' . 'x' x 100)), '<', 8 * slowness(), 'a header that does');
cmp_ok(drip(request('POST /messages HTTP/1.1', 'Content-Length: 200', 'Content-Type: application/json')), '<', 8 * slowness(), 'and a body that never comes');
my $silent = connect_to();
my $begin = time;
$silent->sysread(my $nothing, 1);
cmp_ok(time - $begin, '<', 4 * slowness(), 'a silent connection is closed');
# one that does not read its answer
$node->safe_psql('postgres', q{INSERT INTO messages (payload) SELECT to_jsonb(repeat('x', 1000)) FROM generate_series(1, 9000)});
my $deaf = connect_to();
setsockopt($deaf, SOL_SOCKET, SO_RCVBUF, pack('i', 4096));
$deaf->syswrite(request('GET /messages HTTP/1.1', "Authorization: Bearer $token"));
my $connections = sub { my $n = qx(ls -l /proc/$pid/fd 2>/dev/null | grep -c socket); return $n + 0 };
ok(poll_until(10, sub { $alive->() == 200 }), 'one that does not read its answer holds nobody');
my $quiet = $connections->();
ok(poll_until(15, sub { $connections->() < $quiet }), 'and is closed');
close $deaf;

# ---- connections
my @many = grep { defined } map { connect_to() } 1 .. 30;
my $open = 0;
for my $one (@many)
{
	my $ready = '';
	vec($ready, fileno $one, 1) = 1;
	$open++ unless select($ready, undef, undef, 0.05) && !sysread($one, my $data, 1);
}
cmp_ok($open, '<=', 20, 'no more from one address than are allowed');
close $_ for @many;
ok(poll_until(10, sub { $alive->() == 200 }), 'others come in again');

# ---- queries that fail or take too long end the request, not the worker
$node->safe_psql('postgres', q{CREATE FUNCTION f_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF NEW.message_key = 'slow' THEN PERFORM pg_sleep(60); ELSIF NEW.message_key = 'broken' THEN PERFORM 1 / 0; ELSIF NEW.message_key = 'internal' THEN RAISE internal_error; ELSIF NEW.message_key = 'caught' THEN
	BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; PERFORM pg_sleep(0.1); END IF; RETURN NEW; END $$; CREATE TRIGGER a BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION f_slow()});
sub insert { my ($key) = @_; return $facade->ask('POST', '/messages', as => 'operator', body => { payload => 1, message_key => $key }); }
$begin = time;
my $slow = insert('slow');
is_deeply([ $slow->{status}, $slow->{json}{code}, $slow->{headers}{'retry-after'} ], [ 503, '57014', 1 ], 'a statement that takes too long');
cmp_ok(time - $begin, '<', 5 * slowness(), 'in time');
is(insert('caught')->{status}, 201, 'one that takes no notice of it');
is(insert('broken')->{json}{code}, '22012', 'one that fails');
is(insert('internal')->{status}, 500, 'one that fails badly');
is(log_count($node, qr/ERROR:  internal_error/), 1, 'is in the log');
my $other = session($node);
$other->query('BEGIN; LOCK TABLE messages');
my $locked = $facade->ask('GET', '/messages', as => 'operator');
is_deeply([ $locked->{status}, $locked->{json}{code} ], [ 503, '55P03' ], 'a lock that takes too long');
$other->query('ROLLBACK');
my $cancelled = connect_to();
$cancelled->syswrite(request('POST /messages HTTP/1.1', "Authorization: Bearer $token", 'Content-Type: application/json', 'Content-Length: 34') . '{"payload":1,"message_key":"slow"}');
ok(poll_sql($node, 10, "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $pid AND wait_event = 'PgSleep'"), 'a request shows in pg_stat_activity');
is($node->safe_psql('postgres', "SELECT query FROM pg_stat_activity WHERE pid = $pid"), 'POST /messages', 'with its method and path');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
my $ended = '';
$cancelled->sysread($ended, 65536);
like($ended, qr/57014/, 'and can be cancelled');
is($alive->(), 200, 'then the next one is served');
# with no request in the database there is nothing to cancel; the request behind shows that the worker has been awake since
for (1 .. 5) { $node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)"); is($alive->(), 200, 'a cancel that comes too late ends nothing'); }
is(worker_pid($node, 'http'), $pid, 'by the same worker');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
ok(poll_until(20, sub { $alive->() == 200 }), 'a worker that is ended comes back');
isnt(worker_pid($node, 'http'), $pid, 'as another process');
# two requests: during the one it is ended, the other, which waits behind it, is quick
$node->safe_psql('postgres', q{CREATE FUNCTION f_end() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM pg_sleep(0.5), pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
	CREATE TRIGGER e BEFORE INSERT ON messages FOR EACH ROW WHEN (NEW.message_key = 'end') EXECUTE FUNCTION f_end()});
my ($first, $second) = map { connect_to() } 1 .. 2;
for my $one ($first, $second) { $one->syswrite(request('GET /health/live HTTP/1.1')); $one->sysread(my $live, 65536); }
$first->syswrite(request('POST /messages HTTP/1.1', "Authorization: Bearer $token", 'Content-Type: application/json', 'Content-Length: 33') . '{"payload":1,"message_key":"end"}');
ok(poll_sql($node, 10, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'msgsys http%' AND wait_event = 'PgSleep'}), 'a request is in the database');
$second->syswrite(request('GET /health/live HTTP/1.1'));
for my $one ([ $first, 201, 'it is answered though the worker is ended' ], [ $second, 200, 'what was done after it, too' ])
{
	$one->[0]->sysread(my $told, 65536);
	is(status($told), $one->[1], $one->[2]);
}
ok(poll_until(60, sub { $alive->() == 200 }), 'before it comes back');

# ---- the extension comes and goes
$node->safe_psql('postgres', 'DROP EXTENSION msgsys CASCADE');
my $absent = $facade->ask('GET', '/messages', as => 'operator');
is_deeply([ $absent->{status}, $absent->{json}{code} ], [ 503, 'PGRST002' ], 'without the extension there is nothing to serve');
$node->safe_psql('postgres', "CREATE SCHEMA apart; CREATE EXTENSION msgsys SCHEMA apart; SELECT apart.msg_grant('reader', 'reader')");
is($facade->ask('GET', '/messages', as => 'reader', headers => { 'Accept-Profile' => 'apart' })->{status}, 200, 'it is served again, in another schema');
is($facade->ask('GET', '/messages', as => 'reader', headers => { 'Accept-Profile' => 'public' })->{json}{hint}, 'Only the following schemas are exposed: apart', 'which profiles know');
$node->stop;

# ---- several workers at a port
$node->append_conf('postgresql.conf', "msgsys.http_workers = 3\nmsgsys.http_connections_per_peer = 0\n");
$node->start;
ok(poll_sql($node, 20, "SELECT count(*) FROM apart.msg_workers WHERE stage = 'http' AND state IN ('idle', 'busy')", 3), 'three workers');
for (1 .. 60) { Facade->new($port)->ask('GET', '/rpc/msg_running', as => 'reader') }
ok(poll_sql($node, 10, "SELECT count(*) FROM apart.msg_worker_slots() WHERE stage = 'http' AND (counters ->> 'requests')::int > 0", 3), 'share the work');
$node->stop;

# ---- answers that nobody takes
$node->append_conf('postgresql.conf', "msgsys.http_workers = 1\nmsgsys.http_request_timeout = '60s'\nmsgsys.http_statement_timeout = '30s'\n");
$node->start;
facade_ready($node, 'apart');
$node->safe_psql('postgres', q{INSERT INTO apart.messages (payload) SELECT to_jsonb(repeat('x', 1000)) FROM generate_series(1, 9000)});
# of 36 MB each
my @deaf = map { connect_to() } 1 .. 2;
$_->syswrite(request('GET /messages?select=a:payload,b:payload,c:payload,d:payload HTTP/1.1', 'Authorization: Bearer ' . token({ role => 'reader' }))) for @deaf;
ok(poll_until(60, sub { $alive->() == 503 }), 'are bounded in sum: no more are made');
is($facade->ask('GET', '/health/live')->{status}, 200, 'but those that are small');
close $_ for @deaf;
ok(poll_until(20, sub { $alive->() == 200 }), 'until they are gone');
$node->stop;

# ---- what it knows of roles is forgotten while it starts, as when somebody makes a role then (where the server has assertions)
$node->start;
facade_ready($node, 'apart');
my $assertions = $node->safe_psql('postgres', "SELECT max_val FROM pg_settings WHERE name = 'debug_discard_caches'") || 0;
$node->safe_psql('postgres', 'ALTER ROLE web SET debug_discard_caches = ' . ($assertions > 0 ? 1 : 0));
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM apart.msg_workers WHERE stage = 'http'");
ok(poll_until(60, sub { $alive->() == 200 }), 'it starts');
is(log_count($node, 'terminated by signal'), 0, 'and brings down nothing');
$node->safe_psql('postgres', 'ALTER ROLE web RESET debug_discard_caches');
$node->stop;

# ---- when it does not start
for my $wrong (
	[ 'msgsys.http_role' => 'postgres', 'must not be a superuser' ],
	[ 'msgsys.http_role' => '', 'msgsys.http_role is not set' ],
	[ 'msgsys.http_role' => 'reader', 'is not permitted to log in' ],
	[ 'msgsys.http_role' => 'nope', 'does not exist' ],
	[ 'msgsys.http_jwt_secret' => 'short', 'keys that it can use' ],
	[ 'msgsys.http_listen' => 'nonsense', 'is not host:port' ],
	[ 'msgsys.http_listen' => '192.0.2.1:1', 'cannot listen' ])
{
	my ($name, $value, $error) = @$wrong;
	my $sure = $node->data_dir . '/postgresql.auto.conf';
	open(my $auto, '>', $sure) or die;
	print $auto "$name = '$value'\nmsgsys.http_workers = 1\n";
	close $auto;
	$node->start;
	ok(poll_sql($node, 20, "SELECT last_error LIKE '%$error%' FROM apart.msg_workers WHERE stage = 'http'"), "$name = '$value' is refused");
	is($alive->(), 599, 'and nothing is served');
	$node->stop;
}
done_testing();
