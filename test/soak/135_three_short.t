# Three brokers, of which one or two are killed, one hangs, and one after the other is stopped and started: with one away messages
# flow, with two nothing is confirmed, which is said; nothing is lost, reordered or dead.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;
use Time::HiRes 'time';

# the code that the brokers run is run for seconds only
$ENV{KAFKA_JIT} = 1;
my $cluster = kafka_cluster_later();
my $node = new_node('three', start => 0);
my ($bootstrap, @broker) = $cluster->();
$node->append_conf('postgresql.conf', "msgsys.kafka_brokers = '$bootstrap'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION msgsys');
ok(wait_workers($node), 'workers run');
kafka_create_topic($bootstrap, 'flow', 6);
$node->safe_psql('postgres', q{SELECT msg_channel_set('flow', topic => 'flow'); CREATE TABLE stop ()});
my $session = session($node);
my $flow = session($node);
$flow->send(q{DO $$ BEGIN FOR n IN 1 .. 1000000 LOOP
	EXIT WHEN EXISTS (SELECT FROM stop);
	INSERT INTO messages (channel, message_key, payload) SELECT 'flow', 'key ' || g % 60, to_jsonb(g) FROM generate_series(n * 4, n * 4 + 3) g;
	COMMIT; PERFORM pg_sleep(0.02);
	END LOOP; END $$});

# flows(WHAT): what is created from now on comes to its end, by each partition
sub flows
{
	my ($what) = @_;
	my $now = $session->query('SELECT clock_timestamp()');
	return ok(poll_sql($node, 60, "SELECT count(DISTINCT kafka_partition) FROM messages WHERE created_at >= '$now' AND status = 'received'", 6), $what);
}

sub whole { return poll_until(60, sub { in_sync($bootstrap, 'flow') }) || diag('a replica is not in sync'); }

flows('messages flow');
whole();

kafka('kill', $broker[0]);
flows('one broker was killed');
kafka_start($broker[0]);
whole();

kafka('pause', $broker[1]);
flows('one hangs');
kafka('cont', $broker[1]);
whole();

# ---- with the majority, the controller is gone, too
my $log = log_count($node);
kafka('kill', $_) for @broker[ 0, 2 ];
ok(poll_until(30, sub { log_count($node, 'msgsys relay: messages for topic "flow" wait: |msgsys relay has lost the broker: ', $log) }), 'two were killed, which the log says');
my $sent = "SELECT count(*) FROM messages WHERE sent_at >= '" . $session->query('SELECT clock_timestamp()') . "'";
my $waiting = q{SELECT count(*) FROM messages WHERE status = 'idle'};
my $before = $session->query($waiting);
ok(poll_sql($node, 20, "SELECT ($waiting) > $before + 200"), 'messages wait');
is($session->query($sent), 0, 'and none is confirmed');
my @starts = map { kafka_start_later($_) } @broker[ 0, 2 ];
$_->() for @starts;
flows('both are back');
whole();

# ---- rolled
for my $number (0 .. 2)
{
	kafka('stop', $broker[$number]);
	kafka_start($broker[$number]);
	whole();
}
flows('each was stopped and started');

$session->query('INSERT INTO stop DEFAULT VALUES');
$flow->answer;
ok(poll_sql($node, 40, q{SELECT count(*) FROM messages WHERE status <> 'received'}, 0), 'all are received');
is($session->query(q{SELECT count(*) FROM messages WHERE last_error IS NOT NULL}), 0, 'by their records');
check_topic($node, $bootstrap, 'flow', "channel = 'flow'", 'faults of brokers');
$node->stop;
done_testing();
