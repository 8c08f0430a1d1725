# Every fault of three brokers that we know of, while messages are created, and beside it a bare producer with the same load: what each
# fault loses, repeats or reorders, and how long msgsys and the bare producer take to get over it. Clients come by SASL_SSL.
# THREE_FAULTS is a regular expression for which faults (all); THREE_SECONDS how long one lasts that has an end (10).
#
# The time to recover is from the fault (of one that messages are to flow through) or its end (of one that stops them) until a record that
# was created since has been confirmed by each partition. The longest wait is that of any message or record, from its creation to its
# confirmation.
use strict;
use warnings;
use lib 'test/lib';
use Bare;
use List::Util qw(max min);
use MsgsysTest;
use Test::More;
use Time::HiRes qw(time sleep);

use constant { RATE => 100, PARTITIONS => 6 };
my $seconds = $ENV{THREE_SECONDS} // 10;
my $wanted = $ENV{THREE_FAULTS} // '';

$ENV{KAFKA_TLS} = 1;
my ($bootstrap, @broker) = kafka_cluster_later('auto.create.topics.enable=false', 'log.cleaner.backoff.ms=200', 'log.initial.task.delay.ms=0',
	'log.retention.check.interval.ms=300')->();
chomp(my $tls = slurp_file("$broker[0]/bootstrap-tls"));
my @options = ('security.protocol=sasl_ssl', 'sasl.mechanism=PLAIN', 'sasl.username=msgsys', 'sasl.password=secret', "ssl.ca.location=$broker[0]/tls/ca.pem");
my $node = new_node('three', 'max_connections' => 100, 'msgsys.kafka_brokers' => $tls, 'msgsys.kafka_options' => join(', ', @options));
ok(wait_workers($node), 'workers run');
my $session = session($node);
$session->query('CREATE TABLE stop (load text)');

# A client that creates a message of each channel at RATE a second, until it is stopped.
sub load_start
{
	my (@channels) = @_;
	my $load = session($node);
	my $rate = RATE;
	$load->send(qq{DO \$\$ DECLARE began timestamptz = clock_timestamp(); BEGIN FOR n IN 1 .. 1000000 LOOP
		EXIT WHEN EXISTS (SELECT FROM stop WHERE load = '$channels[0]');
		INSERT INTO messages (channel, message_key, payload) SELECT c, 'key ' || n % 100, to_jsonb(n) FROM unnest('{@{[join ',', @channels]}}'::text[]) c;
		COMMIT;
		PERFORM pg_sleep(extract(epoch FROM began + n * interval '1 s' / $rate - clock_timestamp()));
		END LOOP; END \$\$});
	return $load;
}

sub load_stop
{
	my ($load, @channels) = @_;
	$session->query("INSERT INTO stop VALUES ('$channels[0]')");
	$load->answer;
	die $load->error if $load->error;
	return;
}

