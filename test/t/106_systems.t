# The routes of other systems answer as their clients expect, without a token where an anonymous role is set; nothing of them is there
# where they are not switched on. And what each system is there for works, with a Kafka and a Redis.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use JSON::PP;
use MsgsysTest;
use Program;
use Sink;
use Test::More;

my ($bootstrap) = kafka_start();
kafka_create_topic($bootstrap, $_) for qw(out auto auto.retry auto.dlq);
my $sink = Sink->new;
my $redis_port = free_port();
my $redis = Program->new('redis-server', '--port', $redis_port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', tempdir());
$redis->await(qr/Ready to accept connections/, 20) or die 'no Redis';
sub redis { my $out = `redis-cli -p $redis_port @_`; chomp $out; return $out; }
my ($node, $facade) = facade_node('systems', 'msgsys.redis_url' => "redis://127.0.0.1:$redis_port", 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.kafka_topic' => 'out', 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.http_anonymous_role' => 'operator');
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
# no record of it will come, for which the receiver would finish it if it had been sent a while ago
$node->safe_psql('postgres', "INSERT INTO messages (payload, status, sent_at) VALUES ('{\"message\": \"on its way\"}', 'sent', now() + interval '1 h')");
is(get('/api/v1/getMessages')->{json}[1]{status}, 'send', '000: its word for sent');
is_answer('000: empty', post('/api/v1/create', '{"message":""}'), 400, { error => 'Bad request', message => 'message cannot be empty' });
is_answer('000: none at all', post('/api/v1/create', '{}'), 400, { error => 'Bad request', message => 'message cannot be empty' });
is_answer("000: $_", post('/api/v1/create', $_), 400, { error => 'Bad request', message => 'wrond data provided' }) for '{"message":', '{"message":1}', '[1]', '', '"x"';
is(get('/api/v1/swagger/index.html')->{headers}{'content-type'}, 'text/html; charset=utf-8', '000: Swagger');
is(get('/api/v1/swagger/init.js')->{status}, 200, '000: with what it needs');

# BUFFER_SIZE 3, and a tick of 5 s
$node->safe_psql('postgres', "SELECT msg_pause(); SELECT msg_pace_set('default', 3, '5 s')");
is(post('/api/v1/create', qq({"message":"paced $_"}))->{status}, 200, "000: create $_") for 1 .. 7;
$node->safe_psql('postgres', 'SELECT msg_resume()');
my $paced = q{FROM messages WHERE payload ->> 'message' LIKE 'paced %'};
ok(poll_sql($node, 60, "SELECT count(*) $paced AND status = 'received'", 7), '000: seven are received');
is($node->safe_psql('postgres', q{SELECT string_agg(claimed || '/' || succeeded, ' ' ORDER BY id) FROM msg_runs WHERE channel = 'default' AND claimed > 0}), '3/3 3/3 1/1', '000: three at a time');
is($node->safe_psql('postgres', qq{SELECT bool_and(extract(epoch FROM later - earlier) BETWEEN 4.5 AND 7 * @{[slowness()]}) FROM
	(SELECT sent_at AS earlier, lead(sent_at, 3) OVER (ORDER BY id) AS later $paced) s}), 't', '000: every 5 s');
is(scalar(grep { $_->{value} =~ /paced/ } read_topic($bootstrap, 'out')), 7, '000: each once in the topic');
$node->safe_psql('postgres', q{SELECT msg_pace_drop('default'); DELETE FROM messages WHERE payload ->> 'message' LIKE 'paced %'});

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

# 10 messages from a SQL file, two at a time; the service refuses the first attempt of each
$node->safe_psql('postgres', "SET client_min_messages = error; SELECT msg_channel_set('auto', topic => 'auto', max_attempts => 2);
	SELECT msg_webhook_set('auto', '" . $sink->url('/until/1/400/id') . "', retry_codes => '{400}', retry_schedule => '{100 ms}', breaker_share => 2); SELECT msg_pace_set('auto', 2, '300 ms')");
my $file = tempdir() . '/messages.sql';
append_to_file($file, join '', map { qq(INSERT INTO messages (channel, payload) VALUES ('auto', '{"to": "+90555222222$_", "content": "from a file $_"}');\n) } 0 .. 9);
is(system('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $file), 0, '001: a SQL file');
my $auto = q{SELECT count(*) FROM messages WHERE channel = 'auto' AND status =};
ok(poll_sql($node, 60, "$auto 'delivered'", 10), '001: its 10 messages are delivered');
my $cached = $node->safe_psql('postgres', q{SELECT max(id) FROM messages WHERE channel = 'auto'});
my $uuid = $node->safe_psql('postgres', 'SELECT uuid FROM msg_installation');
ok(poll_until(20, sub { redis("get msgsys:$uuid:$cached") ne '' }), '001: Redis has them');
my $answer = decode_json(redis("get msgsys:$uuid:$cached"));
is_deeply($answer->{message}, { to => '+905552222229', content => 'from a file 9' }, '001: the message');
like($answer->{messageId}, qr/^m-.*:$cached$/, "001: the id of the service's answer");
like($answer->{sentAt}, qr/^\d{4}-\d\d-\d\dT/, '001: and the time');
$node->safe_psql('postgres', "SELECT msg_webhook_set('auto', '" . $sink->url('/status/400') . q{'); INSERT INTO messages (channel, payload) VALUES ('auto', '{"to": "+905553333333", "content": "refused"}')});
ok(poll_sql($node, 60, "$auto 'dead'", 1), '001: what is refused again is dead');
ok(poll_until(30, sub { read_topic($bootstrap, 'auto.dlq') == 1 }), '001: and in the topic of dead letters');
is(scalar(read_topic($bootstrap, 'auto')), 11, '001: all were in the topic');
is(scalar(read_topic($bootstrap, 'auto.retry')), 11, '001: and in that of retries');
like((read_topic($bootstrap, 'auto.dlq'))[0]{value}, qr/refused/, '001: as it was');

# off, over a restart
$node->safe_psql('postgres', "SELECT msg_webhook_set('auto', '" . $sink->url('/id') . q{'); SELECT msg_pace_drop('auto')});
is(post('/toggle-worker', '{"workerStatus":false}')->{status}, 200, '001: off');
$node->restart;
facade_ready($node);
is($node->safe_psql('postgres', 'SELECT msg_running()'), 'f', '001: still off after a restart');
$node->safe_psql('postgres', q{INSERT INTO messages (channel, payload) VALUES ('auto', '{"to": "+905554444444", "content": "waits"}')});
ok(poll_sql($node, 20, q{SELECT count(*) > 0 AND bool_and(state = 'paused') FROM msg_workers WHERE stage IN ('relay', 'webhook')}), '001: the workers know');
is($node->safe_psql('postgres', q{SELECT status FROM messages WHERE payload ->> 'content' = 'waits'}), 'idle', '001: nothing is sent');
is(post('/toggle-worker', '{"workerStatus":true}')->{status}, 200, '001: on');
ok(poll_sql($node, 30, "$auto 'delivered'", 11), '001: and it is');
$node->safe_psql('postgres', q{DELETE FROM messages WHERE channel = 'auto'});

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
is(redis("exists msgsys:$uuid:$ids[0]"), 1, '002: a commit is in Redis');
my $list = get('/api/messenger/?limit=2&offset=2');
is_deeply([ map { $_->{status} } @{ $list->{json}{data} } ], [ 'sent', 'sent' ], '002: a list');
is(scalar @{ get('/api/messenger/?limit=500&offset=0')->{json}{data} }, 6, '002: all statuses');
is_answer('002: a list of what', get('/api/messenger/?offset=0'), 400, { status => 400, internalCode => 0, message => 'Limit must be an integer!' });
is_answer('002: health', get('/api/messenger/health'), 200, 'ok');
is(get('/job-scheduler/messenger/is-working', headers => { 'X-Correlation-Id' => 'mine' })->{headers}{'x-correlation-id'}, 'mine', '002: a correlation id comes back');
like(get('/job-scheduler/messenger/is-working')->{headers}{'x-correlation-id'}, qr/^[0-9a-f-]{36}$/, '002: or is made');

# two a run; each leaves a row, which is the record of its job
$node->safe_psql('postgres', q{SELECT msg_pace_set('sms', 2, '400 ms'); SELECT msg_resume()});
@ids = (@ids, map { $node->safe_psql('postgres', qq{SELECT msg_create('{"to": "+90555111112$_", "content": "run $_"}', 'sms')}) } 1 .. 5);
ok(poll_sql($node, 30, qq{SELECT count(*) FROM messages WHERE id >= $ids[0] AND status = 'delivered'}, 8), '002: all are delivered');
ok(poll_sql($node, 20, q{SELECT count(*) FROM msg_runs WHERE channel = 'sms' AND claimed > 0 AND finished_at IS NULL}, 0), '002: the runs are over');
is($node->safe_psql('postgres', q{SELECT sum(succeeded) || ' ' || max(claimed) FROM msg_runs WHERE channel = 'sms'}), '7 2', '002: by runs of two');
my $jobs = get('/msg_runs?channel=eq.sms&claimed=gt.0&order=id.desc&limit=1&offset=0&select=channel,started_at,finished_at,claimed,last_id')->{json};
is($jobs->[0]{last_id}, $ids[-1], '002: a page of them, with the last offset');
$node->safe_psql('postgres', 'SELECT msg_pause()');
is(get('/job-scheduler/messenger/is-working')->{json}{data}, 'Not Working', '002: stopped from SQL');
ok(poll_sql($node, 20, q{SELECT count(*) FROM msg_runs WHERE channel = 'sms' AND finished_at IS NULL}, 0), '002: no run is under way');
my $last_run = $node->safe_psql('postgres', q{SELECT max(id) FROM msg_runs WHERE channel = 'sms'});
ok(poll_sql($node, 20, q{SELECT msg_now() > next_at + '500 ms' FROM msg_paces WHERE channel = 'sms'}), '002: the next would be due');
is($node->safe_psql('postgres', q{SELECT max(id) FROM msg_runs WHERE channel = 'sms'}), $last_run, '002: and does not come');
is_answer('002: started by HTTP', get('/job-scheduler/messenger/start'), 200, $good);
ok(poll_sql($node, 20, qq{SELECT max(id) > $last_run FROM msg_runs WHERE channel = 'sms'}), '002: and comes');
$node->safe_psql('postgres', q{SELECT msg_pace_drop('sms')});

# ---- 003
sub ask { my ($method, $path, $body) = @_; return $facade->ask($method, $path, headers => $json, body => ref $body ? encode_json($body) : $body); }
sub sql { return $node->safe_psql('postgres', $_[0]); }
# clock(SECONDS): have all workers' clocks be so far ahead
sub clock
{
	$node->append_conf('postgresql.conf', "msgsys.clock_offset = $_[0]\n");
	$node->reload;
	return poll_sql($node, 10, "SELECT setting = '$_[0]' FROM pg_settings WHERE name = 'msgsys.clock_offset'");
}
is_answer('003: a client', ask('PUT', '/v1/client/', { id => 0, phone_number => 79001112233, mobile_operator_code => 900, tag => 'gold', time_zone => 0 }), 201, '');
is_answer('003: another', ask('PUT', '/v1/client', { id => 0, phone_number => 79011112233, tag => 'gold', time_zone => 4 }), 201, '');
is_answer('003: far away', ask('PUT', '/v1/client/', { id => 0, phone_number => 79021112233, mobile_operator_code => '902', tag => 'gold', time_zone => -23 }), 201, '');
is_answer('003: of another tag', ask('PUT', '/v1/client/', { id => 0, phone_number => 905551112233, tag => 'silver', time_zone => 0 }), 201, '');
is_answer('003: one that goes', ask('PUT', '/v1/client/', { id => 0, phone_number => 79041112233, tag => 'gold', time_zone => 12 }), 201, '');
is_answer('003: without a time zone', ask('PUT', '/v1/client/', { phone_number => 79051112233, tag => 'vip' }), 201, '');
is(sql(q{SELECT string_agg(concat_ws(' ', phone, operator_code, tag, time_zone), ', ' ORDER BY phone) FROM msg_clients WHERE id IN (2, 3, 4)}),
	'+79011112233 901 gold +01:00, +79021112233 902 gold -05:45, +905551112233 silver +00:00', '003: as ours');
is_answer('003: changed', ask('PATCH', '/v1/client/', { id => 4, phone_number => 0, mobile_operator_code => 701, tag => '' }), 204, '');
is(sql(q{SELECT concat_ws(' ', phone, operator_code, tag, time_zone) FROM msg_clients WHERE id = 4}), '+905551112233 701 silver +00:00', '003: that alone');
is_answer('003: to UTC', ask('PATCH', '/v1/client/', { id => 5, time_zone => 0 }), 204, '');
is(sql(q{SELECT time_zone FROM msg_clients WHERE id = 5}), '+00:00', '003: which is a time zone');
is_answer('003: dropped', ask('DELETE', '/v1/client/', { id => 5 }), 204, '');
is(sql('SELECT count(*) FROM msg_clients WHERE id = 5'), 0, '003: gone');
is_answer('003: dropped again', ask('DELETE', '/v1/client/', { id => 5 }), 204, '');
for my $bad ([ PUT => '{' ], [ PUT => '[]' ], [ PUT => '{}' ], [ PUT => '{"phone_number": "x"}' ], [ PUT => '{"phone_number": 79001112233}' ], [ PUT => '{"phone_number": 79991112233, "time_zone": 1.5}' ],
	[ PUT => '{"phone_number": 79991112233, "time_zone": 60}' ], [ PUT => '{"phone_number": {"a": 1}}' ], [ PATCH => '{"tag": "x"}' ], [ PATCH => '{"id": 999, "tag": "x"}' ], [ DELETE => '{}' ], [ DELETE => '' ])
{
	my $refused = ask($bad->[0], '/v1/client/', $bad->[1]);
	is($refused->{status}, 400, "003: no client: @$bad");
	is(join(' ', keys %{ $refused->{json} }), 'error_msg', '003: which says why');
}

# the service is down for an hour
sql(q{SET client_min_messages = error; SELECT msg_channel_set('default', topic => '', max_attempts => 100); SELECT msg_webhook_set('default', 'http://127.0.0.1:9/', retry_schedule => '{200 ms}',
	breaker_pause => '100 ms', breaker_pause_max => '200 ms', body_template => '{"id": "{payload.client_id}", "phone": "{payload.phone}", "text": "{payload.text}"}')});
sub at { return sql("SELECT to_char((now() + '$_[0]') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"); }
is_answer('003: no statistics yet', get('/v1/mailing/stats'), 200, []);
is_answer('003: a mailing', ask('PUT', '/v1/mailing/', { message_text => 'Hello', tag => 'gold', mobile_operator_code => '', filter_choice => 'tag', datetime_start => '0001-01-01T00:00:00Z',
	datetime_end => at('150 min'), interval_start => at('-1 h'), interval_end => at('3 h') }), 201, '');
my $mailing = sql('SELECT max(id) FROM msg_mailings');
my $of = "FROM msg_mailing_messages($mailing)";
ok(poll_sql($node, 30, "SELECT count(*) $of WHERE attempts > 0", 2), '003: two are tried');
is(sql("SELECT string_agg(client_id::text, ' ' ORDER BY client_id) $of"), '1 2', '003: those of the filter whose window opens before the end');
is_answer('003: on its way', get('/v1/mailing/stats'), 200, [ { mailing_id => $mailing, map({ ("datetime_$_" => sql("SELECT to_char(${_}s_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM msg_mailings")) } qw(start end)), succesed => 0, failed => 0 } ]);
ok(clock(3600), '003: an hour later');
sql("SELECT msg_webhook_set('default', '" . $sink->url('/id/003') . "')");
ok(poll_sql($node, 30, "SELECT count(*) $of WHERE status = 'delivered'", 2), '003: nothing is lost');
is_deeply([ sort map { join ' ', @{ decode_json($_->{body}) }{qw(id phone text)} } grep { $_->{path} eq '/id/003' } $sink->requests ],
	[ '1 +79001112233 Hello', '2 +79011112233 Hello' ], '003: each once, as the service wants it');
my $messages = ask('POST', '/v1/mailing/', { id => $mailing });
is_deeply([ $messages->{status}, map { [ @$_{qw(mailing_id client_id delivery_status)} ] } @{ $messages->{json} } ], [ 200, map { [ $mailing, $_, JSON::PP::true ] } 1, 2 ], '003: its messages');
is_deeply([ sort keys %{ $messages->{json}[0] } ], [qw(client_id date_time_creation delivery_status id mailing_id try)], '003: with all that its clients know');
is_answer('003: of no mailing', ask('POST', '/v1/mailing/', { id => 999 }), 200, []);
is_answer('003: of none at all', ask('POST', '/v1/mailing/', '{}'), 400, { error_msg => 'id must be a whole number' });
is_answer('003: no JSON', ask('POST', '/v1/mailing/', '{'), 400, { error_msg => 'Bad request, invalid JSON data' });

# nothing after the end
sql(q{SELECT msg_pause('default')});
is(ask('PUT', '/v1/mailing/', { message_text => 'Late', mobile_operator_code => 902, filter_choice => 'code', tag => 'vip', datetime_end => at('2 h') })->{status}, 201, '003: by operator code');
my $late = sql('SELECT max(id) FROM msg_mailings');
ok(poll_sql($node, 30, "SELECT status FROM msg_mailings WHERE id = $late", 'expanded'), '003: it has begun');
is_answer('003: a mailing changed', ask('PATCH', '/v1/mailing/', { id => $late, message_text => 'Later', mobile_operator_code => 701 }), 204, '');
ok(poll_sql($node, 30, "SELECT string_agg(concat_ws(' ', client_id, status, text), ', ') FROM msg_mailing_messages($late)", '4 idle Later'), '003: others are meant now');
ok(clock(3 * 3600), '003: after its end');
sql(q{SELECT msg_resume('default')});
ok(poll_sql($node, 30, "SELECT status FROM msg_mailing_messages($late)", 'expired'), '003: not sent');
is(scalar(grep { $_->{body} =~ /Late/ } $sink->requests), 0, '003: indeed');
is_deeply([ map { [ @$_{qw(mailing_id succesed failed)} ] } @{ get('/v1/mailing/stats')->{json} } ], [ [ $mailing, 2, 0 ], [ $late, 0, 1 ] ], '003: the statistics add up');
is_answer('003: over', ask('PATCH', '/v1/mailing/', { id => $mailing, message_text => 'x' }), 400);
is_answer('003: a mailing deleted', ask('DELETE', '/v1/mailing/', { id => $late }), 204, '');
ok(poll_until(20, sub { @{ get('/v1/mailing/stats')->{json} } == 1 }), '003: and gone');
for my $bad ('{}', '{"message_text": "x"}', '{"message_text": "x", "datetime_end": "soon"}', '{"message_text": "x", "datetime_end": "2001-01-01T00:00:00Z"}',
	'{"message_text": "x", "datetime_end": "2101-01-01T00:00:00Z", "filter_choice": "tag"}', '{"message_text": "x", "datetime_end": "2101-01-01T00:00:00Z", "interval_start": "2026-01-01T00:00:00Z"}')
{
	is(ask('PUT', '/v1/mailing/', $bad)->{status}, 400, "003: no mailing: $bad");
}
is(ask('PATCH', '/v1/mailing/', '{"id": 999}')->{status}, 400, '003: no such mailing');
ok(clock(0), '003: the clock as it was');
is_answer('003: health', get('/healthz'), 200, '');
is(get('/metrics')->{status}, 200, '003: metrics');
is(get('/docs/')->{status}, 200, '003: docs');
like(get('/docs/index.html')->{body}, qr/swagger/i, '003: by the address of its Swagger UI');
is_answer('004: index', get('/'), 200, { message => 'Welcome to msgsys!' });
is(get('/openapi.json')->{json}{openapi}, '3.1.0', '004: the description is elsewhere then');
is_answer('004: health', get('/health'), 200, { message => 'Healthy!' });
is_answer('004: start', post('/api/v1/cron/control', '{"action":"start"}'), 200, { message => 'Cron job started' });
is($node->safe_psql('postgres', 'SELECT msg_running()'), 't', '004: it runs');
is_answer('004: start again', post('/api/v1/cron/control', '{"action":"start"}'), 200, { message => 'Cron job started' });
is_answer('004: stop', post('/api/v1/cron/control', '{"action":"stop"}'), 202, { message => 'Cron job will be stopped' });
is($node->safe_psql('postgres', 'SELECT msg_running()'), 'f', '004: it does not');
is_answer('004: what', post('/api/v1/cron/control', '{"action":"x"}'), 400, { error => q{action must be 'start' or 'stop'} });
# limits: two at a time, four a run; stopped in the middle
sql("SELECT msg_webhook_set('sms', '" . $sink->url('/delay/500/ok/202') . q{', concurrency => 2); SELECT msg_pace_set('sms', 4, '500 ms')});
sql(qq{SELECT msg_create('{"to": "+90555111119$_", "content": "cron $_"}', 'sms')}) for 1 .. 6;
sub called { return grep { $_->{path} eq '/delay/500/ok/202' } $sink->requests; }
is(post('/api/v1/cron/control', '{"action":"start"}')->{status}, 200, '004: start');
ok(poll_until(20, sub { called() >= 1 }), '004: a delivery is under way');
is(post('/api/v1/cron/control', '{"action":"stop"}')->{status}, 202, '004: stop');
ok(poll_sql($node, 20, q{SELECT count(*) > 0 AND bool_and(state = 'paused') FROM msg_workers WHERE stage = 'webhook'}), '004: stopped');
my $before = called();
cmp_ok($before, '<', 6, '004: before all were sent');
ok(poll_sql($node, 20, q{SELECT count(*) FROM messages WHERE payload ->> 'content' LIKE 'cron %' AND status = 'delivered'}, $before), '004: what was under way is finished');
is(post('/api/v1/cron/control', '{"action":"start"}')->{status}, 200, '004: start again');
ok(poll_sql($node, 30, q{SELECT count(*) FROM messages WHERE payload ->> 'content' LIKE 'cron %' AND status = 'delivered'}, 6), '004: all are delivered');
is(scalar(called()), 6, '004: each once');
my @called = sort { $a <=> $b } map { $_->{at} } called();
is(scalar(grep { $called[$_] - $called[$_ - 2] < 0.45 } 2 .. 5), 0, '004: two at a time');
is(sql(q{SELECT max(claimed) FROM msg_runs WHERE channel = 'sms'}), 4, '004: never more than the limit a run');
is(post('/api/v1/cron/control', '{"action":"stop"}')->{status}, 202, '004: stop');
is_answer('004: no JSON', post('/api/v1/cron/control', '{'), 400, { error => 'invalid JSON payload' });
my $last = get('/api/v1/list/sent-messages');
is_deeply([ $last->{json}{message}, scalar(grep { $_->{PhoneNumber} eq '+905551111111' && $_->{Content} eq 'hello' && $_->{IsSent} } @{ $last->{json}{data} }) ], [ 'Messages fetched successfully', 1 ], '004: what was sent');
$node->safe_psql('postgres', 'DELETE FROM messages');
is_answer('004: nothing', get('/api/v1/list/sent-messages'), 200, { message => 'Messages fetched successfully', data => undef });

# ---- pages of other origins, which need no answer to do harm: without a token they change nothing
my $own = $facade->url('') =~ s!/$!!r;
my $foreign = { Origin => 'https://evil.example', 'Content-Type' => 'text/plain' };
sub asked_by { my ($name, $status, $method, $path, $headers, %o) = @_; is($facade->ask($method, $path, headers => $headers, %o)->{status}, $status, $name); }
asked_by('another origin', 403, 'POST', '/api/v1/create', $foreign, body => '{"message":"x"}');
asked_by('none that can be named', 403, 'POST', '/api/v1/create', { Origin => 'null' }, body => '{"message":"x"}');
asked_by('another port of the same host', 403, 'POST', '/api/v1/create', { Origin => 'http://127.0.0.1:1' }, body => '{"message":"x"}');
asked_by('what a browser says of itself', 403, 'POST', '/api/v1/create', { Origin => $own, 'Sec-Fetch-Site' => 'cross-site' }, body => '{"message":"x"}');
asked_by('credentials that it sends by itself', 403, 'POST', '/rpc/msg_create', { %$foreign, Authorization => 'Basic eDp5' }, body => '{"payload":1}');
asked_by('a word that is no token', 403, 'POST', '/rpc/msg_create', { %$foreign, Authorization => 'Bearerx' }, body => '{"payload":1}');
asked_by('a table', 403, 'DELETE', '/messages?id=gt.0', $foreign);
asked_by('a GET that changes something', 403, 'GET', '/job-scheduler/messenger/stop', { 'Sec-Fetch-Site' => 'cross-site' });
asked_by('a GET that does not', 200, 'GET', '/job-scheduler/messenger/is-working', { 'Sec-Fetch-Site' => 'cross-site' });
is($node->safe_psql('postgres', 'SELECT count(*) FROM messages'), 0, 'nothing was made');
asked_by('the same origin', 200, 'POST', '/api/v1/create', { Origin => $own }, body => '{"message":"x"}');
asked_by('the same, as a browser says', 200, 'POST', '/api/v1/create', { Origin => 'https://a.proxy', 'Sec-Fetch-Site' => 'same-origin' }, body => '{"message":"x"}');
asked_by('another origin with a token', 200, 'POST', '/rpc/msg_create', { Origin => 'https://evil.example' }, as => 'producer', body => { payload => 1 });
$node->append_conf('postgresql.conf', "msgsys.http_cors_origins = 'https://shop.example'\n");
$node->reload;
ok(poll_until(20, sub { $facade->ask('POST', '/api/v1/create', headers => { Origin => 'https://shop.example' }, body => '{"message":"x"}')->{status} == 200 }), 'an origin that is named');

# ---- who may
$node->append_conf('postgresql.conf', "msgsys.http_anonymous_role = 'nobody'\n");
$node->reload;
ok(poll_until(20, sub { get('/api/v1/getMessages')->{status} == 401 }), 'an anonymous role that may nothing');
is_answer('000: in its words', get('/api/v1/getMessages'), 401, { error => 'Unauthorized', message => 'permission denied for function msg_http_000_messages' });
is_answer('001: in its words', get('/sent-messages'), 401, "permission denied for function msg_http_001_sent\n");
is_answer('002: in its words', get('/job-scheduler/messenger/stop'), 401, { status => 401, internalCode => 0, message => 'permission denied for function msg_http_002_stop' });
is_answer('003: in its words', ask('PUT', '/v1/client/', '{}'), 401, { error_msg => 'permission denied for function msg_http_003_client' });
is_answer('004: in its words', post('/api/v1/cron/control', '{"action":"stop"}'), 401, { error => 'Unauthorized', details => 'permission denied for function msg_http_004_control' });
is(post('/api/v1/create', '{"message":"x"}')->{status}, 401, 'nor create');
is($facade->ask('POST', '/api/v1/create', as => 'producer', body => { message => 'x' })->{status}, 200, 'a producer may');
is($facade->ask('GET', '/api/v1/getMessages', as => 'reader')->{status}, 200, 'a reader may read');
is($facade->ask('GET', '/v1/mailing/stats', as => 'reader')->{status}, 200, 'statistics too');
is($facade->ask('POST', '/v1/mailing/', as => 'reader', body => { id => 1 })->{status}, 200, 'and messages');
is($facade->ask('PUT', '/v1/mailing/', as => 'reader', body => {})->{status}, 403, 'but make no mailing');
is($facade->ask('GET', '/job-scheduler/messenger/stop', as => 'reader')->{status}, 403, 'nor stop');
$node->stop;
$redis->stop;
$sink->stop;
done_testing();
