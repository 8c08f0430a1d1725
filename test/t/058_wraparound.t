# A message that has waited through half of all transaction numbers is sent: its own number, which is frozen, seems to be one
# of the future, and the commit log knows nothing of it.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Sink;
use Test::More;

use constant PER_SEGMENT => 1048576;    # transactions of a file of the commit log

my $sink = Sink->new;
my $node = new_node('wraparound', 'msgsys.webhook_allow' => '127.0.0.1', autovacuum => 'off');
$node->safe_psql('postgres', "SET client_min_messages = error; SELECT msg_channel_set('waits'); SELECT msg_webhook_set('waits', '" . $sink->url('/ok') . "'); SELECT msg_pause('waits')");
my $id = $node->safe_psql('postgres', q{SELECT msg_create('1', 'waits')});
my $xmin = $node->safe_psql('postgres', "SELECT xmin FROM messages WHERE id = $id");

# move_to(SEGMENT): freeze all, and go on with the first transaction of a file
sub move_to
{
	my ($segment) = @_;
	$node->safe_psql('postgres', 'UPDATE pg_database SET datallowconn = true');
	$node->safe_psql($_, 'VACUUM FREEZE') for split /\n/, $node->safe_psql('postgres', 'SELECT datname FROM pg_database');
	my $oldest = $node->safe_psql('postgres', 'SELECT datfrozenxid FROM pg_database ORDER BY age(datfrozenxid) DESC LIMIT 1');
	$node->stop;
	open(my $file, '>', $node->data_dir . sprintf('/pg_xact/%04X', $segment)) or die "pg_xact: $!";
	print $file "\0" x (PER_SEGMENT / 4);
	close $file;
	$node->command_ok([ 'pg_resetwal', '-x', $segment * PER_SEGMENT, '-u', $oldest, $node->data_dir ], 'pg_resetwal');
	$node->start;
	return;
}
# the oldest one that the log knows is to be past the half, too
move_to($_) for 1431, 2862, 2863;
is($node->safe_psql('postgres', "SELECT xmin FROM messages WHERE id = $id"), $xmin, "the message is transaction $xmin\'s as before");
is($node->safe_psql('postgres', "SELECT age('$xmin'::xid) < 0"), 't', 'which seems to be in the future');
$node->safe_psql('postgres', q{SELECT msg_resume('waits')});
ok(poll_sql($node, 20, "SELECT status FROM messages WHERE id = $id", 'delivered'), 'it is sent');
my $next = $node->safe_psql('postgres', q{SET synchronous_commit = off; SELECT msg_create('1', 'waits')});
ok(poll_sql($node, 20, "SELECT status FROM messages WHERE id = $next", 'delivered'), 'and so is one of today');
is(log_count($node, 'could not access status of transaction|could not read messages'), 0, 'without an error');
$node->stop;
$sink->stop;
done_testing();
