# topics.pl: whether messages to topics that are made on demand make those of an established channel wait.
use strict;
use warnings;

use Bench;

use constant { RATE => 200, AFTER => 3 };

# p50, p99 and maximum in ms of the established channel, while a number of new channels get their first message
sub latency
{
	my ($seconds, $round, $new) = @_;
	my $pid = 0;
	if ($new)
	{
		defined($pid = fork) or die "bench: fork: $!\n";
		if ($pid == 0)
		{
			sleep AFTER;
			exec @{ [bindir()] }[0] . '/psql', '-qXAt', '-c',
				"DO \$\$ BEGIN FOR i IN 1 .. $new LOOP PERFORM msg_channel_set('new_' || i, topic => format('new-$round-%s', i), ack => 'none');
					PERFORM msg_create('1', 'new_' || i); COMMIT; END LOOP; END \$\$", 'postgres'
			  or POSIX::_exit(1);
		}
	}
	my @figures = latency_figures(RATE, $seconds);
	if ($pid) { waitpid $pid, 0; $? == 0 or die "bench: the new channels failed\n"; }
	say_progress("$new new topics: p50 $figures[0] ms, p99 $figures[1] ms, longest $figures[2] ms");
	return @figures;
}

sub measure
{
	my ($seconds) = @_;
	my $session = start_servers('topics');
	compile('latency');
	create_messages($session, 10_000);
	await_counter($session, 'sent', 10_000);
	latency(5, 0, 0);    # warms up
	my %result = (n => $seconds * RATE);
	my $round = 0;
	for my $new (0, 1, 20, 50)
	{
		my ($p50, $p99, $longest) = latency($seconds, ++$round, $new);
		my $of = $new ? "_$new" : '';
		@result{ "p50_ms$of", "p99_ms$of", "longest_ms$of" } = ($p50, $p99, $longest);
		$session->sql("SELECT msg_wait(id, 'sent', '20 s') FROM messages WHERE channel LIKE 'new%' AND status = 'idle'");
		die "bench: messages to new topics were not sent\n" if $session->sql("SELECT EXISTS (SELECT FROM messages WHERE channel LIKE 'new%' AND status <> 'sent')") eq 't';
	}
	return { %result, versions => versions($session) };
}

{
	about => 'an established channel beside 1, 20 and 50 channels whose topics are made on demand',
	size => 15,
	unit => 'seconds',
	bounds => [['p50_ms_50', '<=', 5], ['longest_ms_1', '<=', 100], ['longest_ms_50', '<=', 1000]],
	measure => \&measure,
};
