# msg_check() where channels wait by right (order, pace, rate) and where they are stuck; processes that are missing or too many; what a
# setting leaves undone; what holds rows. Without Kafka.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

my $sink = Sink->new;
my $node = new_node('stuck', 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.sweep_interval' => '1s', 'msgsys.poll_interval' => '100ms',
	'msgsys.max_channels' => 16, 'msgsys.max_backlog' => 100, 'wal_level' => 'logical');
my $session = session($node);
my $found = q{SELECT coalesce(string_agg(DISTINCT "check", ' ' ORDER BY "check"), '') FROM msg_check() WHERE severity <> 'info'};

# finds(WHAT, TEXT): wait until that is what is found
sub finds
{
	my ($what, $text) = @_;
	my $is = '';
	ok(poll_until(40, sub { ($is = $session->query($found)) eq $what }), $text) or diag("found: $is");
}
sub examples { return $session->query(qq{SELECT string_agg(array_to_string(examples, ','), ' ' ORDER BY examples) FROM msg_check() WHERE "check" = '$_[0]'}); }

# ---- channels with a webhook that is served
for (qw(plain ordered rated paced))
{
	$session->query("SET client_min_messages = error; SELECT msg_channel_set('$_'); SELECT msg_webhook_set('$_', '" . $sink->url('/ok') . "', retry_schedule => '{}', timeout => '1 s')");
}
$session->query(q{SELECT msg_webhook_set('ordered', ordered => true), msg_webhook_set('rated', rate => 0.1)});
$session->query(q{SELECT msg_create('0', c, message_key => 'k') FROM unnest('{plain,ordered,rated}'::text[]) c});
ok(poll_sql($node, 20, "SELECT bool_and(status = 'delivered') FROM messages"), 'all is delivered');
$session->query(q{SELECT msg_pace_set('paced', 1, '1 h')});
finds('', 'a server at work is healthy');

# the worker sleeps, and says that it is idle; what waits, waits for an hour
my $webhook = worker_pid($node, 'webhook');
poll_sql($node, 20, "SELECT state = 'idle' FROM msg_workers WHERE stage = 'webhook'");
kill 'STOP', $webhook;
my $long_ago = q{UPDATE msg_channels SET updated_at = now() - interval '1 h'; UPDATE msg_webhooks SET updated_at = now() - interval '1 h'; UPDATE msg_paces SET updated_at = now() - interval '1 h'};
$session->query($long_ago);

# waits(CHANNEL, STATUS, MORE): a message of an hour ago; its id
sub waits
{
	my ($channel, $status, %more) = @_;
	my @columns = sort keys %more;
	my $id = $session->query("SET session_replication_role = replica; INSERT INTO messages (channel, status, payload, created_at" . join('', map { ", $_" } @columns)
		  . ") VALUES ('$channel', '$status', '1', now() - interval '1 h'" . join('', map { ", $more{$_}" } @columns) . ") RETURNING id; SET session_replication_role = origin");
	return $id =~ /(\d+)/ ? $1 : die "no id: $id";
}
sub gone { $session->query("DELETE FROM messages WHERE channel = '$_[0]' AND status <> 'delivered'"); }
my $hour = "interval '1 h'";
for (['idle'], ['scheduled', due_at => "now() - $hour"], ['retry', due_at => "now() - $hour", attempts => 1],
	['received', received_at => "now() - $hour", sent_at => "now() - $hour", attempts => 1])
{
	my ($status, @more) = @$_;
	my $id = waits('plain', $status, @more);
	finds('waiting', "a message that is $status, and nobody comes");
	is(examples('waiting'), $id, 'it is named');
	gone('plain');
}
my $theirs = waits('plain', 'idle', epoch => '(SELECT max(epoch) + 1 FROM msg_names)');
finds('', 'a message of another installation is its affair');
is(examples('not-ours'), $theirs, 'and is told of');
gone('plain');
my $first = waits('ordered', 'retry', message_key => "'k'", due_at => "now() + $hour", attempts => 1);
waits('ordered', 'idle', message_key => "'k'");
finds('', 'a key waits for its first message, which is tried later');
my $other = waits('ordered', 'idle', message_key => "'other'");
finds('waiting', 'another key of the channel');
is(examples('waiting'), $other, 'is found alone');
$session->query("DELETE FROM messages WHERE id = $other");
$session->query("SET session_replication_role = replica; UPDATE messages SET due_at = now() - $hour WHERE id = $first; SET session_replication_role = origin");
finds('waiting', 'the first message of a key is due');
is(examples('waiting'), $first, 'and those behind it are not named');
gone('ordered');

