# dbt/tests/test_package.py
#     Acceptance rows A01, B01, D10, D24, D30, D33: installing, debugging, selecting, the operations for people.  dbt runs as a program here where that matters.
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import PACKAGE
from dbt.tests.util import run_dbt, run_dbt_and_capture
from helpers import artifact, is_stream_table, one, put, rows, run, take_away

MODEL = "{{ config(materialized='pgtrickle', schedule='1s') }} select 1 as id"


def program(*arguments, cwd, **environment):
    """dbt as a program; its output.  It has to succeed."""
    done = subprocess.run([sys.executable, "-c", "from dbt.cli.main import cli; cli()", *arguments], cwd=cwd, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, env={**os.environ, "DBT_LOG_PATH": str(cwd), "DBT_PROFILES_DIR": str(cwd), **environment})
    assert done.returncode == 0, done.stdout
    return done.stdout


class TestInstalling:
    def project(self, directory, cluster, packages):
        files = {"dbt_project.yml": {"name": "installs", "profile": "installs", "version": "1.0", "models": {"installs": {"+materialized": "pgtrickle"}}},
                 "packages.yml": {"packages": packages},
                 "profiles.yml": {"installs": {"target": "dev", "outputs": {"dev": {
                     "type": "postgres", "threads": 4, "host": cluster.directory, "port": 5432, "user": "postgres", "dbname": "postgres",
                     "pass": "{{ env_var('DB_PASSWORD') }}", "schema": "installs"}}}}}
        os.makedirs(directory / "models")
        for name, content in files.items():
            (directory / name).write_text(yaml.safe_dump(content))
        (directory / "models" / "one.sql").write_text("select 1 as id")
        return directory

    def test_A01_local_package(self, cluster, tmp_path):
        directory = self.project(tmp_path / "project", cluster, [{"local": PACKAGE}])
        program("deps", cwd=directory, DB_PASSWORD="x")
        output = program("parse", "--warn-error", cwd=directory, DB_PASSWORD="x")
        assert "error" not in output.lower()
        with open(os.path.join(PACKAGE, "dbt_project.yml")) as file:
            package = yaml.safe_load(file)
        assert package["name"] == "dbt_pgtrickle" and tuple(map(int, package["version"].split("."))) >= (0, 36, 0)
        assert not os.path.exists(os.path.join(PACKAGE, "packages.yml"))

    def test_A01_git_package_in_a_subdirectory(self, cluster, tmp_path):
        repository = tmp_path / "repository"
        shutil.copytree(PACKAGE, repository / "dbt", ignore=shutil.ignore_patterns("tests", "examples", "target", "logs", "dbt_packages"))
        git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(repository)]
        for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "x"]):
            subprocess.run(git + command, check=True, stdout=subprocess.DEVNULL)
        directory = self.project(tmp_path / "project", cluster, [{"git": "file://%s" % repository, "subdirectory": "dbt", "revision": "main"}])
        program("deps", cwd=directory, DB_PASSWORD="x")
        program("parse", cwd=directory, DB_PASSWORD="x")
        assert os.path.exists(directory / "dbt_packages" / "dbt_pgtrickle" / "dbt_project.yml")

    def test_B01_init_and_debug(self, cluster, tmp_path):
        program("init", "analytics_pipeline", "--skip-profile-setup", cwd=tmp_path)
        assert (tmp_path / "analytics_pipeline" / "dbt_project.yml").exists()
        directory = self.project(tmp_path / "project", cluster, [{"local": PACKAGE}])
        program("deps", cwd=directory, DB_PASSWORD="x")
        output = program("debug", cwd=directory, DB_PASSWORD="x")
        assert "All checks passed" in output
        output = program("run-operation", "pgtrickle_doctor", cwd=directory, DB_PASSWORD="x")
        assert "applier" in output and "connected" in output


class TestOperations:
    @pytest.fixture(scope="class")
    def models(self):
        return {"first.sql": MODEL, "second.sql": "{{ config(materialized='pgtrickle', schedule='1s', tags=['hourly']) }} select id from {{ ref('first') }}",
                "plain.sql": "{{ config(materialized='view') }} select 1 as id"}

    def test_D10_selection(self, project):
        assert set(run("run", "--select", "first")) == {"first"}
        assert set(run("run", "--select", "first+")) == {"first", "second"}
        assert set(run("run", "--select", "tag:hourly")) == {"second"}
        assert set(run("run", "--select", "config.materialized:pgtrickle")) == {"first", "second"}
        assert set(run("run", "--select", "models/first.sql")) == {"first"}
        assert set(run("run", "--exclude", "config.materialized:pgtrickle")) == {"plain"}
        put(project, "selectors.yml", """
selectors:
  - name: streams
    default: true
    definition: {method: config.materialized, value: pgtrickle}
""")
        assert set(run("run")) == {"first", "second"}
        take_away(project, "selectors.yml")

    def test_D24_what_was_made_can_be_inspected(self, project):
        assert [row[0] for row in rows(project, "select pgt_name from pgtrickle.stream_tables_info where pgt_schema = '{schema}' order by 1")] == ["first", "second"]
        assert len(rows(project, "select * from pgtrickle.pgt_status() where name like '%%{schema}%%'")) == 2

    def test_D30_a_changed_schedule_is_a_modified_config(self, project):
        run("run")
        state = os.path.join(project.project_root, "state")
        os.makedirs(state)
        shutil.copy(os.path.join(project.project_root, "target", "manifest.json"), state)
        put(project, "models/first.sql", MODEL.replace("1s", "2s"))
        assert run_dbt(["ls", "--select", "state:modified.configs", "--state", "state"]) == ["test.first"]
        assert run("run", "--select", "state:modified", "--state", "state") == {"first": "ALTER STREAM TABLE: schedule 1s -> 2s"}

    def test_D33_ghosts_are_listed_and_dropped(self, project):
        put(project, "models/ghost.sql", MODEL)
        project.run_sql("create table {schema}.by_hand as select 1 as id")
        project.run_sql("select pgtrickle.create_stream_table('{schema}.not_of_dbt', 'select id from {schema}.by_hand')")
        run("run")
        take_away(project, "models/ghost.sql")
        _, output = run_dbt_and_capture(["run-operation", "pgtrickle_orphans"])
        assert "ghost" in output and "first" not in output
        assert is_stream_table(project, "ghost")
        _, output = run_dbt_and_capture(["run-operation", "pgtrickle_orphans", "--args", "{drop: true}"])
        assert not is_stream_table(project, "ghost") and is_stream_table(project, "second") and is_stream_table(project, "not_of_dbt")
        _, output = run_dbt_and_capture(["run-operation", "pgtrickle_orphans"])
        assert "no orphans" in output

    def test_D24_doctor_says_what_is_missing(self, project, applier_stopped):
        _, output = run_dbt_and_capture(["run-operation", "pgtrickle_doctor"], expect_pass=False)
        assert "no applier is connected" in output

    def test_D24_operations_of_upstream(self, project):
        for operation in ("refresh_all_stream_tables", "pgtrickle_check_freshness", "pgtrickle_check_cdc_health"):
            run_dbt(["run-operation", operation])
        run_dbt(["run-operation", "pgtrickle_refresh", "--args", "{relation: %s.first}" % project.test_schema])
        run_dbt(["run-operation", "drop_all_stream_tables"])
        assert not is_stream_table(project, "first") and not is_stream_table(project, "second")
        assert is_stream_table(project, "not_of_dbt"), "only those that the project made"
