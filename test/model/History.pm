# History.pm: a random history from a seed, as data: what clients, operators, endpoints and faults do, in order. Numbers in it
# are taken modulo what is there when it is played, so that a history with some of its steps left out is one, too.
package History;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT_OK = qw(generate operations describe);

# The kinds of channels, as they are at the beginning.
our %kinds = (
	readback => { topic => 1 },
	none     => { topic => 1, ack => 'none' },
	topic    => { topic => 1, ack => 'topic' },
	webhook  => { webhook => 1 },
	ordered  => { webhook => 1, ordered => 1 },
	both     => { topic => 1, webhook => 1 },
	paced    => { topic => 1, pace => 1 },
	drip     => { webhook => 1, pace => 1 },
);

# What may happen, and how often in comparison.
my %weight = (
	create       => 30,
	insert       => 8,
	many         => 4,
	schedule     => 6,
	expire       => 4,
	dedup        => 4,
	publish      => 4,
	begin        => 8,
	commit       => 10,
	rollback     => 3,
	savepoint    => 2,
	rollback_to  => 2,
	prepare      => 2,
	finish_prepared => 2,
	cancel       => 4,
	reschedule   => 3,
	retry        => 3,
	redrive      => 2,
	ack          => 6,
	ack_record   => 6,
	endpoint     => 8,
	pause        => 3,
	resume       => 3,
	pace         => 2,
	change_ack   => 2,
	change_topic => 2,
	take_topic   => 1,
	drop_webhook => 1,
	set_webhook  => 2,
	attempts     => 2,
	drop_channel => 1,
	lock_row     => 3,
	lock_table   => 1,
	clock        => 1,
	reload       => 2,
	wait         => 4,
	end_worker   => 1,
	end_launcher => 1,
);
my %rare = (kill_worker => 1, kafka_hangs => 1);

sub operations { return sort keys %weight, keys %rare; }

# A generator of our own: the same numbers from the same seed with every Perl.
sub _random
{
	my ($state) = @_;
	return sub {
		my ($n) = @_;
		$state = ($state * 1103515245 + 12345) & 0x7fffffff;
		return int(($state >> 8) % $n);
	};
}

# generate(SEED): {seed, channels => [kinds], steps => [[name, numbers…]…]}
sub generate
{
	my ($seed) = @_;
	my $random = _random($seed * 7919 + 1);
	$random->(2) for 1 .. 5;
	my @kinds = sort keys %kinds;
	my @channels = map { $kinds[ $random->(scalar @kinds) ] } 0 .. 1 + $random->(2);
	my @bag = map { ($_) x $weight{$_} } sort keys %weight;
	my @steps;
	for (1 .. 30 + $random->(40))
	{
		my $name = $bag[ $random->(scalar @bag) ];
		push @steps, [ $name, map { $random->(1 << 16) } 1 .. 6 ];
	}
	for my $name (sort keys %rare)
	{
		splice @steps, $random->(scalar @steps), 0, [ $name, map { $random->(1 << 16) } 1 .. 6 ] if $random->(14) == 0;
	}
	return { seed => $seed, channels => \@channels, steps => \@steps };
}

sub describe
{
	my ($history) = @_;
	return "seed $history->{seed}, channels @{$history->{channels}}: " . join(' ', map { $_->[0] } @{ $history->{steps} });
}

1;
