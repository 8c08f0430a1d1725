# Changes of the configuration: what becomes of a message in each status, as docs/configuration-changes.md has it. Nothing
# stays unfinished that nobody will act on, also where the change came while work was under way.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

my ($bootstrap) = kafka_start();
my $sink = Sink->new;
my $node = new_node('config', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.kafka_topic' => 'default',
	'msgsys.kafka_ack' => 'topic', 'msgsys.acks_topic' => 'acks', 'max_connections' => 40);
expect_findings(nobody => 'messages are left that wait for another configuration', 'not-listed' => 'a second database has no workers');
my $session = session($node);
$session->query('SET client_min_messages = error');
expect_findings(nobody => 'messages are left that wait for another configuration', 'not-listed' => 'a second database has no workers');
my $url = $sink->url('/ok');
my $hook = sub { "SELECT msg_webhook_set('$_[0]', '$url')" };

# What a message becomes: its status, with a point where it is finished, and ! where a dead letter waits.
# CHANNEL => [ settings before (topic, ack, webhook), the change, and what each becomes that was
# scheduled, idle, sent, received, retry, or dead with a dead letter to be written ]
my @columns = qw(scheduled idle sent received retry dead);
my %changes = (
	'topic-changed'      => [ q{topic => 'T'},                  q{SELECT msg_channel_set('C', topic => 'T2')},    qw(scheduled received. sent received. received. dead.) ],
	'topic-taken'        => [ q{topic => 'T'},                  q{SELECT msg_channel_set('C', topic => '')},      qw(scheduled idle sent received. retry dead.) ],
	'topic-taken-ack'    => [ q{topic => 'T', ack => 'topic'},  q{SELECT msg_channel_set('C', topic => '')},      qw(scheduled idle sent received. retry dead.) ],
	'topic-taken-hook'   => [ q{topic => 'T', hook},            q{SELECT msg_channel_set('C', topic => '')},      qw(scheduled delivered. sent delivered. delivered. dead.) ],
	'topic-set'          => [ q{hook},                          q{SELECT msg_channel_set('C', topic => 'T')},     qw(scheduled delivered. sent delivered. delivered. dead.) ],
	'ack-none'           => [ q{topic => 'T'},                  q{SELECT msg_channel_set('C', ack => 'none')},    qw(scheduled sent. sent. received. sent. dead.) ],
	'ack-topic'          => [ q{topic => 'T'},                  q{SELECT msg_channel_set('C', ack => 'topic')},   qw(scheduled sent sent received. sent dead.) ],
	'ack-topic-readback' => [ q{topic => 'T', ack => 'topic'},  q{SELECT msg_channel_set('C', ack => 'readback')}, qw(scheduled received. sent. received. received. dead.) ],
	'ack-none-readback'  => [ q{topic => 'T', ack => 'none'},   q{SELECT msg_channel_set('C', ack => 'readback')}, qw(scheduled received. sent. received. received. dead.) ],
	'hook-set'           => [ q{topic => 'T'},                  'hook',                                           qw(scheduled delivered. sent delivered. delivered. dead.) ],
	'hook-dropped'       => [ q{topic => 'T', hook},            q{SELECT msg_webhook_drop('C')},                  qw(scheduled received. sent received. received. dead.) ],
	'hook-dropped-only'  => [ q{hook},                          q{SELECT msg_webhook_drop('C')},                  qw(scheduled idle sent. received. retry dead.) ],
	'hook-disabled'      => [ q{topic => 'T', hook},            q{SELECT msg_webhook_enable('C', false)},         qw(scheduled received sent received received dead.) ],
	'hook-enabled'       => [ q{topic => 'T', hook, disabled},  q{SELECT msg_webhook_enable('C')},                qw(scheduled delivered. sent delivered. delivered. dead.) ],
	'dropped'            => [ q{topic => 'T', hook},            q{SELECT msg_channel_drop('C', discard => true)}, qw(cancelled. cancelled. sent. received. cancelled. dead.) ],
	'deleted'            => [ q{topic => 'T'},                  q{DELETE FROM msg_channels WHERE channel = 'C'},  qw(scheduled idle sent. received. retry dead.) ],
	'paused'             => [ q{topic => 'T', hook},            q{SELECT msg_pause('C')},                         qw(scheduled idle sent received retry dead!) ],
	'pace'               => [ q{topic => 'T'},                  q{SELECT msg_pace_set('C', 1, '10 ms')},          qw(scheduled received. sent received. received. dead.) ],
	'attempts-lowered'   => [ q{topic => 'T', max_attempts => 9}, q{SELECT msg_channel_set('C', max_attempts => 1)}, qw(scheduled received. sent received. received. dead.) ],
	'resend'             => [ q{topic => 'T', ack => 'topic', max_attempts => 2}, q{SELECT msg_channel_set('C', resend_after => '1 s')}, qw(scheduled dead. dead. received. dead. dead.) ],
	'resend-taken'       => [ q{topic => 'T', ack => 'topic', resend_after => '1 h'}, q{SELECT msg_channel_set('C', resend_after => '0')}, qw(scheduled sent sent received. sent dead.) ],
);

