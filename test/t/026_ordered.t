# The same moment as in 025_commit.t, for messages that become received: a webhook worker that claims in it must not
# take the later messages of a key before the earlier ones, where the channel is ordered.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

my $keys = 2400;
my $of_each = 4;
my $sink = Sink->new;
my $node = new_node('ordered', 'msgsys.webhook_allow' => '127.0.0.1', 'log_statement' => 'none', 'max_connections' => 60);
$node->safe_psql('postgres', q{SELECT msg_channel_set('ordered', topic => 'ordered', ack => 'topic')});
$node->safe_psql('postgres', "SELECT msg_webhook_set('ordered', '" . $sink->url('/ok') . "', ordered => true, concurrency => 256)");

# no broker: the messages wait until they are acknowledged by SQL; the ids of a key lie far from each other, so that marks lie between them
$node->safe_psql('postgres', "INSERT INTO messages (channel, message_key, payload) SELECT 'ordered', (g % $keys)::text, to_jsonb(g) FROM generate_series(0, $keys * $of_each - 1) g");
$node->safe_psql('postgres', 'CREATE SEQUENCE turn MINVALUE 0');
my $first = $node->safe_psql('postgres', 'SELECT min(id) FROM messages');
my $script = tempdir() . '/acknowledge.sql';
append_to_file($script, "SELECT nextval('turn') AS turn \\gset\nSELECT msg_ack(g) FROM generate_series($first + :turn, $first + $keys * $of_each - 1, $keys) g;\n");
my $clients = 24;
$node->command_ok([ 'pgbench', '-n', '-c', $clients, '-j', 2, '-t', $keys / $clients, '-f', $script, 'postgres' ], 'many sessions acknowledge');
ok(poll_sql($node, 120, "SELECT count(*) FROM messages WHERE status <> 'delivered'", 0), 'all are delivered');
my (%last, $wrong, $n);
for my $request ($sink->requests)
{
	my $key = $request->{body} % $keys;
	$n++;
	$wrong++ if exists $last{$key} && $last{$key} >= $request->{body};
	$last{$key} = $request->{body};
}
is($n, $keys * $of_each, 'once each');
is($wrong // 0, 0, 'in the order of their keys');
$sink->stop;
$node->stop;
done_testing();
