# A mailing to clients in twelve zones over two days that the test's clock runs through by the hour, with a crash at its beginning and an
# endpoint that is gone for most of a day: each client of the filter gets exactly one message, within its own window, and nothing comes after the
# end. And mailings that begin, change, close and end by the second. With SOAK=1 there are 100,000 clients, else fewer.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;
use Time::HiRes 'time';

expect_findings('sequence: {public.msg_clients}' => 'clients have ids of their own');

my $clients = $ENV{SOAK} ? 100_000 : 24_000;
my $kafka = kafka_start_later("$ENV{MSGSYS_RUN}/kafka-$$");
my $sink = Sink->new;
# no look at the clock but those that are called for
my $node = new_node('mailing', 'msgsys.webhook_allow' => '127.0.0.1', 'msgsys.poll_interval' => '1h', 'msgsys.sweep_interval' => '1h', 'restart_after_crash' => 'on', 'msgsys.log_batch' => 100);
my $session = session($node);
my $work = q{SELECT count(*) FROM msg_workers WHERE state IN ('idle', 'not needed') AND stage IN ('scheduler', 'webhook')};
ok(poll_sql($node, 20, $work, 2), 'workers run');
$session->query("SET client_min_messages = error; SELECT msg_channel_set('$_', max_attempts => 100) FROM msg_now()") for qw(m slow line);
sub endpoint { $session->query("SELECT msg_webhook_set('$_[0]', '$_[1]', retry_schedule => '{1 s}', breaker_pause => '100 ms', breaker_pause_max => '500 ms'" . ($_[2] // '') . ')'); return; }
my $gone = 'http://127.0.0.1:9/';    # nobody listens there

my @offsets;    # [real time, offset of the clock from then on]

# set the clock, and wait until all have it
sub set_clock
{
	my ($offset) = @_;
	$node->append_conf('postgresql.conf', "msgsys.clock_offset = $offset\n");
	push @offsets, [ time, $offset ];
	$node->reload;
	poll_until(10, sub { $session->query('SHOW msgsys.clock_offset') =~ /^(\S+)/ && $session->query("SELECT setting = '$offset' FROM pg_settings WHERE name = 'msgsys.clock_offset'") eq 't' })
	  || die 'the clock cannot be set';
	return;
}

# the time of the clock at a real time
sub virtual
{
	my ($at) = @_;
	my ($last) = grep { $_->[0] <= $at } reverse @offsets;
	return $at + ($last ? $last->[1] : 0);
}

# requests of a mailing that were taken, as [client, time by the clock]; there are too many to parse all that is said of each
sub taken
{
	my ($mailing) = @_;
	my @taken;
	open(my $log, '<', $sink->{log}) or die "no log: $!";
	while (my $line = <$log>)
	{
		next unless $line =~ /mailing_id\\": $mailing\b/ && $line =~ /"code":"?200\b/;
		my ($client) = $line =~ /client_id\\": (\d+)/;
		my ($at) = $line =~ /"at":"?([\d.]+)/;
		push @taken, [ $client, virtual($at) ];
	}
	return @taken;
}

# ---- twelve zones, two days
my $midday = 1806148800;    # 2027-03-27 12:00 UTC; the next night clocks in Europe are put forward
set_clock($midday - int(time));
endpoint('m', $sink->url('/ok'));
my @zones = ('Pacific/Kiritimati', 'Australia/Sydney', 'Asia/Tokyo', '+05:30', 'Asia/Kathmandu', 'Europe/Moscow', 'Europe/Berlin', 'Europe/London',
	'America/Sao_Paulo', 'America/New_York', 'America/Los_Angeles', 'Etc/GMT+12');
$session->query("INSERT INTO msg_clients (id, phone, tag, time_zone, attributes) SELECT g, '+7' || 9000000000 + g, CASE WHEN g % 10 = 0 THEN 'no' ELSE 'yes' END,
	(ARRAY['" . join("','", @zones) . "'])[g % 12 + 1], jsonb_build_object('name', 'N' || g) FROM generate_series(1, $clients) g");
my $mailing = $session->query("SELECT msg_mailing_create('Dear {name}', '2027-03-29 12:00Z', '2027-03-27 13:00Z', 'm', tags => '{yes}', window_from => '09:00', window_to => '12:00')");
my $expected = $session->query("SELECT count(*) FROM msg_clients WHERE tag = 'yes'");

# the scheduler is killed as soon as it has begun, and the server with it; nothing is sent meanwhile, for what is under way in a crash is sent twice
$session->query(q{SELECT msg_pause('m')});
set_clock($midday + 3600 - int(time));
ok(poll_until(20, sub { $session->query("SELECT next_client > 0 FROM msg_mailings WHERE id = $mailing") eq 't' }), 'it has begun');
my $pid = worker_pid($node, 'scheduler');
kill 'KILL', $pid;
ok(poll_until(30, sub { eval { $node->safe_psql('postgres', $work) eq '2' } }), 'the server has crashed, and is back');
$session = session($node);
$session->query('SET client_min_messages = error');
ok(poll_sql($node, 60, "SELECT status FROM msg_mailings WHERE id = $mailing", 'expanded'), 'all have their messages');
is($session->query("SELECT count(*) || ' ' || count(DISTINCT client_id) || ' ' || (SELECT count(*) FROM messages WHERE channel = 'm') FROM msg_mailing_links"), "$expected $expected $expected", 'each one');

$session->query(q{SELECT msg_resume('m')});

# hour by hour; from hour 9 to hour 23 nobody is at home
my $waits = "SELECT count(*) FROM messages WHERE channel = 'm' AND (status = 'idle' OR status IN ('scheduled', 'retry') AND due_at <= msg_now())";
my $stuck = 0;
note(sprintf('%.1f s: the hours begin', time - $^T));
for my $hour (2 .. 48)
{
	endpoint('m', $gone) if $hour == 9;
	endpoint('m', $sink->url('/ok')) if $hour == 23;
	set_clock($midday + 3600 * $hour - int(time));
	if ($hour >= 9 && $hour < 23)
	{
		poll_until(1, sub { $session->query($waits) == 0 }) || $stuck++;
		next;
	}
	poll_until(60, sub { $session->query($waits) == 0 }) || diag("hour $hour: " . $session->query($waits) . ' still wait');
}
note(sprintf('%.1f s: they are over', time - $^T));
cmp_ok($stuck, '>', 5, "the outage was one: in $stuck of its hours messages waited");
ok(poll_sql($node, 20, "SELECT status FROM msg_mailings WHERE id = $mailing", 'finished'), 'it is over');
is($session->query("SELECT clients || ' ' || delivered || ' ' || left_out FROM msg_mailing_stats($mailing)"), "$expected $expected 0", "all $expected are delivered")
  || diag($session->query("SELECT s FROM msg_mailing_stats($mailing) s"));
my @taken = taken($mailing);
my %times;
$times{ $_->[0] }++ for @taken;
is(scalar(keys %times), $expected, 'each client got it');
is(scalar(grep { $_ > 1 } values %times), 0, 'once');
is(scalar(grep { $_ % 10 == 0 } keys %times), 0, 'nobody else');
# by PostgreSQL's own idea of local time
$session->query('CREATE TABLE taken (client_id bigint, at timestamptz)');
while (my @some = splice @taken, 0, 5000)
{
	$session->query('INSERT INTO taken SELECT c, to_timestamp(t) FROM (VALUES ' . join(',', map { "($_->[0], $_->[1])" } @some) . ') v(c, t)');
}
my $outside = q{FROM taken t JOIN msg_clients c ON c.id = t.client_id, LATERAL (SELECT (t.at AT TIME ZONE CASE c.time_zone WHEN '+05:30' THEN 'Asia/Kolkata' ELSE c.time_zone END)::time AS l) l
	WHERE l NOT BETWEEN '09:00' AND '12:00:01'};
is($session->query("SELECT count(*) $outside"), 0, 'within the window, by the clock of its zone') || diag($session->query("SELECT c.time_zone, l, count(*) $outside GROUP BY 1, 2 LIMIT 10"));
cmp_ok($session->query(q{SELECT count(DISTINCT t.at::date) FROM taken t JOIN msg_clients c ON c.id = t.client_id}), '>', 1, 'over more than one day');
is($session->query(q{SELECT max(at) < '2027-03-29 12:00Z' FROM taken}), 't', 'before the end');
is($session->query("SELECT sum(delivered) FROM generate_series(date '2027-03-27', '2027-03-29', '1 day') d, msg_daily_report(d::date)"), $expected, 'the daily reports add up');

# ---- it begins by itself
my $start = time + 1.5;
my $second = $session->query("SELECT msg_mailing_create('x', msg_now() + interval '1 day', msg_now() + interval '1.5 s', 'm', tags => '{no}')");
ok(poll_sql($node, 10, "SELECT status FROM msg_mailings WHERE id = $second", 'expanded'), 'a mailing begins when its time has come');
my $began = $session->query("SELECT extract(epoch FROM min(created_at)) FROM messages m JOIN msg_mailing_links l ON l.message_id = m.id WHERE l.mailing_id = $second");
cmp_ok(abs($began - $start), '<', 0.5 * slowness(), sprintf('within %.0f ms', ($began - $start) * 1000));

# ---- a window that closes, and one after it; what is under way then goes on the next day, not before
set_clock($midday + 86400 * 3 - int(time));
endpoint('slow', $sink->url('/ok'), ', rate => 150, concurrency => 4');
$session->query("UPDATE msg_clients SET tag = 'slow', time_zone = 'UTC' WHERE id <= 1500");
# local times of the day in seconds: 5 s from now, for 3 s
my ($from, $to) = split /\|/, $session->query("SELECT (t + interval '3 s')::time(0), (t + interval '6 s')::time(0) FROM (SELECT msg_now() AS t) n");
my $third = $session->query("SELECT msg_mailing_create('x', msg_now() + interval '30 h', channel => 'slow', tags => '{slow}', window_from => '$from', window_to => '$to')");
sub closes { return $session->query("SELECT extract(epoch FROM min(expires_at)) FROM msg_mailing_log WHERE mailing_id = $third AND status IN ('idle', 'scheduled', 'retry')"); }
ok(poll_until(20, sub { $session->query("SELECT delivered FROM msg_mailing_stats($third)") > 100 }), 'a window opens');
ok(poll_sql($node, 20, "SELECT count(*) FROM msg_mailing_log WHERE mailing_id = $third AND due_at <= msg_now() AND status <> 'delivered'", 0), 'and closes');
my $first_day = $session->query("SELECT delivered FROM msg_mailing_stats($third)");
cmp_ok($first_day, '<', 1200, "$first_day of 1,500 were sent");
is($session->query("SELECT scheduled + idle + retry FROM msg_mailing_stats($third)"), 1500 - $first_day, 'the others wait');
is($session->query("SELECT count(DISTINCT due_at) FROM msg_mailing_log WHERE mailing_id = $third AND status <> 'delivered' AND due_at::time = '$from' AND expires_at::time = '$to' AND due_at > msg_now()"),
	1, 'for the window of the next day');
is($session->query("SELECT expired FROM msg_mailing_stats($third)"), 0, 'none has expired');
set_clock($offsets[-1][1] + 86400 - 20);
ok(poll_until(40, sub { $session->query("SELECT delivered FROM msg_mailing_stats($third)") > $first_day + 100 }), 'the next day it opens again');
ok(poll_sql($node, 20, "SELECT count(*) FROM msg_mailing_log WHERE mailing_id = $third AND (due_at <= msg_now() OR due_at IS NULL) AND status NOT IN ('delivered', 'expired')", 0), 'and closes');
is($session->query("SELECT delivered + expired FROM msg_mailing_stats($third)"), 1500, 'what is left expires, for the mailing ends before the next one');
my ($from_s, $to_s) = map { my ($h, $m, $s) = split /:/; $h * 3600 + $m * 60 + $s } $from, $to;
my @late = grep { my $s = $_->[1] - int($_->[1] / 86400) * 86400; $s < $from_s - 0.05 || $s > $to_s + 0.2 } taken($third);
is(scalar @late, 0, 'nothing came outside the windows') || diag(map { "$_->[0]: $_->[1]\n" } @late[ 0 .. ($#late > 5 ? 5 : $#late) ]);
is(scalar(taken($third)), $session->query("SELECT delivered FROM msg_mailing_stats($third)"), 'and each once');

# ---- the end
my $fourth = $session->query("SELECT msg_mailing_create('x', msg_now() + interval '2 s', channel => 'slow', tags => '{slow}')");
my $end = virtual(time) + 2;
ok(poll_sql($node, 20, "SELECT delivered > 0 AND delivered + expired = 1500 FROM msg_mailing_stats($fourth)"), 'a mailing ends: what was not sent has expired')
  || diag($session->query("SELECT s FROM msg_mailing_stats($fourth) s"));
is(scalar(grep { $_->[1] > $end + 0.2 } taken($fourth)), 0, 'nothing came after the end');

# ---- cancelled while it is sent, as the workers' own role
$session->query("CREATE ROLE posters LOGIN; SELECT msg_grant('posters', 'worker')");
$node->append_conf('postgresql.conf', "msgsys.role = posters\n");
$node->reload;
ok(poll_sql($node, 20, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'posters' AND backend_type LIKE 'msgsys %'", 2), 'workers have a role of their own');
my $fifth = $session->query("SELECT msg_mailing_create('x', msg_now() + interval '1 h', channel => 'slow', tags => '{slow}')");
ok(poll_until(20, sub { $session->query("SELECT delivered FROM msg_mailing_stats($fifth)") > 50 }), 'it is being sent');
is($session->query("SELECT (msg_mailing_update($fifth, text => 'y')).status"), 'running', 'changed');
ok(poll_sql($node, 20, "SELECT count(*) > 0 FROM msg_mailing_log WHERE mailing_id = $fifth AND status = 'delivered' AND text = 'y'"), 'the rest is sent as changed');
is($session->query("SELECT msg_mailing_cancel($fifth)"), 't', 'cancelled');
ok(poll_sql($node, 20, "SELECT state = 'cancelled' AND delivered < 1500 AND delivered + cancelled = 1500 FROM msg_mailing_stats($fifth)"), 'the rest is not sent')
  || diag($session->query("SELECT s FROM msg_mailing_stats($fifth) s"));
is($session->query("SELECT msg_mailing_delete($fifth)"), 't', 'deleted');
ok(poll_sql($node, 20, "SELECT count(*) FROM msg_mailing_links WHERE mailing_id = $fifth", 0), 'with its links');

# ---- many that wait are changed, cancelled and forgotten, piece by piece
my $far = $session->query("SELECT msg_mailing_create('x', msg_now() + interval '3 days', channel => 'm', window_from => (msg_now() + interval '1 h 7 min')::time(0), window_to => (msg_now() + interval '1 h 8 min')::time(0))");
ok(poll_sql($node, 60, "SELECT state = 'expanded' AND clients = scheduled AND clients = $clients FROM msg_mailing_stats($far)"), "$clients wait for a window far away");
$session->query("SELECT msg_mailing_update($far, text => 'y {name}', tags => '{yes,slow}') IS NULL");
ok(poll_sql($node, 120, "SELECT state = 'expanded' AND clients = scheduled AND clients < $clients FROM msg_mailing_stats($far)"), 'all are changed');
is($session->query("SELECT count(*) FROM msg_mailing_log g WHERE mailing_id = $far AND text NOT LIKE 'y %'"), 0, 'each one');
$session->query("SELECT msg_mailing_delete($far)");
ok(poll_sql($node, 120, "SELECT count(*) FROM msg_mailings WHERE id = $far", 0), 'all are forgotten');
is($session->query("SELECT count(*) FROM messages WHERE payload ->> 'mailing_id' = '$far' AND status <> 'cancelled'"), 0, 'and cancelled');
open(my $server_log, '<', $node->logfile) or die "no log: $!";
my ($longest) = sort { $b <=> $a } map { /msgsys mailing \d+: .* in (\d+) ms$/ } <$server_log>;
cmp_ok($longest, '<', 2000 * slowness(), "the longest transaction took $longest ms");

# ---- through Kafka: what the relay finds too late waits for the next window too
my $bootstrap = $kafka->();
$node->append_conf('postgresql.conf', "msgsys.kafka_brokers = '$bootstrap'\n");
$node->reload;
$session->query("SELECT msg_channel_set('line', topic => 'line'); SELECT msg_pause('line')");
my $sixth = $session->query("SELECT msg_mailing_create('x', msg_now() + interval '60 h', channel => 'line', tags => '{slow}',
	window_from => (msg_now() - interval '1 h')::time(0), window_to => (msg_now() + interval '1 h')::time(0))");
ok(poll_sql($node, 20, "SELECT idle FROM msg_mailing_stats($sixth)", 1500), 'a window is open, but the channel is paused');
set_clock($offsets[-1][1] + 2 * 3600);
$session->query(q{SELECT msg_resume('line')});
ok(poll_sql($node, 40, "SELECT count(*) FROM msg_mailing_log WHERE mailing_id = $sixth AND status = 'scheduled' AND due_at > msg_now() AND expires_at - due_at = '2 h'", 1500), 'closed, all wait for the next')
  || diag($session->query("SELECT s FROM msg_mailing_stats($sixth) s"));
set_clock($offsets[-1][1] + 21.5 * 3600);
ok(poll_sql($node, 40, "SELECT received FROM msg_mailing_stats($sixth)", 1500), 'which opens') || diag($session->query("SELECT s FROM msg_mailing_stats($sixth) s"));
is(scalar(read_topic($bootstrap, 'line')), 1500, 'each once');
is($session->query("SELECT count(*) FROM msg_workers WHERE stage = 'scheduler' AND last_error IS NOT NULL"), 0, 'no error of the scheduler');
$node->stop;
$sink->stop;
done_testing();
