# dbt/tests/helpers.py
#     What the tests of the acceptance rows share: files of a project, results of dbt, and the question whether a stream table is right.
import json
import os

from dbt.tests.util import run_dbt, write_file


def put(project, path, text):
    """Writes a file of the project."""
    path = os.path.join(project.project_root, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_file(text, path)


def take_away(project, path):
    os.remove(os.path.join(project.project_root, path))


def run(*arguments, expect_pass=True):
    """Runs dbt; the message of each node by its name."""
    return {result.node.name: result.message for result in run_dbt(list(arguments), expect_pass=expect_pass).results}


def statuses(*arguments, expect_pass=None):
    """Runs dbt; the status of each node by its name."""
    return {result.node.name: str(result.status) for result in run_dbt(list(arguments), expect_pass=expect_pass).results}


def execute(project, sql, fetch=None):
    """{schema} is the project's own schema; with project.run_sql() it is that of the target of the last command."""
    return project.run_sql(sql.replace("{schema}", project.test_schema), fetch=fetch)


def one(project, sql):
    """The only value of a query."""
    return execute(project, sql, fetch="one")[0]


def rows(project, sql):
    return execute(project, sql, fetch="all")


def differences(project, *names):
    """In how many rows stream tables differ from their queries, at one snapshot each."""
    return {name: one(project, "select count(*) from pgtrickle.verify('{schema}.%s')" % name) for name in names}


def assert_current(project, *names):
    assert differences(project, *names) == dict.fromkeys(names, 0)


def wait_fresh(project, name):
    assert one(project, "select pgtrickle.wait_fresh('{schema}.%s', '30s')" % name)


def oid(project, name):
    return one(project, "select to_regclass('{schema}.%s')::oid" % name)


def option(project, name, column):
    return one(project, "select %s from pgtrickle.pgt_stream_tables where pgt_schema = '{schema}' and pgt_name = '%s'" % (column, name))


def is_stream_table(project, name):
    return one(project, "select count(*) from pgtrickle.pgt_stream_tables where pgt_schema = '{schema}' and pgt_name = '%s'" % name) == 1


def artifact(project, name):
    with open(os.path.join(project.project_root, "target", name)) as file:
        return json.load(file)
