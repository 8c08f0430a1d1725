# Bench.pm: what the benchmarks have in common: private servers, sessions, waiting, figures of processes.
#
# A benchmark is a file NAME.pl whose last value is a hash: about (a line), size and unit (the default size),
# bounds (a list of [figure, '>=' or '<=', limit]), measure (a function of the size that returns the figures), and compare, the figure that
# two revisions are compared by, where that is not the rate or a bound in ms.
package Bench;

use strict;
use warnings;

use Exporter 'import';
use Fcntl ':flock';
use File::Basename 'dirname';
use File::Path 'remove_tree';
use IPC::Open2;
use POSIX ();
use Time::HiRes qw(time sleep);

our @EXPORT = qw(say_progress start_servers session counter await_counter watch_workers create_messages quiet
	make_extension versions bindir compile latency_figures cpu_of timed round_to median root server_log);

my $root = Cwd::abs_path(dirname(__FILE__) . '/..');
my $work = $ENV{MSGSYS_WORK} // "$root/.work";
my $started = time;
my $owner = $$;
my ($cluster, $kafka, $broker, $lock, %sessions);

sub root { return $root }

sub say_progress { printf STDERR "%6.1f s  %s\n", time - $started, join '', @_; return }

# Run a command; its output without the last newline. Dies with its output if it fails.
sub command
{
	my @command = @_;
	open my $pipe, '-|', @command or die "bench: cannot run $command[0]: $!\n";
	my $output = do { local $/; <$pipe> } // '';
	close $pipe or die "bench: @command failed\n";
	chomp $output;
	return $output;
}

sub tool { my ($name, @args) = @_; return command("$root/test/tools/$name", @args) }

# ---------------------------------------------------------------- servers

# What is the same for what is measured and for what it is compared with.
my @settings = (
	'shared_buffers=1GB', 'max_wal_size=8GB', 'checkpoint_timeout=30min', 'synchronous_commit=on', 'fsync=on',
	'max_connections=50', 'jit=off', 'log_autovacuum_min_duration=0', 'log_checkpoints=on');

