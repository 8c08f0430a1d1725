# The broker hangs, goes away and comes back: nothing is lost or reordered, and an outage holds no transaction open and
# takes no memory.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;
use Time::HiRes qw(time sleep);

my ($bootstrap, $dir) = kafka_start();
my $node = new_node('broker', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.batch_size' => 500);
ok(wait_workers($node), 'workers run');
kafka_create_topic($bootstrap, 'stream', 4);
$node->safe_psql('postgres', "SELECT msg_channel_set('stream', topic => 'stream')");
my $session = session($node);
my $created = 0;

sub create
{
	my ($n) = @_;
	$session->query(qq{INSERT INTO messages (channel, message_key, payload)
		SELECT 'stream', 'key ' || g % 100, to_jsonb(g) FROM generate_series(1, $n) g});
	$created += $n;
}

# create 10,000 messages, and return when some of them are sent
sub create_and_begin
{
	my $sent = "(SELECT sum(sent) FROM msg_workers WHERE stage = 'relay')";
	my $before = $session->query("SELECT $sent");
	create(10000);
	$session->query("DO \$\$ BEGIN WHILE $sent < $before + 2000 LOOP PERFORM pg_sleep(0.001); END LOOP; END \$\$");
}

sub all_received
{
	my ($name) = @_;
	return ok(poll_sql($node, 40, "SELECT count(*) FROM messages WHERE channel = 'stream' AND status = 'received'", $created), "$name: all are received");
}

# anonymous memory of a process, in kB
sub memory
{
	my ($pid) = @_;
	open(my $status, '<', "/proc/$pid/status") or die "no process $pid";
	return (map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$status>)[0];
}

# processor time that processes have used, in s
sub cpu
{
	my $ticks = 0;
	for my $pid (@_)
	{
		open(my $stat, '<', "/proc/$pid/stat") or die "no process $pid";
		my @fields = split / /, <$stat> =~ s/.*\) //r;
		$ticks += $fields[11] + $fields[12];
	}
	return $ticks / 100;
}

# watch(SECONDS): look at the workers' transactions for so long; the longest age of one, in s
sub watch
{
	my ($seconds) = @_;
	my $longest = 0;
	my $end = time + $seconds;
	while (time < $end)
	{
		my $age = $session->query(q{SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)
			FROM pg_stat_activity WHERE backend_type LIKE 'msgsys %' AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)});
		$longest = $age if $age > $longest;
		sleep 0.05;    # between two looks
	}
	return $longest;
}

# how often workers said that they lost the broker, or have it back
sub said
{
	my ($from) = @_;
	return join(' ', map { log_count($node, $_, $from) } map { ("msgsys $_ has lost the broker", "msgsys $_ has the broker back") } qw(relay receiver));
}

# ---- it hangs
my $log = log_count($node);
create_and_begin();
kafka('pause', $dir);
my $waiting = $session->query("SELECT count(*) FROM messages WHERE status = 'idle'");
cmp_ok($waiting, '>', 0, "the broker hangs while $waiting wait");
my $age = watch(5);
cmp_ok($age, '<', 3, "it hangs: no transaction is older than 3 s ($age)");
is(stats($node)->{'relay.gave_up'}, 1, 'one batch was given up');
is($session->query("SELECT state FROM msg_workers WHERE stage = 'relay'"), 'broker down', 'its state says so');
kafka('cont', $dir);
all_received('it hung');
is(log_count($node, 'msgsys relay has lost the broker', $log), 1, 'one line says that it is lost');
is(log_count($node, 'msgsys relay has the broker back', $log), 1, 'and one that it is back');
# the receiver may have noticed, too, and may say later that it has it back
ok(poll_until(10, sub { said($log) =~ /^1 1 (\d) \1$/ }), 'whoever has lost it has it back') or diag(said($log));

# ---- it is stopped
$log = log_count($node);
create_and_begin();
kafka('stop', $dir);
my $began = time;
$age = watch(4);
my $claimed = stats($node)->{'relay.claimed'};
my %memory = map { my $pid = worker_pid($node, $_); $pid => memory($pid) } qw(relay receiver);
create(5000);
my $cpu = cpu(keys %memory);
my $longer = watch(20 - (time - $began));
$cpu = cpu(keys %memory) - $cpu;
cmp_ok($age, '<', 3, "it is stopped: no transaction is older than 3 s ($age)");
cmp_ok($longer, '<', 0.5, "and later none is held for the network ($longer)");
is(stats($node)->{'relay.claimed'}, $claimed, 'nothing is claimed meanwhile');
is($session->query("SELECT string_agg(DISTINCT state, ' ') FROM msg_workers WHERE stage IN ('relay', 'receiver')"), 'broker down', 'states say so');
cmp_ok($cpu, '<', 1, "two workers use $cpu s of processor time in 16 s");
for my $pid (sort keys %memory)
{
	my $growth = memory($pid) - $memory{$pid};
	cmp_ok($growth, '<', 3000, "memory grows by $growth kB");
}
is(said($log), '1 0 1 0', 'each worker says once that it has lost the broker');
kafka_start($dir);
all_received('it was stopped');
ok(poll_until(10, sub { said($log) eq '1 1 1 1' }), 'and once that it has it back') or diag(said($log));
check_topic($node, $bootstrap, 'stream', "channel = 'stream'", 'outages');
$node->stop;
done_testing();