# make(CHANNEL, HOW): a message of each status in it
sub make
{
	my ($channel) = @_;
	# that its record is gone is found out some seconds after it was sent: not while this test looks
	my $ahead = $channel =~ /^resend/ ? '0' : '1 h';
	# the record that is not read back is either ahead of what is read, or (where nothing was read yet) the first of the topic
	my $offset = $channel =~ /^ack-/ && $channel =~ /readback$/ ? 0 : 1000000;
	$session->query(qq{INSERT INTO messages (channel, event_type, status, due_at, sent_at, received_at, finished_at, attempts, kafka_partition, kafka_offset, dlq_pending, payload)
		SELECT '$channel', s, s::msg_status, CASE s WHEN 'scheduled' THEN now() + interval '1 h' WHEN 'retry' THEN now() END,
			CASE WHEN s IN ('sent', 'received') THEN now() + interval '$ahead' END, CASE s WHEN 'received' THEN now() END, CASE s WHEN 'dead' THEN now() END,
			CASE WHEN s IN ('sent', 'received', 'retry', 'dead') THEN 1 ELSE 0 END, CASE s WHEN 'sent' THEN 0 END, CASE s WHEN 'sent' THEN $offset END,
			CASE s WHEN 'dead' THEN true END, to_jsonb(s) FROM unnest('{@{[join ',', @columns]}}'::text[]) s});
	die $session->error if $session->error =~ /ERROR/;
}

for my $channel (sort keys %changes)
{
	my $settings = $changes{$channel}[0];
	kafka_create_topic($bootstrap, "$channel$_", 1) for '', '2', '.retry', '.dlq';
	# something that was there before
	kcat_produce($bootstrap, $channel, 'x', 'y') if $channel =~ /readback$/;
	my $hooked = $settings =~ s/,? ?hook//;
	my $disabled = $settings =~ s/, disabled//;
	$settings =~ s/'T'/'$channel'/;
	$session->query("SELECT msg_channel_set('$channel'" . ($settings ? ", $settings)" : ')'));
	$session->query($hook->($channel))                       if $hooked;
	$session->query("SELECT msg_webhook_enable('$channel', false)") if $disabled;
	# a topic that is read has a position from before its first record on
	$session->query("INSERT INTO msg_offsets VALUES ('$channel', 0, 0)") if $settings =~ /topic/ && $settings !~ /ack/;
	$session->query("SELECT msg_pause('$channel')");
}
ok(poll_sql($node, 20, q{SELECT count(*) FROM msg_workers WHERE state IN ('idle', 'paused')}, 4), 'workers run');
for my $channel (sort keys %changes)
{
	# at once, lest the reconciler is faster than we
	$session->query('BEGIN');
	make($channel);
	my $change = $changes{$channel}[1];
	$change = $hook->($channel) if $change eq 'hook';
	$change =~ s/'C'/'$channel'/;
	$change =~ s/'T(2?)'/'$channel$1'/;
	$session->query($change);
	die "$channel: " . $session->error if $session->error =~ /ERROR/;
	$session->query("SELECT msg_resume('$channel')") if $channel ne 'paused';
	$session->query('COMMIT');
}
my $now = q{SELECT string_agg(status || CASE WHEN finished_at IS NULL THEN '' ELSE '.' END || CASE WHEN dlq_pending THEN '!' ELSE '' END, ' ' ORDER BY id) FROM messages WHERE channel = };
for my $channel (sort keys %changes)
{
	my (undef, undef, @expected) = @{ $changes{$channel} };
	$expected[5] = 'dead.!' if $expected[5] eq 'dead!';
	ok(poll_sql($node, 20, "${now}'$channel'", "@expected"), "$channel: @expected");
}
is($session->query(q{SELECT count(*) FROM msg_unreachable WHERE ends}), 0, 'nothing is left that nobody waits for');
is($session->query(q{SELECT string_agg(DISTINCT channel || ': ' || reason, ', ' ORDER BY channel || ': ' || reason) FROM msg_unreachable}),
	'deleted: the channel does not exist, hook-disabled: the webhook of the channel is disabled, hook-dropped-only: the channel has neither topic nor webhook, '
	. 'topic-taken-ack: the channel has neither topic nor webhook, topic-taken: the channel has neither topic nor webhook', 'and what waits for another configuration is shown');
