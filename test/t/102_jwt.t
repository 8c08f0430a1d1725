# Who asks: tokens that are good and tokens that are not, keys in turn, roles and what each may, row security.
use strict;
use warnings;
use lib 'test/lib';
use Facade;
use JSON::PP;
use MsgsysTest;
use Test::More;

expect_findings('nobody: channel "default"' => 'there is nothing that sends', 'setting: {msgsys.http_role}' => 'it becomes a superuser, to see that it is refused');

my ($node, $facade) = facade_node('jwt');
my $now = time;
$node->safe_psql('postgres', 'CREATE ROLE boss SUPERUSER; GRANT boss TO web; CREATE ROLE stranger');

sub error { my ($code, $message, $details, $hint) = @_; return { code => $code, message => $message, details => $details, hint => $hint }; }

# ---- tokens: name, token, status, answer
sub is_refused
{
	my ($name, $token, $status, $error, $header) = @_;
	my $answer = $facade->ask('GET', '/messages?limit=0', token => $token);
	is($answer->{status}, $status, $name) or diag($answer->{body});
	is_deeply($answer->{json}, $error, "$name: words") if $error;
	is($answer->{headers}{'www-authenticate'}, $header, "$name: WWW-Authenticate") if defined $header;
}
sub invalid { return qq(Bearer error="invalid_token", error_description="$_[0]"); }
my $key_error = error('PGRST301', 'No suitable key or wrong key type', 'None of the keys was able to decode the JWT');
my $algorithm = error('PGRST301', 'Wrong or unsupported encoding algorithm');
my $good = token({ role => 'reader' });

