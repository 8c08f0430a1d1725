# The operators' page in a headless browser: every section and action, who may not, markup in payloads, workers down, an expired token.
# test/clients/ui.js drives the browser, and judges; each line that it prints is a test.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use JSON::PP;
use MsgsysTest;
use Sink;
use Test::More;

expect_findings('nobody: channel "held"' => 'there is nothing that sends');

my $clients = work_dir() . '/clients';
my ($chromium) = grep { -x } map { "$_/chromium" } split /:/, $ENV{PATH};
plan skip_all => 'npm has no playwright-core' unless -d "$clients/browser/node_modules/playwright-core";
plan skip_all => 'there is no chromium' unless $chromium;

my $sink = Sink->new;
# the workers' role is one that can be shut out
my ($node, $facade) = facade_node('ui', 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.role' => 'mover');
$node->safe_psql('postgres', "CREATE ROLE mover LOGIN; SELECT msg_grant('mover', 'worker')");
poll_sql($node, 20, "SELECT state IN ('idle', 'not needed') FROM msg_workers WHERE stage = 'webhook'") or die 'no webhook worker';

my %tokens = map { $_ => token({ role => $_ }) } qw(operator reader producer);
local $ENV{NODE_PATH} = "$clients/browser/node_modules";
local $ENV{HOME} = tempdir();
my %setting = (url => $facade->url('/ui/'), tokens => \%tokens, secret => $Facade::secret, chromium => $chromium, sink => $sink->url(''), psql => $node->connstr('postgres'));
open(my $pipe, '-|', 'node', 'test/clients/ui.js', encode_json(\%setting)) or die "node: $!";
while (my $line = <$pipe>)
{
	my $result = eval { decode_json($line) } or do { diag($line); next };
	my ($name, $good, $got) = @$result;
	ok($good, $name) or diag('got ' . JSON::PP->new->ascii->allow_nonref->encode($got));
}
ok(close $pipe, 'the browser came to its end');
is(scalar($sink->requests(sub { $_[0]{path} =~ /called/ })), 1, 'the test call was made, once');

# ---- what the page calls for many messages at once
my @made = split /\n/, $node->safe_psql('postgres', "SELECT msg_create('1', 'held') FROM generate_series(1, 3)");
my $many = sub { my ($name, $role, @ids) = @_; my $answer = $facade->ask('POST', "/rpc/$name", as => $role, body => { ids => \@ids }); return [ @$answer{qw(status json)} ]; };
is($many->($_, 'reader', @made)->[0], 403, "$_ is for operators") for qw(msg_cancel_many msg_retry_many);
is_deeply($many->('msg_cancel_many', 'operator', @made[ 1, 0, 1 ], -1, undef), [ 200, 2 ], 'each counts once, and none that is not there');
is_deeply($many->('msg_cancel_many', 'operator', @made), [ 200, 1 ], 'nor one that is over');
is_deeply($many->('msg_retry_many', 'operator', @made), [ 200, 0 ], 'what is not dead is not retried');
is_deeply($many->($_, 'operator'), [ 200, 0 ], "$_ of none") for qw(msg_cancel_many msg_retry_many);
$node->stop;
done_testing();
