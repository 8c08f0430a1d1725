# Faults in a random order while clients create messages, for Kafka, for an ordered webhook that fails now and then, and for a topic
# that is taken away now and then: kill -9 and ends of workers and of the launcher, of Kafka, of PostgreSQL; what hangs, what users
# lock, configuration that changes, a topic that is deleted and made again.
# SOAK_SECONDS is how long (600), SOAK_SEED which order, SOAK_FAULTS a regular expression for which of them. In the end nothing is lost, invented or reordered.
use strict;
use warnings;
use lib 'test/lib';
use Checker ();
use IO::Handle;
use MsgsysTest;
use Sink;
use Test::More;
use Time::HiRes qw(time sleep);

my $seconds = $ENV{SOAK_SECONDS} // 600;
$ENV{SOAK_FAULTS} //= '';
my $seed    = $ENV{SOAK_SEED}    // int(time);
srand $seed;
diag("seed $seed, $seconds s");

my ($bootstrap, $dir) = kafka_start();
my $sink = Sink->new;
my $node = new_node('soak', 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.webhook_workers' => 2, 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.relay_workers' => 2, 'msgsys.receiver_workers' => 2,
	'msgsys.batch_size' => 2000, 'restart_after_crash' => 'on', 'msgsys.sweep_interval' => '5s');
kafka_create_topic($bootstrap, 'soak', 6);
$node->safe_psql('postgres', "SELECT msg_channel_set('soak', topic => 'soak', resend_after => '20 s')");

$node->safe_psql('postgres', q{SELECT msg_channel_set('hooks', max_attempts => 1000, retry_base => '20 ms', retry_max => '1 s')});
$node->safe_psql('postgres', "SELECT msg_webhook_set('hooks', '" . $sink->url('/fail/5/ok') . "', ordered => true, breaker_share => 2, retry_schedule => '{}')");

# a topic that goes and comes: its records may be gone, but each message comes to its end
kafka_create_topic($bootstrap, 'fickle', 3);
$node->safe_psql('postgres', "SELECT msg_channel_set('fickle', topic => 'fickle')");

# A client: transactions of some messages of some keys, some of which roll back. It writes an id to its file once the commit is
# known. It goes on when its connection breaks, so what was in doubt is not in the file.
my $stop = "$ENV{MSGSYS_RUN}/soak-stop-$$";
my (@ids, @hook_ids, @clients);
for my $client (1 .. 3)
{
	my $file = "$ENV{MSGSYS_RUN}/soak-ids-$$-$client";
	push @ids, $file;
	push @hook_ids, "$file-hooks";
	my $connection = $node->connstr('postgres');
	my $pid = fork;
	push @clients, $pid;
	next if $pid;
	open(my $out, '>>', $file) or die;
	open(my $hooks, '>>', "$file-hooks") or die;
	$_->autoflush for $out, $hooks;
	srand($seed + $client);
	while (!-e $stop)
	{
		my $rows = 1 + int(rand 50);
		my $end = rand() < 0.1 ? 'ROLLBACK' : 'COMMIT';
		my $sql = "BEGIN; WITH i AS (INSERT INTO messages (channel, message_key, payload)
			SELECT 'soak', 'key $client ' || g % 20, to_jsonb(g) FROM generate_series(1, $rows) g RETURNING id) SELECT string_agg(id::text, ' ') FROM i;
			WITH i AS (INSERT INTO messages (channel, message_key, payload)
			SELECT 'hooks', 'key $client ' || g % 20, to_jsonb(g) FROM generate_series(1, 5) g RETURNING id) SELECT string_agg(id::text, ' ') FROM i;
			INSERT INTO messages (channel, message_key, payload) SELECT 'fickle', 'key $client', to_jsonb(g) FROM generate_series(1, 2) g; $end";
		my $answer = qx(psql -XAtq -v ON_ERROR_STOP=1 -d "$connection" -c "$sql" 2>/dev/null);
		next if $? != 0 || $end ne 'COMMIT';
		my ($line, $hook_line) = split /\n/, $answer;
		print $out "$line\n";
		print $hooks "$hook_line\n";
	}
	exec 'true';
}

# run SQL where there may be no server; whether it succeeded
sub try_sql
{
	my ($sql) = @_;
	return system('psql', '-XAtq', '-o', '/dev/null', '-d', $node->connstr('postgres'), '-c', $sql) == 0;
}

