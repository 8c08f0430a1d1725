# Order within a key: two relay workers share the keys, and each key's records stand in the order of the ids.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

my ($bootstrap) = kafka_start();
my $node = new_node('order', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.relay_workers' => 2,
	'msgsys.receiver_workers' => 2);
ok(wait_workers($node), 'workers run');
kafka_create_topic($bootstrap, 'ordered', 4);
$node->safe_psql('postgres', "SELECT msg_channel_set('ordered', topic => 'ordered')");

# One session, transactions of 1 to 40 messages; every fiftieth message has no key.
$node->safe_psql('postgres', q{
	DO $$
	DECLARE
		made int := 0;
		n int;
	BEGIN
		WHILE made < 10000 LOOP
			n := least(1 + made * 7 % 40, 10000 - made);
			INSERT INTO messages (channel, message_key, payload)
			SELECT 'ordered', CASE WHEN g % 50 > 0 THEN 'key-' || (random() * 99)::int END, to_jsonb(g)
			FROM generate_series(made + 1, made + n) g;
			COMMIT;
			made := made + n;
		END LOOP;
	END $$});
ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE status = 'received'", 10000), '10,000 messages are received');

my $counts = check_topic($node, $bootstrap, 'ordered', 'true', 'two relay workers');
is($counts->{committed}, 10000, 'all were checked');
is($counts->{repeated}, 0, 'without trouble nothing is repeated');
for my $worker (0, 1)
{
	for my $counter ('sent', 'cycles')
	{
		my $n = $node->safe_psql('postgres',
			"SELECT counters ->> '$counter' FROM msg_worker_slots() WHERE stage = 'relay' AND worker = $worker");
		cmp_ok($n, '>=', $counter eq 'sent' ? 2000 : 2, "relay worker $worker took part: $counter $n");
	}
}
is(stats($node)->{'relay.sent'}, 10000, 'together they sent each message once');
$node->stop;
done_testing();
