# Baseline.pm: the workers' statements in SQL alone, taken from src/ as they are, so that what is compared is always
# what runs.
package Baseline;

use strict;
use warnings;

use Bench;
use Exporter 'import';
use Time::HiRes 'time';

our @EXPORT = qw(baseline_procedure baseline_session);

sub source
{
	my ($name) = @_;
	open my $file, '<', root() . "/src/$name" or die "bench: src/$name: $!\n";
	local $/;
	return scalar <$file>;
}

# A statement of src/store.c, with SQL in the place of its parameters.
sub statement
{
	my ($name, @values) = @_;
	my $source = source('store.c') =~ s/\\\n//gr;
	my ($text) = $source =~ /\[$name\] = \{\s*(.*?)\n\t\},/s or die "bench: no statement $name in src/store.c\n";

	while ($source =~ /^#define (\w+)(?:\(([^)]*)\))?[ \t]+(.*".*)$/mg)
	{
		my ($macro, $body, @names) = ($1, $3, split /,\s*/, $2 // '');
		$text =~ s{\b$macro\b(?:\(([^)]*)\))?}{
			my %value;
			@value{@names} = split /,\s*/, $1 // '';
			$body =~ s/\b(\w+)\b/$value{$1} \/\/ $1/ger;
		}ge;
	}
	my $sql = join '', $text =~ /"([^"]*)"/g;
	$sql =~ s/\@\.//g;
	$sql =~ s/\$(\d)/$values[$1 - 1]/g;
	return $sql;
}

# A session in the database "baseline", whose settings are those of a worker. Made at the first time, with the
# extension, but no worker works on it.
sub baseline_session
{
	my ($session, $ack) = @_;

	$session->sql('CREATE DATABASE baseline');
	my $baseline = session('baseline');
	make_extension($baseline, $ack);
	my $settings = '';
	my $worker = source('worker.c');
	while ($worker =~ /force_setting\("(\w+)", "([^"]*)"\)/g)
	{
		$settings .= "SET $1 = '$2';\n" unless $1 =~ /^(?:search_path|transaction_timeout|application_name)$/;
	}
	my $inserter = session('baseline');
	$baseline->sql($settings);
	return ($baseline, $inserter);
}

# Make a procedure that does in SQL alone what a worker does to the database, in batches of 20,000, each a
# transaction. kind: relay (marks by ctid, as the worker), relay_by_id or receiver. Call it
# with the range of ids.
sub baseline_procedure
{
	my ($session, $kind) = @_;
	my $step;

	if ($kind eq 'receiver')
	{
		# a record tells of which name and when its row was made, which was in one transaction; an older revision takes channels here
		my $named = source('store.c') =~ /READBACK_ARGS/;
		my $mark = statement('MARK_READBACK', qw(v_ids v_partitions v_ids v_partitions v_now), $named ? qw(v_epochs v_created) : 'NULL::text[]');
		my $made = $named ? "SELECT array_fill(epoch, ARRAY[cardinality(v_ids)]), array_fill(created_at, ARRAY[cardinality(v_ids)])
			INTO v_epochs, v_created FROM messages WHERE id = v_low;" : '';
		$step = "SELECT array_agg(i) INTO v_ids FROM generate_series(v_low, least(v_low + v_batch, v_last + 1) - 1) i;
			EXIT WHEN v_ids IS NULL;
			$made
			v_low := v_low + v_batch;
			v_partitions := array_fill(0, ARRAY[cardinality(v_ids)]);
			$mark;";
	}
	else
	{
		my $claim = statement('CLAIM_IDLE_ROWS', "ARRAY['bench']", 'ARRAY[v_low]', 'ARRAY[v_batch]', qw(v_one v_zero v_now), "'{}'::int[]");
		# rows are locked by the worker itself, or by its statement
		$claim =~ s/LIMIT c\.share\) m$/LIMIT c.share FOR NO KEY UPDATE SKIP LOCKED) m/ or $claim =~ /SKIP LOCKED/ or die "bench: CLAIM_IDLE_ROWS is another than it was\n";

		# an older revision has an array in between, of what ends with being sent
		my @final = source('store.c') =~ /o, final\)/ ? 'array_fill(true, ARRAY[cardinality(v_ids)])' : ();
		my $mark = statement('MARK_SENT', $kind eq 'relay' ? 'v_tids' : 'v_ids', qw(v_partitions v_ids), @final, 'v_now');

		# all columns are counted, so that all are fetched
		my $counts = join ', ', map { "count(m.$_)" }
			qw(xmin attempts created_at expires_at message_key payload body headers content_type event_type);
		if ($kind eq 'relay_by_id')
		{
			$mark =~ s/m\.ctid = u\.t\b/m.id = u.t/ or die "bench: MARK_SENT is another than it was\n";
		}
		$step = "SELECT array_agg(m.ctid), array_agg(m.id), max(m.id), $counts INTO v_tids, v_ids, v_low FROM ($claim) m;
			EXIT WHEN v_ids IS NULL;
			v_partitions := array_fill(0, ARRAY[cardinality(v_ids)]);
			$mark;";
	}
	$session->sql("CREATE PROCEDURE $kind(v_low bigint, v_last bigint) LANGUAGE plpgsql AS \$procedure\$
		DECLARE
			v_batch constant int := 20000;
			v_one constant bigint := 1;
			v_zero constant bigint := 0;
			v_tids tid[];
			v_ids bigint[];
			v_partitions int[];
			v_epochs int[];
			v_created timestamptz[];
			v_now timestamptz;
		BEGIN
			LOOP
				v_now := clock_timestamp();
				$step
				COMMIT;
			END LOOP;
		END \$procedure\$");
	return;
}

1;
