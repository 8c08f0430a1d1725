# PostgREST's own clients, from npm and PyPI, work against the facade unchanged.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use JSON::PP;
use MsgsysTest;
use Test::More;

expect_findings('nobody: channel "default"' => 'there is nothing that sends');

my $clients = work_dir() . '/clients';
my ($node, $facade) = facade_node('clients', 'msgsys.http_tx_override' => 'on');
my $token = token({ role => 'operator' });
$node->safe_psql('postgres', 'SELECT msg_pause()');

# what a program prints: name => rest of the line
sub results
{
	my (@command) = @_;
	my %results;
	open(my $pipe, '-|', @command) or die "$command[0]: $!";
	for (<$pipe>) { my ($name, @rest) = @{ decode_json($_) }; $results{$name} = \@rest; }
	close $pipe;
	return \%results;
}
sub check
{
	my ($client, $got, %expected) = @_;
	is_deeply([ sort keys %$got ], [ sort keys %expected ], "$client: every call comes to its end");
	is_deeply($got->{$_}, $expected{$_}, "$client: $_") or diag(encode_json($got->{$_} // [])) for sort keys %expected;
}
sub ids { return [ map { { id => $_ } } @_ ]; }

SKIP:
{
	skip 'npm has no @supabase/postgrest-js', 1 unless -d "$clients/npm/node_modules/\@supabase/postgrest-js";
	local $ENV{NODE_PATH} = "$clients/npm/node_modules";
	check('postgrest-js', results('node', 'test/clients/client.js', $facade->url(''), $token),
		insert => [ 201, undef, undef, undef ],
		insertMany => [ 201, [ { id => 2, message_key => 'k2' }, { id => 3, message_key => 'k3' } ], 2, undef ],
		insertMissing => [ 201, [ { channel => 'default', message_key => 'k4', event_type => undef }, { channel => 'default', message_key => undef, event_type => 'e' } ], undef, undef ],
		select => [ 200, [ { id => 1, message_key => 'k1', name => 'one', st => 'idle' }, { id => 2, message_key => 'k2', name => 'two', st => 'idle' }, { id => 3, message_key => 'k3', name => 'three', st => 'idle' },
			{ id => 4, message_key => 'k4', name => undef, st => 'idle' }, { id => 5, message_key => undef, name => undef, st => 'idle' } ], undef, undef ],
		count => [ 200, undef, 5, undef ],
		range => [ 206, ids(2, 3), 5, undef ],
		limit => [ 200, ids(5, 4), undef, undef ],
		single => [ 200, { message_key => 'k1' }, undef, undef ],
		singleNone => [ 406, undef, undef, 'PGRST116' ],
		maybe => [ 200, undef, undef, undef ],
		maybeOne => [ 200, { id => 1 }, undef, undef ],
		csv => [ 200, "id,message_key\n2,k2", undef, undef ],
		eq => [ 200, ids(1), undef, undef ], neq => [ 200, ids(2, 3, 4), undef, undef ], gt => [ 200, ids(5), undef, undef ], gte => [ 200, ids(5), undef, undef ],
		lt => [ 200, ids(1), undef, undef ], lte => [ 200, ids(1), undef, undef ], like => [ 200, ids(1 .. 4), undef, undef ], likeAny => [ 200, ids(1, 2), undef, undef ],
		ilike => [ 200, ids(1), undef, undef ], is => [ 200, ids(5), undef, undef ], in => [ 200, ids(1, 3), undef, undef ], contains => [ 200, ids(2), undef, undef ],
		containedBy => [ 200, ids(2), undef, undef ], jsonPath => [ 200, ids(1), undef, undef ], match => [ 200, ids(1), undef, undef ], not => [ 200, ids(1 .. 4), undef, undef ],
		or => [ 200, ids(1, 3), undef, undef ], filter => [ 200, ids(1, 2), undef, undef ], textSearch => [ 200, ids(1), undef, undef ], stripNulls => [ 200, ids(1), undef, undef ],
		update => [ 204, undef, undef, undef ],
		updateShown => [ 200, [ { message_key => 'u2' } ], 1, undef ],
		updateAll => [ 400, undef, undef, '21000' ],
		maxAffected => [ 400, undef, undef, 'PGRST124' ],
		upsert => [ 201, [ { topic => 't1' } ], undef, undef ],
		upsertAgain => [ 200, [ { topic => 't2' } ], undef, undef ],
		upsertIgnored => [ 201, [], undef, undef ],
		rollback => [ 200, ids(1), undef, undef ],
		delete => [ 204, undef, 1, undef ],
		deleteShown => [ 200, ids(4), undef, undef ],
		rpc => [ 200, JSON::PP::false, undef, undef ],
		rpcGet => [ 206, ids(1, 2), 3, undef ],
		rpcHead => [ 200, undef, undef, undef ],
		rpcSelect => [ 200, { id => 2 }, undef, undef ],
		rpcCreate => [ 200, 6, undef, undef ],
		rpcVoid => [ 204, undef, undef, undef ],
		schema => [ 200, ids(2), undef, undef ],
		schemaWrong => [ 406, undef, undef, 'PGRST106' ],
		tableWrong => [ 404, undef, undef, 'PGRST205' ],
		columnWrong => [ 400, undef, undef, '42703' ],
		functionWrong => [ 404, undef, undef, 'PGRST202' ],
		embedding => [ 400, undef, undef, 'PGRST200' ],
		explain => [ 406, undef, undef, 'PGRST107' ]);
}
SKIP:
{
	skip 'PyPI has no postgrest', 1 unless -d "$clients/python/postgrest";
	local $ENV{PYTHONPATH} = "$clients/python";
	local $ENV{PYTHONDONTWRITEBYTECODE} = 1;
	check('postgrest-py', results('python3', 'test/clients/client.py', $facade->url(''), $token),
		'insert' => [ [], undef, undef ],
		'insert shown' => [ [ 'p2', 'p3' ], 2, undef ],
		'select' => [ [ map { { message_key => $_ } } qw(p3 p2 p1) ], undef, undef ],
		'count' => [ [], 3, undef ],
		'range' => [ [ { message_key => 'p2' } ], 3, undef ],
		'single' => [ { message_key => 'p1' }, undef, undef ],
		'maybe' => [ undef, undef, undef ],
		'csv' => [ "message_key\np1", undef, undef ],
		'filters' => [ [ { message_key => 'p1' } ], undef, undef ],
		'or' => [ [ { message_key => 'p1' }, { message_key => 'p3' } ], undef, undef ],
		'match' => [ [ { message_key => 'p2' } ], undef, undef ],
		'update' => [ ['p1'], 1, undef ],
		'upsert' => [ ['t'], undef, undef ],
		'rpc' => [ JSON::PP::false, undef, undef ],
		'rpc get' => [ [ { status => 'idle' } ], undef, undef ],
		'rpc filtered' => [ [ { message_key => 'p2' } ], undef, undef ],
		'delete' => [ [ 'p1', 'p2', 'p3' ], undef, undef ],
		'table wrong' => [ undef, undef, 'PGRST205' ]);
}
$node->stop;
done_testing();
