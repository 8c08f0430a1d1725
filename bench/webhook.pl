# webhook.pl: how fast waiting messages are posted to a local nginx, against a bare loop around libcurl with the same requests.
use strict;
use warnings;

use Bench;
use Endpoint;
use Time::HiRes 'time';

use constant { ROUNDS => 3, CONCURRENCY => 64 };

sub measure
{
	my ($n) = @_;
	my ($url, $tls, $ca) = start_endpoint();
	chmod 0644, $ca;
	chmod 0755, $ca =~ s{/[^/]*$}{}r;
	my $session = start_servers('webhook', settings => ['autovacuum=off', 'msgsys.webhook_allow=127.0.0.1']);
	my $bare = compile('barecurl');
	$session->sql("SET client_min_messages = error; SELECT msg_channel_set('hook'); SELECT msg_webhook_set('hook', '$url', concurrency => @{[CONCURRENCY]});
		SELECT msg_channel_rotate_secret('hook')");
	my $length = 0;
	my %use;
	my $post = sub {
		my ($to) = @_;
		$session->sql('SELECT msg_pause()');
		$session->sql("SELECT msg_webhook_set('hook', '$to', ca_file => '$ca')");
		my $target = counter($session, 'delivered') + $n;
		create_messages($session, $n, channel => 'hook');
		quiet($session);
		$length = $session->sql('SELECT round(avg(length(payload::text))) FROM (SELECT payload FROM messages LIMIT 1000) m');
		my $watch = watch_workers($session);
		my $begin = time;
		$session->sql('SELECT msg_resume()');
		my $end = await_counter($session, 'delivered', $target, $watch);
		%use = $watch->();
		return $end - $begin;
	};

	# in turns, since the machine is not equally fast at all times
	my ($taken, $by_tls, $alone) = (0, 0, 0);
	for my $round (1 .. ROUNDS)
	{
		say_progress("round $round: posting $n messages");
		my $time = $post->($url);
		my %plain = %use;
		$taken += $time;
		say_progress(sprintf '%d/s; by TLS', $n / $time);
		$time = $post->($tls);
		$by_tls += $time;
		%use = %plain;
		say_progress(sprintf '%d/s; libcurl alone', $n / $time);
		chomp($time = qx($bare $url $n @{[CONCURRENCY]} $length));
		die "bench: the bare loop failed\n" unless $time;
		$alone += $time;
		say_progress(sprintf '%d/s', $n / $time);
	}
	return {
		n => $n, rounds => ROUNDS, rate => round_to(0, ROUNDS * $n / $taken), baseline => round_to(0, ROUNDS * $n / $alone),
		ratio => round_to(3, $alone / $taken), %use, rate_tls => round_to(0, ROUNDS * $n / $by_tls),
		ratio_tls => round_to(3, $taken / $by_tls), versions => versions($session),
	};
}

{
	about => 'messages that wait, to delivered at a local nginx, against libcurl alone; and by TLS',
	size => 200_000,
	unit => 'messages',
	bounds => [['ratio', '>=', 0.4], ['rate', '>=', 20_000], ['ratio_tls', '>=', 0.6]],
	measure => \&measure,
};
