# Long.pm: long histories: the steps of short ones (History.pm), and between them what befalls servers and brokers: restarts,
# promotion, restore in time, topics that lose their records, a full disk, a storm of clients. A Player that knows what each
# of these may repeat or lose: exactly what was committed after the point that a promoted or restored server comes from.
#
# After that, ids are given again. So here a message goes by its name (uuid:id), and one that is gone by the same fault is judged by
# itself: no row has its name, nothing is sent under it any more, and no record of it counts for another message.
package Long;

use strict;
use warnings;
use Cwd 'abs_path';
use History;
use MsgsysTest;
use Player;
use Time::HiRes qw(time sleep);

our @ISA = ('Player');

# The faults of which a history has some, and what has to come some time before one.
my @faults = qw(restart_fast restart_immediate kill_postmaster promote restore_in_time restart_kafka kill_kafka remake_topic
  remove_records disk_full storm);
my %before = (promote => 'make_standby', restore_in_time => 'restore_point');
my %changes = map { ($_ => 1) } qw(change_ack change_topic take_topic set_webhook drop_webhook drop_channel);
my %after  = (promote => 'ack_gone', restore_in_time => 'ack_gone');

# What short histories have and long ones have not: it is here in earnest, or takes back what the model has to know.
my %short = map { ($_ => 1) } qw(reuse_ids far_ids lost_tail trim make_topic flood);

sub operations { return (grep({ !$short{$_} } History::operations()), sort(@faults, values %before), 'ack_gone'); }

