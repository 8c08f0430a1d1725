# PostgREST's dialect, request by request: status, headers and bodies as PostgREST answers.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use JSON::PP;
use MsgsysTest;
use Test::More;

expect_findings('nobody: channel "default"' => 'there is nothing that sends', 'nobody: channel "orders"' => 'there is no Kafka');

my ($node, $facade) = facade_node('rest', 'msgsys.http_tx_override' => 'on');
$node->safe_psql('postgres', q{SET client_min_messages = error;
	INSERT INTO messages (channel, message_key, payload, headers, event_type)
	SELECT 'default', 'k' || g, jsonb_build_object('n', g, 'name', 'name ' || g, 'tags', jsonb_build_array('a', g), 'in', jsonb_build_object('x', g)), '{"h": "1"}', CASE WHEN g % 2 = 0 THEN 'even' END
	FROM generate_series(1, 15) g;
	SELECT msg_pause();
	SELECT msg_channel_set('orders', topic => 'orders')});

my $worker = worker_pid($node, 'http');
my %type = (json => 'application/json; charset=utf-8', object => 'application/vnd.pgrst.object+json; charset=utf-8', csv => 'text/csv; charset=utf-8');

# is_answer(NAME, ANSWER, status, { headers }, body as data or text)
sub is_answer
{
	my ($name, $answer, $status, $headers, $body) = @_;
	is($answer->{status}, $status, $name) or diag($answer->{body});
	is_deeply($answer->{headers}{ lc $_ }, $headers->{$_}, "$name: $_") for sort keys %{ $headers // {} };
	if (ref $body) { is_deeply($answer->{json}, $body, "$name: body") or diag($answer->{body}) }
	elsif (defined $body) { is($answer->{body} // '', $body, "$name: body") }
}
sub ask { return $facade->ask(@_[0, 1], as => 'operator', @_[2 .. $#_]); }
sub get { my ($path, %headers) = @_; return ask('GET', $path, headers => \%headers); }
sub error { my ($code, $message, $details, $hint) = @_; return { code => $code, message => $message, details => $details, hint => $hint }; }
# the n of each row
sub ns { my ($path) = @_; my $answer = get("/messages?select=n:payload->n&order=id&$path"); return ref $answer->{json} eq 'ARRAY' ? join(',', map { $_->{n} } @{ $answer->{json} }) : $answer->{body}; }

# ---- reading
is_answer('a list', get('/messages?select=id&order=id'), 200,
	{ 'Content-Type' => $type{json}, 'Content-Range' => '0-14/*', 'Content-Location' => '/messages?order=id&select=id', Vary => 'Accept, Prefer, Range' }, [ map { { id => $_ } } 1 .. 15 ]);
is_answer('an empty one', get('/messages?id=eq.99'), 200, { 'Content-Range' => '*/*' }, []);
is_answer('an empty one, counted', get('/messages?id=eq.99', Prefer => 'count=exact'), 200, { 'Content-Range' => '*/0' }, []);
is_answer('all, counted', get('/messages', Prefer => 'count=exact'), 200, { 'Content-Range' => '0-14/15', 'Preference-Applied' => 'count=exact' });
is_answer('a part, counted', get('/messages?select=id&order=id&limit=2&offset=3', Prefer => 'count=exact'), 206, { 'Content-Range' => '3-4/15' }, [ { id => 4 }, { id => 5 } ]);
is_answer('a part by Range', get('/messages?select=id&order=id', Range => '2-3', 'Range-Unit' => 'items'), 200, { 'Content-Range' => '2-3/*' }, [ { id => 3 }, { id => 4 } ]);
is_answer('Range within limit', get('/messages?select=id&order=id&limit=4', Range => '2-9'), 200, { 'Content-Range' => '2-3/*' }, [ { id => 3 }, { id => 4 } ]);
is_answer('an open Range', get('/messages?select=id&order=id', Range => '13-'), 200, { 'Content-Range' => '13-14/*' });
is_answer('limit=0', get('/messages?limit=0'), 200, { 'Content-Range' => '*/*' }, []);
is_answer('a negative offset takes from the limit', get('/messages?select=id&order=id&limit=5&offset=-3'), 200, { 'Content-Range' => '0-1/*' }, [ { id => 1 }, { id => 2 } ]);
is_answer('all of it', get('/messages?select=id&order=id&limit=1&offset=-3'), 416, {}, error('PGRST103', 'Requested range not satisfiable', 'Limit should be greater than or equal to zero.'));
is_answer('a negative offset alone', get('/messages?select=id&order=id&offset=-3'), 200, { 'Content-Range' => '0-14/*' });
is_answer('nothing, from a negative offset', get('/messages?select=id&limit=0&offset=-3'), 200, {}, []);
is_answer('a Range with its unit', get('/messages?select=id', Range => 'items=2-3'), 200, { 'Content-Range' => '0-14/*' });
is_answer('a negative limit', get('/messages?limit=-1'), 416, {}, error('PGRST103', 'Requested range not satisfiable', 'Limit should be greater than or equal to zero.'));
is_answer('an empty Range', get('/messages', Range => '5-2'), 416, {}, error('PGRST103', 'Requested range not satisfiable', 'The lower boundary must be lower than or equal to the upper boundary in the Range header.'));
is_answer('an offset behind the end', get('/messages?offset=100', Prefer => 'count=exact'), 416, { 'Content-Range' => '*/15' },
	error('PGRST103', 'Requested range not satisfiable', 'An offset of 100 was requested, but there are only 15 rows.'));
is_answer('the same, not counted', get('/messages?offset=100'), 200, { 'Content-Range' => '*/*' }, []);
like(get('/messages', Prefer => 'count=planned')->{headers}{'content-range'}, qr{^0-14/\d+$}, 'count=planned');
is(get('/messages', Prefer => 'count=estimated')->{headers}{'content-range'}, '0-14/15', 'count=estimated');
my $head = ask('HEAD', '/messages', headers => { Prefer => 'count=exact' });
is_answer('HEAD', $head, 200, { 'Content-Range' => '0-14/15', 'Content-Type' => $type{json} }, '');

# ---- what is selected
is_answer('paths, aliases, casts', get('/messages?id=eq.3&select=id,payload->>name,tag:payload->tags->1,payload->in->>x,st:status,n:payload->n::text,created_at::date'), 200, {},
	[ { id => 3, name => 'name 3', tag => 3, x => '3', st => 'idle', n => '3', created_at => $node->safe_psql('postgres', 'SELECT current_date') } ]);
is(scalar keys %{ get('/messages?select=*&limit=1')->{json}[0] }, $node->safe_psql('postgres', "SELECT count(*) FROM pg_attribute WHERE attrelid = 'messages'::regclass AND attnum > 0"), 'all columns');
is_answer('a quoted name', get('/messages?id=eq.1&select="id","message_key"'), 200, {}, [ { id => 1, message_key => 'k1' } ]);
is_answer('a name that needs quotes', get('/messages?id=eq.1&select=%22a%20%5C%22b%22:id'), 200, {}, [ { 'a "b' => 1 } ]);
is_answer('a column that is not there', get('/messages?select=nope'), 400, { 'Proxy-Status' => 'PostgREST; error=42703' }, error('42703', 'column messages.nope does not exist'));
is_answer('a type that is not there', get('/messages?select=id::nope'), 400, {}, error('42704', 'type "nope" does not exist'));
is_answer('embedding', get('/messages?select=id,msg_channels(*)'), 400, {},
	error('PGRST200', q{Could not find a relationship between 'messages' and 'msg_channels' in the schema cache}, q{Searched for a foreign key relationship between 'messages' and 'msg_channels' in the schema 'public', but no matches were found.}));
is_answer('spreading', get('/messages?select=...msg_channels(*)'), 400, {});
is_answer('an aggregate', get('/messages?select=id.sum()'), 400, {}, error('PGRST123', 'Use of aggregate functions is not allowed'));
is_answer('count()', get('/messages?select=count()'), 400, {}, error('PGRST123', 'Use of aggregate functions is not allowed'));

is_answer('an aggregate that is none', get('/messages?select=id.nope()'), 400, {}, error('PGRST100', '"failed to parse select parameter (id.nope())" (line 1, column 4)', 'unexpected "n" expecting "sum", "avg", "count", "max" or "min"'));
is_answer('an empty item', get('/messages?select=id,'), 400, {},
	error('PGRST100', '"failed to parse select parameter (id,)" (line 1, column 4)', 'unexpected end of input expecting "...", field name (* or [a..z0..9_$]), "*" or "count()"'));
is_answer('a path into a text', get('/messages?select=payload->>name->x'), 404, { 'Proxy-Status' => 'PostgREST; error=42883' });

# ---- filters
my %filters = (
	'id=eq.3' => '3', 'id=neq.3&id=lt.5' => '1,2,4', 'id=gt.13' => '14,15', 'id=gte.14' => '14,15', 'id=lte.2' => '1,2', 'id=in.(1,3,99)' => '1,3', 'id=in.()' => '',
	'id=not.in.(1,2,3,4,5,6,7,8,9,10,11,12,13)' => '14,15', 'message_key=in.("k1",k2)' => '1,2', 'message_key=like.k1*' => '1,10,11,12,13,14,15', 'message_key=ilike.K1_' => '10,11,12,13,14,15',
	'message_key=match.^k[12]$' => '1,2', 'message_key=imatch.^K1$' => '1', 'event_type=is.null&id=lt.4' => '1,3', 'event_type=not.is.null&id=lt.5' => '2,4', 'event_type=is.NOT_NULL&id=lt.5' => '2,4',
	'event_type=isdistinct.even&id=lt.4' => '1,3', 'payload=cs.{"n":2}' => '2', 'payload->tags=cs.["a",7]' => '7', 'payload->in=cd.{"x":4,"y":1}' => '4', 'payload->>name=eq.name%205' => '5',
	'payload->n=gt.14' => '15', 'payload->in->>x=eq.6' => '6', 'payload->tags->>1=eq.7' => '7', 'or=(id.eq.1,id.eq.2)' => '1,2', 'or=(id.eq.1,and(id.gt.3,id.lt.5))' => '1,4', 'and=(id.gt.3,id.lt.6)' => '4,5',
	'not.or=(id.gt.2,id.eq.1)' => '2', 'or=(not.and(id.gt.1,id.lt.15),id.eq.3)' => '1,3,15', 'not.and=(id.gt.1,id.lt.15)' => '1,15', 'or=(message_key.eq."k1",message_key.in.(k2,"k3"))' => '1,2,3',
	'or=(payload.cs.{"n":9},id.eq.1)' => '1,9', 'message_key=like(any).{k1,k2}' => '1,2', 'id=eq(any).{1,2}' => '1,2', 'id=gt(all).{13,14}' => '15', 'message_key=not.like.k*' => '', 'status=eq.idle&id=lt.3' => '1,2',
	'id=eq.1&id=eq.2' => '', 'created_at=lte.infinity&id=eq.1' => '1', 'payload->>name=fts(english).5' => '5', 'payload->>name=not.plfts.5&id=in.(5,6)' => '6', 'payload->>name=wfts.5' => '5', 'payload->>name=phfts.name+5' => '5',
);
is(ns($_), $filters{$_}, $_) for sort keys %filters;
is_answer('no operator', get('/messages?id=0'), 400, { 'Proxy-Status' => 'PostgREST; error=PGRST100' }, error('PGRST100', '"failed to parse filter (0)" (line 1, column 1)', 'unexpected "0" expecting "not" or operator (eq, gt, ...)'));
is_answer('an unknown one', get('/messages?id=not.noop.1'), 400, {}, error('PGRST100', '"failed to parse filter (not.noop.1)" (line 1, column 5)', 'unexpected "n" expecting operator (eq, gt, ...)'));
is_answer('a bad value', get('/messages?id=eq.x'), 400, {}, error('22P02', 'invalid input syntax for type bigint: "x"'));
is_answer('a bad tree', get('/messages?or=()'), 400, {}, error('PGRST100', '"failed to parse logic tree (())" (line 1, column 2)', 'unexpected ")" expecting field name (* or [a..z0..9_$]), negation operator (not) or logic operator (and, or)'));
is_answer('an open tree', get('/messages?or=(id.eq.1'), 400, {});
is_answer('a filter of an embedded table', get('/messages?msg_channels.topic=eq.a'), 400, {},
	error('PGRST108', q{'msg_channels' is not an embedded resource in this request}, undef, q{Verify that 'msg_channels' is included in the 'select' query parameter.}));
is_answer('an operator that the type does not have', get('/messages?id=sl.3'), 404, { 'Proxy-Status' => 'PostgREST; error=42883' });
is_answer('nothing is executed', get(q{/messages?message_key=eq.x';DROP%20TABLE%20messages--&select=id}), 200, {}, []);
is_answer('nor in a path', get(q{/messages?payload->>x'||(select%201)=eq.1}), 400, {});
is_answer('nor in an alias', get(q{/messages?id=eq.1&select=%22x%22%22,pg_sleep(1)%22:id}), 400, {});

# ---- order
my $order = sub { return join ',', map { $_->{id} } @{ get("/messages?select=id&limit=3&order=$_[0]")->{json} } };
is($order->('id.desc'), '15,14,13', 'descending');
is($order->('event_type.asc.nullsfirst,id.desc'), '15,13,11', 'nulls first, then by another');
is($order->('event_type.desc.nullslast,id'), '2,4,6', 'nulls last');
is($order->('payload->n.desc'), '15,14,13', 'by a path');
is_answer('a bad order', get('/messages?order=id.ac'), 400, {}, error('PGRST100', '"failed to parse order (id.ac)" (line 1, column 3)', 'unexpected "." expecting "asc", "desc", "nullsfirst" or "nullslast"'));
is_answer('by an embedded table', get('/messages?order=msg_channels(topic)'), 400, {});

# ---- media types
is_answer('a single object', get('/messages?id=eq.2&select=id', Accept => 'application/vnd.pgrst.object+json'), 200, { 'Content-Type' => $type{object} }, { id => 2 });
is_answer('not a single one', get('/messages?id=lt.3', Accept => 'application/vnd.pgrst.object+json'), 406, {}, error('PGRST116', 'Cannot coerce the result to a single JSON object', 'The result contains 2 rows'));
is_answer('without nulls', get('/messages?id=eq.1&select=id,due_at', Accept => 'application/vnd.pgrst.array+json;nulls=stripped'), 200, { 'Content-Type' => 'application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8' }, [ { id => 1 } ]);
is_answer('nulls=stripped of plain JSON', get('/messages?id=eq.1&select=id,due_at', Accept => 'application/json;nulls=stripped'), 200, { 'Content-Type' => $type{json} }, [ { id => 1, due_at => undef } ]);
is_answer('CSV', get('/messages?id=lt.3&select=id,payload->>name,event_type&order=id', Accept => 'text/csv', Prefer => 'count=exact'), 200, { 'Content-Type' => $type{csv}, 'Content-Range' => '0-1/2' }, "id,name,event_type\n1,name 1,\n2,name 2,even");
is_answer('CSV with what needs quotes', get('/messages?id=eq.1&select=headers', Accept => 'text/csv'), 200, {}, qq(headers\n"{""h"": ""1""}"));
is_answer('CSV with an empty text, and none', get(q{/messages?id=eq.1&select=a:payload->>none,b:payload->in->>x,c:event_type}, Accept => 'text/csv'), 200, {}, "a,b,c\n,1,");
is_answer('CSV of a scalar', get('/rpc/msg_running', Accept => 'text/csv'), 200, { 'Content-Type' => $type{csv} }, "pgrst_scalar\nf");
is_answer('the best of a list', get('/messages?id=eq.1&select=id', Accept => 'text/html, application/vnd.pgrst.object+json;q=0.5, application/json;q=0.9'), 200, { 'Content-Type' => $type{json} });
is_answer('none that we have', get('/messages', Accept => 'text/foo'), 406, {}, error('PGRST107', 'None of these media types are available: text/foo'));
is_answer('a plan', get('/messages', Accept => 'application/vnd.pgrst.plan+text'), 406, {});

# ---- inserting
is_answer('one', ask('POST', '/messages', body => { payload => { a => 1 } }), 201, { Vary => 'Accept, Prefer, Range', 'Content-Range' => '*/*', 'Content-Length' => 0, 'Content-Type' => undef, Location => undef }, '');
is_answer('return=minimal', ask('POST', '/messages', body => { payload => { a => 1 } }, headers => { Prefer => 'return=minimal' }), 201, { 'Preference-Applied' => 'return=minimal' }, '');
is_answer('several, shown', ask('POST', '/messages?select=id,payload->a,channel', body => [ { payload => { a => 1 } }, { payload => { a => 2 } } ], headers => { Prefer => 'return=representation,count=exact' }), 201,
	{ 'Content-Range' => '*/2', 'Preference-Applied' => 'return=representation, count=exact' }, [ { id => 18, a => 1, channel => 'default' }, { id => 19, a => 2, channel => 'default' } ]);
is_answer('headers only', ask('POST', '/messages', body => { payload => 1 }, headers => { Prefer => 'return=headers-only' }), 201, { Location => '/messages?id=eq.20', 'Preference-Applied' => 'return=headers-only' }, '');
is_answer('nothing', ask('POST', '/messages', body => '[]', headers => { Prefer => 'return=representation' }), 201, {}, []);
is_answer('a form', ask('POST', '/messages?select=message_key', body => 'payload=%7B%22f%22%3A1%7D&message_key=a+b', headers => { 'Content-Type' => 'application/x-www-form-urlencoded', Prefer => 'return=representation' }), 201, {}, [ { message_key => 'a b' } ]);
is_answer('a form of texts', ask('POST', '/msg_channels?select=channel,topic', body => 'channel=formed&topic=t.1', headers => { 'Content-Type' => 'application/x-www-form-urlencoded', Prefer => 'return=representation' }), 201, {}, [ { channel => 'formed', topic => 't.1' } ]);
is(ask('POST', '/messages?select=message_key', body => 'payload=1&message_key=a%ff', headers => { 'Content-Type' => 'application/x-www-form-urlencoded', Prefer => 'return=representation' })->{status}, 400,
	'a form whose decoded text is none');
is_answer('a single one', ask('POST', '/messages?select=channel', body => { payload => 1 }, headers => { Prefer => 'return=representation', Accept => 'application/vnd.pgrst.object+json' }), 201, { 'Content-Type' => $type{object} }, { channel => 'default' });
my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM messages');
is_answer('two are not a single one', ask('POST', '/messages', body => [ { payload => 1 }, { payload => 2 } ], headers => { Accept => 'application/vnd.pgrst.object+json', Prefer => 'return=minimal' }), 406, {});
is($node->safe_psql('postgres', 'SELECT count(*) FROM messages'), $before, 'and are not there');
is_answer('columns=, missing ones are null', ask('POST', '/messages?columns=payload,message_key&select=message_key,payload', body => [ { payload => 1, x => 1 }, { payload => 2, message_key => 'm' } ], headers => { Prefer => 'return=representation' }), 201, {},
	[ { message_key => undef, payload => 1 }, { message_key => 'm', payload => 2 } ]);
is_answer('columns=, a missing one that must be there', ask('POST', '/messages?columns=payload,channel', body => [ { payload => 1 } ]), 400, { 'Proxy-Status' => 'PostgREST; error=23502' });
is_answer('missing=default', ask('POST', '/messages?columns="payload","channel"&select=channel', body => [ { payload => 1 }, { payload => 2, channel => 'orders' } ], headers => { Prefer => 'missing=default, return=representation' }), 201,
	{ 'Preference-Applied' => 'missing=default, return=representation' }, [ { channel => 'default' }, { channel => 'orders' } ]);
is_answer('different keys', ask('POST', '/messages', body => [ { payload => 1 }, { payload => 1, message_key => 'k' } ]), 400, {}, error('PGRST102', 'All object keys must match'));
is_answer('no JSON', ask('POST', '/messages', body => '{"a":'), 400, {}, error('PGRST102', 'Empty or invalid json'));
is_answer('nothing at all', ask('POST', '/messages', body => ''), 400, {}, error('PGRST102', 'Empty or invalid json'));
is_answer('an unknown column', ask('POST', '/messages', body => { payload => 1, nope => 1 }), 400, {}, error('PGRST204', q{Could not find the 'nope' column of 'messages' in the schema cache}));
is_answer('an unknown one in columns=', ask('POST', '/messages?columns=nope', body => { payload => 1 }), 400, {}, error('PGRST204', q{Could not find the 'nope' column of 'messages' in the schema cache}));
is_answer('another type of body', ask('POST', '/messages', body => 'x', headers => { 'Content-Type' => 'text/plain' }), 400, {}, error('PGRST102', 'Content-Type not acceptable: text/plain', undef, 'Bodies are of the type application/json or application/x-www-form-urlencoded.'));
# what is forgotten most often, and what curl -d says then
my $is_json = 'The body looks like JSON: send it with the header "Content-Type: application/json".';
my $form = 'application/x-www-form-urlencoded';
for my $body ('{"payload": 1}', " [ {\"payload\": 1} ]")
{
	is_answer('JSON as a form', ask('POST', $_, body => $body, headers => { 'Content-Type' => $form }), 400, {}, error('PGRST102', 'The body is no form, as its Content-Type says', undef, $is_json))
	  for '/messages', '/messages?columns=payload', '/rpc/msg_create';
	is_answer('JSON as text', ask('POST', '/messages', body => $body, headers => { 'Content-Type' => 'text/plain;charset=UTF-8' }), 400, {}, error('PGRST102', 'Content-Type not acceptable: text/plain', undef, $is_json));
}
my $untyped = raw_request($facade->{port}, "POST /messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " . token({ role => 'operator' }) . "\r\nContent-Length: 25\r\n\r\npayload=1&message_key=%61");
like($untyped, qr{^HTTP/1.1 400.*PGRST102.*Empty or invalid json.*looks like a form.*x-www-form-urlencoded.*taken for JSON}s, 'a form without a type');
is_answer('what the extension refuses', ask('POST', '/messages', body => { payload => 1, channel => 'nowhere' }), 400, {}, error('42704', 'channel "nowhere" does not exist', undef, 'Make it with msg_channel_set().'));
is_answer('a constraint', ask('POST', '/messages', body => { channel => 'default' }), 400, { 'Proxy-Status' => 'PostgREST; error=23514' });
is_answer('a duplicate', ask('POST', '/msg_channels', body => { channel => 'orders' }), 409, { 'Proxy-Status' => 'PostgREST; error=23505' });
is_answer('tx=rollback', ask('POST', '/msg_channels?select=channel', body => { channel => 'undone' }, headers => { Prefer => 'tx=rollback, return=representation' }), 201, { 'Preference-Applied' => 'return=representation, tx=rollback' }, [ { channel => 'undone' } ]);
is($node->safe_psql('postgres', "SELECT count(*) FROM msg_channels WHERE channel = 'undone'"), 0, 'is rolled back');

is_answer('headers of several', ask('POST', '/messages', body => [ { payload => 1 }, { payload => 2 } ], headers => { Prefer => 'return=headers-only, tx=rollback' }), 201, { Location => undef }, '');
is_answer('shown in order', ask('POST', '/messages?select=k:message_key&order=message_key.desc,id', body => [ map { { payload => 1, message_key => $_ } } qw(a c b) ], headers => { Prefer => 'return=representation, tx=rollback' }), 201, {}, [ map { { k => $_ } } qw(c b a) ]);
is_answer('in order, as CSV', ask('POST', '/messages?select=k:message_key&order=message_key', body => [ map { { payload => 1, message_key => $_ } } qw(a c b) ], headers => { Prefer => 'return=representation, tx=rollback', Accept => 'text/csv' }), 201, {}, "k\na\nb\nc");
is_answer('an order that is none', ask('POST', '/messages?order=nope', body => { payload => 1 }, headers => { Prefer => 'return=representation' }), 400, {}, error('42703', 'column messages.nope does not exist'));
is_answer('an empty text as CSV', ask('POST', '/messages?select=event_type,response_id,message_key', body => { payload => 1, event_type => '', message_key => 'e' }, headers => { Prefer => 'return=representation, tx=rollback', Accept => 'text/csv' }), 201, {}, qq(event_type,response_id,message_key\n"",,e));
is_answer('max-affected is not for them', ask('POST', '/messages', body => [ { payload => 1 }, { payload => 2 } ], headers => { Prefer => 'handling=strict, max-affected=1, tx=rollback' }), 201, { 'Preference-Applied' => 'tx=rollback, handling=strict' });
is_answer('count=estimated', ask('POST', '/messages', body => { payload => 1 }, headers => { Prefer => 'count=estimated, tx=rollback' }), 201, { 'Content-Range' => '*/1' });
is_answer('missing=default without columns=', ask('POST', '/messages', body => { payload => 1 }, headers => { Prefer => 'missing=default, tx=rollback' }), 201, { 'Preference-Applied' => 'missing=default, tx=rollback' });
is_answer('columns= and no object', ask('POST', '/messages?columns=payload', body => '5'), 400, { 'Proxy-Status' => 'PostgREST; error=PGRST102' });
is_answer('a type that only answers have', ask('POST', '/messages', body => '{"payload": 1}', headers => { 'Content-Type' => 'application/vnd.pgrst.object+json' }), 400, {}, error('PGRST102', 'Content-Type not acceptable: application/vnd.pgrst.object+json', undef, $is_json));

# ---- upsert
my %merge = (Prefer => 'resolution=merge-duplicates,return=representation');
is_answer('merged, one new', ask('POST', '/msg_channels?select=channel,topic', body => [ { channel => 'orders', topic => 'o2' }, { channel => 'fresh', topic => 'f' } ], headers => \%merge), 201,
	{ 'Preference-Applied' => 'resolution=merge-duplicates, return=representation' }, [ { channel => 'orders', topic => 'o2' }, { channel => 'fresh', topic => 'f' } ]);
is_answer('merged, none new', ask('POST', '/msg_channels?select=channel,topic', body => [ { channel => 'orders', topic => 'o3' } ], headers => \%merge), 200, {}, [ { channel => 'orders', topic => 'o3' } ]);
is_answer('merged, none new, as CSV', ask('POST', '/msg_channels?select=topic', body => { channel => 'orders', topic => 'o3' }, headers => { %merge, Accept => 'text/csv' }), 200, {}, "topic\no3");
is_answer('merged, in order', ask('POST', '/msg_channels?select=topic&order=channel.desc', body => [ { channel => 'orders', topic => 'o3' }, { channel => 'fresh', topic => 'f' } ], headers => { Prefer => "$merge{Prefer}, count=exact" }), 200, { 'Content-Range' => '*/2' }, [ { topic => 'o3' }, { topic => 'f' } ]);
is_answer('merged, without a body', ask('POST', '/msg_channels', body => [ { channel => 'orders', topic => 'o4' } ], headers => { Prefer => 'resolution=merge-duplicates' }), 200, {}, '');
is_answer('ignored', ask('POST', '/msg_channels?select=channel&on_conflict=channel', body => [ { channel => 'orders' }, { channel => 'more' } ], headers => { Prefer => 'resolution=ignore-duplicates,return=representation' }), 201, {}, [ { channel => 'more' } ]);
is_answer('ignored, none new', ask('POST', '/msg_channels', body => { channel => 'more' }, headers => { Prefer => 'resolution=ignore-duplicates,return=representation' }), 201, {}, []);
is_answer('the same row twice', ask('POST', '/msg_channels', body => [ { channel => 'more', topic => 'a' }, { channel => 'more', topic => 'b' } ], headers => \%merge), 400, { 'Proxy-Status' => 'PostgREST; error=21000' });
is_answer('PUT, new', ask('PUT', '/msg_channels?channel=eq.put&select=channel', body => { channel => 'put', topic => 'p' }, headers => { Prefer => 'return=representation' }), 201, {}, [ { channel => 'put' } ]);
is_answer('PUT, again', ask('PUT', '/msg_channels?channel=eq.put&select=topic', body => { channel => 'put', topic => 'q' }, headers => { Prefer => 'return=representation' }), 200, {}, [ { topic => 'q' } ]);
is_answer('PUT, without a body', ask('PUT', '/msg_channels?channel=eq.put', body => { channel => 'put', topic => 'r' }), 204, { 'Content-Type' => undef }, '');
is_answer('PUT, other filters', ask('PUT', '/msg_channels?topic=eq.put', body => { channel => 'put' }), 405, {}, error('PGRST105', q{Filters must include all and only primary key columns with 'eq' operators}));
is_answer('PUT, another key', ask('PUT', '/msg_channels?channel=eq.put', body => { channel => 'tup' }), 400, {}, error('PGRST115', 'Payload values do not match URL in primary key column(s)'));
is_answer('PUT does not know columns=', ask('PUT', '/msg_channels?channel=eq.put&columns=channel', body => { channel => 'put', nope => 1 }), 400, { 'Proxy-Status' => 'PostgREST; error=PGRST204' });
is_answer('PUT with limit', ask('PUT', '/msg_channels?channel=eq.put&limit=1', body => { channel => 'put' }), 400, {}, error('PGRST114', 'limit/offset querystring parameters are not allowed for PUT'));

# ---- changing and deleting
is_answer('PATCH', ask('PATCH', '/messages?id=in.(1,2)', body => { message_key => 'changed' }), 204, { 'Content-Range' => '0-1/*', 'Content-Type' => undef }, '');
is_answer('PATCH, shown', ask('PATCH', '/messages?id=in.(1,2)&select=id,message_key', body => { message_key => 'again' }, headers => { Prefer => 'return=representation,count=exact' }), 200,
	{ 'Content-Range' => '0-1/2' }, [ { id => 1, message_key => 'again' }, { id => 2, message_key => 'again' } ]);
is_answer('PATCH, none', ask('PATCH', '/messages?id=eq.999', body => { message_key => 'x' }), 204, { 'Content-Range' => '*/*' }, '');
is_answer('PATCH, none, shown', ask('PATCH', '/messages?id=eq.999', body => { message_key => 'x' }, headers => { Prefer => 'return=representation' }), 200, {}, []);
is_answer('PATCH, nothing', ask('PATCH', '/messages?id=eq.1', body => {}), 204, { 'Content-Range' => '*/*' }, '');
is_answer('PATCH all', ask('PATCH', '/messages', body => { message_key => 'x' }), 400, {}, error('21000', 'UPDATE requires a WHERE clause'));
is_answer('PATCH all but for select', ask('PATCH', '/messages?select=id&limit=1', body => { message_key => 'x' }), 400, {});
is_answer('max-affected', ask('PATCH', '/messages?id=lt.10', body => { message_key => 'many' }, headers => { Prefer => 'handling=strict, max-affected=2' }), 400, {},
	error('PGRST124', 'Query result exceeds max-affected preference constraint', 'The query affects 9 rows'));
is($node->safe_psql('postgres', "SELECT count(*) FROM messages WHERE message_key = 'many'"), 0, 'nothing is changed');
is_answer('max-affected that is kept', ask('PATCH', '/messages?id=lt.3', body => { message_key => 'few' }, headers => { Prefer => 'handling=strict, max-affected=2' }), 204, { 'Preference-Applied' => 'handling=strict, max-affected=2' });
is_answer('PATCH of a key in JSON null', ask('PATCH', '/messages?id=eq.1&select=headers', body => '{"headers": null}', headers => { Prefer => 'return=representation' }), 200, {}, [ { headers => undef } ]);
is_answer('PATCH, missing=default', ask('PATCH', '/msg_channels?channel=eq.orders&columns=topic,ack,max_attempts&select=topic,ack,max_attempts', body => { topic => 'o4', max_attempts => 3 }, headers => { Prefer => 'missing=default, return=representation, tx=rollback' }), 200,
	{ 'Preference-Applied' => 'missing=default, return=representation, tx=rollback' }, [ { topic => 'o4', ack => 'readback', max_attempts => 3 } ]);
is_answer('PATCH, in order', ask('PATCH', '/messages?id=in.(1,2,3)&select=id&order=id.desc', body => { event_type => 'x' }, headers => { Prefer => 'return=representation, tx=rollback' }), 200, {}, [ map { { id => $_ } } 3, 2, 1 ]);
is_answer('PATCH with an embedded table', ask('PATCH', '/messages?id=eq.1&select=id,msg_channels(*)', body => { message_key => 'not this' }), 400, { 'Proxy-Status' => 'PostgREST; error=PGRST200' });
is_answer('DELETE with one', ask('DELETE', '/messages?id=eq.1&select=id,msg_channels(*)'), 400, { 'Proxy-Status' => 'PostgREST; error=PGRST200' });
is($node->safe_psql('postgres', "SELECT count(*) FROM messages WHERE id = 1 AND message_key <> 'not this'"), 1, 'change nothing');
is_answer('DELETE, in order', ask('DELETE', '/messages?id=in.(1,2,3)&select=id&order=id.desc', headers => { Prefer => 'return=representation, tx=rollback' }), 200, {}, [ map { { id => $_ } } 3, 2, 1 ]);
is_answer('DELETE all', ask('DELETE', '/messages'), 400, {}, error('21000', 'DELETE requires a WHERE clause'));
is_answer('DELETE', ask('DELETE', '/messages?id=eq.15', headers => { Prefer => 'count=exact' }), 204, { 'Content-Range' => '*/1', 'Content-Type' => undef, 'Content-Length' => undef }, '');
is_answer('DELETE, shown', ask('DELETE', '/messages?id=eq.14&select=id', headers => { Prefer => 'return=representation' }), 200, { 'Content-Range' => '*/*' }, [ { id => 14 } ]);

# ---- preferences
is_answer('unknown, strict', get('/messages?id=eq.1', Prefer => 'handling=strict, foo, bar=1'), 400, {}, error('PGRST122', 'Invalid preferences given with handling=strict', 'Invalid preferences: foo, bar=1'));
is_answer('unknown, lenient', get('/messages?id=eq.1', Prefer => 'handling=lenient, foo'), 200, { 'Preference-Applied' => 'handling=lenient' });
like(get('/messages?id=eq.1&select=created_at', Prefer => 'timezone=Asia/Kolkata')->{json}[0]{created_at}, qr/\+05:30$/, 'timezone=');
is_answer('a time zone that is none', get('/messages?id=eq.1', Prefer => "$_->[0]timezone=Nowhere/Land"), 400, {}, error('22023', 'invalid value for parameter "TimeZone": "Nowhere/Land"')) for [''], ['handling=strict, '];

# ---- functions
is_answer('a scalar', ask('POST', '/rpc/msg_create', body => { payload => { r => 1 }, message_key => 'rpc' }), 200, { 'Content-Type' => $type{json}, 'Content-Range' => '0-0/*' });
like(ask('POST', '/rpc/msg_create', body => { payload => 1 })->{body}, qr/^\d+$/, 'is bare');
is_answer('a boolean', get('/rpc/msg_running'), 200, {}, 'false');
is_answer('by GET with an argument', get('/rpc/msg_running?channel=orders'), 200, {}, 'false');
is_answer('by HEAD', ask('HEAD', '/rpc/msg_running'), 200, {}, '');
is_answer('a row', get('/rpc/msg_get?id=1&select=id,status'), 200, {}, { id => 1, status => 'idle' });
is_answer('no row', get('/rpc/msg_get?id=99999&select=id'), 200, {}, { id => undef });
is_answer('a set', get('/rpc/msg_list?status=idle&limit=2&select=id&order=id'), 200, {}, [ { id => 1 }, { id => 2 } ]);
is_answer('a set, filtered', get('/rpc/msg_list?id=in.(1,3)&select=id&order=id.desc', Prefer => 'count=exact'), 200, { 'Content-Range' => '0-1/2' }, [ { id => 3 }, { id => 1 } ]);
is_answer('by POST', ask('POST', '/rpc/msg_list?select=id&order=id&limit=1', body => { limit => 5, offset => 0 }), 200, {});
is_answer('a set of scalars', ask('POST', '/rpc/msg_create_many?limit=1', body => { messages => [ { payload => 1 }, { payload => 2 } ] }), 200, {});
is_answer('void', ask('POST', '/rpc/msg_channel_drop', body => { channel => 'formed' }), 204, { 'Content-Type' => undef }, '');
is($node->safe_psql('postgres', "SELECT count(*) FROM msg_channels WHERE channel = 'formed'"), 0, 'is done');
is_answer('arrays', ask('POST', '/rpc/msg_webhook_set?select=success_codes,retry_schedule', body => { channel => 'fresh', url => 'https://example.com/', success_codes => [ 200, 202 ], retry_schedule => ['1 s'] }), 200, {}, { success_codes => [ 200, 202 ], retry_schedule => ['00:00:01'] });
is_answer('a record', ask('POST', '/rpc/msg_stats?limit=0', body => {}), 200, {}, []);
is_answer('writing by GET', get('/rpc/msg_create?payload=1'), 405, { 'Proxy-Status' => 'PostgREST; error=25006' }, error('25006', 'cannot execute INSERT in a read-only transaction'));
is_answer('by PUT', ask('PUT', '/rpc/msg_running', body => {}), 405, {}, error('PGRST101', 'Cannot use the PUT method on RPC'));
is_answer('a function that is not there', get('/rpc/msg_lst?a=1&b=2'), 404, {},
	error('PGRST202', 'Could not find the function public.msg_lst(a, b) in the schema cache', 'Searched for the function public.msg_lst with parameters a, b, but no matches were found in the schema cache.', 'Perhaps you meant to call the function public.msg_list'));
is_answer('arguments that are not there', ask('POST', '/rpc/msg_running', body => { b => 1 }), 404, {},
	error('PGRST202', 'Could not find the function public.msg_running(b) in the schema cache', 'Searched for the function public.msg_running with parameter b or with a single unnamed json/jsonb parameter, but no matches were found in the schema cache.'));
is_answer('an argument that is missing', get('/rpc/msg_get'), 404, {},
	error('PGRST202', 'Could not find the function public.msg_get without parameters in the schema cache', 'Searched for the function public.msg_get without parameters, but no matches were found in the schema cache.'));
is_answer('an error of a function', ask('POST', '/rpc/msg_pause', body => { channel => 'nope' }), 400, {}, error('42704', 'channel "nope" does not exist'));
is_answer('a column of a scalar', ask('POST', '/rpc/msg_create?select=x', body => { payload => 1 }), 400, {}, error('42703', 'column msg_create.x does not exist'));
is_answer('a column that rows of a table do not have', get('/rpc/msg_list?nope=eq.1'), 400, {}, error('42703', 'column messages.nope does not exist'));
is_answer('a scalar without its row', get('/rpc/msg_running?limit=0'), 200, {}, 'null');
is_answer('count=estimated of a set', get('/rpc/msg_list?id=in.(1,3)&select=id&order=id', Prefer => 'count=estimated'), 200, { 'Content-Range' => '0-1/2', 'Preference-Applied' => 'count=estimated' });
is_answer('count=planned of a set', get('/rpc/msg_list?id=in.(1,3)&select=id&order=id', Prefer => 'count=planned'), 200, { 'Content-Range' => '0-1/*', 'Preference-Applied' => 'count=planned' });
is_answer('columns= choose arguments', ask('POST', '/rpc/msg_list?columns=limit', body => { limit => 1, nope => 2 }), 200, { 'Content-Range' => '0-0/*' });
is_answer('columns= that is no argument', ask('POST', '/rpc/msg_list?columns=nope', body => { limit => 1, nope => 2 }), 404, { 'Proxy-Status' => 'PostgREST; error=PGRST202' });
is_answer('max-affected on void', ask('POST', '/rpc/msg_channel_drop', body => { channel => 'orders' }, headers => { Prefer => 'handling=strict, max-affected=1' }), 400, { 'Proxy-Status' => 'PostgREST; error=PGRST128' });
is($node->safe_psql('postgres', "SELECT count(*) FROM msg_channels WHERE channel = 'orders'"), 1, 'nothing is done');
is_answer('max-affected on a scalar', ask('POST', '/rpc/msg_running', body => {}, headers => { Prefer => 'handling=strict, max-affected=1' }), 400, { 'Proxy-Status' => 'PostgREST; error=PGRST128' });
is_answer('a single object of a set', ask('POST', '/rpc/msg_list', body => {}, headers => { Accept => 'application/vnd.pgrst.object+json' }), 406, {});

# ---- what is not served
is_answer('a table that is not there', get('/messagez'), 404, {}, error('PGRST205', q{Could not find the table 'public.messagez' in the schema cache}, undef, q{Perhaps you meant the table 'public.messages'}));
$node->safe_psql('postgres', 'CREATE TABLE own (a int); GRANT ALL ON own TO operator; CREATE FUNCTION msg_own() RETURNS int LANGUAGE sql AS $$SELECT 1$$');
is_answer('a table that is not the extension\'s', get('/own'), 404, {});
is_answer('nor a function', get('/rpc/msg_own'), 404, {});
is_answer('secrets', get('/msg_webhook_secrets'), 404, {});
is_answer('the catalogue', get('/pg_class'), 404, {});
is_answer('a longer path', get('/messages/1'), 404, {}, error('PGRST125', 'Invalid path specified in request URL'));
is_answer('another schema', get('/messages', 'Accept-Profile' => 'private'), 406, {}, error('PGRST106', 'Invalid schema: private', undef, 'Only the following schemas are exposed: public'));
is_answer('this schema', get('/messages?limit=0', 'Accept-Profile' => 'public'), 200, { 'Content-Profile' => 'public' });
is_answer('another schema to write', ask('POST', '/messages', body => { payload => 1 }, headers => { 'Content-Profile' => 'private' }), 406, {});
is_answer('another method', ask('TRACE', '/messages'), 405, {}, error('PGRST117', 'Unsupported HTTP method: TRACE'));
is_answer('writing a view', ask('POST', '/msg_backlog', body => { channel => 'x' }), 405, {});

# ---- OPTIONS and other origins
is_answer('OPTIONS of the description', ask('OPTIONS', '/'), 200, { Allow => 'OPTIONS,GET,HEAD' }, '');
is_answer('OPTIONS of a table', ask('OPTIONS', '/msg_channels'), 200, { Vary => 'Accept, Prefer, Range', Allow => 'OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE', 'Content-Length' => 0 });
is_answer('of a view', ask('OPTIONS', '/msg_backlog'), 200, { Allow => 'OPTIONS,GET,HEAD' });
is_answer('of a function', ask('OPTIONS', '/rpc/msg_create'), 200, { Allow => 'OPTIONS,POST' });
is_answer('of one that reads', ask('OPTIONS', '/rpc/msg_list'), 200, { Allow => 'OPTIONS,GET,HEAD,POST' });
is_answer('a preflight, without a token', $facade->ask('OPTIONS', '/messages', headers => { Origin => 'http://example.com', 'Access-Control-Request-Method' => 'POST', 'Access-Control-Request-Headers' => 'Foo,Bar' }), 200,
	{ 'Access-Control-Allow-Origin' => '*', 'Access-Control-Allow-Methods' => 'GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD', 'Access-Control-Allow-Headers' => 'Authorization, Foo,Bar, Accept, Accept-Language, Content-Language', 'Access-Control-Max-Age' => 86400 });
is_answer('from another origin', get('/messages?limit=0', Origin => 'http://example.com'), 200,
	{ 'Access-Control-Allow-Origin' => '*', 'Access-Control-Expose-Headers' => 'Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, Transfer-Encoding, Range-Unit' });
is_answer("what no token guards, from another origin: $_", $facade->ask('GET', $_, headers => { Origin => 'http://example.com' }), 200, { 'Access-Control-Allow-Origin' => undef, 'Access-Control-Expose-Headers' => undef })
  for '/metrics', '/health/live', '/ui/';
is_answer('what a browser says of where it is that we do not know', $facade->ask('POST', '/messages', body => { payload => 1 }, headers => { 'Sec-Fetch-Site' => 'beside' }), 403, {});

# ---- what the database says of status and headers
$node->safe_psql('postgres', q{CREATE FUNCTION f_tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	CASE NEW.message_key
		WHEN 'status' THEN PERFORM set_config('response.status', '418', true), set_config('response.headers', '[{"X-Tea": "pot"}, {"Set-Cookie": "a=b"}]', true);
		WHEN 'type' THEN PERFORM set_config('response.headers', '[{"content-type": "text/x"}, {"Set-Cookie": "a=b"}, {"Set-Cookie": "c=d"}]', true);
		WHEN 'bad' THEN PERFORM set_config('response.headers', '{"X-Tea": "pot"}', true);
		WHEN 'number' THEN PERFORM set_config('response.headers', '[{"X-Tea": 1}]', true);
		WHEN 'none' THEN PERFORM set_config('response.headers', 'no JSON', true);
		WHEN 'ptx' THEN RAISE sqlstate 'PTXYZ' USING message = 'Payment';
		WHEN 'detail' THEN RAISE sqlstate 'PGRST' USING message = '{"code": "123", "message": "m"}', detail = '{"status": 332}';
		WHEN 'message' THEN RAISE sqlstate 'PGRST' USING message = 'm', detail = '{"status": 332, "headers": {}}';
		WHEN 'alone' THEN RAISE sqlstate 'PGRST' USING message = '{"code": "123", "message": "m"}';
		WHEN 'pt' THEN RAISE sqlstate 'PT402' USING message = 'Payment', detail = 'Quota', hint = 'Upgrade';
		WHEN 'pgrst' THEN RAISE sqlstate 'PGRST' USING message = '{"code": "123", "message": "m", "details": "d"}', detail = '{"status": 332, "headers": {"X-Tea": "pot"}}';
		WHEN 'request' THEN RAISE '%', (SELECT json_build_array(current_setting('request.method'), current_setting('request.path'), current_setting('request.headers')::json ->> 'x-own', current_setting('request.jwt.claims')::json ->> 'role', current_setting('request.cookies')::json ->> 'c', current_user));
		ELSE NULL;
	END CASE; RETURN NEW; END $$; CREATE TRIGGER a BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION f_tell()});
is_answer('response.status and response.headers', ask('POST', '/messages', body => { payload => 1, message_key => 'status' }), 418, { 'X-Tea' => 'pot', 'Set-Cookie' => 'a=b' });
is_answer('PT402', ask('POST', '/messages', body => { payload => 1, message_key => 'pt' }), 402, {}, error('PT402', 'Payment', 'Quota', 'Upgrade'));
is_answer('PGRST', ask('POST', '/messages', body => { payload => 1, message_key => 'pgrst' }), 332, { 'X-Tea' => 'pot' }, error('123', 'm', 'd'));
sub keyed { my ($key) = @_; return ask('POST', '/messages?select=message_key', body => { payload => 1, message_key => $key }, headers => { Prefer => 'return=representation' }); }
is_answer('fields in place of ours', keyed('type'), 201, { 'Content-Type' => 'text/x', 'Set-Cookie' => [ 'a=b', 'c=d' ] });
is_answer("no fields: $_", keyed($_), 500, {}, error('PGRST111', 'response.headers guc must be a JSON array composed of objects with a single key and a string value')) for qw(bad number none);
is_answer('PT without a status', keyed('ptx'), 500, {}, error('PTXYZ', 'Payment'));
my @misraised = ('PGRST121', q{Could not parse JSON in the "RAISE SQLSTATE 'PGRST'" error});
my $detail_hint = q{DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: 'status_text'.};
is_answer('PGRST without headers', keyed('detail'), 500, {}, error(@misraised, q{Invalid JSON value for DETAIL: '{"status": 332}'}, $detail_hint));
is_answer('PGRST without a detail', keyed('alone'), 500, {}, error(@misraised, 'DETAIL is missing in the RAISE statement', $detail_hint));
is_answer('PGRST without JSON', keyed('message'), 500, {}, error(@misraised, q{Invalid JSON value for MESSAGE: 'm'}, q{MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: 'details', 'hint'.}));
is_deeply(decode_json(ask('POST', '/messages', body => { payload => 1, message_key => 'request' }, headers => { 'X-Own' => 'mine', Cookie => 'c=d; e=f' })->{json}{message}), [ 'POST', '/messages', 'mine', 'operator', 'd', 'operator' ], 'what the database knows of the request');
is_answer('afterwards', get('/messages?limit=0'), 200, {});
is(worker_pid($node, 'http'), $worker, 'the worker is the one that it was');
is(log_count($node, qr/(ERROR|PANIC):/), 1, 'nothing of this is an error of the server, but PT without a status');
$node->stop;
done_testing();
