# The receiver takes records as they come: before their relay has committed, twice, late, of unknown or cancelled
# messages, of rows that somebody holds, of topics that a channel has left; and several receivers share the work.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;
use Time::HiRes 'time';

my ($bootstrap) = kafka_start();
my $node = new_node('receiver', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.receiver_workers' => 2, 'msgsys.relay_workers' => 2,
	'max_worker_processes' => 20);
ok(poll_sql($node, 20, "SELECT count(*) > 0 AND bool_and(state IN ('idle', 'not needed')) FROM msg_workers WHERE database = 'postgres'", 't'), 'two relays and two receivers run');
kafka_create_topic($bootstrap, $_, 6) for qw(news old new);
$node->safe_psql('postgres', "SELECT msg_channel_set('news', topic => 'news')");
my $uuid = $node->safe_psql('postgres', 'SELECT uuid FROM msg_installation');
my $session = session($node);
my $holder = session($node);

# record(NAME, KEY, headers…): write a record
sub record
{
	my ($id, $key, @headers) = @_;
	open(my $pipe, '|-', 'kcat', '-P', '-b', $bootstrap, '-t', 'news', '-k', $key, map { ('-H', $_) } "ce_id=$id", @headers) or die "kcat: $!";
	print $pipe "record $id\n";
	return close $pipe || die 'kcat failed';
}

# stamped(ID, KEY): write a record as a relay does
sub stamped
{
	my ($id, $key) = @_;
	return record("$uuid:$id", $key, 'msgsys-stamp=' . record_stamp($node, $id));
}

# counter(NAME, N, WHAT): it reaches N
sub counter
{
	my ($name, $n, $what) = @_;
	return ok(poll_sql($node, 10, "SELECT value >= $n FROM msg_stats() WHERE stage = 'receiver' AND counter = '$name'"), $what);
}

sub status { return $session->query("SELECT status FROM messages WHERE id = $_[0]"); }

# ---- the whole, by two of each
$session->query(q{INSERT INTO messages (channel, message_key, payload) SELECT 'news', 'key ' || g % 100, to_jsonb(g) FROM generate_series(1, 5000) g});
ok(poll_sql($node, 30, q{SELECT count(*) FROM messages WHERE status = 'received'}, 5000), 'all are received');
is($session->query(q{SELECT count(*) FROM msg_workers WHERE stage = 'receiver' AND received > 0}), 2, 'both receivers have taken their share');
is($session->query(q{SELECT sum(next_offset) FROM msg_offsets WHERE topic = 'news'}), 5000, 'positions are at the end');
check_topic($node, $bootstrap, 'news', 'true', 'two receivers');

# ---- a record that comes before its relay has committed: here, before it has even claimed
my ($early, $cancelled) = split /\n/, $session->query(q{SELECT msg_pause('news'); SELECT pg_sleep(0.1); SELECT msg_create('"early"', 'news', message_key => 'e'); SELECT msg_create('"x"', 'news')}) =~ s/^\w\n\n//r;
$session->query("SELECT msg_cancel($cancelled)");
my $forged = $session->query(q{SELECT msg_create('"forged"', 'news')});
record("$uuid:$forged", 'e');
record("$uuid:$forged", 'e', 'msgsys-stamp=' . record_stamp($node, $early));
record("$uuid:$forged", 'e', 'msgsys-stamp=' . record_stamp($node, $forged) =~ s/.$/ /r);
stamped($early, 'e');
stamped($cancelled, 'x');
record("$uuid:999999999", 'x');
record("$uuid:0", 'x');
record("$uuid:99999999999999999999", 'x');
record('00000000-0000-0000-0000-000000000001:' . $early, 'x');
record('nothing like it', 'x');
record("$uuid:$early", 'e', 'msgsys-attempt=many');
$session->query(q{SELECT msg_resume('news')});
is($session->query("SELECT msg_wait($early, 'received', '10 s')"), 'received', 'an early record counts');
is($session->query("SELECT count(*) FROM messages WHERE id = $early AND sent_at IS NOT NULL AND finished_at IS NOT NULL"), 1, 'the row is complete');
counter('records', 5012, 'all records are read');
$session->query("SELECT msg_wait($forged, 'received', '10 s')");
is(status($cancelled), 'cancelled', 'a cancelled message stays so');
my $stats = stats($node);
cmp_ok($stats->{'receiver.foreign'}, '>=', 9, 'records of others, and those that only say that they are ours, are counted');
cmp_ok($stats->{'receiver.unmatched'}, '>=', 1, 'so are those of messages that nobody waits for');