my $before = $session->query("SELECT id FROM messages WHERE channel = 'rated'");
waits('rated', 'idle');
$session->query("SET session_replication_role = replica; UPDATE messages SET delivered_at = now(), finished_at = now() WHERE id = $before; SET session_replication_role = origin");
is($session->query($found), '', 'a rate by which the channel moves');
$session->query("SET session_replication_role = replica; UPDATE messages SET sent_at = NULL, delivered_at = now() - $hour, finished_at = now() - $hour WHERE id = $before; SET session_replication_role = origin");
finds('waiting', 'and one by which it does not');
gone('rated');

waits('paced', 'idle');
$session->query(q{UPDATE msg_paces SET next_at = now() + interval '1 h'; UPDATE msg_runs SET started_at = now() - interval '2 h', finished_at = now() - interval '2 h'});
finds('', 'a pace whose next run is to come');
$session->query(q{UPDATE msg_paces SET next_at = now() - interval '1 h', updated_at = now() - interval '1 h'});
finds('waiting', 'and one whose run does not begin');
gone('paced');
$session->query(q{SELECT msg_pace_drop('paced')});
kill 'CONT', $webhook;
finds('', 'all is well again');

# ---- a scheduler that does not say what the channels need
my $scheduler = worker_pid($node, 'scheduler');
kill 'STOP', $scheduler;
$session->query(q{SELECT msg_channel_set('kafka', topic => 'kafka')});
is($session->query($found), '', 'what has just been set need not be there');
$session->query($long_ago);
finds('not-started', 'no relay is started');
is(examples('not-started'), 'receiver,relay', 'nor a receiver');
kill 'CONT', $scheduler;
finds('', 'they are, then') if ok(poll_sql($node, 20, "SELECT bool_and(state <> 'not needed') FROM msg_workers"), 'the scheduler goes on');
$session->query(q{SELECT msg_channel_drop('kafka')});

# ---- processes, as a forged view of them shows; each in a transaction that is rolled back
my $slots = q{OUT database text, OUT stage text, OUT worker integer, OUT pid integer, OUT state text, OUT started_at timestamptz,
	OUT active_at timestamptz, OUT counters jsonb, OUT last_error text, OUT last_error_at timestamptz, OUT error_over_at timestamptz};
