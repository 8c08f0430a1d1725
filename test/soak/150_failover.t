# Failovers while messages are created: to a standby that applies late, to one that was cut off, back to the old primary after
# pg_rewind, and back again; a restore in time; two primaries. Every message of the timeline that goes on is sent, no name has
# two payloads, and what came twice is counted. The time to recover is from the promotion (or the start of the restored server)
# until a message that was created on it is sent.
use strict;
use warnings;
use lib 'test/lib';
use File::Copy 'copy';
use MsgsysTest;
use Test::More;
use Time::HiRes qw(time);

use constant RATE => 200;
my $messages = $ENV{FAILOVER_MESSAGES} // 1000;    # that each stretch of time has at least
my ($bootstrap) = kafka_start();
my %settings = ('max_connections' => 100, 'msgsys.kafka_brokers' => $bootstrap, 'wal_keep_size' => '256MB');
my @table;

my @loads;    # kept, lest one ends before its server does

# A client that creates RATE messages a second, of payloads that no other message has, until its server ends or it is told to stop.
sub load_start
{
	my ($node, $topic) = @_;
	my $load = session($node);
	my ($rate, $name) = (RATE, $node->name . time);
	$load->send(qq{DO \$\$ DECLARE began timestamptz = clock_timestamp(); BEGIN FOR n IN 1 .. 1000000 LOOP
		EXIT WHEN pg_try_advisory_lock(1);
		INSERT INTO messages (channel, message_key, payload) VALUES ('$topic', 'key ' || n % 50, to_jsonb('$name ' || n));
		COMMIT;
		PERFORM pg_sleep(extract(epoch FROM began + n * interval '1 s' / $rate - clock_timestamp()));
		END LOOP; PERFORM pg_advisory_unlock(1); END \$\$});
	push @loads, $load;
	return $load;
}

# The lock that a load ends with is held until then.
sub load_allow { my ($node) = @_; my $holder = session($node); $holder->query('SELECT pg_advisory_lock(1)'); push @loads, $holder; return $holder; }

sub counted { my ($node, $more) = @_; return poll_sql($node, 60, "SELECT count(*) >= $more FROM messages"); }

sub count_of { my ($node) = @_; return $node->safe_psql('postgres', 'SELECT count(*) FROM messages'); }

# primary(NAME, settings…): one with a channel of that name
sub primary
{
	my ($name, %more) = @_;
	my $node = new_node($name, %settings, %more);
	kafka_create_topic($bootstrap, $name, 4);
	$node->safe_psql('postgres', "SELECT msg_channel_set('$name', topic => '$name')");
	ok(wait_workers($node), "$name: workers run");
	return $node;
}

sub standby_of
{
	my ($primary, $name, @conf) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);
	$primary->backup($name);
	$standby->init_from_backup($primary, $name, has_streaming => 1);
	$standby->append_conf('postgresql.conf', "$_\n") for @conf;
	$standby->start;
	return $standby;
}

# recovery(NODE, TOPIC, SINCE): how long after that moment a message that was created on a server as soon as that went was sent, in s
sub recovery
{
	my ($node, $topic, $since) = @_;
	my $id;
	my $got = poll_until(60, sub {
		my ($code, $out) = eval { $node->psql('postgres', "SELECT msg_create(to_jsonb('first of $topic ' || clock_timestamp()), '$topic')") };
		$id = $out;
		return defined $code && $code == 0;
	});
	return 'never' unless $got && poll_sql($node, 60, "SELECT sent_at IS NOT NULL FROM messages WHERE id = $id");
	return sprintf '%.2f s', $node->safe_psql('postgres', "SELECT extract(epoch FROM sent_at) - $since FROM messages WHERE id = $id");
}

