# retention.pl: what purging costs those who create, and what it leaves of the table's size.
#
# Rates: INSERTs of finished messages by 4 clients, in turns without a rule of retention and with one that keeps nothing,
# so that the scheduler deletes as fast as they create. Size: messages are created at a constant rate and kept for ten
# seconds, for ten times as long; autovacuum looks every second, for what takes seconds here takes days in production.
use strict;
use warnings;

use Bench;
use Time::HiRes qw(time sleep);

use constant { ROUNDS => 4, CLIENTS => 4, TURNS => 10, KEEP => 10, SECONDS => 8, CHUNK => 1000 };

my $insert = "INSERT INTO messages (channel, status, finished_at, payload)\n";
my $payload = q{'{"order": 1, "customer": "c-100234", "amount": 99.50, "currency": "EUR", "state": "paid", "items": [{"sku": "A-1001", "count": 2}]}'};

sub pgbench
{
	my ($seconds) = @_;
	open my $file, '>', "$ENV{PGHOST}/insert.sql" or die "bench: $!\n";
	print $file $insert =~ s/\n/ /r, "VALUES ('bench', 'delivered', clock_timestamp(), $payload);\n";
	close $file;
	my $output = qx('@{[bindir()]}/pgbench' -n -M prepared -c @{[CLIENTS]} -j 2 -T $seconds -f '$ENV{PGHOST}/insert.sql' 2>&1);
	my ($tps) = $output =~ /^tps = ([\d.]+)/m or die "bench: pgbench: $output\n";
	return $tps;
}

sub rule { my ($session, $on) = @_; $session->sql($on ? q{SELECT msg_retention_set(NULL, 'delivered', '0')} : q{SELECT msg_retention_drop(NULL, 'delivered')}); return }

sub await_empty
{
	my ($session) = @_;
	sleep 0.05 until $session->sql('SELECT NOT EXISTS (SELECT FROM messages)') eq 't';
	return;
}

sub measure
{
	my ($n) = @_;
	my $session = start_servers('retention', settings => ['autovacuum_naptime=1']);
	my %tps;
	pgbench(2);
	for my $round (1 .. ROUNDS)
	{
		for my $purging (0, 1)
		{
			rule($session, $purging);
			$tps{$purging} += pgbench(SECONDS) / ROUNDS;
		}
		my $left = $session->sql('SELECT count(*) FROM messages');
		await_empty($session);
		say_progress(sprintf 'round %d: without %d/s, with %d/s, %d left to purge at the end', $round, $tps{0} * ROUNDS / $round, $tps{1} * ROUNDS / $round, $left);
	}
	$session->sql('VACUUM (FULL) messages');
	$session->sql("SELECT msg_retention_set(NULL, 'delivered', '@{[KEEP]} s')");
	my $start = time;
	my (@sizes, $created);
	for my $chunk (1 .. TURNS * $n / CHUNK)
	{
		my $late = $start + $chunk * CHUNK * KEEP / $n - time;
		sleep $late if $late > 0;
		$session->sql("$insert SELECT 'bench', 'delivered', clock_timestamp(), $payload FROM generate_series(1, @{[CHUNK]})");
		$created += CHUNK;
		next if $created % $n;
		push @sizes, $session->sql(q{SELECT pg_total_relation_size('messages')});
		say_progress(sprintf 'turnover %d, after %.1f s: %.1f MB', scalar @sizes, time - $start, $sizes[-1] / 1e6);
	}
	my $rows = $session->sql('SELECT count(*) FROM messages');
	my $began = time;
	rule($session, 1);
	await_empty($session);
	my $purged = $rows / (time - $began);
	return {
		n => $n, rate => round_to(0, $tps{1}), baseline => round_to(0, $tps{0}), ratio => round_to(3, $tps{1} / $tps{0}),
		purged_per_second => round_to(0, $purged), live => $rows + 0, growth => round_to(2, $sizes[-1] / $sizes[0]),
		megabytes => round_to(1, $sizes[-1] / 1e6), versions => versions($session),
	};
}

{
	about => 'creating while retention purges against without, and the table after 10 turnovers against after 1',
	size => 200_000,
	unit => 'messages a turnover',
	bounds => [['ratio', '>=', 0.9], ['growth', '<=', 1.5]],
	measure => \&measure,
};
