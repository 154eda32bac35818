# demo/view.py
#     What the person at the terminal sees: a frame drawn in place, or plain lines without a terminal.
#
# Draws only; run collects what is drawn into a Frame.
import shutil
import sys
import time

BAR_WIDTH = 46
PLAIN_EVERY_S = 5.0


class Frame:
    """One moment of the demo."""

    def __init__(self):
        self.part_done = 0.0
        self.simulated_at = 0.0
        self.changes = 0
        self.changes_per_s = 0.0
        self.transactions_per_s = 0.0
        self.seconds_left = None
        self.tables = []        # (name, rows, refreshes, p50 ms or None, p99 ms or None)
        self.samples = []       # (title, column names, rows)


class View:
    def __init__(self, plain):
        self._plain = plain or not sys.stdout.isatty()
        self._lines_drawn = 0
        self._plain_due_at = 0.0

    def say(self, text):
        """A line that stays."""
        self._lines_drawn = 0
        print(text, flush=True)

    def draw(self, frame):
        if self._plain:
            if time.monotonic() >= self._plain_due_at:
                self._plain_due_at = time.monotonic() + PLAIN_EVERY_S
                print(plain_line(frame), flush=True)
            return
        size = shutil.get_terminal_size()
        lines = [line[:size.columns - 1] for line in frame_lines(frame)][:size.lines - 1]
        # Back to the first line of the last frame, and each line over the old one: no flicker.
        up = "\x1b[%dF" % self._lines_drawn if self._lines_drawn else ""
        sys.stdout.write(up + "".join("\x1b[2K" + line + "\n" for line in lines) + "\x1b[J")
        sys.stdout.flush()
        self._lines_drawn = len(lines)


def frame_lines(frame):
    filled = int(BAR_WIDTH * frame.part_done)
    lines = [
        "",
        "  [%s%s] %3d %%  %s" % ("#" * filled, "-" * (BAR_WIDTH - filled), frame.part_done * 100,
                                 "" if frame.seconds_left is None else "%d s left" % frame.seconds_left),
        "  simulated %s UTC   %s changes/s in %d transactions/s   %s changes so far" % (
            simulated(frame), number(frame.changes_per_s), frame.transactions_per_s, number(frame.changes)),
        "",
        "  %-16s %10s %10s    %s" % ("stream table", "rows", "refreshes", "commit to visible: p50       p99"),
    ]
    for name, rows, refreshes, p50, p99 in frame.tables:
        lines.append("  %-16s %10s %10s    %22s %9s" % (name, number(rows), number(refreshes), ms(p50), ms(p99)))
    for title, names, rows in frame.samples:
        lines += ["", "  " + title] + table_lines(names, rows)
    return lines


def plain_line(frame):
    waits = ["%s %s/%s" % (name, ms(p50), ms(p99)) for name, _, _, p50, p99 in frame.tables]
    return "%3d %%  %s  %s changes/s  p50/p99: %s" % (
        frame.part_done * 100, simulated(frame), number(frame.changes_per_s), ", ".join(waits))


def table_lines(names, rows):
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max([len(name)] + [len(row[i]) for row in cells]) for i, name in enumerate(names)]
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(names))]

    def line(values):
        return "    " + "  ".join(
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric)).rstrip()
    return [line(names)] + [line(row) for row in cells]


def cell(value):
    return "" if value is None else number(value) if isinstance(value, int) else str(value)


def simulated(frame):
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(frame.simulated_at))


def number(value):
    return "{:,.0f}".format(value)


def ms(value):
    return "-" if value is None else "%.1f ms" % value
