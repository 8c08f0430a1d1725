# msg_check() where it takes a server with workers: who acts and does not, processes, settings, rights, a standby, no preload; and
# that a sample is what it costs.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

my ($bootstrap, $kafka) = kafka_start();
my $node = new_node('check', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.sweep_interval' => '1s', 'msgsys.poll_interval' => '100ms');
wait_workers($node);

# found(NODE): the names of all findings that are no mere information
sub found
{
	my ($of) = @_;
	return $of->safe_psql('postgres', q{SELECT coalesce(string_agg(DISTINCT "check", ' '), '') FROM msg_check() WHERE severity <> 'info'});
}

# finds(SECONDS, NAME): wait until that is what is found
sub finds
{
	my ($seconds, $name, $text) = @_;
	my $is = '';
	ok(poll_until($seconds, sub { ($is = found($node)) eq $name }), $text) or diag("found: $is");
}

$node->safe_psql('postgres', q{
	SELECT msg_channel_set('orders', topic => 'orders');
	SELECT msg_create('1', 'orders') FROM generate_series(1, 100)});
poll_sql($node, 20, "SELECT bool_and(status = 'received') FROM messages");
finds(10, '', 'a server at work is healthy');

# what waits by right, and what does not
$node->safe_psql('postgres', q{
	SELECT msg_pause('orders');
	SELECT msg_create('2', 'orders');
	UPDATE messages SET created_at = now() - interval '1 h' WHERE payload = '2';
	UPDATE msg_channels SET updated_at = now() - interval '1 h'});
finds(10, '', 'what is paused waits by right');
$node->safe_psql('postgres', q{SELECT msg_resume('orders')});
poll_sql($node, 20, "SELECT bool_and(status = 'received') FROM messages");

# a relay that does nothing, and says that it is idle
my $relay = worker_pid($node, 'relay');
poll_sql($node, 20, "SELECT state = 'idle' FROM msg_workers WHERE stage = 'relay'");
kill 'STOP', $relay;
$node->safe_psql('postgres', q{
	SELECT msg_create('3', 'orders');
	UPDATE messages SET created_at = now() - interval '1 h' WHERE payload = '3';
	UPDATE msg_pause_log SET at = now() - interval '1 h'});
finds(40, 'waiting', 'a row that waits while its worker idles');
my $holder = session($node);
$holder->query(q{BEGIN; SELECT 1 FROM messages WHERE payload = '3' FOR UPDATE});
finds(10, '', 'but not one that a transaction holds');
$holder->query('ROLLBACK');
my $of = q{SELECT string_agg(array_to_string(examples, ','), ' ') FROM msg_check() WHERE "check" = 'waiting'};
$node->safe_psql('postgres', q{UPDATE messages SET created_at = now() WHERE payload = '3'});
for ([ 'retry', 'due_at', "now() - interval '1 h'" ], [ 'dead', 'dlq_pending, finished_at', "true, now() - interval '1 h'" ])
{
	my ($status, $columns, $values) = @$_;
	my $id = $node->safe_psql('postgres', "SET session_replication_role = replica;
		INSERT INTO messages (channel, payload, attempts, status, $columns) VALUES ('orders', '6', 1, '$status', $values) RETURNING id");
	ok(poll_sql($node, 40, $of, $id), "a message that waits as $status while its worker idles");
	$node->safe_psql('postgres', "DELETE FROM messages WHERE id = $id");
}
kill 'CONT', $relay;
finds(20, '', 'then all is well again');

# a record that is gone from the topic
$node->safe_psql('postgres', q{
	SET session_replication_role = replica;
	INSERT INTO messages (channel, status, payload, attempts, sent_at) VALUES ('orders', 'sent', '3', 1, now() - interval '1 h')});
finds(20, 'not-read-back', 'a message whose record nobody reads');
$node->safe_psql('postgres', q{DELETE FROM messages WHERE status = 'sent'});

# settings; a reload applies them
sub with_setting
{
	my ($setting, $value, $name, $text) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $setting = '$value'");
	$node->reload;
	my $is = '';
	ok(poll_until(10, sub {
		$is = $node->safe_psql('postgres', q{SELECT coalesce(string_agg(DISTINCT "check" || ' ' || examples[1], ','), '') FROM msg_check() WHERE severity = 'error' AND "check" = 'setting'});
		$is eq $name }), $text) or diag("found: $is");
	$node->safe_psql('postgres', "ALTER SYSTEM RESET $setting");
	$node->reload;
}
with_setting('msgsys.databases', 'postgres, nowhere', 'setting msgsys.databases', 'a database that does not exist');
with_setting('msgsys.kafka_options_file', '/nowhere/at/all', 'setting msgsys.kafka_options_file', 'a file that cannot be read');
with_setting('msgsys.http_jwt_secret', 'short', 'setting msgsys.http_jwt_secret', 'a secret that is too short');
with_setting('msgsys.http_role', 'nobody', 'setting msgsys.http_role', 'a role that does not exist');
$node->safe_psql('postgres', 'CREATE ROLE boss SUPERUSER; CREATE ROLE lazy');
with_setting('msgsys.http_role', 'boss', 'setting msgsys.http_role', 'a role that is a superuser');
with_setting('msgsys.http_anonymous_role', 'nobody', 'setting msgsys.http_anonymous_role', 'an anonymous role that does not exist');

# what the Kafka client does not take, and a broker that is not there: each worker tells of the latest one
for ([ 'msgsys.kafka_options', 'securty.protocol=ssl', 'broker-settings', 'securty.protocol' ],
	[ 'msgsys.kafka_brokers', 'http://127.0.0.1:1', 'broker-settings', 'http://127.0.0.1:1' ],
	[ 'msgsys.kafka_brokers', '127.0.0.1:1', 'broker-down', '127.0.0.1:1' ],
	[ 'msgsys.kafka_brokers', '127.0.0.1:2', 'broker-down', '127.0.0.1:2' ])
{
	my ($setting, $value, $name, $words) = @$_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $setting = '$value'");
	$node->reload;
	finds(20, $name, "$setting = $value");
	ok(poll_sql($node, 20, "SELECT count(*) FROM msg_workers WHERE stage IN ('relay', 'receiver') AND strpos(last_error, '$words') > 0", 2), 'relay and receiver say why')
		or diag($node->safe_psql('postgres', 'SELECT stage, state, last_error FROM msg_workers'));
	$node->safe_psql('postgres', "ALTER SYSTEM RESET $setting");
}
$node->reload;
finds(20, '', 'all settings are well again');
$node->safe_psql('postgres', "ALTER SYSTEM SET msgsys.role = 'lazy'");
$node->reload;
ok(poll_until(20, sub { found($node) =~ /worker-rights/ }), 'a worker role that lacks rights');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET msgsys.role');
$node->reload;
finds(60, '', 'and well again');

# a prepared transaction is told of by age alone, so a new one is not
$node->safe_psql('postgres', q{BEGIN; SELECT msg_create('4', 'orders'); PREPARE TRANSACTION 'p'});
finds(10, '', 'a new prepared transaction is no finding');
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");

# a sample of many costs little: by the plan's blocks, not by time
$node->safe_psql('postgres', q{
	SET session_replication_role = replica;
	INSERT INTO messages (channel, status, payload, finished_at, delivered_at) SELECT 'orders', 'delivered', '5', now(), now() FROM generate_series(1, 300000)});
my $pages = $node->safe_psql('postgres', q{SELECT pg_relation_size('messages') / 8192});
my $read = $node->safe_psql('postgres', q{
	SELECT sum(n) FROM (SELECT pg_stat_get_xact_blocks_fetched('messages'::regclass) AS n, c FROM (SELECT count(*) AS c FROM msg_check()) x) y});
cmp_ok($read, '>', 0, 'something is looked at');
cmp_ok($read, '<', 2000 + $pages / 4, "a sample reads $read times a block, of $pages");

# a standby has no workers, and is healthy
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('check_standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is(found($standby), '', 'a standby is healthy');
$standby->stop;

$node->stop;
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->start;
is(found($node), 'not-preloaded', 'without preload it says so');
expect_findings('not-preloaded: check' => 'this test starts the server without');
$node->stop;
done_testing();
