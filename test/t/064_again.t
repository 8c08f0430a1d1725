# DROP EXTENSION and CREATE EXTENSION over and over, under load: the workers stay, and the last installation works at once.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;
use Time::HiRes 'time';

my $bootstrap = kafka_start();
my $sink = Sink->new;
my $node = new_node('again', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.webhook_allow' => '127.0.0.1', 'deadlock_timeout' => '50ms');
kafka_create_topic($bootstrap, $_, 2) for qw(stream both both.retry both.dlq);
my $create = qq{SET client_min_messages = error; CREATE EXTENSION IF NOT EXISTS msgsys; SELECT msg_channel_set('stream', topic => 'stream'); SELECT msg_channel_set('both', topic => 'both');
	SELECT msg_webhook_set('both', '@{[$sink->url('/ok')]}')};
my $session = session($node);
$session->query($create);
ok(wait_workers($node), 'workers run');
my $pids = q{SELECT string_agg(pid::text, ' ' ORDER BY stage) FROM msg_workers};
my $before = $session->query($pids);

# what loads it fails while there is no extension, and goes on
my $load = session($node);
$load->send(q{DO $$ BEGIN
	FOR i IN 1 .. 100000 LOOP
		BEGIN
			INSERT INTO messages (channel, message_key, payload) SELECT c, g::text, to_jsonb(g) FROM generate_series(1, 20) g, unnest('{stream,both}'::text[]) c;
		EXCEPTION WHEN OTHERS THEN PERFORM pg_sleep(0.001);
		END;
		COMMIT;
	END LOOP;
END $$});
my $began = time;
for (1 .. 50)
{
	$session->query('DROP EXTENSION msgsys CASCADE');
	$session->query($create);
}
my $took = time - $began;
$session->query(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO $$%' AND pid <> pg_backend_pid()});
$load->answer;
my $uuid = $session->query('SELECT uuid FROM msg_installation');
$session->query("INSERT INTO messages (channel, message_key, payload) SELECT c, g::text, to_jsonb(g) FROM generate_series(1, 500) g, unnest('{stream,both}'::text[]) c");
$began = time;
ok(poll_sql($node, 30, 'SELECT count(*) FROM messages WHERE finished_at IS NULL', 0), 'all is done');
diag(sprintf '50 times in %.1f s, drained in %.2f s', $took, time - $began);
is($session->query($pids), $before, 'by the same workers');
is($session->query(q{SELECT count(*) FROM msg_workers WHERE last_error IS NOT NULL}), 0, 'which met no error') or diag($session->query('SELECT stage, last_error FROM msg_workers'));
$node->stop;
done_testing();
