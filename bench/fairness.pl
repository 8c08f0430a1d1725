# fairness.pl: what endpoints that hang cost the others: the latency of 90 healthy channels while 10 hang, against without those.
use strict;
use warnings;

use Bench;
use Endpoint;
use IO::Socket::INET;
use Time::HiRes qw(time sleep);

use constant { HEALTHY => 90, HANGING => 10, RATE => 200 };

# Send for some seconds to the healthy channels, and as much to each of the others where they are to hang.
sub trial
{
	my ($session, $seconds, $hanging) = @_;
	my $from = $session->sql('SELECT coalesce(max(id), 0) FROM messages');
	my $begin = time;
	for my $i (0 .. RATE * $seconds - 1)
	{
		my $wait = $begin + $i / RATE - time;
		sleep $wait if $wait > 0;
		my $n = $i % (HEALTHY + HANGING);
		next if $n >= HEALTHY && !$hanging;
		$session->sql('INSERT INTO messages (channel, payload) VALUES (' . ($n < HEALTHY ? "'healthy-$n'" : "'hanging-" . ($n - HEALTHY) . "'") . ", '{\"n\": $i}')");
	}
	sleep 0.5;    # the last ones end
	return split /\|/, $session->sql("SELECT count(*) FILTER (WHERE status <> 'delivered'), percentile_cont(0.5) WITHIN GROUP (ORDER BY t), percentile_cont(0.99) WITHIN GROUP (ORDER BY t)
		FROM (SELECT status, extract(epoch FROM delivered_at - created_at) * 1000 AS t FROM messages WHERE id > $from AND channel LIKE 'healthy%') m");
}

sub measure
{
	my ($seconds) = @_;
	my ($url) = start_endpoint();
	# each hangs in one way: no connection is accepted, no answer comes, a header comes and no more
	my $full = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "bench: $!\n";
	my @fill = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $full->sockport, Blocking => 0, Timeout => 0.2) } 1 .. 4;
	my $sink = open(my $out, '-|', "exec perl '@{[root()]}/test/tools/sink' /dev/null </dev/zero") or die "bench: $!\n";
	chomp(my $base = <$out>);
	my @ways = ("http://127.0.0.1:" . $full->sockport . '/', "$base/hang", "$base/hang-body", "$base/drip");
	my $session = start_servers('fairness', settings => ['msgsys.webhook_allow=127.0.0.1']);
	$session->sql("SET client_min_messages = error; SELECT msg_channel_set('healthy-' || g), msg_webhook_set('healthy-' || g, '$url') FROM generate_series(0, @{[HEALTHY - 1]}) g");
	$session->sql("SELECT msg_channel_set('hanging-$_'); SELECT msg_webhook_set('hanging-$_', '$ways[$_ % @ways]', timeout => '5 s', retry_schedule => '{1 s}')") for 0 .. HANGING - 1;
	trial($session, 3, 0);
	say_progress("without hanging endpoints, for $seconds s");
	my ($lost, $p50_without, $p99_without) = trial($session, $seconds, 0);
	say_progress(sprintf 'p50 %.2f ms, p99 %.2f ms; with', $p50_without, $p99_without);
	my $watch = watch_workers($session);
	my ($lost_with, $p50, $p99) = trial($session, $seconds, 1);
	say_progress(sprintf 'p50 %.2f ms, p99 %.2f ms', $p50, $p99);
	die "bench: messages of healthy channels were not delivered\n" if $lost || $lost_with;
	kill 'TERM', $sink;
	return { n => RATE * $seconds, rate => RATE, baseline => round_to(2, $p99_without), ratio => round_to(2, $p99 / $p99_without), p50_ms => round_to(2, $p50),
		p99_ms => round_to(2, $p99), p50_ms_without => round_to(2, $p50_without), $watch->(), versions => versions($session) };
}

{
	about => 'latency of 90 healthy channels while 10 hang, against without those',
	size => 20,
	unit => 'seconds',
	bounds => [['ratio', '<=', 2]],
	measure => \&measure,
};
