# A standby goes on where the primary stopped; a copy of any other kind sends nothing until it is adopted.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

expect_findings('not-listed' => 'dumps are restored into a database that nobody works on', copy => 'and are not all adopted');

my ($bootstrap) = kafka_start();
my $primary = new_node('primary', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.databases' => 'postgres, restored',
	'msgsys.batch_size' => 500);
kafka_create_topic($bootstrap, $_, 4) for qw(stream held);
ok(poll_sql($primary, 20, "SELECT count(*) > 0 AND bool_and(state IN ('idle', 'not needed')) FROM msg_workers WHERE database = 'postgres'", 't'), 'workers run');
$primary->safe_psql('postgres', "SELECT msg_channel_set('stream', topic => 'stream'); SELECT msg_channel_set('held', topic => 'held'); SELECT msg_pause('held')");

# create N messages of a channel
sub create
{
	my ($node, $database, $channel, $n) = @_;
	return $node->safe_psql($database, qq{INSERT INTO messages (channel, message_key, payload)
		SELECT '$channel', 'key ' || g % 100, to_jsonb(g) FROM generate_series(1, $n) g});
}

# count_is(NODE, DATABASE, STATUS, N, NAME)
sub count_is
{
	my ($node, $database, $status, $n, $name) = @_;
	my $have = -1;
	return ok(poll_until(30, sub { ($have = $node->safe_psql($database, "SELECT count(*) FROM messages WHERE status = '$status'")) == $n }), $name)
	  || diag("$have of $n");
}

sub is_copy
{
	my ($node, $database, $name) = @_;
	return ok(poll_sql($node, 20, "SELECT bool_or(state = 'copy, not adopted') AND bool_and(state IN ('copy, not adopted', 'not needed')) FROM msg_workers WHERE database = '$database'"), $name);
}

my $why = q{SELECT string_agg(detail, ' ') FROM msg_check() WHERE "check" = 'copy'};

