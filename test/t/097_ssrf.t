# Webhooks reach no address that is not allowed, on no way: the forbidden listener sees no byte.
use strict;
use warnings;
use lib 'test/lib';
use IO::Socket::INET;
use MsgsysTest;
use Sink;
use Test::More;

# what must not be reached: a listener that counts bytes, on an address of this machine that is not allowed
my $forbidden = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.2', Blocking => 0);
my $port = $forbidden->sockport;
my ($connections, $bytes) = (0, 0);
sub look
{
	while (my $c = $forbidden->accept)
	{
		$connections++;
		$c->blocking(0);
		select(undef, undef, undef, 0.05);
		$bytes += sysread($c, my $unused, 65536) // 0;
	}
}

my $sink = Sink->new;
$ENV{LD_PRELOAD} = "$ENV{MSGSYS_WORK}/resolver.so";    # names that end in .test
$ENV{http_proxy} = $ENV{HTTP_PROXY} = $ENV{all_proxy} = "http://127.0.0.2:$port";    # of no consequence
my $node = new_node('ssrf', 'msgsys.webhook_allow' => '127.0.0.1, 127.0.0.2');
ok(poll_sql($node, 20, "SELECT count(*) FROM msg_workers WHERE stage = 'webhook' AND state IN ('idle', 'not needed')", 1), 'a webhook worker runs');
my $session = session($node);

