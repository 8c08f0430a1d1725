# The model: random histories (History.pm) of clients, operators, endpoints and faults, played against a server (Player.pm), which
# says what was promised and is not so. First come those that have failed before (seeds), then fresh ones for MODEL_SECONDS (60).
# MODEL_SEED is the first seed of a run without the former, MODEL_SEEDS a list to play alone. A history that fails is made
# shorter, and printed; its seed goes into the file once what it found is mended. With MODEL_LONG, histories are long ones (Long.pm).
use strict;
use warnings;
use lib 'test/lib', 'test/model';
use History 'describe';
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
my $only    = $ENV{MODEL_SEEDS}   || '';
my $seconds = $only ? 0 : $ENV{MODEL_SECONDS} || 60;
my $seed    = $ENV{MODEL_SEED}    || int(time) % 1_000_000;
my @seeds   = split /[ ,]+/, $only;

# Seeds that have failed before, one a line, each with what it found.
sub kept { open(my $in, '<', $long ? 'test/model/seeds-long' : 'test/model/seeds') or die "seeds: $!"; return map { /^(\d+)/ ? $1 : () } <$in> }
@seeds = kept() unless $only || $ENV{MODEL_SEED};
my $many    = $long ? 100 : 1000;    # histories of which each operation must occur in a share
my @rare    = too_rare(generated($generate, $many), $many, @operations);
ok(!@rare, "each operation is in enough of $many histories") or diag("too rare: @rare");

my ($bootstrap, $dir) = kafka_start();
my $sink = Sink->new;
my $node = new_node('model', 'msgsys.kafka_brokers' => $bootstrap, 'msgsys.webhook_allow' => '127.0.0.1', 'restart_after_crash' => 'on',
	'msgsys.sweep_interval' => '1s', 'msgsys.poll_interval' => '500ms', 'fsync' => 'off', 'msgsys.log_batch' => -1, $long ? Long::settings() : ());
ok(wait_workers($node), 'workers run');
# the model's own trigger; ends are judged after each history
expect_findings('foreign-trigger' => 'logs statuses', 'nobody' => 'channels that lead nowhere keep their messages');
my $player = ($long ? 'Long' : 'Player')->new(node => $node, bootstrap => $bootstrap, kafka => $dir, sink => $sink, patience => $long ? 60 : 20);

my ($run, $findings, %played, %seen_kinds) = (0, 0);

sub play
{
	my ($history) = @_;
	return $player->play($history, ++$run);
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

my $end;    # once the kept ones are played
my $histories = 0;
while (@seeds || time < ($end //= time + $seconds))
{
	my $history = $generate->(@seeds ? shift @seeds : $seed++);
	$histories++;
	my $began = time;
	my @found = play($history);
	$played{$_}++ for keys %{ $player->{h}{effects} };
	note(sprintf 'seed %d: %d steps, %.0f s, %s', $history->{seed}, scalar @{ $history->{steps} }, time - $began, @found ? 'FOUND' : 'well') if $long;
	next unless @found;
	$findings += @found;
	fail("seed $history->{seed}");
	diag(describe($history));
	diag("  $_->[0]: $_->[1]") for @found;
	# once each kind: the rest are often its brothers
	next if $seen_kinds{ $found[0][0] }++ || ($ENV{MODEL_SHRINK} // 1) == 0;
	my $shorter = shrink($history, $found[0][0]);
	diag("shorter: " . describe($shorter));
	diag(join ', ', map { "[@$_]" } @{ $shorter->{steps} });
}
cmp_ok($histories, '>', 0, "$histories histories");
if ($histories >= 100)
{
	note('had something to do in so many of them: ' . join ', ', map { "$_ " . ($played{$_} // 0) } sort { ($played{$a} // 0) <=> ($played{$b} // 0) } @operations);
}
if ($histories >= $many)
{
	@rare = too_rare(\%played, $histories, @operations);
	ok(!@rare, 'each operation had something to do in enough of them') or diag("too rare: @rare");
}
note(join ', ', map { "$player->{total}{$_} $_" } sort keys %{ $player->{total} });
$sink->stop;
$player->{node}->stop;
ok($findings == 0, 'no findings');
diag("model: $histories histories, $findings findings");
done_testing();
