# The routes of other systems answer as their clients expect, without a token where an anonymous role is set; nothing of them is there
# where they are not switched on.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use JSON::PP;
use MsgsysTest;
use Sink;
use Test::More;

my ($bootstrap) = kafka_start();
kafka_create_topic($bootstrap, 'out');
my $sink = Sink->new;
my ($node, $facade) = facade_node('systems', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.kafka_topic' => 'out', 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.http_anonymous_role' => 'operator');
my $json = { 'Content-Type' => 'application/json' };
sub post { my ($path, $body) = @_; return $facade->ask('POST', $path, headers => $json, body => $body); }
sub get { return $facade->ask('GET', @_); }
sub is_answer { my ($name, $answer, $status, $body) = @_; is($answer->{status}, $status, $name) or diag($answer->{body}); ref $body ? is_deeply($answer->{json}, $body, "$name: body") : is($answer->{body} // '', $body, "$name: body") if defined $body; }

is(get('/api/v1/getMessages')->{status}, 404, 'off by default');
is(post('/toggle-worker', '{"workerStatus":true}')->{status}, 404, 'all of them');
$node->append_conf('postgresql.conf', "msgsys.http_compat = '000, 001, 002, 003, 004'\n");
$node->reload;
ok(poll_until(20, sub { get('/healthz')->{status} == 200 }), 'switched on by a reload');

# ---- 000
is_answer('000: none', get('/api/v1/getMessages'), 200, []);
$node->safe_psql('postgres', 'SELECT msg_pause()');
is_answer('000: create', post('/api/v1/create', '{"message":"msg-1"}'), 200, { status => 'created' });
is_answer('000: idle', get('/api/v1/getMessages'), 200, [ { id => 1, message => 'msg-1', status => 'idle' } ]);
$node->safe_psql('postgres', 'SELECT msg_resume()');
ok(poll_until(60, sub { get('/api/v1/getMessages')->{json}[0]{status} eq 'received' }), '000: through Kafka to received');
is(scalar(read_topic($bootstrap, 'out')), 1, '000: it is in the topic');
$node->safe_psql('postgres', "INSERT INTO messages (payload, status, sent_at) VALUES ('{\"message\": \"on its way\"}', 'sent', now())");
is(get('/api/v1/getMessages')->{json}[1]{status}, 'send', '000: its word for sent');
is_answer('000: empty', post('/api/v1/create', '{"message":""}'), 400, { error => 'Bad request', message => 'message cannot be empty' });
is_answer('000: none at all', post('/api/v1/create', '{}'), 400, { error => 'Bad request', message => 'message cannot be empty' });
is_answer("000: $_", post('/api/v1/create', $_), 400, { error => 'Bad request', message => 'wrond data provided' }) for '{"message":', '{"message":1}', '[1]', '', '"x"';
is(get('/api/v1/swagger/index.html')->{headers}{'content-type'}, 'text/html; charset=utf-8', '000: Swagger');
is(get('/api/v1/swagger/init.js')->{status}, 200, '000: with what it needs');

# ---- 001
$node->safe_psql('postgres', "SET client_min_messages = error; SELECT msg_channel_set('sms'); SELECT msg_webhook_set('sms', '" . $sink->url('/ok') . "')");
$node->safe_psql('postgres', q{SELECT msg_create('{"to": "+905551111111", "content": "hello"}', 'sms')});
ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE status = 'delivered'", 1), 'a message is delivered');
my $sent = get('/sent-messages?limit=1&offset=1');
my $one = $sent->{json}{data}{sentMessages}[0];
is_deeply([ $sent->{status}, $sent->{json}{message}, @$one{qw(content to sent)}, $one->{sent_at}{Valid} ], [ 200, 'success', 'hello', '+905551111111', JSON::PP::true, JSON::PP::true ], '001: what was sent');
like($one->{sent_at}{Time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$/, '001: with its time');
is(scalar @{ get('/sent-messages')->{json}{data}{sentMessages} }, 2, '001: without limits');
is(scalar @{ get('/sent-messages?limit=0')->{json}{data}{sentMessages} }, 0, '001: none of them');
is(get('/sent-messages?limit=x&offset=-5')->{status}, 200, '001: bad numbers are none');
is_answer('001: off', post('/toggle-worker', '{"workerStatus":false}'), 200, '');
is($node->safe_psql('postgres', 'SELECT msg_running()'), 'f', '001: all is paused');
is_answer('001: on', post('/toggle-worker', '{"workerStatus":true}'), 200, '');
is($node->safe_psql('postgres', 'SELECT msg_running()'), 't', '001: and not');
is_answer("001: $_", post('/toggle-worker', $_), 400, "Invalid request body\n") for '{', '{}', '{"workerStatus":"x"}';
is(get('/swagger/index.html')->{status}, 200, '001: Swagger');

# ---- 002
my $good = { status => 200, internalCode => 0, data => 'succeeded' };
is_answer('002: working', get('/job-scheduler/messenger/is-working'), 200, { status => 200, internalCode => 0, data => 'Working' });
is_answer('002: already', get('/job-scheduler/messenger/start'), 400, { status => 400, internalCode => 400001, message => 'messenger job is already working' });
is_answer('002: stop', get('/job-scheduler/messenger/stop'), 200, $good);
is_answer('002: already stopped', get('/job-scheduler/messenger/stop'), 400, { status => 400, internalCode => 400002, message => 'messenger job is already stopped' });
is_answer('002: not working', get('/job-scheduler/messenger/is-working'), 200, { status => 200, internalCode => 0, data => 'Not Working' });
is_answer('002: start', get('/job-scheduler/messenger/start'), 200, $good);
is_answer('002: toggle', get('/api/messenger/messenger-job-toggle?command=stop'), 200, $good);
is_answer('002: toggle again', get('/api/messenger/messenger-job-toggle?command=stop'), 400, { status => 400, internalCode => 0, message => q{there's an error occurred!} });
is_answer('002: toggle what', get('/api/messenger/messenger-job-toggle?command=x'), 400, { status => 400, internalCode => 0, message => q{Invalid command. Use 'start' or 'stop'.} });
my @ids = map { $node->safe_psql('postgres', qq{SELECT msg_create('{"to": "+90555111111$_", "content": "c$_"}', 'sms')}) } 1 .. 3;
is_answer('002: two', get('/api/messenger/get-two?offset=0'), 200, { status => 200, internalCode => 0, data => [ map { { id => "$ids[$_ - 1]", to => "+90555111111$_", content => "c$_" } } 1, 2 ] });
is(scalar @{ get('/api/messenger/get-two?offset=2')->{json}{data} }, 1, '002: the last');
is_answer('002: two of what', get('/api/messenger/get-two'), 400, { status => 400, internalCode => 0, message => 'Offset must be an integer!' });
is_answer('002: commit', $facade->ask('PUT', "/api/messenger/commit/$ids[0]"), 200, $good);
is($node->safe_psql('postgres', "SELECT status FROM messages WHERE id = $ids[0]"), 'delivered', '002: it is delivered');
is_answer('002: commit what', $facade->ask('PUT', "/api/messenger/commit/$_"), 500, { status => 500, internalCode => 0, message => q{Couldn't commit the message!} }) for 'x', 999, '9' x 30;
my $list = get('/api/messenger/?limit=2&offset=2');
is_deeply([ map { $_->{status} } @{ $list->{json}{data} } ], [ 'sent', 'sent' ], '002: a list');
is(scalar @{ get('/api/messenger/?limit=500&offset=0')->{json}{data} }, 6, '002: all statuses');
is_answer('002: a list of what', get('/api/messenger/?offset=0'), 400, { status => 400, internalCode => 0, message => 'Limit must be an integer!' });
is_answer('002: health', get('/api/messenger/health'), 200, 'ok');
is(get('/job-scheduler/messenger/is-working', headers => { 'X-Correlation-Id' => 'mine' })->{headers}{'x-correlation-id'}, 'mine', '002: a correlation id comes back');
like(get('/job-scheduler/messenger/is-working')->{headers}{'x-correlation-id'}, qr/^[0-9a-f-]{36}$/, '002: or is made');

# ---- 003 and 004
is_answer('003: health', get('/healthz'), 200, '');
is(get('/metrics')->{status}, 200, '003: metrics');
is(get('/docs/')->{status}, 200, '003: docs');
is_answer('004: index', get('/'), 200, { message => 'Welcome to msgsys!' });
is(get('/openapi.json')->{json}{openapi}, '3.1.0', '004: the description is elsewhere then');
is_answer('004: health', get('/health'), 200, { message => 'Healthy!' });
is_answer('004: start', post('/api/v1/cron/control', '{"action":"start"}'), 200, { message => 'Cron job started' });
is($node->safe_psql('postgres', 'SELECT msg_running()'), 't', '004: it runs');
is_answer('004: start again', post('/api/v1/cron/control', '{"action":"start"}'), 200, { message => 'Cron job started' });
is_answer('004: stop', post('/api/v1/cron/control', '{"action":"stop"}'), 202, { message => 'Cron job will be stopped' });
is($node->safe_psql('postgres', 'SELECT msg_running()'), 'f', '004: it does not');
is_answer('004: what', post('/api/v1/cron/control', '{"action":"x"}'), 400, { error => q{action must be 'start' or 'stop'} });
is_answer('004: no JSON', post('/api/v1/cron/control', '{'), 400, { error => 'invalid JSON payload' });
my $last = get('/api/v1/list/sent-messages');
is_deeply([ $last->{json}{message}, scalar(grep { $_->{PhoneNumber} eq '+905551111111' && $_->{Content} eq 'hello' && $_->{IsSent} } @{ $last->{json}{data} }) ], [ 'Messages fetched successfully', 1 ], '004: what was sent');
$node->safe_psql('postgres', 'DELETE FROM messages');
is_answer('004: nothing', get('/api/v1/list/sent-messages'), 200, { message => 'Messages fetched successfully', data => undef });

# ---- who may
$node->append_conf('postgresql.conf', "msgsys.http_anonymous_role = 'nobody'\n");
$node->reload;
ok(poll_until(20, sub { get('/api/v1/getMessages')->{status} == 401 }), 'an anonymous role that may nothing');
is_answer('000: in its words', get('/api/v1/getMessages'), 401, { error => 'Unauthorized', message => 'permission denied for function msg_http_000_messages' });
is_answer('001: in its words', get('/sent-messages'), 401, "permission denied for function msg_http_001_sent\n");
is_answer('002: in its words', get('/job-scheduler/messenger/stop'), 401, { status => 401, internalCode => 0, message => 'permission denied for function msg_http_002_stop' });
is_answer('004: in its words', post('/api/v1/cron/control', '{"action":"stop"}'), 401, { error => 'Unauthorized', details => 'permission denied for function msg_http_004_control' });
is(post('/api/v1/create', '{"message":"x"}')->{status}, 401, 'nor create');
is($facade->ask('POST', '/api/v1/create', as => 'producer', body => { message => 'x' })->{status}, 200, 'a producer may');
is($facade->ask('GET', '/api/v1/getMessages', as => 'reader')->{status}, 200, 'a reader may read');
is($facade->ask('GET', '/job-scheduler/messenger/stop', as => 'reader')->{status}, 403, 'but not stop');
$node->stop;
done_testing();
