# Logical replication between two installations: what arrives is its publisher's, and the configuration reaches the workers.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

my ($bootstrap) = kafka_start();
my %settings = ('msgsys.kafka_brokers' => $bootstrap, 'msgsys.relay_workers' => 1, 'msgsys.receiver_workers' => 1, wal_level => 'logical');
my ($publisher, $subscriber) = map { new_node($_, %settings) } qw(publisher subscriber);
kafka_create_topic($bootstrap, $_, 1) for qw(r own);
$publisher->safe_psql('postgres', q{SELECT msg_channel_set('r', topic => 'r'); SELECT msg_pause('r'); SELECT msg_create('1', 'r');
	SELECT msg_archive_partition(now()); CREATE PUBLICATION p FOR TABLE messages, msg_names, msg_channels, msg_webhooks});
$subscriber->safe_psql('postgres', q{SELECT msg_channel_set('own', topic => 'own')});
my $connection = $publisher->connstr('postgres') =~ s/'/''/gr;
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION s CONNECTION '$connection' PUBLICATION p");
ok(poll_sql($subscriber, 30, q{SELECT count(*) FROM messages WHERE channel = 'r'}, 1), 'rows arrive');
$publisher->safe_psql('postgres', q{INSERT INTO messages (channel, payload) SELECT 'r', to_jsonb(g) FROM generate_series(2, 100) g});
ok(poll_sql($subscriber, 30, q{SELECT count(*) FROM messages WHERE channel = 'r' AND status = 'idle'}, 100), 'and wait in both');
# ids of its own, as the documentation says
$subscriber->safe_psql('postgres', q{SELECT setval('messages_id_seq', 1000000)});
my $own = $subscriber->safe_psql('postgres', q{SELECT msg_create('1', 'own')});
ok(poll_sql($subscriber, 20, "SELECT status FROM messages WHERE id = $own", 'received'), 'the subscriber sends what is its own');
is($subscriber->safe_psql('postgres', q{SELECT count(*) FROM messages WHERE channel = 'r' AND status <> 'idle'}), 0, 'and nothing that is the publisher\'s');
$publisher->safe_psql('postgres', q{SELECT msg_resume('r')});
ok(poll_sql($publisher, 20, q{SELECT count(*) FROM messages WHERE channel = 'r' AND status = 'received'}, 100), 'which sends it');
ok(poll_sql($subscriber, 20, q{SELECT count(*) FROM messages WHERE channel = 'r' AND status = 'received'}, 100), 'and the statuses arrive');
is(scalar(read_topic($bootstrap, 'r')), 100, 'each once');

# ---- a change of the configuration reaches the subscriber's workers, which have nothing else to wake them
kafka_create_topic($bootstrap, 'later', 1);
$publisher->safe_psql('postgres', q{SELECT msg_channel_set('c', topic => 'later')});
ok(poll_sql($subscriber, 20, q{SELECT count(*) FROM msg_channels WHERE channel = 'c'}, 1), 'a channel arrives');
my $there = $subscriber->safe_psql('postgres', q{SELECT msg_create('1', 'c')});
ok(poll_sql($subscriber, 20, "SELECT status FROM messages WHERE id = $there", 'received'), 'and works');

# ---- every table can be published: each has what identifies its rows
is($publisher->safe_psql('postgres', q{SELECT string_agg(c.relname, ', ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
	WHERE c.relkind = 'r' AND c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)}), '', 'replica identities');
$publisher->safe_psql('postgres', q{CREATE PUBLICATION everything FOR ALL TABLES; SELECT msg_adopt(); SELECT msg_retention_set('r', 'received', '0 s', archive => true);
	SELECT msg_purge(); SELECT msg_statistics_take(); DELETE FROM msg_statistics; SELECT msg_archive_drop(now())});
pass('nothing fails for want of one');

# ---- the publisher is gone
$publisher->safe_psql('postgres', q{SELECT msg_pause('c'); SELECT msg_create('"last"', 'c')});
my $last = $publisher->safe_psql('postgres', q{SELECT max(id) FROM messages WHERE channel = 'c'});
my $name = $publisher->safe_psql('postgres', "SELECT uuid FROM msg_names JOIN messages USING (epoch) WHERE id = $last");
ok(poll_sql($subscriber, 20, "SELECT status FROM messages WHERE id = $last", 'idle'), 'its last message waits');
$publisher->stop('immediate');
$subscriber->safe_psql('postgres', q{ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s});
$subscriber->safe_psql('postgres', q{SELECT msg_adopt('gone')});
ok(poll_sql($subscriber, 20, "SELECT status FROM messages WHERE id = $last", 'received'), 'adopted, it is sent');
is($subscriber->safe_psql('postgres', "SELECT uuid FROM msg_names JOIN messages USING (epoch) WHERE id = $last"), $name, 'under its name');
$subscriber->stop;
done_testing();
