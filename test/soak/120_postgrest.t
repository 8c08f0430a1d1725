# A real PostgREST in front of the same database: it finds the extension when that is installed, serves it, and the facade answers
# as it does, but for what docs/http.md names. Needs the program "postgrest" (or what POSTGREST names), version 16.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use IPC::Cmd 'can_run';
use JSON::PP;
use MsgsysTest;
use Program;
use Test::More;

my $program = $ENV{POSTGREST} // can_run('postgrest');
unless ($program)
{
	SKIP: { skip 'there is no postgrest', 1 }
	done_testing();
	exit;
}

my ($node, $facade) = facade_node('postgrest', 'msgsys.http_tx_override' => 'on', 'msgsys.http_anonymous_role' => 'nobody');
my ($running, $other);

# start it for a database; a Facade to talk to it
sub postgrest
{
	my ($database) = @_;
	my $port = free_port();
	my %settings = (
		'db-uri' => 'postgres:///' . "$database?host=" . $node->host . '&port=' . $node->port . '&user=web',
		'db-schemas' => 'public', 'db-anon-role' => 'nobody', 'db-tx-end' => 'commit-allow-override', 'db-max-rows' => 10000, 'db-pool' => 2,
		'jwt-secret' => $Facade::secret, 'server-host' => '127.0.0.1', 'server-port' => $port);
	my $file = tempdir() . '/postgrest.conf';
	append_to_file($file, join '', map { "$_ = \"$settings{$_}\"\n" } sort keys %settings);
	$running->stop if $running;
	$running = Program->new($program, $file);
	$other = Facade->new($port);
	ok(poll_until(60, sub { $running->output; my $status = $other->ask('GET', '/nope', as => 'operator')->{status}; $status == 404 }), "PostgREST serves the database $database") or diag($running->{err});
	return;
}

# ---- it learns of the extension by the notification at the end of its installation
$node->safe_psql('postgres', 'CREATE DATABASE late');
postgrest('late');
is($other->ask('GET', '/rpc/msg_running', as => 'operator')->{status}, 404, 'what is not installed is not there');
$node->safe_psql('late', "SET client_min_messages = error; CREATE EXTENSION msgsys; SELECT msg_grant('operator', 'operator')");
ok(poll_until(30, sub { $other->ask('GET', '/rpc/msg_running', as => 'operator')->{status} == 200 }), 'and is, once it is installed');

# ---- both answer the same
$node->safe_psql('postgres', q{SELECT msg_pause();
	INSERT INTO messages (message_key, payload, event_type) SELECT 'k' || g, jsonb_build_object('n', g, 'name', 'name ' || g), CASE WHEN g % 2 = 0 THEN 'even' END FROM generate_series(1, 9) g;
	SELECT msg_channel_set('orders', topic => 'orders')});
postgrest('postgres');

# what of an answer is the contract: status, fields, and the body; of an error its code and message
sub contract
{
	my ($answer) = @_;
	my $json = $answer->{json};
	my %of = (status => $answer->{status}, map { $_ => $answer->{headers}{$_} } qw(content-type content-range preference-applied location allow www-authenticate));
	$of{body} = $answer->{status} < 400 || ref $json ne 'HASH' ? $json // $answer->{body} : { map { $_ => $json->{$_} } qw(code message) };
	return \%of;
}

