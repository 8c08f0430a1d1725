# A message has one name for ever, and no two have one: after a failover that lost a tail, a snapshot, a restore; and only
# what proves to be ours counts for it.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

my ($bootstrap) = kafka_start();
my %settings = ('msgsys.kafka_brokers' => $bootstrap, 'msgsys.relay_workers' => 1, 'msgsys.receiver_workers' => 1);
my $node = new_node('names', %settings, 'msgsys.databases' => 'postgres, there');
expect_findings(token => 'acknowledgements are forged on purpose');
kafka_create_topic($bootstrap, $_, 1) for qw(n acked msgsys.acks);
$node->safe_psql('postgres', q{SELECT msg_channel_set('n', topic => 'n'); SELECT msg_channel_set('acked', topic => 'acked', ack => 'topic')});
my $session = session($node);

# produce(TOPIC, VALUE, headers…)
sub produce
{
	my ($topic, $value, @headers) = @_;
	open(my $pipe, '|-', 'kcat', '-P', '-b', $bootstrap, '-t', $topic, map { ('-H', $_) } @headers) or die "kcat: $!";
	print $pipe "$value\n";
	return close $pipe || die 'kcat failed';
}

sub name_of { my ($on, $id) = @_; return $on->safe_psql('postgres', "SELECT n.uuid || ':' || m.id FROM messages m JOIN msg_names n USING (epoch) WHERE m.id = $id"); }