# Start Kafka and a server for a benchmark, with msgsys in the database "postgres" and channel "bench".
# Options: settings (a list), ack (of the channel).
sub start_servers
{
	my ($name, %options) = @_;

	# two at a time would measure each other
	mkdir $work;
	open $lock, '>', "$work/bench.lock" or die "bench: $work/bench.lock: $!\n";
	unless (flock $lock, LOCK_EX | LOCK_NB)
	{
		say_progress('another benchmark is running: waiting for it');
		flock $lock, LOCK_EX or die "bench: flock: $!\n";
	}
	say_progress('building and starting the servers');
	tool('cluster', 'stage') unless $ENV{BENCH_STAGED};
	my $home = tool('cluster', 'home');
	($cluster, $kafka) = ("bench-$name", "$home/bench-kafka-$name");
	remove_servers();

	local $ENV{KAFKA_HEAP} = $ENV{KAFKA_HEAP} // '1g';
	my $brokers = kafka_tool('start');
	tool('cluster', 'start', $cluster, @settings, "msgsys.kafka_brokers=$brokers", @{ $options{settings} // [] });
	for my $line (split /\n/, tool('cluster', 'env', $cluster))
	{
		$ENV{$1} = $2 while $line =~ /(PG\w+)='?([^' ]*)'?/g;
	}
	$ENV{BROKERS} = $brokers;
	open my $pid, '<', "$kafka/pid" or die "bench: $kafka/pid: $!\n";
	chomp($broker = <$pid>);
	my $session = session();
	make_extension($session, $options{ack} // 'none');
	wait_for(30, 'the workers', sub {
		# a revision that ends workers without work shows these; the scheduler and the relay have some
		$session->sql("SELECT count(*) FILTER (WHERE state = 'idle' AND stage IN ('relay', 'scheduler')) = 2 AND bool_and(state IN ('idle', 'not needed'))
			FROM msg_workers WHERE stage <> 'http'") eq 't';
	});
	return $session;
}

# The extension and its channel, in the database of a session.
sub make_extension
{
	my ($session, $ack) = @_;
	$session->sql("SET client_min_messages = error; CREATE EXTENSION msgsys;
		SELECT msg_channel_set('bench', topic => 'bench', ack => '$ack')");
	return;
}

sub kafka_tool { return tool('kafka', $_[0], $kafka) }

sub server_log { return "$ENV{PGHOST}/log" }

sub remove_servers
{
	$_->finish for values %sessions;
	if ($cluster) { system "$root/test/tools/cluster", 'destroy', $cluster }
	if ($kafka && -d $kafka)
	{
		eval { kafka_tool('kill') };
		remove_tree($kafka);
	}
	return;
}

END
{
	my $status = $?;
	if ($$ == $owner && $cluster)
	{
		system "tail -n 20 '" . server_log() . "' '$kafka/log' >&2" if $status && $ENV{PGHOST};
		remove_servers();
	}
	$? = $status;
}
$SIG{$_} = sub { exit 130 } for qw(INT TERM HUP);
$SIG{PIPE} = 'IGNORE';	# a session that ended is seen when its answer is read

sub bindir { my $bindir = command($ENV{PG_CONFIG} // 'pg_config', '--bindir'); return $bindir }

# Create messages at a rate in the channel "bench": p50, p99 and maximum in ms from commit to a consumer, how many, the real rate.
sub latency_figures
{
	my ($rate, $seconds) = @_;
	my @figures = map { 0 + $_ } split ' ', qx('@{[compile('latency')]}' $rate $seconds '$ENV{BROKERS}' bench);
	@figures == 5 or die "bench: latency failed\n";
	return @figures;
}

# Compile a C program of this directory, where it is older than its source; its path.
sub compile
{
	my ($name) = @_;
	my ($source, $program) = ("$root/bench/$name.c", "$work/bench-$name");
	unless (-e $program && -M $program <= -M $source)
	{
		my $include = command($ENV{PG_CONFIG} // 'pg_config', '--includedir');
		my $libdir = command($ENV{PG_CONFIG} // 'pg_config', '--libdir');
		command('cc', '-O2', '-Wall', '-Wextra', '-o', $program, $source, "-I$include", "-L$libdir",
			qw(-lpq -lrdkafka -lcurl -lpthread));
	}
	return $program;
}

sub versions
{
	my ($session) = @_;
	my ($librdkafka) = command('kcat', '-V') =~ /librdkafka ([\d.]+)/;
	my ($version) = read_proc($broker, 'cmdline') =~ m{/kafka-([\d.]+)/};
	my $commit = qx(git -C '$root' describe --always --dirty 2>/dev/null);
	chomp $commit;
	return {
		postgresql => $session->sql("SELECT split_part(current_setting('server_version'), ' ', 1)"),
		librdkafka => $librdkafka,
		kafka => $version // 'mock broker of librdkafka',
		msgsys => join ' ', $session->sql("SELECT extversion FROM pg_extension WHERE extname = 'msgsys'"), $commit || (),
	};
}

# ---------------------------------------------------------------- sessions

# A session of psql that stays open.
sub session
{
	my ($database) = @_;
	my $self = bless {}, 'Bench';
	local $ENV{PGDATABASE} = $database // $ENV{PGDATABASE};
	$self->{pid} = open2($self->{out}, $self->{in}, "exec '" . bindir() . "/psql' -XAtq -v ON_ERROR_STOP=1 2>&1");
	$sessions{ $self->{pid} } = $self;
	return $self;
}

# Run SQL; the rows that it returned, one a line.
sub sql
{
	my ($self, $sql) = @_;
	my @lines;
	print { $self->{in} } "$sql\n;\n\\echo -- done\n";
	$self->{in}->flush;
	while (defined(my $line = readline $self->{out}))
	{
		chomp $line;
		return join "\n", @lines if $line eq '-- done';
		push @lines, $line;
	}
	die "bench: $sql\n" . join("\n", @lines) . "\n";
}

# End a session, and with it its transaction.
sub finish
{
	my ($self) = @_;
	close $self->{in};
	close $self->{out};
	waitpid $self->{pid}, 0;
	delete $sessions{ $self->{pid} };
	return;
}

sub wait_for
{
	my ($seconds, $what, $condition) = @_;
	my $end = time + $seconds;
	until ($condition->())
	{
		die "bench: waited $seconds s for $what\n" if time > $end;
		sleep 0.02;
	}
	return;
}

# ---------------------------------------------------------------- messages

# A message of about 150 bytes of JSON.
my $payload = <<'END';
format('{"order": %s, "customer": "c-%s", "amount": %s.50, "currency": "EUR", "state": "paid", "items": [{"sku": "A-%s", "count": 2}], "shop": "www.example.com/eu"}',
	g, 100000 + g % 9999, g % 500, 1000 + g % 777)::jsonb
END

# Insert n messages in transactions of at most 50,000. samples: those of msg_sample(), as a shop sends them, of twice
# the size and with keys, where nothing else has to make the same ones. without_trigger is for millions: what it would note is
# found by the sweep that follows a pause.
sub create_messages
{
	my ($session, $n, %options) = @_;
	my $channel = $options{channel} // 'bench';
	$session->sql("SET session_replication_role = replica") if $options{without_trigger};
	for (my ($left, $seed) = ($n, 1); $left > 0; $left -= 50000, $seed++)
	{
		my $step = $left < 50000 ? $left : 50000;
		$session->sql($options{samples} ? "SELECT msg_sample($step, $seed, '$channel')" :
			"INSERT INTO messages (channel, payload) SELECT '$channel', $payload FROM generate_series(1, $step) g");
	}
	$session->sql("RESET session_replication_role") if $options{without_trigger};
	return;
}

# Leave nothing to do that would disturb what is measured next.
sub quiet { $_[0]->sql("VACUUM (ANALYZE) messages;\nCHECKPOINT"); return }

# A counter of the workers, which costs no look at the table.
sub counter
{
	my ($session, $name) = @_;
	return $session->sql("SELECT coalesce(sum((counters ->> '$name')::bigint), 0) FROM msg_worker_slots()");
}

# Wait until a counter has reached a value; the time when it was seen. while_waiting is called at each look, with
# the counter's value.
sub await_counter
{
	my ($session, $name, $target, $while_waiting) = @_;
	my $end = time + 120;
	while ((my $now = counter($session, $name)) < $target)
	{
		die "bench: after 120 s $name is $now and not $target\n" if time > $end;
		read_proc($broker, 'stat');
		$while_waiting->($now) if $while_waiting;
		sleep 0.02;
	}
	return time;
}

# ---------------------------------------------------------------- figures

sub read_proc
{
	my ($pid, $file) = @_;
	open my $handle, '<', "/proc/$pid/$file" or die "bench: process $pid is gone\n";
	local $/;
	return <$handle>;
}

# Processor time that processes have used, in seconds.
sub cpu_of
{
	my @pids = @_;
	my $ticks = 0;
	for my $pid (@pids)
	{
		my @fields = split / /, read_proc($pid, 'stat') =~ s/.*\) //sr;
		$ticks += $fields[11] + $fields[12];
	}
	return $ticks / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}

# Begin to measure the workers' use of the machine. Returns a function, to be called now and then, and at the end;
# it returns cpu_s and rss_mb: processor time since the beginning, and the most memory, shared memory not counted.
sub watch_workers
{
	my ($session) = @_;
	my @pids = split /\n/, $session->sql("SELECT pid FROM msg_workers WHERE pid IS NOT NULL");
	my $begin = cpu_of(@pids);
	my $most = 0;
	return sub {
		my $kb = 0;
		for my $pid (@pids)
		{
			my $status = read_proc($pid, 'status');
			$kb += $1 while $status =~ /^Rss(?:Anon|File):\s+(\d+)/mg;
		}
		$most = $kb if $kb > $most;
		return (cpu_s => round_to(2, cpu_of(@pids) - $begin), rss_mb => round_to(1, $most / 1024));
	};
}

# Run SQL; how long that took, and how much processor time of its backend.
sub timed
{
	my ($session, $sql) = @_;
	my $pid = $session->sql('SELECT pg_backend_pid()');
	my ($begin, $cpu) = (time, cpu_of($pid));
	$session->sql($sql);
	return (time - $begin, cpu_of($pid) - $cpu);
}

sub round_to { my ($digits, $number) = @_; return 0 + sprintf "%.${digits}f", $number }

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return ($sorted[$#sorted / 2] + $sorted[@sorted / 2]) / 2;
}

1;