is_refused('a good token', $good, 200);
is_refused('none', undef, 401, error('PGRST302', 'Anonymous access is disabled'), 'Bearer');
is_refused('an empty one', '', 401, error('PGRST301', 'Empty JWT is sent in Authorization header'), invalid('Empty JWT is sent in Authorization header'));
is_refused('two parts', 'a.b', 401, error('PGRST301', 'Expected 3 parts in JWT; got 2'), invalid('Expected 3 parts in JWT; got 2'));
is_refused('four parts', "$good.x", 401, error('PGRST301', 'Expected 3 parts in JWT; got 4'));
is_refused('another key', token({ role => 'reader' }, key => 'x' x 40), 401, $key_error);
is_refused('a changed signature', substr($good, 0, -3) . 'AAA', 401, $key_error);
is_refused('no signature', $good =~ s/[^.]*$//r, 401, $key_error);
is_refused('a signature that is no base64url', "$good!", 401, error('PGRST301', 'JWT cryptographic operation failed'));
is_refused('changed claims', do { my @p = split /\./, $good; $p[1] = base64url('{"role":"operator"}'); join '.', @p }, 401, $key_error);
is_refused('alg none', base64url('{"alg":"none"}') . '.' . base64url('{"role":"reader"}') . '.', 401, error('PGRST301', 'Wrong or unsupported encoding algorithm', q{JWT is unsecured but expected 'alg' was not 'none'}));
is_refused('alg None', token({ role => 'reader' }, alg => 'None'), 401, $algorithm);
is_refused('no alg', token({ role => 'reader' }, header => { typ => 'JWT' }), 401, $algorithm);
is_refused('alg that is no text', token({ role => 'reader' }, header => { alg => 1 }), 401, $algorithm);
is_refused('another alg', token({ role => 'reader' }, alg => 'RS256'), 401, error('PGRST301', 'No suitable key or wrong key type', 'No suitable key was found to decode the JWT'));
is_refused('another of the kind', token({ role => 'reader' }, alg => 'HS512'), 401, $algorithm);
is_refused('what must be understood', token({ role => 'reader' }, header => { alg => 'HS256', crit => ['x'] }), 401, $algorithm);
is_refused('a header that is no JSON', base64url('x') . '.' . base64url('{}') . '.AAAA', 401, error('PGRST301', 'JWT cryptographic operation failed'));
is_refused('expired', token({ role => 'reader', exp => $now - 60 }), 401, error('PGRST303', 'JWT expired'), invalid('JWT expired'));
is_refused('expired within the skew of clocks', token({ role => 'reader', exp => $now - 20 }), 200);
is_refused('not yet valid', token({ role => 'reader', nbf => $now + 120 }), 401, error('PGRST303', 'JWT not yet valid'));
is_refused('valid soon', token({ role => 'reader', nbf => $now + 20 }), 200);
is_refused('issued in the future', token({ role => 'reader', iat => $now + 120 }), 401, error('PGRST303', 'JWT issued at future'));
is_refused("$_ that is no number", token({ role => 'reader', $_ => 'x' }), 401, error('PGRST303', "The JWT '$_' claim must be a number")) for qw(exp nbf iat);
is_refused('a time far away', token('{"role":"reader","exp":1e300}'), 200);
is_refused('an audience that is no text', token({ role => 'reader', aud => { a => 1 } }), 401, error('PGRST303', q(The JWT 'aud' claim must be a string or an array of strings)));
is_refused('audiences that are no texts', token({ role => 'reader', aud => [ 'a', 1 ] }), 401, error('PGRST303', q(The JWT 'aud' claim must be a string or an array of strings)));
is_refused('any audience, where none is asked for', token({ role => 'reader', aud => 'x' }), 200);
is_refused('claims that are no JSON', token('{"role"'), 401, error('PGRST303', 'Parsing claims failed'));
is_refused('claims that are no object', token('["role"]'), 401, error('PGRST303', 'Parsing claims failed'));
is_refused('no role', token({ sub => 'x' }), 401, error('PGRST302', 'Anonymous access is disabled'), 'Bearer');
is_refused('a role that is no text', token({ role => ['reader'] }), 401, error('22023', 'role "["reader"]" does not exist'), 'Bearer');
is_refused('a role that is null', token({ role => undef }), 401, error('22023', 'role "null" does not exist'));
is_refused('a role that does not exist', token({ role => 'nope' }), 401, error('22023', 'role "nope" does not exist'));
is_refused('a role that is not for the facade', token({ role => 'stranger' }), 403, error('42501', 'permission denied to set role "stranger"'));
is_refused('a superuser', token({ role => 'boss' }), 403, error('42501', 'role "boss" is a superuser and cannot be used by HTTP'));
is_refused('the login role itself', token({ role => 'web' }), 403);
is_refused('a role that may not', token({ role => 'nobody' }), 403, error('42501', 'permission denied for table messages'));
is($facade->ask('GET', '/messages?limit=0', headers => { Authorization => "bearer $good" })->{status}, 200, 'bearer in lower case');
is($facade->ask('GET', '/messages?limit=0', headers => { Authorization => 'Basic eDp5' })->{status}, 401, 'another scheme is none');

# ---- which role does what
my %actions = (
	'read messages' => [ 'GET', '/messages?limit=1' ],
	'read ids' => [ 'GET', '/messages?select=id,status&limit=1' ],
	'read channels' => [ 'GET', '/msg_channels' ],
	'read the backlog' => [ 'GET', '/msg_backlog' ],
	'read workers' => [ 'GET', '/msg_workers' ],
	'read attempts' => [ 'GET', '/msg_attempts?select=id,class' ],
	'read answers' => [ 'GET', '/msg_attempts?select=excerpt' ],
	'insert' => [ 'POST', '/messages', { payload => 1 } ],
	'insert a status' => [ 'POST', '/messages', { payload => 1, status => 'sent' } ],
	'change' => [ 'PATCH', '/messages?id=eq.-1', { message_key => 'x' } ],
	'delete' => [ 'DELETE', '/messages?id=eq.-1' ],
	'create' => [ 'POST', '/rpc/msg_create', { payload => 1 } ],
	'list' => [ 'GET', '/rpc/msg_list?limit=0' ],
	'acknowledge' => [ 'POST', '/rpc/msg_ack', { id => -1 } ],
	'pause' => [ 'POST', '/rpc/msg_pause', {} ],
	'resume' => [ 'POST', '/rpc/msg_resume', {} ],
	'set a channel' => [ 'POST', '/rpc/msg_channel_set', { channel => 'c', topic => 't' } ],
	'grant' => [ 'POST', '/rpc/msg_grant', { role => 'nobody', kind => 'operator' } ],
);
my %may = (
	nobody => [],
	producer => [ 'read ids', 'insert', 'create' ],
	consumer => [ 'read ids', 'acknowledge' ],
	reader => [ 'read messages', 'read ids', 'read channels', 'read the backlog', 'read workers', 'read attempts', 'list' ],
	operator => [ grep { !/^grant$|insert a status/ } sort keys %actions ],
);
# what reader may read in part
for my $role (sort keys %may)
{
	my %granted = map { $_ => 1 } @{ $may{$role} };
	for my $action (sort keys %actions)
	{
		my ($method, $path, $body) = @{ $actions{$action} };
		my $answer = $facade->ask($method, $path, as => $role, defined $body ? (body => $body) : ());
		my $got = $answer->{status} < 300 ? 'may' : $answer->{status} == 403 && $answer->{json}{code} eq '42501' ? 'may not' : "$answer->{status} $answer->{body}";
		my $wanted = $granted{$action} || ($action eq 'read ids' && $role eq 'reader') ? 'may' : 'may not';
		is($got, $wanted, "$role $wanted $action");
	}
}

# ---- row security
$node->safe_psql('postgres', q{ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own ON messages TO reader, producer USING (message_key = current_setting('request.jwt.claims', true)::json ->> 'sub') WITH CHECK (message_key = current_setting('request.jwt.claims', true)::json ->> 'sub');
	INSERT INTO messages (payload, message_key) VALUES ('1', 'ann'), ('2', 'bob'), ('3', 'bob')});
for my $who ([ ann => 1 ], [ bob => 2 ], [ eve => 0 ])
{
	is(scalar @{ $facade->ask('GET', '/messages', token => token({ role => 'reader', sub => $who->[0] }))->{json} }, $who->[1], "$who->[0] sees his own");
}
is($facade->ask('POST', '/messages', token => token({ role => 'producer', sub => 'ann' }), body => { payload => 1, message_key => 'ann' })->{status}, 201, 'and may write his own');
is($facade->ask('POST', '/messages', token => token({ role => 'producer', sub => 'ann' }), body => { payload => 1, message_key => 'bob' })->{status}, 403, 'but not another\'s');
$node->safe_psql('postgres', 'DROP POLICY own ON messages; ALTER TABLE messages DISABLE ROW LEVEL SECURITY');

# ---- settings: all at a reload
# is_soon(NAME, STATUS, CODE): a setting is applied by the next look of the worker
sub is_soon { my ($name, $status, $ask) = @_; my $got; ok(poll_until(20, sub { ($got = $ask->()->{status}) == $status }), $name) or diag("it is $got"); }
sub set { my (%settings) = @_; $node->append_conf('postgresql.conf', join '', map { "$_ = '$settings{$_}'\n" } sort keys %settings); $node->reload; }
sub with { my ($token) = @_; return sub { $facade->ask('GET', '/messages?limit=0', defined $token ? (token => $token) : ()) }; }

set('msgsys.http_anonymous_role' => 'reader');
is_soon('an anonymous role', 200, with(undef));
is($facade->ask('POST', '/messages', body => { payload => 1 })->{status}, 401, 'what it may not is 401, not 403');
is($facade->ask('GET', '/messages?limit=0', token => token({ sub => 'x' }))->{status}, 200, 'and a token without a role is anonymous');
is($facade->ask('POST', '/messages', body => { payload => 1 }, token => token({ sub => 'x' }))->{status}, 401, 'for what it may not, too');
is_refused('one whose role is null is not', token({ role => undef }), 401);
set('msgsys.http_anonymous_role' => '');
is_soon('and none again', 401, with(undef));

set('msgsys.http_jwt_audience' => 'us');
is_soon('another audience', 401, with(token({ role => 'reader', aud => 'them' })));
is(with(token({ role => 'reader', aud => 'us' }))->()->{status}, 200, 'ours');
is(with(token({ role => 'reader', aud => [ 'them', 'us' ] }))->()->{status}, 200, 'ours among others');
is(with(token({ role => 'reader', aud => ['them'] }))->()->{json}{message}, 'JWT not in audience', 'not ours');
is(with(token({ role => 'reader', aud => [] }))->()->{status}, 200, 'none');
is(with($good)->()->{status}, 200, 'not said');
set('msgsys.http_jwt_audience' => '', 'msgsys.http_jwt_role_claim' => 'app.roles.db');
is_soon('a claim within claims', 200, with(token({ app => { roles => { db => 'reader' } } })));
set('msgsys.http_jwt_role_claim' => 'role');
is_soon('and not', 200, with($good));

# keys in turn: both count, then the new one alone
my $dir = tempdir();
my $file = "$dir/keys";
my ($old, $new) = ('the old secret of more than 32 bytes', 'the new secret of more than 32 bytes');
sub write_file { my ($text) = @_; open(my $out, '>', $file) or die; print $out $text; close $out; }
write_file("$old\n$new\n");
set('msgsys.http_jwt_secret' => '', 'msgsys.http_jwt_keys_file' => $file);
is_soon('the new key of a file', 200, with(token({ role => 'reader' }, key => $new)));
is(with(token({ role => 'reader' }, key => $old))->()->{status}, 200, 'the old one too');
is(with($good)->()->{status}, 401, 'and no other');
write_file("$new\n");
$node->reload;
is_soon('the old one is gone', 401, with(token({ role => 'reader' }, key => $old)));
is(with(token({ role => 'reader' }, key => $new))->()->{status}, 200, 'the new one stays');
write_file("short\n");
$node->reload;
is_soon('keys that cannot be used let nobody in', 500, with(token({ role => 'reader' }, key => $new)));
is(with(token({ role => 'reader' }, key => 'short'))->()->{status}, 500, 'not even with them');
like($node->safe_psql('postgres', "SELECT last_error FROM msg_workers WHERE stage = 'http'"), qr/shorter than 32 bytes/, 'and msg_workers says so');

# public keys
sub openssl { my ($in, @args) = @_; my $out = "$dir/out"; open(my $pipe, '|-', "openssl @args >$out 2>/dev/null") or die; print $pipe $in; close $pipe or die "openssl @args"; open(my $read, '<', $out) or die; binmode $read; local $/; return scalar <$read>; }
sub signed
{
	my ($alg, $key, $claims) = @_;
	my $text = base64url(encode_json({ alg => $alg })) . '.' . base64url(encode_json($claims));
	my $signature = openssl($text, 'dgst', '-sha256', '-sign', $key);
	if ($alg eq 'ES256')
	{
		# DER to r and s
		my ($r, $s) = unpack('x3 C/a x C/a', $signature);
		$signature = join '', map { substr(("\0" x 32) . $_, -32) } $r, $s;
	}
	return "$text." . base64url($signature);
}
system("cd $dir && openssl genrsa -out r1 2048 2>/dev/null && openssl genrsa -out r2 2048 2>/dev/null && openssl genrsa -out weak 1024 2>/dev/null && openssl ecparam -name prime256v1 -genkey -noout -out e1 && openssl ecparam -name secp384r1 -genkey -noout -out e2 && openssl ecparam -name secp256k1 -genkey -noout -out k1") == 0 or die;
my %public = map { $_ => openssl('', 'pkey', '-in', "$dir/$_", '-pubout') } qw(r1 r2 weak e1 e2 k1);
write_file($public{r1} . $public{r2});
set('msgsys.http_jwt_algorithm' => 'RS256');
is_soon('RS256', 200, with(signed('RS256', "$dir/r1", { role => 'reader' })));
is(with(signed('RS256', "$dir/r2", { role => 'reader' }))->()->{status}, 200, 'the other key');
is(with(signed('RS256', "$dir/weak", { role => 'reader' }))->()->{status}, 401, 'no other');
is(with(token({ role => 'reader' }, key => $public{r1}))->()->{status}, 401, 'a public key is no secret of HS256');
is(with(token({ role => 'reader' }, key => $public{r1}, alg => 'RS256'))->()->{status}, 401, 'whatever the header says');
is(with(signed('ES256', "$dir/e1", { role => 'reader' }))->()->{status}, 401, 'nor is ES256 taken');
write_file($public{e1});
set('msgsys.http_jwt_algorithm' => 'ES256');
is_soon('ES256', 200, with(signed('ES256', "$dir/e1", { role => 'reader' })));
is(with(signed('ES256', "$dir/e1", { role => 'reader' }) =~ s/(.)(.{40})$/($1 eq 'A' ? 'B' : 'A') . $2/er)->()->{status}, 401, 'not a changed one');
is(with(signed('ES256', "$dir/e1", { role => 'reader' }) =~ s/[^.]*$/A/r)->()->{status}, 401, 'nor one that is too short');
$public{broken} = $public{r1} . $public{r2} =~ s/\nM/\n!/r . $public{r2};
$public{jwk} = '{"kty":"RSA","e":"AQAB","n":"what everybody may know who wants to verify"}';
$public{nul} = "$old\n\0$new\n";
for my $bad ([ k1 => 'ES256', 'not of the curve P-256' ], [ broken => 'RS256', 'of 3 keys only 2' ], [ jwk => 'HS256', 'a JSON Web Key' ], [ nul => 'HS256', 'is no text' ], [ weak => 'RS256', 'less than 2048 bits' ], [ e2 => 'ES256', 'not of the curve P-256' ], [ e1 => 'RS256', 'not an RSA key' ], [ '' => 'ES256', 'no public key' ])
{
	write_file($public{ $bad->[0] } // '-----');
	set('msgsys.http_jwt_algorithm' => $bad->[1]);
	ok(poll_sql($node, 20, "SELECT last_error LIKE '%$bad->[2]%' FROM msg_workers WHERE stage = 'http'"), "refused: $bad->[2]");
}
$node->stop;
done_testing();
