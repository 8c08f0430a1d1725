# Crashes and restarts in the middle of a stream: nothing is lost, invented or reordered, and what the receiver has
# marked and how far it has read go back together.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

my ($bootstrap) = kafka_start();
my $node = new_node('crash', 'msgsys.kafka_brokers' => $bootstrap, 'restart_after_crash' => 'on', 'msgsys.batch_size' => 500);
ok(wait_workers($node), 'workers run');
kafka_create_topic($bootstrap, 'crash', 4);
$node->safe_psql('postgres', "SELECT msg_channel_set('crash', topic => 'crash')");
my $uuid = $node->safe_psql('postgres', 'SELECT uuid FROM msg_installation');
my $n = 10000;
my $created = 0;

# What has its record below the stored position has been marked, whatever a crash took back.
my $unmarked = q{SELECT count(*) FROM messages m JOIN msg_offsets o ON o.topic = 'crash' AND o.partition = m.kafka_partition
	WHERE m.status = 'sent' AND m.kafka_offset < o.next_offset};

# disturb(NAME, COUNTER, CODE): create messages, and run CODE when COUNTER, such as relay.sent, has risen by a third
# of them; then wait until all are received.
sub disturb
{
	my ($name, $stage, $counter, $code) = @_;
	my $session = session($node);
	my $count = "(SELECT sum((counters ->> '$counter')::int) FROM msg_worker_slots() WHERE stage = '$stage')";
	my $before = $session->query("SELECT $count");
	$session->send(qq{
		INSERT INTO messages (channel, message_key, payload) SELECT 'crash', 'key ' || g % 100, to_jsonb(g) FROM generate_series(1, $n) g;
		DO \$\$ BEGIN
			WHILE $count < $before + $n / 3 LOOP
				PERFORM pg_sleep(0.001);
			END LOOP;
		END \$\$;
		SELECT $count});
	my $reached = $session->answer - $before;
	$code->($session);
	$created += $n;
	cmp_ok($reached, '<', $n, "$name: after $reached of $n");
	ok(poll_until(30, sub { answers($node) }), "$name: the server answers");
	is($node->safe_psql('postgres', $unmarked), 0, "$name: no record was passed over");
	ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE status = 'received'", $created), "$name: all are received");
	$session->stop;
}

disturb('immediate shutdown', 'relay', 'sent', sub { $node->stop('immediate'); $node->start; });
disturb("kill -9 of the $_->[0]", @$_, sub { kill_worker($node, $_->[0]) }) for ['relay', 'sent'], ['receiver', 'received'];
for my $stage ('relay', 'receiver')
{
	ok(wait_workers($node), 'workers run again');
	disturb("end of the $stage", $stage, $stage eq 'relay' ? 'sent' : 'received', sub {
		is($_[0]->query("SELECT pg_terminate_backend(pid, 5000) FROM msg_workers WHERE stage = '$stage'"), 't', "$stage ends when told so");
	});
}
disturb('restart', 'relay', 'sent', sub { $node->stop('fast'); $node->start; });

check_topic($node, $bootstrap, 'crash', 'true', 'crashes');
my %next;
for my $record (read_topic($bootstrap, 'crash'))
{
	my $after = $record->{offset} + 1;
	$next{ $record->{partition} } = $after if $after > ($next{ $record->{partition} } // 0);
}
is($node->safe_psql('postgres', "SELECT partition, next_offset FROM msg_offsets WHERE topic = 'crash' ORDER BY 1"),
	join("\n", map { "$_|$next{$_}" } sort keys %next), 'positions are at the ends of the partitions');
is($node->safe_psql('postgres', "SELECT count(*) FROM messages WHERE sent_at IS NULL OR received_at IS NULL OR finished_at IS NULL
	OR attempts < 1 OR kafka_offset IS NULL"), 0, 'rows are complete');
is($node->safe_psql('postgres', 'SELECT uuid FROM msg_installation'), $uuid, 'still the same installation');
$node->stop;
done_testing();
