# Messages for later: sent when they are due, by Kafka and by webhooks, moved, cancelled, and never after they expire.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

my ($bootstrap, $kafka) = kafka_start();
kafka_create_topic($bootstrap, 'later', 2);
my $sink = Sink->new;
my $node = new_node('schedule', 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.kafka_brokers' => $bootstrap, 'restart_after_crash' => 'on');
ok(wait_workers($node), 'workers run');
my $session = session($node);
$session->query(q{SET client_min_messages = error; SELECT msg_channel_set('later', topic => 'later', ack => 'none'); SELECT msg_channel_set('hook')});
$session->query(q{SELECT msg_webhook_set('hook', '} . $sink->url('/ok') . q{', breaker_share => 2)});
for my $channel ('later', 'hook')
{
	my $id = $session->query("SELECT msg_create('0', '$channel')");
	like($session->query("SELECT msg_wait($id, '" . ($channel eq 'hook' ? 'delivered' : 'sent') . "', '20 s')"), qr/sent|delivered/, "$channel works");
}

# ---- when they are due, to the millisecond: each at a time that nothing else happens
for my $channel ('later', 'hook')
{
	$session->query("INSERT INTO messages (channel, event_type, payload, due_at) SELECT '$channel', 'due', to_jsonb(g), now() + g * interval '97 ms' + interval '500 ms' FROM generate_series(1, 30) g");
	ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE channel = '$channel' AND event_type = 'due' AND status IN ('sent', 'delivered')", 30), "$channel: all are sent");
	my ($least, $median, $most) = split /\|/, $session->query("SELECT min(late), percentile_cont(0.5) WITHIN GROUP (ORDER BY late), max(late) FROM (SELECT
		extract(epoch FROM coalesce(sent_at, delivered_at) - due_at) * 1000 AS late FROM messages WHERE channel = '$channel' AND event_type = 'due') l");
	cmp_ok($least, '>=', 0, "$channel: none before its time");
	cmp_ok($median, '<=', 50 * slowness(), "$channel: half of them within 50 ms");
	note("$channel: late by $least to $most ms, median $median ms");
	cmp_ok($most, '<=', 1000 * slowness(), "$channel: none much later");
}

# ---- moved and cancelled
my $id = $session->query(q{SELECT msg_create('"moved"', 'hook', deliver_at => now() + interval '1 day')});
is($session->query("SELECT msg_reschedule($id, now() + interval '300 ms')"), 't', 'a message is moved');
is($session->query("SELECT msg_wait($id, 'delivered', '20 s')"), 'delivered', 'and sent at its new time');
is($session->query("SELECT msg_reschedule($id, now())"), 'f', 'but not a second time');
$id = $session->query(q{SELECT msg_create('"at once"', 'hook', deliver_at => now() + interval '1 day')});
is($session->query("SELECT msg_reschedule($id, NULL)"), 't', 'no time is now');
is($session->query("SELECT msg_wait($id, 'delivered', '20 s')"), 'delivered', 'sent at once');
$session->query("SELECT msg_pause('hook')");
$id = $session->query(q{SELECT msg_create('"idle"', 'hook', expires_at => now() + interval '1 h')});
is($session->query("SELECT msg_reschedule($id, now() + interval '2 h')"), '', 'not beyond its expiry');
like($session->error, qr/expires before it can be sent/, 'which is said');
is($session->query("SELECT msg_reschedule($id, now() + interval '1 min')"), 't', 'what is idle can be moved');
is($session->query("SELECT status FROM messages WHERE id = $id"), 'scheduled', 'and waits');
is($session->query("SELECT msg_cancel($id)"), 't', 'what waits can be cancelled');
is($session->query("SELECT msg_reschedule($id, now())"), 'f', 'and is not moved any more');
$session->query("SELECT msg_resume('hook')");

# ---- expiry
$id = $session->query(q{SELECT msg_create('"late"', 'later', deliver_at => clock_timestamp() + interval '500 ms', expires_at => clock_timestamp() + interval '900 ms')});
kafka('pause', $kafka);
ok(poll_sql($node, 20, "SELECT clock_timestamp() > expires_at FROM messages WHERE id = $id", 't'), 'the broker hangs until a message has expired');
kafka('cont', $kafka);
ok(poll_sql($node, 30, "SELECT status IN ('expired', 'sent') FROM messages WHERE id = $id", 't'), 'then it ends');
my $hung = $session->query(q{SELECT msg_create('"slow"', 'hook', deliver_at => clock_timestamp() + interval '300 ms', expires_at => clock_timestamp() + interval '400 ms')});
$session->query("SELECT msg_pause('hook')");
ok(poll_sql($node, 20, "SELECT clock_timestamp() > expires_at FROM messages WHERE id = $hung", 't'), 'a channel is paused until a message has expired');
$session->query("SELECT msg_resume('hook')");
is($session->query("SELECT msg_wait($hung, 'delivered', '20 s')"), 'expired', 'then it is not sent');
is(scalar(grep { $_->{body} eq '"slow"' } $sink->requests), 0, 'not once');

# ---- the clock is set: what is due tomorrow is sent now
$id = $session->query(q{SELECT msg_create('"tomorrow"', 'hook', deliver_at => now() + interval '1 day')});
$node->append_conf('postgresql.conf', "msgsys.clock_offset = '1d'\n");
$node->reload;
is($session->query("SELECT msg_wait($id, 'delivered', '30 s')"), 'delivered', 'a clock that is set forward');
$node->stop;
$sink->stop;
done_testing();
