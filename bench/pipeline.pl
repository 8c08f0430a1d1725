# pipeline.pl: the whole line: created, in Kafka, received, posted, delivered, in Redis.
use strict;
use warnings;

use Bench;
use Endpoint;
use IO::Socket::INET;
use Time::HiRes qw(time sleep);

use constant { RATE => 200 };

my $redis;
END { kill 'TERM', $redis if $redis }

sub start_redis
{
	my $port = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1')->sockport;
	$redis = fork // die "bench: fork: $!\n";
	unless ($redis) { open STDOUT, '>', '/dev/null'; exec 'redis-server', '--port', $port, '--bind', '127.0.0.1', '--save', '' or POSIX::_exit(1) }
	for (1 .. 100) { last if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port); sleep 0.05 }
	return $port;
}

sub measure
{
	my ($n) = @_;
	my ($url) = start_endpoint();
	my $port = start_redis();
	my $session = start_servers('pipeline', ack => 'readback', settings => ['msgsys.webhook_allow=127.0.0.1', "msgsys.redis_url=redis://127.0.0.1:$port/"]);
	$session->sql("SELECT msg_webhook_set('bench', '$url')");
	my $flow = sub {
		my ($count) = @_;
		my $target = counter($session, 'delivered') + $count;
		my $begin = time;
		create_messages($session, $count);
		return await_counter($session, 'delivered', $target) - $begin;
	};
	say_progress('warming up');
	$flow->($n / 5);
	say_progress("$n messages");
	my $watch = watch_workers($session);
	my $time = $flow->($n);
	my %use = $watch->();
	say_progress(sprintf '%d/s; %d a second', $n / $time, RATE);
	my $seconds = 30;
	my $from = $session->sql('SELECT max(id) FROM messages');
	my $begin = time;
	for my $i (0 .. RATE * $seconds - 1)
	{
		my $wait = $begin + $i / RATE - time;
		sleep $wait if $wait > 0;
		$session->sql("INSERT INTO messages (channel, payload) VALUES ('bench', '{\"n\": $i}')");
	}
	sleep 0.5;    # the last ones end
	my ($left, $p50, $p99) = split /\|/, $session->sql("SELECT count(*) FILTER (WHERE status <> 'delivered'), percentile_cont(0.5) WITHIN GROUP (ORDER BY t), percentile_cont(0.99) WITHIN GROUP (ORDER BY t)
		FROM (SELECT status, extract(epoch FROM delivered_at - created_at) * 1000 AS t FROM messages WHERE id > $from) m");
	die "bench: $left messages were not delivered\n" if $left;
	my $cached = counter($session, 'cached');
	return { n => $n, rate => round_to(0, $n / $time), p50_ms => round_to(2, $p50), p99_ms => round_to(2, $p99), %use, cached => 0 + $cached,
		delivered => 0 + counter($session, 'delivered'), versions => versions($session) };
}

{
	about => 'created, Kafka, received, webhook, delivered, Redis: rate, and latency at 200/s',
	size => 100_000,
	unit => 'messages',
	bounds => [['p50_ms', '<=', 10], ['p99_ms', '<=', 40]],
	measure => \&measure,
};
