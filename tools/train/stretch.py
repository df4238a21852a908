"""A trace whose time is stretched: what a run did in minutes, as if it had taken days. What was written stays; only the time
stamps and the length of the ticks grow. For horizons of an hour and a day, which no run of minutes can judge.

    python tools/train/stretch.py IN.csv[.gz] OUT.csv 450
"""

import gzip
import re
import sys


# The length of a tick, behind the name, which may be quoted.
TICK = re.compile(r'^((?:"(?:[^"]|"")*"|[^",]*),tick,)(\d+)(?=,)')


def stretch(lines, factor):
    """Lines of a trace, times so many; the first moment stays. `source=` says that it was done."""
    lines = iter(lines)
    head = next(lines)
    head = re.sub(r"tick_us=(\d+)", lambda found: f"tick_us={int(found[1]) * factor}", head)
    yield re.sub(r"source=(\S+)", rf"source=\1_stretched_{factor}", head)
    yield next(lines)
    begin = None
    for line in lines:
        end, rest = line.split(",", 1)
        begin = int(end) if begin is None else begin
        rest = TICK.sub(lambda found: f"{found[1]}{int(found[2]) * factor}", rest)
        yield f"{begin + (int(end) - begin) * factor},{rest}"


def main(source, out, factor):
    with (gzip.open(source, "rt") if source.endswith(".gz") else open(source)) as lines, open(out, "w") as made:
        made.writelines(stretch(lines, int(factor)))


if __name__ == "__main__":
    main(*sys.argv[1:])
