# receiver.pl: how fast records that wait in Kafka are read back, against the same UPDATE in SQL alone.
use strict;
use warnings;

use Baseline;
use Bench;
use Time::HiRes 'time';

use constant { WARM_UP => 100_000, ROUNDS => 3 };

sub measure
{
	my ($n) = @_;
	my $session = start_servers('receiver', ack => 'readback', settings => ['autovacuum=off']);
	my ($baseline, $inserter) = baseline_session($session, 'readback');
	baseline_procedure($baseline, 'relay');
	baseline_procedure($baseline, 'receiver');

	say_progress('sending and receiving ', WARM_UP, ' messages to warm up Kafka');
	create_messages($session, WARM_UP);
	await_counter($session, 'received', WARM_UP);

	my ($taken, $after_first, $alone, $cpu, %use) = (0, 0, 0, 0);
	my $total = WARM_UP;
	my $mark = sub {
		my ($part) = @_;
		$inserter->sql('BEGIN');
		create_messages($inserter, $part);
		$inserter->sql('COMMIT');
		$baseline->sql('CALL relay(0, 0)');
		quiet($inserter);
		my ($from, $to) = split /\|/, $inserter->sql("SELECT min(id), max(id) FROM messages WHERE status = 'sent'");
		my ($time, $used) = timed($baseline, "CALL receiver($from, $to)");
		die "bench: the baseline left messages\n" if $inserter->sql("SELECT EXISTS (SELECT FROM messages WHERE status <> 'received')") eq 't';
		return ($time, $used);
	};
	$mark->(WARM_UP);

	# in turns, since the machine is not equally fast at all times
	for my $round (1 .. ROUNDS)
	{
		# while consumers are to acknowledge, the receiver does not read the topic
		say_progress("round $round: sending $n messages that nobody receives");
		$session->sql("SELECT msg_channel_set('bench', ack => 'topic')");
		create_messages($session, $n);
		await_counter($session, 'sent', $total + $n);
		quiet($session);

		say_progress("receiving $n messages");
		my $watch = watch_workers($session);
		my $begin = time;
		my $first;
		$session->sql("SELECT msg_channel_set('bench', ack => 'readback')");
		my $end = await_counter($session, 'received', $total + $n, sub {
			$watch->();
			$first //= [time, $_[0]] if $_[0] > $total;
		});
		%use = $watch->();
		$taken += $end - $begin;
		$after_first += $first ? ($total + $n - $first->[1]) / ($end - $first->[0]) / ROUNDS : 0;
		$total += $n;
		say_progress(sprintf '%d/s; the same statement in SQL alone', $n / ($end - $begin));
		my ($time, $used) = $mark->($n);
		$alone += $time;
		$cpu += $used;
		say_progress(sprintf '%d/s', $n / $time);
	}
	return {
		n => $n, rounds => ROUNDS, rate => round_to(0, ROUNDS * $n / $taken), baseline => round_to(0, ROUNDS * $n / $alone),
		ratio => round_to(3, $alone / $taken), %use, baseline_cpu_s => round_to(2, $cpu / ROUNDS),
		rate_after_first_batch => round_to(0, $after_first), versions => versions($session),
	};
}

{
	about => 'records that wait in Kafka, to received, against the same UPDATE in SQL alone',
	size => 500_000,
	unit => 'messages',
	bounds => [['ratio', '>=', 0.75]],
	measure => \&measure,
};
