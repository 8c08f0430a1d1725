# docs/reference.md is what the catalogue says: each function and column is in it, with its comment.
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;
use Test::More;

my $node = new_node('reference');
my ($code, $out, $err) = $node->psql('postgres', undef, extra_params => [ '-f', 'test/tools/reference.sql' ], on_error_stop => 1);
is($code, 0, 'the reference can be written') or diag($err);
open(my $file, '<', 'docs/reference.md') or die "docs/reference.md: $!";
my $is = do { local $/; <$file> };
s/\s+\z// for $is, $out;
ok($is eq $out, 'docs/reference.md is as test/tools/reference.sql writes it') or diag('test/tools/reference writes it anew');
$node->stop;
done_testing();
