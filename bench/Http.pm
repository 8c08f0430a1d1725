# Http.pm: what the benchmarks of the HTTP facade have in common: its settings, a token, wrk.
package Http;

use strict;
use warnings;

use Bench;
use Digest::SHA 'hmac_sha256';
use Exporter 'import';
use IO::Socket::INET;
use MIME::Base64 'encode_base64';

our @EXPORT = qw(http_settings http_ready wrk pgbench_tps);

my $secret = 'the secret of the benchmarks, long enough';
my $port;

sub base64url { my ($bytes) = @_; return encode_base64($bytes, '') =~ tr{+/}{-_}r =~ s/=+$//r }

# Settings that switch the facade on.
sub http_settings
{
	my ($workers) = @_;
	$port = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1')->sockport;
	return ("msgsys.http_listen=127.0.0.1:$port", "msgsys.http_workers=$workers", 'msgsys.http_role=web', "msgsys.http_jwt_secret=$secret", 'msgsys.http_connections_per_peer=0', 'max_worker_processes=20');
}

# Make the roles, and wait until it serves.
sub http_ready
{
	my ($session) = @_;
	$session->sql("CREATE ROLE web LOGIN NOINHERIT; SELECT msg_grant('web', 'http'); CREATE ROLE operator; SELECT msg_grant('operator', 'operator'); GRANT operator TO web");
	for (1 .. 300)
	{
		return if $session->sql("SELECT count(*) > 0 AND bool_and(state IN ('idle', 'busy')) FROM msg_workers WHERE stage = 'http'") eq 't';
		select undef, undef, undef, 0.1;
	}
	die "bench: the facade does not start\n";
}

sub token
{
	my $text = base64url('{"alg":"HS256","typ":"JWT"}') . '.' . base64url('{"role":"operator"}');
	return "$text." . base64url(hmac_sha256($text, $secret));
}

# wrk(PATH, CONNECTIONS, SECONDS, BODY): requests a second, p50 and p99 in ms. A body is posted.
sub wrk
{
	my ($path, $connections, $seconds, $body) = @_;
	my @script;
	if (defined $body)
	{
		my $file = "$ENV{PGHOST}/wrk.lua";
		open my $lua, '>', $file or die "bench: $!\n";
		print $lua "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = [==[$body]==]\n";
		close $lua;
		@script = ('-s', $file);
	}
	open my $pipe, '-|', 'wrk', '--latency', '-t', 1, '-c', $connections, '-d', "${seconds}s", @script, '-H', 'Authorization: Bearer ' . token(), "http://127.0.0.1:$port$path" or die "bench: wrk: $!\n";
	my $output = do { local $/; <$pipe> };
	close $pipe;
	die "bench: wrk: $output\n" if $output =~ /Non-2xx|Socket errors/;
	my ($rate) = $output =~ /^Requests\/sec:\s+([\d.]+)/m or die "bench: wrk: $output\n";
	my %ms = (us => 0.001, ms => 1, s => 1000);
	my %at = map { my $p = $_; $output =~ /^\s+$p%\s+([\d.]+)(us|ms|s)/m ? ($p => $1 * $ms{$2}) : () } 50, 99;
	return ($rate, $at{50}, $at{99});
}

# Transactions a second of a script by pgbench.
sub pgbench_tps
{
	my ($name, $script, $clients, $seconds) = @_;
	open my $file, '>', "$ENV{PGHOST}/$name.sql" or die "bench: $!\n";
	print $file $script;
	close $file;
	my $output = qx('@{[bindir()]}/pgbench' -n -M prepared -c $clients -j 2 -T $seconds -f '$ENV{PGHOST}/$name.sql' 2>&1);
	my ($tps) = $output =~ /^tps = ([\d.]+)/m or die "bench: pgbench: $output\n";
	return $tps;
}

1;
