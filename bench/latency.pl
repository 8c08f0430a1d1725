# latency.pl: how long after its commit a message is seen by a Kafka consumer, at two rates.
use strict;
use warnings;

use Bench;

# p50, p99 and maximum in ms, and the real rate
sub latency
{
	my ($rate, $seconds) = @_;
	say_progress("$rate messages/s for $seconds s");
	my @figures = latency_figures($rate, $seconds);
	say_progress("p50 $figures[0] ms, p99 $figures[1] ms, longest $figures[2] ms");
	return @figures;
}

sub measure
{
	my ($seconds) = @_;
	my $session = start_servers('latency');
	compile('latency');
	create_messages($session, 10_000, samples => 1);
	await_counter($session, 'sent', 10_000);
	latency(2000, 5);    # warms up
	my $watch = watch_workers($session);
	my ($p50, $p99, $longest, $n, $rate) = latency(200, $seconds);
	my %use = $watch->();
	my ($p50_fast, $p99_fast, $longest_fast, undef, $rate_fast) = latency(2000, $seconds / 2);
	return {
		n => $n, rate => $rate, p50_ms => $p50, p99_ms => $p99, longest_ms => $longest, %use,
		rate_fast => $rate_fast, p50_ms_fast => $p50_fast, p99_ms_fast => $p99_fast, longest_ms_fast => $longest_fast,
		versions => versions($session),
	};
}

{
	about => 'from COMMIT to a Kafka consumer, at 200 and at 2,000 messages/s',
	size => 60,
	unit => 'seconds',
	bounds => [['p50_ms', '<=', 3], ['p99_ms', '<=', 15]],
	measure => \&measure,
};
