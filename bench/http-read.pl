# http-read.pl: how fast the HTTP facade answers GET of the latest 20 messages on 16 connections, against the statement that it runs, by pgbench prepared on
# 16 connections; and how fast /metrics is while the relay has a backlog.
use strict;
use warnings;

use Bench;
use Http;
use Time::HiRes 'time';

use constant { ROUNDS => 4, CONNECTIONS => 16 };

my $path = '/messages?order=id.desc&limit=20';
my $statement = q{WITH pgrst_source AS (SELECT t.* FROM public.messages AS t ORDER BY (t.id) DESC LIMIT 20) SELECT pg_catalog.count(*), COALESCE(pg_catalog.json_agg(s), '[]')::pg_catalog.text FROM pgrst_source s;
};

# Send what waits, to see how fast this machine is; then leave paused what will take it three times as long as the scrapes. Its number.
sub backlog_for
{
	my ($session, $seconds) = @_;
	my $begin = time;
	$session->sql('SELECT msg_resume()');
	my $backlog = int(100_000 / (await_counter($session, 'sent', 100_000) - $begin) * $seconds * 3);
	$session->sql('SELECT msg_pause()');
	create_messages($session, $backlog, samples => 1, without_trigger => 1);
	quiet($session);
	return $backlog;
}

sub measure
{
	my ($seconds) = @_;
	my $session = start_servers('http-read', settings => [http_settings(2)]);
	http_ready($session);
	$session->sql('SELECT msg_pause()');
	create_messages($session, 100_000, samples => 1, without_trigger => 1);
	quiet($session);
	my ($http, $bare, $p50, $p99) = (0, 0, 0, 0);
	# a round before those that count, so that plans and caches are there
	for my $round (0 .. ROUNDS)
	{
		my ($rate, $half, $most) = wrk($path, CONNECTIONS, $seconds);
		my $tps = pgbench_tps('read', $statement, CONNECTIONS, $seconds);
		say_progress(sprintf '%d requests/s, pgbench %d/s', $rate, $tps);
		next if $round == 0;
		$http += $rate / ROUNDS;
		$bare += $tps / ROUNDS;
		$p50 += $half / ROUNDS;
		$p99 += $most / ROUNDS;
	}
	my ($least) = wrk('/rpc/msg_running', CONNECTIONS, $seconds);
	say_progress(sprintf 'the cheapest call: %d/s', $least);
	my $backlog = backlog_for($session, $seconds);
	my $before = counter($session, 'sent');
	$session->sql('SELECT msg_resume()');
	my ($scrapes, $scrape50, $scrape99) = wrk('/metrics', 1, $seconds);
	my $sending = counter($session, 'sent') - $before;
	say_progress(sprintf '/metrics while the relay sends %d of %d: p99 %.1f ms', $sending, $backlog, $scrape99);
	die "bench: the relay was done before the scrapes were\n" if $sending >= $backlog;
	return {
		n => $seconds, rounds => ROUNDS, rate => round_to(0, $http), baseline => round_to(0, $bare), ratio => round_to(3, $http / $bare),
		p50_ms => round_to(2, $p50), p99_ms => round_to(2, $p99), rate_rpc => round_to(0, $least), metrics_p50_ms => round_to(2, $scrape50),
		metrics_p99_ms => round_to(2, $scrape99), versions => versions($session),
	};
}

{
	about => 'GET of 20 messages over HTTP on 16 connections, against the same statement by pgbench; and /metrics while the relay works',
	size => 3,
	unit => 'seconds for each',
	bounds => [['ratio', '>=', 0.7], ['metrics_p99_ms', '<=', 20]],
	measure => \&measure,
};