sub channel
{
	my ($name, $url, $settings) = @_;
	$session->query("SET client_min_messages = error; SELECT msg_channel_set('$name', max_attempts => 2, retry_base => '10 ms', retry_max => '20 ms')");
	$session->query("SELECT msg_webhook_set('$name', '$url', retry_schedule => '{}', breaker_share => 2, timeout => '2 s'" . ($settings ? ", $settings" : '') . ')');
}
sub send_one
{
	my ($channel) = @_;
	my $id = $session->query("SELECT msg_create('1', '$channel')");
	my $status = $session->query("SELECT msg_wait($id, 'delivered', '20 s')");
	look();
	return "$status " . ($session->query("SELECT string_agg(DISTINCT class, ',') FROM msg_attempts WHERE message_id = $id") // '');
}

# ---- every spelling, set while that was allowed
my %url = (
	literal => "http://127.0.0.2:$port/", decimal => "http://2130706434:$port/", hex => "http://0x7f.2:$port/", octal => "http://0177.0.0.2:$port/",
	short => "http://127.2:$port/", name => "http://forbidden.test:$port/", mapped => "http://[::ffff:127.0.0.2]:$port/",
	wide => "http://\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.2:$port/", dots => "http://127\xe3\x80\x820\xe3\x80\x820\xe3\x80\x822:$port/", circled => "http://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.2:$port/");
channel($_, $url{$_}) for sort keys %url;
channel('allowed', $url{literal});
channel('misproxied', 'http://elsewhere.invalid/via', "proxy => 'http://127.0.0.2:$port'");
$node->append_conf('postgresql.conf', "msgsys.webhook_allow = '127.0.0.1'\n");
$node->reload;
ok(poll_sql($node, 10, 'SHOW msgsys.webhook_allow', '127.0.0.1'), 'the address is not allowed any more');
# without a locale, libcurl does not take letters beyond ASCII for digits and dots at all
like(send_one($_), /wide|dots|circled/ ? qr/^dead (address|request|resolve)$/ : qr/^dead address$/, "$_: refused") for sort keys %url;
is("$connections $bytes", '0 0', 'no connection, no byte');

# ---- setting a URL is refused at once
is($session->query("SELECT count(*) FROM msg_webhooks WHERE channel = 'new'"), 0, 'nothing there');
$session->query("SELECT msg_channel_set('new'); SELECT msg_webhook_set('new', 'http://127.0.0.2:$port/')");
is($session->query("SELECT count(*) FROM msg_webhooks WHERE channel = 'new'"), 0, 'a forbidden address cannot be set');

# ---- a name that is another address the next time, and one that has an allowed address too
my ($sink_port) = $sink->url('') =~ /:(\d+)/;
channel('rebind', "http://rebind.test:$sink_port/ok");
my $probe = q{SELECT class FROM msg_test('rebind')};
is($session->query($probe), 'delivered', 'a name that leads where that is allowed');
$session->query("SELECT msg_webhook_set('rebind', 'http://rebind.test:$port/')");
is($session->query($probe), 'address', 'refused, once it leads elsewhere');
channel('both', "http://both.test:$sink_port/ok");
is(send_one('both'), 'delivered ', 'of two addresses, the allowed one is called');
look();
is("$connections $bytes", '0 0', 'and no byte went to the other');

# ---- a look-up that hangs holds up nobody
channel("hang$_", 'http://hang.test/', q{connect_timeout => '300 ms'}) for 1 .. 10;
channel('well', $sink->url('/ok'));
$session->query("INSERT INTO messages (channel, payload) SELECT 'hang' || g, '1' FROM generate_series(1, 10) g");
my $slowest = 0;
for (1 .. 40)
{
	my $id = $session->query("SELECT msg_create('1', 'well')");
	$session->query("SELECT msg_wait($id, 'delivered', '10 s')");
	my $time = $session->query("SELECT extract(epoch FROM delivered_at - created_at) FROM messages WHERE id = $id");
	$slowest = $time if $time > $slowest;
}
cmp_ok($slowest, '<', 0.5 * slowness(), "while ten channels look up a name for ever, the slowest other one takes $slowest s");
ok(poll_sql($node, 20, "SELECT count(*) FROM messages WHERE channel LIKE 'hang%' AND status = 'dead'", 10), 'they time out');
is($session->query("SELECT string_agg(DISTINCT a.class, ',') FROM msg_attempts a WHERE a.channel LIKE 'hang%'"), 'timeout', 'and say so');

# ---- a proxy is judged in place of the endpoint, and sees what that is
my ($sink_url) = $sink->url('') =~ m{^(.*?)/?$};
channel('proxied', 'http://elsewhere.invalid/via', "proxy => '$sink_url'");
is(send_one('proxied'), 'delivered ', 'by a proxy that is allowed');
is(scalar $sink->requests(sub { $_[0]{path} eq 'http://elsewhere.invalid/via' }), 1, 'which is asked for the endpoint');
like(send_one('misproxied'), qr/^dead address$/, 'not by one that is not');
is("$connections $bytes", '0 0', 'which sees no byte');
is($node->psql('postgres', "SELECT msg_webhook_set('proxied', proxy => '127.0.0.2:$port')"), 3, 'nor can it be set');

# ---- a redirect, where redirects are followed
channel('redirect', $sink->url('/redirect/' . "http://127.0.0.2:$port/" =~ s/(\W)/sprintf '%%%02X', ord $1/ger), 'redirects => 3');
like(send_one('redirect'), qr/^dead address$/, 'a redirect to it: refused');
channel('scheme', $sink->url('/redirect/file%3A%2F%2F%2Fetc%2Fpasswd'), 'redirects => 3');
like(send_one('scheme'), qr/^dead (broken|request)$/, 'a redirect to a file: refused');

# ---- a placeholder cannot lead elsewhere
channel('template', $sink->url('/ok?to={key}'));
my $id = $session->query("SELECT msg_create('1', 'template', message_key => E'\@127.0.0.2:$port/')");
$session->query("SELECT msg_wait($id, 'delivered', '10 s')");
look();
is("$connections $bytes", '0 0', 'still no connection, no byte');

# ---- a connection that another channel made while it was allowed is not used again
$node->append_conf('postgresql.conf', "msgsys.webhook_allow = '127.0.0.0/8'\n");
$node->reload;
my $other = Sink->new;
$session->query("SELECT msg_channel_set('reuse')");
ok(poll_until(10, sub { $session->query("SELECT msg_webhook_set('reuse', '" . $other->url('/ok') . "') IS NOT NULL; SELECT count(*) FROM msg_webhooks WHERE channel = 'reuse'") =~ /1$/ }), 'it is allowed');
is(send_one('reuse'), 'delivered ', 'and delivered');
my $before = $other->requests;
$node->append_conf('postgresql.conf', "msgsys.webhook_allow = '127.0.0.2'\n");
$node->reload;
ok(poll_sql($node, 10, 'SHOW msgsys.webhook_allow', '127.0.0.2'), 'it is not allowed any more');
like(send_one('reuse'), qr/^retry address$|^dead address$/, 'the open connection is not used') or diag($session->query('SELECT * FROM msg_attempts ORDER BY id DESC LIMIT 3'));
is(scalar $other->requests, $before, 'no request came by it');

# ---- PostgreSQL's own port, whatever is allowed
$node->append_conf('postgresql.conf', "msgsys.webhook_allow = '0.0.0.0/0, ::/0'\n");
$node->reload;
ok(poll_sql($node, 10, 'SHOW msgsys.webhook_allow', '0.0.0.0/0, ::/0'), 'everything is allowed');
channel('own', 'http://127.0.0.1:' . $node->port . '/');
like(send_one('own'), qr/^dead address$/, 'but PostgreSQL itself');
is(send_one('allowed') =~ /address/ ? 'refused' : 'tried', 'tried', 'what is allowed is called');
look();
cmp_ok($connections, '>', 0, 'the listener would have noticed');
$node->stop;
done_testing();