# generate(SEED): the steps of three short histories, in five to seven parts with a fault each.
sub generate
{
	my ($seed) = @_;
	my $random = History::_random($seed * 104_729 + 3);
	$random->(2) for 1 .. 5;
	my $numbers = sub { map { $random->(1 << 16) } 1 .. 6 };
	my @short   = map { History::generate($seed * 31 + $_) } 0 .. 2;
	# of a channel that changes little can be said: two of three changes are left out
	my @steps   = grep { !$short{ $_->[0] } && (!$changes{ $_->[0] } || $random->(3) == 0) } map { @{ $_->{steps} } } @short;
	my @bag     = @faults;
	my @chosen  = map { splice @bag, $random->(scalar @bag), 1 } 1 .. 5 + $random->(3);
	my $part    = int(@steps / @chosen);
	my @insert;
	for my $i (0 .. $#chosen)
	{
		my ($fault, $start) = ($chosen[$i], $i * $part);
		# every third one begins before the fault that comes before
		my $early = $i && $random->(3) == 0 ? $start - $random->($part) : $start + $random->(1 + int($part / 4));
		my $late  = $start + int($part / 2) + $random->(int($part / 2));
		push @insert, [ $early, [ $before{$fault}, $numbers->() ] ] if $before{$fault};
		push @insert, [ $late, [ $fault, $numbers->() ] ];
		push @insert, [ $late + 1 + $random->(int($part / 2)), [ $after{$fault}, $numbers->() ] ] if $after{$fault};
	}
	# from behind, so that the places of the others stand
	splice @steps, $_->[0], 0, $_->[1] for sort { $b->[0] <=> $a->[0] } grep { $_->[0] <= @steps } @insert;
	return { seed => $seed, channels => [ grep { !/hasty|missing/ } map { @{ $_->{channels} } } @short[ 0, 1 ] ], steps => \@steps };
}

# ---------------------------------------------------------------- the servers

my $archive;

# What a server of long histories is started with; to be called before that.
sub settings
{
	$archive = tempdir();
	$ENV{LD_PRELOAD} = work_dir() . '/nospace.so';    # for a full disk
	return ('archive_mode' => 'on', 'archive_command' => "cp %p $archive/%f.part && mv $archive/%f.part $archive/%f", 'log_statement' => 'none');
}

# The processes that run in a data directory.
sub processes
{
	my ($node) = @_;
	my $dir = abs_path($node->data_dir);
	return grep { (readlink("/proc/$_/cwd") // '') eq $dir } map { m{(\d+)$} } glob '/proc/[0-9]*';
}

# kill -9 of the postmaster; what it leaves behind has to end by itself.
sub kill_postmaster
{
	my ($self) = @_;
	my $node = $self->{node};
	$node->kill9;
	my $over = poll_until(30, sub { !processes($node) });
	# where nobody waits for it, its number is taken for a while
	unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	return if $over;
	my @left = map { my $pid = $_; open(my $in, '<', "/proc/$pid/cmdline"); "$pid " . (<$in> // '?') } processes($node);
	$self->finding('orphan', "processes outlive the postmaster for 30 s: @left");
	kill 'KILL', processes($node);
	poll_until(10, sub { !processes($node) });
}

sub remove { my ($self, $node) = @_; system('rm', '-rf', $node->basedir) == 0 or die; }

# Clients are back once the server answers.
sub come_back
{
	my ($self) = @_;
	poll_until(60, sub { MsgsysTest::answers($self->{node}) }) or die 'the server does not come back';
	$self->connect;
}

# What happened from a moment until now, and what it may repeat: `crash` what was not marked for good, `kafka` what
# had no answer, `removed` lets records of a topic go, `any` is not known here.
sub event
{
	my ($self, $kind, $from, %more) = @_;
	push @{ $self->{h}{events} }, { kind => $kind, from => $from, since => $from, to => time, %more };
	$self->{h}{did} = 1;
}

my %short_faults = (kill_worker => 'crash', end_worker => 'none', end_launcher => 'none', kafka_hangs => 'kafka', drain => 'crash');

sub step
{
	my ($self, $name, @n) = @_;
	my $h = $self->{h};
	my ($faults, $events, $from) = ($h->{faults}, scalar @{ $h->{events} }, time);
	$self->SUPER::step($name, @n);
	return if $h->{faults} == $faults || @{ $h->{events} } > $events;
	my $did = $h->{did};
	$self->event($short_faults{$name} // 'any', $from, step => $name);
	$h->{did} = $did;
}

sub make_channels
{
	my ($self, $history) = @_;
	my $h = $self->{h};
	# what is repeated is judged here
	$h->{faults} = $h->{hung} = 1;
	$self->{former}{$_} = 1 for split /\n/, $self->must("SELECT n.uuid || ':' || m.id FROM messages m JOIN msg_names n USING (epoch) WHERE m.id IN (" . join(',', @{ $self->{begun} }) . ')');
	@$h{qw(events gone rolled generation stash)} = ([], [], [], {}, {});
	$self->SUPER::make_channels($history);
}

# ---------------------------------------------------------------- names, and what a server comes back to

# Messages know the uuid of their name from the beginning.
sub created
{
	my ($self, $s, $c, $key, $more, @ids) = @_;
	my $h = $self->{h};
	my $n = @{ $h->{messages} };
	$self->SUPER::created($s, $c, $key, $more, @ids);
	my @new = @{ $h->{messages} }[ $n .. $#{ $h->{messages} } ] or return;
	$self->name($s, @new);
}

sub name
{
	my ($self, $s, @new) = @_;
	my $of = join ',', map { $_->{id} } @new;
	my $answer = $self->ask($s, "SELECT m.id, n.uuid FROM messages m JOIN msg_names n USING (epoch) WHERE m.id IN ($of)") // return $self->failed($s);
	my %uuid = map { split /\|/ } split /\n/, $answer;
	$_->{uuid} = $uuid{ $_->{id} } for @new;
	$self->given_again(@new);
}

# A crash takes back how far the sequence was, as long as no transaction had committed what it gave: an id, and the name with it, of one
# that did not come to its commit may be given again. It was nobody's.
sub given_again
{
	my ($self, @new) = @_;
	my $h = $self->{h};
	my %new = map { (name_of($_) => $_) } @new;
	delete $h->{reused}{$_} for keys %new;
	for my $list (@$h{qw(messages rolled)})
	{
		@$list = grep { my $n = $new{ name_of($_) }; !$n || $n == $_ || $_->{t}{state} ne 'lost' } @$list;
	}
}

sub name_of { my ($m) = @_; return ($m->{uuid} // '?') . ":$m->{id}"; }

sub do_prepare
{
	my ($self, $n) = @_;
	my $t = $self->{h}{open}{ $n % 3 };
	$self->SUPER::do_prepare($n);
	$t->{prepared_at} = $self->{h}{step} if $t && $t->{state} eq 'prepared';
}

# What the model knows now, to go back to.
sub mark
{
	my ($self) = @_;
	my $h = $self->{h};
	return { step => $h->{step}, at => time, channels => [ map { [ $_, {%$_} ] } @{ $h->{channels} } ] };
}

# A server runs that has what was committed up to the mark, and nothing that came later.
sub back_to
{
	my ($self, $mark) = @_;
	my $h = $self->{h};
	for (@{ $mark->{channels} })
	{
		# what it has ever been stays known
		my ($c, $was) = @$_;
		my %ever = map { ($_ => $c->{$_}) } qw(was_topic changed failing);
		%$c = (%$was, %ever);
	}
	my @kept;
	for my $m (@{ $h->{messages} })
	{
		my $t = $m->{t};
		my $late = ($t->{at} // 0) > $mark->{step};
		if ($m->{step} > $mark->{step} || ($t->{prepared_at} // 0) > $mark->{step} || ($late && !$t->{prepared_at}))
		{
			push @{ $h->{ $t->{state} eq 'lost' ? 'rolled' : 'gone' } }, $m;
			next;
		}
		# it was prepared then, and is so again
		if ($late) { $t->{state} = 'prepared'; delete $t->{at}; }
		if ($t->{state} eq 'lost') { push @{ $h->{rolled} }, $m; next; }
		push @kept, $m;
	}
	$_->{until} //= time for @{ $h->{gone} };
	$h->{reused}{ name_of($_) } = 1 for @{ $h->{gone} }, @{ $h->{rolled} };
	for (@{ $h->{prepared} })
	{
		my $t = $_->[1];
		$t->{state} = 'gone' if $t->{prepared_at} > $mark->{step};
		# one without messages
		if ($t->{prepared_at} <= $mark->{step} && ($t->{at} // 0) > $mark->{step}) { $t->{state} = 'prepared'; delete $t->{at}; }
	}
	$h->{messages} = \@kept;
}

# Another server is ours from now on.
sub move_to
{
	my ($self, $new, $mark) = @_;
	my $old = $self->{node};
	$self->{node} = $new;
	poll_until(60, sub { answers($new) && $new->safe_psql('postgres', 'SELECT NOT pg_is_in_recovery()') eq 't' }) or die $new->name . ' does not come up';
	$self->back_to($mark);
	$self->forget_copies;
	$self->remove($old);
	$self->connect;
}

# Standbys and backups of a server that is no more are of no use.
sub forget_copies
{
	my ($self) = @_;
	my $h = $self->{h};
	if (my $standby = delete $h->{standby}) { $standby->{node}->stop('immediate'); $self->remove($standby->{node}); }
	if (my $point = delete $h->{point}) { system('rm', '-rf', $point->{backup}); }
}

sub new_server { my ($self) = @_; return PostgreSQL::Test::Cluster->new('model' . ++$self->{servers}); }

# ---------------------------------------------------------------- faults of the server

sub do_restart_fast
{
	my ($self) = @_;
	my $from = time;
	$self->hang_up;
	$self->{node}->restart;
	$self->come_back;
	$self->event('restart', $from);
}

sub do_restart_immediate
{
	my ($self) = @_;
	my $from = time;
	$self->hang_up;
	$self->{node}->stop('immediate');
	$self->{node}->start;
	$self->come_back;
	$self->event('crash', $from);
}

sub do_kill_postmaster
{
	my ($self) = @_;
	my $from = time;
	$self->hang_up;
	$self->kill_postmaster;
	$self->{node}->start;
	$self->come_back;
	$self->event('crash', $from);
}

# A standby, which every other time loses its primary at once, and so will be behind.
sub do_make_standby
{
	my ($self, $lag) = @_;
	my $h = $self->{h};
	return if $h->{standby};
	my $standby = $self->new_server;
	my $name = $standby->name;
	$self->{node}->backup($name);
	$standby->init_from_backup($self->{node}, $name, has_streaming => 1);
	system('rm', '-rf', $self->{node}->backup_dir . "/$name");
	$standby->start;
	$h->{standby} = { node => $standby };
	$h->{did} = 1;
	return unless $lag % 2;
	$self->{node}->wait_for_catchup($standby);
	$standby->safe_psql('postgres', $_) for q{ALTER SYSTEM SET primary_conninfo = ''}, 'SELECT pg_reload_conf()';
	poll_until(30, sub { $standby->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_wal_receiver') eq '0' }) or die 'the standby goes on';
	$h->{standby}{mark} = $self->mark;
}

sub do_promote
{
	my ($self, $how) = @_;
	my $h = $self->{h};
	return unless $h->{standby};
	my ($from, $standby, $mark) = (time, @{ delete $h->{standby} }{qw(node mark)});
	if (!$mark)
	{
		$self->{node}->wait_for_catchup($standby);
		$mark = $self->mark;
	}
	$self->hang_up;
	if ($how % 2) { $self->kill_postmaster; }
	else { $self->{node}->stop('immediate'); }
	$standby->promote;
	$self->move_to($standby, $mark);
	# a standby of it has a primary
	$self->must('ALTER SYSTEM RESET primary_conninfo');
	$self->event('crash', $from, since => $mark->{at});
}

# A base backup, and a point to go back to.
sub do_restore_point
{
	my ($self) = @_;
	my $h = $self->{h};
	return if $h->{point};
	my $name = 'point' . ++$self->{servers};
	$self->{node}->backup($name);
	my $wal = $self->must("SELECT pg_walfile_name(pg_create_restore_point('$name'))");
	$h->{point} = { name => $name, backup => $self->{node}->backup_dir . "/$name", wal => $wal, mark => $self->mark };
}

sub do_restore_in_time
{
	my ($self, $how) = @_;
	my $h = $self->{h};
	my $point = $h->{point} or return;
	my $from = time;
	$self->must('SELECT pg_switch_wal()');
	poll_until(30, sub { -e "$archive/$point->{wal}" }) or die 'the archive does not come';
	$self->hang_up;
	my $new = $self->new_server;
	$new->init_from_backup($self->{node}, $point->{name});
	$self->{node}->stop($how % 2 ? 'fast' : 'immediate');
	$new->append_conf('postgresql.conf', "restore_command = 'cp $archive/%f %p'\nrecovery_target_name = '$point->{name}'\nrecovery_target_action = 'promote'\n");
	$new->append_conf('recovery.signal', '');
	$new->start;
	$self->move_to($new, $point->{mark});
	# a standby of it recovers without
	$new->append_conf('postgresql.conf', "restore_command = ''\nrecovery_target_name = ''\n");
	$self->event('crash', $from, since => $point->{mark}{at});
}

# No table or index grows. What is created meanwhile fails, and what was created before may find no room for its marks.
sub do_disk_full
{
	my ($self, @n) = @_;
	my $c = $self->channel($n[0]) or return;
	my $flag = $self->{node}->data_dir . '/nospace';
	my $full = 0;
	my $fill = sub {
		my ($rows, $key) = @_;
		my $ids = $self->ask('auto', "INSERT INTO messages (channel, message_key, payload) SELECT '$c->{name}', '$key', to_jsonb(repeat('x', 500) || g) FROM generate_series(1, $rows) g RETURNING id");
		# the model's names of sessions are those of transactions, too; this one has none
		return $self->created('auto', $c, $key, {}, split /\n/, $ids) if defined $ids;
		$full = 1 if $self->{last_error} =~ /No space left on device/;
	};
	my $log = log_count($self->{node});
	$fill->(40, 'k' . $n[1] % 3);
	open(my $out, '>', $flag) or die;
	for (1 .. 20) { $fill->(100, 'k' . $n[2] % 3) unless $full; }
	# workers meet it as well, if there is anything to be marked that finds no room
	poll_until(1, sub { log_count($self->{node}, 'No space left on device', $log) > 1 });
	unlink $flag or die;
	$self->{total}{'full disks met by workers'}++ if log_count($self->{node}, 'msgsys.*No space left on device', $log);
	$self->{h}{did} = $full;
}

# ---------------------------------------------------------------- clients

# More clients at once than the server takes, some of whom are ended within a transaction.
sub do_storm
{
	my ($self, @n) = @_;
	my $h = $self->{h};
	my $dir = tempdir();
	my @clients;
	for my $i (0 .. 11 + $n[0] % 6)
	{
		my $c = $self->channel($n[1] + $i) or return;
		open(my $script, '>', "$dir/$i") or die;
		for my $j (1 .. 6)
		{
			my $end = ($n[2] + $i + $j) % 5 ? 'COMMIT' : 'ROLLBACK';
			print $script "BEGIN;\nINSERT INTO messages (channel, message_key, payload) SELECT '$c->{name}', 's$i', to_jsonb(g) FROM generate_series(1, 4) g RETURNING id, epoch;\n",
			  $j % 2 ? '' : "SELECT pg_sleep(0.02);\n", "$end;\n\\echo $end\n";
		}
		close $script;
		push @clients, [ $c, "s$i" ];
	}
	for my $i (0 .. $#clients)
	{
		local $ENV{PGAPPNAME} = 'storm';
		open($clients[$i][2], '-|', "exec psql -XAtq -v ON_ERROR_STOP=1 -d '" . $self->{node}->connstr('postgres') . "' -f '$dir/$i' 2>/dev/null") or die;
	}
	$self->auto(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'storm' AND state LIKE '%in transaction%' LIMIT 2});
	my ($refused, %uuid) = (0);
	for (@clients)
	{
		my ($c, $key, $out) = @$_;
		my (@ids, $any);
		my $n = 0;
		# one transaction after the other, each within this step
		my $end = sub {
			my ($state) = @_;
			my $t = { state => $state, at => $h->{step} + $n / 1000, messages => [] };
			for (@ids)
			{
				my ($id, $epoch) = split /\|/;
				my $m = { id => $id, channel => $c, key => $key, t => $t, step => $h->{step} + ($n - 0.5) / 1000, epoch => $epoch };
				push @{ $h->{messages} }, $m;
				push @{ $t->{messages} }, $m;
			}
			@ids = ();
		};
		while (<$out>)
		{
			$any = 1;
			if (/^\d+\|\d+$/) { chomp; push @ids, $_; next; }
			if (/^(COMMIT|ROLLBACK)/) { $n++; $end->($1 eq 'COMMIT' ? 'committed' : 'lost'); }
		}
		close $out;
		$n++;
		# ended within: nobody knows
		$end->('unknown');
		$refused++ unless $any;
	}
	%uuid = map { split /\|/ } split /\n/, $self->must('SELECT epoch, uuid FROM msg_names');
	my @new = grep { $_->{epoch} } @{ $h->{messages} };
	$_->{uuid} = $uuid{ delete $_->{epoch} } for @new;
	$self->given_again(@new);
	$self->{total}{'clients refused'} += $refused;
}

# A consumer acknowledges what it got from a server whose tail is lost.
sub do_ack_gone
{
	my ($self, $n, $o) = @_;
	my @gone = grep { $_->{uuid} } @{ $self->{h}{gone} } or return;
	my $m = $gone[ $n % @gone ];
	$self->{producer}->write(sprintf qq({"id": "%s", "status": "%s"}\n), name_of($m), (qw(received delivered))[ $o % 2 ]);
	$self->{h}{did} = 1;
}

# ---------------------------------------------------------------- faults of Kafka

sub new_producer
{
	my ($self) = @_;
	$self->{producer}->stop;
	$self->{producer} = Program->new('kcat', '-P', '-b', $self->{bootstrap}, '-t', 'msgsys.acks', '-X', 'linger.ms=0');
}

sub kafka_again
{
	my ($self, $how) = @_;
	my $from = time;
	kafka($how, $self->{kafka});
	kafka_start($self->{kafka});
	$self->new_producer;
	$self->event('kafka', $from);
}

sub do_restart_kafka { my ($self) = @_; $self->kafka_again('stop'); }
sub do_kill_kafka    { my ($self) = @_; $self->kafka_again('kill'); }

# A topic that channels have now.
sub topic
{
	my ($self, $n) = @_;
	my %topics = map { ($_->{topic} => 1) } grep { $_->{topic} && !$_->{dropped} } @{ $self->{h}{channels} };
	my @topics = sort keys %topics;
	return @topics ? $topics[ $n % @topics ] : undef;
}

sub do_remake_topic
{
	my ($self, $n, $pause) = @_;
	my $topic = $self->topic($n) or return;
	$self->stash($topic);
	my $from = time;
	kafka_topic($self->{bootstrap}, 'delete', $topic);
	$self->auto(sprintf 'SELECT pg_sleep(%g)', ($pause % 4) / 4);
	# it may be there again already, for a producer has asked for it
	my $made = "'" . work_dir() . "/topic' $self->{bootstrap} create $topic 3 2>&1";
	poll_until(30, sub { my $words = `$made`; $? == 0 || $words =~ /already exists/ }) or die "$topic cannot be made again";
	$self->{h}{generation}{$topic}++;
	# judged here (judge_lost)
	$self->{h}{trimmed}{$topic} = 1;
	$self->event('removed', $from, topic => $topic);
}

sub do_remove_records
{
	my ($self, $n) = @_;
	my $topic = $self->topic($n) or return;
	my $any = $self->stash($topic);
	my $from = time;
	kafka_topic($self->{bootstrap}, 'trim', $topic, 3);
	# judged here (judge_lost)
	$self->{h}{trimmed}{$topic} = 1;
	$self->event('removed', $from, topic => $topic);
	$self->{h}{did} = $any;
}

# ---------------------------------------------------------------- the end

# Keep what a topic holds of this history: it may be gone later. Returns how many records there were.
sub stash
{
	my ($self, $topic) = @_;
	my $h = $self->{h};
	my $label = sprintf '%s#%03d', $topic, $h->{generation}{$topic} // 0;
	my $n = 0;
	open(my $pipe, '-|', 'kcat', '-C', '-e', '-q', '-b', $self->{bootstrap}, '-t', $topic, '-o', "s\@$h->{started}", '-X', 'fetch.wait.max.ms=10',
		'-f', '%p %o %T %h\x1f%s\n') or die "kcat: $!";
	while (<$pipe>)
	{
		my ($partition, $offset, $time, $name, $value) = /^(\d+) (\d+) (\d+) .*?ce_id=([0-9a-f-]{36}:\d+).*\x1f(.*)/ or next;
		my ($attempt, $created) = /msgsys-stamp=(\d+)\.(-?\d+)\./;
		$h->{stash}{"$label $partition $offset"} = { topic => $topic, label => $label, partition => $partition, offset => $offset, time => $time / 1000, name => $name, id => $name =~ s/.*://r,
			value => $value, attempt => $attempt // 1, created => $created };
		$n++;
	}
	close $pipe;
	return $n;
}

# Whether records of a topic were removed about then.
sub removed_about
{
	my ($self, $topic, $time) = @_;
	return grep { $_->{kind} eq 'removed' && $_->{topic} eq $topic && $time > $_->{from} - 3 && $time < $_->{to} + 3 } @{ $self->{h}{events} };
}

# As Player has it, and with what topics held before they lost it; a topic that was made anew is another one.
sub all_records
{
	my ($self) = @_;
	my $h = $self->{h};
	my %used;
	$used{$_} = 1 for map { map { ($_, "$_.retry") } keys %{ $_->{was_topic} } } @{ $h->{channels} };
	$self->stash($_) for sort keys %used;
	my %m = map { (name_of($_) => $_) } @{ $h->{messages} };
	$h->{records} = [ sort { $a->{label} cmp $b->{label} || $a->{partition} <=> $b->{partition} || $a->{offset} <=> $b->{offset} } values %{ $h->{stash} } ];
	for my $r (@{ $h->{records} }) { push @{ $m{ $r->{name} }{records} }, $r if $m{ $r->{name} }; }
	my $n = 0;
	# in the moment in which a topic is deleted a later record may pass an earlier one
	return map { { %$_, topic => $self->removed_about($_->{topic}, $_->{time}) ? 'removed ' . $n++ : $_->{label} } } @{ $h->{records} };
}

# What was sent is in Kafka, or was seen there before its topic lost it; what was sent in that moment nobody has seen.
sub judge_lost
{
	my ($self) = @_;
	my $h = $self->{h};
	my %sent = map { split /\|/ } split /\n/, $self->must("SELECT id, extract(epoch FROM sent_at) FROM messages WHERE status IN ('sent', 'received') AND sent_at IS NOT NULL AND channel IN (" . join(',', map { "'$_->{name}'" } @{ $h->{channels} }) . ')');
	for my $m (grep { $_->{t}{state} eq 'committed' && !$_->{records} && $sent{ $_->{id} } && !$_->{channel}{changed} && !grep({ /^ack/ } @{ $_->{acted} // [] }) } @{ $h->{messages} })
	{
		my $topic = $m->{channel}{topic} or next;
		$self->finding('lost', name_of($m) . ' was sent and not in Kafka') unless $self->removed_about($topic, $sent{ $m->{id} });
	}
}

# Those for messages that there are.
sub requests
{
	my ($self) = @_;
	my $h = $self->{h};
	my %m = map { (name_of($_) => $_) } @{ $h->{messages} };
	$h->{requests} = [ sort { $a->{at} <=> $b->{at} } $self->SUPER::requests ];
	for my $r (@{ $h->{requests} }) { push @{ $m{ $r->{id} }{requests} }, $r if $m{ $r->{id} }; }
	return grep { $m{ $_->{id} } } @{ $h->{requests} };
}

sub judge
{
	my ($self, $started) = @_;
	my $h = $self->{h};
	$self->SUPER::judge($started);
	return unless $h->{records} && $h->{requests};
	$self->{total}{gone} += @{ $h->{gone} };
	$self->judge_lost;
	$self->judge_names;
	$self->judge_gone;
	$self->judge_repeats;
	$self->judge_ordered;
}

# A name is of one message, for ever.
sub judge_names
{
	my ($self) = @_;
	my $h = $self->{h};
	my %uuid = map { split /\|/ } split /\n/, $self->must('SELECT m.id, n.uuid FROM messages m JOIN msg_names n USING (epoch) WHERE m.channel IN (' . join(',', map { "'$_->{name}'" } @{ $h->{channels} }) . ')');
	for my $m (grep { $_->{t}{state} eq 'committed' } @{ $h->{messages} })
	{
		$self->finding('name', name_of($m) . " is $uuid{ $m->{id} }:$m->{id} now") if $uuid{ $m->{id} } && $uuid{ $m->{id} } ne ($m->{uuid} // '');
	}
	my (%created, %value, %body);
	for my $r (@{ $h->{records} })
	{
		$self->finding('name', "$r->{name} is of two messages in Kafka") if ($created{ $r->{name} } //= $r->{created} // '') ne ($r->{created} // '') || ($value{ $r->{name} } //= $r->{value}) ne $r->{value};
	}
	for my $r (@{ $h->{requests} })
	{
		$self->finding('name', "$r->{id} is of two messages that were posted") if ($body{ $r->{id} } //= $r->{body}) ne $r->{body};
	}
}

# What a promoted or restored server has not is not there any more, nor sent; and nothing was ever that nobody created.
sub judge_gone
{
	my ($self) = @_;
	my $h = $self->{h};
	my %gone   = map { (name_of($_) => $_) } @{ $h->{gone} };
	my %rolled = map { (name_of($_) => $_) } @{ $h->{rolled} };
	my %known  = map { (name_of($_) => $_) } @{ $h->{messages} };
	my %row    = map { ($_ => 1) } split /\n/, $self->must("SELECT n.uuid || ':' || m.id FROM messages m JOIN msg_names n USING (epoch) WHERE m.channel IN (" . join(',', map { "'$_->{name}'" } @{ $h->{channels} }) . ')');
	for my $name (sort keys %row)
	{
		$self->finding('revived', "$name was lost with its server's tail, and has a row") if $gone{$name};
		$self->finding('invented', "$name was rolled back, and has a row") if $rolled{$name};
	}
	for my $r ((map { { name => $_->{name}, at => $_->{time}, where => 'in Kafka' } } @{ $h->{records} }), (map { { name => $_->{id}, at => $_->{at}, where => 'posted' } } @{ $h->{requests} }))
	{
		my $gone = $gone{ $r->{name} };
		$self->finding('revived', "$r->{name} was lost with its server's tail, and is $r->{where} later") if $gone && $r->{at} > $gone->{until} + 2;
		$self->finding('invented', "$r->{name} was rolled back, and is $r->{where}") if $rolled{ $r->{name} };
		next if $gone || $rolled{ $r->{name} } || $known{ $r->{name} } || $self->{former}{ $r->{name} };
		$self->finding('invented', "$r->{name} is $r->{where}") unless grep { $_->{t}{state} eq 'unknown' } @{ $h->{messages} };
	}
}

# Whether a fault explains that what was sent then was sent again later.
sub explained
{
	my ($self, $m, $then, $later, $topic) = @_;
	my $c = $m->{channel};
	my @events = grep { $then > $_->{since} - 5 && $then < $_->{to} + 1 && $later > $_->{from} - 1 } @{ $self->{h}{events} };
	return 1 if grep { $_->{kind} =~ /kafka|any/ } @events;
	return 0 unless grep { $_->{kind} eq 'crash' } @events;
	# what is to be read back is read back first: but not what is gone, nor where it is forgotten (a pause, and a restart)
	return 1 if !$topic || $c->{changed} || $c->{ack} ne 'readback' || $self->{h}{paused}{ $c->{name} };
	return grep { $_->{kind} eq 'removed' && $_->{topic} eq $topic && $_->{to} > $then } @{ $self->{h}{events} };
}

sub do_pause
{
	my ($self, $n) = @_;
	my $c = $self->channel($n) or return;
	$self->{h}{paused}{ $c->{name} } = 1;
	$self->SUPER::do_pause($n);
}

# What is there twice has a fault that explains it: a record, or a request that nobody counted as an attempt.
sub judge_repeats
{
	my ($self) = @_;
	my $h = $self->{h};
	for my $m (grep { $_->{t}{state} eq 'committed' && !grep { $_ eq 'retry' } @{ $_->{acted} // [] } } @{ $h->{messages} })
	{
		my %by;
		push @{ $by{ $_->{attempt} } }, $_ for @{ $m->{records} // [] };
		for my $attempt (sort keys %by)
		{
			my @r = sort { $a->{time} <=> $b->{time} } @{ $by{$attempt} };
			for my $i (1 .. $#r)
			{
				next if $self->explained($m, $r[ $i - 1 ]{time}, $r[$i]{time}, $r[$i]{topic});
				$self->finding('repeated', sprintf '%s (%s, %s), attempt %d, is in Kafka at %.3f and %.3f', name_of($m), $m->{channel}{kind}, $m->{channel}{ack}, $attempt, $r[ $i - 1 ]{time}, $r[$i]{time});
			}
			$self->{total}{'repeated records'} += $#r;
		}
	}
}

# Of an ordered webhook, a later message of a key comes once the one before it was taken.
sub judge_ordered
{
	my ($self) = @_;
	my %of;
	for my $m (grep { $_->{channel}{ordered} && defined $_->{key} && $_->{t}{state} eq 'committed' && !$_->{scheduled} && !$_->{expires} && !$_->{acted} && !$_->{channel}{changed} } @{ $self->{h}{messages} })
	{
		push @{ $of{"$m->{channel}{name}\0$m->{key}"} }, $m;
	}
	for my $list (values %of)
	{
		my @sorted = sort { $a->{id} <=> $b->{id} } @$list;
		for my $i (0 .. $#sorted - 1)
		{
			my ($first, $then) = @sorted[ $i, $i + 1 ];
			next unless $first->{t} == $then->{t} || ($first->{t}{at} // 1e9) < $then->{step};
			my ($taken) = grep { $_->{code} =~ /^2/ } @{ $first->{requests} // [] };
			next unless $taken && $then->{requests};
			$self->finding('order', name_of($then) . ' was posted before ' . name_of($first) . ' was taken') if $then->{requests}[0]{at} < $taken->{at};
		}
	}
}

sub clean
{
	my ($self) = @_;
	my $h = $self->{h};
	$self->forget_copies;
	$self->{former}{$_} = 1 for map { name_of($_) } @{ $h->{messages} }, @{ $h->{gone} }, @{ $h->{rolled} };
	$self->SUPER::clean;
	unlink glob "$archive/*";
}

1;
