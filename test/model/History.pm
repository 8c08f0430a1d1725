# History.pm: a random history from a seed, as data: what clients, operators, endpoints and faults do, in order. Numbers in it
# are taken modulo what is there when it is played, so that a history with some of its steps left out is one, too.
package History;

use strict;
use warnings;
use Exporter 'import';
use JSON::PP;

our @EXPORT_OK = qw(generate operations describe read_history write_history);

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
	# its consumer answers each record at once, and never again
	hasty    => { topic => 1, ack => 'topic', hasty => 1 },
	# its topic is made later
	missing  => { topic => 1, missing => 1 },
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
	orm          => 4,
	numbers      => 2,
	wrong        => 4,
	together     => 2,
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

# What takes seconds, or needs a channel of a kind: it comes once in a history, if at all, with such a channel; one history in so many has it.
my %rare = (
	kill_worker => { in => 14 },
	kafka_hangs => { in => 14 },
	far_ids     => { in => 14 },
	make_topic  => { in => 10, needs => 'missing' },
	flood       => { in => 10, needs => 'hasty' },
	crowd       => { in => 11, needs => 'ordered' },
	drain       => { in => 11, needs => 'readback' },
	trim        => { in => 12, needs => 'readback' },
	lost_tail   => { in => 11, needs => 'readback' },
);

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
		next if $random->($rare{$name}{in});
		splice @steps, $random->(scalar @steps), 0, [ $name, map { $random->(1 << 16) } 1 .. 6 ];
		my $needs = $rare{$name}{needs} or next;
		push @channels, $needs unless grep { $_ eq $needs } @channels;
	}
	return { seed => $seed, channels => \@channels, steps => \@steps };
}

sub describe
{
	my ($history) = @_;
	return "seed $history->{seed}, channels @{$history->{channels}}: " . join(' ', map { $_->[0] } @{ $history->{steps} });
}

# A history is kept as it is, for another generator makes another one of its seed.
sub read_history
{
	my ($path) = @_;
	open(my $in, '<', $path) or die "$path: $!";
	local $/;
	return decode_json(<$in>);
}

sub write_history
{
	my ($history) = @_;
	my $json = JSON::PP->new->canonical->allow_nonref;
	return qq({"seed": $history->{seed}, "found": ) . $json->encode($history->{found} // '') . qq(,\n"channels": ) . $json->encode($history->{channels})
	  . qq(,\n"steps": [\n) . join(",\n", map { $json->encode($_) } @{ $history->{steps} }) . "\n]}\n";
}

1;
