# What somebody's transaction holds is not overtaken by later messages of its key; others go on, and it goes soon after it is free.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

my ($bootstrap) = kafka_start();
# no sweep and no poll helps
my $node = new_node('held', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.sweep_interval' => '1h', 'msgsys.poll_interval' => '1h', 'msgsys.batch_size' => 1000);
ok(wait_workers($node), 'workers run');
my $session = session($node);
my $holder = session($node);
for my $channel (qw(keyed due crowd))
{
	kafka_create_topic($bootstrap, $channel, 2);
	$session->query("SELECT msg_channel_set('$channel', topic => '$channel', retry_base => '1 ms')");
}

sub ids { return split /\n/, $session->query($_[0]) }
sub made { my ($channel, $key) = @_; return ids("SELECT msg_create('1', '$channel', message_key => $key)") }
sub status { return $node->safe_psql('postgres', "SELECT string_agg(status::text, ' ' ORDER BY id) FROM messages WHERE id IN (" . join(',', @_) . ')') }
sub sent { my ($id) = @_; return $session->query("SELECT msg_wait($id, 'sent', '10 s')") }

# Whether a worker that comes to these does not send them: a message of another key that came later is sent.
sub passed
{
	my ($channel) = @_;
	return sent(made($channel, "'free'")) =~ /sent|received/;
}

# ---- a cancellation that is rolled back
$session->query("SELECT msg_pause('keyed')");
my @ids = map { made('keyed', "'k'") } 1 .. 3;
my ($bare) = made('keyed', 'NULL');
$holder->query("BEGIN; SELECT msg_cancel($ids[0]); SELECT FROM messages WHERE id = $bare FOR UPDATE");
$session->query("SELECT msg_resume('keyed')");
ok(passed('keyed'), 'others go past a held row');
is(status(@ids, $bare), 'idle idle idle idle', 'and those of its key wait');
push @ids, made('keyed', "'k'");
ok(passed('keyed'), 'later ones');
is(status(@ids), 'idle idle idle idle', 'wait, too');
$holder->query('ROLLBACK');
like(sent($_), qr/sent|received/, 'all go once it is free') for @ids, $bare;

# ---- one that is committed, and one within a savepoint
$session->query("SELECT msg_pause('keyed')");
my @more = map { made('keyed', "'k'") } 1 .. 4;
$holder->query("BEGIN; SELECT msg_cancel($more[0]); SAVEPOINT s; SELECT msg_cancel($more[2])");
$session->query("SELECT msg_resume('keyed')");
ok(passed('keyed'), 'two of a key are held');
is(status(@more), 'idle idle idle idle', 'all wait for the first');
$holder->query('ROLLBACK TO s');
ok(passed('keyed'), 'the second is free');
is(status(@more), 'idle idle idle idle', 'and waits still');
$holder->query('COMMIT');
like(sent($more[3]), qr/sent|received/, 'the last goes');
like(status(@more), qr/^cancelled( (sent|received)){3}$/, 'the first was cancelled');

# ---- a user changes a row between the claim and its lock, or deletes it: nothing is lost or stuck
$session->query("SELECT msg_pause('keyed')");
@more = map { made('keyed', "'gone'") } 1 .. 3;
$holder->query("BEGIN; DELETE FROM messages WHERE id = $more[0]; UPDATE messages SET payload = '2' WHERE id = $more[1]");
$session->query("SELECT msg_resume('keyed')");
ok(passed('keyed'), 'a row is deleted, and the next is changed');
is(status(@more), 'idle idle idle', 'they wait');
$holder->query('COMMIT');
like(sent($more[2]), qr/sent|received/, 'the last goes');
like(status(@more[1, 2]), qr/^((sent|received) ?){2}$/, 'after the changed one');

# ---- due ones: more than a batch of one key wait for the first, and a later one of another key does not
$session->query("SELECT msg_pause('due')");
@ids = ids(q{SELECT msg_create(to_jsonb(g), 'due', message_key => CASE WHEN g < 3000 THEN 'k' ELSE 'free' END,
	deliver_at => now() + interval '0.3 s' + g * interval '1 us') FROM generate_series(1, 3000) g});
ok(poll_sql($node, 10, "SELECT count(*) FROM messages WHERE channel = 'due' AND due_at > clock_timestamp()", 0), 'all are due');
$holder->query("BEGIN; SELECT FROM messages WHERE id = $ids[0] FOR UPDATE");
$session->query("SELECT msg_resume('due')");
like(sent($ids[-1]), qr/sent|received/, 'one behind 2,999 of a held key goes');
is($node->safe_psql('postgres', "SELECT count(*) FROM messages WHERE channel = 'due' AND status = 'scheduled'"), 2999, 'which wait');
$holder->query('ROLLBACK');
like(sent($ids[-2]), qr/sent|received/, 'and go once it is free');

# ---- more are held than are remembered: the channel waits, others do not
$session->query("SELECT msg_pause('crowd')");
@ids = ids(q{INSERT INTO messages (channel, message_key, payload) SELECT 'crowd', g % 12000, to_jsonb(g) FROM generate_series(1, 24000) g RETURNING id});
$holder->query("BEGIN; UPDATE messages SET payload = '0' WHERE channel = 'crowd' AND id < $ids[12000]");
$session->query("SELECT msg_resume('crowd')");
ok(passed('keyed'), 'another channel goes on while 12,000 keys are held');
is($node->safe_psql('postgres', "SELECT count(*) FROM messages WHERE channel = 'crowd' AND status <> 'idle'"), 0, 'of which nothing is sent');
$holder->query('ROLLBACK');
like(sent($ids[-1]), qr/sent|received/, 'they go once they are free');
ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE finished_at IS NULL", 0), 'all end');

for my $channel (qw(keyed crowd))
{
	my $counts = check_topic($node, $bootstrap, $channel, "channel = '$channel' AND status <> 'cancelled'", $channel);
	is($counts->{repeated}, 0, "$channel: nothing is repeated");
}
my @order = map { $_->{value} } grep { $_->{key} eq 'k' } read_topic($bootstrap, 'due');
is(@order, 2999, 'due: each is there once');
is("@order", join(' ', sort { $a <=> $b } @order), 'due: in order');
$node->stop;
done_testing();