sub foreign { return stats($node)->{'receiver.foreign'} // 0; }

# ---- forged records
my $early = $session->query(q{SELECT msg_create('1', 'n')});
is($session->query("SELECT msg_wait($early, 'received', '20 s')"), 'received', 'a message');
my $tomorrow = $session->query(q{SELECT msg_create('1', 'n', deliver_at => now() + interval '1 day')});
my $name = name_of($node, $tomorrow);
produce('n', 'x', "ce_id=$name");
produce('n', 'x', "ce_id=$name", 'msgsys-stamp=' . record_stamp($node, $early));
produce('n', 'x', "ce_id=$name", 'msgsys-stamp=' . record_stamp($node, $tomorrow) =~ s/\.[0-9a-f]{16}$/.0000000000000000/r);
produce('n', 'x', "ce_id=$name", 'msgsys-stamp=' . record_stamp($node, $tomorrow, 2));    # ours, of an attempt that there was not
ok(poll_until(10, sub { foreign() >= 3 }), 'forged records are foreign');
ok(poll_sql($node, 10, q{SELECT next_offset FROM msg_offsets WHERE topic = 'n'}, 5), 'all are read');
is($session->query("SELECT status FROM messages WHERE id = $tomorrow"), 'scheduled', 'and count for nobody');

# ---- forged acknowledgements
my @ids = map { $session->query(q{SELECT msg_create('1', 'acked')}) } 1 .. 3;
ok(poll_sql($node, 10, q{SELECT count(*) FROM messages WHERE channel = 'acked' AND status = 'sent'}, 3), 'three wait for their consumer');
my @names = map { name_of($node, $_) } @ids;
my @stamps = map { $_->{headers}{'msgsys-stamp'} } sort { $a->{offset} <=> $b->{offset} } read_topic($bootstrap, 'acked');
is($stamps[0], record_stamp($node, $ids[0]), 'the stamp is what it is said to be');
my $before = foreign();
kcat_produce($bootstrap, 'msgsys.acks', qq({"id": "$names[0]", "status": "delivered", "token": "$stamps[1]"}));
ok(poll_until(10, sub { foreign() > $before }), 'a wrong token is refused, though none is needed');
kcat_produce($bootstrap, 'msgsys.acks', qq({"id": "$names[0]", "status": "delivered"}));
is($session->query("SELECT msg_wait($ids[0], 'delivered', '10 s')"), 'delivered', 'none is needed');
$session->query(q{ALTER SYSTEM SET msgsys.ack_token = on});
$node->reload;
ok(poll_until(10, sub { $before = foreign(); kcat_produce($bootstrap, 'msgsys.acks', qq({"id": "$names[2]", "status": "received", "token": "1"}));
			$node->safe_psql('postgres', 'SELECT pg_sleep(0.1)'); foreign() > $before }), 'the setting is on');
$before = foreign();
kcat_produce($bootstrap, 'msgsys.acks', qq({"id": "$names[1]", "status": "delivered", "attempt": 1}),
	qq({"id": "$names[1]", "status": "delivered", "attempt": 2, "token": "$stamps[1]"}));
ok(poll_until(10, sub { foreign() >= $before + 2 }), 'without its token an answer counts for nobody');
is($session->query("SELECT status FROM messages WHERE id = $ids[1]"), 'sent', 'the message still waits');
like($session->query(q{SELECT count, severity, examples, detail, hint FROM msg_check() WHERE "check" = 'token'}),
	qr/^[0-9]+\|warning\|\{msgsys\.acks\}\|Acknowledgements did not count: they have no token.* The first came at 20.*, the latest at 20.*\|Have consumers copy/,
	'and msg_check() says how many there were, since when, and what to do');
kcat_produce($bootstrap, 'msgsys.acks', qq({"id": "$names[1]", "status": "delivered", "token": "$stamps[1]"}));
is($session->query("SELECT msg_wait($ids[1], 'delivered', '10 s')"), 'delivered', 'with it, it does');

# ---- ids of 19 digits
my $large = 9223372036854775806;
$session->query(qq{INSERT INTO messages (id, channel, payload) OVERRIDING SYSTEM VALUE VALUES ($large, 'n', '1')});
is($session->query("SELECT msg_wait($large, 'received', '10 s')"), 'received', 'an id of 19 digits is read back');
$session->query("DELETE FROM messages WHERE id = $large");

# ---- in the transaction that makes the extension, and with a time of one's own
$node->safe_psql('postgres', 'CREATE DATABASE there');
$node->safe_psql('there', q{BEGIN; CREATE EXTENSION msgsys; SELECT msg_channel_set('n', topic => 'n'); SELECT msg_create('1', 'n');
	INSERT INTO messages (created_at, channel, payload) VALUES ('2000-01-01', 'n', '2'), ('2100-01-01', 'n', '3'), ('-infinity', 'n', '4'); COMMIT});
ok(poll_until(20, sub { $node->safe_psql('there', q{SELECT count(*) FROM messages WHERE status = 'received'}) == 4 }), 'no false alarm: all are sent and received')
  or diag($node->safe_psql('there', 'SELECT id, status, created_at, epoch FROM messages; SELECT * FROM msg_installation'));

# ---- a failover to a standby that was behind
my $standby = PostgreSQL::Test::Cluster->new('behind');
$node->backup('base');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$session->query(q{INSERT INTO messages (channel, payload) SELECT 'n', to_jsonb(g) FROM generate_series(1, 500) g});
my $last = $session->query('SELECT max(id) FROM messages WHERE id < 1000000');
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel = 'n' AND status = 'received' AND id < 1000000}, 501), 'the primary has sent a tail');
my %old = map { $_->{headers}{ce_id} => 1 } read_topic($bootstrap, 'n');
my $uuid = $session->query('SELECT uuid FROM msg_installation');
# it never gets the tail: its WAL ends where it is
my $at = $standby->safe_psql('postgres', 'SELECT pg_last_wal_replay_lsn()');
$standby->stop('immediate');
$node->stop('immediate');
$standby->append_conf('postgresql.conf', "recovery_target_lsn = '$at'\nrecovery_target_action = 'promote'\nprimary_conninfo = ''\n");
$standby->start;
ok(poll_sql($standby, 20, 'SELECT NOT pg_is_in_recovery()'), 'a standby that was behind is promoted');
cmp_ok($standby->safe_psql('postgres', q{SELECT count(*) FROM messages WHERE channel = 'n'}), '<', 100, 'without the tail');
$standby->safe_psql('postgres', q{INSERT INTO messages (channel, payload) SELECT 'n', to_jsonb(g) FROM generate_series(1, 600) g});
isnt($standby->safe_psql('postgres', 'SELECT uuid FROM msg_installation'), $uuid, 'its messages have names of another uuid');
# not because Kafka has told of it, which may be later than the first message
is(log_count($standby, 'Kafka has newer messages of ours'), 0, 'from the first one on');
cmp_ok($standby->safe_psql('postgres', "SELECT count(*) FROM messages WHERE id <= $last AND epoch = (SELECT epoch FROM msg_installation)"), '>', 400, 'ids are given again');
ok(poll_sql($standby, 30, q{SELECT count(*) FROM messages WHERE epoch = (SELECT epoch FROM msg_installation) AND status = 'received'}, 600), 'each of them is sent');
my @new = grep { !$old{ $_->{headers}{ce_id} } } read_topic($bootstrap, 'n');
my %named = map { $_->{headers}{ce_id} => 1 } @new;
is(scalar(keys %named), 600, 'under names that no record had');
ok(poll_sql($standby, 10, "SELECT lost_records > 400 FROM msg_names WHERE uuid = '$uuid'"), 'the records of the lost tail are counted');
is($standby->safe_psql('postgres', "SELECT status FROM messages WHERE id = $tomorrow"), 'scheduled', 'and what waits, waits');

