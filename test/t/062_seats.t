# Who runs: one worker a seat whatever becomes of the launcher, only those that are needed, at once when they are; channels' places; and how workers end.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;
use Time::HiRes 'time';

expect_findings('not-looked-at: seats postgres' => 'the server is stopped while somebody holds the table messages',
	'worker-stopped: seats postgres: 2 {"relay 0","scheduler 0"}' => 'two workers are ended just before that', 'max-channels: seats' => 'all its places are taken');

my $bootstrap = kafka_start();
my $sink = Sink->new;
my $node = new_node('seats', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.max_channels' => 16, 'msgsys.webhook_allow' => '127.0.0.1', 'log_min_messages' => 'debug1',
	'msgsys.grace_period' => '300ms', 'msgsys.sweep_interval' => '1h', 'msgsys.poll_interval' => '1h', 'lock_timeout' => '200ms');
kafka_create_topic($bootstrap, $_, 2) for qw(first second);
my $session = session($node);

# processes(): the stages that have one, by PostgreSQL's own account
sub processes { return $session->query(q{SELECT coalesce(string_agg(substr(backend_type, 8), ' ' ORDER BY backend_type), '') FROM pg_stat_activity WHERE backend_type LIKE 'msgsys %'}); }
sub runs { my ($what, $name, $seconds) = @_; return ok(poll_until($seconds // 20, sub { processes() eq $what }), $name) || diag(processes()); }
sub states { return $session->query(q{SELECT string_agg(stage || ' ' || state, ', ' ORDER BY stage) FROM msg_workers}); }
sub launcher { return $session->query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'msgsys launcher'}); }

# ---- only those that are needed
runs('launcher scheduler', 'without channels there is a scheduler');
ok(poll_until(10, sub { states() eq 'receiver not needed, relay not needed, scheduler idle, webhook not needed' }), 'the others are shown as not needed') or diag(states());
$session->query(q{SELECT msg_channel_set('sent', topic => 'first', ack => 'none')});
runs('launcher relay scheduler', 'a topic needs a relay');
$session->query(q{SELECT msg_channel_set('read', topic => 'second')});
runs('launcher receiver relay scheduler', 'one that is read needs a receiver');

# what is created before there is a worker is its first work; how soon is in the log of the test
my $began = time;
my $id = $session->query(qq{SELECT msg_channel_set('hook'); SELECT msg_webhook_set('hook', url => '@{[$sink->url('/ok')]}'); SELECT msg_create('1', 'hook')}) =~ s/.*\n//sr;
is($session->query("SELECT msg_wait($id, 'delivered', '10 s')"), 'delivered', sprintf('a webhook needs a worker, which does what was there before it, within %.0f ms', (time - $began) * 1000));
runs('launcher receiver relay scheduler webhook', 'all run');

# in the window in which a worker starts and ends, nothing is forgotten: there is no poll and no sweep to find it
my @ids;
for my $round (1 .. 5)
{
	$session->query(qq{SELECT msg_webhook_drop('hook'); SELECT msg_webhook_set('hook', url => '@{[$sink->url('/ok')]}')});
	push @ids, $session->query(q{SELECT msg_create('1', 'hook')}) for 1 .. 20;
	$session->query(q{SELECT pg_terminate_backend(pid) FROM msg_workers WHERE stage IN ('webhook', 'relay')}) if $round == 3;
	push @ids, $session->query(q{SELECT msg_create('1', 'sent')}) for 1 .. 20;
}
ok(poll_sql($node, 20, 'SELECT count(*) FROM messages WHERE finished_at IS NULL', 0), 'workers end and start, messages go on');

# ---- the launcher ends
# repeats(): requests that the sink has had more than once
my $workers = q{SELECT string_agg(pid::text, ' ' ORDER BY stage) FROM msg_workers};
for my $how ('is told to end', 'meets an error', 'is cancelled')
{
	my ($before, $was) = ($session->query($workers), launcher());
	if ($how eq 'is told to end') { $session->query("SELECT pg_terminate_backend($was, 5000)"); }
	elsif ($how eq 'is cancelled') { $session->query("SELECT pg_cancel_backend($was)"); }
	else
	{
		# its look for databases fails, by lock_timeout
		$session->query('BEGIN; LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE');
		$session->query("SELECT pg_reload_conf()");
		ok(poll_until(10, sub { log_count($node, 'canceling statement due to lock timeout') > 0 }), 'the launcher meets an error');
		$session->query('COMMIT');
	}
	# a change of the list is what only a launcher follows
	$session->query(qq{INSERT INTO messages (channel, message_key, payload) SELECT 'hook', (g % 5)::text, to_jsonb(g) FROM generate_series(1, 50) g});
	ok(poll_until(20, sub { launcher() }), "the launcher $how");
	is(launcher() == $was ? 'goes on' : 'starts again', $how eq 'is told to end' ? 'starts again' : 'goes on', 'and is there');
	$node->append_conf('postgresql.conf', "msgsys.databases = 'postgres, none'\n");
	$node->reload;
	ok(poll_sql($node, 20, q{SELECT count(*) > 0 FROM msg_workers WHERE database = 'none'}), 'it does its work');
	$node->append_conf('postgresql.conf', "msgsys.databases = 'postgres'\n");
	$node->reload;
	ok(poll_sql($node, 20, q{SELECT count(*) FROM msg_workers WHERE database = 'none'}, 0), 'and again');
	ok(poll_sql($node, 20, 'SELECT count(*) FROM messages WHERE finished_at IS NULL', 0), 'messages go on');
	is($session->query($workers), $before, 'the same workers');
	runs('launcher receiver relay scheduler webhook', 'and no other ones');
}
is(scalar($sink->requests), $session->query(q{SELECT count(*) FROM messages WHERE channel = 'hook'}), 'nothing was posted twice');

# what the first launcher started ends, and is started again by the next one
$session->query(q{SELECT pg_terminate_backend(pid, 5000) FROM msg_workers WHERE stage = 'relay'});
runs('launcher receiver relay scheduler webhook', 'the next launcher replaces what ends');

# launchers that end while workers are on their way
for (1 .. 5)
{
	$session->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type IN ('msgsys launcher', 'msgsys relay', 'msgsys webhook')});
	poll_until(10, sub { launcher() });
}
runs('launcher receiver relay scheduler webhook', 'however often');
ok(wait_workers($node), 'and all work');

