# Checker.pm: compares what was committed with the rows of messages and with the records in Kafka, and says what was
# lost, invented, reordered or repeated. test/tools/checker is this as a command.
#
#   lost       must be in Kafka and is not; or a writer saw its commit, and the row is gone
#   invented   a record of ours that no committed row stands for, or one under another key than the row's
#   reordered  within a key and partition, a record came for the first time after one of a higher id
#   repeated   a record more for an id that had one: allowed, and only counted
package Checker;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT_OK = qw(check summary good);

my @counts = qw(committed in_kafka lost invented reordered repeated);
my @bad    = qw(lost invented reordered unexpected_status);

# What need not be in Kafka: what has not been sent yet on purpose, was given up, or refused.
my $must_be_sent = "status NOT IN ('cancelled', 'expired') AND (status NOT IN ('scheduled', 'retry', 'dead') OR sent_at IS NOT NULL)";

# The lines that psql answers.
sub _query
{
	my ($dsn, $sql) = @_;
	open(my $pipe, '-|', 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $dsn, '-c', $sql) or die "checker: psql: $!\n";
	binmode $pipe;
	chomp(my @lines = <$pipe>);
	close $pipe or die "checker: psql failed\n";
	return @lines;
}

# A column of COPY's text format as it was.
my %escape = (n => "\n", t => "\t", r => "\r", b => "\b", f => "\f", v => "\x0b");
sub _unescape
{
	my ($text) = @_;
	$text =~ s/\\(.)/$escape{$1} \/\/ $1/ges;
	return $text;
}

# _records(BOOTSTRAP, TOPIC, CODE): call CODE(partition, offset, key, headers) for each record, by partition in order.
sub _records
{
	my ($bootstrap, $topic, $code) = @_;
	# lengths and a separator, since keys and headers may have any bytes
	open(my $pipe, '-|', 'kcat', '-C', '-e', '-q', '-b', $bootstrap, '-t', $topic, '-o', 'beginning',
		'-X', 'check.crcs=true', '-f', '%p %o %K\n%k%h\x1e\n') or die "checker: kcat: $!\n";
	binmode $pipe;
	while (my $line = <$pipe>)
	{
		my ($partition, $offset, $length) = split ' ', $line;
		my ($key, $headers) = ('', '');
		read($pipe, $key, $length) if $length > 0;
		{
			local $/ = "\x1e\n";
			chomp($headers = <$pipe> // '');
		}
		$code->($partition, $offset, $key, $headers);
	}
	close $pipe or die "checker: kcat could not read $topic\n";
	return;
}

# check(dsn, bootstrap, topics, …): all counts, in a hash.
#   dsn            of the database, as psql -d takes it
#   bootstrap      of Kafka
#   topics         list of topics; records in any of them count
#   where          which rows must be in Kafka, and no others may; by default all that ought to have been sent
#   committed      list of ids that the writers know to be committed, besides the rows
#   expect_status  the status that all these rows must have
sub check
{
	my (%o) = @_;
	my (%key_of, %must, %seen, %last);
	my %c = map { $_ => 0 } @counts, qw(foreign unexpected_status);
	$c{statuses} = {};
	$c{examples} = {};
	my $count = sub {
		my ($what, $example) = @_;
		push @{ $c{examples}{$what} }, $example if @{ $c{examples}{$what} //= [] } < 5;
		$c{$what}++;
	};

	my ($where, $must) = $o{where} ? ($o{where}, 'true') : ('true', $must_be_sent);
	for (_query($o{dsn}, "COPY (SELECT id, status, ($must)::int, coalesce(message_key, id::text) FROM messages WHERE $where) TO STDOUT"))
	{
		my ($id, $status, $sent, $key) = split /\t/, $_, 4;
		$key_of{$id} = _unescape($key);
		$must{$id} = 1 if $sent;
		$c{statuses}{$status}++;
		$count->('unexpected_status', "$id is $status") if $o{expect_status} && $status ne $o{expect_status};
	}
	$c{committed} = keys %key_of;
	for my $id (@{ $o{committed} // [] })
	{
		next if exists $key_of{$id};
		# the row is gone: its record, if there is one, is still no invention
		$key_of{$id} = undef;
		$c{committed}++;
		$count->('lost', "$id has no row");
	}

	my %ours = map { $_ => 1 } _query($o{dsn}, 'SELECT n.uuid FROM msg_names n WHERE n.epoch IN (SELECT DISTINCT epoch FROM messages UNION SELECT epoch FROM msg_installation)');
	for my $topic (@{ $o{topics} })
	{
		_records($o{bootstrap}, $topic, sub {
			my ($partition, $offset, $key, $headers) = @_;
			my ($of, $id) = $headers =~ /(?:^|,)ce_id=([0-9a-f-]{36}):(\d+)(?:,|$)/;
			if (!defined $of || !$ours{$of}) { $c{foreign}++; return; }
			my $place = "$id at $topic/$partition/$offset";
			if (!exists $key_of{$id}) { $count->('invented', $place); return; }
			if (defined $key_of{$id} && $key_of{$id} ne $key) { $count->('invented', "$place with another key"); return; }
			if ($seen{$id}++) { $count->('repeated', $place); return; }
			my $last = \$last{"$topic\0$partition\0$key"};
			$count->('reordered', "$place after $$last") if defined $$last && $$last > $id;
			$$last = $id if !defined $$last || $$last < $id;
		});
	}
	$c{in_kafka} = keys %seen;
	$count->('lost', "$_ has no record") for grep { !$seen{$_} } sort { $a <=> $b } keys %must;
	return \%c;
}

# Whether nothing went wrong.
sub good
{
	my ($c) = @_;
	return !grep { $c->{$_} > 0 } @bad;
}

# The counts in a line.
sub summary
{
	my ($c) = @_;
	return join(', ', map { my $name = $_; $name =~ tr/_/ /; "$c->{$_} $name" } @counts, grep { $c->{$_} } qw(foreign unexpected_status));
}

1;
