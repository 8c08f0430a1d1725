# Webhooks without a broker: requests, every class of outcome, retries, order, limits, circuit breaker, crashes.
use strict;
use warnings;
use lib 'test/lib';
use Encode;
use IO::Socket::INET;
use JSON::PP;
use MsgsysTest;
use Sink;
use Test::More;

my $secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
my $sink = Sink->new($secret);
my $node = new_node('webhook', 'msgsys.webhook_allow' => '127.0.0.1', 'restart_after_crash' => 'on');
my $works = "SELECT count(*) FROM msg_workers WHERE stage = 'webhook' AND state IN ('idle', 'not needed')";
ok(poll_sql($node, 20, $works, 1), 'a webhook worker runs, without a broker');
my $session = session($node);
my $uuid = $session->query('SELECT uuid FROM msg_installation');

# channel(NAME, PATH, SETTINGS): a channel with a webhook at the sink
sub channel
{
	my ($name, $path, $settings) = @_;
	my $url = $path =~ /^http/ ? $path : $sink->url($path);
	$session->query("SET client_min_messages = error; SELECT msg_channel_set('$name', max_attempts => 4, retry_base => '20 ms', retry_max => '100 ms')");
	$session->query("SELECT msg_webhook_set('$name', '$url', retry_schedule => '{}', breaker_share => 2, timeout => '2 s')");
	$session->query("SELECT msg_webhook_set('$name', $settings)") if $settings;
}

