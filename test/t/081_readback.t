# What must not stop the receiver, nor leave a message `sent` for ever: a record that cannot be marked, a database that
# takes no mark at all, words in characters that the database has not, an acknowledgement that comes before the relay's
# commit, and records that Kafka has no more when they are to be read back.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

my ($bootstrap) = kafka_start(undef, 'log.cleaner.backoff.ms=200', 'log.initial.task.delay.ms=0', 'log.retention.check.interval.ms=300');
my $node = new_node('readback', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.databases' => 'postgres, ascii, latin1', 'max_worker_processes' => 40,
	'msgsys.webhook_allow' => '127.0.0.1');
my $sink = Sink->new;
$node->safe_psql('postgres', q{CREATE DATABASE ascii TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'});
$node->safe_psql('postgres', q{CREATE DATABASE latin1 TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'});
my $session = session($node);
my $holder = session($node);
$session->query(q{SET client_min_messages = error});
ok(wait_workers($node), 'workers run');
kafka_create_topic($bootstrap, $_, 1) for qw(data trimmed again gone hooked hooked.retry remade bomb grown acked ascii latin1);
$session->query("SELECT msg_channel_set('$_', topic => '$_')") for qw(data trimmed gone remade bomb grown);
$session->query(qq{SELECT msg_channel_set('hooked', topic => 'hooked'); SELECT msg_webhook_set('hooked', url => '@{[$sink->url('/ok')]}')});
$session->query(q{SELECT msg_channel_set('again', topic => 'again', resend_after => '2 s')});
$session->query(q{SELECT msg_channel_set('acked', topic => 'acked', ack => 'topic', retry_base => '1 h', retry_max => '1 h')});
my $uuid = $session->query('SELECT uuid FROM msg_installation');

sub create { my ($channel, $n) = @_; return split /\n/, $session->query("SELECT msg_create(to_jsonb(g), '$channel') FROM generate_series(1, $n) g"); }
sub counter { return $session->query("SELECT coalesce(sum(value), 0) FROM msg_stats() WHERE stage = 'receiver' AND counter = '$_[0]'"); }
# how often a mark has failed is a sequence, which no rollback takes back
$session->query('CREATE SEQUENCE tries; GRANT ALL ON SEQUENCE tries TO public');
sub fails
{
	my ($when) = @_;
	$session->query(qq{CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN PERFORM nextval('public.tries'); RAISE 'cannot be'; END \$\$;
		CREATE TRIGGER fail BEFORE UPDATE ON messages FOR EACH ROW WHEN (NEW.status = 'received' AND $when) EXECUTE FUNCTION fail();
		ALTER TABLE messages ENABLE ALWAYS TRIGGER fail});
	return;
}

# all_received(CHANNEL, N, WHAT): all are at their end
sub all_received
{
	my ($channel, $n, $what) = @_;
	return ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel = '$channel' AND status = 'received' AND finished_at IS NOT NULL", $n), $what)
	  || diag($session->query("SELECT status, attempts, count(*) FROM messages WHERE channel = '$channel' GROUP BY 1, 2; SELECT * FROM msg_offsets WHERE topic = '$channel'"));
}

# stopped(STAGE, CODE): while its worker stands still
sub stopped
{
	my ($stage, $code) = @_;
	my $pid = $session->query("SELECT pid FROM msg_workers WHERE stage = '$stage' AND database = 'postgres'");
	kill('STOP', $pid) == 1 or die "no $stage";
	$code->();
	kill('CONT', $pid);
	return;
}

# ---- one record that cannot be marked
create('data', 1);
all_received('data', 1, 'a first one');
my $poison = 1 + $session->query('SELECT last_value FROM messages_id_seq') + 50;
fails("NEW.id = $poison");
my $restarts = $session->query(q{SELECT started_at FROM msg_workers WHERE stage = 'receiver'});
create('data', 100);
all_received('data', 100, 'a record that cannot be marked holds up no other');
# others have to pass while it fails
ok(poll_until(20, sub { create('data', 1); counter('set_aside') == 1 }), 'after three tries it is set aside');
my ($partition, $offset) = split /\|/, $session->query("SELECT kafka_partition, kafka_offset FROM messages WHERE id = $poison");
like(slurp_file($node->logfile), qr/passes over a record that it could not mark: cannot be\n.*Message $poison, topic "data", partition $partition, offset $offset\./, 'which is logged');
ok(poll_sql($node, 10, q{SELECT next_offset = high FROM msg_offsets WHERE topic = 'data'}), 'the position passes it');
is($session->query(q{SELECT started_at FROM msg_workers WHERE stage = 'receiver'}), $restarts, 'the receiver has not ended');

# ---- nothing can be marked
$session->query('DROP TRIGGER fail ON messages');
fails('true');
my $position = $session->query(q{SELECT next_offset FROM msg_offsets WHERE topic = 'data'});
$session->query(q{SELECT setval('tries', 1)});
create('data', 1);
ok(poll_until(20, sub { log_count($node, 'receiver cannot mark messages') > 0 }), 'where nothing can be marked, the receiver waits');
# one message, tried with all and alone
ok(poll_sql($node, 20, 'SELECT last_value > 2 * 4 FROM tries'), 'and tries again, more often than a record alone is');
is($session->query(q{SELECT next_offset FROM msg_offsets WHERE topic = 'data'}), $position, 'and the position stays');
$session->query('DROP TRIGGER fail ON messages');
all_received('data', $session->query(q{SELECT count(*) FROM messages WHERE channel = 'data'}), 'then all is marked');
is(counter('set_aside'), 1, 'nothing was set aside for that');
like($session->query("SELECT last_error FROM messages WHERE id = $poison"), qr/and not read back: its record was gone/, 'what was passed over is settled, with the reason');

# ---- a failure that is told before the relay has committed: here, it holds the row
$session->query(q{SELECT msg_pause('acked')});
my ($early, $named) = create('acked', 2);
$holder->query("BEGIN; UPDATE messages SET status = 'sent', sent_at = now(), attempts = 1, kafka_partition = 0, kafka_offset = id WHERE id = $early");
$session->query(q{SELECT msg_resume('acked')});
ok(poll_sql($node, 10, "SELECT status FROM messages WHERE id = $named", 'sent'), 'the other one is sent');
kcat_produce($bootstrap, 'msgsys.acks', qq({"id": "$uuid:$early", "status": "failed", "error": "too fast"}));
ok(poll_sql($node, 10, q{SELECT count(*) > 0 FROM pg_locks WHERE NOT granted}) || counter('postponed') > 0, 'the receiver meets the lock');
$holder->query('COMMIT');
ok(poll_sql($node, 10, "SELECT status || ' ' || last_error FROM messages WHERE id = $early", 'retry too fast'), 'the failure counts');

# ---- a mark that was lost: the attempt that failed is the one that was under way
$session->query("SET session_replication_role = replica; UPDATE messages SET status = 'scheduled', due_at = now() + interval '1 h', attempts = 1 WHERE id = $named; RESET session_replication_role");
kcat_produce($bootstrap, 'msgsys.acks', qq({"id": "$uuid:$named", "status": "failed", "attempt": 2}));
ok(poll_sql($node, 10, "SELECT status || ' ' || attempts FROM messages WHERE id = $named", 'retry 2'), 'a failure of the attempt under way counts');

# ---- words with many brackets, and such as no encoding has
my ($deep) = create('acked', 1);
ok(poll_sql($node, 10, "SELECT status FROM messages WHERE id = $deep", 'sent'), 'sent');
kcat_produce($bootstrap, 'msgsys.acks', qq({"id": "$uuid:$deep", "status": "failed", "error": ") . ('[{' x 800) . '\\"{' . qq(", "more": [) . join(',', ('[]') x 100) . ']}');
ok(poll_sql($node, 10, "SELECT status FROM messages WHERE id = $deep", 'retry'), 'an error text with 1,600 brackets is no nesting');
is($session->query("SELECT octet_length(last_error) FROM messages WHERE id = $deep"), 1000, 'of which 1,000 bytes are kept');
for my $database ('ascii', 'latin1')
{
	$node->safe_psql($database, 'CREATE EXTENSION msgsys');
	my $other = session($node, $database);
	$other->query("SELECT msg_channel_set('$database', topic => '$database', ack => 'topic', retry_base => '1 h', retry_max => '1 h')");
	my ($id, $own) = ($other->query("SELECT msg_create('1', '$database')"), $other->query('SELECT uuid FROM msg_installation'));
	my $status = sub { $other->query("SELECT status FROM messages WHERE id = $id") };
	ok(poll_until(20, sub { $status->() eq 'sent' }), "$database: sent");
	kcat_produce($bootstrap, 'msgsys.acks', qq({"id": "$own:$id", "status": "failed", "error": "a \\\\u4e2d \\u4e2d \\ud83d\\ude00 \\ud83d \\u0000 \\u0041 \\u0022 z"}));
	ok(poll_until(20, sub { $status->() eq 'retry' }), "$database: an acknowledgement with characters that it has not counts");
	is($other->query("SELECT last_error FROM messages WHERE id = $id"), 'a \u4e2d ? ? ? ? A " z', "$database: they are question marks");
	$other->stop;
}

# ---- retention removes records before they are read back; where resend_after is set, they are sent again
create($_, 1) for qw(trimmed again gone hooked);
all_received($_, 1, "$_: a first one") for qw(trimmed again gone);
ok(poll_sql($node, 20, q{SELECT status FROM messages WHERE channel = 'hooked'}, 'delivered'), 'hooked: a first one');
stopped('receiver', sub {
	# what is sent first may be on its way to it already
	create($_, 25) for qw(trimmed again gone hooked);
	poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel IN ('trimmed', 'again', 'gone', 'hooked') AND status = 'sent'}, 100);
	create($_, 25) for qw(trimmed again gone hooked);
	ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel IN ('trimmed', 'again', 'gone', 'hooked') AND status = 'sent'}, 200), 'they are sent, and not read');
	kafka_topic($bootstrap, 'trim', $_) for qw(trimmed again hooked);
	kafka_topic($bootstrap, 'delete', 'gone');
});
# the reconciler looks at once, and leaves them to the receiver
$session->query(q{SELECT msg_channel_set('another')});
all_received('trimmed', 51, 'what retention removed is finished');
cmp_ok($session->query(q{SELECT count(*) FROM messages WHERE channel = 'trimmed' AND last_error ~ 'and not read back: its record was gone'}), '>', 0, 'with the reason');
ok(poll_sql($node, 10, q{SELECT gap_to > gap_from AND gap_at IS NOT NULL FROM msg_offsets WHERE topic = 'trimmed'}), 'the gap is told');
all_received('again', 51, 'with resend_after, it is sent again');
is($session->query(q{SELECT count(*) FROM messages WHERE channel = 'again' AND last_error IS NOT NULL}), 0, 'and read back');
all_received('gone', 51, 'what was in a deleted topic is finished');
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel = 'hooked' AND status = 'delivered'}, 51), 'where there is a webhook, it is called')
  or diag($session->query(q{SELECT status, finished_at IS NULL, last_error, count(*) FROM messages WHERE channel = 'hooked' GROUP BY 1, 2, 3}));

