# Occurrence.pm: the rule that what the model lists also happens: each operation and fault in at least so many of all histories.
package Occurrence;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT_OK = qw(generated too_rare);

our $least = 0.05;

# generated(GENERATE, N): how many of N histories that it makes have which operation.
sub generated
{
	my ($generate, $n) = @_;
	my %count;
	for my $seed (1 .. $n)
	{
		my %has = map { $_->[0] => 1 } @{ $generate->($seed)->{steps} };
		$count{$_}++ for keys %has;
	}
	return \%count;
}

# too_rare(COUNT, N, OPERATIONS): those that are in fewer, each with its share.
sub too_rare
{
	my ($count, $n, @operations) = @_;
	return map { sprintf '%s (%.1f %%)', $_, 100 * ($count->{$_} // 0) / $n } grep { ($count->{$_} // 0) < $least * $n } @operations;
}

1;
