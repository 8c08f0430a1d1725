# A partition without a leader holds only what goes to it: the other partitions' messages, and other topics', go on, and what waited
# goes when there is a leader again. What waited for its topic goes in order, although the topic refuses once more.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Program;
use Test::More;

my $mock = Program->new(work_dir() . '/mockbroker', 4, 'stream');
chomp(my $bootstrap = $mock->await(qr/\S+:\d+\n/));
my $node = new_node('leaderless', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.send_timeout' => '1 s');
ok(wait_workers($node), 'workers run');
$node->safe_psql('postgres', "SELECT msg_channel_set('stream', topic => 'stream', ack => 'none'), msg_channel_set('other', topic => 'other', ack => 'none')");
my $session = session($node);

sub create
{
	my ($channel, $n) = @_;
	$session->query("INSERT INTO messages (channel, message_key, payload) SELECT '$channel', 'key ' || g % 40, to_jsonb(g) FROM generate_series(1, $n) g");
}

sub sent { return poll_sql($node, 30, "SELECT count(*) FROM messages WHERE channel = '$_[0]' AND status = 'sent'", $_[1]); }

create('stream', 400);
ok(sent('stream', 400), 'all are sent');
my $here = $session->query('SELECT count(*) FROM messages WHERE kafka_partition = 0');
cmp_ok($here, '>', 0, "$here of them to the first partition");

$mock->write("-1\n");
create('stream', 4000);
create('other', 100);
ok(sent('other', 100), 'a partition has no leader: another topic goes on');
ok(sent('stream', 4400 - $here * 10), 'and so do the other partitions');
create('stream', 400);
ok(sent('stream', 4800 - $here * 11), 'later messages, too');
is($session->query("SELECT string_agg(DISTINCT attempts::text, ' ') FROM messages WHERE channel = 'stream' AND status = 'idle'"), '0', 'what goes there waits as it is');
ok(poll_until(20, sub { log_count($node, 'messages for topic "stream" wait') == 1 }), 'which the log says once');
$mock->write("-2\n");
ok(sent('stream', 4800), 'a leader again: all are sent');

# ---- a topic that is denied (29), and once more when it seems to take records again
$mock->write("29\n");
$session->query("INSERT INTO messages (channel, message_key, payload) VALUES ('stream', 'one', '1')");
ok(poll_until(20, sub { log_count($node, 'messages for topic "stream" wait') == 2 }), 'a topic that is denied has its messages wait');
$session->query("INSERT INTO messages (channel, message_key, payload) SELECT 'stream', 'one', to_jsonb(repeat('x', 1000)) FROM generate_series(1, 2000)");
$mock->write("1029\n");
ok(sent('stream', 6801), 'all are sent');
is($session->query(q{SELECT EXISTS (SELECT FROM (SELECT kafka_offset, lag(kafka_offset) OVER (PARTITION BY message_key ORDER BY id) before FROM messages WHERE channel = 'stream') m
	WHERE before > kafka_offset)}), 'f', 'in the order of their keys');
$node->stop;
$mock->stop;
done_testing();
