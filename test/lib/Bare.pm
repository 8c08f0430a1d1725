# Bare.pm: a bare producer that runs beside a test (test/tools/bare.c), and what it was told of its records.
package Bare;

use strict;
use warnings;
use Program;

my $count = 0;

# Bare->new(PROGRAM, BOOTSTRAP, RATE, TOPICS, OPTIONS…): start one; the program is where it was compiled.
sub new
{
	my ($class, $program, $bootstrap, $rate, $topics, @options) = @_;
	my $file = "$ENV{MSGSYS_RUN}/bare-$$-" . $count++;
	return bless { file => $file, program => Program->new($program, $bootstrap, $rate, join(',', @$topics), $file, @options) }, $class;
}

# Its reports so far: {topic, number, produced, reported, partition, offset, error}, of which error is 0 where it was confirmed.
sub reports
{
	my ($self) = @_;
	my @reports;
	open(my $in, '<', $self->{file}) or return;
	while (my $line = <$in>)
	{
		my %r;
		last unless $line =~ /\n/;    # it is being written
		@r{qw(topic number produced reported partition offset error)} = split ' ', $line;
		push @reports, \%r;
	}
	return @reports;
}

# Let it wait for what is under way, and end.
sub stop
{
	my ($self) = @_;
	my $run = $self->{program}{run} or return;
	$run->signal('TERM');
	$run->finish;
	$self->{program}{run} = undef;
	return;
}

1;
