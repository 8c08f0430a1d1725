# MsgsysTest.pm: what the TAP tests share: a PostgreSQL with msgsys, a Kafka, waiting for conditions, reading topics,
# and the checker, which says whether anything was lost, invented or reordered.
package MsgsysTest;

use strict;
use warnings;
use Exporter 'import';
use Cwd 'abs_path';
use File::Basename 'dirname';
use Time::HiRes qw(time sleep);
use Program;
use Checker ();
use Test::More;

# PostgreSQL 14 had these modules by other names
BEGIN
{
	if (eval { require PostgreSQL::Test::Cluster })
	{
		PostgreSQL::Test::Cluster->import;
		require PostgreSQL::Test::Utils;
		PostgreSQL::Test::Utils->import;
		*tempdir = \&PostgreSQL::Test::Utils::tempdir;
	}
	else
	{
		require PostgresNode;
		require TestLib;
		TestLib->import;
		@PostgreSQL::Test::Cluster::ISA = ('PostgresNode');
		*PostgreSQL::Test::Cluster::new = sub { PostgresNode->get_new_node($_[1]) };
		*tempdir = \&TestLib::tempdir;
	}
}

our @EXPORT = qw(new_node kafka_start kafka kafka_create_topic kafka_topic poll_until poll_sql slowness answers kill_worker kcat_produce
  read_topic record_stamp check_topic wait_workers worker_pid stats work_dir session topic_reader
  expect_findings kafka_start_later kafka_cluster_later in_sync log_count command_ok append_to_file tempdir slurp_file);

my $tools = dirname(abs_path(__FILE__)) . '/../tools';
my $work  = $ENV{MSGSYS_WORK};
my %started;    # Kafka directories that this test started
my @nodes;      # servers that new_node() made
my %expected;   # findings of msg_check() that this test names, and why

sub work_dir { return $work; }

# by which a limit of time is multiplied
sub slowness { return Program::slowness(); }

# The settings of a server that finds the staged msgsys.
sub _settings
{
	open(my $file, '<', $ENV{MSGSYS_SETTINGS}) or die "no settings: $!";
	local $/;
	return <$file>;
}

