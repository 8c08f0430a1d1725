# ordered.pl: what order by key costs: the rate with "ordered" on 1,000 keys against the rate without.
use strict;
use warnings;

use Bench;
use Endpoint;
use Time::HiRes 'time';

use constant { ROUNDS => 3 };

sub measure
{
	my ($n) = @_;
	my ($url) = start_endpoint();
	my $session = start_servers('ordered', settings => ['autovacuum=off', 'msgsys.webhook_allow=127.0.0.1']);
	$session->sql("SET client_min_messages = error; SELECT msg_channel_set('hook'); SELECT msg_webhook_set('hook', '$url')");
	my %use;
	my $post = sub {
		my ($ordered) = @_;
		$session->sql("SELECT msg_pause(); SELECT msg_webhook_set('hook', ordered => $ordered)");
		my $target = counter($session, 'delivered') + $n;
		$session->sql("INSERT INTO messages (channel, message_key, payload) SELECT 'hook', (g % 1000)::text, jsonb_build_object('n', g) FROM generate_series(1, $n) g");
		quiet($session);
		my $watch = watch_workers($session);
		my $begin = time;
		$session->sql('SELECT msg_resume()');
		my $end = await_counter($session, 'delivered', $target, $watch);
		%use = $watch->();
		return $end - $begin;
	};
	my ($without, $with) = (0, 0);
	for my $round (1 .. ROUNDS)
	{
		say_progress("round $round: $n messages without order");
		my $time = $post->('false');
		$without += $time;
		say_progress(sprintf '%d/s; in the order of each key', $n / $time);
		$time = $post->('true');
		$with += $time;
		say_progress(sprintf '%d/s', $n / $time);
	}
	return { n => $n, rounds => ROUNDS, rate => round_to(0, ROUNDS * $n / $with), baseline => round_to(0, ROUNDS * $n / $without),
		ratio => round_to(3, $without / $with), %use, versions => versions($session) };
}

{
	about => 'a webhook in the order of 1,000 keys, against the same without order',
	size => 50_000,
	unit => 'messages',
	bounds => [['ratio', '>=', 0.5]],
	measure => \&measure,
};
