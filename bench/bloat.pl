# bloat.pl: what an old snapshot costs: the rate of the last fifth of a stream, with one held from the start against
# without; and the same with an open writing transaction, and with the whole life of the messages (three transitions).
use strict;
use warnings;

use Bench;
use Time::HiRes 'time';

use constant { PARTS => 5, ROUNDS => 2 };

# send $n messages in parts, each waiting before it is sent; the time that the last part took
sub stream
{
	my ($session, $n, $after) = @_;
	my $part = int($n / PARTS);
	my $time;
	for (1 .. PARTS)
	{
		my $target = counter($session, 'sent') + $part;
		$session->sql('SELECT msg_pause()');
		create_messages($session, $part);
		my $begin = time;
		$session->sql('SELECT msg_resume()');
		$time = await_counter($session, 'sent', $target) - $begin;
		$after->($session) if $after;
	}
	return $time;
}

# hold what a kind of old transaction holds, while CODE runs; the time that CODE returns
sub holding
{
	my ($session, $kind, $code) = @_;
	$session->sql('TRUNCATE messages');
	my $holder = session();
	$holder->sql('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM messages') if $kind eq 'snapshot';
	$holder->sql('CREATE TABLE IF NOT EXISTS held (x int); BEGIN; INSERT INTO held VALUES (1)') if $kind eq 'writer';
	my $time = $code->();
	$holder->finish;
	return $time;
}

# the consumers take all that is sent, and then deliver it
sub live
{
	my ($session) = @_;
	for my $status ('received', 'delivered')
	{
		my $left = $session->sql("SELECT count(*) FROM (SELECT msg_ack(id, '$status') AS done FROM messages
			WHERE channel = 'bench' AND status IN ('sent', 'received') AND status::text <> '$status') a WHERE NOT done");
		die "bench: $left messages were not $status\n" if $left;
	}
	return;
}

sub measure
{
	my ($n) = @_;
	my $session = start_servers('bloat', settings => ['synchronous_commit=off']);
	my $part = int($n / PARTS);
	my %time = (none => 0, snapshot => 0);
	say_progress('warming up');
	holding($session, 'none', sub { stream($session, $n) });
	my $watch = watch_workers($session);
	for my $round (1 .. ROUNDS)
	{
		for my $kind ('none', 'snapshot')
		{
			my $time = holding($session, $kind, sub { stream($session, $n) });
			$time{$kind} += $time;
			say_progress(sprintf "round %d, holding %s: %d/s at the end", $round, $kind, $part / $time);
		}
	}
	my %use = $watch->();
	my $writer = holding($session, 'writer', sub { stream($session, $n) });
	say_progress(sprintf 'an open writing transaction: %d/s at the end', $part / $writer);
	$session->sql("SELECT msg_channel_set('bench', ack => 'topic')");
	my %whole = map { my $kind = $_; $kind => holding($session, $kind, sub { stream($session, $n / 5, \&live) }) } 'none', 'snapshot';
	return {
		n => $n, rounds => ROUNDS, rate => round_to(0, ROUNDS * $part / $time{snapshot}), baseline => round_to(0, ROUNDS * $part / $time{none}),
		ratio => round_to(3, $time{none} / $time{snapshot}), %use, rate_with_writer => round_to(0, $part / $writer),
		ratio_with_writer => round_to(3, $time{none} / ROUNDS / $writer),
		ratio_whole_life => round_to(3, $whole{none} / $whole{snapshot}), versions => versions($session),
	};
}

{
	about => 'sending under a snapshot held from the start, against without; the last fifth',
	size => 500_000,
	unit => 'messages',
	bounds => [['ratio', '>=', 0.9]],
	measure => \&measure,
};
