# Messages that come late below ids that are sent already: they are sent at once when their transaction commits, woken
# by the commit alone (no poll, no sweep). And nothing is sent that a crash can undo.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;
use Time::HiRes 'time';

my ($bootstrap) = kafka_start();
my $node = new_node('late', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.poll_interval' => '1h', 'msgsys.sweep_interval' => '1h',
	'wal_writer_delay' => '10s', 'wal_writer_flush_after' => '1GB', 'autovacuum' => 'off',
	# nobody writes a page of a table, and with it WAL
	'shared_buffers' => '128MB', 'bgwriter_lru_maxpages' => 0);
ok(wait_workers($node), 'workers run');
kafka_create_topic($bootstrap, $_, 4) for qw(late crash);
$node->safe_psql('postgres', "SELECT msg_channel_set('late', topic => 'late', ack => 'none')");
my $session = session($node);
my $waiter = session($node);

# create(N): so many later messages, which are sent
sub create
{
	my ($n) = @_;
	my $last = $node->safe_psql('postgres', qq{
		INSERT INTO messages (channel, payload, message_key) SELECT 'late', to_jsonb(g), 'key ' || g % 100 FROM generate_series(1, $n) g;
		SELECT lastval()});
	return poll_sql($node, 30, "SELECT status FROM messages WHERE id = $last", 'sent');
}

# ms until a message is sent, counted from $began; -1 if it is not
sub sent_after
{
	my ($id, $began) = @_;
	my $status = $waiter->query("SELECT msg_wait($id, 'sent', '5 s')");
	return $status eq 'sent' ? int((time - $began) * 1000) : -1;
}

