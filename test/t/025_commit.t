# Rows of a transaction become visible a moment before its note is there. A relay that claims in that moment must not
# send the later rows of a key before the earlier ones, whatever it had sent before.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

my ($bootstrap) = kafka_start();
my $node = new_node('commit', 'msgsys.kafka_brokers' => $bootstrap, 'log_statement' => 'none', 'max_connections' => 60, 'msgsys.relay_workers' => 2);
ok(wait_workers($node), 'workers run');
kafka_create_topic($bootstrap, 'commit', 4);
$node->safe_psql('postgres', "SELECT msg_channel_set('commit', topic => 'commit', ack => 'none')");

# many sessions on few processors are often interrupted in that moment; their ids are mixed, so marks lie between them
my $seconds = $ENV{COMMIT_SECONDS} // 8;
my $script = tempdir() . '/insert.sql';
append_to_file($script, q{INSERT INTO messages (channel, message_key, payload) SELECT 'commit', 'key ' || :client_id || '-' || random(), to_jsonb(g) FROM generate_series(1, 1) g;});
append_to_file($script, "\n");
my $many = tempdir() . '/many.sql';
append_to_file($many, q{WITH key AS MATERIALIZED (SELECT 'key ' || :client_id || '-' || random() AS key)
	INSERT INTO messages (channel, message_key, payload) SELECT 'commit', key, to_jsonb(g) FROM key, generate_series(1, 50) g;} =~ s/\s+/ /gr . "\n");
$node->command_ok([ 'pgbench', '-n', '-c', 24, '-j', 2, '-T', $seconds, '-R', 500, '-f', "$script\@1", '-f', "$many\@3", 'postgres' ], 'many sessions create messages');
ok(poll_sql($node, 60, "SELECT count(*) FROM messages WHERE status = 'idle'", 0), 'all are sent');
my $counts = check_topic($node, $bootstrap, 'commit', 'true', 'many commits at once');
cmp_ok($counts->{committed}, '>', 10000, "$counts->{committed} were checked");
$node->stop;
done_testing();
