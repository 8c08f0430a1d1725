# receiver.pl: how fast records that wait in Kafka are read back, against the same UPDATE in SQL alone.
use strict;
use warnings;

use Baseline;
use Bench;
use Time::HiRes 'time';

use constant WARM_UP => 100_000;

sub measure
{
	my ($n) = @_;
	my $session = start_servers('receiver', ack => 'readback', settings => ['autovacuum=off']);
	my ($baseline, $inserter) = baseline_session($session, 'readback');
	baseline_procedure($baseline, 'relay', 'false');
	baseline_procedure($baseline, 'receiver');

	say_progress('sending and receiving ', WARM_UP, ' messages to warm up Kafka');
	create_messages($session, WARM_UP);
	await_counter($session, 'received', WARM_UP);

	# while consumers are to acknowledge, the receiver does not read the topic
	say_progress("sending $n messages that nobody receives");
	$session->sql("SELECT msg_channel_set('bench', ack => 'topic')");
	create_messages($session, $n);
	await_counter($session, 'sent', WARM_UP + $n);
	quiet($session);

	say_progress("receiving $n messages");
	my $watch = watch_workers($session);
	my $begin = time;
	my $first;
	$session->sql("SELECT msg_channel_set('bench', ack => 'readback')");
	my $end = await_counter($session, 'received', WARM_UP + $n, sub {
		$watch->();
		$first //= [time, $_[0]] if $_[0] > WARM_UP;
	});
	my %use = $watch->();
	my $rate = $n / ($end - $begin);
	my $steady = $first ? (WARM_UP + $n - $first->[1]) / ($end - $first->[0]) : $rate;

	say_progress(sprintf '%d/s; the same statement in SQL alone', $rate);
	my ($alone, $cpu);
	for my $part (WARM_UP, $n)
	{
		create_messages($inserter, $part);
		$baseline->sql('CALL relay(0, 0)');
		quiet($inserter);
		my ($from, $to) = split /\|/, $inserter->sql("SELECT min(id), max(id) FROM messages WHERE status = 'sent'");
		(my $time, $cpu) = timed($baseline, "CALL receiver($from, $to)");
		$alone = $part / $time;
		die "bench: the baseline left messages\n" if $inserter->sql("SELECT EXISTS (SELECT FROM messages WHERE status <> 'received')") eq 't';
	}
	say_progress(sprintf '%d/s', $alone);
	return {
		n => $n, rate => round_to(0, $rate), baseline => round_to(0, $alone), ratio => round_to(3, $rate / $alone), %use,
		baseline_cpu_s => round_to(2, $cpu), rate_after_first_batch => round_to(0, $steady), versions => versions($session),
	};
}

{
	about => 'records that wait in Kafka, to received, against the same UPDATE in SQL alone',
	size => 300_000,
	unit => 'messages',
	bounds => [['ratio', '>=', 0.75]],
	measure => \&measure,
};
