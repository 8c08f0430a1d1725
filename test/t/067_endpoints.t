# What a message, an endpoint and an operator cannot make of a webhook's request: go to another path, pass for somebody else, carry secrets to another origin, hold the worker at a file.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use POSIX 'mkfifo';
use Sink;
use Test::More;

expect_findings('nobody: channel "acks"' => 'there is no Kafka');

my $here = Sink->new;
my $there = Sink->new;
my $node = new_node('endpoints', 'msgsys.webhook_allow' => '127.0.0.0/8');
my $session = session($node);
expect_findings(nobody => 'a channel has a topic, and there is no Kafka');
sub channel
{
	my ($name, $url, $more) = @_;
	return $session->query("SET client_min_messages = error; SELECT msg_channel_set('$name', max_attempts => 1); SELECT msg_webhook_set('$name', '$url', breaker_share => 2" . ($more ? ", $more" : '') . ')');
}
# send_one(CHANNEL, PARAMETERS): its status in the end, and its error
sub send_one
{
	my ($channel, $more) = @_;
	my $id = $session->query("SELECT msg_create('{\"n\": 1}', '$channel'" . ($more ? ", $more" : '') . ')');
	$session->query("SELECT msg_wait($id, 'delivered', '20 s')");
	return $session->query("SELECT concat_ws(' ', status, last_error) FROM messages WHERE id = $id");
}
sub last_of { return ($_[0]->requests)[-1]; }

# ---- a key does not move the path
channel('tenants', $here->url('/ok/200/tenants/{key}/notify'));
is(send_one('tenants', "'a.b'"), 'delivered', 'a key with a dot');
is(last_of($here)->{path}, '/ok/200/tenants/a%2Eb/notify', 'is encoded');
is(send_one('tenants', "'..x'"), 'delivered', 'one that begins with dots');
is(last_of($here)->{path}, '/ok/200/tenants/%2E%2Ex/notify', 'too');
my $before = () = $here->requests;
like(send_one('tenants', "'$_'"), qr/^dead .*segment/, "the key $_ leads elsewhere, and is not sent") for '.', '..', '../..', 'a/../../admin', '..\\admin', 'x/.';
is(scalar(() = $here->requests), $before, 'nowhere');
channel('split', $here->url('/ok/200/{key}{event_type}/notify'));
like(send_one('split', "'.', '.'"), qr/^dead .*segment/, 'nor two that are one together');
channel('query', $here->url('/ok?k={key}'));
is(send_one('query', "'../..'"), 'delivered', 'in a query dots mean nothing');
for my $url ('http://127.0.0.1/a/../b', 'http://127.0.0.1/%2e%2e/b', 'http://127.0.0.1/..')
{
	is($node->psql('postgres', "SELECT msg_webhook_set('tenants', '$url')"), 3, "no webhook has the URL $url");
}

# ---- a message's headers do not pass for the webhook's
channel('headers', $here->url('/ok'), q{headers => '{"X-Tenant": "7"}', secret_headers => '{"X-Api-Key": "s3cret"}', bearer => 'token'});
my $spoofed = join ', ', map { qq{"$_": "spoofed"} } 'authorization', 'AUTHORIZATION', 'x-api-key', 'X_API_KEY', 'X-Api_Key', 'X_Tenant', 'x-tenant', 'Cookie', 'Content_Length', 'Content-Length',
	'content-length-', 'Transfer_Encoding', 'Transfer-Encoding', 'Host', 'Connection', 'Keep-Alive', 'Upgrade', 'TE', 'Trailer', 'Proxy-Authorization', 'Proxy-Foo', 'X-Forwarded-For', 'X_Forwarded_Host', 'Forwarded',
	'webhook_id', 'Webhook-Signature', 'User_Agent', 'Expect', 'Content_Type', 'X.Api.Key', 'x+api~key', 'X-HTTP-Method-Override', 'X-Original-URL', 'X_Rewrite_URL', 'X-Forwarded', 'X-Real-IP', 'Range';
is(send_one('headers', "headers => '{$spoofed, \"X-Own\": \"own\"}'"), 'delivered', 'a message with headers of all kinds');
my %got = %{ last_of($here)->{headers} };
is_deeply([ grep { $got{$_} =~ /spoofed/ } sort keys %got ], [], 'sets none that are the webhook\'s or the way\'s');
is_deeply([ @got{qw(authorization x-api-key x-tenant x-own)} ], [ 'Bearer token', 's3cret', '7', 'own' ], 'those are as configured, its own beside them');
channel('bare', $here->url('/ok'));
is(send_one('bare', q{headers => '{"authorization": "spoofed", "cookie": "spoofed"}'}), 'delivered', 'where the webhook has none');
%got = %{ last_of($here)->{headers} };
is_deeply([ grep { $got{$_} =~ /spoofed/ } keys %got ], [], 'the message does not set them either');

