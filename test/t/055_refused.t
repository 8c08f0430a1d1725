# What Kafka refuses of a message concerns that message alone: it is dead, with the reason, while others go on. What it refuses of a
# topic is an outage of its channel: the messages wait as they are, in order, no attempt is used up, and the reason is shown.
# And another broker list is used without a restart.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

my ($bootstrap, $dir) = kafka_start(undef, 'auto.create.topics.enable=false',
	'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer', 'super.users=User:ANONYMOUS',
	'allow.everyone.if.no.acl.found=true');
my $other = kafka_start_later("$ENV{MSGSYS_RUN}/kafka-$$-2");
my $node = new_node('refused', 'msgsys.kafka_brokers' => $bootstrap);
expect_findings('topic: refused postgres' => 'small has no topic for its dead letters');
ok(wait_workers($node), 'workers run');
kafka_create_topic($bootstrap, 'small', 2, 'max.message.bytes=100000');
kafka_create_topic($bootstrap, 'good', 2);
$node->safe_psql('postgres', "SELECT msg_channel_set('$_', topic => '$_', max_attempts => 1)")
  for qw(small good missing);
my $session = session($node);

# messages of a channel wait for its topic, as they are; the reason is shown
sub waits
{
	my ($channel, $reason, $hint) = @_;
	ok(poll_until(20, sub { $session->query("SELECT last_error FROM msg_workers WHERE stage = 'relay'") =~ $reason }), "$channel: the reason is shown");
	is($session->query("SELECT DISTINCT status || ' ' || attempts FROM messages WHERE channel = '$channel'"), 'idle 0', 'and its messages wait as they are');
	my $found = $session->query(qq{SELECT count, examples, detail, hint FROM msg_check() WHERE "check" = 'topic' AND '$channel' = ANY (examples)});
	like($found, qr/^50\|\{$channel\}\|Topic "$channel" does not take messages, since .*: .*50 messages of channels wait for it: $channel\.\|$hint/, 'which msg_check() tells of at once, with what to do');
}

