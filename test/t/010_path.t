# The whole path through a real Kafka: idle, sent, received; rollback sends nothing; what a consumer sees.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

my ($bootstrap) = kafka_start();
my $node = new_node('path', 'msgsys.kafka_brokers' => $bootstrap);
ok(wait_workers($node), 'workers run');

$node->safe_psql('postgres', "SELECT msg_channel_set('orders', topic => 'orders')");
my $id = $node->safe_psql('postgres',
	q{SELECT msg_create('{"order": 1, "who": "Zoë"}', 'orders', message_key => 'k1', event_type => 'order.created',
	headers => '{"traceparent": "00-1-2-01", "x": "y"}')});
is($node->safe_psql('postgres', "SELECT msg_wait($id, 'received', '30 s')"), 'received', 'a message is received');

$node->safe_psql('postgres', q{BEGIN; SELECT msg_create('{"order": 2}', 'orders'); ROLLBACK});
$node->safe_psql('postgres', q{INSERT INTO messages (channel, body) VALUES ('orders', '\x00ff10')});
$node->safe_psql('postgres',
	q{INSERT INTO messages (channel, payload, message_key) SELECT 'orders', to_jsonb(g), g % 100 FROM generate_series(1, 10000) g});
ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE status = 'received'", 10002), '10,002 messages are received');

my @records = read_topic($bootstrap, 'orders');
is(scalar @records, 10002, 'the topic has as many records, none of them rolled back');
my ($first) = grep { $_->{key} eq 'k1' } @records;
my $uuid = $node->safe_psql('postgres', 'SELECT uuid FROM msg_installation');
is($first->{headers}{ce_id}, "$uuid:$id", 'ce_id names installation and message');
is($first->{headers}{ce_type}, 'order.created', 'ce_type is the event type');
is($first->{headers}{ce_specversion}, '1.0', 'CloudEvents 1.0');
is($first->{headers}{ce_source}, '/msgsys/postgres', 'ce_source is the database');
like($first->{headers}{ce_time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/, 'ce_time is RFC 3339');
is($first->{headers}{'content-type'}, 'application/json', 'content-type of a payload');
is($first->{headers}{traceparent}, '00-1-2-01', 'traceparent is passed on');
is($first->{headers}{x}, 'y', 'so is any header');
is($node->safe_psql('postgres', "SELECT kafka_partition, kafka_offset, attempts FROM messages WHERE id = $id"),
	"$first->{partition}|$first->{offset}|1", 'the row knows partition and offset');
check_topic($node, $bootstrap, 'orders', 'true', 'whole path');

# acknowledgements by a consumer, and the ways in which they can be wrong
$node->safe_psql('postgres',
	"SELECT msg_channel_set('acked', topic => 'acked', ack => 'topic', max_attempts => 2, retry_base => '10 ms', retry_max => '20 ms')");
my @ids = split /\n/, $node->safe_psql('postgres', q{SELECT msg_create(to_jsonb(g), 'acked') FROM generate_series(1, 5) g});
ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel = 'acked' AND status = 'sent'", 5), 'five are sent, and wait');
my $deep = '[' x 5000;
kcat_produce($bootstrap, 'msgsys.acks',
	'not json', '{"id": 5}', '', $deep, '{"id": "x", "status": "received"}', "\xff\xfe",
	qq({"id": "00000000-0000-0000-0000-000000000000:$ids[0]", "status": "delivered"}),
	qq({"id": "$uuid:999999999", "status": "received"}),
	qq({"id": "$uuid:$ids[0]", "status": "received"}),
	qq({"id": "$uuid:$ids[1]", "status": "received", "attempt": 1}),
	qq({"id": "$uuid:$ids[1]", "status": "delivered", "attempt": 1}),
	qq({"id": "$uuid:$ids[1]", "status": "received"}),
	qq({"id": "$uuid:$ids[2]", "status": "failed", "attempt": 1, "error": "no stock"}),
	qq({"id": "$uuid:$ids[3]", "status": "failed", "attempt": 7, "error": "stale"}),
	qq({"id": "$uuid:$ids[4]", "status": "delivered"}));
ok(poll_sql($node, 20, "SELECT status FROM messages WHERE id = $ids[4]", 'delivered'), 'bad acknowledgements block nothing');
is($node->safe_psql('postgres', "SELECT status FROM messages WHERE id = $ids[0]"), 'received', 'received by a consumer');
is($node->safe_psql('postgres', "SELECT status FROM messages WHERE id = $ids[1]"), 'delivered', 'delivered, and a late word changes nothing');
is($node->safe_psql('postgres', "SELECT status FROM messages WHERE id = $ids[3]"), 'sent', 'failed counts only for the current attempt');
ok(poll_sql($node, 20, "SELECT status::text || attempts FROM messages WHERE id = $ids[2]", 'sent2'), 'a failed one is sent again');
is($node->safe_psql('postgres', "SELECT last_error FROM messages WHERE id = $ids[2]"), 'no stock', 'and the error is kept');
my ($second) = grep { ($_->{headers}{'msgsys-attempt'} // 1) == 2 } read_topic($bootstrap, 'acked');
is($second->{headers}{ce_id}, "$uuid:$ids[2]", 'the second attempt says so');
kcat_produce($bootstrap, 'msgsys.acks', qq({"id": "$uuid:$ids[2]", "status": "failed", "attempt": 2, "error": "still none"}));
ok(poll_sql($node, 20, "SELECT status FROM messages WHERE id = $ids[2]", 'dead'), 'after max_attempts it is dead');
is($node->safe_psql('postgres', "SELECT msg_ack($ids[3], 'delivered')"), 't', 'a consumer acknowledges by SQL');
my $stats = stats($node);
is($stats->{'receiver.malformed'}, 5, 'unreadable acknowledgements are counted');
is($stats->{'receiver.foreign'}, 1, 'so are those of another installation');
ok($stats->{'receiver.unmatched'} >= 2, 'and those that nobody waited for');

# topics that the broker makes by itself have no leader for a moment, which is no outage
for my $n (1 .. 8)
{
	$node->safe_psql('postgres', "SELECT msg_channel_set('new$n', topic => 'new$n')");
	my $new = $node->safe_psql('postgres', "SELECT msg_create('1', 'new$n')");
	is($node->safe_psql('postgres', "SELECT msg_wait($new, 'sent', '30 s')"), 'sent', "new topic $n");
}
is(log_count($node, 'has lost the broker: [^\n]*(?:[Nn]ot leader|[Ll]eader not)'), 0, 'a topic that is just being made is no lost broker');
$node->stop;
done_testing();
