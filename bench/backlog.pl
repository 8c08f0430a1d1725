# backlog.pl: what a large backlog costs: the rate while millions wait against the rate at 10,000, and the worker's memory.
use strict;
use warnings;

use Bench;
use Time::HiRes 'time';

use constant { SMALL => 10_000, WINDOW => 300_000 };

# let the relay send until a counter says so many more; the time that took
sub send_some
{
	my ($session, $n, $watch) = @_;
	my $target = counter($session, 'sent') + $n;
	my $begin = time;
	$session->sql('SELECT msg_resume()');
	my $time = await_counter($session, 'sent', $target, $watch) - $begin;
	my $over = counter($session, 'sent') - $target;
	$session->sql('SELECT msg_pause()');
	return ($n + $over) / $time;
}

# the rate at which WINDOW messages are sent, SMALL waiting at a time
sub small
{
	my ($session, $watch) = @_;
	my $sum = 0;
	my $times = WINDOW / SMALL;
	for (1 .. $times)
	{
		create_messages($session, SMALL);
		$sum += 1 / send_some($session, SMALL, $watch);
	}
	return $times / $sum;
}

sub measure
{
	my ($n) = @_;
	my $session = start_servers('backlog', settings => ['autovacuum=off']);
	my (%small, %large);
	say_progress('warming up');
	create_messages($session, 200_000);
	await_counter($session, 'sent', 200_000);
	$session->sql('SELECT msg_pause()');
	my $watch = watch_workers($session);
	my $rate_small = small($session, $watch);
	%small = $watch->();
	say_progress(sprintf '%d/s at %d; creating %d messages', $rate_small, SMALL, $n);
	create_messages($session, $n, without_trigger => 1);
	quiet($session);
	$watch = watch_workers($session);
	my $rate = send_some($session, WINDOW, $watch);
	%large = $watch->();
	say_progress(sprintf '%d/s at %d', $rate, $n);

	return {
		n => $n, rate => round_to(0, $rate), baseline => round_to(0, $rate_small), ratio => round_to(3, $rate / $rate_small), %large,
		rss_mb_small => $small{rss_mb}, versions => versions($session),
	};
}

{
	about => 'the rate while millions wait, against the rate at 10,000',
	size => 5_000_000,
	unit => 'messages',
	bounds => [['ratio', '>=', 0.9]],
	measure => \&measure,
};