# ---- they end when they are not needed any more
$session->query(q{SELECT msg_webhook_drop('hook'); SELECT msg_channel_set('sent', topic => ''); SELECT msg_channel_drop('read')});
runs('launcher scheduler', 'not needed any more, they end');

# ---- a channel that is gone leaves its place to another one
$session->query(q{SELECT msg_channel_set('sent', topic => 'first', ack => 'none')});
for my $round (1 .. 4)
{
	for my $n (1 .. 8)
	{
		$session->query("SELECT msg_channel_set('c$round-$n', topic => 'first', ack => 'none')");
		$id = $session->query("SELECT msg_create('1', 'c$round-$n')");
		is($session->query("SELECT msg_wait($id, 'sent', '10 s')"), 'sent', "channel $n of round $round") if $n == 1 || $n == 8;
	}
	ok(poll_sql($node, 10, "SELECT count(*) FROM messages WHERE channel LIKE 'c%' AND status <> 'sent'", 0), 'all are sent');
	my $sweeps = $session->query("SELECT counters ->> 'sweeps' FROM msg_worker_slots() WHERE stage = 'relay'");
	for my $n (1 .. 40)
	{
		$session->query("SELECT msg_create('1', 'c$round-8')");
	}
	ok(poll_sql($node, 10, "SELECT count(*) FROM messages WHERE channel LIKE 'c%' AND status <> 'sent'", 0), 'all are sent');
	is($session->query("SELECT counters ->> 'sweeps' FROM msg_worker_slots() WHERE stage = 'relay'") - $sweeps, 0, 'and none by a sweep: the channel has a place');
	$session->query("SELECT msg_channel_drop(channel) FROM msg_channels WHERE channel LIKE 'c%'");
}

# more channels than places: found by sweeps, of which there is not one a commit
$session->query("SELECT count(msg_channel_set('more-' || g, topic => 'first', ack => 'none')) FROM generate_series(1, 40) g");
$session->query("SELECT msg_create('1', 'more-' || g) FROM generate_series(1, 40) g");
ok(poll_sql($node, 10, "SELECT count(*) FROM messages WHERE channel LIKE 'more%' AND status <> 'sent'", 0), 'channels without a place are sent, too');
my $sweeps = $session->query("SELECT counters ->> 'sweeps' FROM msg_worker_slots() WHERE stage = 'relay'");
$began = time;
$session->query(q{DO $$ BEGIN FOR i IN 1 .. 2000 LOOP PERFORM msg_create('1', 'more-' || (1 + i % 40)); COMMIT; END LOOP; END $$});
ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel LIKE 'more%' AND status <> 'sent'", 0), '2,000 commits are sent');
my $cost = $session->query("SELECT counters ->> 'sweeps' FROM msg_worker_slots() WHERE stage = 'relay'") - $sweeps;
cmp_ok($cost, '<=', 2 + (time - $began) / 0.02, "by $cost sweeps");
$session->stop;

# ---- a signal ends a worker whatever it does
my $blocker = session($node);
$session = session($node);
$blocker->query('BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE');
for my $stage ('relay', 'scheduler')
{
	is($session->query("SELECT pg_terminate_backend(pid, 3000) FROM pg_stat_activity WHERE backend_type = 'msgsys $stage'"), 't', "the $stage ends while somebody holds the table");
}
$began = time;
$node->stop('fast');
cmp_ok(time - $began, '<', 10 * slowness(), 'and so does the server');

# ---- what README says of max_worker_processes: with the default, parallel query has its workers
my $small = new_node('small', 'max_worker_processes' => 8);
$session = session($small);
runs('launcher scheduler', 'a server at rest has two processes');
$session->query('CREATE TABLE big WITH (parallel_workers = 4) AS SELECT g FROM generate_series(1, 10000) g');
like($session->query(q{SET max_parallel_workers_per_gather = 4; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; EXPLAIN (ANALYZE, COSTS off) SELECT count(*) FROM big}),
	qr/Workers Launched: 4/, 'and all the workers of a parallel query');
$session->stop;
$small->stop;
done_testing();
