# Malformed requests, made from good ones by chance: 1,000, or as many as FUZZ says (make fuzz: 10,000), beginning with the seed FUZZ_SEED. The worker
# lives, and none (but PUT /api/messenger/commit/ of system 002, which is left out: 500 is its word for not found) is answered by a failure of the server, but for 503 (a statement that took too long) and what the protocol wants
# (501 another transfer coding, 505 another version).
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use IO::Socket::INET;
use MsgsysTest;
use Test::More;
use Time::HiRes 'time';

expect_findings('nobody: channel "default"' => 'there is nothing that sends');

my ($n, $seed) = ($ENV{FUZZ} // 1000, $ENV{FUZZ_SEED} // int(rand(1e9)));
diag("$n requests, FUZZ_SEED=$seed");
srand($seed);
my ($node, $facade) = facade_node('fuzz', 'msgsys.http_statement_timeout' => '200ms', 'msgsys.http_lock_timeout' => '100ms', 'msgsys.http_tx_override' => 'on', 'msgsys.http_request_timeout' => '5s',
	'msgsys.http_compat' => '000,001,002,003,004');
$node->safe_psql('postgres', q{INSERT INTO messages (payload) SELECT to_jsonb(g) FROM generate_series(1, 50) g});
my $token = token({ role => 'operator' });
my $pid = worker_pid($node, 'http');

my @targets = ('/', '/metrics', '/health/ready', '/docs/', '/ui/app.js', '/messages', '/messages?select=id,payload->>a,b:status::text&id=eq.1', '/messages?or=(id.eq.1,and(id.gt.2,channel.in.("a",b)))&order=id.desc.nullslast&limit=3&offset=1',
	'/messages?id=in.(1,2)&columns=payload,channel', '/messages?payload=cs.{"a":1}&payload->a->>0=like.x*', '/messages?channel=fts(english).a&id=isdistinct.3', '/msg_channels?channel=eq.c', '/msg_channels?on_conflict=channel',
	'/msg_backlog', '/msg_workers?select=pid::text', '/rpc/msg_create', '/rpc/msg_list?status=idle&limit=1', '/rpc/msg_get?id=1&select=id', '/rpc/msg_running', '/rpc/msg_create_many', '/rpc/msg_channel_set', '/rpc/msg_webhook_set', '/rpc/msg_wait',
	'/rpc/msg_cancel', '/rpc/msg_redrive', '/api/v1/create', '/api/v1/getMessages', '/sent-messages?limit=5&offset=1', '/toggle-worker', '/api/messenger/?limit=1&offset=0', '/api/v1/cron/control');
my @bodies = ('', '{"payload":{"a":1},"channel":"default"}', '[{"payload":1},{"payload":2,"message_key":"k"}]', '{"channel":"c","topic":"t"}', '{"messages":[{"payload":1}]}', '{"id":1,"status":"sent","timeout":"1 s"}', '{"message":"x"}',
	'{"channel":"default","url":"http://example.com","success_codes":[200,"x"],"headers":{"a":"b"}}', '{"a":' x 500, '[' x 3000, 'a=b&c=%41', '{"payload":1e400}', '{"payload":"\u0000"}', '{"id":99999999999999999999}', 'null', '"x"', '{"action":"start"}');
my @headers = ('Prefer: return=representation, count=exact', 'Prefer: resolution=merge-duplicates, missing=default', 'Prefer: tx=rollback, handling=strict, max-affected=1', 'Prefer: timezone=Asia/Tokyo, count=planned', 'Accept: application/vnd.pgrst.object+json',
	'Accept: text/csv', 'Accept: application/json;q=0.1, text/foo', 'Range: 0-5', 'Content-Type: application/x-www-form-urlencoded', 'Content-Type: text/plain', 'Accept-Profile: public', 'Content-Profile: x', 'Origin: http://a', 'Access-Control-Request-Method: PUT',
	'Cookie: a=b; c', 'Expect: 100-continue', 'X-Correlation-Id: x', 'If-None-Match: "x"', 'Connection: close', 'Accept-Encoding: gzip', 'Authorization: Bearer x.y.z', 'Transfer-Encoding: chunked', 'Content-Length: 5');
my @noise = ("\0", '%00', '%ff', "\xff\xfe", '%', '"', "'", '\\', '(', ')', '((', ',', '.', '..', '/', '//', '->', '->>', '::', ':', ';', '--', '/*', '{', '}', '[', ']', '*', '!inner(', 'not.', 'or', 'eq.', 'in.(', '=', '&', '&&', '?', '#', '+', ' ', "\t", "\r", "\n", "\r\n",
	'9' x 30, '-1', '1e9', "\x{c3}\x{a4}", 'x' x 5000, 'NULL', 'true', '$1', 'pg_sleep(9)', '../..', '%2e%2e%2f', 'select=', 'limit=', 'offset=', 'order=', 'rpc/');
sub any { return $_[rand @_]; }

# spoil(TEXT): noise put in, pieces left out, doubled or exchanged
sub spoil
{
	my ($text) = @_;
	for (1 .. 1 + rand 3)
	{
		my $at = int rand(1 + length $text);
		my $length = int rand 8;
		my $how = int rand 4;
		if ($how == 0) { substr($text, $at, 0) = any(@noise) }
		elsif ($how == 1) { substr($text, $at, $length) = '' if $at < length $text }
		elsif ($how == 2) { substr($text, $at, 0) = substr($text, $at, $length) }
		else { substr($text, $at, 1) = chr int rand 256 if $at < length $text }
	}
	return $text;
}

my (%statuses, @failures);
for my $number (1 .. $n)
{
	my $body = any(@bodies);
	my $target = any(@targets);
	my $method = any(qw(GET GET HEAD POST POST PATCH PUT DELETE OPTIONS BREW));
	$target = spoil($target) if rand() < 0.6;
	$target =~ s/[\r\n\0 ]/%20/g if rand() < 0.9;
	$body = spoil($body) if rand() < 0.5;
	my @fields = ('Host: x', rand() < 0.9 ? "Authorization: Bearer $token" : ());
	push @fields, rand() < 0.3 ? spoil(any(@headers)) : any(@headers) for 1 .. rand 4;
	push @fields, 'Content-Type: application/json' if rand() < 0.8;
	push @fields, 'Content-Length: ' . length $body if length $body && rand() < 0.97;
	my $request = join("\r\n", "$method $target HTTP/1.1", @fields, '', '') . $body;
	$request = spoil($request) if rand() < 0.1;
	my $connection = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$facade->{port}") or do { push @failures, "cannot connect after request $number"; last };
	local $SIG{PIPE} = 'IGNORE';
	$connection->syswrite($request);
	# no more will come: what is incomplete need not be waited for
	shutdown($connection, 1);
	my $end = time + 10;
	my $answer = '';
	while ((my $left = $end - time) > 0)
	{
		my $ready = '';
		vec($ready, fileno $connection, 1) = 1;
		last unless select($ready, undef, undef, $left) && $connection->sysread($answer, 65536, length $answer);
	}
	close $connection;
	for my $status ($answer =~ /^HTTP\/1\.[01] (\d+)/mg)
	{
		$statuses{$status}++;
		push @failures, substr("$status: " . $request =~ s/([^\x20-\x7e])/sprintf '\x%02x', ord $1/ger, 0, 500) if $status >= 500 && $status !~ /^50[135]$/;
	}
}
diag(join ', ', map { "$_: $statuses{$_}" } sort keys %statuses);
is(scalar @failures, 0, 'no failure of the server') or diag(join "\n", @failures[0 .. ($#failures > 9 ? 9 : $#failures)]);
is(worker_pid($node, 'http'), $pid, 'the worker lives');
cmp_ok($statuses{200} // 0, '>', 0, 'some were good');
cmp_ok($statuses{400} // 0, '>', 0, 'some were not');
is($facade->ask('GET', '/messages?limit=1', as => 'operator')->{status}, 200, 'and it serves on');
is(log_count($node, qr/(PANIC|TRAP|terminated by signal)/), 0, 'nothing crashed');
$node->stop;
done_testing();