# new_node(NAME, setting => value …): an initialised, started server with msgsys for the database postgres.
# The options init => 0, start => 0, extension => 0 leave out that step.
sub new_node
{
	my ($name, %settings) = @_;
	my %do = map { $_ => delete $settings{$_} // 1 } qw(start extension);
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf', _settings());
	$node->append_conf('postgresql.conf', "max_prepared_transactions = 10\nmax_worker_processes = 20\nfsync = on\n");
	$node->append_conf('postgresql.conf', "$_ = '$settings{$_}'\n") for sort keys %settings;
	push @nodes, $node;
	$node->start                                            if $do{start};
	$node->safe_psql('postgres', 'CREATE EXTENSION msgsys') if $do{start} && $do{extension};
	return $node;
}

# Every server of new_node() is asked at its last stop, or at the end, whether all is well (msg_check). A finding that is no mere
# information, and that the test has not named, fails it; so does a server that cannot be asked ("check-failed"). One that is stopped at
# once is not asked.

# expect_findings(NAME => WHY, ...): findings that this test makes on purpose, or that its end comes too early to be without.
# NAME may go on with ": " and what must be in the finding's text: its node, database, count, examples or detail.
sub expect_findings
{
	my (%findings) = @_;
	%expected = (%expected, %findings);
	return;
}

# Whether the test has named a finding.
sub _is_expected
{
	my ($finding) = @_;
	for my $key (keys %expected)
	{
		my ($name, $text) = split /: /, $key, 2;
		return 1 if $finding =~ /^\Q$name\E: / && (!defined $text || index($finding, $text) >= 0);
	}
	return 0;
}

# What msg_check() finds in all databases of a node that have msgsys, and the test has not named: a line each.
sub _findings
{
	my ($node) = @_;
	my ($name, @found) = ($node->name);
	my $ask = sub {
		my ($database, $query) = @_;
		my ($code, $out, $err, $late);
		eval { ($code, $out, $err) = $node->psql($database, $query, on_error_stop => 1, timeout => 60, timed_out => \$late); 1 }
		  or ($code, $err) = (1, $@);
		return split /\n/, $out if !$late && defined $code && $code == 0;
		push @found, "check-failed: $name $database: " . ($late ? 'no answer within 60 s' : $err // '');
		return;
	};
	for my $database ($ask->('postgres', "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"))
	{
		my ($schema) = $ask->($database, "SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'msgsys'");
		next unless $schema;
		push @found, $ask->($database, qq{SET search_path = pg_catalog, pg_temp; SELECT "check" || ': $name $database: ' || count || ' ' || coalesce(examples::text, '') || ' ' || replace(detail, E'\n', ' ')
			FROM $schema.msg_check() WHERE severity <> 'info'});
	}
	return grep { !_is_expected($_) } @found;
}

# The same once what is under way has ended.
sub _settled_findings
{
	my ($node, $seconds) = @_;
	my @found;
	poll_until($seconds, sub { @found = _findings($node); !@found });
	return @found;
}

sub _running { my ($node) = @_; return defined $node->{_pid}; }

# Wrap the stops of servers, and the end of the test.
{
	no strict 'refs';
	no warnings 'redefine';
	my $class = PostgreSQL::Test::Cluster->can('stop') ? 'PostgreSQL::Test::Cluster' : 'PostgresNode';
	$class = 'PostgresNode' if $INC{'PostgresNode.pm'};
	my $stop = \&{"${class}::stop"};
	*{"${class}::stop"} = sub {
		my ($node, $mode, @rest) = @_;
		$node->{msgsys_findings} =
		  [ ($mode // 'fast') eq 'immediate' || !_running($node) || !grep({ $_ == $node } @nodes) ? () : _settled_findings($node, 1) ];
		return $stop->(@_);
	};
	my $done = \&Test::Builder::done_testing;
	*Test::Builder::done_testing = sub {
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		my $builder = Test::More->builder;
		for my $node (@nodes)
		{
			my @found = _running($node) ? _settled_findings($node, 10) : @{ $node->{msgsys_findings} // [] };
			$builder->ok(!@found, $node->name . ': msg_check() finds nothing that the test does not name') or $builder->diag(join "\n", @found);
		}
		goto &$done;
	};
}

# Where one failure says all (test/tools/mutants), a test ends with its first.
if ($ENV{MSGSYS_FIRST_FAILURE})
{
	no warnings 'redefine';
	my $ok = \&Test::Builder::ok;
	*Test::Builder::ok = sub {
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		my $good = $ok->(@_);
		die "the first failure\n" unless $good || $_[0]->in_todo;
		return $good;
	};
}

# session(NODE[, DATABASE[, ROLE]]): a psql that the test talks with; see Program.pm.
sub session { return PsqlSession->new(@_); }

# kafka(COMMAND, DIR): stop, kill, pause or cont.
sub kafka
{
	my ($command, $dir, @rest) = @_;
	my $out = `'$tools/kafka' $command '$dir' @rest`;
	die "kafka $command failed" if $?;
	chomp $out;
	return $out;
}

# kafka_start(DIR): start a broker (again); returns host:port. Ended with the test.
sub kafka_start
{
	my ($dir, @settings) = @_;
	$dir //= "$ENV{MSGSYS_RUN}/kafka-" . $$;
	$started{$dir} = 1;
	my $bootstrap = kafka('start', $dir, @settings);
	return wantarray ? ($bootstrap, $dir) : $bootstrap;
}

# kafka_start_later(DIR, settings…): begin to start a broker; returns what waits for it and returns host:port.
sub kafka_start_later
{
	my ($dir, @settings) = @_;
	$started{$dir} = 1;
	my $start = Program->new("$tools/kafka", 'start', $dir, @settings);
	return sub { return $start->await(qr/[\d.]+:\d+/, 60) || die "no Kafka in $dir: $start->{err}"; };
}

# kafka_cluster_later(settings…): begin to start a cluster of three brokers; returns what waits for it, and returns its address and
# the directories of the brokers, which are good for kafka(), kafka_start() and kafka_start_later().
sub kafka_cluster_later
{
	my (@settings) = @_;
	my $base = "$ENV{MSGSYS_RUN}/kafka-$$-of";
	my @dirs = map { "$base-$_" } 1 .. 3;
	$started{$_} = 1 for @dirs;
	my $start = Program->new("$tools/kafka", 'cluster', $base, @settings);
	return sub {
		my $bootstrap = $start->await(qr/[\d.:,]+(?=\n)/, 150) || die "no cluster in $base: $start->{err}";
		return ($bootstrap, @dirs);
	};
}

# in_sync(BOOTSTRAP, TOPIC): whether each partition of a topic has all its replicas in sync.
sub in_sync
{
	my ($bootstrap, $topic) = @_;
	my @partitions = grep { /^ +partition / } qx(kcat -b $bootstrap -L -m 5 -t '$topic' 2>/dev/null);
	return @partitions && !grep { !/replicas: ([\d,]+), isrs: ([\d,]+)/ || join(',', sort split /,/, $1) ne join(',', sort split /,/, $2) } @partitions;
}

END
{
	local $?;
	system("'$tools/kafka' kill '$_'; rm -rf '$_'") for keys %started;
}

sub kafka_create_topic
{
	my ($bootstrap, $name, $partitions, @config) = @_;
	system("$work/topic", $bootstrap, 'create', $name, $partitions // 4, @config) == 0 or die "cannot create $name";
}

# kafka_topic(BOOTSTRAP, place|delete|grow|trim|deny|allow, NAME[, PARTITIONS or BROKER])
sub kafka_topic
{
	my ($bootstrap, $command, $name, @rest) = @_;
	system("$work/topic", $bootstrap, $command, $name, @rest) == 0 or die "cannot $command $name";
}

# poll_until(SECONDS, CODE): wait until CODE is true; false when it is late for what a quiet machine does within so many.
sub poll_until
{
	my ($seconds, $code) = @_;
	my $began = time;
	while (1)
	{
		my $value = $code->();
		return $value if $value;
		return 0 if Program::is_late($began, $seconds);
		sleep 0.02;    # between two looks
	}
}

# answers(NODE): whether its server takes a query now; psql may end before it has taken it, which is an exception of the library's.
sub answers { my ($node) = @_; return eval { $node->psql('postgres', 'SELECT 1') == 0 }; }

# kill_worker(NODE, STAGE): kill -9, and wait until the server that the postmaster starts anew answers: the one before may do so for a moment.
sub kill_worker
{
	my ($node, $stage) = @_;
	my $since = log_count($node);
	kill('KILL', worker_pid($node, $stage)) == 1 or die "no $stage";
	return poll_until(30, sub { log_count($node, 'all server processes terminated; reinitializing', $since) && answers($node) });
}

# poll_sql(NODE, SECONDS, QUERY[, EXPECTED = t]): wait until the query answers that; false, with a diagnosis, if not.
sub poll_sql
{
	my ($node, $seconds, $query, $expected) = @_;
	my $answer = '';
	$expected //= 't';
	my $ok = poll_until($seconds, sub { $answer = $node->safe_psql('postgres', $query); $answer eq $expected });
	diag("waited $seconds s for '$expected' of: $query\nlast answer: $answer") unless $ok;
	return $ok;
}

# wait_workers(NODE): wait until the workers that its channels need are idle or busy; the scheduler always is.
sub wait_workers
{
	my ($node, $seconds) = @_;
	return poll_sql($node, $seconds // 20,
		"SELECT bool_or(stage = 'scheduler') AND bool_and(state IN ('idle', 'busy') OR state = 'not needed' AND stage <> 'scheduler')
		FROM msg_workers WHERE database = 'postgres'");
}

# record_stamp(NODE, ID[, ATTEMPT[, MICROSECONDS]]): the header msgsys-stamp of a message's record, as a relay makes it; or would, of one
# that was created so much later.
sub record_stamp
{
	my ($node, $id, $attempt, $later) = @_;
	$attempt //= 1;
	my ($created, $key) = split /\|/, $node->safe_psql('postgres', q{SELECT (EXTRACT(epoch FROM m.created_at - '2000-01-01 00:00Z') * 1000000)::bigint,
		encode(n.stamp_key, 'hex') FROM messages m JOIN msg_names n ON n.epoch = m.epoch WHERE m.id = } . $id);
	$created += $later // 0;
	no warnings 'portable';
	my @k = unpack('Q<2', pack('H*', $key));
	my @v = map { $_->[0] ^ $_->[1] } [ $k[0], 0x736f6d6570736575 ], [ $k[1], 0x646f72616e646f6d ], [ $k[0], 0x6c7967656e657261 ], [ $k[1], 0x7465646279746573 ];
	my $add = sub { use integer; my $sum = $_[0] + $_[1]; return unpack('Q', pack('q', $sum)); };
	my $rotate = sub { return $_[0] << $_[1] | $_[0] >> 64 - $_[1]; };
	my $round = sub {
		$v[0] = $add->($v[0], $v[1]); $v[1] = $rotate->($v[1], 13) ^ $v[0]; $v[0] = $rotate->($v[0], 32);
		$v[2] = $add->($v[2], $v[3]); $v[3] = $rotate->($v[3], 16) ^ $v[2];
		$v[0] = $add->($v[0], $v[3]); $v[3] = $rotate->($v[3], 21) ^ $v[0];
		$v[2] = $add->($v[2], $v[1]); $v[1] = $rotate->($v[1], 17) ^ $v[2]; $v[2] = $rotate->($v[2], 32);
	};
	for my $word ($id, $attempt, unpack('Q', pack('q', $created)), 24 << 56)
	{
		$v[3] ^= $word;
		$round->() for 1 .. 2;
		$v[0] ^= $word;
	}
	$v[2] ^= 0xff;
	$round->() for 1 .. 4;
	return sprintf('%d.%d.%016x', $attempt, $created, $v[0] ^ $v[1] ^ $v[2] ^ $v[3]);
}

sub worker_pid
{
	my ($node, $stage, $number) = @_;
	return $node->safe_psql('postgres',
		"SELECT pid FROM msg_workers WHERE stage = '$stage' AND worker = " . ($number // 0));
}

# log_count(NODE, PATTERN[, FROM]): how many lines of the server's log match; its length, as FROM for later, without PATTERN.
sub log_count
{
	my ($node, $pattern, $from) = @_;
	my $log = slurp_file($node->logfile, $from // 0);
	return -s $node->logfile unless defined $pattern;
	return scalar(() = $log =~ /$pattern/g);
}

# stats(NODE): the counters, as {"relay.sent" => n, …}
sub stats
{
	my ($node) = @_;
	return { map { my ($s, $c, $v) = split /\|/; ("$s.$c" => $v) }
		  split /\n/, $node->safe_psql('postgres', 'SELECT * FROM msg_stats()') };
}

# kcat_produce(BOOTSTRAP, TOPIC, VALUES…): write records, one a value.
sub kcat_produce
{
	my ($bootstrap, $topic, @values) = @_;
	open(my $pipe, '|-', 'kcat', '-P', '-b', $bootstrap, '-t', $topic, '-D', "\x1e") or die "kcat: $!";
	print $pipe join("\x1e", @values);
	close $pipe or die "kcat failed";
}

# read_topic(BOOTSTRAP, TOPIC): all its records, each {partition, offset, key, headers => {}, value}; bytes as they are.
sub read_topic
{
	my ($bootstrap, $topic) = @_;
	my @records;
	open(my $pipe, '-|', 'kcat', '-C', '-e', '-q', '-b', $bootstrap, '-t', $topic, '-o', 'beginning',
		'-f', '%p %o %K %S\n%k%s%h\n') or die "kcat: $!";
	binmode $pipe;
	while (my $line = <$pipe>)
	{
		my ($partition, $offset, $key_length, $length) = split ' ', $line;
		my %r = (partition => $partition, offset => $offset, key => '', value => '');
		read($pipe, $r{key}, $key_length) if $key_length > 0;
		read($pipe, $r{value}, $length)   if $length > 0;
		chomp(my $headers = <$pipe>);
		$r{headers} = { map { split /=/, $_, 2 } split /,/, $headers };
		push @records, \%r;
	}
	close $pipe;
	return @records;
}

# topic_reader(BOOTSTRAP, TOPIC): a consumer that runs on; it prints a line with headers and value for each record.
sub topic_reader
{
	my ($bootstrap, $topic) = @_;
	return Program->new('kcat', '-C', '-u', '-q', '-b', $bootstrap, '-t', $topic, '-o', 'beginning', '-f', '%h %s\n');
}

# check_topic(NODE, BOOTSTRAP, TOPIC, WHERE, NAME): compare the rows of messages that WHERE selects with the records of the
# topic. Lost, invented and reordered must be 0; repeated is reported. Returns all counts.
sub check_topic
{
	my ($node, $bootstrap, $topic, $where, $name) = @_;
	my $c = Checker::check(dsn => $node->connstr('postgres'), bootstrap => $bootstrap, topics => [$topic], where => $where);
	my $line = Checker::summary($c);
	note("$name: $line");
	ok($c->{committed} > 0 && Checker::good($c), "$name: nothing lost, invented or reordered")
	  or diag($line, map { "\n$_: @{$c->{examples}{$_}}" } sort keys %{ $c->{examples} });
	return $c;
}

1;
