# relay.pl: how fast waiting messages are sent, against the same statements in SQL alone.
use strict;
use warnings;

use Baseline;
use Bench;
use Time::HiRes 'time';

use constant { WARM_UP => 200_000, ROUNDS => 3 };

sub measure
{
	my ($n) = @_;
	my $session = start_servers('relay', settings => ['autovacuum=off']);
	my ($baseline, $inserter) = baseline_session($session, 'none');
	baseline_procedure($baseline, $_) for qw(relay relay_by_id);
	my $watch = watch_workers($session);

	# send what waits; returns how long that took
	my $send = sub {
		my ($waiting) = @_;
		my $target = counter($session, 'sent') + $waiting;
		$session->sql('SELECT msg_pause()');
		create_messages($session, $waiting);
		quiet($session);
		$watch = watch_workers($session);
		my $begin = time;
		$session->sql('SELECT msg_resume()');
		return await_counter($session, 'sent', $target, $watch) - $begin;
	};
	my $mark = sub {
		my ($procedure, $waiting) = @_;
		create_messages($inserter, $waiting);
		quiet($inserter);
		my ($time, $cpu) = timed($baseline, "CALL $procedure(0, 0)");
		die "bench: the baseline left messages\n" if $inserter->sql("SELECT EXISTS (SELECT FROM messages WHERE status = 'idle')") eq 't';
		return ($time, $cpu);
	};

	say_progress('sending ', WARM_UP, ' messages to warm up Kafka');
	$send->(WARM_UP);
	$mark->('relay', WARM_UP);
	# in turns, since the machine is not equally fast at all times
	my ($taken, $alone, $cpu, %use) = (0, 0, 0);
	for my $round (1 .. ROUNDS)
	{
		say_progress("round $round: sending $n messages");
		my $time = $send->($n);
		$taken += $time;
		%use = $watch->();
		say_progress(sprintf '%d/s; the same statements in SQL alone', $n / $time);
		($time, my $used) = $mark->('relay', $n);
		$alone += $time;
		$cpu += $used;
		say_progress(sprintf '%d/s', $n / $time);
	}
	my ($by_id) = $mark->('relay_by_id', $n);
	return {
		n => $n, rounds => ROUNDS, rate => round_to(0, ROUNDS * $n / $taken), baseline => round_to(0, ROUNDS * $n / $alone),
		ratio => round_to(3, $alone / $taken), %use, baseline_cpu_s => round_to(2, $cpu / ROUNDS),
		baseline_by_id => round_to(0, $n / $by_id), versions => versions($session),
	};
}

{
	about => 'messages that wait, idle to sent, against the same two statements in SQL alone',
	size => 500_000,
	unit => 'messages',
	bounds => [['ratio', '>=', 0.65]],
	measure => \&measure,
};