# When a message of a channel that was created since was first confirmed by each partition.
sub confirmed
{
	my ($channel, $since) = @_;
	return map { split /\|/ } split /\n/, $session->query("SELECT kafka_partition, extract(epoch FROM min(sent_at)) FROM messages
		WHERE channel = '$channel' AND created_at >= to_timestamp($since) AND sent_at IS NOT NULL GROUP BY 1");
}

# The same of a bare producer's records.
sub bare_confirmed
{
	my ($bare, $topic, $since) = @_;
	my %first;
	for my $r ($bare->reports)
	{
		next if $r->{topic} ne $topic || $r->{produced} < $since || $r->{error};
		$first{ $r->{partition} } = min($r->{reported}, $first{ $r->{partition} } // $r->{reported});
	}
	return %first;
}

# Wait until msgsys and the bare producer have got over something; how long each took, or undef.
sub recoveries
{
	my ($bare, $channel, $since, $partitions) = @_;
	my (%ours, %bares);
	poll_until(120, sub { %ours = confirmed($channel, $since); %bares = bare_confirmed($bare, "bare_$channel", $since);
			return keys %ours >= $partitions && keys %bares >= $partitions; });
	return map { keys %$_ >= $partitions ? max(values %$_) - $since : undef } \%ours, \%bares;
}

# judge(CHANNEL, GONE): what became of its messages; GONE says of which the fault has taken the record, by what the topic has.
sub judge
{
	my ($channel, $gone) = @_;
	my (%key, %seen, %last, %low, %latest);
	my %c = map { $_ => 0 } qw(created in_kafka removed lost repeated reordered unfinished);
	my @rows = map { my %r; @r{qw(id status partition offset sent key)} = split /\|/, $_, -1; \%r } split /\n/,
	  $session->query("SELECT id, status, kafka_partition, kafka_offset, extract(epoch FROM sent_at), message_key FROM messages WHERE channel = '$channel'");
	my $uuid = $session->query('SELECT uuid FROM msg_installation');
	for my $record (read_topic($bootstrap, $channel))
	{
		my ($of, $id) = $record->{headers}{ce_id} =~ /^(.*):(\d+)$/ or next;
		my $partition = $record->{partition};
		die "a record of another installation, $of" if $of ne $uuid;
		$low{$partition} //= $record->{offset};
		$latest{"$partition $record->{key}"} = $record->{offset};
		if ($seen{$id}++) { $c{repeated}++; next; }
		my $last = \$last{"$partition $record->{key}"};
		$c{reordered}++ if ($$last // 0) > $id;
		$$last = max($$last // 0, $id);
	}
	for my $row (@rows)
	{
		$c{created}++;
		$c{unfinished}++ if $row->{status} ne 'received';
		if ($seen{ $row->{id} }) { $c{in_kafka}++; }
		elsif ($gone && $gone->($row, \%low, \%latest)) { $c{removed}++; }
		else { $c{lost}++; diag("$channel: lost " . join(' ', map { "$_ " . ($row->{$_} // '') } sort keys %$row)) if $c{lost} < 5; }
	}
	return \%c;
}

# What the bare producer lost of what was confirmed to it, and what it could not send.
sub judge_bare
{
	my ($bare, $topic, $gone) = @_;
	my (%there, %low, %latest);
	my %c = (confirmed => 0, lost => 0, failed => 0);
	for my $record (read_topic($bootstrap, $topic))
	{
		$low{ $record->{partition} } //= $record->{offset};
		$latest{"$record->{partition} $record->{key}"} = $record->{offset};
		$there{ $record->{value} }++;
	}
	for my $r (grep { $_->{topic} eq $topic } $bare->reports)
	{
		my %row = (partition => $r->{partition}, offset => $r->{offset}, sent => $r->{reported}, key => 'key ' . $r->{number} % 100);
		if ($r->{error}) { $c{failed}++; next; }
		$c{confirmed}++;
		$c{lost}++ unless $there{ $r->{number} } || $gone && $gone->(\%row, \%low, \%latest);
	}
	return \%c;
}

sub whole
{
	my (@topics) = @_;
	return poll_until(120, sub { !grep { !in_sync($bootstrap, $_) } @topics }) || diag("@topics: a replica is not in sync");
}

sub shown { return defined $_[0] ? sprintf('%.2f s', $_[0]) : 'not at all'; }

my @table;
my $number = 0;

# measure(NAME, FAULT, option => value …): run FAULT while messages flow.  It returns the moment from which the time to recover counts,
# or undef where there is nothing to recover from.
#   partitions  of the topic after it (PARTITIONS)
#   begin       the number before it
#   config      of the topic
#   gone        says which messages' records it has removed
#   after       what is to be undone when messages flow again
sub measure
{
	my ($name, $fault, %o) = @_;
	my $channel = sprintf 'fault_%02d', ++$number;
	return if $name !~ /$wanted/;
	my $partitions = $o{partitions} // PARTITIONS;
	my @topics = ($channel, "bare_$channel");
	kafka_create_topic($bootstrap, $_, $o{begin} // $partitions, 'min.insync.replicas=2', @{ $o{config} // [] }) for @topics;
	$session->query("SELECT msg_channel_set('$channel', topic => '$channel')");
	whole(@topics);
	my $began = time;
	my $load = load_start($channel);
	my $bare = Bare->new(work_dir() . '/bare', $tls, RATE, ["bare_$channel"], @options);
	my ($first) = recoveries($bare, $channel, $began, $o{begin} // $partitions);
	ok(defined $first, "$name: messages flow before it");

	my $since = $fault->(@topics);
	my @took = defined $since ? recoveries($bare, $channel, $since, $partitions) : (0, 0);
	ok(defined $_, "$name: messages flow again") for @took;
	$o{after}->() if $o{after};
	load_stop($load, $channel);
	$bare->stop;
	ok(poll_sql($node, 120, "SELECT count(*) FROM messages WHERE channel = '$channel' AND status <> 'received'", 0), "$name: all come to their end")
	  or diag($session->query("SELECT status, attempts, last_error, count(*) FROM messages WHERE channel = '$channel' GROUP BY 1, 2, 3"));
	whole(@topics);
	my $c = judge($channel, $o{gone});
	my $b = judge_bare($bare, "bare_$channel", $o{gone});
	my $longest = $session->query("SELECT extract(epoch FROM max(sent_at - created_at)) FROM messages WHERE channel = '$channel'");
	my $bare_longest = max(map { $_->{error} ? () : $_->{reported} - $_->{produced} } $bare->reports);
	is("$c->{lost} $c->{reordered} $c->{unfinished}", '0 0 0', "$name: none lost, out of order or unfinished");
	push @table, [ $name, @$c{qw(created in_kafka removed lost repeated reordered)}, defined $since ? map { shown($_) } @took : ('-', '-') ];
	push @{ $table[-1] }, shown($longest), shown($bare_longest), "$b->{lost} of $b->{confirmed}, $b->{failed} refused";
	note('| ' . join(' | ', @{ $table[-1] }) . ' |');
	return;
}

measure('a broker is killed', sub { my $now = time; kafka('kill', $broker[0]); return $now; }, after => sub { kafka_start($broker[0]) });

measure('two brokers are killed', sub {
	my $log = log_count($node);
	kafka('kill', $_) for @broker[ 0, 1 ];
	ok(poll_until(30, sub { log_count($node, 'messages for topic "fault_\d+" wait: |msgsys relay has lost the broker: ', $log) }), 'the log says it');
	my $now = time;
	sleep $seconds;
	is($session->query("SELECT count(*) FROM messages WHERE sent_at > to_timestamp($now)"), 0, 'nothing is confirmed');
	$now = time;
	$_->() for map { kafka_start_later($_) } @broker[ 0, 1 ];
	return $now;
});

measure('a broker hangs', sub { my $now = time; kafka('pause', $broker[1]); return $now; }, after => sub { kafka('cont', $broker[1]) });

measure('all hang', sub { kafka('pause', $_) for @broker; sleep $seconds; my $now = time; kafka('cont', $_) for @broker; return $now; });

measure('rolled, one after the other', sub {
	my (@topics) = @_;
	my $now;
	for my $dir (@broker) { $now = time; kafka('stop', $dir); kafka_start($dir); whole(@topics); }
	return $now;
});

measure('partitions are added', sub { my $now = time; kafka_topic($bootstrap, 'grow', $_, PARTITIONS) for @_; return $now; }, begin => 3);

my $anew;
measure('the topic is deleted and made anew', sub {
	kafka_topic($bootstrap, 'delete', $_) for @_;
	sleep $seconds / 3;
	$anew = time;
	kafka_create_topic($bootstrap, $_, PARTITIONS, 'min.insync.replicas=2') for @_;
	return $anew;
}, gone => sub { return $_[0]{sent} < $anew; });

measure('compacted', sub { sleep 2 * $seconds; return; },
	config => [ 'cleanup.policy=compact', 'segment.ms=1000', 'min.cleanable.dirty.ratio=0.01', 'max.compaction.lag.ms=1000', 'delete.retention.ms=100' ],
	gone => sub { my ($row, $low, $latest) = @_; return ($latest->{"$row->{partition} $row->{key}"} // -1) > $row->{offset}; });

measure('records are deleted', sub { my $now = time; kafka_topic($bootstrap, 'trim', $_, PARTITIONS) for @_; return $now; },
	gone => sub { my ($row, $low) = @_; return !defined $low->{ $row->{partition} } || $row->{offset} < $low->{ $row->{partition} }; });

measure('rights are taken away and given back', sub {
	kafka_topic($bootstrap, 'deny', $_) for @_;
	sleep $seconds;
	my $now = time;
	kafka_topic($bootstrap, 'allow', $_) for @_;
	return $now;
});

# ---- a topic whose only broker is away, beside one that has three
if ('a topic without a leader' =~ /$wanted/)
{
	my @names = ('beside', 'bare_beside');
	kafka_create_topic($bootstrap, $_, PARTITIONS, 'min.insync.replicas=2') for @names;
	kafka_topic($bootstrap, 'place', $_, 3) for qw(alone bare_alone);
	$session->query("SELECT msg_channel_set('$_', topic => '$_')") for qw(beside alone);
	whole(@names);
	my $began = time;
	my $load = load_start('beside', 'alone');
	my $bare = Bare->new(work_dir() . '/bare', $tls, RATE, [qw(bare_beside bare_alone)], @options);
	my @first = recoveries($bare, 'beside', $began, PARTITIONS);

	# p50 and p99 of the time to confirm what is created in a stretch of time, in ms: of msgsys and the bare producer
	my $stretch = sub {
		my $from = time;
		sleep 2 * $seconds;
		my $until = time;
		# what is under way is confirmed, or the stretch is not over for it
		sleep 1;
		my $ours = $session->query("SELECT format('%s / %s', round(1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY w)::numeric, 1), round(1000 * percentile_cont(0.99) WITHIN GROUP (ORDER BY w)::numeric, 1))
			FROM (SELECT extract(epoch FROM coalesce(sent_at, clock_timestamp()) - created_at)::float8 w FROM messages
			WHERE channel = 'beside' AND created_at >= to_timestamp($from) AND created_at < to_timestamp($until)) m");
		my @waits = sort { $a <=> $b } map { $_->{reported} - $_->{produced} } grep { $_->{topic} eq 'bare_beside' && $_->{produced} >= $from && $_->{produced} < $until } $bare->reports;
		return ($ours, sprintf '%.1f / %.1f', map { 1000 * $waits[ $_ * $#waits ] } 0.5, 0.99);
	};
	my @before = $stretch->();
	my $now = time;
	kafka('kill', $broker[2]);
	my @took = recoveries($bare, 'beside', $now, PARTITIONS);
	my @while = $stretch->();
	kafka_start($broker[2]);
	load_stop($load, 'beside');
	$bare->stop;
	ok(poll_sql($node, 120, q{SELECT count(*) FROM messages WHERE channel IN ('beside', 'alone') AND status <> 'received'}, 0), 'a topic without a leader: all come to their end');
	for my $channel ('beside', 'alone')
	{
		my $c = judge($channel);
		is("$c->{lost} $c->{reordered} $c->{unfinished}", '0 0 0', "$channel: none lost, out of order or unfinished");
		note("$channel: $c->{created} created, $c->{repeated} repeated");
	}
	note('messages beside a topic without a leader, p50 / p99 ms until they are confirmed');
	note("| all brokers are there | $before[0] | $before[1] |");
	note("| the broker of the other topic is away | $while[0] | $while[1] |");
	note('until they flow after the kill: ' . join(' and ', map { shown($_) } @took));
}

note('| fault | created | in Kafka | removed | lost | repeated | out of order | recovery | bare | longest wait | bare | bare: lost |');
note('|---|---|---|---|---|---|---|---|---|---|---|---|');
note('| ' . join(' | ', @$_) . ' |') for @table;
$node->stop;
done_testing();
