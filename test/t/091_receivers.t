# The official Standard Webhooks libraries take what msgsys sends, under either secret of a rotation, and nothing that was changed.
use strict;
use warnings;
use lib 'test/lib';
use JSON::PP;
use MsgsysTest;
use Program;
use Sink;
use Test::More;

my $tool = 'test/tools/receivers';
my ($old, $new) = ('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'whsec_' . 'C2FVsBQIhrscChlQIMV+b5sSYspob7oD');

# judge(SECRET, REQUESTS…): what each library says, as name => [taken, refused]
sub judge
{
	my ($secret, @requests) = @_;
	my $file = tempdir() . '/requests';
	open(my $out, '>', $file) or die;
	print $out encode_json($_), "\n" for @requests;
	close $out;
	return map { my ($name, $taken, $refused) = split; ($name => [ $taken, $refused ]) } split /\n/, qx($tool verify '$secret' <$file);
}

my %there = judge($old);
plan skip_all => 'neither library could be had' unless %there;
diag('judged by: ' . join ', ', sort keys %there);
my $sink = Sink->new;
my $node = new_node('receivers', 'msgsys.webhook_allow' => '127.0.0.1');
my $session = session($node);
$session->query("SET client_min_messages = error; SELECT msg_channel_set('c'); SELECT msg_webhook_set('c', '" . $sink->url('/ok') . "')");
$session->query("SELECT msg_channel_rotate_secret('c', secret => '$old'); SELECT msg_channel_rotate_secret('c', secret => '$new')");
$session->query(q{INSERT INTO messages (channel, payload) SELECT 'c', jsonb_build_object('n', g, 'text', repeat('äöü "x" \\ ', g)) FROM generate_series(1, 50) g});
ok(poll_sql($node, 30, "SELECT count(*) FROM messages WHERE status = 'delivered'", 50), 'delivered');
my @requests = $sink->requests;
for my $secret ($old, $new)
{
	my %verdict = judge($secret, @requests);
	is_deeply($verdict{$_}, [ 50, 0 ], "$_ takes all, by " . ($secret eq $old ? 'the old secret' : 'the new one')) for sort keys %verdict;
}
my %changed = judge($new, map { { %$_, body => $_->{body} . ' ' } } @requests);
is_deeply($changed{$_}, [ 0, 50 ], "$_ takes no changed body") for sort keys %changed;
%changed = judge($new, map { { %$_, headers => { %{ $_->{headers} }, 'webhook-id' => 'another' } } } @requests);
is_deeply($changed{$_}, [ 0, 50 ], "$_ takes no other id") for sort keys %changed;
$node->stop;
$sink->stop;
done_testing();
