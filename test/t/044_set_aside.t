# A row never ends the relay: one that cannot be handled is set aside while others pass; when none can be marked, the relay backs off;
# and what was handed to Kafka is not produced again meanwhile.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

expect_findings('foreign-trigger' => 'a trigger makes rows fail', dead => 'a row is set aside');
my ($bootstrap, $dir) = kafka_start();
my $node = new_node('set_aside', 'msgsys.kafka_brokers' => $bootstrap);
ok(wait_workers($node), 'workers run');
kafka_create_topic($bootstrap, 'stream', 4);
# nothing is read back: only the relay marks
$node->safe_psql('postgres', "SELECT msg_channel_set('stream', topic => 'stream', ack => 'none')");
my $session = session($node);
my $pid = worker_pid($node, 'relay');

# a trigger of the owner's that fires for workers, too
$session->query(q{CREATE TABLE broken (id bigint)});
# how often a mark has failed: what no rollback takes back
$session->query('CREATE SEQUENCE tries; GRANT ALL ON SEQUENCE tries TO public');
$session->query(q{CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF new.status = 'sent' AND EXISTS (SELECT FROM public.broken b WHERE b.id IN (0, new.id)) THEN RAISE 'this row is broken' USING ERRCODE = 'XX000'; END IF;
	RETURN new; END $$});
$session->query('CREATE TRIGGER fail BEFORE UPDATE ON messages FOR EACH ROW EXECUTE FUNCTION fail()');
$session->query('ALTER TABLE messages ENABLE ALWAYS TRIGGER fail');
$session->query('GRANT SELECT ON broken TO public');

# ---- one row of many
$session->query(q{BEGIN; WITH m AS (INSERT INTO messages (channel, message_key, payload) SELECT 'stream', 'key ' || g % 10, to_jsonb(g) FROM generate_series(1, 3000) g RETURNING id)
	INSERT INTO broken SELECT id FROM m ORDER BY id OFFSET 700 LIMIT 1; COMMIT});
ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE status = 'sent'", 2999), 'all but the broken row are sent');
# others have to pass, so that it is the row's fault
ok(poll_until(20, sub { $session->query("INSERT INTO messages (channel, payload) VALUES ('stream', '1')"); $session->query("SELECT count(*) FROM messages WHERE status = 'dead'") == 1 }), 'the broken row is set aside');
is($session->query("SELECT m.last_error FROM messages m JOIN broken USING (id) WHERE status = 'dead'"), 'this row is broken', 'with the error');
my $id = $session->query('SELECT id FROM broken');
is(log_count($node, "sets message $id aside: this row is broken"), 1, 'the log names it');
my $all = $session->query('SELECT count(*) FROM messages');
ok(poll_sql($node, 10, "SELECT count(*) FROM messages WHERE status = 'idle'", 0), 'nothing waits');
is(scalar(read_topic($bootstrap, 'stream')), $all, 'every record was produced once');

# ---- all rows: it is the environment
$session->query('TRUNCATE broken');
$session->query('INSERT INTO broken VALUES (0)');
$session->query(q{INSERT INTO messages (channel, message_key, payload) SELECT 'stream', 'key ' || g % 10, to_jsonb(g) FROM generate_series(1, 2000) g});
my $from = log_count($node);
ok(poll_until(20, sub { $session->query("SELECT last_error FROM msg_workers WHERE stage = 'relay'") =~ /broken/ }), 'nothing can be marked: the error is shown');
ok(poll_until(20, sub { my $n = 0; $n++ for read_topic($bootstrap, 'stream'); $n > $all }), 'some of it was handed over');
is($session->query("SELECT count(*) FROM messages WHERE status = 'dead'"), 1, 'no row is set aside for it');
$session->query('TRUNCATE broken');
ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE status = 'idle'", 0), 'once it is mended, all are sent');
is(scalar(read_topic($bootstrap, 'stream')), $all + 2000, 'and none was produced twice');
cmp_ok(log_count($node, 'could not handle a batch', $from), '<=', 3, 'the log is not filled');