# in_time(ID, BEGAN, NAME[, LIMIT]): it is sent within LIMIT ms
sub in_time
{
	my ($id, $began, $name, $limit) = @_;
	my $ms = sent_after($id, $began);
	ok($ms >= 0 && $ms < ($limit // 1000), "$name: sent after $ms ms");
}

sub sweeps { return stats($node)->{'relay.sweeps'}; }

ok(create(10), 'workers know the channel');
# ids that are drawn now and used later
my ($copied, $inserted) = split /\n/, $node->safe_psql('postgres', "SELECT nextval('messages_id_seq') FROM generate_series(1, 2)");
my $sweeps = sweeps();

# a transaction that takes a low id, and commits late
my $low = $session->query("BEGIN; SELECT msg_create('\"late\"', 'late', message_key => 'k')");
ok(create(50000), '50,000 messages with higher ids are sent');
is($node->safe_psql('postgres', "SELECT count(*) FROM messages WHERE status = 'idle'"), 0, 'nothing else waits');
my $began = time;
$session->query('COMMIT');
in_time($low, $began, 'a late committer');
is(sweeps(), $sweeps, 'without a sweep');

# the same, with a subtransaction, of which one is rolled back
my ($kept, $gone, $after) = split /\n/, $session->query(q{BEGIN; SAVEPOINT a; SELECT msg_create('"kept"', 'late'); RELEASE a; SAVEPOINT b;
	SELECT msg_create('"rolled back"', 'late'); ROLLBACK TO b; SELECT msg_create('"after"', 'late')});
ok(create(1000), 'more are sent meanwhile');
$began = time;
$session->query('COMMIT');
in_time($_, $began, 'around a rolled back savepoint') for $kept, $after;
is($node->safe_psql('postgres', "SELECT count(*) FROM messages WHERE id = $gone"), 0, 'the one inside is not there');

# ids below all marks, given by the user
$began = time;
$session->query(qq{COPY messages (id, channel, payload) FROM stdin;\n$copied\tlate\t"copied"\n\\.\n});
in_time($copied, $began, 'a low id by COPY');
$began = time;
$session->query(qq{INSERT INTO messages (id, channel, payload) OVERRIDING SYSTEM VALUE VALUES ($inserted, 'late', '"inserted"')});
in_time($inserted, $began, 'a low id by OVERRIDING SYSTEM VALUE');

# a message that is due later, and one that a user makes due now
my ($due, $changed) = split /\n/, $session->query(q{SELECT msg_create('"due"', 'late', deliver_at => now() + '700 ms');
	SELECT msg_create('"changed"', 'late', deliver_at => now() + '1 day')});
ok(create(10), 'more are sent meanwhile');
$began = time;
$session->query("UPDATE messages SET status = 'idle' WHERE id = $changed");
in_time($changed, $began, 'made idle by hand');
is($waiter->query("SELECT msg_wait($due, 'sent', '10 s')"), 'sent', 'a due message is sent');
cmp_ok($node->safe_psql('postgres', "SELECT extract(epoch FROM sent_at - due_at) FROM messages WHERE id = $due"), '<', slowness(), 'when it is due');
cmp_ok($node->safe_psql('postgres', "SELECT extract(epoch FROM sent_at - due_at) FROM messages WHERE id = $due"), '>', 0, 'and not before');
# each transaction that gives ids has a name of its own, which the relay reads as it does a change of the configuration
is(sweeps(), $sweeps + 2, 'all that without a sweep, but after the two new names');

# a prepared transaction, committed by another session
my $prepared = $session->query("BEGIN; SELECT msg_create('\"prepared\"', 'late'); PREPARE TRANSACTION 'p'");
ok(create(1000), 'more are sent meanwhile');
is($node->safe_psql('postgres', "SELECT count(*) FROM messages WHERE id = $prepared"), 0, 'a prepared transaction is not seen');
$began = time;
$waiter->query("COMMIT PREPARED 'p'");
in_time($prepared, $began, 'COMMIT PREPARED');

# a row that a user holds is passed over, and sent once it is free
$node->append_conf('postgresql.conf', "msgsys.poll_interval = '200ms'\n");
$node->reload;
ok(poll_sql($node, 10, "SELECT current_setting('msgsys.poll_interval')", '200ms'), 'with a short poll interval');
$node->safe_psql('postgres', "SELECT msg_pause('late')");
my @held = split /\n/, $session->query(q{SELECT msg_create(to_jsonb(g), 'late', message_key => 'held ' || g) FROM generate_series(1, 3) g});
$session->query("BEGIN; SELECT FROM messages WHERE id = $held[1] FOR UPDATE");
$node->safe_psql('postgres', "SELECT msg_resume('late')");
is($waiter->query("SELECT msg_wait($_, 'sent', '10 s')"), 'sent', 'others go past a locked row') for @held[0, 2];
ok(create(1000), 'and so do later ones');
$sweeps = sweeps();
ok(poll_until(10, sub { sweeps() >= $sweeps + 2 }), 'sweeps go on');
is($node->safe_psql('postgres', "SELECT status FROM messages WHERE id = $held[1]"), 'idle', 'the locked row stays idle');
$began = time;
$session->query('COMMIT');
in_time($held[1], $began, 'a row after its release', 2000);
my $counts = check_topic($node, $bootstrap, 'late', 'true', 'late committers');
is($counts->{repeated}, 0, 'nothing is repeated');

# callers that commit asynchronously: what is in Kafka must be there after a crash
$node->safe_psql('postgres', "SELECT msg_channel_set('crash', topic => 'crash')");
my $reader = topic_reader($bootstrap, 'crash');
my $missing = 0;
for my $round (1 .. 3)
{
	my $caller = session($node);
	# WAL is written by whoever needs it, and by nobody else
	my $writer = $caller->query(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
	kill('STOP', $writer) == 1 or die 'no WAL writer';
	$caller->query('SET synchronous_commit = off');
	$caller->query("INSERT INTO messages (channel, payload) VALUES ('crash', '\"$round-$_\"')") for 1 .. 5;
	ok($reader->await("\"$round-5\"", 20), "round $round: seen in Kafka");
	# an immediate shutdown, that does not wait for it
	kill 'QUIT', $node->{_pid};
	kill 'KILL', $writer;
	ok(poll_until(20, sub { !-e $node->data_dir . '/postmaster.pid' }), "round $round: the server has ended");
	$node->_update_pid(0);
	$caller->stop;
	my ($seen) = scalar(() = $reader->output =~ /"$round-\d"/g);
	$node->start;
	my $there = $node->safe_psql('postgres', "SELECT count(*) FROM messages WHERE payload #>> '{}' LIKE '$round-%'");
	cmp_ok($there, '>=', $seen, "round $round: $seen seen in Kafka, $there there after an immediate shutdown");
	ok(wait_workers($node), 'workers run again');
}
ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel = 'crash' AND status <> 'received'", 0), 'all are received in the end');
check_topic($node, $bootstrap, 'crash', "channel = 'crash'", 'asynchronous commits');
$node->stop;
done_testing();
