# Program.pm: a program that runs beside a test, with its input and output; and psql as such, a session that the test
# talks with, one query at a time.
package Program;

use strict;
use warnings;
use IPC::Run;
use Scalar::Util 'weaken';
use Time::HiRes qw(time);

# How many times as long a test waits before it gives up as a quiet machine needs: one that passes never waits so long.
my $patience = $ENV{MSGSYS_PATIENCE} // 3;
my $processors = () = slurp('/proc/cpuinfo') =~ /^processor\b/mg;

my @running;    # to be ended with the test

sub slurp { my ($path) = @_; open(my $file, '<', $path) or return ''; local $/; return <$file>; }

# How many times as long a server takes that is slow by what is built into it.
my $slow_server = $ENV{MSGSYS_SLOW_SERVER} // 1;

# slowness(): how many times as long as on a quiet machine things take now, by what wants its processors, and by the server;
# 1 at least.
sub slowness
{
	my ($load, $running) = slurp('/proc/loadavg') =~ m{^(\S+) .* (\d+)/} or return $slow_server;
	my $wanted = ($load > $running ? $load : $running) / ($processors || 1);
	return $slow_server * ($wanted > 1 ? $wanted : 1);
}

# is_late(BEGAN, SECONDS): whether what a quiet machine does within so many seconds has had all the time that it may need.
sub is_late
{
	my ($began, $seconds) = @_;
	my $taken = time - $began;
	return $taken > $seconds * $patience && $taken > $seconds * $patience * slowness();
}

# Program->new(COMMAND…): start it.
sub new
{
	my ($class, @command) = @_;
	my $self = bless { command => $command[0], in => '', out => '', err => '' }, $class;
	$self->{run} = IPC::Run::start(\@command, '<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err});
	push @running, $self;
	weaken($running[-1]);
	return $self;
}

# Write to its input.
sub write
{
	my ($self, $text) = @_;
	$self->{in} .= $text;
	$self->{run}->pump_nb while length $self->{in} && $self->{run}->pumpable;
}

# Wait until its output (or that of errors) has this; returns what matched, '' at the end of the time.
sub await
{
	my ($self, $pattern, $seconds, $stream) = @_;
	my $began = time;
	$stream //= 'out';
	while (1)
	{
		return $1 if $self->{$stream} =~ /($pattern)/;
		return '' if is_late($began, $seconds // 10) || !$self->{run}->pumpable;
		$self->{run}->pump_nb;
		select(undef, undef, undef, 0.002);    # between two looks
	}
}

# What it has written so far.
sub output
{
	my ($self) = @_;
	$self->{run}->pump_nb if $self->{run}->pumpable;
	return $self->{out};
}

# End it.
sub stop
{
	my ($self) = @_;
	$self->{run}->kill_kill(grace => 5) if $self->{run};
	$self->{run} = undef;
}

END
{
	local $?;
	$_->stop for grep { defined } @running;
}

package PsqlSession;

our @ISA = ('Program');

# PsqlSession->new(NODE[, DATABASE[, ROLE]])
sub new
{
	my ($class, $node, $database, $role) = @_;
	my $self = Program::new($class, 'psql', '-XAtq', '-d', $node->connstr($database // 'postgres') . ($role ? " user=$role" : ''));
	$self->{n} = 0;
	return $self;
}

# Send SQL (its last semicolon is not needed) and do not wait for the answer.
sub send
{
	my ($self, $sql) = @_;
	$self->{n}++;
	$sql .= $sql =~ /(;|\\\.)\s*$/ ? "\n" : ";\n";
	$self->write("$sql\\echo end $self->{n}\n\\warn end $self->{n}\n");
}

# The answer to what was sent; dies when it takes longer than that. What went wrong is in error().
sub answer
{
	my ($self, $seconds) = @_;
	for my $stream ('out', 'err')
	{
		$self->await("end $self->{n}\n", $seconds, $stream) or die "psql does not answer: $self->{out}$self->{err}";
	}
	my $answer = $self->{out};
	$self->{error} = $self->{err};
	$self->{out} = $self->{err} = '';
	for ($answer, $self->{error}) { s/\n?end $self->{n}\n$//; }
	return $answer;
}

# Send SQL and return the answer.
sub query
{
	my ($self, $sql, $seconds) = @_;
	$self->send($sql);
	return $self->answer($seconds);
}

# What the last query's errors and notices were.
sub error
{
	my ($self) = @_;
	return $self->{error};
}

1;
