# Player.pm: plays a history (History.pm) against a server, and knows what was promised. A message is a hash {id, n, channel,
# key, …}; its transaction says whether it was committed, and when, as the number of the step.
package Player;

use strict;
use warnings;
use Cwd 'abs_path';
use File::Basename 'dirname';
use History;
use JSON::PP;
use MsgsysTest;
use Time::HiRes qw(time sleep);

my @sinkmodes = ('ok', 'ok', 'fail/50/ok', 'status/500', 'status/400', 'gone', 'delay/30/ok', 'hang', 'close', 'after/1');
my @topics    = map { "model.$_" } 0 .. 2;
my $hasty     = 'model.hasty';
my $drain_bound = 30;                         # of what a crash may have twice of a drain that is read back
my $far       = 4_000_000_000_000_000_000;    # ids of 19 digits

# Player->new(node, bootstrap, kafka directory, sink): what all histories of a run share.
sub new
{
	my ($class, %o) = @_;
	my $self = bless {%o}, $class;
	my $node = $o{node};
	kafka_create_topic($o{bootstrap}, $_, 3) for map { ($_, "$_.retry", "$_.dlq") } @topics, $hasty;
	kafka_create_topic($o{bootstrap}, 'msgsys.acks', 1);
	$self->begin_installation;
	$node->safe_psql('postgres', q{
		CREATE TABLE model_log (seq bigserial, id bigint, old msg_status, new msg_status);
		CREATE FUNCTION model_log() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
		BEGIN
			INSERT INTO model_log (id, old, new) VALUES (new.id, old.status, new.status);
			RETURN NULL;
		END $$;
		CREATE TRIGGER aa_model AFTER UPDATE ON messages FOR EACH ROW WHEN (old.status IS DISTINCT FROM new.status) EXECUTE FUNCTION model_log();
		ALTER TABLE messages ENABLE ALWAYS TRIGGER aa_model});
	$self->{producer} = Program->new('kcat', '-P', '-b', $o{bootstrap}, '-t', 'msgsys.acks', '-X', 'linger.ms=0');
	$self->{consumer} = Program->new('perl', dirname(abs_path(__FILE__)) . '/consumer', $o{bootstrap}, $hasty, 'msgsys.acks');
	$self->connect;
	return $self;
}

# The extension and its first messages are made in one transaction, and one that began before it creates another: none of these is
# a row that was restored.
sub begin_installation
{
	my ($self) = @_;
	my ($maker, $earlier) = map { session($self->{node}) } 1 .. 2;
	$earlier->query('BEGIN; SELECT now()');
	my $answer = $maker->query(qq{BEGIN; CREATE EXTENSION msgsys; SELECT msg_channel_set('begin', topic => '$topics[0]'); SELECT msg_create('1', 'begin'); COMMIT});
	my @ids = grep { /^\d+$/ } split /\n/, $answer . "\n" . $earlier->query(q{SELECT msg_create('2', 'begin'); COMMIT});
	die "the model cannot begin: " . $maker->error . $earlier->error unless @ids == 2;
	$self->{begun} = \@ids;
	$_->stop for $maker, $earlier;
}

# Sessions of clients, and one for operators that commits each statement.
sub connect
{
	my ($self) = @_;
	for my $s ('auto', 0 .. 2)
	{
		$self->{session}{$s} = session($self->{node});
		$self->{session}{$s}->query("SET lock_timeout = '150ms'");
	}
}