# ---- too large for its topic
# random, so that compression does not make them small; the others small, so that only batches with one of them are refused
$session->query(q{CREATE FUNCTION noise(n int) RETURNS text LANGUAGE sql VOLATILE AS
	'SELECT string_agg(md5(random()::text), '''') FROM generate_series(1, n / 32)'});
$session->query(q{INSERT INTO messages (channel, message_key, payload)
	SELECT 'small', 'key ' || g % 10, to_jsonb(CASE WHEN g % 100 = 0 THEN noise(120000) ELSE rpad('small ' || g, 1000) END) FROM generate_series(1, 2000) g});
ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE channel = 'small' AND status = 'received'", 1980), 'all but the too large are received');
ok(poll_sql($node, 10, "SELECT count(*) FROM messages WHERE channel = 'small' AND status = 'dead'", 20), 'the too large are dead');
is($session->query("SELECT count(*) FROM messages WHERE status = 'dead' AND length(payload::text) < 20000"), 0, 'and only those');
like($session->query("SELECT DISTINCT last_error FROM messages WHERE status = 'dead'"), qr/too large/i, 'with the reason');
is(stats($node)->{'relay.refused'}, 20, 'each was counted once');
check_topic($node, $bootstrap, 'small', "channel = 'small' AND status <> 'dead'", 'beside what is too large');

# ---- no such topic
$session->query(q{INSERT INTO messages (channel, payload) SELECT channel, to_jsonb(g) FROM generate_series(1, 50) g, unnest('{missing,good}'::text[]) channel});
ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel = 'good' AND status = 'received'", 50), 'a missing topic holds up no other channel');
waits('missing', qr/"missing".*unknown topic/i, 'Make it in Kafka');
$session->query(q{INSERT INTO messages (channel, message_key, payload) SELECT 'missing', 'key', to_jsonb(g) FROM generate_series(51, 1050) g});
kafka_create_topic($bootstrap, 'missing', 1);
ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel = 'missing' AND status = 'received'", 1050), 'once it is there, all are received');
check_topic($node, $bootstrap, 'missing', "channel = 'missing'", 'which were created before their topic');
is($session->query("SELECT max(attempts) FROM messages WHERE channel = 'missing'"), 1, 'and no attempt was used up');
ok(poll_until(10, sub { log_count($node, 'topic "missing" takes messages again') == 1 }), 'the log says that it is over, once');
is(log_count($node, 'messages for topic "missing" wait'), 1, 'as it has said that they wait');
is($session->query(q{SELECT last_error ~ '"missing"', error_over_at > last_error_at FROM msg_workers WHERE stage = 'relay'}), 't|t', 'msg_workers too');
is($session->query(q{SELECT string_agg(detail, ' ') ~ '20 messages of channels wait for it: small' FROM msg_check() WHERE "check" = 'topic'}), 't', 'and msg_check() tells of it no more, but of dead letters whose topic nobody has made');

# ---- not authorised; the broker's own superuser is who we are, so it is another one for a while
kafka_create_topic($bootstrap, 'closed', 1);
kafka('stop', $dir);
{
	local @ARGV = ("$dir/server.properties");
	local $^I = '';
	while (<>) { s/^super\.users=.*/super.users=User:nobody/; print; }
}
kafka_start($dir);
kafka_topic($bootstrap, 'deny', 'closed');
$session->query("SELECT msg_channel_set('closed', topic => 'closed', max_attempts => 1)");
$session->query(q{INSERT INTO messages (channel, payload) SELECT channel, to_jsonb(g) FROM generate_series(51, 100) g, unnest('{closed,good}'::text[]) channel});
ok(poll_sql($node, 40, "SELECT count(*) FROM messages WHERE channel = 'good' AND status = 'received'", 100), 'a closed topic holds up no other channel');
waits('closed', qr/"closed".*authoriz/i, 'Give the user');
kafka_topic($bootstrap, 'allow', 'closed');
ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel = 'closed' AND status = 'received'", 50), 'once it is open, all are received')
  or diag($session->query("SELECT status, attempts, last_error, due_at, now(), count(*) FROM messages WHERE channel = 'closed' GROUP BY 1, 2, 3, 4, 5"), $session->query('SELECT * FROM msg_offsets'));

# ---- a topic deleted and made again, which gets more records than there were: those below the old positions count too
sub create_good { $session->query("INSERT INTO messages (channel, message_key, payload) SELECT 'good', g::text, to_jsonb(g) FROM generate_series($_[0], $_[1]) g"); }

kafka_topic($bootstrap, 'delete', 'good');
my $read = $session->query("SELECT max(next_offset) FROM msg_offsets WHERE topic = 'good'");
create_good(101, 500);
ok(poll_sql($node, 40, "SELECT last_error ~ 'topic \"good\"' FROM msg_workers WHERE stage = 'relay'"), 'a deleted topic: its messages wait');
kafka_create_topic($bootstrap, 'good', 2);
ok(poll_sql($node, 40, "SELECT count(*) FROM messages WHERE channel = 'good' AND status = 'received'", 500), 'once it is made again, all are received')
  or diag($session->query('SELECT * FROM msg_offsets'));
cmp_ok($read, '<', $session->query("SELECT min(next_offset) FROM msg_offsets WHERE topic = 'good'"), 'of which more than there were before');

# ---- another broker list, and so other topics of the same names
# which the relay has gone over to when it has a broker again
my $pid = worker_pid($node, 'relay');
my $without = "SELECT count(*) FROM msg_workers WHERE state = 'broker down'";
my $second = $other->();
$read = $session->query("SELECT max(next_offset) FROM msg_offsets WHERE topic = 'good'");
kafka('stop', $dir);
ok(poll_sql($node, 20, $without, 2), 'the broker is away');
$node->append_conf('postgresql.conf', "msgsys.kafka_brokers = '$second'\n");
$node->reload;
ok(poll_sql($node, 10, $without, 0), 'the list of brokers is another one');
create_good(501, 2000);
ok(poll_sql($node, 40, "SELECT count(*) FROM messages WHERE channel = 'good' AND status = 'received'", 2000), 'all are received through the new broker')
  or diag($session->query('SELECT * FROM msg_offsets'));
cmp_ok($read, '<', $session->query("SELECT min(next_offset) FROM msg_offsets WHERE topic = 'good'"), 'of which more than there were before');
is(scalar(read_topic($second, 'good')), 1500, 'which has what came after the change');
is(worker_pid($node, 'relay'), $pid, 'the worker is the same');
ok(poll_sql($node, 10, q{SELECT count(*) FROM msg_workers WHERE last_error IS NOT NULL AND error_over_at IS NULL}, 0), 'no error of before looks as if it was still there')
  or diag($session->query('SELECT stage, last_error, last_error_at, error_over_at FROM msg_workers'));

# ---- where the record is there that was read last, no record is read again
$node->restart;
ok(wait_workers($node), 'workers run again');
$session = session($node);
create_good(2001, 2001);
ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel = 'good' AND status = 'received'", 2001), 'a restart goes on');
is(stats($node)->{'receiver.records'}, 1, 'and reads no record again');
$node->stop;
done_testing();