sub same
{
	my ($method, $path, %o) = @_;
	my $as = exists $o{as} ? delete $o{as} : 'operator';
	$o{headers}{Prefer} = join ', ', 'tx=rollback', $o{headers}{Prefer} // () if $method !~ /GET|HEAD|OPTIONS/;
	my @answers = map { contract($_->ask($method, $path, as => $as, %o)) } $facade, $other;
	is_deeply(@answers, "$method $path " . ($as // 'anonymous') . (%o ? ' ' . encode_json(\%o) : ''));
	return;
}
sub shown { return (headers => { Prefer => join ',', 'return=representation', @_ }); }

same('GET', $_) for map { "/messages?select=id,message_key,payload->>name&$_" } 'order=id', 'order=id.desc&limit=2&offset=1', 'id=in.(1,2)&order=id', 'or=(id.eq.1,and(id.gt.3,id.lt.5))&order=id', 'payload=cs.{"n":2}', 'event_type=is.null&order=id',
	'message_key=like.k1*', 'payload->n=gt.7&order=id', 'id=eq.x', 'nope=eq.1', 'id=not.in.(1,2,3)&order=event_type.desc.nullslast,id', 'limit=-1', 'offset=-3&limit=5&order=id', 'id=eq(any).{1,2}&order=id';
same('GET', $_) for '/messages?select=nope', '/messages?select=id,msg_channels(*)', '/messages?select=count()', '/messagez', '/messages/1', '/msg_channels?order=channel', '/msg_webhooks', '/msg_runs', '/pg_class';
same('GET', '/messages?select=id&order=id&limit=3', headers => { Prefer => $_ }) for 'count=exact', 'count=estimated', 'handling=strict,foo', 'timezone=Asia/Kolkata', 'timezone=No/Where';
same('GET', '/messages?select=id&order=id', headers => { Range => $_ }) for qw(0-1 2- 5-2 x items=2-3);
same('GET', '/messages?select=id,event_type&order=id&id=lt.3', headers => { Accept => $_ }) for 'text/csv', 'text/foo', 'application/vnd.pgrst.object+json', 'application/vnd.pgrst.array+json;nulls=stripped';
same('HEAD', $_) for '/messages', '/messages?id=eq.x', '/messagez';
same('OPTIONS', $_) for '/messages', '/msg_channels', '/msg_backlog', '/rpc/msg_list', '/';
for my $role (undef, qw(producer consumer reader))
{
	same('GET', $_, as => $role) for '/messages?limit=1&select=id&order=id', '/msg_channels?order=channel', '/msg_webhooks', '/rpc/msg_running', '/rpc/msg_list?select=id&limit=1';
	same('POST', '/messages', as => $role, body => { payload => 1 });
	same('POST', '/rpc/msg_create_many', as => $role, body => { messages => [] });
	same('POST', '/rpc/msg_pause', as => $role, body => {});
	same('PATCH', '/messages?id=eq.1', as => $role, body => { message_key => 'x' });
}
same('GET', '/msg_channels', as => undef, token => $_) for 'a.b', token({ role => 'nope' }), token({ role => 'reader' }, key => 'x' x 40), token({ role => 'reader', exp => 1 }), token({ sub => 'x' }), token({ role => undef }), token({ role => 'reader', aud => 1 });
same('POST', '/messages?select=message_key,payload', @$_) for [ body => { payload => 1 } ], [ body => [ { payload => 1 }, { payload => { a => [2] } } ], shown('count=exact') ], [ body => '{' ], [ body => { nope => 1 } ], [ body => [ { payload => 1 }, { message_key => 1 } ] ],
	[ body => { payload => 1, channel => 'nowhere' } ], [ body => {} ], [ body => '[]', shown() ];
same('POST', '/messages?select=k:message_key&order=message_key.desc', body => [ map { { payload => 1, message_key => $_ } } qw(a c b) ], shown());
same('POST', '/msg_channels?select=channel,topic', body => [ { channel => 'orders', topic => 'o' }, { channel => 'new', topic => 'n' } ], headers => { Prefer => $_ })
  for '', map { ("resolution=$_-duplicates", "resolution=$_-duplicates,return=representation", "resolution=$_-duplicates,return=headers-only") } qw(merge ignore);
same('PUT', "/msg_channels?$_->[0]&select=channel,topic", body => $_->[1], shown()) for [ 'channel=eq.put', { channel => 'put', topic => 'p' } ], [ 'channel=eq.orders', { channel => 'orders', topic => 'p' } ], [ 'channel=eq.put', { channel => 'tup' } ], [ 'topic=eq.x', {} ];
same('PATCH', "/messages?$_&select=id,message_key&order=id", body => { message_key => 'x' }, shown('count=exact')) for 'id=in.(1,2)', 'id=eq.99', 'id=eq.x', 'nope=eq.1';
same('PATCH', '/messages?id=in.(1,2)', body => { message_key => 'x' }, headers => { Prefer => 'handling=strict,max-affected=1' });
same('DELETE', "/messages?$_&select=id", shown()) for 'id=eq.1', 'id=eq.99', 'id=eq.x';
# functions: arguments by name, and GET for what only reads
same('GET', "/rpc/$_") for 'msg_running', 'msg_running?channel=orders', 'msg_running?nope=1', 'msg_get?id=1&select=id,payload', 'msg_get', 'msg_list?status=idle&id=lt.4&select=id&order=id', 'msg_create?payload=1', 'msg_pause', 'nope';
same('POST', "/rpc/$_->[0]", body => $_->[1]) for [ msg_running => {} ], [ msg_running => { channel => 'orders' } ], [ msg_running => { nope => 1 } ], [ msg_cancel_many => { ids => [ 1, 2 ] } ], [ msg_create => {} ], [ msg_pause => { channel => 'nope' } ],
	[ msg_channel_drop => { channel => 'orders' } ], [ msg_resume => {} ], [ msg_get => { id => 'x' } ];
like($other->ask('POST', '/rpc/msg_create', as => 'producer', body => { payload => { by => 'postgrest' }, channel => 'orders', deliver_at => '2100-01-01' })->{body}, qr/^\d+$/, 'a message is created through PostgREST');
is($node->safe_psql('postgres', q{SELECT count(*) FROM messages WHERE payload = '{"by": "postgrest"}' AND due_at = '2100-01-01' AND channel = 'orders'}), 1, 'and is there');

$running->stop;
$node->stop;
done_testing();
