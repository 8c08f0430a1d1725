# Rows of a transaction become visible a moment before its note is there. A relay that claims in that moment must not
# send the later rows of a key before the earlier ones, whatever it had sent before.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

my ($bootstrap) = kafka_start();
# what no note tells of is not sent
my $node = new_node('commit', 'msgsys.kafka_brokers' => $bootstrap, 'log_statement' => 'none', 'max_connections' => 60, 'msgsys.relay_workers' => 2,
	'msgsys.poll_interval' => '1h', 'msgsys.sweep_interval' => '1h', 'autovacuum' => 'off');
ok(wait_workers($node), 'workers run');
kafka_create_topic($bootstrap, 'commit', 4);
$node->safe_psql('postgres', "SELECT msg_channel_set('commit', topic => 'commit', ack => 'none')");
ok(poll_sql($node, 20, q{SELECT count(*) FROM msg_workers WHERE stage = 'relay' AND state = 'idle'}, 2), 'relays run');

# ---- a commit between the relay's look at its notes and its snapshot
my $session = session($node);
my $other = session($node);
my $pid = worker_pid($node, 'relay', 0);
my ($key, $second, $third) = split /\n/, $other->query(q{SELECT 'key ' || g FROM generate_series(1, 100) g WHERE hashtextextended('key ' || g, 0) & 1 = 0 ORDER BY g LIMIT 3});
sub create { my ($by, $of) = @_; return $by->query("INSERT INTO messages (channel, message_key, payload) VALUES ('commit', '$of', '1') RETURNING id"); }
sub sent { my ($id) = @_; return $other->query("SELECT msg_wait($id, 'sent', '20 s')"); }

is(sent(create($other, $second)), 'sent', 'the relay has made its plans');
$session->query('BEGIN');
my @ids = (create($session, $key));
is(sent(create($other, $second)), 'sent', 'a mark lies above the first id of a transaction');
push @ids, create($session, $key);
# the relay will plan its claim anew, for which it looks at every index; and before that, at its notes
$other->query('ANALYZE messages');
my $idle = "SELECT xact_start IS NULL FROM pg_stat_activity WHERE pid = $pid";
ok(poll_until(20, sub { kill 'CONT', $pid; $other->query($idle) eq 't' && kill('STOP', $pid) && $other->query($idle) eq 't' }), 'the relay stands still between two batches');
my $last = create($other, $third);
my $sweeps = "SELECT counters ->> 'sweeps' FROM msg_worker_slots() WHERE stage = 'relay' AND worker = 0";
my $before = $other->query($sweeps);
$session->query('ALTER INDEX messages_dedup SET TABLESPACE pg_default');
$session->send(qq{DO \$\$ DECLARE until timestamptz := clock_timestamp() + '20 s'; BEGIN
	WHILE NOT EXISTS (SELECT FROM pg_locks WHERE pid = $pid AND relation = 'messages_dedup'::regclass AND NOT granted) LOOP
		IF clock_timestamp() > until THEN RAISE 'the relay did not come'; END IF;
		PERFORM pg_sleep(0.001);
	END LOOP; END \$\$; COMMIT});
kill 'CONT', $pid;
$session->answer(30);
is($session->error, '', 'the transaction commits while the relay waits for an index, with its notes taken');
is(sent($_), 'sent', "message $_ is sent") for @ids, $last;
is($other->query(qq{SELECT string_agg(id::text, ' ' ORDER BY kafka_offset) FROM messages WHERE id IN ($ids[0], $ids[1])}), "@ids", 'the messages of a key are in their order');
is($other->query($sweeps), $before, 'without a sweep');

# ---- many sessions on few processors are often interrupted in that moment; their ids are mixed, so marks lie between them
my $seconds = $ENV{COMMIT_SECONDS} // 8;
my $script = tempdir() . '/insert.sql';
append_to_file($script, q{INSERT INTO messages (channel, message_key, payload) SELECT 'commit', 'key ' || :client_id || '-' || random(), to_jsonb(g) FROM generate_series(1, 1) g;});
append_to_file($script, "\n");
my $many = tempdir() . '/many.sql';
append_to_file($many, q{WITH key AS MATERIALIZED (SELECT 'key ' || :client_id || '-' || random() AS key)
	INSERT INTO messages (channel, message_key, payload) SELECT 'commit', key, to_jsonb(g) FROM key, generate_series(1, 50) g;} =~ s/\s+/ /gr . "\n");
$node->command_ok([ 'pgbench', '-n', '-c', 24, '-j', 2, '-T', $seconds, '-R', 500, '-f', "$script\@1", '-f', "$many\@3", 'postgres' ], 'many sessions create messages');
ok(poll_sql($node, 60, "SELECT count(*) FROM messages WHERE status = 'idle'", 0), 'all are sent');
my $counts = check_topic($node, $bootstrap, 'commit', 'true', 'many commits at once');
cmp_ok($counts->{committed}, '>', 10000, "$counts->{committed} were checked");
$node->stop;
done_testing();
