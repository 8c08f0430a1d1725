# The container's entry point, without a container: the environment becomes settings, and at the first start the pace and the retries of
# the channel "default", and the roles of HTTP.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use MsgsysTest;
use Test::More;

expect_findings('nobody: channel "default"' => 'there is nothing that sends');

my $dir = tempdir();
# what stands for PostgreSQL's entry point says how it was called
append_to_file("$dir/docker-entrypoint.sh", qq(#!/bin/sh\nprintf '%s ' "\$POSTGRES_USER" "\$POSTGRES_PASSWORD" "\$POSTGRES_DB" "\$@"\n));
chmod 0755, "$dir/docker-entrypoint.sh" or die;
my $conf = "$dir/msgsys.conf";

# start(NAME => VALUE…): what the entry point passes on, in an environment of these alone
sub start
{
	my (%env) = @_;
	local %ENV = (PATH => "$dir:$ENV{PATH}", MSGSYS_CONF => $conf, %env);
	my $out = `docker/entrypoint postgres -c a=b`;
	is($?, 0, 'the entry point goes on');
	return $out;
}

like(start(), qr/^\s+postgres -c a=b $/, 'with the arguments');
is(do { local (@ARGV, $/) = $conf; scalar <> }, "# written at each start from the environment\n", 'no environment, no settings');

my %env = (PG_USER => 'me', PG_PASSWORD => 'pass word', PG_DB => 'postgres', KAFKA_BROKER => 'broker:9092', KAFKA_TOPIC => 'messages', KAFKA_GROUP_ID => 'group',
	REQUEST_URL => q{https://example.com/it's?a=\b}, MAX_CONCURRENT_JOBS => 5, SERVER_GRACE_PERIOD => 30, REDIS_HOST => 'redis', REDIS_DB => 2, REDIS_PASSWORD => 'p@s:/ä', REDIS_TTL => 3600);
like(start(%env), qr/^me pass word postgres postgres -c a=b $/, "names of PostgreSQL's image");
is(sprintf('%o', (stat $conf)[2] & 07777), '600', 'secrets are not for everybody');

my $node = new_node('container', extension => 0, max_prepared_transactions => 10);
$node->append_conf('postgresql.conf', "include_if_exists = '$conf'\n");
$node->reload;
my %expected = (databases => 'postgres', kafka_brokers => 'broker:9092', kafka_topic => 'messages', kafka_group => 'group', webhook_url => $env{REQUEST_URL}, webhook_connections => 5,
	grace_period => '30s', redis_url => 'redis://:p%40s%3A%2F%C3%A4@redis:6379/2', redis_ttl => '1h');
ok(poll_sql($node, 10, 'SHOW msgsys.redis_ttl', '1h'), 'the server takes them');
is($node->safe_psql('postgres', "SHOW msgsys.$_"), $expected{$_}, "msgsys.$_") for sort keys %expected;
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL"), 0, 'each of them');
start(%env, KAFKA_BROKERS => 'one:9092,two:9092', WEBHOOK_URL => 'https://example.org', SERVER_GRACE_PERIOD => '500ms');
$node->reload;
ok(poll_sql($node, 10, 'SHOW msgsys.kafka_brokers', 'one:9092,two:9092'), 'a list of brokers');
is($node->safe_psql('postgres', 'SHOW msgsys.webhook_url') . ' ' . $node->safe_psql('postgres', 'SHOW msgsys.grace_period'), 'https://example.org 500ms', 'other names, and units');

# first_start(NAME => VALUE…): what the script of the first start leaves behind
sub first_start
{
	my (%env) = @_;
	$node->safe_psql('postgres', 'DROP EXTENSION IF EXISTS msgsys CASCADE');
	my $connection = $node->connstr('postgres');
	local %ENV = (PATH => $ENV{PATH}, %env);
	is(system('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $connection, '-f', 'docker/10-msgsys.sql'), 0, 'the first start');
	return $node->safe_psql('postgres', q{SELECT concat_ws(' ', (SELECT batch || '/' || every FROM msg_paces WHERE channel = 'default'),
		(SELECT topic || ' ' || max_attempts FROM msg_channels), (SELECT url || ' ' || retry_schedule::text FROM msg_webhooks))});
}
is(first_start(), '', 'full speed');
is(first_start(BUFFER_SIZE => 3), '3/00:00:10', '000: 3 every 10 s');
is(first_start(BATCH_COUNT => 2, INTERVAL => '1m30s', RETRY_COUNT => 1, RETRY_INTERVAL => '2s'), '2/00:01:30 messages 2 https://example.org {00:00:02}', '001: a pace and retries');
is(first_start(MESSAGE_FETCH_LIMIT => 2, CRON_INTERVAL => 120), '2/00:02:00', '004: 2 every 2 minutes');
is(first_start(MESSAGE_FETCH_LIMIT => 4), '4/00:02:00', '004: its interval');

# HTTP: listening is for the start of the server, roles are for the first one
my $port = free_port();
%env = (HTTP_LISTEN => "127.0.0.1:$port", HTTP_JWT_SECRET => $Facade::secret, HTTP_COMPAT => '000,002');
start(%env);
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_roles WHERE rolname LIKE 'msgsys\_%'}), 0, 'no roles for HTTP, where it is not wanted');
first_start(%env);
$node->restart;
facade_ready($node);
my $facade = Facade->new($port);
is($facade->ask('POST', '/rpc/msg_create', as => 'msgsys_producer', body => { payload => 1 })->{status}, 200, 'a producer creates');
is($facade->ask('GET', '/messages?select=channel', as => 'msgsys_reader')->{body}, '[{"channel":"default"}]', 'a reader reads');
is($facade->ask('POST', '/rpc/msg_pause', as => $_->[0], body => {})->{status}, $_->[1], "a $_->[0]") for ['msgsys_consumer', 403], ['msgsys_operator', 200];
is($facade->ask('GET', '/job-scheduler/health')->{status}, 200, "another system's route");
$node->stop;
done_testing();