# ---- dump and restore, beside the original
create($primary, 'postgres', 'stream', 1000);
create($primary, 'postgres', 'held', 10);
count_is($primary, 'postgres', 'received', 1000, 'the original has received');
my $uuid = $primary->safe_psql('postgres', 'SELECT uuid FROM msg_installation');
my $dump = $primary->basedir . '/dump';
$primary->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'postgres' ], 'pg_dump');
$primary->safe_psql('postgres', 'CREATE DATABASE restored');
$primary->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'restored', $dump ], 'pg_restore');
count_is($primary, 'restored', 'received', 1000, 'restored is what was received');
is($primary->safe_psql('restored', "SELECT msg_resume('held'), status, count(*) FROM messages WHERE channel = 'held' GROUP BY 2"), 't|idle|10', 'and what waits, and the pause');
is_copy($primary, 'restored', 'a restored database sends nothing');
is($primary->safe_psql('restored', $why), 'Messages were restored from another installation: nothing is sent until msg_adopt().', 'which msg_check() says once, with its cause');
is($primary->safe_psql('restored', "SELECT count(*) FROM messages WHERE status = 'idle'"), 10, 'all still wait');
cmp_ok($primary->safe_psql('restored', q{SELECT msg_create('1', 'stream')}), '>', 1010, 'ids go on where they were');
isnt($primary->safe_psql('restored', 'SELECT uuid FROM msg_installation'), $uuid, 'it has a uuid of its own');
my ($rc, undef, $refusal) = $primary->psql('restored', 'SELECT msg_adopt()');
like($refusal, qr/10 unfinished messages are another installation's/, 'whose the waiting messages are has to be said');
$primary->safe_psql('restored', q{SELECT msg_adopt('lives')});
count_is($primary, 'restored', 'received', 1011, 'adopted, it sends');
is($primary->safe_psql('postgres', "SELECT count(*) FROM messages WHERE status = 'idle'"), 10, 'the original takes nothing for its own');
ok(poll_sql($primary, 10, q{SELECT value FROM msg_stats() WHERE stage = 'receiver' AND counter = 'foreign'}, 1), 'what it reads of the copy is foreign to it');

# ---- a standby
my $standby = PostgreSQL::Test::Cluster->new('standby');
$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'msgsys%' AND backend_type <> 'msgsys launcher'"), 0, 'a standby runs no workers that change something');
create($primary, 'postgres', 'held', 2000);
my $session = session($primary);
create($primary, 'postgres', 'stream', 20000);
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$standby->promote;
my $done = $standby->safe_psql('postgres', "SELECT count(*) FROM messages WHERE channel = 'stream' AND status = 'received'");
cmp_ok($done, '<', 21000, "promoted with $done of 21000 received");
$standby->safe_psql('postgres', "SELECT msg_resume('held')");
count_is($standby, 'postgres', 'received', 23010, 'and it goes on to the last');
my $promoted = $standby->safe_psql('postgres', 'SELECT uuid FROM msg_installation');
isnt($promoted, $uuid, 'what it creates from now on has names of another uuid');
is($standby->safe_psql('postgres', 'SELECT count(DISTINCT n.uuid), min(n.uuid::text) FROM messages m JOIN msg_names n USING (epoch)'), "1|$uuid", 'and what was there keeps its names');
check_topic($standby, $bootstrap, 'stream', "channel = 'stream'", 'promotion');

# ---- a clone, told apart by msgsys.identity alone
$standby->backup('clone');
my $clone = PostgreSQL::Test::Cluster->new('clone');
$clone->init_from_backup($standby, 'clone');
$clone->append_conf('postgresql.conf', "msgsys.identity = 'the clone'\n");
$clone->start;
is_copy($clone, 'postgres', 'a clone with another identity sends nothing');
is($clone->safe_psql('postgres', $why), 'This is a copy of another installation, by msgsys.identity: nothing is sent until msg_adopt().', 'nor does msg_check() take it for a restored one');
create($clone, 'postgres', 'stream', 10);
unlike($clone->safe_psql('postgres', q{SELECT msg_adopt('lives')}), qr/$uuid|$promoted/, 'it is adopted, with another uuid');
count_is($clone, 'postgres', 'received', 23020, 'and then sends');
$clone->restart;
ok(poll_sql($clone, 20, "SELECT count(*) > 0 AND bool_and(state IN ('idle', 'not needed')) FROM msg_workers WHERE database = 'postgres'", 't'), 'still after a restart');
$clone->stop;

# ---- pg_upgrade
create($standby, 'postgres', 'stream', 5);
count_is($standby, 'postgres', 'received', 23015, 'before pg_upgrade');
$standby->safe_psql('postgres', q{SELECT msg_pause(); INSERT INTO messages (channel, payload) VALUES ('stream', '"upgraded"')});
$standby->stop;
my $new = new_node('new', 'msgsys.kafka_brokers' => $bootstrap, start => 0);
my $bindir = $ENV{PATH} =~ s/:.*//r;
my $where = tempdir();
chdir $where or die;
command_ok([ 'pg_upgrade', '-d', $standby->data_dir, '-D', $new->data_dir, '-b', $bindir, '-B', $bindir, '-s', $new->host,
	'-p', $standby->port, '-P', $new->port ], 'pg_upgrade');
$new->start;
is_copy($new, 'postgres', 'an upgraded server sends nothing by itself');
is($new->safe_psql('postgres', 'SELECT count(*) FROM messages'), 23016, 'its messages are there');
my $named = q{SELECT n.uuid FROM messages m JOIN msg_names n USING (epoch) WHERE m.payload = '"upgraded"'};
is($new->safe_psql('postgres', $named), $promoted, 'under their names');
$new->safe_psql('postgres', q{SELECT msg_adopt('gone'); SELECT msg_resume()});
count_is($new, 'postgres', 'received', 23016, 'adopted, it goes on');
is($new->safe_psql('postgres', $named), $promoted, 'and they keep their names');
$new->stop;
done_testing();
