# What a caller of the HTTP worker cannot do to the next one: hold all memory with bodies that do not end; code that a request runs (a query of msg_create_from_query(), a function that
# somebody made) may not become another role that tokens may name, and leaves nothing behind in the session that all callers share.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use IO::Socket::INET;
use MsgsysTest;
use Test::More;

expect_findings('nobody: channel "default"' => 'there is nothing that sends');

my ($node, $facade) = facade_node('callers', 'msgsys.http_max_body' => '1MB');
my $pid = worker_pid($node, 'http');
$node->safe_psql('postgres', q{
	CREATE ROLE payroll; CREATE TABLE salaries (amount int); INSERT INTO salaries VALUES (4242); GRANT SELECT ON salaries TO payroll; GRANT payroll TO web;
	CREATE SCHEMA m AUTHORIZATION operator;
	SET ROLE operator;
	CREATE TABLE m.orders (sql text);
	CREATE FUNCTION m.run(sql text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN EXECUTE sql; RETURN true; END $$;
	CREATE FUNCTION m.later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE NEW.sql; RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER t AFTER INSERT ON m.orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION m.later()});

# run(STATEMENT, …): run them by HTTP, in a function that an operator calls; what it was answered, as "status code".
sub run
{
	my $query = join ', ', map { "m.run(\$sql\$$_\$sql\$)" } @_;
	my $answer = $facade->ask('POST', '/rpc/msg_create_from_query', as => 'operator', body => { query => "SELECT $query" });
	return join ' ', $answer->{status}, (ref $answer->{json} eq 'HASH' ? $answer->{json}{code} : ());
}
# query(SQL): as an operator, by HTTP; the answer, and what the query gave.
sub query
{
	my ($sql) = @_;
	my $answer = $facade->ask('POST', '/rpc/msg_create_from_query', as => 'operator', body => { query => "SELECT ($sql)::text AS given" });
	return $answer->{body} if $answer->{status} != 200;
	return $node->safe_psql('postgres', q{SELECT payload ->> 'given' FROM messages ORDER BY id DESC LIMIT 1});
}

# ---- who asks stays who he is
is(query('current_user'), 'operator', 'a query runs as the role of the token');
like(query("set_config('role', 'payroll', $_)"), qr/"42501"/, "and becomes no other, is_local $_") for 'true', 'false';
like(query(q{(SELECT query_to_xml('SELECT * FROM public.salaries', true, true, '') FROM (SELECT set_config('role', 'payroll', true) OFFSET 0) s)}), qr/"42501"/, 'nor sees what that may');
like(query("set_config('session_authorization', 'payroll', true)"), qr/"42501"/, 'nor by the other setting');
is(run('SELECT 1'), '200', 'code in a function runs');
is(run($_), '403 42501', "it cannot $_") for 'SET ROLE payroll', 'RESET ROLE', 'SET LOCAL ROLE payroll', 'SET SESSION AUTHORIZATION DEFAULT';
is(run(q{INSERT INTO m.orders VALUES ('SET ROLE payroll')}), '403 42501', 'nor can a trigger that waits for the commit');
is(run(q{INSERT INTO m.orders VALUES ('SELECT 1')}), '200', 'which runs otherwise');
my $none = $facade->ask('GET', '/messages?limit=1', token => token({ role => 'none' }));
is_deeply([ $none->{status}, $none->{json}{code} ], [ 401, '22023' ], '"none" is not the login role');

# ---- nothing stays in the session
is(run(q{SELECT set_config('response.status', '418', false), set_config('default_transaction_read_only', 'on', false), set_config('search_path', 'm', false)}), '418', 'settings of the session');
is($facade->ask('GET', '/rpc/msg_running', as => 'reader')->{status}, 200, 'are gone with the request: those that make answers');
is(run('SELECT 1'), '200', 'that forbid to write');
is(query("current_setting('search_path')"), 'pg_catalog, pg_temp', 'that say what names mean');
is(query("current_setting('lock_timeout')"), '2s', 'while those of the worker are as before');
for my $then ('SELECT 1', 'SELECT 1 / 0')
{
	my $status = $then =~ /0/ ? '400 22012' : '200';
	is(run('SELECT pg_advisory_lock(42)', $then), $status, "a lock of the session, then $then");
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $pid"), 0, 'is released');
	is(run('PREPARE p AS SELECT 2', $then), $status, "a prepared statement, then $then");
	is(query('(SELECT count(*) FROM pg_prepared_statements)'), 0, 'is forgotten');
}
is(run('LISTEN here'), '400 0A000', 'nothing can be listened to');
is(run('CREATE TEMP TABLE things (x int)'), '200', 'a temporary table');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_class WHERE relname = 'things'"), 0, 'is gone');
is(run('DECLARE held CURSOR WITH HOLD FOR SELECT 1'), '200', 'a cursor that is to outlive its transaction');
is(query('(SELECT count(*) FROM pg_cursors WHERE is_holdable)'), 0, 'does not');

# ---- bodies are held before anyone knows who sends them
my $large = '{"payload":"' . 'x' x 900_000 . '"}';
my @senders = map { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$facade->{port}") } 1 .. 20;
for my $sender (@senders)
{
	$sender->syswrite("POST /messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: " . length($large) . "\r\n\r\n");
	my $sent = 0;
	$sent += $sender->syswrite($large, length($large) - 1 - $sent, $sent) while $sent < length($large) - 1;
}
is(run('SELECT 1'), '200', 'small requests are served while large ones wait for their ends');
my %statuses;
for my $sender (@senders)
{
	$sender->syswrite('}');
	$sender->sysread(my $answer, 100);
	$statuses{ ($answer // '') =~ m{^HTTP/1.1 (\d+)} ? $1 : 'closed' }++;
}
is($statuses{401}, 8, 'no more large ones are held than are allowed');
is($statuses{503}, 12, 'the others are refused');
close $_ for @senders;
is($facade->ask('POST', '/messages', as => 'operator', body => $large)->{status}, 201, 'then there is room again') for 1 .. 10;
is(worker_pid($node, 'http'), $pid, 'all by the same worker');
done_testing();
