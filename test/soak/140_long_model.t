# The model's long histories (test/model/Long.pm): those that have failed before, and fresh ones for two hours (MODEL_SECONDS).
use strict;
use warnings;
use lib 'test/lib';
use MsgsysTest;    # at compile time, for what PostgreSQL's modules do then

$ENV{MODEL_LONG} = 1;
do './test/model/model.t';
die $@ if $@;
