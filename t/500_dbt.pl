# t/500_dbt.pl
#
# Goal: the dbt package works with this build: a project through its life, from the first run to full refresh.
# Method: one file of the package's tests, dbt/tests/test_first_model.py, on a cluster of its own, in the virtual environment that tools/dbt-venv makes.  All of
# them are `make check-dbt`.
#
# The environment is kept between runs.  Where there is no way to the package index, PGTRICKLE_SKIP_DBT=1 leaves this out.
use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Test::More;

plan skip_all => 'PGTRICKLE_SKIP_DBT is set' if $ENV{PGTRICKLE_SKIP_DBT};
my $top = abs_path(dirname(__FILE__) . '/..');
my $venv = qx{'$top/tools/dbt-venv'};
is($?, 0, 'the virtual environment for dbt is there')
  or diag('without it: PGTRICKLE_SKIP_DBT=1');
chomp $venv;
chdir "$top/dbt/tests" or die "could not enter dbt/tests: $!";
my $bindir = qx{"\${PG_CONFIG:-pg_config}" --bindir};
chomp $bindir;
local $ENV{PATH} = "$bindir:$ENV{PATH}";
local $ENV{PYTHONDONTWRITEBYTECODE} = 1;
local $ENV{LC_ALL} = 'C.UTF-8';
my $output = qx{'$venv/bin/python' -m pytest test_first_model.py 2>&1};
is($?, 0, 'the tests of the first model pass') or diag($output);
done_testing();
