# The description at / is one, and what it describes is fuzzed by schemathesis: no answer is a server error.
# OPENAPI_SECONDS is for how long (120).
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use MsgsysTest;
use Test::More;

my $seconds = $ENV{OPENAPI_SECONDS} // 120;
my $openapi = work_dir() . '/clients/openapi';
ok(-e "$openapi/bin/schemathesis", 'schemathesis is there') or BAIL_OUT('test/tools/clients soak cannot fetch it');
$ENV{PYTHONPATH} = $openapi;
my ($node, $facade) = facade_node('openapi', 'msgsys.http_tx_override' => 'on', 'msgsys.http_workers' => 2, 'restart_after_crash' => 'off');
$node->safe_psql('postgres', q{SELECT msg_channel_set('c'); SELECT msg_sample(50, channel => 'c'); SELECT msg_pause()});
my $token = token({ role => 'operator' });
my $file = tempdir() . '/openapi.json';
append_to_file($file, $facade->ask('GET', '/openapi.json', token => $token)->{body});
is(system('python3', '-m', 'openapi_spec_validator', $file), 0, 'the description is valid OpenAPI');

# msg_wait waits, msg_test calls out, msg_sample makes as many as it is told, msg_adopt starts anew; a rollback leaves the rest as it was
my $out = qx(python3 -c 'from schemathesis.cli import schemathesis; schemathesis()' run --checks not_a_server_error --max-time $seconds --suppress-health-check all --no-color --exclude-path-regex 'msg_(wait|test|adopt|sample)' \\
	--header 'Authorization: Bearer $token' --header 'Prefer: tx=rollback' --url http://127.0.0.1:$facade->{port} '$file' 2>&1);
is($?, 0, 'no server error') or diag($out =~ s/^.*?(?==+ FAILURES)//sr);
note($out =~ /(=+ SUMMARY.*)/s ? $1 : substr $out, -1500);
is($node->safe_psql('postgres', 'SELECT 1'), 1, 'and no crash');
$node->stop;
done_testing();
