# The model: random histories (History.pm) of clients, operators, endpoints and faults, played against a server (Player.pm), which
# says what was promised and is not so. First come those that have failed before (histories/), then fresh ones for MODEL_SECONDS (60).
# MODEL_SEED is the first seed of a run without the former, MODEL_SEEDS a list to play alone, MODEL_HISTORIES files to play alone.
# A history that fails is made shorter, and printed; it goes into histories/ once what it found is mended. With MODEL_FIRST the
# run has no kept histories, and ends with its first finding (test/tools/mutants). With MODEL_LONG, histories are long ones (Long.pm),
# and those that have failed are in histories-long/.
use strict;
use warnings;
use lib 'test/lib', 'test/model';
use History qw(describe read_history write_history);
use Long;
use MsgsysTest;
use Occurrence qw(generated too_rare);
use Player;
use Sink;
use Test::More;
use Time::HiRes 'time';

my $long    = $ENV{MODEL_LONG};
my $kind    = $long ? 'Long' : 'History';
my ($generate, @operations) = ($kind->can('generate'), $kind->can('operations')->());
my $files   = $ENV{MODEL_HISTORIES} || '';
my $only    = $ENV{MODEL_SEEDS}     || $files;
my $first   = $ENV{MODEL_FIRST};
my $seconds = $only ? 0 : $ENV{MODEL_SECONDS} || 60;
my $seed    = $ENV{MODEL_SEED} || int(time) % 1_000_000;
my $many    = $long ? 100 : 1000;    # histories of which each operation must occur in a share
my @rare    = too_rare(generated($generate, $many), $many, @operations);
ok(!@rare, "each operation is in enough of $many histories") or diag("too rare: @rare");

# histories(): those to be played before fresh ones
sub histories
{
	return map { read_history($_) } split /[ ,]+/, $files if $files;
	return map { $generate->($_) } split /[ ,]+/, $only      if $only;
	return $ENV{MODEL_SEED} || $first ? () : map { read_history($_) } sort glob 'test/model/histories' . ($long ? '-long' : '') . '/*.json';
}
my @histories = histories();

my ($bootstrap, $dir) = kafka_start("$ENV{MSGSYS_RUN}/kafka-$$", 'auto.create.topics.enable=false');
my $sink = Sink->new;
my $node = new_node('model', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.webhook_allow' => '127.0.0.1', 'restart_after_crash' => 'on',
	'msgsys.sweep_interval' => '1s', 'msgsys.poll_interval' => '500ms', 'fsync' => 'off', 'msgsys.log_batch' => -1, 'extension' => 0, $long ? Long::settings() : ());
# the model's own trigger; ends are judged after each history
expect_findings('foreign-trigger' => 'logs statuses', 'nobody' => 'channels that lead nowhere keep their messages');
my $player = ($long ? 'Long' : 'Player')->new(node => $node, bootstrap => $bootstrap, kafka => $dir, sink => $sink, patience => $long ? 60 : 20);
ok(wait_workers($node), 'workers run');

my ($run, $findings, $played, %did, %seen_kinds) = (0, 0, 0);

sub play
{
	my ($history) = @_;
	return $player->play($history, ++$run) unless $first;
	# a mutant may leave the server so that the model cannot go on
	my @found = eval { $player->play($history, ++$run) };
	return $@ ? [ 'the model died', $@ ] : @found;
}

# Leave out steps for as long as the same kind of finding remains, within a time.
sub shrink
{
	my ($history, $kind) = @_;
	my $until = time + ($ENV{MODEL_SHRINK} // ($long ? 600 : 60));
	my @steps = @{ $history->{steps} };
	for (my $size = int(@steps / 2); $size >= 1 && time < $until; $size = int($size / 2))
	{
		for (my $at = 0; $at < @steps && time < $until;)
		{
			my @fewer = @steps;
			splice @fewer, $at, $size;
			if (@fewer && grep { $_->[0] eq $kind } play({ %$history, steps => \@fewer })) { @steps = @fewer; }
			else { $at += $size; }
		}
	}
	return { %$history, steps => \@steps };
}

my $start = time;
my $end;    # once the kept ones are played
while (@histories || $seconds && time < ($end //= time + $seconds))
{
	my $history = @histories ? shift @histories : $generate->($seed++);
	$played++;
	my $began = time;
	my @found = play($history);
	$did{$_}++ for keys %{ $player->{h}{effects} };
	note(sprintf 'seed %d: %d steps, %.0f s, %s', $history->{seed}, scalar @{ $history->{steps} }, time - $began, @found ? 'FOUND' : 'well') if $long;
	next unless @found;
	$findings += @found;
	fail("seed $history->{seed}");
	diag(describe($history));
	diag("  $_->[0]: $_->[1]") for @found;
	if ($first)
	{
		diag(sprintf('found after %.0f s by seed %s: %s', time - $start, $history->{seed}, $found[0][0]));
		last;
	}
	# once each kind: the rest are often its brothers
	next if $seen_kinds{ $found[0][0] }++ || ($ENV{MODEL_SHRINK} // 1) == 0;
	diag('shorter: ' . write_history(shrink({ %$history, found => "$found[0][0]: $found[0][1]" }, $found[0][0])));
}
cmp_ok($played, '>', 0, "$played histories");
if ($played >= 100)
{
	note('had something to do in so many of them: ' . join ', ', map { "$_ " . ($did{$_} // 0) } sort { ($did{$a} // 0) <=> ($did{$b} // 0) } @operations);
}
if ($played >= $many)
{
	@rare = too_rare(\%did, $played, @operations);
	ok(!@rare, 'each operation had something to do in enough of them') or diag("too rare: @rare");
}
note(join ', ', map { "$player->{total}{$_} $_" } sort keys %{ $player->{total} });
$sink->stop;
$player->{node}->stop;
ok($findings == 0, 'no findings');
diag("model: $played histories, $findings findings");
done_testing();
