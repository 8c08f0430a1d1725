# Whatever is in a message, an answer, a configuration row or the database's way: the webhook worker goes on, nothing is
# sent again in a loop, and what was answered is written down in the end.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

my $sink = Sink->new;
my $node = new_node('weberrors', 'msgsys.webhook_allow' => '127.0.0.1', 'log_statement' => 'none');
my $session = session($node);
$session->query("SELECT msg_channel_set('first'); SELECT msg_webhook_set('first', '" . $sink->url('/ok') . "')");
ok(poll_sql($node, 20, "SELECT count(*) FROM msg_workers WHERE stage = 'webhook' AND state = 'idle'", 1), 'a webhook worker runs');
my $pid = worker_pid($node, 'webhook');

# channel(NAME, PATH, SETTINGS): a channel with a webhook at the sink
sub channel
{
	my ($name, $path, $settings) = @_;
	$session->query("SET client_min_messages = error; SELECT msg_channel_set('$name', max_attempts => 4, retry_base => '20 ms', retry_max => '100 ms')");
	$session->query("SELECT msg_webhook_set('$name', '" . $sink->url($path) . "', retry_schedule => '{}', breaker_share => 2, timeout => '5 s')");
	$session->query("SELECT msg_webhook_set('$name', $settings)") if $settings;
}

