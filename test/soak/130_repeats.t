# kill -9 of the relay while it drains 150,000 messages, ten times: what came twice. Nine of ten times nothing, and never more than 1,000.
# REPEATS_MESSAGES and REPEATS_ROUNDS say otherwise.
use strict;
use warnings;
use lib 'test/lib';
use Checker;
use MsgsysTest;
use Test::More;

my $n = $ENV{REPEATS_MESSAGES} // 150_000;
my $rounds = $ENV{REPEATS_ROUNDS} // 10;
my ($bootstrap) = kafka_start();
my $node = new_node('repeats', 'msgsys.kafka_brokers' => $bootstrap, 'restart_after_crash' => 'on');
ok(wait_workers($node), 'workers run');
my @repeated;
for my $round (1 .. $rounds)
{
	my $channel = "drained$round";
	kafka_create_topic($bootstrap, $channel, 4);
	my $session = session($node);
	$session->query(qq{SELECT msg_channel_set('$channel', topic => '$channel')});
	$session->query(qq{SELECT msg_pause('$channel')});
	$session->query(qq{INSERT INTO messages (channel, message_key, payload)
		SELECT '$channel', 'key ' || g % 1000, to_jsonb(repeat('x', 100)) FROM generate_series(1, $n) g});
	my $share = $n * $round / ($rounds + 1);
	my $sent = q{(SELECT sum((counters ->> 'sent')::int) FROM msg_worker_slots() WHERE stage = 'relay')};
	$session->query(qq{DO \$\$ DECLARE since int := $sent; BEGIN
		PERFORM msg_resume('$channel'); COMMIT; WHILE $sent - since < $share LOOP PERFORM pg_sleep(0.001); END LOOP; END \$\$});
	ok(kill_worker($node, 'relay'), "$round: the server answers again");
	ok(poll_sql($node, 120, qq{SELECT count(*) FROM messages WHERE channel = '$channel' AND status = 'received'}, $n), "$round: all are received");
	my $c = Checker::check(dsn => $node->connstr('postgres'), bootstrap => $bootstrap, topics => [$channel], where => "channel = '$channel'");
	ok(Checker::good($c), "$round: " . Checker::summary($c));
	cmp_ok($c->{repeated}, '<=', 1000, "$round: $c->{repeated} of $n came twice, killed after $share");
	diag("killed after $share: $c->{repeated} of $n came twice");
	push @repeated, $c->{repeated};
}
cmp_ok((grep { $_ == 0 } @repeated) / @repeated, '>=', 0.9, 'as a rule none');
$node->stop;
done_testing();
