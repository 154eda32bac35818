# dbt/tests/test_howto.py
#     docs/how-to/dbt.md, word for word: the files that it shows are written, the commands run, and what it says they print is there.
import os
import re
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = os.path.join(HERE, "..", "..", "docs", "how-to", "dbt.md")
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "examples"))

from example import PACKAGE, Example  # noqa: E402

FILE = re.compile(r"\A(?:#|--) (\S+)\n")


class Reader(Example):
    """Who follows the page, in an empty folder."""

    def start(self):
        self.cluster.start()
        self.cluster.start_applier()
        os.makedirs(self.directory)
        self.connection = self.cluster.connect()
        self.checked = 0

    def write(self, path, text):
        path = os.path.join(self.directory, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(re.sub(r"local: \S+", "local: " + PACKAGE, text))

    def follow(self, page):
        output = ""
        for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", page, re.M | re.S):
            if kind == "sh":
                output = self.run("bash", "-euc", "set -x\n" + block, DBT_USE_COLORS="false")
            elif kind == "output":
                for line in block.splitlines():
                    assert line in output, output
                    self.checked += 1
            else:
                self.write(FILE.match(block).group(1), block)


@pytest.fixture
def reader():
    reader = Reader("shop")
    try:
        reader.start()
        yield reader
    finally:
        reader.stop()


def test_the_page_can_be_followed(reader):
    with open(PAGE) as file:
        reader.follow(file.read())
    assert reader.checked == 9
    assert reader.query("select pgt_name from pgtrickle.pgt_stream_tables") == [("paid_orders",)]
    assert reader.value("select count(*) from pgtrickle.verify('shop.paid_orders')") == 0
