# t/619_unheard_gaps.pl
#
# Goal: a gap of which the target could not be told is not forgotten.
# Method: the slot is dropped; the first attempt to tell the target fails there, and the list of remotes can be read only later.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Replica;
use StreamTables::Session;
use Test::More;
use Time::HiRes qw(usleep);

my $replica = StreamTables::Replica->new('unheard');
my ($source, $target) = ($replica->source, $replica->target);
$source->sql('CREATE SCHEMA app; CREATE TABLE app.items (id int PRIMARY KEY, v int); INSERT INTO app.items SELECT i, i FROM generate_series(1, 100) i');
$target->start_applier;
$replica->copy('app.items');
$target->stop_applier;
$source->sql('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
$source->sql('UPDATE app.items SET v = -1 WHERE id < 10; DELETE FROM app.items WHERE id = 50');

$target->sql(
	q{CREATE SEQUENCE refused;
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.last_error_at IS NULL AND nextval('public.refused') = 1 THEN
			PERFORM pg_sleep(1);
			RAISE EXCEPTION 'not now';
		END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER refuse BEFORE UPDATE OF system_identifier ON pgtrickle.pgt_remote_states FOR EACH ROW EXECUTE FUNCTION refuse()});
my $log_end = -s $target->applier_log;
$target->start_applier;
$target->wait_until('SELECT is_called FROM refused', 'the target is being told');
my $lock = StreamTables::Session->new($target);
$lock->run('BEGIN; LOCK TABLE pgtrickle.pgt_copy_patterns');
my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
usleep(20_000) until substr(slurp_file($target->applier_log), $log_end) =~ /not now/ || time > $deadline;
usleep(600_000);
$lock->run('COMMIT');
$target->wait_until(q{SELECT times_copied = 2 AND status = 'ACTIVE' FROM pgtrickle.pgt_copy_states}, 'the copy is made anew');
$replica->settle;
$replica->is_equal('app.items');
$lock->quit;
$target->stop_applier;
done_testing();