is($session->query(q{SELECT DISTINCT last_error FROM messages WHERE channel = 'ack-topic-readback' AND event_type = 'sent'}), 'its topic is read from a later record on', 'with a reason');
like($session->query(q{SELECT last_error FROM messages WHERE channel = 'topic-taken' AND event_type = 'dead'}), qr/dead letter: the channel has no topic/, 'a dead letter that has no topic is given up, with a reason');
like($session->query(q{SELECT string_agg(DISTINCT last_error || attempts, ' ') FROM messages WHERE channel = 'resend' AND event_type IN ('idle', 'sent')}),
	qr/^not acknowledged within 00:00:01 of the last of 2 attempts2$/, 'what is not acknowledged is sent max_attempts times');
ok(poll_until(20, sub { read_topic($bootstrap, "resend.dlq") == 4 }), 'and is a dead letter');
is($session->query(q{SELECT msg_ack(id), status FROM messages WHERE channel = 'ack-none' AND event_type = 'sent'}), 't|sent', 'a word that comes later still counts');
is($session->query(q{SELECT status FROM messages WHERE channel = 'ack-none' AND event_type = 'sent'}), 'received', 'as received');

# ---- a mark that was made before the change and commits after it
$session->query("SELECT msg_channel_set('race', topic => 'race', ack => 'topic'); " . $hook->('race') . q{; SELECT msg_pause('race')});
make('race');
my $marker = session($node);
$marker->query(q{BEGIN; SELECT msg_ack(id) FROM messages WHERE channel = 'race' AND event_type = 'sent'});
$session->query(q{SELECT msg_webhook_drop('race')});
ok(poll_sql($node, 10, q{SELECT finished_at IS NOT NULL FROM messages WHERE channel = 'race' AND event_type = 'received'}), 'the webhook is gone');
$marker->query('COMMIT');
ok(poll_sql($node, 30, q{SELECT status, finished_at IS NOT NULL FROM messages WHERE channel = 'race' AND event_type = 'sent'}, 'received|t'), 'a mark that decided by what was is put right');

# ---- the same under load: whatever is changed while messages are on their way
kafka_create_topic($bootstrap, "load$_", 2) for '', '2', '.retry', '2.retry';
my @steps = ($hook->('load'), q{SELECT msg_webhook_drop('load')}, q{SELECT msg_channel_set('load', ack => 'none')}, q{SELECT msg_channel_set('load', ack => 'topic')},
	q{SELECT msg_channel_set('load', ack => 'readback')}, q{SELECT msg_channel_set('load', topic => 'load2')}, q{SELECT msg_channel_set('load', topic => '')}, q{SELECT msg_channel_set('load', topic => 'load')});
$session->query(q{SELECT msg_channel_set('load', topic => 'load')});
for my $round (1 .. 4)
{
	for my $step (@steps)
	{
		$session->query(q{INSERT INTO messages (channel, payload) SELECT 'load', to_jsonb(g) FROM generate_series(1, 300) g});
		# in the middle of it
		poll_sql($node, 10, q{SELECT count(*) < 300 FROM messages WHERE channel = 'load' AND status = 'idle'}) if $step !~ /'load2?'\)$/ || $step =~ /ack/;
		$session->query($step);
	}
}
$session->query(q{SELECT msg_channel_set('load', ack => 'none')});
ok(poll_sql($node, 60, q{SELECT count(*) FROM messages WHERE channel = 'load' AND finished_at IS NULL}, 0), 'under load: all come to an end')
  or diag($session->query(q{SELECT status, count(*), min(attempts), max(attempts) FROM messages WHERE channel = 'load' AND finished_at IS NULL GROUP BY status}));