my $library = q{OUT version text, OUT preloaded boolean, OUT launcher integer, OUT channels integer};
$session->query("DO \$d\$ BEGIN EXECUTE format('CREATE FUNCTION real_slots($slots) RETURNS SETOF record AS %L, %L LANGUAGE C', probin, prosrc) FROM pg_proc WHERE proname = 'msg_worker_slots';
	EXECUTE format('CREATE FUNCTION real_library($library) AS %L, %L LANGUAGE C', probin, prosrc) FROM pg_proc WHERE proname = 'msg_check_library'; END \$d\$");

# forged(WHAT, SLOTS, LIBRARY): what is found where these are the queries behind msg_worker_slots() and msg_check_library()
sub forged
{
	my ($what, $of_slots, $of_library, $text) = @_;
	$session->query('BEGIN');
	$session->query("CREATE OR REPLACE FUNCTION msg_worker_slots($slots) RETURNS SETOF record LANGUAGE sql AS \$f\$ $of_slots \$f\$") if $of_slots;
	$session->query("CREATE OR REPLACE FUNCTION msg_check_library($library) RETURNS record LANGUAGE sql AS \$f\$ $of_library \$f\$") if $of_library;
	is($session->query($found), $what, $text);
	is($session->query(q{SELECT count(*) FROM msg_check() WHERE detail ~ 'error: ?\.$'}), 0, 'no error is announced that there is not');
	$session->query('ROLLBACK');
}
my $all = 'SELECT * FROM public.real_slots()';
my $state = sub { "SELECT database, stage, worker, pid, CASE WHEN stage = '$_[0]' THEN '$_[1]' ELSE state END, started_at, active_at, counters, last_error, last_error_at, error_over_at FROM public.real_slots()" };
forged('', $all, 'SELECT * FROM public.real_library()', 'what is so');
forged('two-workers', "$all UNION ALL $all WHERE stage = 'webhook'", undef, 'a seat with two workers');
forged('two-workers', q{SELECT database, stage, worker, NULLIF(pid, pid), state, started_at, active_at, counters, last_error, last_error_at, error_over_at FROM public.real_slots()}, undef, 'processes that sit nowhere');
forged('no-seat', "$all WHERE stage <> 'relay'", undef, 'no seat for a relay');
forged('no-such-process', q{SELECT database, stage, worker, CASE WHEN stage = 'relay' THEN 1 ELSE pid END, state, started_at, active_at, counters, last_error, last_error_at, error_over_at FROM public.real_slots()},
	undef, 'a seat whose process is gone');
forged('no-process', $state->('webhook', 'no worker slot'), undef, 'no process can be started');
forged('worker-stopped', $state->('webhook', 'stopped'), undef, 'a worker that ended');
forged('no-database', $state->('relay', 'no database'), undef, 'a database that takes no connections');
forged('broker-settings', $state->('relay', 'broker settings wrong'), undef, 'settings that the Kafka client does not take');
forged('broker-down', $state->('relay', 'broker down'), undef, 'a broker that does not answer');
forged('', $state->('relay', 'copy, not adopted'), undef, 'a worker of a copy is no finding of its own');
forged('extension-absent', $state->('relay', 'extension absent'), undef, 'a worker that sees no extension');
forged('', $state->('relay', $_), undef, "$_ is no finding") for 'not needed', 'standby', 'no broker set', 'starting', 'paused';
forged('setting', "$all UNION ALL SELECT 'other', 'relay', g, NULL, 'idle', now(), now(), '{}', NULL, NULL, NULL FROM generate_series(1, 30) g", undef, 'more processes than there may be');
forged('', "$all UNION ALL SELECT 'other', 'relay', g, NULL, 'not needed', now(), now(), '{}', NULL, NULL, NULL FROM generate_series(1, 30) g", undef, 'seats that need none are not counted');
forged('no-launcher', undef, 'SELECT version, preloaded, NULL::integer, channels FROM public.real_library()', 'no launcher');
forged('max-channels', undef, 'SELECT version, preloaded, launcher, 16 FROM public.real_library()', 'no place for another channel');
forged('version', undef, q{SELECT '0', preloaded, launcher, channels FROM public.real_library()}, 'an older library');
forged('not-preloaded', undef, 'SELECT version, false, launcher, channels FROM public.real_library()', 'no preload');

# while the worker is busy, messages wait for their turn; unless later ones had theirs long ago
my $busy = $state->('webhook', 'busy');
$webhook = worker_pid($node, 'webhook');
kill 'STOP', $webhook;
my $passed = waits('plain', 'idle');
$session->query($long_ago);
forged('', $busy, undef, 'a message that waits for its turn');
waits('plain', 'delivered', delivered_at => "now() - $hour", finished_at => "now() - $hour", received_at => "now() - $hour", sent_at => "now() - $hour", message_key => "'later'");
forged('waiting', $busy, undef, 'a message that was passed over');
forged('', $busy . q{ UNION ALL SELECT database, stage, 1, NULL, 'busy', started_at, active_at, counters, NULL, NULL, NULL FROM public.real_slots() WHERE stage = 'webhook'}, undef,
	'but with two workers the later one may be the other one\'s');
gone('plain');
kill 'CONT', $webhook;

# the launcher ends, once: the same is found, until it has started again and taken over what runs
my $workers = $session->query("SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM msg_workers");
ok(poll_until(30, sub {
	$session->query(q{SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE backend_type = 'msgsys launcher'});
	return $session->query($found) eq 'no-launcher';
}), 'the launcher ends, and that is found');
finds('', 'it starts again');
is($session->query("SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM msg_workers"), $workers, 'with the same workers');

# ---- places of channels: all taken, and given back
$session->query("SELECT msg_channel_set('p' || g), msg_pause('p' || g) FROM generate_series(1, 20) g");
$session->query("SELECT msg_webhook_set('p' || g, '" . $sink->url('/ok') . "') FROM generate_series(1, 20) g");
$session->query("SELECT msg_create('1', 'p' || g) FROM generate_series(1, 20) g");
finds('max-channels', 'more channels than places');
$session->query("SELECT msg_channel_drop('p' || g, discard => true) FROM generate_series(1, 20) g");
finds('', 'the places are taken back');

# ---- the counter of what waits
$session->query("SELECT msg_pause('plain')");
waits('plain', 'idle') for 1 .. 15;
my $counted = q{SELECT coalesce(string_agg(array_to_string(examples, ','), ' '), '') FROM msg_check() WHERE "check" = 'backlog-counter'};
is($session->query($counted), 'plain', 'a counter that differs from the table');
gone('plain');
is($session->query($counted), '', 'and one that does not');
$session->query("SELECT msg_resume('plain')");

# ---- what holds rows, whatever its age
my $holds = q{SELECT coalesce(string_agg("check" || ' ' || examples[1], ' ' ORDER BY "check"), '') FROM msg_check_holds(NULL, '0', '0', 0)};
# at an age of 0 a worker's transaction is one, too, for a moment
ok(poll_sql($node, 10, $holds, ''), 'nothing holds rows');
my $holder = session($node);
$holder->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM messages');
my $pid = $holder->query('SELECT pg_backend_pid()');
ok(poll_sql($node, 10, $holds, "old-snapshot $pid"), 'an open transaction');
$holder->query('ROLLBACK');
$holder->query("BEGIN; INSERT INTO msg_pauses VALUES ('nowhere'); PREPARE TRANSACTION 'held'");
ok(poll_sql($node, 10, $holds, 'prepared held'), 'a prepared one');
$holder->query("ROLLBACK PREPARED 'held'");
$holder->query(q{SELECT pg_create_logical_replication_slot('slot', 'test_decoding')});
$holder->query('CREATE TABLE spends_a_transaction ()');
ok(poll_sql($node, 10, $holds, 'replication-slot slot'), 'a slot that nobody reads');
$holder->query(q{SELECT pg_drop_replication_slot('slot')});
$_->stop for $holder, $session;
$node->stop;

# ---- settings that leave messages to nobody
$node = new_node('nobody', 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.webhook_workers' => 0, 'msgsys.acks_topic' => '', 'msgsys.kafka_brokers' => '127.0.0.1:1');
expect_findings('nobody: nobody postgres' => 'its settings leave messages to nobody', 'broker-down: nobody' => 'there is no Kafka');
$session = session($node);
$session->query("SET client_min_messages = error; SELECT msg_channel_set('hook'), msg_channel_set('acks', topic => 'acks', ack => 'topic'); SELECT msg_webhook_set('hook', '" . $sink->url('/ok') . "')");
waits('hook', 'idle');
waits('acks', 'sent', sent_at => 'now()', attempts => 1);
is($session->query(q{SELECT string_agg(concat_ws(': ', channel, reason), ', ' ORDER BY channel) FROM msg_unreachable_channels}),
	'acks: msgsys.acks_topic is empty, hook: msgsys.webhook_workers is 0', 'no acknowledgement topic, no webhook workers');
$session->stop;
$node->stop;
$sink->stop;
done_testing();
