# dbt/tests/test_rows.py
#     The table of acceptance rows in the README is what tests/rows.py writes.
import rows


def test_table_is_current():
    is_there, should_be = rows.readme_with_table()
    assert is_there == should_be, "run dbt/tests/rows.py"
