# What strangers send to the HTTP worker and what it answers them is bounded: in bytes, in depth, in time; and what a request raises or catches leaves the worker as it was: it can
# be cancelled, terminated and shut down.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use MsgsysTest;
use POSIX 'mkfifo';
use Test::More;

my ($node, $facade) = facade_node('strangers', 'msgsys.http_statement_timeout' => '2s', 'msgsys.http_max_response' => '1MB', 'msgsys.http_compat' => '000,001,002,004');
expect_findings(nobody => 'the channel default has no way out');
$node->safe_psql('postgres', q{
	CREATE SCHEMA m AUTHORIZATION operator;
	SET ROLE operator;
	CREATE FUNCTION m.run(sql text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN EXECUTE sql; RETURN true; END $$});

# run(STATEMENT): run it by HTTP, in a function that an operator calls
sub run
{
	my ($sql) = @_;
	return $facade->ask('POST', '/rpc/msg_create_from_query', as => 'operator', body => { query => "SELECT m.run(\$sql\$$sql\$sql\$)" });
}
sub pid { return worker_pid($node, 'http'); }

# ---- what a request raises does not make the worker deaf
my $pid = pid();
for my $message ('no JSON', '{', '[' x 100_000, '{"code": 1}')
{
	my $raised = run("DO \$do\$ BEGIN RAISE sqlstate 'PGRST' USING MESSAGE = '$message', DETAIL = 'nor this'; END \$do\$");
	is($raised->{json}{code}, 'PGRST121', 'an error as PostgREST knows it, with a wrong message: ' . substr($message, 0, 20));
	my $late = run('SELECT pg_sleep(30)');
	is("$late->{status} $late->{json}{code}", '503 57014', 'the statement timeout works after it');
}
is(pid(), $pid, 'in the same worker');

# ---- nor deaf to an administrator, nor a session of the database in which the same is raised
# end_it(HOW): a request that sleeps is under way after such an error; end it, and its worker
sub end_it
{
	my ($function, $state) = @_;
	my $worker = pid();
	$node->safe_psql('postgres', "ALTER SYSTEM SET msgsys.http_statement_timeout = '1h'; SELECT pg_reload_conf()");
	run("DO \$do\$ BEGIN RAISE sqlstate 'PGRST' USING MESSAGE = 'no JSON'; END \$do\$");
	ok(poll_sql($node, 10, 'SHOW msgsys.http_statement_timeout', '1h'), 'requests may last');
	my $busy = Program->new('curl', '-s', '-o', '/dev/null', '-w', '%{http_code}\n', '-X', 'POST', '-H', 'Content-Type: application/json', '-H', 'Authorization: Bearer ' . token({ role => 'operator' }),
		'-d', q({"query": "SELECT m.run($$SELECT pg_sleep(300)$$)"}), $facade->url('/rpc/msg_create_from_query'));
	ok(poll_sql($node, 20, "SELECT count(*) FROM pg_stat_activity WHERE pid = $worker AND wait_event = 'PgSleep'", 1), 'one does');
	$node->safe_psql('postgres', "SELECT $function($worker)");
	ok($busy->await(qr/\d{3}\n/, 20), "$function() ends it");
	$busy->stop;
	return $worker;
}
is(end_it('pg_cancel_backend'), pid(), 'a cancel ends the request alone');
my $ended = end_it('pg_terminate_backend');
ok(poll_until(20, sub { my $now = pid(); $now ne '' && $now ne $ended && run('SELECT 1')->{status} == 200 }), 'another worker takes the place of one that was terminated');
$node->safe_psql('postgres', "ALTER SYSTEM RESET msgsys.http_statement_timeout; SELECT pg_reload_conf()");
ok(poll_sql($node, 10, 'SHOW msgsys.http_statement_timeout', '2s'), 'requests may not last any more');
$pid = pid();
my $backend = session($node);
$backend->query("DO \$\$ BEGIN RAISE sqlstate 'PGRST' USING MESSAGE = 'no JSON'; END \$\$") for 1 .. 2;
my $backend_pid = $backend->query('SELECT pg_backend_pid()');
$backend->send('SELECT pg_sleep(300)');
ok(poll_sql($node, 20, "SELECT count(*) FROM pg_stat_activity WHERE pid = $backend_pid AND wait_event = 'PgSleep'", 1), 'a session sleeps after it raised the same');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($backend_pid)");
ok(poll_sql($node, 10, "SELECT count(*) FROM pg_stat_activity WHERE pid = $backend_pid", 0), 'and is terminated');
$backend->stop;

# ---- a function that catches the cancel goes on for a second
my $rude = run(q{DO $do$ BEGIN LOOP BEGIN PERFORM pg_sleep(30); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $do$});
isnt($rude->{status}, 200, 'who catches a cancel for ever gets no answer');
ok(poll_until(20, sub { my $now = pid(); $now ne '' && $now ne $pid && run('SELECT 1')->{status} == 200 }), 'but another worker takes its place');
is(log_count($node, 'caught the statement timeout and went on'), 1, 'which the log explains');

# ---- an answer is bounded, and no more than it is ever in memory
$node->safe_psql('postgres', q{SELECT msg_channel_set('big'); INSERT INTO messages (channel, payload, due_at)
	SELECT 'big', jsonb_build_object('content', repeat('x', 300000), 'to', '1'), now() + interval '1 day' FROM generate_series(1, 100)});
# memory(): the most that the worker ever had, in kB
sub memory { return slurp_file('/proc/' . pid() . '/status') =~ /VmHWM:\s+(\d+)/ ? $1 : 0; }
my $before = memory();
for my $accept ('application/json', 'text/csv', 'application/vnd.pgrst.array+json;nulls=stripped')
{
	my $large = $facade->ask('GET', '/messages?channel=eq.big', as => 'reader', headers => { Accept => $accept });
	is("$large->{status} $large->{json}{code}", '413 54000', "30 MB are no answer, $accept");
}
is($facade->ask('GET', '/messages?channel=eq.big&limit=3&select=payload', as => 'reader')->{status}, 200, 'a part of it is');
is($facade->ask('GET', '/messages?channel=eq.big&select=id', as => 'reader', headers => { Prefer => 'count=exact' })->{headers}{'content-range'}, '0-99/100', 'and is counted');
is($facade->ask('GET', '/messages?channel=eq.none&select=id', as => 'reader', headers => { Prefer => 'count=exact' })->{body}, '[]', 'nothing is, too');
my $changed = $facade->ask('PATCH', '/messages?channel=eq.big', as => 'operator', body => { due_at => '2031-01-01' }, headers => { Prefer => 'return=representation' });
is($changed->{status}, 413, 'nor is what a change returns');
is($node->safe_psql('postgres', q{SELECT count(*) FROM messages WHERE due_at > '2030-12-31'}), 0, 'which is taken back then');
$node->safe_psql('postgres', q{SET session_replication_role = replica; UPDATE messages SET status = 'sent', sent_at = now(), finished_at = now() WHERE channel = 'big'});
for my $path ('/sent-messages?limit=100', '/api/v1/list/sent-messages', '/api/messenger/?limit=100&offset=0')
{
	my $large = $facade->ask('GET', $path, as => 'reader');
	is($large->{status}, 413, "nor what another system's route would give: $path") or diag(substr($large->{body}, 0, 300));
}
cmp_ok(memory() - $before, '<', 40_000, 'none of them made the worker large') or diag("$before kB, then " . memory());
is($facade->ask('GET', '/messages?select=' . join(',', map { "a$_:payload" } 1 .. 200), as => 'reader')->{status}, 400, 'one row is not selected two hundred times');

# ---- long requests have an answer
for my $length (4_000, 12_000, 20_000, 26_000, 40_000)
{
	my $long = raw_request($facade->{port}, 'GET /messages?select=id&message_key=eq.' . 'x' x $length . " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "
		. token({ role => 'reader' }) . "\r\n\r\n", 5);
	like($long, $length < 30_000 ? qr{^HTTP/1.1 200} : qr{^HTTP/1.1 4(14|31)}, "a query of $length bytes is answered");
}
my $deep = $facade->ask('GET', '/messages?payload=fts.' . '!' x 15_000, as => 'reader');
cmp_ok($deep->{status}, '<', 500, 'a search with 15,000 negations is nobody else\'s fault') or diag($deep->{body});

# ---- a number of eight bytes is not one of 131,072, thousands of times
$before = memory();
my $rows = join ',', ('{"message_key": 1e131071, "payload": 1}') x 3000;
for my $path ('/messages', '/rpc/msg_create', '/api/v1/create')
{
	my $wide = $facade->ask('POST', $path, as => 'operator', body => $path eq '/messages' ? "[$rows]" : qq({"payload": [$rows], "message": [$rows]}));
	cmp_ok($wide->{status}, '>=', 400, "numbers that would be written out to 400 MB are refused: $path") or diag($wide->{body});
}
cmp_ok(memory() - $before, '<', 40_000, 'before they are') or diag("$before kB, then " . memory());
is($facade->ask('POST', '/messages', as => 'producer', body => '{"payload": {"n": 1e300, "e": "\\"1e131071"}}')->{status}, 201, 'a large number is taken');

# ---- a token that wants what we do not know
use Digest::SHA 'hmac_sha256';

expect_findings('nobody: channel "default"' => 'there is nothing that sends');
for my $header ('{"alg":"HS256","crit":["exp"]}', '{"alg":"HS256","\\u0063rit":["exp"]}', '{"alg":"HS256","cr\\u0069t":null}')
{
	my $text = base64url($header) . '.' . base64url('{"role":"reader"}');
	my $answer = $facade->ask('GET', '/messages?limit=1', token => "$text." . base64url(hmac_sha256($text, $Facade::secret)));
	is($answer->{status}, 401, "critical extensions are not known, however they are written: $header");
}

# ---- shutdown
$node->safe_psql('postgres', "ALTER SYSTEM SET msgsys.http_statement_timeout = '1h'; SELECT pg_reload_conf()");
run("DO \$do\$ BEGIN RAISE sqlstate 'PGRST' USING MESSAGE = 'no JSON'; END \$do\$");
my $dir = tempdir();
chmod 0755, $dir;
mkfifo("$dir/fifo", 0666) or die;
$node->safe_psql('postgres', "ALTER SYSTEM SET msgsys.http_jwt_keys_file = '$dir/fifo'");
$node->reload;
ok(poll_until(20, sub { log_count($node, 'fifo" is not a regular file') > 0 }), 'a file of keys that is a FIFO is told, and not waited for');
$node->stop('fast');
ok(!-e $node->data_dir . '/postmaster.pid', 'fast shutdown ends');
done_testing();
