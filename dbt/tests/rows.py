#!/usr/bin/env python3
# dbt/tests/rows.py
#     The table of acceptance rows in dbt/README.md: row, what the user does, the tests that show it.  Run it to write the table again.
#
# acceptance.txt has the rows.  A test belongs to the row with whose id its name starts: test_A06_second_run_does_nothing.
import glob
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
README = os.path.join(os.path.dirname(HERE), "README.md")
BEGIN, END = "<!-- rows: written by tests/rows.py -->\n", "<!-- end of rows -->\n"


def tests_by_row():
    found = {}
    for path in sorted(glob.glob(os.path.join(HERE, "test_*.py"))):
        with open(path) as file:
            for name in re.findall(r"def (test_[A-Z]\d\d_\w+)", file.read()):
                found.setdefault(name[5:8], []).append("`%s::%s`" % (os.path.basename(path), name))
    return found


def table():
    tests = tests_by_row()
    with open(os.path.join(HERE, "acceptance.txt")) as file:
        rows = [line.rstrip("\n").split(" ", 1) for line in file]
    lines = ["%d of %d rows have a test.\n" % (len(tests), len(rows)), "\n", "| row | what the user does | tests | state |\n", "|---|---|---|---|\n"]
    for row, text in rows:
        lines.append("| %s | %s | %s | %s |\n" % (row, text, "<br>".join(tests.get(row, [])), "tested" if row in tests else "missing"))
    return "".join(lines)


def readme_with_table():
    with open(README) as file:
        text = file.read()
    before, rest = text.split(BEGIN)
    return text, before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    new = readme_with_table()[1]
    with open(README, "w") as file:
        file.write(new)