# ---- nor does what an operator writes past msg_webhook_set()
$node->safe_psql('postgres', q{CREATE ROLE op LOGIN; SELECT msg_grant('op', 'operator')});
for my $way (q{UPDATE msg_webhooks SET headers = '{"Content-Length": "3"}'}, q{UPDATE msg_webhooks SET headers = '{"webhook-signature": "v1,forged"}'}, q{UPDATE msg_webhooks SET headers = '{"a: b": "c"}'},
	q{SELECT msg_webhook_keep_secret('bare', 'header', 'Host', 'elsewhere')}, q{SELECT msg_webhook_keep_secret('bare', 'header', 'Transfer-Encoding', 'chunked')}, q{SELECT msg_webhook_keep_secret('bare', 'bearer', '', E'a\r\nHost: b')})
{
	is($node->psql('postgres', "SET ROLE op; $way", on_error_stop => 1), 3, "a webhook's headers are none of the way's: $way");
}
$session->query("UPDATE msg_webhooks SET url = '" . ($here->url('/ok') =~ s{//}{//root:pass@}r) . "' WHERE channel = 'bare'");
like(send_one('bare'), qr/^dead .*user or a password/, 'no user stands in a URL');

# ---- a redirect takes no secrets along
sub to { return '/redirect/' . ($_[0] =~ s/(\W)/sprintf '%%%02X', ord $1/ger); }
my $secrets = q{redirects => 2, headers => '{"X-Tenant": "7", "Cookie": "c=1"}', secret_headers => '{"X-Api-Key": "s3cret"}', bearer => 'token'};
channel('away', $here->url(to($there->url('/ok'))), $secrets);
$session->query("SELECT msg_channel_rotate_secret('away')");
is(send_one('away', q{headers => '{"X-Session": "mine"}'}), 'delivered', 'a redirect to another origin is followed');
%got = %{ last_of($there)->{headers} };
is_deeply([ grep { exists $got{$_} } qw(authorization cookie x-api-key x-tenant x-session webhook-signature) ], [], 'without secrets, signature, cookies and the message\'s headers');
is_deeply([ last_of($there)->{method}, last_of($there)->{body}, $got{'content-type'} ], [ 'POST', '{"n": 1}', 'application/json' ], 'as the request that it was');
ok(exists last_of($here)->{headers}{'webhook-signature'}, 'which was signed where it was meant for');
channel('near', $here->url(to($here->url('/ok/200/near'))), $secrets);
is(send_one('near'), 'delivered', 'one to the same origin is followed');
is_deeply([ last_of($here)->{path}, @{ last_of($here)->{headers} }{qw(authorization x-api-key)} ], [ '/ok/200/near', 'Bearer token', 's3cret' ], 'with them');
channel('back', $here->url(to($there->url(to($here->url('/ok/200/back'))))), $secrets);
is(send_one('back'), 'delivered', 'one that comes back');
ok(!exists last_of($here)->{headers}{$_}, "has lost its $_ for ever") for qw(authorization x-api-key);
channel('round', $here->url(to($here->url(to($here->url(to($here->url('/ok'))))))), $secrets);
like(send_one('round'), qr/^dead .*as many as are allowed/, 'there are as many as are allowed');
channel('user', $here->url(to('http://root:pass@127.0.0.1/')), $secrets);
like(send_one('user'), qr/^dead .*URL cannot be used/, 'no user stands in its URL');

# ---- secrets belong to the origin that they were given for
my $as_op = session($node, 'postgres', 'op');
channel('own', $here->url('/ok'), q{bearer => 'token', secret_headers => '{"X-Api-Key": "s3cret"}'});
$session->query("SELECT msg_channel_rotate_secret('own')");
sub secrets { return $session->query(q{SELECT string_agg(kind || name, ' ' ORDER BY kind) FROM msg_webhook_secrets WHERE channel = 'own'}) // ''; }
$as_op->query("SELECT msg_webhook_set('own', '" . $here->url('/ok/200/elsewhere') . "', timeout => '3 s')");
is(secrets(), 'bearer headerX-Api-Key signing', 'secrets stay with a webhook whose path changes');
$as_op->query("SELECT msg_webhook_set('own', '" . $there->url('/ok') . "', bearer => 'his')");
is(secrets(), 'bearer', 'an operator who points it at himself has them forgotten, but for the one that he gives');
is(send_one('own'), 'delivered', 'then it is called there');
is_deeply([ @{ last_of($there)->{headers} }{qw(authorization x-api-key webhook-signature)} ], [ 'Bearer his', undef, undef ], 'with his own alone');
for my $way ("UPDATE msg_webhooks SET url = 'https://example.com/' WHERE channel = 'own'", "UPDATE msg_webhooks SET proxy = 'http://127.0.0.1:1' WHERE channel = 'own'", "DELETE FROM msg_webhooks WHERE channel = 'own'")
{
	$session->query("SELECT msg_webhook_set('own', '" . $here->url('/ok') . "', bearer => 'token')");
	is(secrets(), 'bearer', 'a secret is there');
	$as_op->query($way);
	is(secrets(), '', "and is gone: $way");
}

# ---- a file that is none holds nobody
my $dir = tempdir();
chmod 0755, $dir;
mkfifo("$dir/fifo", 0666) or die;
symlink('/proc/self/fd/3', "$dir/link");
channel('files', 'https://127.0.0.1:1/', "ca_file => '$dir/absent'");
my $from = log_count($node);
my $waits = $session->query(q{SELECT msg_create('1', 'files')});
sub told { return log_count($node, qr/cannot make requests for the webhook of channel "files": $_[0]/, $from); }
ok(poll_until(10, sub { told('could not open') }), 'a CA file that is absent is told');
my $tries = q{SELECT extract(epoch FROM max(last_error_at)) FROM msg_worker_slots() WHERE stage = 'webhook'};
for (1 .. 2)
{
	my $at = $session->query($tries);
	ok(poll_until(20, sub { $session->query($tries) > $at }), 'it is tried again');
}
is(told(''), 1, 'that is told once');
channel('plain', $here->url('/ok'));
is(send_one('plain'), 'delivered', 'another channel goes on');
for my $file ("$dir/fifo", "$dir/link", '/proc/self/fd/3', '/dev/zero', '/dev/tty', $dir)
{
	$from = log_count($node);
	channel('files', 'https://127.0.0.1:1/', "ca_file => '$file'");
	ok(poll_until(10, sub { told('.*(regular file|could not open|larger)') }), "a CA file that is none: $file");
}
is(send_one('plain'), 'delivered', 'the worker goes on');
is($session->query("SELECT status || ' ' || attempts FROM messages WHERE id = $waits"), 'idle 0', 'the message waits, and no attempt was used up');
channel('files', $here->url('/ok'), "ca_file => ''");
is($session->query("SELECT msg_wait($waits, 'delivered', '10 s')"), 'delivered', 'until its webhook is repaired');
is($session->query("SELECT attempts FROM messages WHERE id = $waits"), 1, 'at the first attempt');

# ---- headers, trailers and answers before the answer have an end
for my $what ('', 'early', 'trailers')
{
	channel("endless$what", $here->url("/headers/$what"), "timeout => '20 s'");
	like(send_one("endless$what"), qr/^dead headers and trailers are longer/, "headers without end: $what");
}
# more than libcurl itself would take is not needed for that
channel('many', $here->url('/headers/270'));
like(send_one('many'), qr/^dead headers and trailers are longer/, 'headers of 270 kB');
channel('many', $here->url('/headers/200'));
is(send_one('many'), 'delivered', 'headers of 200 kB are taken');

# ---- what a user makes does not run with a worker's rights
channel('tripping', $here->url('/status/500'));
$session->query("SELECT msg_channel_set('tripping', max_attempts => 3, retry_base => '10 ms', retry_max => '20 ms'); SELECT msg_webhook_set('tripping', retry_schedule => '{}')");
$session->query('GRANT TRIGGER ON messages, msg_attempts, msg_webhooks TO op; GRANT CREATE ON SCHEMA public TO op; CREATE TABLE tripped (who text); GRANT INSERT ON tripped TO op');
$as_op->query($_) for q{CREATE FUNCTION trip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.tripped VALUES (current_user); RETURN NEW; END $$},
	(map { "CREATE TRIGGER trip BEFORE INSERT OR UPDATE ON $_ FOR EACH ROW EXECUTE FUNCTION trip()" } qw(messages msg_attempts msg_webhooks)),
	q{CREATE FUNCTION msg_retry_delay(interval, interval, bigint) RETURNS interval LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.tripped VALUES (current_user); RETURN '0'; END $$},
	q{CREATE FUNCTION equal(msg_status, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.tripped VALUES (current_user); RETURN true; END $$},
	q{CREATE OPERATOR = (LEFTARG = msg_status, RIGHTARG = text, FUNCTION = equal)};
like(send_one('tripping'), qr/^dead/, 'a message is tried three times and dies');
is($session->query('SELECT count(*) FROM tripped'), 1, 'the trigger ran for the INSERT of the session, and for nothing that the worker did; what lay in wait did not run');
$session->query('DROP FUNCTION trip() CASCADE');

# ---- what a consumer says is bounded
my $id = $session->query("SET client_min_messages = error; SELECT msg_channel_set('acks', ack => 'topic', topic => 'x'); SELECT msg_create('1', 'acks')") =~ s/.*\n//sr;
$session->query("SET session_replication_role = replica; UPDATE messages SET status = 'sent', sent_at = now(), attempts = 1 WHERE id = $id; SET session_replication_role = origin");
$session->query("SELECT msg_ack($id, 'failed', repeat('x', 5000000))");
cmp_ok($session->query("SELECT octet_length(last_error) FROM messages WHERE id = $id"), '<=', 1000, 'the error of an acknowledgement is cut');
$node->stop('fast');
ok(!-e $node->data_dir . '/postmaster.pid', 'fast shutdown ends');
done_testing();