my %fault = (
	'kill -9 of a relay'     => sub { my $pid = worker_pid($node, 'relay', int(rand 2));    kill 'KILL', $pid if $pid; },
	'kill -9 of a receiver'  => sub { my $pid = worker_pid($node, 'receiver', int(rand 2)); kill 'KILL', $pid if $pid; },
	'kill -9 of a webhook worker' => sub { my $pid = worker_pid($node, 'webhook', int(rand 2)); kill 'KILL', $pid if $pid; },
	'end of a worker'        => sub { try_sql(q{SELECT pg_terminate_backend(pid) FROM msg_workers WHERE pid IS NOT NULL ORDER BY random() LIMIT 1}) },
	'immediate shutdown'     => sub { $node->stop('immediate'); $node->start },
	'restart'                => sub { $node->stop('fast'); $node->start },
	'kill -9 of Kafka'       => sub { kafka('kill', $dir); sleep rand 5; kafka_start($dir) },
	'stop of Kafka'          => sub { kafka('stop', $dir); sleep rand 10; kafka_start($dir) },
	'Kafka hangs'            => sub { kafka('pause', $dir); sleep rand 8; kafka('cont', $dir) },
	'end of the launcher'    => sub { try_sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'msgsys launcher'}) },
	'kill -9 of the launcher' => sub {
		my $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'msgsys launcher'});
		kill 'KILL', $pid if $pid;
	},
	'a worker hangs'         => sub {
		my $pid = $node->safe_psql('postgres', q{SELECT pid FROM msg_workers WHERE pid IS NOT NULL ORDER BY random() LIMIT 1});
		kill 'STOP', $pid if $pid;
		sleep rand 3;
		kill 'CONT', $pid if $pid;
	},
	'rows are locked'        => sub { try_sql(q{BEGIN; SELECT count(*) FROM (SELECT FROM messages WHERE finished_at IS NULL LIMIT 50 FOR UPDATE) m; SELECT pg_sleep(2); COMMIT}) },
	'the table is locked'    => sub { try_sql(q{SET lock_timeout = '5s'; BEGIN; LOCK TABLE messages; SELECT pg_sleep(1.5); COMMIT}) },
	'configuration changes'  => sub {
		for (1 .. 20)
		{
			try_sql(q{SELECT msg_channel_set('soak', max_attempts => 10), msg_pace_set('hooks', 50, '100 ms')});
			try_sql(q{SELECT msg_pace_drop('hooks')});
		}
	},
	'reload'                 => sub { try_sql('SELECT pg_reload_conf()') },
	'the topic goes and comes' => sub {
		# Kafka may be away just now
		eval { kafka_topic($bootstrap, 'delete', 'fickle'); };
		sleep rand 3;
		poll_until(60, sub { eval { kafka_create_topic($bootstrap, 'fickle', 3); 1 } }) or diag('topic "fickle" could not be made again');
	},
	'pause and resume'       => sub { try_sql(q{SELECT msg_pause('soak')}); sleep rand 2; try_sql(q{SELECT msg_resume('soak')}) },
);
my @names = grep { /$ENV{SOAK_FAULTS}/ } sort keys %fault;
my %count;
my $end = time + $seconds;
while (time < $end)
{
	my $name = $names[ rand @names ];
	$count{$name}++;
	$fault{$name}->();
	# the next fault comes at any time, also before the last is over
	sleep rand 4;
	poll_until(60, sub { try_sql('SELECT 1') }) or BAIL_OUT('the server does not answer');
}
note("$count{$_} times $_") for sort keys %count;
open(my $file, '>', $stop) or die;
close $file;
waitpid $_, 0 for @clients;
$node->safe_psql('postgres', q{SELECT msg_resume('soak')});
ok(poll_sql($node, 120, q{SELECT count(*) FROM messages WHERE channel = 'soak' AND status <> 'received'}, 0), 'in the end, all are received');
ok(poll_sql($node, 120, q{SELECT count(*) FROM messages WHERE channel = 'hooks' AND status <> 'delivered'}, 0), 'or delivered');

ok(poll_sql($node, 120, q{SELECT count(*) FROM messages WHERE channel = 'fickle' AND finished_at IS NULL}, 0), 'or at an end');

my @committed = map { open(my $in, '<', $_) or die; map { split ' ' } <$in> } @ids;
cmp_ok(scalar @committed, '>', $seconds, scalar(@committed) . ' messages were committed for sure');
my $c = Checker::check(dsn => $node->connstr('postgres'), bootstrap => $bootstrap, topics => ['soak'], where => "channel = 'soak'", committed => \@committed);
unless (ok(Checker::good($c), Checker::summary($c)))
{
	diag(explain($c->{examples}));
	my $of = join(',', map { /\d+/g ? $& : () } map { (/^(\d+)/, /after (\d+)/) } map { @$_ } values %{ $c->{examples} });
	diag($node->safe_psql('postgres', "SELECT id, message_key, attempts, created_at, sent_at, received_at, kafka_partition, kafka_offset, last_error FROM messages WHERE id IN ($of) ORDER BY 1"));
}

# the endpoint saw each message, and the first answer "taken" of each in the order of its key
my %key = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{SELECT id, message_key FROM messages WHERE channel = 'hooks'});
my (%seen, %last, $reordered);
for my $request ($sink->requests)
{
	my ($id) = ($request->{id} // '') =~ /:(\d+)$/ or next;
	next if $seen{$id}++;
	$reordered++ if ($last{ $key{$id} } // 0) > $id;
	$last{ $key{$id} } = $id;
}
my @hooked = map { open(my $in, '<', $_) or die; map { split ' ' } <$in> } @hook_ids;
is(scalar(grep { !$seen{$_} } @hooked, keys %key), 0, scalar(@hooked) . ' webhook messages: none lost');
is(scalar(grep { !exists $key{$_} } keys %seen), 0, 'none invented');
is($reordered // 0, 0, 'none before an earlier one of its key');
$sink->stop;
$node->stop;
done_testing();