# judge(NAME, NODE, TOPIC, RECOVERY, LOST_TAIL): what Kafka has of the messages of a server that goes on
sub judge
{
	my ($name, $node, $topic, $took, $tail) = @_;
	my (%payload, %records, %last);
	my %c = map { $_ => 0 } qw(rows lost repeated renamed double reordered others);
	ok(poll_sql($node, 120, q{SELECT count(*) FROM messages WHERE status <> 'received'}, 0), "$name: all are received")
	  or diag($node->safe_psql('postgres', 'SELECT status, epoch, attempts, last_error, count(*) FROM messages GROUP BY 1, 2, 3, 4; SELECT * FROM msg_workers'));
	is($node->safe_psql('postgres', q{SELECT count(*) FROM messages WHERE last_error IS NOT NULL}), 0, "$name: by their records");
	my %row = map { my ($of, $id, $key, $text) = split /\|/, $_, 4; ("$of:$id" => { id => $id, key => $key, payload => $text }) } split /\n/,
	  $node->safe_psql('postgres', 'SELECT n.uuid, m.id, m.message_key, m.payload FROM messages m JOIN msg_names n USING (epoch)');
	for my $record (read_topic($bootstrap, $topic))
	{
		my $of = $record->{headers}{ce_id};
		my $row = $row{$of};
		$payload{$of}{ $record->{value} } = 1;
		$c{others}++ unless $row;
		if ($records{$of}++) { $c{repeated}++ if $row; next; }
		next if !$row || $row->{key} eq '';
		my $last = \$last{"$record->{partition} $row->{key}"};
		$c{reordered}++ if ($$last // 0) > $row->{id};
		$$last = $row->{id} if ($$last // 0) < $row->{id};
	}
	for my $of (keys %row)
	{
		$c{rows}++;
		$c{lost}++ unless $payload{$of}{ $row{$of}{payload} };
	}
	$c{double} = grep { keys %$_ > 1 } values %payload;
	is("$c{lost} $c{double} $c{reordered}", '0 0 0', "$name: every message is in Kafka, no name has two payloads, keys are in order");
	push @table, [ $name, $c{rows}, $tail, @c{qw(lost double reordered repeated others)}, $took ];
	note('| ' . join(' | ', @{ $table[-1] }) . ' |');
	return \%c;
}

# ---- a standby that applies late
my $primary = primary('late');
my $standby = standby_of($primary, 'late_standby', "recovery_min_apply_delay = '10s'");
my $held = load_allow($primary);
load_start($primary, 'late');
counted($primary, $messages);
$primary->poll_query_until('postgres', 'SELECT pg_current_wal_lsn() - flush_lsn < 100000 FROM pg_stat_replication');
my ($there, $applied) = (count_of($primary), count_of($standby));
cmp_ok($there - $applied, '>=', $messages / 2, "a standby has not applied the latest $there - $applied messages");
$primary->kill9;
my $since = time;
$standby->promote;
my $took = recovery($standby, 'late', $since);
my $kept = count_of($standby);
cmp_ok($kept, '>=', $there - 100, 'promoted, it applies what it has first');
judge('standby that applies 10 s late, primary killed', $standby, 'late', $took, 0);
$standby->stop;

# ---- a standby that was cut off
$primary = primary('cut');
$standby = standby_of($primary, 'cut_standby');
$held = load_allow($primary);
load_start($primary, 'cut');
counted($primary, $messages);
$standby->safe_psql('postgres', q{ALTER SYSTEM SET primary_conninfo = ''});
$standby->reload;
poll_until(30, sub { $standby->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_wal_receiver') == 0 });
$there = count_of($standby);
counted($primary, $there + $messages);
my $sent = $primary->safe_psql('postgres', q{SELECT count(*) FROM messages WHERE status <> 'idle'});
$primary->stop('immediate');
$since = time;
$standby->promote;
$took = recovery($standby, 'cut', $since);
my $tail = $sent - count_of($standby);
cmp_ok($tail, '>', $messages / 2, "a tail of $tail messages is lost");
$held = load_allow($standby);
my $load = load_start($standby, 'cut');
counted($standby, count_of($standby) + $messages);
$held->stop;
$load->answer;
judge('standby that was cut off, primary killed', $standby, 'cut', $took, $tail);

# ---- the old primary is made a standby of the new one by pg_rewind, and promoted; then the other way round
sub rewind
{
	my ($old, $new) = @_;
	my $conf = $old->data_dir . '/postgresql.conf';
	my $kept = tempdir() . '/postgresql.conf';
	copy($conf, $kept) or die;
	$new->safe_psql('postgres', 'CHECKPOINT');
	command_ok([ 'pg_rewind', '--no-sync', '--source-server', $new->connstr('postgres'), '--target-pgdata', $old->data_dir ], 'pg_rewind');
	copy($kept, $conf) or die;
	unlink $old->data_dir . '/postgresql.auto.conf';
	$old->append_conf('postgresql.conf', "primary_conninfo = '" . $new->connstr . "'\n");
	$old->set_standby_mode;
	$old->start;
	$new->wait_for_catchup($old);
	return;
}
for my $round (1 .. 2)
{
	rewind($primary, $standby);
	$held = load_allow($standby);
	load_start($standby, 'cut');
	counted($standby, count_of($standby) + $messages);
	$standby->stop('immediate');
	$since = time;
	$primary->promote;
	$took = recovery($primary, 'cut', $since);
	$held = load_allow($primary);
	$load = load_start($primary, 'cut');
	counted($primary, count_of($primary) + $messages);
	$held->stop;
	$load->answer;
	judge('pg_rewind of the old primary, promoted' . ($round > 1 ? ' again' : ''), $primary, 'cut', $took, 0);
	($primary, $standby) = ($standby, $primary);
}
$standby->stop;

# ---- restored to a moment before
my $archive = tempdir();
$primary = primary('restored', archive_mode => 'on', archive_command => qq{cp "%p" "$archive/%f"});
$held = load_allow($primary);
$load = load_start($primary, 'restored');
counted($primary, $messages);
$primary->backup('base');
counted($primary, 2 * $messages);
my $moment = $primary->safe_psql('postgres', 'SELECT clock_timestamp()');
counted($primary, 3 * $messages);
$held->stop;
$load->answer;
$tail = $primary->safe_psql('postgres', "SELECT count(*) FROM messages WHERE created_at > '$moment' AND sent_at IS NOT NULL");
my $file = $primary->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
poll_until(30, sub { -e "$archive/$file" }) or diag("no $file in the archive");
$primary->stop('immediate');
my $restored = PostgreSQL::Test::Cluster->new('restored_in_time');
$restored->init_from_backup($primary, 'base');
$restored->append_conf('postgresql.conf', qq{archive_mode = off\nrestore_command = 'cp "$archive/%f" "%p"'\nrecovery_target_time = '$moment'\nrecovery_target_action = 'promote'\n});
$restored->set_recovery_mode;
$since = time;
$restored->start;
$took = recovery($restored, 'restored', $since);
cmp_ok(count_of($restored), '<', 2 * $messages + 200, 'restored without what came later');
$held = load_allow($restored);
$load = load_start($restored, 'restored');
counted($restored, count_of($restored) + $messages);
$held->stop;
$load->answer;
judge('restored to a moment before', $restored, 'restored', $took, $tail);
$restored->stop;

# ---- two primaries
$primary = primary('split');
$standby = standby_of($primary, 'split_standby');
$held = load_allow($primary);
$load = load_start($primary, 'split');
counted($primary, $messages);
$since = time;
$standby->promote;
$took = recovery($standby, 'split', $since);
my $other_held = load_allow($standby);
my $other = load_start($standby, 'split');
counted($standby, count_of($standby) + $messages);
counted($primary, count_of($primary) + $messages);
for ($held, $other_held) { $_->stop; }
for ($load, $other) { $_->answer; }
judge('two primaries: the promoted one', $standby, 'split', $took, 0);
judge('two primaries: the old one', $primary, 'split', '-', 0);
my $uuid = 'SELECT uuid FROM msg_installation';
isnt($standby->safe_psql('postgres', $uuid), $primary->safe_psql('postgres', $uuid), 'what each creates has names of another uuid');
for my $node ($primary, $standby)
{
	is($node->safe_psql('postgres', q{SELECT count(*) FROM msg_workers WHERE state NOT IN ('idle', 'busy', 'not needed')}), 0, $node->name . ': nothing stops');
	note($node->name . ': ' . $node->safe_psql('postgres', q{SELECT string_agg("check" || ': ' || detail, ' ') FROM msg_check()}));
}
$standby->stop;
$primary->stop;

note('| fault | rows of the server that goes on | sent of a lost tail | lost | names with two payloads | out of order | repeated | records of others | recovery |');
note('|---|---|---|---|---|---|---|---|---|');
note('| ' . join(' | ', @$_) . ' |') for @table;
done_testing();