sub create { return $session->query("SELECT msg_create('{\"n\": 1}', '$_[0]'" . ($_[1] ? ", $_[1]" : '') . ')') =~ s/.*\n//sr; }
sub ends { my ($id, $status, $what) = @_; is($session->query("SELECT msg_wait($id, 'delivered', '20 s')"), $status, $what); }
sub fill { my ($channel, $n) = @_; $session->query("INSERT INTO messages (channel, payload) SELECT '$channel', to_jsonb(g) FROM generate_series(1, $n) g"); }
sub all_end { my ($channel, $status, $n, $what) = @_; return ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE channel = '$channel' AND status = '$status'", $n), $what); }
sub goes_on { my ($what) = @_; is(worker_pid($node, 'webhook'), $pid, "$what: the worker goes on"); }
sub once
{
	my ($path, $n, $what) = @_;
	my %seen;
	$seen{ $_->{headers}{'webhook-id'} }++ for $sink->requests(sub { $_[0]{path} eq $path });
	is(scalar(keys %seen) . ' ' . grep({ $_ > 1 } values %seen), "$n 0", "$what: each was sent once");
}

# a trigger that fires in workers too: the way of a full disk, or of any error, of rows that are chosen
$session->query('CREATE TABLE broken (id bigint, state text)');
# how often: what no rollback takes back
$session->query('CREATE SEQUENCE breaks; GRANT ALL ON SEQUENCE breaks TO public');
$session->query(q{CREATE FUNCTION break() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM public.broken b WHERE b.id IS NULL OR b.id = NEW.id) THEN
		PERFORM nextval('public.breaks');
		RAISE EXCEPTION USING ERRCODE = (SELECT max(state) FROM public.broken), MESSAGE = 'broken by the test';
	END IF;
	RETURN NEW;
END $$});
$session->query('CREATE TRIGGER break BEFORE UPDATE ON messages FOR EACH ROW EXECUTE FUNCTION break(); ALTER TABLE messages ENABLE ALWAYS TRIGGER break');

# ---- one outcome that cannot be written
channel('one', '/ok/201');
my $bad = $session->query(q{BEGIN; INSERT INTO messages (channel, payload) SELECT 'one', to_jsonb(g) FROM generate_series(1, 300) g;
	INSERT INTO broken SELECT max(id) - 100, 'XX000' FROM messages; COMMIT; SELECT id FROM broken}) =~ s/.*\n//sr;
all_end('one', 'delivered', 299, 'one outcome cannot be written: the others are');
ok(poll_until(10, sub { log_count($node, qr/could not write down what became of message $bad /) }), 'it is named in the log');
once('/ok/201', 300, 'one outcome');
$session->query('DELETE FROM broken');
ends($bad, 'delivered', 'and written once that works');
once('/ok/201', 300, 'then too');
goes_on('one outcome');

# ---- nothing can be written: a full disk
channel('full', '/ok/202');
$session->query("INSERT INTO broken VALUES (NULL, '53100')");
$session->query("SELECT setval('breaks', 1)");
fill('full', 2000);
ok(poll_until(20, sub { log_count($node, qr/could not write down what became of messages: broken/) }), 'a full disk is told');
# a try ends after about ten failures, and they come ever later
ok(poll_sql($node, 30, 'SELECT last_value > 60 FROM breaks'), 'writing is tried again');
my $sent = $sink->requests(sub { $_[0]{path} eq '/ok/202' });
cmp_ok($sent, '<', 400, "and little more is sent meanwhile: $sent");
$session->query('DELETE FROM broken');
all_end('full', 'delivered', 2000, 'all are delivered once it has room');
once('/ok/202', 2000, 'a full disk');
goes_on('a full disk');

# ---- somebody has the table
channel('locked', '/ok/203');
my $other = session($node);
$other->query('BEGIN; LOCK TABLE messages');
my $posted = $sink->requests(sub { $_[0]{path} eq '/ok/203' });
poll_until(2, sub { log_count($node, qr/could not read messages for webhooks|msgsys webhooks wait/) });
$other->query("INSERT INTO messages (channel, payload) SELECT 'locked', to_jsonb(g) FROM generate_series(1, 100) g; COMMIT");
all_end('locked', 'delivered', 100, 'a lock on the table is waited for');
goes_on('a lock');

# ---- a message that is no request
channel('huge', '/ok/204');
$session->query(q{SET session_replication_role = replica; INSERT INTO messages (channel, payload) SELECT 'huge',
	(SELECT jsonb_agg(round(1e131071::numeric, 16383)) FROM generate_series(1, 200)); RESET session_replication_role});
fill('huge', 50);
all_end('huge', 'dead', 1, 'a payload of 3 kB whose text is 29 MB is dead');
all_end('huge', 'delivered', 50, 'the others are delivered');
like($session->query("SELECT last_error FROM messages WHERE channel = 'huge' AND status = 'dead'"), qr/body is longer than/, 'it says why');
channel('template', '/ok/205', q{body_template => jsonb_build_object('all', repeat('{payload}', 40))});
$session->query(q{SELECT msg_create(to_jsonb(repeat('x', 500000)), 'template')});
fill('template', 10);
all_end('template', 'dead', 1, 'a template that makes too much of a message: it is dead');
all_end('template', 'delivered', 10, 'the others are delivered');
goes_on('a message that is no request');

# ---- odd rows of the configuration, and of messages
channel('odd', '/until/2/503', q{retry_schedule => '{178000000 years,-1 day}', retry_after_max => '170000000 years'});
my $id = create('odd', q{message_key => 'k'});
ok(poll_sql($node, 10, "SELECT due_at > now() + interval '99 years' FROM messages WHERE id = $id AND status = 'retry'"), 'a wait of ages is a hundred years');
$session->query("UPDATE messages SET due_at = now(), attempts = -2147483648 WHERE id = $id");
ok(poll_sql($node, 10, "SELECT attempts > -2147483648 FROM messages WHERE id = $id"), 'an impossible number of attempts');
$session->query("UPDATE messages SET due_at = now(), attempts = 2147483647, status = 'retry', finished_at = NULL WHERE id = $id");
ok(poll_sql($node, 10, "SELECT status IN ('dead', 'delivered') FROM messages WHERE id = $id"), 'the other one');
channel('secret', '/ok/206');
channel('sound', '/ok/207');
$session->query(q{INSERT INTO msg_webhook_secrets (channel, kind, value) VALUES ('secret', 'signing', 'nonsense')});
$session->query(q{SELECT msg_webhook_set('sound', headers => '{"x-a": "b"}')});
my $held = create('secret');
ends(create('sound'), 'delivered', 'a secret that cannot be read: other webhooks work');
ok(poll_sql($node, 20, "SELECT disabled_reason LIKE 'its settings cannot be used: a signing secret%' FROM msg_webhooks WHERE channel = 'secret'"), 'its own is disabled, and says why');
is($session->query("SELECT status FROM messages WHERE id = $held"), 'idle', 'its messages wait');
$session->query("DELETE FROM msg_webhook_secrets WHERE channel = 'secret'; SELECT msg_webhook_enable('secret')");
ends($held, 'delivered', 'until that is repaired');
goes_on('odd settings');

# ---- a run that cannot be written down
channel('paced', '/ok/208');
$session->query("SELECT msg_pace_set('paced', 10, '100 ms')");
$session->query(q{ALTER TABLE msg_runs ADD CONSTRAINT broken CHECK (channel <> 'paced') NOT VALID});
fill('paced', 20);
ok(poll_until(10, sub { log_count($node, qr/could not write down a run of channel "paced"/) }), 'a run that cannot be written down is told');
ends(create('sound'), 'delivered', 'others go on');
$session->query(q{ALTER TABLE msg_runs DROP CONSTRAINT broken});
all_end('paced', 'delivered', 20, 'and it is made once it can be');
goes_on('a run');

# ---- dropped during a request that then fails
channel('dropped', '/delay/1000/status/503');
$id = create('dropped');
ok(poll_until(10, sub { poll_sql($node, 1, "SELECT count(*) > 0 FROM msg_worker_slots() WHERE stage = 'webhook' AND state = 'busy'", 't') }), 'a request is under way');
$session->query("SELECT msg_channel_drop('dropped', discard => true)");
ends(create('sound'), 'delivered', 'another one, meanwhile');
ok(poll_until(10, sub { $sink->requests(sub { $_[0]{path} eq '/delay/1000/status/503' }) }), 'it is answered');
ok(poll_sql($node, 10, "SELECT count(*) > 0 FROM msg_attempts WHERE message_id = $id"), 'and its attempt written down');
is($session->query("SELECT status FROM messages WHERE id = $id"), 'cancelled', 'a message whose channel was dropped stays cancelled');
$session->query("SELECT msg_channel_set('received', topic => 'received', ack => 'topic')");
$session->query("SELECT msg_webhook_set('received', '" . $sink->url('/delay/1000/status/502') . "', timeout => '5 s')");
$id = create('received');
$session->query("SELECT msg_ack($id)");
ok(poll_sql($node, 10, "SELECT state = 'busy' FROM msg_workers WHERE stage = 'webhook'"), 'the request of a received one is under way');
$session->query("SELECT msg_webhook_drop('received')");
ok(poll_sql($node, 10, "SELECT count(*) > 0 FROM msg_attempts WHERE message_id = $id"), 'its attempt is written down');
is($session->query("SELECT status || ' ' || (finished_at IS NOT NULL) FROM messages WHERE id = $id"), 'received true', 'a message whose webhook was dropped stays received');
goes_on('a drop');

# ---- answers in characters that the database has not, and in none
$node->safe_psql('postgres', q{CREATE DATABASE ascii TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'});
$node->safe_psql('postgres', q{CREATE DATABASE latin1 TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'});
$node->append_conf('postgresql.conf', "msgsys.databases = 'postgres, ascii, latin1'\n");
$node->reload;
for my $database ('ascii', 'latin1')
{
	$node->safe_psql($database, "SET client_min_messages = error; CREATE EXTENSION msgsys; SELECT msg_channel_set(c, max_attempts => 1) FROM unnest('{good,bad}'::text[]) c;
		SELECT msg_webhook_set('good', '" . $sink->url('/echo') . "', keep_attempts => true); SELECT msg_webhook_set('bad', '" . $sink->url('/echo/500') . "', breaker_share => 2)");
	# a JSON of escapes; one in UTF-8; bytes of no encoding
	my @bodies = map { unpack 'H*', $_ } '{"id": "a \\u4e2d \\u4e2d \\ud83d \\u0000 \\u00e9 z"}', "{\"id\": \"\xe4\xb8\xad\"}", "{\"id\": \"\xff\xfe \x80\"}", "\xe4\xb8 \xff\x01\x1b", "\xc3" x 3000;
	$node->safe_psql($database, "SELECT msg_create_raw('\\x$_', c) FROM unnest('{good,bad}'::text[]) c") for @bodies;
	ok(poll_until(20, sub { $node->safe_psql($database, 'SELECT count(*) FROM messages WHERE finished_at IS NULL') == 0 }), "$database: whatever an answer is in, it counts");
	is($node->safe_psql($database, 'SELECT channel, status, attempts, count(*) FROM messages GROUP BY 1, 2, 3 ORDER BY 1'), "bad|dead|1|5\ngood|delivered|1|5", "$database: once");
	is($node->safe_psql($database, "SELECT count(excerpt) FROM msg_attempts WHERE channel = 'bad'"), 5, "$database: what it said is kept");
	is($node->safe_psql($database, "SELECT response_id FROM messages WHERE channel = 'good' ORDER BY id LIMIT 1"), 'a ? ? ? ? ? z', "$database: with marks for what is not there");
}
is(log_count($node, 'conversion between|invalid byte sequence'), 0, 'nothing failed for that');

is($session->query("SELECT count(*) FROM messages WHERE finished_at IS NULL"), 0, 'nothing is unfinished');
$session->query('DROP TRIGGER break ON messages; DROP FUNCTION break(); DROP TABLE broken');
$sink->stop;
$node->stop;
done_testing();