# ---- one that fails alone is cancelled meanwhile: the next of its key keeps its place
kafka_create_topic($bootstrap, 'single', 1);
$session->query(q{SELECT msg_channel_set('single', topic => 'single', ack => 'none')});
my $make = q{INSERT INTO messages (channel, message_key, payload) VALUES ('single', 'one key', '1') RETURNING id};
my $broken = $session->query("BEGIN; WITH m AS ($make) INSERT INTO broken SELECT id FROM m; COMMIT; SELECT id FROM broken") =~ s/.*\n//sr;
my $failed = q{SELECT extract(epoch FROM last_error_at) FROM msg_worker_slots() WHERE stage = 'relay' AND last_error ~ 'broken'};
for (1 .. 2)
{
	my $at = $session->query($failed) || 0;
	ok(poll_until(10, sub { ($session->query($failed) || 0) > $at }), 'it fails');
}
kafka('pause', $dir);
$session->query(q{INSERT INTO messages (channel, payload) VALUES ('stream', '1')});
ok(poll_sql($node, 20, q{SELECT state FROM msg_workers WHERE stage = 'relay'}, 'broker down'), 'Kafka hangs');
is($session->query("SELECT msg_cancel($broken)"), 't', 'it is cancelled');
my @next = map { $session->query($make) =~ s/\n.*//sr } 1 .. 20;
my $now = $session->query('SELECT clock_timestamp()');
ok(poll_sql($node, 20, "SELECT clock_timestamp() > '$now'::timestamptz + interval '5 s'"), 'it would be tried again');
kafka('cont', $dir);
ok(poll_sql($node, 10, "SELECT count(*) FROM messages WHERE channel = 'single' AND status = 'sent'", 20), 'the others are sent');
is($session->query(q{SELECT count(*) FROM (SELECT kafka_offset, lag(kafka_offset) OVER (ORDER BY id) AS before FROM messages WHERE channel = 'single') m WHERE before > kafka_offset}), 0, 'in their order');
$session->query('TRUNCATE broken');

# ---- one row, and nothing else: at fault once it has failed for long, if something else can be written
# alone(NAME, COLUMNS, VALUES): such a row is set aside
sub alone
{
	my ($name, $columns, $values) = @_;
	my $alone = $session->query("WITH m AS (INSERT INTO messages (channel, payload$columns) VALUES ('stream', '1'$values) RETURNING id) INSERT INTO broken SELECT id FROM m RETURNING id");
	ok(poll_sql($node, 40, "SELECT last_error FROM messages WHERE id = $alone AND status = 'dead'", 'this row is broken'), "$name: it is set aside");
	is(log_count($node, "sets message $alone aside"), 1, 'as the log says');
	return;
}
$session->query(q{CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF new.status IN ('sent', 'expired') AND EXISTS (SELECT FROM public.broken b WHERE b.id IN (0, new.id)) THEN RAISE 'this row is broken' USING ERRCODE = 'XX000'; END IF;
	RETURN new; END $$});
alone('one that cannot be marked sent', '', '');
alone('one that has expired', ', expires_at', ", now() + interval '1 ms'");
is($session->query('SELECT count(*) FROM msg_breakers'), 0, 'and nothing is left of the write');

# ---- a client of a mailing for whom no message can be made is left out, and neither the mailing nor others stand still
$session->query(q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF new.event_type = 'mailing' AND new.message_key IN (SELECT id::text FROM public.msg_clients WHERE tag = 'broken') THEN RAISE 'this client is broken' USING ERRCODE = 'XX000'; END IF;
	RETURN new; END $$; CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse(); ALTER TABLE messages ENABLE ALWAYS TRIGGER refuse});
$session->query(q{SELECT msg_client_set('7900' || lpad(g::text, 7, '0'), tag => CASE WHEN g IN (400, 401) THEN 'broken' ELSE 'well' END) FROM generate_series(1, 500) g});
my ($first, $second) = map { $session->query("SELECT msg_mailing_create('text $_', now() + interval '1 h', channel => 'stream')") } 1 .. 2;
ok(poll_sql($node, 40, "SELECT count(*) FROM msg_mailings WHERE status = 'expanded' AND left_out = 2", 2), 'two mailings leave out two clients each');
is($session->query("SELECT count(*) FROM msg_mailing_links WHERE mailing_id = $_"), 498, 'the others get it') for $first, $second;
is(log_count($node, "mailing $_ leaves out client \\d+: this client is broken"), 2, 'as the log says') for $first, $second;
$session->query('DROP TRIGGER refuse ON messages');

# ---- one row, and nothing else, and it is the environment
my ($dead, $records) = ($session->query("SELECT count(*) FROM messages WHERE status = 'dead'"), scalar(read_topic($bootstrap, 'stream')));
$session->query(q{CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF new.status = 'sent' AND EXISTS (SELECT FROM public.broken b WHERE b.id = 0) THEN PERFORM nextval('public.tries'); RAISE 'the disk is full' USING ERRCODE = '53100'; END IF;
	RETURN new; END $$});
$session->query('INSERT INTO broken VALUES (0)');
$session->query(q{INSERT INTO messages (channel, payload) VALUES ('stream', '1')});
ok(poll_sql($node, 20, 'SELECT last_value >= 5 FROM tries'), 'a full disk: the only message is tried again and again');
is($session->query("SELECT count(*) FROM messages WHERE status = 'dead'"), $dead, 'and not set aside');
$session->query('TRUNCATE broken');
ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE status = 'idle'", 0), 'it is sent at last');
is(scalar(read_topic($bootstrap, 'stream')), $records + 1, 'once');

# ---- a row that no trigger saw, with nothing in it
my $empty = $session->query("SET session_replication_role = replica; INSERT INTO messages (channel) VALUES ('stream') RETURNING id");
$session->query("RESET session_replication_role; INSERT INTO messages (channel, payload) VALUES ('stream', '1')");
ok(poll_sql($node, 20, "SELECT status FROM messages WHERE id = $empty", 'sent'), 'what has neither payload nor body is sent');
is_deeply([ map { $_->{value} } grep { $_->{headers}{ce_id} =~ /:$empty$/ } read_topic($bootstrap, 'stream') ], [''], 'as an empty record');
is(worker_pid($node, 'relay'), $pid, 'the relay is the same');
$node->stop;
done_testing();
