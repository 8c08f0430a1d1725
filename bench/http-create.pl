# http-create.pl: how fast messages are created over HTTP, one a request and 1,000 a request, against msg_create and INSERT in SQL at the same concurrency. The workers are
# paused, so that creating alone is measured.
use strict;
use warnings;

use Bench;
use Http;

use constant { ROUNDS => 3, CONNECTIONS => 16, BULK => 1000, BULK_CONNECTIONS => 2 };

my $payload = '{"order": 1, "customer": "c-100234", "amount": 99.50, "currency": "EUR", "state": "paid", "items": [{"sku": "A-1001", "count": 2}]}';
my $one = qq({"channel": "bench", "payload": $payload});
my $many = '[' . join(', ', ($one) x BULK) . ']';
my %sql = (
	one => "SELECT msg_create('$payload', 'bench');\n",
	many => "INSERT INTO messages (channel, payload) SELECT 'bench', '$payload' FROM generate_series(1, @{[BULK]});\n",
);

sub measure
{
	my ($seconds) = @_;
	my $session = start_servers('http-create', settings => [http_settings(2)]);
	http_ready($session);
	$session->sql('SELECT msg_pause()');
	my %rate;
	for my $round (0 .. ROUNDS)
	{
		my %now;
		($now{one}) = wrk('/messages', CONNECTIONS, $seconds, $one);
		$now{one_sql} = pgbench_tps('one', $sql{one}, CONNECTIONS, $seconds);
		$now{many} = BULK * (wrk('/messages', BULK_CONNECTIONS, $seconds, $many))[0];
		$now{many_sql} = BULK * pgbench_tps('many', $sql{many}, BULK_CONNECTIONS, $seconds);
		$session->sql("TRUNCATE messages; CHECKPOINT");
		say_progress(join ', ', map { sprintf '%s %d/s', $_, $now{$_} } sort keys %now);
		next if $round == 0;
		$rate{$_} += $now{$_} / ROUNDS for keys %now;
	}
	return {
		n => $seconds, rounds => ROUNDS, rate => round_to(0, $rate{one}), baseline => round_to(0, $rate{one_sql}), ratio => round_to(3, $rate{one} / $rate{one_sql}),
		rate_bulk => round_to(0, $rate{many}), baseline_bulk => round_to(0, $rate{many_sql}), ratio_bulk => round_to(3, $rate{many} / $rate{many_sql}),
		versions => versions($session),
	};
}

{
	about => 'messages created over HTTP, one and 1,000 a request, against SQL',
	size => 3,
	unit => 'seconds for each',
	bounds => [],
	measure => \&measure,
};
