# Webhooks by TLS: certificates are verified, clients show theirs where they have one, HTTP/2 where it is allowed.
use strict;
use warnings;
use lib 'test/lib';
use IO::Socket::INET;
use MsgsysTest;
use Test::More;

plan skip_all => 'nginx is not installed' unless grep { -x "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin';
my $dir = tempdir();
my ($tls, $mutual, $two, $away, $plain) = map { IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1')->sockport } 1 .. 5;
sub openssl { system("openssl $_[0] 2>/dev/null") == 0 or die "openssl $_[0]"; }
openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout $dir/ca.key -out $dir/ca.pem -batch");
openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout $dir/other.key -out $dir/other.pem -batch");
open(my $ext, '>', "$dir/ext"); print $ext "subjectAltName=IP:127.0.0.1\n"; close $ext;
for my $who (qw(server client))
{
	openssl("req -newkey rsa:2048 -nodes -subj /CN=$who -keyout $dir/$who.key -out $dir/$who.csr -batch");
	openssl("x509 -req -in $dir/$who.csr -CA $dir/ca.pem -CAkey $dir/ca.key -CAcreateserial -days 2 -extfile $dir/ext -out $dir/$who.pem");
}
open(my $conf, '>', "$dir/conf");
print $conf <<END;
pid $dir/pid; error_log $dir/error.log;
events { worker_connections 256; }
http {
	log_format seen '\$server_port \$server_protocol \$ssl_client_s_dn \$connection \$ssl_session_reused \$request_method \$request_uri \$http_authorization \$http_webhook_signature \$content_type \$request_length';
	access_log $dir/seen seen;
	client_body_temp_path $dir/b; proxy_temp_path $dir/p; fastcgi_temp_path $dir/f; uwsgi_temp_path $dir/u; scgi_temp_path $dir/s;
	ssl_certificate $dir/server.pem; ssl_certificate_key $dir/server.key;
	server { listen 127.0.0.1:$tls ssl; location / { return 202; }
		location /plain { return 307 http://127.0.0.1:$plain/; } location /other { return 303 https://127.0.0.1:$away/seen; } location = /see { return 303 /seen; } }
	server { listen 127.0.0.1:$plain; location / { return 202; } }
	server { listen 127.0.0.1:$away ssl; ssl_client_certificate $dir/ca.pem; ssl_verify_client optional; location / { return 202; } }
	server { listen 127.0.0.1:$two ssl http2; location / { return 202; } }
	server { listen 127.0.0.1:$mutual ssl; ssl_client_certificate $dir/ca.pem; ssl_verify_client on; location / { return 202; }
		location /away { return 307 https://127.0.0.1:$away/; } location /near { return 307 /here; } }
}
END
close $conf;
$ENV{PATH} .= ':/usr/sbin';
system("nginx -c $dir/conf 2>$dir/start") == 0 or die "nginx does not start";
END { system("kill \$(cat $dir/pid)") if $dir && -e "$dir/pid" }

my $node = new_node('tls', 'msgsys.webhook_allow' => '127.0.0.0/8');
ok(poll_sql($node, 20, "SELECT count(*) FROM msg_workers WHERE stage = 'webhook' AND state IN ('idle', 'not needed')", 1), 'a webhook worker runs');
my $session = session($node);
sub text { open(my $f, '<', "$dir/$_[0]"); local $/; return '$pem$' . <$f> . '$pem$'; }
sub try_it
{
	my ($name, $url, $settings) = @_;
	$session->query("SET client_min_messages = error; SELECT msg_channel_set('$name', max_attempts => 2, retry_base => '10 ms', retry_max => '20 ms')");
	$session->query("SELECT msg_webhook_set('$name', '$url', retry_schedule => '{}', breaker_share => 2" . ($settings ? ", $settings" : '') . ')');
	my $id = $session->query("SELECT msg_create('1', '$name')");
	my $status = $session->query("SELECT msg_wait($id, 'delivered', '20 s')");
	return "$status " . ($session->query("SELECT string_agg(DISTINCT concat_ws(' ', class, code), ',') FROM msg_attempts WHERE message_id = $id") // '');
}
sub seen { open(my $f, '<', "$dir/seen") or return ''; my @lines = <$f>; chomp @lines; return @lines; }

# saw(PATTERN, WHAT): the server's latest line; it writes it when the answer is out already
sub saw { my ($pattern, $what) = @_; return ok(poll_until(10, sub { ((seen())[-1] // '') =~ $pattern }), $what) || diag(seen()); }

is(try_it('unknown', "https://127.0.0.1:$tls/"), 'dead tls', 'a certificate that nobody known has signed');
is(try_it('wrong', "https://127.0.0.1:$tls/", "ca_file => '$dir/other.pem'"), 'dead tls', 'one that another has signed');
is(try_it('name', "https://127.0.0.2:$tls/", "ca_file => '$dir/ca.pem'") =~ s/connect/tls/r, 'dead tls', 'one for another name');
is(scalar seen(), 0, 'nothing was sent');
is(try_it('right', "https://127.0.0.1:$tls/", "ca_file => '$dir/ca.pem'"), 'delivered ', 'the right one');
saw(qr{^$tls HTTP/1.1}, 'by HTTP/1.1');
is(try_it('one', "https://127.0.0.1:$two/", "ca_file => '$dir/ca.pem'"), 'delivered ', 'to a server that offers more');
saw(qr{^$two HTTP/1.1}, 'too');
# on a connection of its own, for HTTP/1.1 is not made HTTP/2
$node->restart;
$session = session($node);
is(try_it('two', "https://127.0.0.1:$two/", "ca_file => '$dir/ca.pem', http2 => true"), 'delivered ', 'with HTTP/2');
saw(qr{^$two HTTP/2}, 'really');
# nginx does not read the body here, and may end the stream when it has answered
is(join(',', map { try_it("two$_", "https://127.0.0.1:$two/", "ca_file => '$dir/ca.pem', http2 => true") } 1 .. 20), join(',', ('delivered ') x 20), 'twenty times, at the first attempt');
is(try_it('nobody', "https://127.0.0.1:$mutual/", "ca_file => '$dir/ca.pem'"), 'dead status 400', 'a server that wants a certificate of ours');
is(try_it('shown', "https://127.0.0.1:$mutual/", "ca_file => '$dir/ca.pem', client_cert => " . text('client.pem') . ', client_key => ' . text('client.key')), 'delivered ', 'gets it');
saw(qr{^$mutual HTTP/1.1 CN=client}, 'ours');
is($session->query("SELECT count(*) FROM msg_webhook_secrets WHERE kind LIKE 'client%' AND channel = 'shown'"), 2, 'both are kept as secrets');

# ---- certificates that cannot be used are an outage of their channel, and no death
for my $case ([ 'rubbish', "client_cert => 'rubbish', client_key => 'rubbish'" ], [ 'keyless', 'client_cert => ' . text('client.pem') ], [ 'mismatch', 'client_cert => ' . text('client.pem') . ', client_key => ' . text('other.key') ],
	[ 'ca', 'client_cert => ' . text('client.pem') . ', client_key => ' . text('client.key') . ", ca_file => '$dir/conf'" ])
{
	my ($name, $settings) = @$case;
	$session->query("SELECT msg_channel_set('$name', max_attempts => 1); SELECT msg_webhook_set('$name', 'https://127.0.0.1:$mutual/', ca_file => '$dir/ca.pem'); SELECT msg_webhook_set('$name', $settings)");
	$session->query("INSERT INTO messages (channel, payload) SELECT '$name', to_jsonb(g) FROM generate_series(1, 300) g");
	ok(poll_until(10, sub { log_count($node, qr/cannot make requests for the webhook of channel "$name"/) }), "$name: told");
	is(try_it('right', "https://127.0.0.1:$tls/", "ca_file => '$dir/ca.pem'"), 'delivered ', "$name: another channel goes on");
	is($session->query("SELECT string_agg(DISTINCT status || ' ' || attempts, ',') FROM messages WHERE channel = '$name'"), 'idle 0', "$name: its messages wait");
	$session->query("SELECT msg_webhook_set('$name', ca_file => '$dir/ca.pem', client_cert => " . text('client.pem') . ', client_key => ' . text('client.key') . ')');
	ok(poll_sql($node, 10, "SELECT count(*) FROM messages WHERE channel = '$name' AND status = 'delivered' AND attempts = 1", 300), "$name: until they are repaired");
	is(log_count($node, qr/cannot make requests for the webhook of channel "$name"/), 1, "$name: told once");
}

# ---- connections are used again, and their certificates are not shown to others
my $before = seen();
$session->query("INSERT INTO messages (channel, payload) SELECT 'shown', to_jsonb(g) FROM generate_series(1, 500) g");
ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE channel = 'shown' AND status = 'delivered'", 501), '500 by TLS');
ok(poll_until(10, sub { seen() >= $before + 500 }), 'are seen there');
my %connections = map { ((split)[3] => 1) } grep { /^$mutual/ } (seen())[ $before .. seen() - 1 ];
cmp_ok(scalar keys %connections, '<=', 64, 'over as many connections as may be open at once');
is(try_it('nobody', "https://127.0.0.1:$mutual/", "ca_file => '$dir/ca.pem'"), 'dead status 400', 'a channel without a certificate does not get into them');

# ---- redirects: TLS is not given up, a certificate is shown to none but its own origin, and 303 asks by GET
my $trusting = "ca_file => '$dir/ca.pem', redirects => 2, bearer => 'token'";
is(try_it('giveup', "https://127.0.0.1:$tls/plain", $trusting), 'dead broken 307', 'a redirect from https to http is not followed');
is($session->query("SELECT last_error FROM messages WHERE channel = 'giveup'") =~ /from https to http/ ? 1 : 0, 1, 'and the message says so');
is(scalar(grep { /^$plain / } seen()), 0, 'nothing comes there');
my $shown = "$trusting, client_cert => " . text('client.pem') . ', client_key => ' . text('client.key');
is(try_it('near', "https://127.0.0.1:$mutual/near", $shown), 'delivered ', 'a redirect to the same origin');
saw(qr{^$mutual \S+ CN=client \d+ \S+ POST /here Bearer token }, 'is shown our certificate, as the first request was');
is(try_it('away', "https://127.0.0.1:$mutual/away", $shown), 'delivered ', 'a redirect to another origin that would take one');
saw(qr{^$away \S+ - \d+ \S+ POST / - }, 'is shown none, and no token');
is(try_it('see', "https://127.0.0.1:$tls/see", $trusting), 'delivered ', '303 to the same origin');
saw(qr{^$tls \S+ - \d+ \S+ GET /seen Bearer token - - }, 'is followed by a GET without a body and its Content-Type, with the token');
$session->query("SELECT msg_channel_rotate_secret('see')");
is(try_it('see', "https://127.0.0.1:$tls/see", $trusting), 'delivered ', 'the same with a signing secret');
saw(qr{^$tls \S+ - \d+ \S+ GET /seen Bearer token - - }, 'no signature of a body that is not there goes along');
is(try_it('other', "https://127.0.0.1:$tls/other", $trusting), 'delivered ', '303 to another origin');
saw(qr{^$away \S+ - \d+ \S+ GET /seen - - - }, 'without the token');
$node->stop;
done_testing();
