# Facade.pm: a server whose HTTP facade a test talks to: roles, tokens, requests as they are.
package Facade;

use strict;
use warnings;
use Digest::SHA 'hmac_sha256';
use Exporter 'import';
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP;
use MIME::Base64 'encode_base64';
use MsgsysTest;
use Time::HiRes 'time';

our @EXPORT = qw(facade_node facade_ready free_port base64url token raw_request);

our $secret = 'a secret of the tests, 32 bytes long at least';

sub free_port { return IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1')->sockport; }

# facade_node(NAME, settings…): a server with the facade, the login role "web", and a role for each kind of msg_grant. Returns the
# node and a Facade to talk to.
sub facade_node
{
	my ($name, %settings) = @_;
	my $port = free_port();
	my $node = new_node($name, 'msgsys.http_listen' => "127.0.0.1:$port", 'msgsys.http_role' => 'web', 'msgsys.http_jwt_secret' => $secret, %settings);
	$node->safe_psql('postgres', "CREATE ROLE web LOGIN NOINHERIT; SELECT msg_grant('web', 'http'); CREATE ROLE nobody; GRANT nobody TO web");
	for my $kind (qw(producer consumer reader operator))
	{
		$node->safe_psql('postgres', "CREATE ROLE $kind; SELECT msg_grant('$kind', '$kind'); GRANT $kind TO web");
	}
	facade_ready($node);
	return ($node, Facade->new($port));
}

# facade_ready(NODE[, SCHEMA]): wait until it serves.
sub facade_ready
{
	my ($node, $schema) = @_;
	my $workers = ($schema // 'public') . '.msg_workers';
	poll_sql($node, 30, "SELECT count(*) > 0 AND bool_and(state IN ('idle', 'busy')) FROM $workers WHERE stage = 'http'")
	  or die 'the facade does not start: ' . $node->safe_psql('postgres', "SELECT last_error FROM $workers WHERE stage = 'http'");
	return;
}

# base64url(BYTES)
sub base64url
{
	my ($bytes) = @_;
	return encode_base64($bytes, '') =~ tr{+/}{-_}r =~ s/=+$//r;
}

# token(CLAIMS, key => …, alg => …, header => …): a token signed with HS256, whatever its header says.
sub token
{
	my ($claims, %o) = @_;
	my $head = base64url(encode_json($o{header} // { alg => $o{alg} // 'HS256', typ => 'JWT' }));
	my $text = $head . '.' . base64url(ref $claims ? encode_json($claims) : $claims);
	return $text . '.' . base64url(hmac_sha256($text, $o{key} // $secret));
}

sub new
{
	my ($class, $port) = @_;
	return bless { port => $port, http => HTTP::Tiny->new(timeout => 60, keep_alive => 1) }, $class;
}

sub url { return "http://127.0.0.1:$_[0]{port}$_[1]"; }

# ask(METHOD, PATH, as => role, token => …, headers => {…}, body => text or data): status, headers (lower case), body, json.
sub ask
{
	my ($self, $method, $path, %o) = @_;
	my %headers = %{ $o{headers} // {} };
	my $body = ref $o{body} ? encode_json($o{body}) : $o{body};
	$headers{'Content-Type'} //= 'application/json' if defined $body;
	my $token = $o{token} // ($o{as} ? token({ role => $o{as} }) : undef);
	$headers{Authorization} = "Bearer $token" if defined $token;
	my $r = $self->{http}->request($method, $self->url($path), { headers => \%headers, defined $body ? (content => $body) : () });
	return { status => $r->{status}, headers => $r->{headers}, body => $r->{content},
		json => scalar eval { JSON::PP->new->utf8->allow_nonref->decode($r->{content}) } };
}

# raw_request(PORT, TEXT, seconds): send bytes, and return all that comes until the other side closes, or the time is over.
sub raw_request
{
	my ($port, $text, $seconds) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") or return undef;
	my $end = time + ($seconds // 5);
	my $answer = '';
	local $SIG{PIPE} = 'IGNORE';
	$socket->syswrite($text) if length $text;
	while ((my $left = $end - time) > 0)
	{
		my $ready = '';
		vec($ready, fileno $socket, 1) = 1;
		next unless select($ready, undef, undef, $left);
		last unless $socket->sysread($answer, 65536, length $answer);
	}
	return $answer;
}

1;
