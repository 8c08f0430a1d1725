# A producer that reports a fatal error is closed and made anew, by the same worker, and nothing is lost.
# A real broker hardly loses a sequence, so librdkafka's mock cluster is told to say so. Like a real one, it then refuses all that
# follows of this producer, until another one asks for an identity.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Program;
use Test::More;

use constant OUT_OF_ORDER_SEQUENCE_NUMBER => 45;    # https://kafka.apache.org/protocol#protocol_error_codes

my $broker = Program->new("$ENV{MSGSYS_WORK}/mockbroker", 2, 'events');
chomp(my $bootstrap = $broker->await(qr/\S+:\d+\n/));
my $node = new_node('fatal', 'msgsys.kafka_brokers' => $bootstrap);
ok(wait_workers($node), 'workers run');
my $session = session($node);
$session->query("SELECT msg_channel_set('events', topic => 'events')");
my $received = q{SELECT count(*) FROM messages WHERE status = 'received'};
sub create { $session->query("INSERT INTO messages (channel, message_key, payload) SELECT 'events', (g % 10)::text, to_jsonb(g) FROM generate_series(1, $_[0]) g"); }

create(100);
ok(poll_sql($node, 20, $received, 100), 'the producer has a sequence');
my $pid = worker_pid($node, 'relay');
for my $round (1 .. 3)
{
	my $log = log_count($node);
	$broker->write(OUT_OF_ORDER_SEQUENCE_NUMBER . "\n");
	create(1000);
	ok(poll_until(20, sub { log_count($node, qr/LOG:  msgsys relay makes a new producer/, $log) > 0 }), "round $round: a producer that is refused fatally is given up");
	$broker->write("0\n");
	ok(poll_sql($node, 20, $received, 100 + $round * 1000), "round $round: what was refused fatally is sent by another producer");
	is(log_count($node, qr/LOG:  msgsys relay makes a new producer/, $log), 1, 'which was made once, and the log says so');
}
is(worker_pid($node, 'relay'), $pid, 'by the same worker');
is(stats($node)->{'relay.refused'}, 0, 'no message was refused');
check_topic($node, $bootstrap, 'events', 'true', 'nothing lost or invented');
$node->stop;
$broker->stop;
done_testing();
