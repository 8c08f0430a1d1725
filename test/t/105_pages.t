# The pages and the description of the interface: files with the right headers and no way out of their directory, OpenAPI from the catalogue.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use IO::Uncompress::Gunzip 'gunzip';
use MsgsysTest;
use Test::More;

my $dir = tempdir();
system("cp -r pages/. '$dir' && chmod -R a+rX '$dir'") == 0 or die;
my ($node, $facade) = facade_node('pages', 'msgsys.http_files' => $dir);
sub get { my ($path, %headers) = @_; return $facade->ask('GET', $path, headers => \%headers); }

# ---- files
for my $file ([ '/ui/', 'text/html', 'msgsys' ], [ '/ui/index.html', 'text/html', 'msgsys' ], [ '/ui/app.js', 'text/javascript', 'sessionStorage' ], [ '/ui/style.css', 'text/css', 'color-scheme' ], [ '/docs/', 'text/html', 'swagger' ])
{
	my ($path, $type, $word) = @$file;
	my $answer = get($path);
	is_deeply([ $answer->{status}, $answer->{headers}{'content-type'} ], [ 200, "$type; charset=utf-8" ], "$path needs no token");
	like($answer->{body}, qr/$word/, "$path is what it should be");
	like($answer->{headers}{'content-security-policy'}, qr/^default-src 'none'; script-src 'self'; .*frame-ancestors 'none'$/, "$path: nothing from elsewhere");
	is($answer->{headers}{'x-content-type-options'}, 'nosniff', "$path: types are as they are said");
	my $again = get($path, 'If-None-Match' => $answer->{headers}{etag});
	is_deeply([ $again->{status}, $again->{body} // '' ], [ 304, '' ], "$path is not sent again");
}
unlike(get('/ui/')->{headers}{'content-security-policy'}, qr/unsafe/, 'nothing inline at /ui');
like(raw_request($facade->{port}, "GET /ui HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), qr/^HTTP\/1.1 308 .*\r\nLocation: ui\/\r\n/s, '/ui leads to /ui/');
open(my $file, '>', "$dir/ui/app.js") or die;
print $file 'changed();';
close $file;
is(get('/ui/app.js')->{body}, 'changed();', 'a changed file is read again');
open($file, '>', "$dir/secret.json") or die;
print $file '"secret"';
close $file;
system("mkdir '$dir/ui/.hidden'; echo 1 >'$dir/ui/.hidden/a.json'; echo 1 >'$dir/ui/.a.json'; echo 1 >'$dir/ui/a.sh'; mkdir '$dir/ui/sub'; echo 1 >'$dir/ui/sub/a.json'");
is(get('/ui/sub/a.json')->{status}, 200, 'a file further down');
for my $path ('/ui/../secret.json', '/ui/..%2fsecret.json', '/ui/%2e%2e/secret.json', '/ui//etc/passwd', '/ui/./app.js', '/ui/sub/../../secret.json', '/ui/.hidden/a.json', '/ui/.a.json', '/ui/a.sh', '/ui/app.js%00.html', '/ui/nope.html',
	'/ui/sub', '/ui/sub/', '/ui/app.js/', '/ui/..', '/docs/../secret.json', '/ui/..\\secret.json', '/ui/' . 'a' x 3000 . '.html', '/ui/' . 'a/' x 1500 . 'a.html')
{
	# as it is, for a client would tidy it up
	my $answer = raw_request($facade->{port}, "GET $path HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	like($answer, qr/^HTTP\/1.1 40[04] /, substr($path, 0, 40) . ' is not there');
	unlike($answer, qr/secret"|root:|changed/, 'and nothing of it is sent');
}
is($facade->ask('POST', '/ui/app.js', body => {})->{status}, 405, 'files take nothing');

SKIP:
{
	skip 'Swagger UI could not be fetched', 4 unless -e "$dir/docs/swagger-ui-bundle.js.gz";
	my $plain = get('/docs/swagger-ui-bundle.js');
	is_deeply([ $plain->{status}, $plain->{headers}{'content-encoding'} ], [ 200, undef ], 'Swagger UI is there');
	my $zipped = get('/docs/swagger-ui-bundle.js', 'Accept-Encoding' => 'gzip, br');
	is($zipped->{headers}{'content-encoding'}, 'gzip', 'compressed for those who take that');
	gunzip(\$zipped->{body}, \my $unzipped);
	ok($unzipped eq $plain->{body}, 'the same');
	unlike($plain->{body}, qr/sourceMappingURL/, 'and leads nowhere else');
}

# ---- the description
my $answer = get('/');
is_deeply([ $answer->{status}, $answer->{headers}{'content-type'}, $answer->{json}{openapi} ], [ 200, 'application/openapi+json; charset=utf-8', '3.1.0' ], 'OpenAPI');
is(get('/openapi.json')->{body}, $answer->{body}, 'by another path too');
my $paths = $answer->{json}{paths};
ok($paths->{$_}, "it knows $_") for qw(/messages /msg_channels /msg_backlog /rpc/msg_create /rpc/msg_list /metrics /health/ready);
ok(!$paths->{$_}, "but not $_") for qw(/msg_webhook_secrets /rpc/msg_message_trigger);
is_deeply([ sort keys %{ $paths->{'/msg_backlog'} } ], ['get'], 'a view is only read');
is_deeply([ sort keys %{ $paths->{'/messages'} } ], [qw(delete get patch post)], 'a table is written too');
is_deeply([ sort keys %{ $paths->{'/rpc/msg_create'} } ], ['post'], 'a function that writes has no GET');
is_deeply($paths->{'/rpc/msg_create'}{post}{requestBody}{content}{'application/json'}{schema}{required}, ['payload'], 'what must be given');
is($paths->{'/rpc/msg_create'}{post}{summary}, $node->safe_psql('postgres', "SELECT obj_description('msg_create'::regproc)"), 'in the words of the catalogue');
ok($answer->{json}{webhooks}{message}, 'what msgsys sends');
# each reference leads somewhere
my %missing;
my $walk;
$walk = sub {
	my ($node) = @_;
	if (ref $node eq 'HASH')
	{
		if (defined $node->{'$ref'} && !ref $node->{'$ref'})
		{
			my $place = $answer->{json};
			$place = ref $place eq 'HASH' ? $place->{$_} : undef for grep { $_ ne '#' } split m{/}, $node->{'$ref'};
			$missing{ $node->{'$ref'} } = 1 unless $place;
		}
		$walk->($_) for values %$node;
	}
	elsif (ref $node eq 'ARRAY') { $walk->($_) for @$node }
};
$walk->($answer->{json});
is_deeply([ sort keys %missing ], [], 'every reference leads somewhere');
$node->safe_psql('postgres', "COMMENT ON FUNCTION msg_create IS 'says something else'; ALTER FUNCTION msg_create COST 100");
is(get('/')->{json}{paths}{'/rpc/msg_create'}{post}{summary}, 'says something else', 'it follows the catalogue');

# ---- each path that it names is served
for my $path (sort keys %$paths)
{
	my $status = $facade->ask('OPTIONS', $path, as => 'operator')->{status};
	is($status, $path =~ m{^/(health|metrics)} ? 405 : 200, "$path is served");
}
$node->stop;
done_testing();