# ---- twice, and late
my $before = $session->query("SELECT received_at FROM messages WHERE id = $early");
stamped($early, 'e') for 1 .. 3;
counter('records', 5015, 'repeated records are read');
is($session->query("SELECT received_at FROM messages WHERE id = $early"), $before, 'and change nothing');

# ---- somebody holds the row of one message: the others go on, and it follows
my @ids = split /\n/, $session->query(q{SELECT msg_pause('news'); SELECT pg_sleep(0.1); SELECT msg_create(to_jsonb(g), 'news', message_key => 'h') FROM generate_series(1, 20) g}) =~ s/^\w\n\n//r;
$holder->query("BEGIN; SELECT FROM messages WHERE id = $ids[5] FOR UPDATE");
stamped($_, 'h') for @ids;
$session->query(q{SELECT msg_resume('news')});
ok(poll_sql($node, 10, "SELECT count(*) FROM messages WHERE id BETWEEN $ids[0] AND $ids[-1] AND status = 'received'", 19), 'a locked row holds up no other');
is(status($ids[5]), 'idle', 'it waits for its owner');
my ($held) = grep { ($_->{headers}{ce_id} // '') eq "$uuid:$ids[5]" } read_topic($bootstrap, 'news');
my $unstored = "SELECT next_offset <= $held->{offset} FROM msg_offsets WHERE topic = 'news' AND partition = $held->{partition}";
is($session->query($unstored), 't', 'the stored position stays below it');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid, 5000) FROM msg_workers WHERE stage = 'receiver'});
ok(poll_sql($node, 20, "SELECT count(*) > 0 AND bool_and(state IN ('idle', 'not needed')) FROM msg_workers WHERE database = 'postgres'", 't'), 'receivers end, and start again');
$holder->query('COMMIT');
is($session->query("SELECT msg_wait($ids[5], 'received', '10 s')"), 'received', 'released, it is received');
ok(poll_sql($node, 10, $unstored, 'f'), 'and the position moves on');

# ---- a channel changes its topic while messages are under way: the old topic is read until they are done
$session->query(q{SELECT msg_channel_set('moving', topic => 'old')});
my $first = $session->query(q{SELECT msg_create('1', 'moving')});
is($session->query("SELECT msg_wait($first, 'received', '10 s')"), 'received', 'received through the old topic');
kcat_produce($bootstrap, 'old', 'something else');
$session->query(q{SELECT msg_pause('moving'); SELECT pg_sleep(0.1); SELECT msg_create(to_jsonb(g), 'moving') FROM generate_series(1, 10) g});
my $last = $session->query(q{SELECT max(id) FROM messages WHERE channel = 'moving'});
open(my $pipe, '|-', 'kcat', '-P', '-b', $bootstrap, '-t', 'old', '-H', "ce_id=$uuid:$last", '-H', 'msgsys-stamp=' . record_stamp($node, $last)) or die;
print $pipe "sent to the old topic before the change\n";
close $pipe or die;
$session->query(q{SELECT msg_channel_set('moving', topic => 'new'); SELECT msg_resume('moving')});
is($session->query(qq{SELECT msg_wait($last, 'received', '10 s')}), 'received', 'what went to the old topic is received');
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel = 'moving' AND status <> 'received'}, 0), 'the rest goes through the new one');
cmp_ok(scalar(read_topic($bootstrap, 'new')), '>=', 9, 'which has them');

# ---- many records of one id in a batch, in any order, and acknowledgements beside them
$session->query(q{SELECT msg_channel_set('acked', topic => 'acked', ack => 'topic')});
@ids = split /\n/, $session->query(q{SELECT msg_create(to_jsonb(g), 'acked') FROM generate_series(1, 1000) g});
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel = 'acked' AND status = 'sent'}, 1000), 'a thousand wait for their consumer');
kcat_produce($bootstrap, 'msgsys.acks', map { my $id = $_; map { qq({"id": "$uuid:$id", "status": "$_", "attempt": 1}) } qw(received delivered received failed received) } @ids);
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel = 'acked' AND status = 'delivered'}, 1000), 'the strongest word counts, in whatever order')
  or diag($session->query(q{SELECT status, count(*) FROM messages WHERE channel = 'acked' GROUP BY 1}));
$node->stop;
done_testing();
