# Sink.pm: a webhook endpoint that runs beside a test (test/tools/sink), and what it was sent.
package Sink;

use strict;
use warnings;
use Cwd 'abs_path';
use File::Basename 'dirname';
use JSON::PP;
use Program;

my $number = 0;

# Sink->new(SECRETS…): start one; url is where it is.
sub new
{
	my ($class, @secrets) = @_;
	my $log = "$ENV{MSGSYS_RUN}/sink-$$-" . $number++;
	my $self = bless { log => $log }, $class;
	$self->{program} = Program->new('perl', dirname(abs_path(__FILE__)) . '/../tools/sink', $log, @secrets);
	chomp($self->{url} = $self->{program}->await(qr/\S+\n/));
	return $self;
}

sub url { return $_[0]{url} . $_[1]; }

# requests(FILTER): all requests so far, as hashes; FILTER says which.
sub requests
{
	my ($self, $filter) = @_;
	open(my $file, '<', $self->{log}) or return;
	my @requests = map { decode_json($_) } grep { /\n\z/ } <$file>;
	return grep { !$filter || $filter->($_) } @requests;
}

sub stop { $_[0]{program}->stop; }

1;
