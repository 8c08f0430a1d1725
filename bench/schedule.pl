# schedule.pl: what messages cost that are to be sent later, and how late they are.
#
# So many are scheduled over an hour. While none is due, the workers' processor time is taken for a minute, and counted for
# an hour. Then the clock is set forward (msgsys.clock_offset) to the beginning of that hour, and those that come due
# within half a minute, some hundred a second, are timed; and last, 10,000 that are due at the same moment.
use strict;
use warnings;

use Bench;
use Time::HiRes qw(time sleep);

use constant { IDLE => 60, FLOW => 30, BURST => 10_000 };

my $row = q{'{"order": 1, "customer": "c-100234", "amount": 99.50, "currency": "EUR", "state": "paid", "items": [{"sku": "A-1001", "count": 2}]}'};

# lateness of messages of an event type, in ms
sub lateness
{
	my ($session, $type) = @_;
	my ($n, @figures) = split /\|/, $session->sql("SELECT count(*), percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM sent_at - due_at) * 1000)
		FROM messages WHERE event_type = '$type' AND sent_at IS NOT NULL") =~ s/[{}]//gr;
	return ($n, map { round_to(1, $_) } split /,/, $figures[0]);
}

sub measure
{
	my ($n) = @_;
	my $session = start_servers('schedule');
	say_progress("scheduling $n messages over an hour");
	$session->sql("INSERT INTO messages (channel, event_type, payload, due_at) SELECT 'bench', 'flow', $row, now() + interval '2 h' + g * (interval '1 h' / $n) FROM generate_series(1, $n) g");
	quiet($session);
	my $watch = watch_workers($session);
	sleep IDLE;
	my %idle = $watch->();
	say_progress("idle for @{[IDLE]} s: $idle{cpu_s} s of processor time");

	# the clock jumps to just before the first one
	my $due = $session->sql(q{SELECT extract(epoch FROM min(due_at)) FROM messages});
	my $offset = int($due - time) - 2;
	$session->sql("ALTER SYSTEM SET msgsys.clock_offset = $offset");
	$session->sql('SELECT pg_reload_conf()');
	sleep 0.1 while time + $offset < $due + FLOW;
	my ($flow, $p50, $p99, $max) = lateness($session, 'flow');
	say_progress("$flow came due within @{[FLOW]} s: p50 $p50 ms, p99 $p99 ms late, at most $max ms");

	$session->sql("INSERT INTO messages (channel, event_type, payload, due_at) SELECT 'bench', 'burst', $row, msg_now() + interval '4 s' FROM generate_series(1, @{[BURST]}) g");
	sleep 0.1 until $session->sql(q{SELECT count(*) FROM messages WHERE event_type = 'burst' AND sent_at IS NULL}) eq '0';
	my ($burst, $burst_p50, $burst_p99, $burst_max) = lateness($session, 'burst');
	say_progress("$burst at once: p50 $burst_p50 ms, p99 $burst_p99 ms late, at most $burst_max ms");
	return {
		n => $n, rate => round_to(0, $flow / FLOW), idle_cpu_s_per_hour => round_to(1, $idle{cpu_s} * 3600 / IDLE), rss_mb => $idle{rss_mb},
		flow_p50_ms => $p50, flow_p99_ms => $p99, flow_max_ms => $max,
		burst => BURST, burst_p50_ms => $burst_p50, burst_p99_ms => $burst_p99, burst_max_ms => $burst_max, versions => versions($session),
	};
}

{
	about => 'a million messages scheduled: an idle hour, how late they come, and 10,000 at the same moment',
	size => 1_000_000,
	unit => 'messages scheduled',
	bounds => [['burst_max_ms', '<=', 1000]],
	measure => \&measure,
};
