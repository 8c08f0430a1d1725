# create.pl: how fast messages are created, by msg_create and by INSERT, against an INSERT into a bare table of the same
# columns. The ratio is that of creating alone, with the workers paused; what it is while they send, and so want the
# processors too, is in the figures of "running".
use strict;
use warnings;

use Bench;

use constant ROUNDS => 4;

my $row = q{'{"order": 1, "customer": "c-100234", "amount": 99.50, "currency": "EUR", "state": "paid", "items": [{"sku": "A-1001", "count": 2}]}'};
my %script = (
	bare => "INSERT INTO bare (channel, payload) VALUES ('bench', $row);\n",
	insert => "INSERT INTO messages (channel, payload) VALUES ('bench', $row);\n",
	msg_create => "SELECT msg_create($row, 'bench');\n",
);

# transactions a second of a script
sub pgbench
{
	my ($name, $clients, $seconds) = @_;
	open my $file, '>', "$ENV{PGHOST}/$name.sql" or die "bench: $!\n";
	print $file $script{$name};
	close $file;
	my $output = qx('@{[bindir()]}/pgbench' -n -M prepared -c $clients -j $clients -T $seconds -f '$ENV{PGHOST}/$name.sql' 2>&1);
	my ($tps) = $output =~ /^tps = ([\d.]+)/m or die "bench: pgbench: $output\n";
	return $tps;
}

sub measure
{
	my ($seconds) = @_;
	my $session = start_servers('create');
	$session->sql('CREATE TABLE bare (LIKE messages INCLUDING DEFAULTS INCLUDING IDENTITY); ALTER TABLE bare ADD PRIMARY KEY (id)');
	my %tps;
	for my $state ('paused', 'running')
	{
		$session->sql($state eq 'paused' ? 'SELECT msg_pause()' : 'SELECT msg_resume()');
		for my $clients (1, 8)
		{
			pgbench($_, $clients, 1) for sort keys %script;    # warms up
			for my $round (1 .. ROUNDS)
			{
				for my $name (sort keys %script)
				{
					# what was created before is sent, so that each begins alike
					await_counter($session, 'sent', $session->sql('SELECT count(*) FROM messages')) if $state eq 'running';
					$tps{"${name}_${clients}_$state"} += pgbench($name, $clients, $seconds) / ROUNDS;
				}
			}
			say_progress("$clients clients, workers $state: ", join ', ', map { sprintf '%s %d/s', $_, $tps{"${_}_${clients}_$state"} } sort keys %script);
		}
	}
	my %ratio;
	for my $state ('paused', 'running')
	{
		for my $name ('insert', 'msg_create')
		{
			$ratio{"ratio_${name}_${_}_$state"} = round_to(3, $tps{"${name}_${_}_$state"} / $tps{"bare_${_}_$state"}) for 1, 8;
		}
	}
	my ($worst) = sort { $ratio{$a} <=> $ratio{$b} } grep { /paused$/ } keys %ratio;
	my ($name, $clients) = $worst =~ /ratio_(\w+)_(\d)_paused/;
	return {
		n => $seconds, rounds => ROUNDS, rate => round_to(0, $tps{"${name}_${clients}_paused"}),
		baseline => round_to(0, $tps{"bare_${clients}_paused"}), ratio => $ratio{$worst}, %ratio,
		(map { ("rate_$_" => round_to(0, $tps{$_})) } keys %tps), versions => versions($session),
	};
}

{
	about => 'msg_create and INSERT, by 1 and 8 clients, against INSERT into a bare table; the worst',
	size => 2,
	unit => 'seconds for each',
	bounds => [['ratio', '>=', 0.7]],
	compare => 'ratio',	# the worst of four, of which each has a rate of its own
	measure => \&measure,
};