sub create { return $session->query("SELECT msg_create('{\"n\": 1}', '$_[0]'" . ($_[1] ? ", $_[1]" : '') . ')') =~ s/.*\n//sr; }
sub ends { my ($id, $status, $what) = @_; is($session->query("SELECT msg_wait($id, 'delivered', '20 s')"), $status, $what); }
sub attempts { return $session->query("SELECT string_agg(concat_ws(' ', class, code), ',' ORDER BY attempt) FROM msg_attempts WHERE message_id = $_[0]"); }
sub all_end { my ($channel, $status, $n, $what) = @_; return ok(poll_sql($node, 60, "SELECT count(*) FROM messages WHERE channel = '$channel' AND status = '$status'", $n), $what); }
sub of { my ($id) = @_; return $sink->requests(sub { $_[0]{id} eq "$uuid:$id" }); }

# ---- what is sent
channel('plain', '/id?m={id}&k={key}&t={event_type}', q{headers => '{"X-Channel": "c"}', secret_headers => '{"X-Key": "s3cret"}', bearer => 'token', cloudevents => true});
$session->query("SELECT msg_channel_rotate_secret('plain', secret => '$secret')");
my $id = create('plain', q{message_key => 'a b/ü', event_type => 'order.created', headers => '{"traceparent": "00-1-2-01", "X-Own": "o", "host": "evil", "bad name": "x", "transfer-encoding": "chunked"}'});
ends($id, 'delivered', 'a message is delivered');
my ($request) = of($id);
is($request->{path}, "/id?m=$id&k=a%20b%2F%C3%BC&t=order.created", 'the URL is filled in, encoded');
is($request->{method}, 'POST', 'by POST');
is($request->{body}, '{"n": 1}', 'the payload is the body');
is($request->{verified}, 1, 'the signature is right');
my %headers = %{ $request->{headers} };
is($headers{'webhook-id'}, "$uuid:$id", 'webhook-id names installation and message');
cmp_ok(abs($headers{'webhook-timestamp'} - time), '<', 60, 'webhook-timestamp is the time');
is_deeply([ @headers{qw(x-channel x-key authorization content-type traceparent x-own ce-type ce-specversion)} ],
	[ 'c', 's3cret', 'Bearer token', 'application/json', '00-1-2-01', 'o', 'order.created', '1.0' ], 'headers of the channel, secret ones, and the message');
like($headers{host}, qr/^127/, 'a message cannot set the host');
ok(!exists $headers{'transfer-encoding'}, 'nor how it is sent');
is($session->query("SELECT response_id || ' ' || response_code || ' ' || attempts FROM messages WHERE id = $id"), "m-$uuid:$id 200 1", 'what was answered');
is($session->query('SELECT count(*) FROM msg_attempts'), 0, 'a success is no row of msg_attempts');
$id = $session->query(q{SELECT msg_create_raw('\x00ff0a', 'plain', content_type => 'image/png')});
ends($id, 'delivered', 'bytes are delivered');
($request) = of($id);
is($request->{body}, "\x{00}\x{ff}\x{0a}", 'as they are');
is($request->{headers}{'content-type'}, 'image/png', 'with their type');
is($request->{verified}, 1, 'and signed');

# ---- secrets in turn: the old one signs on until it expires
$session->query("SELECT msg_channel_rotate_secret('plain')");
$id = create('plain');
ends($id, 'delivered', 'after a rotation');
($request) = of($id);
is(scalar(split ' ', $request->{headers}{'webhook-signature'}), 2, 'two secrets sign');
is($request->{verified}, 1, 'the old one still does');
$session->query("SELECT msg_channel_rotate_secret('plain', overlap => '0')");
$id = create('plain');
ends($id, 'delivered', 'after a rotation without overlap');
is((of($id))[0]{verified}, 0, 'the old one signs no more');

# ---- a probe shows what is sent and answered
my $probe = decode_json(encode('UTF-8', $session->query(q{SELECT row_to_json(t) FROM msg_test('plain', '{"p": 1}') t})));
is_deeply([ @$probe{qw(method class code request_body)} ], [ 'POST', 'delivered', 200, '{"p": 1}' ], 'msg_test shows the request and its outcome');
is_deeply([ @{ $probe->{request_headers} }{qw(X-Key Authorization X-Channel)} ], [ '***', '***', 'c' ], 'secret headers hidden');
like($probe->{response_body}, qr/messageId/, 'and the answer');
is(($sink->requests(sub { $_[0]{body} eq '{"p": 1}' }))[0]{headers}{'x-key'}, 's3cret', 'which was made with them');
is($session->query('SELECT count(*) FROM messages WHERE payload = \'{"p": 1}\''), 0, 'nothing is stored');

# ---- bodies as other systems want them
channel('sms', '/ok/202', q{method => 'PUT', body_template => '{"id": "{id}", "phone": "{payload.to}", "text": "Dear {payload.name}: {event_type}", "all": "{payload}", "n": ["{payload.n}", "{key}", 7, "{other}"]}'});
$id = $session->query(q{SELECT msg_create('{"to": "+7900", "name": "Zoë \"Z\"", "n": {"a": 1.50}}', 'sms', message_key => 'k', event_type => 'hi')});
ends($id, 'delivered', 'a template');
($request) = of($id);
is($request->{method}, 'PUT', 'by PUT');
is_deeply(decode_json(Encode::encode('latin1', $request->{body})),
	{ id => $id + 0, phone => '+7900', text => "Dear Zo\x{eb} \"Z\": hi", all => { to => '+7900', name => "Zo\x{eb} \"Z\"", n => { a => 1.5 } }, n => [ { a => 1.5 }, 'k', 7, '{other}' ] },
	'is filled in');

# ---- outcomes
channel('codes', '/status/409', q{success_codes => '{200,409}', keep_attempts => true});
$id = create('codes');
ends($id, 'delivered', 'success codes of the channel');
is(attempts($id), 'delivered 409', 'an attempt that is kept');
my %permanent = (400 => '/status/400', 404 => '/status/404', 302 => '/redirect/' . $sink->url('/ok') =~ s/([^\w])/sprintf '%%%02X', ord $1/ger);
for my $code (sort keys %permanent)
{
	channel("code$code", $permanent{$code});
	$id = create("code$code");
	ends($id, 'dead', "$code is final");
	is(attempts($id), "status $code", 'after one attempt');
}
channel('redirected', $permanent{302}, 'redirects => 1');
ends(create('redirected'), 'delivered', 'a redirect is followed where that is allowed');
for my $way (['/status/500', 'status 500'], ['/status/408', 'status 408'], ['/status/425', 'status 425'], ['/status/429', 'status 429'], ['/reset', 'broken'], ['/close', 'broken'],
	['/garbage', 'broken'], ['/hang', 'timeout'], ['/hang-body', 'timeout 200'], ['/drip', 'timeout 200'])
{
	my ($path, $class) = @$way;
	my $name = 'way' . $path =~ s/\W/-/gr;
	channel($name, $path, q{timeout => '300 ms'});
	$id = create($name);
	ends($id, 'dead', "$path: dead in the end");
	is(attempts($id), join(',', ($class) x 4), 'after four attempts');
	my %ids = map { $_->{headers}{'webhook-id'} => 1 } of($id);
	is(scalar keys %ids, 1, 'under the same webhook-id');
}
my $closed = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1');
my $nobody = 'http://127.0.0.1:' . $closed->sockport . '/';
close $closed;
channel('nobody', $nobody);
$id = create('nobody');
ends($id, 'dead', 'nobody listens');
is(attempts($id), join(',', ('connect') x 4), 'is told');
channel('noname', 'http://does-not-exist.invalid/');
$id = create('noname');
ends($id, 'dead', 'no such host');
is(attempts($id), join(',', ('resolve') x 4), 'is told');

# ---- Retry-After, and the schedule
channel('after', '/until/1/429', q{retry_schedule => '{10 min}'});
channel('waits', '/after/2', q{retry_schedule => '{10 min}'});
channel('bounded', '/after/7200', q{retry_schedule => '{10 min}', retry_after_max => '1 min'});
my ($after, $waits, $bounded) = map { create($_) } qw(after waits bounded);
my $wait = sub { return $session->query("SELECT extract(epoch FROM due_at - clock_timestamp()) FROM messages WHERE id = $_[0] AND status = 'retry'") };
for my $n ($after, $waits, $bounded) { ok(poll_sql($node, 10, "SELECT attempts FROM messages WHERE id = $n AND status = 'retry'", 1), 'is tried again') }
cmp_ok($wait->($after), '>', 550, 'when the schedule says');
cmp_ok($wait->($after), '<=', 660, 'and a tenth later at most');
cmp_ok($wait->($waits), '<=', 2, 'when Retry-After says');
cmp_ok($wait->($bounded), '<=', 60, 'but not later than the bound');
$session->query("UPDATE messages SET due_at = now() WHERE id = $after");
ends($after, 'delivered', 'a changed due_at wakes the worker');
$session->query("SELECT msg_cancel($waits), msg_cancel($bounded)");

# ---- 410 disables, and its message waits
channel('gone', '/gone');
$id = create('gone');
ok(poll_sql($node, 10, "SELECT disabled_reason FROM msg_webhooks WHERE channel = 'gone' AND disabled_at IS NOT NULL", 'the endpoint answered 410 (gone)'), '410 disables the webhook');
create('gone') for 1 .. 3;
is($session->query("SELECT string_agg(DISTINCT status::text || attempts, ',') FROM messages WHERE channel = 'gone'"), 'idle0', 'its messages wait, and no attempt is used up');
is(scalar $sink->requests(sub { $_[0]{path} eq '/gone' }), 1, 'nothing more is sent');
$session->query("SELECT msg_webhook_set('gone', '" . $sink->url('/ok') . "'); SELECT msg_webhook_enable('gone')");
all_end('gone', 'delivered', 4, 'once it is enabled, all are delivered');

# ---- and says nothing of what is set while it is asked
channel('moved', '/delay/1500/gone');
$id = create('moved');
ok(poll_until(10, sub { scalar $sink->requests(sub { $_[0]{path} eq '/delay/1500/gone' }) }), 'it is asked');
$session->query("SELECT msg_webhook_set('moved', '" . $sink->url('/ok') . "')");
ends($id, 'delivered', 'an answer 410 of the URL before is not of the new one');
is($session->query("SELECT disabled_at FROM msg_webhooks WHERE channel = 'moved'"), '', 'which is not disabled');

# ---- cancelled, expired, paused
channel('later', '/ok');
$session->query("SELECT msg_pause('later')");
my $cancelled = create('later');
my $expired = create('later', q{expires_at => clock_timestamp() + interval '1 s'});
my $scheduled = create('later', q{deliver_at => clock_timestamp() + interval '500 ms'});
$session->query("SELECT msg_cancel($cancelled); SELECT pg_sleep(1.1)");
is($session->query("SELECT string_agg(status::text, ',' ORDER BY id) FROM messages WHERE channel = 'later'"), 'cancelled,idle,scheduled', 'a paused channel sends nothing');
$session->query("SELECT msg_resume('later')");
ends($scheduled, 'delivered', 'a scheduled one is delivered');
ends($expired, 'expired', 'what has expired is not sent');
is(scalar of($expired), 0, 'really not');
is(scalar of($cancelled), 0, 'nor what was cancelled');

# ---- huge answers: the status counts, memory stays
my $memory = sub { my $pid = worker_pid($node, 'webhook'); open(my $f, '<', "/proc/$pid/status"); my ($kb) = join('', <$f>) =~ /VmRSS:\s+(\d+)/; return $kb };
channel('huge', '/huge/5000000');
channel('endless', '/endless');
channel('bomb', '/bomb');
create($_) for qw(huge endless bomb);
all_end($_, 'delivered', 1, "$_: the answer is cut") for qw(huge endless bomb);
my @memory;
for my $round (1, 2)
{
	$session->query("SELECT count(msg_create(to_jsonb(g), c)) FROM generate_series(1, 100) g, unnest('{huge,endless,bomb}'::text[]) c");
	all_end($_, 'delivered', 1 + 100 * $round, "$_: a hundred times") for qw(huge endless bomb);
	push @memory, $memory->();
}
SKIP:
{
	skip 'a sanitizer takes memory of its own', 2 if $ENV{MSGSYS_SANITIZED};
	cmp_ok($memory[1] - $memory[0], '<', 5000, 'memory is flat (kB)');
	cmp_ok($memory[0], '<', 150000, 'and bounded by the connections');
}

# ---- order by key
channel('ordered', '/delay/2/fail/20/ok', 'ordered => true');
$session->query("SELECT msg_channel_set('ordered', max_attempts => 1000)");
$session->query("INSERT INTO messages (channel, message_key, payload) SELECT 'ordered', (g % 20)::text, to_jsonb(g) FROM generate_series(1, 600) g");
all_end('ordered', 'delivered', 600, 'an ordered channel, where one in five fails, delivers all');
my (%last, $disorder);
for my $r ($sink->requests(sub { $_[0]{path} =~ m{^/delay/2/fail} && $_[0]{code} == 200 }))
{
	my $key = $r->{body} % 20;
	$disorder++ if $r->{body} < ($last{$key} // 0);
	$last{$key} = $r->{body};
}
is($disorder, undef, 'in the order of each key');

# ---- the channel "default" has its webhook from the configuration
$node->append_conf('postgresql.conf', "msgsys.webhook_url = '" . $sink->url('/id?default') . "'\n");
$node->reload;
ok(poll_sql($node, 10, 'SHOW msgsys.webhook_url', $sink->url('/id?default')), 'msgsys.webhook_url is set');
ends(create('default'), 'delivered', 'the channel "default" delivers there');
is(scalar $sink->requests(sub { $_[0]{path} eq '/id?default' }), 1, 'really');

# ---- limits
channel('slow', '/delay/50/ok', 'concurrency => 3');
$session->query("INSERT INTO messages (channel, payload) SELECT 'slow', to_jsonb(g) FROM generate_series(1, 30) g");
all_end('slow', 'delivered', 30, 'with a concurrency of 3');
my @at = sort map { $_->{at} } $sink->requests(sub { $_[0]{path} eq '/delay/50/ok' });
my $together = 0;
for my $i (0 .. $#at - 3) { $together++ if $at[ $i + 3 ] - $at[$i] < 0.045 }
is($together, 0, 'never more than three at once');
channel('rated', '/ok/201', 'rate => 20');
$session->query("INSERT INTO messages (channel, payload) SELECT 'rated', to_jsonb(g) FROM generate_series(1, 60) g");
all_end('rated', 'delivered', 60, 'with a rate of 20 a second');
@at = sort map { $_->{at} } $sink->requests(sub { $_[0]{path} eq '/ok/201' });
cmp_ok($at[-1] - $at[0], '>', 1.8, '60 take two seconds after the first 20');

# ---- settings that change while messages wait for their turn
channel('moving', '/ok/202', 'rate => 1');
$session->query("INSERT INTO messages (channel, payload) SELECT 'moving', to_jsonb(g) FROM generate_series(1, 30) g");
poll_until(10, sub { $sink->requests(sub { $_[0]{path} eq '/ok/202' }) });
$session->query(q{SELECT msg_webhook_set('moving', '} . $sink->url('/ok/203') . q{', rate => 0, headers => '{"X-New": "1"}')});
my $old = $sink->requests(sub { $_[0]{path} eq '/ok/202' });
all_end('moving', 'delivered', 30, 'a webhook changes while messages wait');
cmp_ok(scalar($sink->requests(sub { $_[0]{path} eq '/ok/202' })), '<=', $old + 1, 'those that waited go to the new address');
is(scalar($sink->requests(sub { $_[0]{path} eq '/ok/203' && !$_[0]{headers}{'x-new'} })), 0, 'with the new headers');
channel('moving-keys', '/delay/500/ok/206', 'ordered => true');
$session->query("INSERT INTO messages (channel, message_key, payload) SELECT 'moving-keys', 'k', to_jsonb(g) FROM generate_series(1, 10) g");
ok(poll_until(10, sub { $sink->requests(sub { $_[0]{path} eq '/delay/500/ok/206' }) }), 'the first of a key is under way');
$session->query(q{SELECT msg_webhook_set('moving-keys', '} . $sink->url('/ok/207') . q{')});
$old = $sink->requests(sub { $_[0]{path} eq '/delay/500/ok/206' });
all_end('moving-keys', 'delivered', 10, 'and what waited for it');
cmp_ok(scalar($sink->requests(sub { $_[0]{path} eq '/delay/500/ok/206' })), '<=', $old + 1, 'goes to the new address too');
is(join(',', map { $_->{body} } sort { $a->{at} <=> $b->{at} } $sink->requests(sub { $_[0]{path} =~ m{/ok/20[67]} })), join(',', 1 .. 10), 'in the order of the key');

# ---- circuit breaker
channel('broken', '/status/503', q{breaker_share => 0.5, breaker_calls => 10, breaker_pause => '300 ms', concurrency => 1});
$session->query("SELECT msg_channel_set('broken', max_attempts => 1000)");
$session->query("INSERT INTO messages (channel, payload) SELECT 'broken', to_jsonb(g) FROM generate_series(1, 100) g");
ok(poll_sql($node, 10, "SELECT state FROM msg_breakers WHERE channel = 'broken'", 'open'), 'the breaker opens');
my $calls = $sink->requests(sub { $_[0]{path} eq '/status/503' });
my $trips = q{SELECT trips FROM msg_breakers WHERE channel = 'broken'};
cmp_ok($calls, '<=', 11 + $session->query($trips), 'after ten calls or so');
ok(poll_sql($node, 10, "SELECT trips >= 3 FROM msg_breakers WHERE channel = 'broken'", 't'), 'a probe that fails opens it again');
my $probes = $sink->requests(sub { $_[0]{path} eq '/status/503' });
cmp_ok($probes, '<=', 12 + $session->query($trips), 'one probe at a time');
is($session->query("SELECT count(*) FROM messages WHERE channel = 'broken' AND attempts = 0"), 100 - $session->query("SELECT count(*) FROM messages WHERE channel = 'broken' AND attempts > 0"), 'while it is open, no attempt is used up');
$session->query("SELECT msg_webhook_set('broken', '" . $sink->url('/ok') . "')");
all_end('broken', 'delivered', 100, 'once the endpoint is well, all are delivered');
is($session->query("SELECT count(*) FROM msg_breakers WHERE channel = 'broken'"), 0, 'and it is closed');

# ---- somebody holds a row
channel('held', '/delay/300/ok');
$id = create('held');
my $other = session($node);
$other->query("BEGIN; SELECT 1 FROM messages WHERE id = $id FOR UPDATE");
ok(poll_until(10, sub { scalar of($id) }), 'it is sent');
channel('free', '/ok');
ends(create('free'), 'delivered', 'others are delivered');
$other->query('COMMIT');
ends($id, 'delivered', 'and it is, once the row is free');
is(scalar of($id), 1, 'without another request');

# ---- kill -9 and immediate shutdown in the middle
channel('crash', '/delay/20/id');
for my $how ('kill', 'immediate')
{
	$session->query("INSERT INTO messages (channel, message_key, payload) SELECT 'crash', (g % 100)::text, to_jsonb(g) FROM generate_series(1, 3000) g");
	ok(poll_sql($node, 20, "SELECT count(*) >= 300 FROM messages WHERE channel = 'crash' AND status = 'delivered'", 't'), 'some are delivered');
	if ($how eq 'kill') { kill 'KILL', worker_pid($node, 'webhook') }
	else { $node->stop('immediate') }
	$node->_update_pid(0) if $how eq 'immediate' && $node->can('_update_pid');
	$node->start if $how eq 'immediate';
	ok(poll_until(60, sub { my $n = eval { $node->safe_psql('postgres', "SELECT count(*) FROM messages WHERE channel = 'crash' AND status <> 'delivered'") }; defined $n && $n eq '0' }),
		"$how: every message ends delivered");
	$session = session($node);
}
my %seen;
$seen{ $_->{id} }++ for $sink->requests(sub { $_[0]{path} eq '/delay/20/id' });
is(scalar keys %seen, 6000, 'each was sent at least once, under one webhook-id');
diag('sent more than once: ' . scalar grep { $_ > 1 } values %seen);

is($session->query("SELECT count(*) FROM msg_workers WHERE stage = 'webhook' AND last_error IS NOT NULL"), 0, 'no error of the worker');
$node->stop;
$sink->stop;
done_testing();