# One query of a session; undef, where it failed.
sub ask
{
	my ($self, $s, $sql, $seconds) = @_;
	my $answer = eval { $self->{session}{$s}->query($sql, $seconds // 20) };
	if (!defined $answer)
	{
		$self->{session}{$s}->stop;
		$self->{session}{$s} = session($self->{node});
		$self->{session}{$s}->query("SET lock_timeout = '150ms'");
		$self->{broken}{$s} = 1;
		return undef;
	}
	my $error = $self->{session}{$s}->error // '';
	if ($error =~ /^(?:psql:\S*\s*)?(ERROR|FATAL|PANIC)/m)
	{
		$self->{last_error} = $error;
		return undef;
	}
	# what was asked for and not done says f, 0 or nothing; but these say nothing at all
	$self->{h}{did} = 1 if $sql !~ /^SELECT/ || $sql =~ /msg_channel_drop|pg_sleep/ || $answer !~ /^[f0]?$/;
	return $answer;
}

sub auto { return $_[0]->ask('auto', $_[1], $_[2]); }

# play(HISTORY, RUN): returns the list of findings, each [kind, words].
sub play
{
	my ($self, $history, $run) = @_;
	my $started = int(time * 1000) - 2000;
	$self->{h} = { run => $run, messages => [], transactions => [], open => {}, prepared => [], channels => [], faults => 0, step => 0,
		started => $started, effects => {}, actions => {}, findings => [], keys => {}, subscribed => 0, trimmed => {}, forged => {}, reused => {}, drains => [] };
	my $h = $self->{h};
	$self->make_channels($history);
	for my $step (@{ $history->{steps} })
	{
		$self->step(@$step);
	}
	$self->settle;
	$self->judge($started);
	$self->judge_beginning if $run == 1;
	$self->clean;
	return @{ $h->{findings} };
}

# One operation; effects says which of them found something to do.
sub step
{
	my ($self, $name, @n) = @_;
	my $h = $self->{h};
	$h->{step}++;
	$h->{did} = 0;
	$self->can("do_$name")->($self, @n);
	$h->{effects}{$name} = 1 if $h->{did};
}

sub finding
{
	my ($self, $kind, $words) = @_;
	push @{ $self->{h}{findings} }, [ $kind, $words ];
}

# ---------------------------------------------------------------- channels

sub make_channels
{
	my ($self, $history) = @_;
	my $n = 0;
	for my $kind (@{ $history->{channels} })
	{
		my %k = %{ $History::kinds{$kind} };
		my $c = { name => "m$self->{h}{run}-$n", kind => $kind, was_topic => {}, changed => 0, %k };
		$c->{ack} //= 'readback';
		$c->{topic} = $k{hasty} ? $hasty : $k{missing} ? $c->{late} = "late.$c->{name}" : $topics[ $n % @topics ] if $k{topic};
		$c->{was_topic}{ $c->{topic} } = 1 if $c->{topic};
		$self->must("SELECT msg_channel_set('$c->{name}', topic => '" . ($c->{topic} // '') . "', ack => '$c->{ack}', retry_base => '10 ms', retry_max => '50 ms', max_attempts => 6)");
		$self->set_webhook($c) if $k{webhook};
		$self->must("SELECT msg_pace_set('$c->{name}', 3, '30 ms')") if $k{pace};
		push @{ $self->{h}{channels} }, $c;
		$n++;
	}
}

sub set_webhook
{
	my ($self, $c) = @_;
	$c->{webhook} = 1;
	return $self->auto("SELECT msg_webhook_set('$c->{name}', '" . $self->{sink}->url("/mode/$c->{name}") . "', ordered => " . ($c->{ordered} ? 'true' : 'false')
		  . ", retry_schedule => '{}', body_template => '{\"attempt\": \"{attempt}\", \"payload\": \"{payload}\"}', timeout => '200 ms', connect_timeout => '200 ms', retry_after_max => '50 ms', breaker_calls => 5, breaker_window => '1 s', breaker_pause => '20 ms', breaker_pause_max => '100 ms')");
}

sub must
{
	my ($self, $sql) = @_;
	my $answer = $self->auto($sql);
	die "the model cannot: $sql\n$self->{last_error}" unless defined $answer;
	return $answer;
}

sub channel
{
	my ($self, $n) = @_;
	my @c = grep { !$_->{dropped} } @{ $self->{h}{channels} };
	return @c ? $c[ $n % @c ] : undef;
}

sub message
{
	my ($self, $n) = @_;
	my @m = @{ $self->{h}{messages} };
	return @m ? $m[ $n % @m ] : undef;
}

# ---------------------------------------------------------------- creating

sub key_of { my ($n) = @_; return $n % 5 == 0 ? undef : 'k' . $n % 3; }

# Enter messages with these ids into the session's transaction, or as committed.
sub created
{
	my ($self, $s, $c, $key, $more, @ids) = @_;
	my $h = $self->{h};
	my $t = $h->{open}{$s} // { state => 'committed', at => $h->{step} };
	for my $id (@ids)
	{
		my $m = { id => $id, channel => $c, key => $key, t => $t, step => $h->{step}, %$more };
		push @{ $h->{messages} }, $m;
		push @{ $t->{messages} }, $m;
	}
}

sub create
{
	my ($self, $n, $more, $options, $payload) = @_;
	my ($s, $c, $key) = ($n->[0] % 3, $self->channel($n->[1]), key_of($n->[2]));
	return unless $c;
	my $arguments = ($key ? ", message_key => '$key'" : '') . ($options // '');
	$payload //= "{\"n\": $n->[3]}";
	my $id = $self->ask($s, "SELECT msg_create('$payload', '$c->{name}'$arguments)");
	return $self->failed($s) unless defined $id && $id =~ /^\d+$/;
	$self->created($s, $c, $key, $more, $id);
}

# A statement of a session failed: its transaction is lost, if there is one.
sub failed
{
	my ($self, $s) = @_;
	my $t = $self->{h}{open}{$s} or return;
	$t->{state} = 'lost';
	if (delete $self->{broken}{$s})
	{
		delete $self->{h}{open}{$s};
		return;
	}
	$t->{aborted} = 1;
}

sub do_create { my ($self, @n) = @_; $self->create(\@n, {}); }
sub do_schedule { my ($self, @n) = @_; $self->create(\@n, { scheduled => 1 }, sprintf(", deliver_at => msg_now() + '%d ms'", $n[4] % 400)); }
sub do_expire { my ($self, @n) = @_; $self->create(\@n, { expires => 1 }, sprintf(", expires_at => msg_now() + '%d ms'", 1 + $n[4] % 300)); }

sub do_insert
{
	my ($self, @n) = @_;
	my ($s, $c, $key) = ($n[0] % 3, $self->channel($n[1]), key_of($n[2]));
	return unless $c;
	my $rows = 1 + $n[3] % 20;
	my $ids = $self->ask($s, "INSERT INTO messages (channel, message_key, payload) SELECT '$c->{name}', " . ($key ? "'$key'" : 'NULL') . ", to_jsonb(g) FROM generate_series(1, $rows) g RETURNING id");
	return $self->failed($s) unless defined $ids;
	$self->created($s, $c, $key, {}, split /\n/, $ids);
}

sub do_many
{
	my ($self, @n) = @_;
	my ($s, $c, $key) = ($n[0] % 3, $self->channel($n[1]), key_of($n[2]));
	return unless $c;
	my $one = "{\"payload\": $n[3], \"channel\": \"$c->{name}\"" . ($key ? ", \"message_key\": \"$key\"" : '') . '}';
	my $ids = $self->ask($s, "SELECT * FROM msg_create_many('[$one, $one, $one]')");
	return $self->failed($s) unless defined $ids;
	$self->created($s, $c, $key, {}, split /\n/, $ids);
}

sub do_dedup
{
	my ($self, @n) = @_;
	my ($s, $c) = ($n[0] % 3, $self->channel($n[1]));
	return unless $c;
	my $dedup = 'd' . $n[2] % 3;
	my $id = $self->ask($s, "SELECT msg_create('{}', '$c->{name}', dedup_key => '$dedup')");
	return $self->failed($s) unless defined $id && $id =~ /^\d+$/;
	return if grep { $_->{id} == $id } @{ $self->{h}{messages} };
	$self->created($s, $c, undef, { dedup => $dedup }, $id);
}

sub do_publish
{
	my ($self, @n) = @_;
	my ($s, $c, $key) = ($n[0] % 3, $self->channel($n[1]), key_of($n[2]));
	return unless $c;
	my $event = "model.$self->{h}{run}.$c->{name}" =~ tr/-/_/r;
	if (!$c->{subscribed}++) { defined $self->auto("SELECT msg_subscribe('$event', '$c->{name}')") or return; }
	my $ids = $self->ask($s, "SELECT unnest(messages) FROM msg_publish('$event', '{}'" . ($key ? ", message_key => '$key'" : '') . ')');
	return $self->failed($s) unless defined $ids;
	$self->created($s, $c, $key, {}, split /\n/, $ids);
}

# As programs write rows that give every column, some of them times of their own.
sub do_orm
{
	my ($self, @n) = @_;
	my ($s, $c, $key) = ($n[0] % 3, $self->channel($n[1]), key_of($n[2]));
	return unless $c;
	my $created = ("now()", "now() - '3 days'::interval", "clock_timestamp()", "now() - '1 s'::interval")[ $n[3] % 4 ];
	# a due time of their own makes it a scheduled one, whatever status they give
	my $later = $n[4] % 4 == 0;
	my $due = $later ? sprintf("msg_now() + '%d ms'", 50 + $n[5] % 200) : 'NULL';
	my $id = $self->ask($s, "INSERT INTO messages (created_at, due_at, expires_at, sent_at, status, attempts, channel, message_key, event_type, headers, payload, body, dedup_key)
		VALUES ($created, $due, NULL, NULL, 'idle', 0, '$c->{name}', " . ($key ? "'$key'" : 'NULL') . ", 'model.orm', '{\"a\": \"b\"}', '{}', NULL, NULL) RETURNING id");
	return $self->failed($s) unless defined $id && $id =~ /^\d+$/;
	$self->created($s, $c, $key, { $later ? (scheduled => 1) : () }, $id);
}

# Numbers whose text is a thousand times as long as what they take in a jsonb: 393 kB may be sent.
sub do_numbers { my ($self, @n) = @_; $self->create(\@n, {}, undef, '[' . join(',', ('1e131071') x 3) . ']'); }

# What cannot be sent is refused when it is created, however that is done.
my @wrong = (
	[ payload      => "('[' || repeat('1e131071,', 9) || '1]')::jsonb" ],
	[ payload      => "to_jsonb(repeat('x', 1000001))" ],
	[ payload      => 'NULL' ],
	[ body         => q{'\x00'} ],
	[ channel      => q{'model-nowhere'} ],
	[ message_key  => q{repeat('k', 1025)} ],
	[ headers      => q{'{"ce_id": "x"}'} ],
	[ headers      => q{'{"a": 1}'} ],
	[ event_type   => q{E'a\nb'} ],
	[ content_type => q{E'a\nb'} ],
	[ expires_at   => q{now() - '1 min'::interval} ],
	[ status       => q{'scheduled'} ],
);

sub do_wrong
{
	my ($self, @n) = @_;
	my $c = $self->channel($n[1]) or return;
	my ($column, $value) = @{ $wrong[ $n[2] % @wrong ] };
	my %row = (channel => "'$c->{name}'", payload => q{'{}'}, $column => $value, $n[3] % 2 ? (created_at => "now() - '1 min'::interval") : ());
	my $id = $self->auto('INSERT INTO messages (' . join(', ', sort keys %row) . ') VALUES (' . join(', ', map { $row{$_} } sort keys %row) . ') RETURNING id');
	return unless defined $id && $id =~ /^\d+$/;
	$self->finding('accepted', "$id was created with $column = $value");
	$self->created('auto', $c, undef, { acted => ['wrong'] }, $id);
}

# Messages of one key that come due together, and do not stand in the table in the order of their ids.
sub do_together
{
	my ($self, @n) = @_;
	my ($c, $key) = ($self->channel($n[0]), 'k' . $n[1] % 3);
	return unless $c;
	my $rows = 4 + $n[2] % 12;
	my $ids = $self->auto(sprintf(q{BEGIN; SET LOCAL client_min_messages = error;
		CREATE TEMP TABLE model_together ON COMMIT DROP AS SELECT 0::bigint AS id WHERE false;
		WITH m AS (INSERT INTO messages (channel, message_key, payload, due_at) SELECT '%s', '%s', to_jsonb(g), msg_now() + '%d ms'
			FROM generate_series(1, %d) g RETURNING id) INSERT INTO model_together SELECT id FROM m;
		UPDATE messages SET event_type = 'model.moved' WHERE id IN (SELECT id FROM model_together ORDER BY id LIMIT %d);
		SELECT id FROM model_together ORDER BY id; COMMIT}, $c->{name}, $key, 30 + $n[3] % 100, $rows, $rows / 2));
	if (!defined $ids) { $self->auto('ROLLBACK'); return; }
	$self->created('auto', $c, $key, { scheduled => 1, together => $self->{h}{step} }, split /\n/, $ids);
}

# Many at once for a consumer that answers each record before the relay has marked it.
sub do_flood
{
	my ($self, $n, $rows) = @_;
	my @c = grep { $_->{hasty} && !$_->{dropped} && !$_->{changed} } @{ $self->{h}{channels} } or return;
	my $c = $c[ $n % @c ];
	my $ids = $self->auto("INSERT INTO messages (channel, payload) SELECT '$c->{name}', to_jsonb(repeat('x', 200)) FROM generate_series(1, " . (200 + $rows % 300) . ') RETURNING id');
	return unless defined $ids;
	$self->created('auto', $c, undef, {}, split /\n/, $ids);
}

# Many of one key that come due behind one that fails, at an endpoint that takes them in order.
sub do_crowd
{
	my ($self, $n, $rows, $patience) = @_;
	my @c = grep { $_->{ordered} && $_->{webhook} && !$_->{topic} && !$_->{dropped} } @{ $self->{h}{channels} } or return;
	my $c = $c[ $n % @c ];
	$self->endpoint($c, 'status/503');
	my $ids = $self->auto(sprintf("INSERT INTO messages (channel, message_key, payload, due_at) SELECT '%s', 'crowd', to_jsonb(g), msg_now() + '20 ms' FROM generate_series(1, %d) g RETURNING id",
		$c->{name}, 270 + $rows % 50));
	if (defined $ids)
	{
		my @ids = split /\n/, $ids;
		$self->created('auto', $c, 'crowd', { scheduled => 1, together => $self->{h}{step} }, @ids);
		poll_until(0.1 + $patience % 10 / 10, sub { ($self->auto("SELECT attempts > 0 FROM messages WHERE id = $ids[0]") // 't') eq 't' });
	}
	$self->endpoint($c, 'ok');
}

# ---------------------------------------------------------------- ids

# The sequence is far ahead: ids have 19 digits.
sub do_far_ids
{
	my ($self) = @_;
	return if $self->{h}{near};
	my $last = $self->auto('SELECT last_value FROM messages_id_seq');
	return unless defined $last && defined $self->auto("SELECT setval('messages_id_seq', " . ($far + $self->{h}{run} * 100_000) . ')');
	$self->{h}{near} = $last;
}

# An operator deletes what is finished at the end of the table and sets the sequence back: other messages get these ids.
sub do_reuse_ids
{
	my ($self, $n, $more) = @_;
	my $h = $self->{h};
	my $c = $self->channel($n) or return;
	my $made = $self->auto("INSERT INTO messages (channel, payload) SELECT '$c->{name}', to_jsonb(g) FROM generate_series(1, 3) g RETURNING id") or return;
	$self->created('auto', $c, undef, {}, split /\n/, $made);
	poll_until(0.5, sub { ($self->auto('SELECT count(*) FROM messages WHERE finished_at IS NULL AND id IN (' . join(',', split /\n/, $made) . ')') // '0') eq '0' });
	# not those whose transactions are not over
	my ($above) = sort { $b <=> $a } 0, map { $_->{id} } grep { $_->{t}{state} !~ /^(committed|lost)$/ } @{ $h->{messages} };
	my $of = join ',', map { "'$_->{name}'" } @{ $h->{channels} };
	my $from = $self->auto("SELECT min(id) FROM messages WHERE channel IN ($of) AND id > greatest($above, (SELECT max(id) FROM messages WHERE finished_at IS NULL OR dlq_pending OR channel NOT IN ($of)))");
	return unless $from;
	my $gone = $self->auto("WITH d AS (DELETE FROM messages WHERE id >= $from RETURNING id, epoch) SELECT n.uuid || ':' || d.id FROM d JOIN msg_names n USING (epoch)");
	return unless defined $gone;
	$h->{reused}{$_} = 1 for split /\n/, $gone;
	@{ $h->{messages} } = grep { $_->{id} < $from } @{ $h->{messages} };
	$self->must("DELETE FROM model_log WHERE id >= $from");
	$self->must("SELECT setval('messages_id_seq', $from, false)");
	$self->create([ 0, $n, $more, $more ], {}) for 0 .. $more % 3;
}

# ---------------------------------------------------------------- transactions

sub do_begin
{
	my ($self, $n) = @_;
	my $s = $n % 3;
	return if $self->{h}{open}{$s};
	$self->ask($s, 'BEGIN');
	my $t = { state => 'open', messages => [] };
	push @{ $self->{h}{transactions} }, $t;
	$self->{h}{open}{$s} = $t;
}

sub end_transaction
{
	my ($self, $s, $command) = @_;
	my $t = delete $self->{h}{open}{$s} or return;
	my $good = defined $self->ask($s, $command);
	delete $self->{broken}{$s};
	$t->{state} = $t->{aborted} || $command ne 'COMMIT' ? 'lost' : $good ? 'committed' : 'unknown';
	$t->{at} = $self->{h}{step};
}

sub do_commit { my ($self, $n) = @_; $self->end_transaction($n % 3, 'COMMIT'); }
sub do_rollback { my ($self, $n) = @_; $self->end_transaction($n % 3, 'ROLLBACK'); }

sub do_savepoint
{
	my ($self, $n) = @_;
	my $t = $self->{h}{open}{ $n % 3 } or return;
	return if $t->{aborted};
	$t->{savepoint} = scalar @{ $t->{messages} } if defined $self->ask($n % 3, 'SAVEPOINT s');
}

sub do_rollback_to
{
	my ($self, $n) = @_;
	my $t = $self->{h}{open}{ $n % 3 } or return;
	return unless defined $t->{savepoint} && defined $self->ask($n % 3, 'ROLLBACK TO SAVEPOINT s');
	my @gone = splice @{ $t->{messages} }, $t->{savepoint};
	$_->{t} = { state => 'lost' } for @gone;
	if (delete $t->{aborted}) { $t->{state} = 'open'; }
}

sub do_prepare
{
	my ($self, $n) = @_;
	my $s = $n % 3;
	my $t = $self->{h}{open}{$s} or return;
	return if $t->{aborted} || $t->{locks};
	delete $self->{h}{open}{$s};
	my $name = "model-$self->{h}{run}-" . scalar @{ $self->{h}{prepared} };
	if (defined $self->ask($s, "PREPARE TRANSACTION '$name'")) { $t->{state} = 'prepared'; push @{ $self->{h}{prepared} }, [ $name, $t ]; }
	else { $t->{state} = 'lost'; }
}

sub do_finish_prepared
{
	my ($self, $n, $how) = @_;
	my @waiting = grep { $_->[1]{state} eq 'prepared' } @{ $self->{h}{prepared} } or return;
	my ($name, $t) = @{ $waiting[ $n % @waiting ] };
	my $command = ($how // 0) % 4 == 0 ? 'ROLLBACK' : 'COMMIT';
	my $good = defined $self->auto("$command PREPARED '$name'");
	$t->{state} = !$good ? 'unknown' : $command eq 'COMMIT' ? 'committed' : 'lost';
	$t->{at} = $self->{h}{step};
}

# ---------------------------------------------------------------- clients, consumers, operators

sub acted
{
	my ($self, $n, $what, $sql) = @_;
	my $m = $self->message($n) or return;
	my $answer = $self->auto($sql =~ s/ID/$m->{id}/r);
	push @{ $m->{acted} }, $what if defined $answer && $answer ne 'f';
	return $answer;
}

sub do_cancel     { my ($self, $n) = @_; $self->acted($n, 'cancel', 'SELECT msg_cancel(ID)'); }
sub do_retry      { my ($self, $n) = @_; $self->acted($n, 'retry', 'SELECT msg_retry(ID)'); }
sub do_reschedule { my ($self, $n, $ms) = @_; $self->acted($n, 'reschedule', sprintf("SELECT msg_reschedule(ID, msg_now() + '%d ms')", $ms % 300)); }

sub do_redrive
{
	my ($self, $n) = @_;
	my $c = $self->channel($n) or return;
	$self->auto("SELECT msg_redrive('$c->{name}')");
	push @{ $_->{acted} }, 'retry' for grep { $_->{channel} == $c } @{ $self->{h}{messages} };
}

my @outcomes = qw(received delivered failed);

sub do_ack { my ($self, $n, $o) = @_; $self->acted($n, "ack $outcomes[$o % 3]", "SELECT msg_ack(ID, '$outcomes[$o % 3]', 'by the model')"); }

sub do_ack_record
{
	my ($self, $n, $o, $twice, $attempt) = @_;
	my $m = $self->message($n) or return;
	# one whose transaction is not over has that of its end, mostly
	my $name = $self->must("SELECT coalesce((SELECT n.uuid FROM messages m JOIN msg_names n USING (epoch) WHERE m.id = $m->{id}), (SELECT uuid FROM msg_installation))");
	my $more = $attempt % 3 ? '' : ', "attempt": 1';
	my $line = qq({"id": "$name:$m->{id}", "status": "$outcomes[$o % 3]", "error": "by a record"$more});
	# kcat reads 1,024 bytes at a time, and waits for them
	$line .= ' ' x (1023 - length $line) . "\n";
	$self->{producer}->write($line x ($twice % 4 ? 1 : 2));
	push @{ $m->{acted} }, "ack $outcomes[$o % 3]";
	$self->{h}{ack_records} = $self->{h}{did} = 1;
}

sub do_endpoint
{
	my ($self, $n, $mode) = @_;
	my $c = $self->channel($n) or return;
	$self->endpoint($c, $sinkmodes[ $mode % @sinkmodes ]);
	$self->{h}{did} = 1;
}

sub endpoint
{
	my ($self, $c, $mode) = @_;
	my $file = "$self->{sink}{log}.$c->{name}";
	open(my $out, '>', "$file.new") or die;
	print $out $mode;
	close $out;
	rename "$file.new", $file;
	$c->{failing} = 1 if $mode !~ /^(ok|delay)/;
}

sub do_pause { my ($self, $n) = @_; my $c = $self->channel($n) or return; $self->auto("SELECT msg_pause('$c->{name}')"); }
sub do_resume { my ($self, $n) = @_; my $c = $self->channel($n) or return; $self->auto("SELECT msg_resume('$c->{name}')"); }

sub do_pace
{
	my ($self, $n, $drop, $batch) = @_;
	my $c = $self->channel($n) or return;
	$self->auto($drop % 2 ? "SELECT msg_pace_drop('$c->{name}')" : sprintf("SELECT msg_pace_set('%s', %d, '20 ms')", $c->{name}, 1 + $batch % 5));
}

sub do_change_ack
{
	my ($self, $n, $ack) = @_;
	my $c = $self->channel($n) or return;
	my $to = (qw(readback none topic))[ $ack % 3 ];
	return unless defined $self->auto("SELECT msg_channel_set('$c->{name}', ack => '$to')");
	$c->{ack} = $to;
	$c->{changed} = 1;
}

sub do_change_topic
{
	my ($self, $n, $topic) = @_;
	my $c = $self->channel($n) or return;
	my $to = $topics[ $topic % @topics ];
	return unless defined $self->auto("SELECT msg_channel_set('$c->{name}', topic => '$to')");
	$c->{topic} = $to;
	$c->{was_topic}{$to} = 1;
	$c->{changed} = 1;
}

sub do_take_topic
{
	my ($self, $n) = @_;
	my $c = $self->channel($n) or return;
	return unless defined $self->auto("SELECT msg_channel_set('$c->{name}', topic => '')");
	$c->{topic} = undef;
	$c->{changed} = 1;
}

sub do_set_webhook
{
	my ($self, $n) = @_;
	my $c = $self->channel($n) or return;
	$c->{changed} = 1 if !$c->{webhook};
	defined $self->set_webhook($c) or $c->{webhook} = 0;
}

sub do_drop_webhook
{
	my ($self, $n) = @_;
	my $c = $self->channel($n) or return;
	return unless $c->{webhook} && defined $self->auto("SELECT msg_webhook_drop('$c->{name}')");
	$c->{webhook} = 0;
	$c->{changed} = 1;
}

sub do_attempts
{
	my ($self, $n, $most) = @_;
	my $c = $self->channel($n) or return;
	$self->auto(sprintf("SELECT msg_channel_set('%s', max_attempts => %d)", $c->{name}, 1 + $most % 6));
}

sub do_drop_channel
{
	my ($self, $n) = @_;
	my $c = $self->channel($n) or return;
	return if $self->open_on_channel($c);
	return unless defined $self->auto("SELECT msg_channel_drop('$c->{name}', discard => true)");
	$c->{dropped} = 1;
	$c->{changed} = 1;
}

# Whether a transaction that is not over has messages of a channel.
sub open_on_channel
{
	my ($self, $c) = @_;
	return grep { $_->{channel} == $c && $_->{t}{state} =~ /open|prepared/ } @{ $self->{h}{messages} };
}

# ---------------------------------------------------------------- locks, time, faults

sub do_lock_row
{
	my ($self, $n, $s) = @_;
	$s %= 3;
	my $m = $self->message($n) or return;
	my $t = $self->{h}{open}{$s} or return;
	return if $t->{aborted};
	$t->{locks} = 1;
	defined $self->ask($s, "SELECT 1 FROM messages WHERE id = $m->{id} FOR UPDATE") or $self->failed($s);
}

sub do_lock_table
{
	my ($self) = @_;
	my $good = defined $self->auto("BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(0.05); COMMIT");
	$self->auto('ROLLBACK');
	$self->{h}{did} = $good;
}

sub do_clock
{
	my ($self, $n) = @_;
	$self->{h}{clock} = 1;
	$self->auto(sprintf("ALTER SYSTEM SET msgsys.clock_offset = '%ds'", $n % 5 - 2));
	$self->auto('SELECT pg_reload_conf()');
}

sub do_reload { my ($self) = @_; $self->auto('SELECT pg_reload_conf()'); }

# let the workers get somewhere
sub do_wait { my ($self, $n) = @_; my $m = $self->message($n) or return; $self->auto("SET statement_timeout = '100ms'; SELECT msg_wait($m->{id}, 'received', '60 ms')"); $self->auto('RESET statement_timeout'); }

# The process of a worker.
sub worker
{
	my ($self, $n) = @_;
	my @pids = split /\n/, $self->auto("SELECT pid FROM msg_workers WHERE pid IS NOT NULL AND database = 'postgres' ORDER BY stage, worker") // '';
	return @pids ? $pids[ $n % @pids ] : undef;
}

sub do_end_worker
{
	my ($self, $n) = @_;
	$self->{h}{faults}++;
	my $pid = $self->worker($n) or return;
	$self->auto("SELECT pg_terminate_backend($pid)");
}

# Its end is no fault of any message's: nothing may come twice.
sub do_end_launcher
{
	my ($self) = @_;
	$self->auto("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'msgsys launcher'");
}

sub do_kill_worker
{
	my ($self, $n) = @_;
	$self->{h}{faults}++;
	my $pid = $self->worker($n) or return;
	$self->crash($pid);
}

# kill -9 of a worker: every session of the server ends.
sub crash
{
	my ($self, $pid) = @_;
	my $since = log_count($self->{node});
	kill 'KILL', $pid;
	$self->hang_up;
	poll_until(60, sub { log_count($self->{node}, 'all server processes terminated; reinitializing', $since) && answers($self->{node}) })
	  or die 'the server does not come back';
	$self->connect;
}

# Every session of the server ends, and with it what it had open.
sub hang_up
{
	my ($self) = @_;
	for my $s (keys %{ $self->{session} }) { $self->{session}{$s}->stop; }
	for my $t (values %{ $self->{h}{open} }) { $t->{state} = 'lost'; }
	$self->{h}{open} = {};
	$self->{broken} = {};
}

# A channel whose messages are read back and which is as it was made.
sub plain_readback
{
	my ($self, $n) = @_;
	my @c = grep { $_->{kind} eq 'readback' && !$_->{dropped} && !$_->{changed} } @{ $self->{h}{channels} };
	return @c ? $c[ $n % @c ] : undef;
}

# A crash while the relay drains many: what Kafka has is read back first.
sub do_drain
{
	my ($self, $n, $more) = @_;
	my $c = $self->plain_readback($n) or return;
	my $sent = q{(SELECT sum((counters ->> 'sent')::bigint) FROM msg_worker_slots() WHERE stage = 'relay' AND database = current_database())};
	$self->auto("SELECT msg_resume('$c->{name}')");
	my $before = $self->auto("SELECT $sent");
	my $ids = $self->auto("INSERT INTO messages (channel, message_key, payload) SELECT '$c->{name}', 'drained ' || g % 100, to_jsonb(repeat('x', 100)) FROM generate_series(1, 3000) g RETURNING id");
	return unless defined $ids && defined $before;
	my @ids = split /\n/, $ids;
	$self->created('auto', $c, undef, {}, @ids);
	# the moment of the crash is the history's
	my $pid = $self->auto(sprintf(q{DO $$ BEGIN FOR i IN 1..1500 LOOP EXIT WHEN %s >= %d; PERFORM pg_sleep(0.001); END LOOP; PERFORM pg_sleep(%f); END $$;
		SELECT pid FROM msg_workers WHERE stage = 'relay' AND database = current_database()}, $sent, $before + 1000, ($more % 20) / 1000));
	$self->{h}{faults}++;
	push @{ $self->{h}{drains} }, { map { $_ => 1 } @ids };
	$self->crash($pid) if $pid;
}

# Records go (retention, say) before they are read back: the receiver stands still meanwhile.
sub do_trim
{
	my ($self, $n, $rows) = @_;
	my $c = $self->plain_readback($n) or return;
	$self->auto("SELECT msg_resume('$c->{name}')");
	my @pids = split /\n/, $self->auto("SELECT pid FROM msg_workers WHERE stage = 'receiver' AND pid IS NOT NULL") // '';
	my $ids = $self->auto("INSERT INTO messages (channel, payload) SELECT '$c->{name}', to_jsonb(g) FROM generate_series(1, " . (1 + $rows % 20) . ') g RETURNING id');
	return unless defined $ids;
	$self->created('auto', $c, undef, {}, split /\n/, $ids);
	kill 'STOP', @pids;
	my $of = join ',', split /\n/, $ids;
	# it may stand still with a lock of the server's
	poll_until(2, sub { ($self->auto("SELECT bool_and(status <> 'idle') FROM messages WHERE id IN ($of)", 3) // 't') eq 't' });
	kafka_topic($self->{bootstrap}, 'trim', $c->{topic}, 3);
	$self->{h}{trimmed}{ $c->{topic} } = 1;
	kill 'CONT', @pids;
}

# A topic that was missing is made.
sub do_make_topic
{
	my ($self, $n) = @_;
	my @c = grep { $_->{missing} } @{ $self->{h}{channels} } or return;
	$self->make_topic($c[ $n % @c ]);
}

sub make_topic
{
	my ($self, $c) = @_;
	return if $c->{made}++;
	$self->{h}{did} = 1;
	kafka_create_topic($self->{bootstrap}, "$c->{late}$_", 3) for '.retry', '.dlq', '';
}

# What a timeline that is lost (a failover with lag, a restore) has left in Kafka under a name of ours, and fits the row nearly: another
# message, or an attempt that there was not. It counts for nobody.
sub do_lost_tail
{
	my ($self, $n, $how, $later) = @_;
	my $c = $self->plain_readback($n) or return;
	my $due = $later % 3 ? sprintf(", deliver_at => msg_now() + '%d ms'", 100 + $later % 300) : '';
	my $id = $self->auto("SELECT msg_create('1', '$c->{name}'$due)");
	return unless defined $id && $id =~ /^\d+$/;
	$self->created('auto', $c, undef, { scheduled => 1 }, $id);
	my $name = $self->auto("SELECT n.uuid FROM messages m JOIN msg_names n USING (epoch) WHERE m.id = $id") or return;
	my $stamp = eval { $how % 2 ? record_stamp($self->{node}, $id, 1, -1_000_000) : record_stamp($self->{node}, $id, 5) } or return;
	$self->{h}{forged}{$stamp} = 1;
	open(my $pipe, '|-', 'kcat', '-P', '-b', $self->{bootstrap}, '-t', $c->{topic}, '-k', $id, '-H', "ce_id=$name:$id", '-H', "msgsys-stamp=$stamp") or die "kcat: $!";
	print $pipe "lost\n";
	close $pipe;
}

sub do_kafka_hangs
{
	my ($self) = @_;
	$self->{h}{faults}++;
	$self->{h}{hung} = 1;
	kafka('pause', $self->{kafka});
	$self->auto('SELECT pg_sleep(0.3)');
	kafka('cont', $self->{kafka});
}

# ---------------------------------------------------------------- the end

# Everything outside is well again, and all have time: nothing may be left unfinished.
sub settle
{
	my ($self) = @_;
	my $h = $self->{h};
	$h->{step}++;
	$self->end_transaction($_, 'COMMIT') for 0 .. 2;
	$self->do_finish_prepared(0, 1) while grep { $_->[1]{state} eq 'prepared' } @{ $h->{prepared} };
	if ($h->{clock}) { $self->auto('ALTER SYSTEM RESET msgsys.clock_offset'); $self->auto('SELECT pg_reload_conf()'); }
	for my $c (@{ $h->{channels} })
	{
		$self->endpoint($c, 'ok');
		$self->make_topic($c) if $c->{missing};
		next if $c->{dropped};
		$self->auto("SELECT msg_resume('$c->{name}')");
		$self->auto("SELECT msg_webhook_enable('$c->{name}')") if $c->{webhook};
	}
	my @names = map { "'$_->{name}'" } @{ $h->{channels} };
	my $of = join ',', @names;
	# a channel that leads nowhere keeps its messages: that is what its NOTICE says
	my $left = "SELECT count(*) FROM messages m WHERE m.channel IN ($of) AND m.finished_at IS NULL AND NOT (m.status IN ('idle', 'scheduled', 'retry') AND EXISTS (
		SELECT FROM msg_channel_settings c WHERE c.channel = m.channel AND c.topic IS NULL AND NOT c.has_webhook))";
	# the consumer of channels whose messages consumers acknowledge; a hasty one has answered already
	my $answered = join ',', "''", map { "'$_->{name}'" } grep { $_->{hasty} && !$_->{changed} } @{ $h->{channels} };
	my $consume = "SELECT count(msg_ack(m.id, 'received')) FROM messages m JOIN msg_channel_settings c ON c.channel = m.channel
		WHERE m.channel IN ($of) AND m.channel NOT IN ($answered) AND m.status = 'sent' AND m.finished_at IS NULL AND c.ack = 'topic'";
	my $live = poll_until($self->{patience}, sub { $self->auto($consume); ($self->auto($left) // 1) eq '0' });
	return if $live;
	$self->finding('stuck', $_) for split /\n/, $self->auto("SELECT m.id || ' ' || m.status || ' in ' || m.channel || ' (' || coalesce(c.topic, 'no topic') || ', ' || c.ack || ', webhook ' || c.has_webhook || '), attempts ' || m.attempts
		|| ', due ' || coalesce(m.due_at::text, '-') || ', key ' || coalesce(m.message_key, '-') || ', ' || coalesce(m.last_error, '-')
		FROM messages m LEFT JOIN msg_channel_settings c USING (channel) WHERE m.channel IN ($of) AND m.finished_at IS NULL AND m.status NOT IN ('delivered', 'dead', 'cancelled', 'expired') ORDER BY id LIMIT 5") // '?';
}

# All records of the history's topics: {topic, partition, offset, name, id, attempt, created}, but for those that the model itself has
# written as a lost timeline's.
sub all_records
{
	my ($self, $started) = @_;
	my (%used, @records);
	$used{$_} = 1 for map { map { ($_, "$_.retry") } keys %{ $_->{was_topic} } } @{ $self->{h}{channels} };
	for my $topic (sort keys %used)
	{
		open(my $pipe, '-|', 'kcat', '-C', '-e', '-q', '-b', $self->{bootstrap}, '-t', $topic, '-o', "s\@$started", '-X', 'fetch.wait.max.ms=10',
			'-f', '%p %o %h\n') or die "kcat: $!";
		while (<$pipe>)
		{
			my ($partition, $offset, $name, $id) = /^(\d+) (\d+) .*?ce_id=([0-9a-f-]{36}:(\d+))/ or next;
			my ($stamp, $attempt, $created) = /msgsys-stamp=((\d+)\.(\d+)\.[0-9a-f]+)/ or next;
			next if $self->{h}{forged}{$stamp};
			push @records, { topic => $topic, partition => $partition, offset => $offset, name => $name, id => $id, attempt => $attempt, created => $created };
		}
		close $pipe;
	}
	return @records;
}

# The first records of each message, in their order: id => [topic, partition, offset]; how often each attempt of it is there; and
# whether there is any of the id. One name is one message's; that is known by its id and its time of creation, which its stamp has.
sub records
{
	my ($self, $started, $row) = @_;
	my (%first, %times, %any, %named);
	for my $record ($self->all_records($started))
	{
		my ($id, $name, $created) = @{$record}{qw(id name created)};
		$self->finding('name', "$name names two messages in Kafka") if ($named{$name} //= $created) != $created;
		my $its = $row->{$id} && $row->{$id}{created} == $created;
		$any{$id} = 1 if $its || !$self->{h}{reused}{$name};
		next if !$its && ($row->{$id} || $self->{h}{reused}{$name});
		$first{$id} //= [ @{$record}{qw(topic partition offset)} ];
		$times{$id}{ $record->{attempt} }++;
	}
	return (\%first, \%times, \%any);
}

# What the endpoint was sent in this history, each with its attempt, and the payload as its body.
sub requests
{
	my ($self) = @_;
	my @requests = $self->{sink}->requests(sub { $_[0]{path} =~ m{/mode/m$self->{h}{run}-} });
	for my $request (@requests)
	{
		my $body = eval { decode_json($request->{body}) } or next;
		$request->{attempt} = $body->{attempt};
		$request->{body} = JSON::PP->new->canonical->allow_nonref->encode($body->{payload});
	}
	return @requests;
}

my %arrows = (
	scheduled => 'idle sent received retry delivered dead cancelled expired', idle => 'scheduled sent received retry delivered dead cancelled expired',
	sent => 'received retry delivered dead expired', received => 'retry delivered dead expired', retry => 'sent received delivered dead cancelled expired',
	delivered => '', dead => 'retry', cancelled => 'delivered', expired => 'delivered scheduled idle',
);

sub judge
{
	my ($self, $started) = @_;
	my $h = $self->{h};
	my @messages = grep { $_->{t}{state} ne 'unknown' } @{ $h->{messages} };
	return unless @messages;
	my $of = join ',', map { "'$_->{name}'" } @{ $h->{channels} };
	my %row = map { my ($id, $status, $attempts, $key, $created, $unread) = split /\|/; ($id => { status => $status, attempts => $attempts, key => $key, created => $created, unread => $unread eq 't' }) }
	  split /\n/, $self->must("SELECT id, status, attempts, message_key, (EXTRACT(epoch FROM created_at - '2000-01-01 00:00Z') * 1000000)::bigint, coalesce(last_error LIKE 'confirmed by Kafka, and not read back%', false)
		FROM messages WHERE channel IN ($of)");
	my ($record, $times, $any) = $self->records($started, \%row);
	$self->{total}{$_}++ for map { $_->{status} } values %row;
	$self->{total}{records} += keys %$record;
	$self->{total}{lost} += grep { $_->{t}{state} eq 'lost' } @messages;
	my %asked;
	my $number = 0;
	for my $request ($self->requests)
	{
		my ($id) = $request->{id} =~ /:(\d+)$/ or next;
		next if $h->{reused}{ $request->{id} };
		push @{ $asked{$id} }, { n => $number++, code => $request->{code}, attempt => $request->{attempt} // '?' };
	}

	my %known;
	for my $m (@messages)
	{
		my ($id, $row) = ($m->{id}, $row{ $m->{id} });
		$known{$id} = 1;
		if ($m->{t}{state} eq 'lost')
		{
			$self->finding('invented', "$id was rolled back and has a row") if $row;
			$self->finding('invented', "$id was rolled back and is in Kafka") if $any->{$id};
			$self->finding('invented', "$id was rolled back and was posted") if $asked{$id};
			next;
		}
		if (!$row) { $self->finding('lost', "$id has no row"); next; }
		my @acted = @{ $m->{acted} // [] };
		my $acked = grep { /^ack/ } @acted;
		my $c = $m->{channel};
		my $as_made = $c->{topic} && !$c->{changed};
		if ($as_made && !$h->{trimmed}{ $c->{topic} })
		{
			$self->finding('lost', "$id is $row->{status} and not in Kafka") if $row->{status} =~ /^(sent|received)$/ && !$acked && !$record->{$id};
			$self->finding('unread', "$id was not read back, but its record is there") if $row->{unread} && $record->{$id};
		}
		$self->finding('attempts', "$id is $row->{status} after $row->{attempts} attempts though its topic was only missing")
		  if $as_made && $c->{missing} && !@acted && !$h->{faults} && ($row->{attempts} > 1 || $row->{status} eq 'dead');
		$self->finding('lost', "$id is delivered and no request was answered so") if $row->{status} eq 'delivered' && !$acked && !$c->{hasty} && !grep { $_->{code} =~ /^2/ } @{ $asked{$id} // [] };
		if (!$h->{faults})
		{
			for my $attempt (sort keys %{ $times->{$id} // {} })
			{
				$self->finding('repeated', "$id, attempt $attempt, is $times->{$id}{$attempt} times in Kafka") if $times->{$id}{$attempt} > 1 && !grep { $_ eq 'retry' } @acted;
			}
			next if $c->{changed} || grep { $_ eq 'retry' } @acted;
			my %posted;
			# one that is gone takes no attempt; where nothing is answered, libcurl itself tries a connection that it used before up to six times
			$posted{ $_->{attempt} }++ for grep { $_->{code} && $_->{code} != 410 } @{ $asked{$id} // [] };
			$self->finding('repeated', "$id, attempt $_, was posted $posted{$_} times") for grep { $posted{$_} > 1 } sort keys %posted;
		}
	}
	$self->judge_drain($_, $times) for @{ $h->{drains} };
	$self->finding('invented', "$_ is in Kafka") for grep { $row{$_} && !$known{$_} && !grep { $_->{t}{state} eq 'unknown' } @{ $h->{messages} } } keys %$record;
	$self->judge_order(\@messages, $record, \%asked, \%row);
	$self->judge_arrows;
	# a launcher or a worker that was ended is started again; a channel that leads nowhere keeps its messages
	my $check;
	poll_until($self->{patience}, sub {
		$check = $self->auto("SELECT string_agg(c::text, E'\\n') FROM msg_check() c WHERE severity <> 'info' AND NOT c::text ~ 'aa_model|neither topic nor webhook'");
		return !$check;
	});
	$self->finding('check', $check) if $check;
}

# What was drained over a crash is read back before anything is sent again: as a rule nothing of it comes twice.
sub judge_drain
{
	my ($self, $ids, $times) = @_;
	my %acted = map { $_->{id} => 1 } grep { $_->{acted} } @{ $self->{h}{messages} };
	return if $self->{h}{hung};
	my $twice = grep { ($times->{$_}{1} // 0) > 1 && !$acted{$_} } keys %$ids;
	$self->{total}{drained} += keys %$ids;
	$self->{total}{drained_twice} += $twice;
	$self->finding('repeated', "$twice of " . keys(%$ids) . ' came twice after a crash') if $twice > $drain_bound;
}

# The messages of the transaction that made the extension, and of one that began before it.
sub judge_beginning
{
	my ($self) = @_;
	my $of = join ',', @{ $self->{begun} };
	poll_until($self->{patience}, sub { ($self->auto("SELECT count(*) FROM messages WHERE id IN ($of) AND status = 'received'") // 0) == 2 })
	  or $self->finding('stuck', 'the first messages of the installation: ' . ($self->auto("SELECT string_agg(status::text, ' ') FROM messages WHERE id IN ($of)") // '?'));
}

# Of one key, what was committed before another was created goes first; so does the lower id of those that come due together.
sub judge_order
{
	my ($self, $messages, $record, $asked, $row) = @_;
	my %of;
	for my $m (@$messages)
	{
		next if $m->{t}{state} ne 'committed' || !defined $m->{key} || ($m->{scheduled} && !$m->{together}) || $m->{expires} || $m->{acted} || $m->{channel}{changed};
		push @{ $of{ join "\0", $m->{channel}{name}, $m->{key}, $m->{together} // '' } }, $m;
	}
	for my $list (values %of)
	{
		my @sorted = sort { $a->{id} <=> $b->{id} } @$list;
		for my $i (0 .. $#sorted - 1)
		{
			my ($first, $then) = @sorted[ $i, $i + 1 ];
			next unless $first->{t} == $then->{t} || ($first->{t}{at} // 1e9) < $then->{step};
			my $c = $first->{channel};
			my ($x, $y) = ($record->{ $first->{id} }, $record->{ $then->{id} });
			$self->finding('order', "$then->{id} came before $first->{id} in Kafka") if $x && $y && $x->[0] eq $y->[0] && $x->[1] == $y->[1] && $x->[2] > $y->[2];
			next unless $c->{ordered} && $asked->{ $first->{id} } && $asked->{ $then->{id} } && !$self->{h}{faults};
			$self->finding('order', "$then->{id} was posted before $first->{id} was final") if $asked->{ $then->{id} }[0]{n} < $asked->{ $first->{id} }[-1]{n};
		}
	}
}

sub judge_arrows
{
	my ($self) = @_;
	my %of = map { $_->{id} => $_ } @{ $self->{h}{messages} };
	for (split /\n/, $self->auto('SELECT id, old, new FROM model_log ORDER BY seq') // '')
	{
		my ($id, $old, $new) = split /\|/;
		my $m = $of{$id} or next;
		next if " $arrows{$old} " =~ / $new / && !($old eq 'dead' && !grep { $_ eq 'retry' } @{ $m->{acted} // [] });
		$self->finding('arrow', "$id went from $old to $new");
	}
}

sub clean
{
	my ($self) = @_;
	$self->auto('TRUNCATE model_log');
	unlink glob "$self->{sink}{log}.m*";
	truncate $self->{sink}{log}, 0;
	$self->auto("SELECT msg_unsubscribe(id) FROM msg_subscriptions");
	# this is not a client in a hurry
	$self->auto("SET lock_timeout = '30s'");
	for my $c (grep { !$_->{dropped} } @{ $self->{h}{channels} })
	{
		defined $self->auto("SELECT msg_channel_drop('$c->{name}', discard => true)") or $self->finding('drop', $self->{last_error} // '?');
	}
	if (my $near = $self->{h}{near})
	{
		# what was given since stays below
		$self->must("DELETE FROM messages WHERE id >= $far");
		$self->must("SELECT setval('messages_id_seq', $near + 10)");
	}
	for my $c (grep { $_->{made} } @{ $self->{h}{channels} })
	{
		kafka_topic($self->{bootstrap}, 'delete', "$c->{late}$_") for '', '.retry', '.dlq';
	}
	$self->auto("SET lock_timeout = '150ms'");
}

1;