# ---- a topic that is made again, with more records than were read of it, before a receiver reads on
create('remade', 30);
all_received('remade', 30, 'remade: the first ones');
stopped('receiver', sub {
	kafka_topic($bootstrap, 'delete', 'remade');
	# the broker makes it when it is asked for it
	create('remade', 200);
	ok(poll_sql($node, 40, q{SELECT count(*) FROM messages WHERE channel = 'remade' AND status = 'sent'}, 200), 'remade: more are sent');
	$session->query(q{SELECT pg_terminate_backend(pid) FROM msg_workers WHERE stage = 'receiver' AND database = 'postgres'});
});
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel = 'remade' AND status = 'received' AND coalesce(last_error, '') !~ 'not read back'}, 230),
	'remade: all are received by their records, of which those below the old position count too')
  or diag($session->query(q{SELECT status, kafka_partition, min(kafka_offset), max(kafka_offset), last_error, count(*) FROM messages WHERE channel = 'remade' GROUP BY 1, 2, 5; SELECT * FROM msg_offsets WHERE topic = 'remade'}));

# ---- a compacted topic, and one whose records are kept for seconds; with a webhook, too
kafka_create_topic($bootstrap, $_, 1, 'cleanup.policy=compact', 'segment.ms=100', 'min.cleanable.dirty.ratio=0.01', 'max.compaction.lag.ms=200', 'delete.retention.ms=100') for qw(compacted compacted_hook);
kafka_create_topic($bootstrap, 'short', 1, 'retention.ms=1000', 'segment.ms=100');
kafka_create_topic($bootstrap, 'compacted_hook.retry', 1);
my @brief = qw(compacted compacted_hook short);
$session->query("SELECT msg_channel_set('$_', topic => '$_')") for @brief;
$session->query("SELECT msg_webhook_set('compacted_hook', '" . $sink->url('/ok') . "')");
sub keyed { my ($n) = @_; $session->query("INSERT INTO messages (channel, message_key, payload) SELECT '$_', 'one key', to_jsonb(g) FROM generate_series(1, $n) g") for @brief; }
sub sent { return poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel IN ('compacted', 'compacted_hook', 'short') AND status = 'sent'", $_[0]); }
sub records { my %at = map { $_->{offset} => 1 } read_topic($bootstrap, $_[0]); return scalar keys %at; }
keyed(1);
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel IN ('compacted', 'short') AND status = 'received' OR channel = 'compacted_hook' AND status = 'delivered'}, 3), 'compacted, short: first ones');
stopped('receiver', sub {
	keyed(1);
	sent(3);
	keyed(39);
	ok(sent(120), 'they are sent, and not read');
	# what is the latest segment is not cleaned
	my $n = 40;
	ok(poll_until(30, sub { keyed(1); sent(3 * ++$n); return records('short') < 30 && records('compacted') < 30 && records('compacted_hook') < 30 }), 'most of their records are gone');
});
my $kept = $session->query(q{SELECT count(*) FROM messages WHERE channel = 'compacted'});
all_received($_, $kept, "$_: all come to their end") for qw(compacted short);
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel = 'compacted_hook' AND status = 'delivered'}, $kept), 'and go to the webhook where there is one');
cmp_ok($session->query("SELECT count(*) FROM messages WHERE channel = '$_' AND last_error ~ 'and not read back'"), '>', 0, "$_: with the reason") for @brief;
$sink->stop;