# ---- the channel "default", whose settings come with a reload
sub reload { $node->append_conf('postgresql.conf', "$_[0]\n"); $node->reload; }
kafka_create_topic($bootstrap, $_, 1) for 'default', 'default2', 'acks2';
# topics of channels that are gone may be what msgsys.kafka_topic was, for a week
$session->query(q{DELETE FROM msg_offsets WHERE topic IN ('deleted', 'dropped')});
$session->query(q{SELECT msg_pause('default')});
make('default');
$session->query(q{DELETE FROM messages WHERE channel = 'default' AND event_type NOT IN ('sent', 'received')});
ok(poll_sql($node, 10, "${now}'default'", 'sent received.'), 'default: without a webhook what was received is finished');
reload("msgsys.kafka_ack = 'none'");
ok(poll_sql($node, 20, "${now}'default'", 'sent. received.'), 'default: msgsys.kafka_ack = none');
reload("msgsys.kafka_ack = 'topic'\nmsgsys.webhook_url = '$url'");
make('default');
reload("msgsys.webhook_url = ''");
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel = 'default' AND status = 'received' AND finished_at IS NULL}, 0), 'default: msgsys.webhook_url taken away');
$session->query(q{DELETE FROM messages WHERE channel = 'default' AND status <> 'idle'; SELECT msg_resume('default')});
ok(poll_sql($node, 20, "${now}'default'", 'sent'), 'default: what was idle is sent');
reload("msgsys.kafka_topic = 'default2'\nmsgsys.acks_topic = 'acks2'");
my $id = $session->query(q{SELECT id FROM messages WHERE channel = 'default'});
my $name = $session->query("SELECT uuid || ':$id' FROM msg_installation");
$session->query(q{SELECT msg_create('1')});
ok(poll_until(20, sub { read_topic($bootstrap, 'default2') == 1 }), 'default: msgsys.kafka_topic changed');
kcat_produce($bootstrap, 'acks2', qq({"id": "$name", "status": "received"}));
ok(poll_sql($node, 20, "SELECT status FROM messages WHERE id = $id", 'received'), 'acknowledgements come from the topic of the new name');

# read back from the topic that it had before the reload
$session->query(q{DELETE FROM msg_offsets WHERE topic = 'acks'});
reload("msgsys.kafka_ack = 'readback'");
$session->query(q{SELECT msg_create('1')});
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel = 'default' AND finished_at IS NULL}, 0), 'default: read back')
  or diag($session->query(q{SELECT id, status, kafka_partition, kafka_offset, last_error FROM messages WHERE channel = 'default'; SELECT * FROM msg_offsets; SELECT * FROM msg_channel_settings WHERE channel = 'default'}));
reload("msgsys.kafka_brokers = ''");
ok(poll_sql($node, 20, q{SELECT count(*) FROM msg_workers WHERE stage = 'relay' AND state = 'no broker set'}, 1), 'no broker') or diag($session->query('SELECT stage, state FROM msg_workers'));
$session->query(q{SELECT msg_create('1')});
is($session->query(q{SELECT status, reason, ends FROM msg_unreachable WHERE channel = 'default'}), 'idle|msgsys.kafka_brokers is empty|f', 'msgsys.kafka_brokers emptied: shown, and waits');
reload("msgsys.kafka_brokers = '$bootstrap'");
ok(poll_sql($node, 30, q{SELECT count(*) FROM messages WHERE channel = 'default' AND finished_at IS NULL}, 0), 'and is sent once there is one again');

# ---- names that functions have in their text
$node->safe_psql('postgres', 'CREATE DATABASE named');
$node->safe_psql('named', 'SET client_min_messages = error; CREATE SCHEMA "Its own"; CREATE SCHEMA other; CREATE EXTENSION msgsys SCHEMA "Its own"');
$node->psql('named', "\\set VERBOSITY verbose\nALTER SCHEMA \"Its own\" RENAME TO x", stderr => \my $error);
like($error, qr/0A000.*cannot be renamed while it has the extension msgsys.*HINT/s, 'the schema of the extension keeps its name');
$node->psql('named', 'ALTER EXTENSION msgsys SET SCHEMA other', stderr => \$error);
like($error, qr/ERROR.*does not support SET SCHEMA/, 'and the extension its schema');
$node->safe_psql('named', 'ALTER SCHEMA other RENAME TO x');
like($node->safe_psql('named', q{SELECT "Its own".msg_create('1')}), qr/^1$/, 'it works on');
$node->stop;
$sink->stop;
done_testing();
