# Endpoint.pm: a local nginx that answers each POST with 202, plainly and by TLS, for the benchmarks of webhooks.
package Endpoint;

use strict;
use warnings;

use Bench;
use Exporter 'import';
use IO::Socket::INET;

our @EXPORT = qw(start_endpoint);

my $dir;
my $owner = $$;

# Start it; returns the URLs and the file of its certificate.
sub start_endpoint
{
	chomp($dir = qx(mktemp -d /tmp/msgsys-nginx-XXXXXX));
	my ($plain, $tls) = map { IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1')->sockport } 1 .. 2;
	system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 "
		. "-keyout $dir/key.pem -out $dir/cert.pem -batch 2>/dev/null") == 0 or die "bench: openssl failed\n";
	open my $conf, '>', "$dir/nginx.conf" or die "bench: $dir: $!\n";
	print $conf <<END;
worker_processes 1; pid $dir/pid; error_log $dir/error.log;
events { worker_connections 4096; }
http {
	access_log off; keepalive_requests 100000000; client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/f;
	uwsgi_temp_path $dir/u; scgi_temp_path $dir/s;
	server {
		listen 127.0.0.1:$plain backlog=4096; listen 127.0.0.1:$tls ssl backlog=4096; ssl_certificate $dir/cert.pem; ssl_certificate_key $dir/key.pem;
		location / { return 202; }
	}
}
END
	close $conf;
	system('nginx', '-c', "$dir/nginx.conf") == 0 or die "bench: nginx does not start (it is a package of its own)\n";
	return ("http://127.0.0.1:$plain/", "https://127.0.0.1:$tls/", "$dir/cert.pem");
}

END
{
	if ($dir && $$ == $owner)
	{
		my $status = $?;
		system("kill \$(cat $dir/pid) 2>/dev/null; rm -rf $dir");
		$? = $status;
	}
}

1;