# ---- a record that holds far more than its size: it is passed over, and what follows is read
create('bomb', 1);
all_received('bomb', 1, 'bomb: a first one');
my $zeros = tempdir() . '/zeros';
open(my $out, '>', $zeros) or die "$zeros: $!";
truncate $out, 120_000_000;
system('kcat', '-P', '-b', $bootstrap, '-t', 'bomb', '-p', 0, '-z', $_, '-X', 'message.max.bytes=200000000', '-X', 'queue.buffering.max.kbytes=1000000', $zeros) == 0 or die 'kcat failed' for 'zstd', 'gzip';
create('bomb', 20);
all_received('bomb', 21, 'bomb: those after it');
is(log_count($node, 'of topic "bomb": they cannot be decompressed'), 1, 'one line says what was passed over');

# ---- a partition more
create('grown', 1);
all_received('grown', 1, 'one partition');
kafka_topic($bootstrap, 'grow', 'grown', 3);
ok(poll_until(20, sub { create('grown', 10); $session->query(q{SELECT count(DISTINCT kafka_partition) FROM messages WHERE channel = 'grown'}) == 3 }), 'new partitions are written to');
all_received('grown', $session->query(q{SELECT count(*) FROM messages WHERE channel = 'grown'}), 'and read');
$node->stop;
done_testing();
