# Channels with a pace: runs of so many messages, over restarts, crashes and pauses; and what is under way when a server stops.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

my ($bootstrap, $kafka) = kafka_start();
kafka_create_topic($bootstrap, 'paced', 2);
my $sink = Sink->new;
my $node = new_node('pace', 'msgsys.webhook_allow' => '127.0.0.1', 'restart_after_crash' => 'on', 'msgsys.kafka_brokers' => $bootstrap,
	'msgsys.webhook_workers' => 2, 'msgsys.relay_workers' => 2);
ok(wait_workers($node), 'workers run');
my $session = session($node);

# channel(NAME, PATH, SETTINGS): a channel with a webhook at the sink
sub channel
{
	my ($name, $path, $settings) = @_;
	$session->query("SET client_min_messages = error; SELECT msg_channel_set('$name', max_attempts => 3, retry_base => '20 ms', retry_max => '50 ms')");
	$session->query("SELECT msg_webhook_set('$name', '" . $sink->url($path) . "', retry_schedule => '{}', breaker_share => 2" . ($settings ? ", $settings" : '') . ')');
}

# create(CHANNEL, N): messages of as many keys, so that they belong to both workers
sub create { $session->query("INSERT INTO messages (channel, message_key, payload) SELECT '$_[0]', 'key ' || g, to_jsonb(g) FROM generate_series(1, $_[1]) g"); }
sub status { my ($channel, $status, $n) = @_; return poll_sql($node, 60, "SELECT count(*) FROM messages WHERE channel = '$channel' AND status = '$status'", $n); }
sub runs { return $session->query("SELECT string_agg(claimed || '/' || succeeded || '/' || failed, ' ' ORDER BY id) FROM msg_runs WHERE channel = '$_[0]' AND claimed > 0"); }
sub path { my ($path) = @_; return grep { $_->{path} eq $path } $sink->requests; }
sub again { ok(poll_until(30, sub { (eval { $node->safe_psql('postgres', "SELECT count(*) FROM msg_workers WHERE state IN ('idle', 'busy', 'paused', 'not needed')") } // 0) eq '6' }), 'workers run again'); $session = session($node); }

# ---- a webhook
channel('three', '/ok');
$session->query(q{SELECT msg_pace_set('three', 3, '700 ms')});
create('three', 8);
ok(status('three', 'delivered', 8), '8 are delivered');
ok(poll_sql($node, 10, q{SELECT count(*) FROM msg_runs WHERE channel = 'three' AND claimed > 0 AND finished_at IS NOT NULL}, 3), 'by three runs');
is(runs('three'), '3/3/0 3/3/0 2/2/0', 'of three, three and two');
is($session->query(q{SELECT count(*) FROM msg_runs WHERE channel = 'three' AND last_id - first_id BETWEEN 1 AND 2 AND error IS NULL AND claimed > 0}), 3, 'with their ids');
ok(poll_sql($node, 10, q{SELECT count(*) >= 2 FROM msg_runs WHERE channel = 'three' AND claimed = 0 AND finished_at IS NOT NULL}, 't'), 'runs go on with nothing to send');
is($session->query(q{SELECT count(*) FROM (SELECT due_at - lag(due_at) OVER (ORDER BY id) AS step FROM msg_runs WHERE channel = 'three') s WHERE step <> '700 ms'}), 0, 'each is due an interval after the one before');
my ($least, $most) = split /\|/, $session->query(q{SELECT min(extract(epoch FROM started_at - due_at)), max(extract(epoch FROM started_at - due_at)) FROM msg_runs WHERE channel = 'three'});
cmp_ok($least, '>=', 0, 'none starts before that');
cmp_ok($most, '<', 0.3 * slowness(), 'and each then');
cmp_ok((sort { $a <=> $b } map { $_->{at} } path('/ok'))[3], '>=', $session->query(q{SELECT extract(epoch FROM due_at) FROM msg_runs WHERE channel = 'three' AND claimed > 0 ORDER BY id OFFSET 1 LIMIT 1}), 'what the endpoint sees');
is($session->query(q{SELECT msg_pace_drop('three'), msg_pace_drop('three')}), 't|f', 'the pace is taken away');
create('three', 10);
ok(status('three', 'delivered', 18), 'and all go at once');

# ---- the first run after one interval; failures count
channel('failing', '/status/500');
$session->query(q{SELECT msg_pace_set('failing', 2, '600 ms', at_once => false)});
create('failing', 3);
ok(status('failing', 'dead', 3), 'attempts that fail are made by runs too');
is($session->query(q{SELECT sum(failed) || ' ' || sum(succeeded) || ' ' || max(claimed) FROM msg_runs WHERE channel = 'failing'}), '9 0 2', 'no more than two at a time');
like($session->query(q{SELECT error FROM msg_runs WHERE channel = 'failing' AND failed > 0 LIMIT 1}), qr/500/, 'a run says why');
cmp_ok($session->query(q{SELECT extract(epoch FROM min(r.started_at) - p.updated_at) FROM msg_runs r JOIN msg_paces p USING (channel) WHERE channel = 'failing' GROUP BY p.updated_at}),
	'>=', 0.6, 'the first came after one interval');

# ---- pause
$session->query(q{SELECT msg_pause('failing', 'lunch')});
my $runs = q{SELECT count(*) FROM msg_runs WHERE channel = 'failing'};
ok(poll_sql($node, 10, q{SELECT count(*) FROM msg_runs WHERE channel = 'failing' AND finished_at IS NULL}, 0), 'paused');
my $before = $session->query($runs);
ok(poll_sql($node, 10, q{SELECT msg_now() > next_at + '1 s' FROM msg_paces WHERE channel = 'failing'}, 't'), 'no run while it is paused');
is($session->query($runs), $before, 'not one');
$session->query(q{SELECT msg_resume('failing', 'back')});
ok(poll_sql($node, 10, "SELECT count(*) > $before FROM msg_runs WHERE channel = 'failing'", 't'), 'runs go on');
is($session->query(q{SELECT count(*) FROM (SELECT due_at - lag(due_at) OVER (ORDER BY id) AS step FROM msg_runs WHERE channel = 'failing') s WHERE extract(epoch FROM step) * 10 % 6 <> 0}), 0, 'in their phase');
is($session->query(q{SELECT string_agg(concat_ws(' ', action, channel, reason, by), ', ' ORDER BY id) FROM msg_pause_log}), 'pause failing lunch postgres, resume failing back postgres', 'who paused what is written down');
$session->query(q{SELECT msg_pace_drop('failing')});

# ---- restarts: the phase stays, what is under way is finished
channel('slow', '/delay/800/ok/202', 'concurrency => 2');
$session->query(q{SELECT msg_pace_set('slow', 4, '2 s', at_once => false)});
create('slow', 12);
# the first request looks the host up, the next two go together
ok(poll_until(20, sub { path('/delay/800/ok/202') >= 3 }), 'a run is under way');
$node->stop('fast');
is(scalar(path('/delay/800/ok/202')), 3, 'a stop begins nothing more');
$node->start;
again();
is($session->query(q{SELECT claimed || '/' || succeeded FROM msg_runs WHERE channel = 'slow' AND finished_at IS NULL}), '4/3', 'what was under way was finished and is written down') or diag runs('slow');
ok(status('slow', 'delivered', 12), 'the rest is delivered');
is(scalar(path('/delay/800/ok/202')), 12, 'each once') or diag join "\n", map { "$_->{at} $_->{body}" } path('/delay/800/ok/202');
ok(poll_sql($node, 10, q{SELECT count(*) FROM msg_runs WHERE channel = 'slow' AND claimed > 0 AND finished_at IS NOT NULL}, 3), 'three runs');
is(runs('slow'), '4/4/0 4/4/0 4/4/0', 'of four each, the first gone on with after the restart');
is($session->query(q{SELECT count(*) FROM (SELECT due_at - lag(due_at) OVER (ORDER BY id) AS step FROM msg_runs WHERE channel = 'slow') s WHERE extract(epoch FROM step) * 10 % 20 <> 0}), 0, 'in the phase of before');

# ---- kill -9
channel('crash', '/delay/300/ok/203', 'concurrency => 2');
$session->query(q{SELECT msg_pace_set('crash', 4, '3 s', at_once => false)});
create('crash', 8);
ok(poll_until(20, sub { $session->query(q{SELECT count(*) FROM msg_runs WHERE channel = 'crash' AND succeeded IN (1, 3)}) eq '1' }), 'a part of a run is done');
kill 'KILL', worker_pid($node, 'webhook', 0);
again();
ok(status('crash', 'delivered', 8), 'killed: all are delivered');
ok(poll_sql($node, 10, q{SELECT count(*) FROM msg_runs WHERE channel = 'crash' AND claimed > 0 AND finished_at IS NOT NULL}, 2), 'by two runs');
is(runs('crash'), '4/4/0 4/4/0', 'of four');

# ---- Kafka
$session->query(q{SET client_min_messages = error; BEGIN; SELECT msg_channel_set('paced', topic => 'paced', ack => 'none'); SELECT msg_pace_set('paced', 3, '1 s'); COMMIT});
create('paced', 10);
ok(status('paced', 'sent', 10), 'a topic is sent to by runs');
ok(poll_sql($node, 10, q{SELECT count(*) FROM msg_runs WHERE channel = 'paced' AND claimed > 0 AND finished_at IS NOT NULL}, 4), 'four of them') or diag runs('paced');
is(runs('paced'), '3/3/0 3/3/0 3/3/0 1/1/0', 'of three');
kafka('pause', $kafka);
create('paced', 4);
ok(poll_sql($node, 20, q{SELECT count(*) FROM msg_runs WHERE channel = 'paced' AND finished_at IS NULL}, 1), 'a run waits for the broker');
kafka('cont', $kafka);
ok(status('paced', 'sent', 14), 'and is gone on with');
is($session->query(q{SELECT max(claimed) FROM msg_runs WHERE channel = 'paced'}), 3, 'never more than three at a time');

# ---- a stop within the grace period and after it
channel('long', '/delay/1500/ok/204');
create('long', 3);
ok(poll_until(20, sub { path('/delay/1500/ok/204') == 3 }), 'requests are under way');
$node->restart;
$session = session($node);
is($session->query(q{SELECT count(*) FROM messages WHERE channel = 'long' AND status = 'delivered'}), 3, 'a restart waits for them')
	or diag $session->query(q{SELECT id, status, attempts, last_error, delivered_at FROM messages WHERE channel = 'long'});
channel('longer', '/hang');
create('longer', 1);
ok(poll_until(20, sub { path('/hang') == 1 }), 'one hangs');
$node->append_conf('postgresql.conf', "msgsys.grace_period = '700 ms'\n");
$node->reload;
my $began = time;
$node->restart;
cmp_ok(time - $began, '<', 5 * slowness(), 'a restart does not wait longer than the grace period');
ok(poll_until(30, sub { path('/hang') == 2 }), 'what was not finished is done again');
$node->stop;
$sink->stop;
done_testing();
