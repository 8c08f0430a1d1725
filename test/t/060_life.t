# Databases come and go, extensions too, settings change, workers are told to end: workers follow, and are in nobody's way.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

expect_findings('not-preloaded: alone' => 'it is started without the library', nobody => 'its message waits on purpose');
use Time::HiRes 'time';

my ($bootstrap, $dir) = kafka_start();
my $node = new_node('life', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.databases' => 'postgres, shop', 'msgsys.max_databases' => 3,
	'msgsys.kafka_topic' => 'first', 'msgsys.batch_size' => 200);
kafka_create_topic($bootstrap, $_, 2) for qw(first second quiet);

# states(DATABASE): those of its workers that are needed, in words
sub states
{
	return $node->safe_psql('postgres',
		"SELECT string_agg(DISTINCT state, ' ' ORDER BY state) FROM msg_workers WHERE database = '$_[0]' AND state <> 'not needed'");
}

sub state_is
{
	my ($database, $state, $name, $seconds) = @_;
	return ok(poll_until($seconds // 20, sub { states($database) eq $state }), $name) || diag(states($database));
}

# fails(SQLSTATE, SQL, NAME[, DATABASE, options of psql])
sub fails
{
	my ($state, $sql, $name, $database, %o) = @_;
	$node->psql($database // 'postgres', "\\set VERBOSITY sqlstate\n$sql", stderr => \my $err, %o);
	return like($err, qr/ERROR:  $state\b/, $name);
}

# setting(NAME, VALUE): change it, and wait until all have seen that
sub setting
{
	my ($name, $value) = @_;
	$node->append_conf('postgresql.conf', "$name = '$value'\n");
	$node->reload;
	return poll_sql($node, 10, "SHOW $name", $value) || die "no $name";
}

# sends(DATABASE, NAME): a message of it is received
sub sends
{
	my ($database, $name) = @_;
	my $id = $node->safe_psql($database, q{SELECT msg_create('1', 'default')});
	return is($node->safe_psql($database, "SELECT msg_wait($id, 'received', '20 s')"), 'received', $name);
}

# takes(SECONDS, NAME, CODE)
sub takes
{
	my ($seconds, $name, $code) = @_;
	my $began = time;
	$code->();
	my $took = time - $began;
	return cmp_ok($took, '<', $seconds * slowness(), sprintf('%s, in %.2f s', $name, $took));
}

# ---- databases
state_is('postgres', 'idle', 'workers of a database run');
state_is('shop', 'no database', 'a missing database is shown');
is($node->safe_psql('postgres', q{SELECT string_agg(backend_type || '/' || application_name || '/' || datname, ',' ORDER BY backend_type)
	FROM pg_stat_activity WHERE backend_type LIKE 'msgsys re%'}),
	'msgsys receiver/msgsys receiver 0/postgres,msgsys relay/msgsys relay 0/postgres', 'workers are named in pg_stat_activity');
setting('msgsys.log_batch', 10);
is(log_count($node, 'msgsys cannot start relay 0 in database "shop": there is no such database'), 1, 'and is logged once');
$node->safe_psql('postgres', 'CREATE DATABASE shop');
state_is('shop', 'extension absent', 'a database without the extension');
takes(2, 'CREATE EXTENSION wakes workers', sub { $node->safe_psql('shop', 'CREATE EXTENSION msgsys'); sends('shop', 'and they send') });
state_is('shop', 'idle', 'and wait');
is($node->safe_psql('postgres', q{SELECT bool_and(last_error ~ 'no such database' AND error_over_at > last_error_at) FROM msg_workers WHERE database = 'shop' AND last_error IS NOT NULL}), 't',
	'that there was no such database is over');
takes(2, 'DROP EXTENSION while workers run', sub { $node->safe_psql('shop', 'DROP EXTENSION msgsys') });
state_is('shop', 'extension absent', 'workers notice');
$node->safe_psql('shop', 'CREATE SCHEMA elsewhere; CREATE EXTENSION msgsys SCHEMA elsewhere');
fails('55000', q{SELECT elsewhere.msg_wait(i) FROM (SELECT elsewhere.msg_create('1') i OFFSET 0) s}, 'a message of the transaction itself is not waited for', 'shop');
my $id = $node->safe_psql('shop', q{SELECT elsewhere.msg_create('1', 'default')});
is($node->safe_psql('shop', "SELECT elsewhere.msg_wait($id, 'received', '20 s')"), 'received', 'created again, in another schema: it sends');

# ---- DROP, RENAME and TEMPLATE of a database with workers in it
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN; CREATE ROLE maker LOGIN CREATEDB');
my $pids = q{SELECT string_agg(pid::text, ' ' ORDER BY stage) FROM msg_workers WHERE database = 'shop'};
my $before = $node->safe_psql('postgres', $pids);
for my $role ('stranger', 'maker')
{
	fails('42501', $_, "$role may not: $_", undef, extra_params => [ '-U', $role ])
	  for 'DROP DATABASE shop', 'ALTER DATABASE shop RENAME TO shop2', 'CREATE DATABASE shop2 TEMPLATE shop', 'ALTER DATABASE shop SET TABLESPACE pg_default';
}
is($node->safe_psql('postgres', $pids), $before, 'and the workers have not noticed');
takes(3, 'use as a template', sub { $node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE shop') });
state_is('shop', 'idle', 'workers are back afterwards');
takes(3, 'RENAME', sub { $node->safe_psql('postgres', 'ALTER DATABASE shop RENAME TO mall') });
state_is('shop', 'no database', 'nobody has followed it');
$node->safe_psql('postgres', 'ALTER DATABASE mall RENAME TO shop');
state_is('shop', 'idle', 'workers are back with the name');
my $guest = session($node, 'shop');
is($guest->query('SELECT 1'), 1, 'somebody is in the database');
fails('55006', 'DROP DATABASE shop', 'it cannot be dropped');
state_is('shop', 'idle', 'but has its workers again');
$guest->stop;
takes(3, 'DROP DATABASE', sub { $node->safe_psql('postgres', 'DROP DATABASE shop') });
state_is('shop', 'no database', 'its workers are gone');

# the copy is another installation until it is adopted
setting('msgsys.databases', 'postgres, copy');
state_is('copy', 'copy, not adopted', 'a copy of a database sends nothing');
$node->safe_psql('copy', 'SELECT elsewhere.msg_adopt()');
state_is('copy', 'idle', 'until it is adopted');
is(states('shop'), '', 'what is not in msgsys.databases is not shown');
$node->safe_psql('postgres', 'ALTER DATABASE copy ALLOW_CONNECTIONS false');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM msg_workers WHERE database = 'copy'});
state_is('copy', 'no database', 'a database that takes no connections is left alone');
setting('msgsys.databases', 'postgres');
ok(poll_until(10, sub { states('copy') eq '' }), 'and out of sight when it is taken from the list');

# ---- pausing
$node->safe_psql('postgres', q{SELECT msg_channel_set('quiet', topic => 'quiet')});
sends('postgres', 'before the pause');
my $session = session($node);
$session->query(q{SELECT msg_pause('quiet', 'lunch')});
my $paused = time;
ok(poll_sql($node, 5, q{SELECT count(*) FROM msg_workers WHERE state = 'idle' AND database = 'postgres'}, 3), 'workers go on for others');
$id = $session->query(q{SELECT msg_create('1', 'quiet')});
sends('postgres', 'another channel sends meanwhile');
is($session->query("SELECT status FROM messages WHERE id = $id"), 'idle', 'the paused one does not');
$node->restart;
$session = session($node);
state_is('postgres', 'idle', 'workers run after a restart');
sends('postgres', 'another channel sends after a restart');
is($session->query("SELECT status, NOT msg_running('quiet') FROM messages WHERE id = $id"), 'idle|t', 'the paused one still does not');
my $woken = session($node);
$session->send("SELECT msg_wait($id, 'sent', '10 s')");
my $began = time;
$woken->query(q{SELECT msg_resume('quiet')});
is($session->answer, 'sent', 'resumed, it does');
cmp_ok(time - $began, '<', slowness(), sprintf('within %.0f ms', (time - $began) * 1000));
$session->query('SELECT msg_pause()');
state_is('postgres', 'idle paused', 'a pause of everything is shown');
$session->query('SELECT msg_resume()');
state_is('postgres', 'idle', 'and its end');

# a pause takes effect in the middle of a backlog, after the batch that is under way, which is over when the same worker sends what came later
$session->query(q{INSERT INTO messages (channel, payload) SELECT 'quiet', to_jsonb(g) FROM generate_series(1, 50000) g});
ok(poll_sql($node, 10, q{SELECT count(*) > 0 FROM messages WHERE channel = 'quiet' AND sent_at IS NOT NULL AND payload <> '1'}), 'a backlog is being sent');
my $paused = $session->query(q{SELECT msg_pause('quiet'); SELECT clock_timestamp()}) =~ s/^t\n//r;
sends('postgres', 'another channel sends meanwhile');
my $left = $session->query(q{SELECT count(*) FROM messages WHERE channel = 'quiet' AND status = 'idle'});
my $late = $session->query(qq{SELECT greatest(0, round(1000 * extract(epoch FROM max(sent_at) - '$paused'))) FROM messages WHERE channel = 'quiet'});
cmp_ok($left, '>', 0, "paused while $left were left, the last one sent $late ms after");
cmp_ok($late, '<', 1000 * slowness(), 'which is soon');
sends('postgres', 'and again');
is($session->query(q{SELECT count(*) FROM messages WHERE channel = 'quiet' AND status = 'idle'}), $left, 'none was sent after that');
$session->query(q{SELECT msg_resume('quiet')});
ok(poll_sql($node, 30, q{SELECT count(*) FROM messages WHERE channel = 'quiet' AND status = 'received'}, 50001), 'all are received in the end');

# ---- settings by SIGHUP
sends('postgres', 'to the first topic');
setting('msgsys.kafka_topic', 'second');
sends('postgres', 'to the second topic');
is(scalar(grep { $_->{value} eq '1' } read_topic($bootstrap, 'second')), 1, 'another topic without a restart');
$node->safe_psql('postgres', q{CREATE ROLE relay_role LOGIN; SELECT msg_grant('relay_role', 'worker')});
setting('msgsys.role', 'relay_role');
ok(poll_sql($node, 20, q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'relay_role' AND backend_type LIKE 'msgsys re%'}, 2), 'workers start again as another role');
sends('postgres', 'which sends and receives with the rights of a worker');
setting('msgsys.role', '');
ok(poll_sql($node, 20, q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'relay_role'}, 0), 'and as themselves');
sends('postgres', 'and send');

# ---- waiting
fails('P0002', 'SELECT msg_wait(999999999)', 'waiting for no message');
fails('P0002', 'SELECT msg_wait(-1)', 'waiting for an impossible message');
fails('22023', "SELECT msg_wait(1, 'sent', '-1 s')", 'a negative timeout');
fails('55000', "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT msg_wait(1)", 'waiting with one snapshot');
$id = $session->query(q{SELECT msg_create('1', 'default', deliver_at => now() + '1 day')});
takes(2, 'a wait ends with its timeout', sub { is($session->query("SELECT msg_wait($id, 'sent', '200 ms')"), 'scheduled', 'and says what is so') });
$session->send("SELECT msg_wait($id, 'sent', '20 s')");
$woken->query("SELECT msg_cancel($id)");
is($session->answer, 'cancelled', 'a wait ends when the message does');
$id = $woken->query(q{SELECT msg_create('1', 'default', deliver_at => now() + '1 day')});
$session->send("SELECT msg_wait($id, 'sent', '20 s')");
ok(poll_sql($node, 5, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND query LIKE 'SELECT msg_wait($id%'", 1), 'a wait is seen as one');
$woken->query(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT msg_wait%' AND pid <> pg_backend_pid()});
$session->answer;
like($session->error, qr/canceling statement/, 'and can be cancelled');

# ---- the end of a worker, whatever Kafka does
sub ends
{
	my ($name) = @_;
	for my $stage ('relay', 'receiver')
	{
		# a batch under way is waited for, for msgsys.send_timeout (2 s) at most, and the producer's end for 1 s; as much again for a busy machine
		takes($name eq 'Kafka hangs' ? 6 : 2, "$name: the $stage ends", sub { is($woken->query("SELECT pg_terminate_backend(pid, 100000) FROM msg_workers WHERE stage = '$stage'"), 't', 'told to end') });
	}
	return;
}
sub backlog { $woken->query(q{INSERT INTO messages (channel, payload) SELECT 'quiet', to_jsonb(g) FROM generate_series(1, 20000) g}); return; }
backlog();
ends('with Kafka');
ok(wait_workers($node), 'workers are back');
kafka('pause', $dir);
backlog();
ok(poll_sql($node, 5, q{SELECT count(*) FROM msg_workers WHERE stage = 'relay' AND state IN ('busy', 'broker down')}, 1), 'the relay waits for a Kafka that hangs');
ends('Kafka hangs');
ok(poll_sql($node, 10, q{SELECT count(pid) FROM msg_workers}, 3), 'all start again');
takes(5, 'the server stops while Kafka hangs', sub { $node->stop('fast') });
kafka('cont', $dir);
kafka('stop', $dir);
$node->start;
$woken = session($node);
ok(poll_sql($node, 10, q{SELECT count(*) FROM msg_workers WHERE stage = 'relay' AND state = 'broker down'}, 1), 'Kafka is gone, and the relay says so');
ends('Kafka is gone');
takes(5, 'the server stops without Kafka', sub { $node->stop('fast') });
kafka_start($dir);
$node->start;
ok(poll_sql($node, 40, q{SELECT count(*) FROM messages WHERE channel = 'quiet' AND status = 'received'}, 90001), 'in the end, all are received');
check_topic($node, $bootstrap, 'quiet', "channel = 'quiet'", 'life');
$node->stop;

# ---- without workers
my $alone = new_node('alone', 'max_worker_processes' => 4, 'msgsys.webhook_workers' => 0, 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.kafka_topic' => 'first');
ok(poll_sql($alone, 10, q{SELECT count(*) FROM msg_workers WHERE state = 'no worker slot'}, 1), 'one worker finds no slot');
ok(poll_sql($alone, 10, q{SELECT count(*) FROM msg_workers WHERE state = 'idle'}, 2), 'the other ones work');
is(log_count($alone, 'no background worker slot is free'), 1, 'which is logged once');
$alone->stop;
$alone->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$alone->start;
$id = $alone->safe_psql('postgres', q{SELECT msg_create('1', 'default')});
is($alone->safe_psql('postgres', "SELECT status FROM messages WHERE id = $id"), 'idle', 'without preloading, messages can be created and wait');
$alone->psql('postgres', "SELECT msg_wait($id)", stderr => \my $err);
like($err, qr/not in shared_preload_libraries/, 'and waiting for them says why not');
$alone->stop;
done_testing();