# ---- both live: the old primary goes on too
$node->start;
$node->safe_psql('postgres', q{INSERT INTO messages (channel, payload) SELECT 'n', to_jsonb(g) FROM generate_series(1, 100) g});
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE channel = 'n' AND status = 'received' AND id < 1000000}, 601), 'a split brain sends');
my (%payload_of, %double);
for my $record (read_topic($bootstrap, 'n'))
{
	my $id = $record->{headers}{ce_id};
	my $stamp = $record->{headers}{'msgsys-stamp'} // next;
	next if $id eq $name;
	$double{$id} = 1 if defined $payload_of{$id} && $payload_of{$id} ne $stamp;
	$payload_of{$id} = $stamp;
}
is(scalar(keys %double), 0, 'no name is of two messages');
$node->stop;

# ---- the disk back at a snapshot: the same timeline, the same data directory
$standby->stop;
my $data = $standby->data_dir;
system('cp', '-a', $data, "$data.snapshot") == 0 or die;
$standby->start;
$standby->safe_psql('postgres', q{INSERT INTO messages (channel, payload) SELECT 'n', to_jsonb(g) FROM generate_series(1, 50) g});
ok(poll_sql($standby, 20, q{SELECT count(*) FROM messages WHERE channel = 'n' AND status <> 'received' AND id < 1000000}, 1), 'another tail is sent');
$uuid = $standby->safe_psql('postgres', 'SELECT uuid FROM msg_installation');
$standby->stop;
system("cd '$data' && find . -mindepth 1 -delete && cp -a '$data.snapshot/.' '$data'") == 0 or die;
# some are made before a worker can know
$standby->append_conf('postgresql.conf', "msgsys.databases = ''\n");
$standby->start;
my $again = join ',', split /\n/, $standby->safe_psql('postgres', q{SELECT msg_create('1', 'n', deliver_at => now() + interval '1 day') FROM generate_series(1, 5)});
is($standby->safe_psql('postgres', "SELECT DISTINCT uuid FROM messages JOIN msg_names USING (epoch) WHERE id IN ($again)"), $uuid, 'back at a snapshot, messages get names that there were');
$standby->append_conf('postgresql.conf', "msgsys.databases = 'postgres, there'\n");
$standby->reload;
ok(poll_sql($standby, 20, "SELECT uuid <> '$uuid' FROM msg_installation"), 'Kafka has what it has not: new messages get another uuid');
is($standby->safe_psql('postgres', "SELECT DISTINCT status, uuid = (SELECT uuid FROM msg_installation) FROM messages JOIN msg_names USING (epoch) WHERE id IN ($again)"), 'scheduled|t',
	'so do those, and the records of others do not count for them');
$standby->safe_psql('postgres', "DELETE FROM messages WHERE id IN ($again)");
ok(poll_sql($standby, 10, "SELECT lost_records >= 50 - 32 FROM msg_names WHERE uuid = '$uuid'"), 'and the tail is counted');
my $after = $standby->safe_psql('postgres', q{SELECT msg_create('"after"', 'n')});
ok(poll_sql($standby, 20, "SELECT status FROM messages WHERE id = $after", 'received'), 'it goes on');
$standby->stop;

# ---- a copy of the data directory, whose original goes on
my $copy = PostgreSQL::Test::Cluster->new('copy');
my $to = $copy->data_dir;
system("mkdir -p '" . ($to =~ s{/[^/]*$}{}r) . "' && cp -a '$data' '$to'") == 0 or die;
$standby->start;
$standby->safe_psql('postgres', q{INSERT INTO messages (channel, payload) SELECT 'n', to_jsonb(g) FROM generate_series(1, 100) g});
ok(poll_sql($standby, 20, q{SELECT count(*) FROM messages WHERE channel = 'n' AND status <> 'received' AND id < 1000000}, 1), 'the original goes on');
append_to_file("$to/postgresql.conf", 'port = ' . $copy->port . "\n");
$copy->start;
ok(poll_sql($copy, 20, q{SELECT count(*) > 0 AND bool_and(state = ANY ('{"copy, not adopted",not needed}')) FROM msg_workers WHERE database = 'postgres'}), 'a copy that reads newer messages of it stops')
  or diag($copy->safe_psql('postgres', 'SELECT database, stage, state FROM msg_workers; SELECT epoch, place, timeline, held_at, theirs FROM msg_names'));
is($copy->safe_psql('postgres', q{SELECT string_agg(detail, ' ') FROM msg_check() WHERE "check" = 'copy'}),
	'This is a copy of a data directory whose original goes on: nothing is sent until msg_adopt().', 'which msg_check() says once, with its cause');
$copy->safe_psql('postgres', q{SELECT msg_adopt('lives')});
my $own = $copy->safe_psql('postgres', q{SELECT msg_create('"own"', 'n')});
ok(poll_sql($copy, 20, "SELECT status FROM messages WHERE id = $own", 'received'), 'until it is adopted');
isnt(name_of($copy, $tomorrow), $name, 'what it took along has names of its own');
$copy->stop;
$standby->stop;
done_testing();
