# mailing.pl: how fast a mailing's clients become messages, against a bare INSERT … SELECT of the same rows into a table with messages'
# columns and indexes but no triggers; and how long the longest transaction took.
use strict;
use warnings;

use Bench;
use Time::HiRes qw(time sleep);

use constant ROUNDS => 2;

# the longest piece of work that the scheduler has logged, in ms, and how many there were
sub pieces
{
	my ($longest, $n) = (0, 0);
	open my $log, '<', server_log() or die "bench: $!\n";
	while (my $line = <$log>)
	{
		next unless $line =~ /msgsys mailing \d+: .* in (\d+) ms$/;
		$longest = $1 if $1 > $longest;
		$n++;
	}
	return ($longest, $n);
}

sub measure
{
	my ($n) = @_;
	my $session = start_servers('mailing', settings => ['autovacuum=off', 'msgsys.log_batch=1']);
	say_progress("making $n clients in 12 zones");
	$session->sql("SET client_min_messages = error; SELECT msg_channel_set('mail'); SELECT msg_pause('mail')");
	$session->sql("INSERT INTO msg_clients (phone, tag, time_zone, attributes) SELECT '+7' || 9000000000 + g, (ARRAY['vip', 'gold', 'silver'])[g % 3 + 1],
		(ARRAY['Pacific/Kiritimati', 'Australia/Sydney', 'Asia/Tokyo', '+05:30', 'Asia/Kathmandu', 'Europe/Moscow', 'Europe/Berlin', 'Europe/London',
			'America/Sao_Paulo', 'America/New_York', 'America/Los_Angeles', '-11:00'])[g % 12 + 1], jsonb_build_object('name', 'N' || g)
		FROM generate_series(1, $n) g");
	$session->sql('VACUUM (ANALYZE) msg_clients');

	# in turns, since the machine is not equally fast at all times
	my %taken = (expand => 0, bare => 0, bare_key => 0);
	my $cpu = 0;
	my $insert = 'INSERT INTO %s (channel, message_key, event_type, payload, status, due_at, expires_at)
		SELECT channel, message_key, event_type, payload, status, due_at, expires_at FROM messages ORDER BY id';
	my $scheduler = $session->sql("SELECT pid FROM msg_workers WHERE stage = 'scheduler'");
	for my $round (1 .. ROUNDS)
	{
		$session->sql("TRUNCATE messages, msg_mailing_links;\nCHECKPOINT");
		my ($begin, $used) = (time, cpu_of($scheduler));
		my $id = $session->sql("SELECT msg_mailing_create('Dear {name}, your offer of the day as {tag} customer', now() + interval '3 days', channel => 'mail',
			window_from => '09:00', window_to => '12:00')");
		sleep 0.01 while $session->sql("SELECT status FROM msg_mailings WHERE id = $id") ne 'expanded';
		my $time = time - $begin;
		$cpu += cpu_of($scheduler) - $used;
		my $made = $session->sql('SELECT count(*) FROM messages');
		die "bench: $made messages and not $n\n" if $made != $n;
		$taken{expand} += $time;
		say_progress(sprintf 'round %d: %d/s', $round, $n / $time);
		$session->sql('CHECKPOINT');
		for my $kind ('bare', 'bare_key')
		{
			$session->sql("DROP TABLE IF EXISTS $kind; CREATE TABLE $kind (LIKE messages INCLUDING DEFAULTS INCLUDING IDENTITY INCLUDING CONSTRAINTS"
				. ($kind eq 'bare' ? ' INCLUDING INDEXES)' : "); ALTER TABLE $kind ADD PRIMARY KEY (id)"));
			($time) = timed($session, sprintf $insert, $kind);
			$taken{$kind} += $time;
			say_progress(sprintf '%s: %d/s', $kind, $n / $time);
			$session->sql("DROP TABLE $kind");
		}
	}
	my ($longest, $pieces) = pieces();
	return {
		n => $n, rounds => ROUNDS, rate => round_to(0, ROUNDS * $n / $taken{expand}), baseline => round_to(0, ROUNDS * $n / $taken{bare}),
		ratio => round_to(3, $taken{bare} / $taken{expand}), ratio_key => round_to(3, $taken{bare_key} / $taken{expand}),
		longest_ms => $longest + 0, pieces => $pieces, cpu_s => round_to(2, $cpu), versions => versions($session),
	};
}

{
	about => 'clients of a mailing, to messages, against a bare INSERT … SELECT of the same rows',
	size => 1_000_000,
	unit => 'clients',
	bounds => [['ratio', '>=', 0.5], ['longest_ms', '<=', 2000]],
	measure => \&measure,
};
