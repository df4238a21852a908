"""Sites that never were: traces of simple processes with random parameters, to train on more kinds of work than anyone has
recorded. Nothing here is fitted to a recorded trace.

    python tools/train/synthetic.py OUT.csv --seed 7

A site is a few families of partitions. Each family is one kind of work: steady, on and off, periodic, heavy-tailed gaps,
a hot set that moves, a scan that comes once or again and again, growth by appending, reads. Beside that a family may be read
while it is written, synced often, grow a little by what overwrites it, or be emptied when it is full: as tables are.
Partitions that divide, and those that follow one another, are in lineages.py. Deterministic by seed.
"""

import argparse

import numpy as np

import lineages

HEAD = "end_us,partition,what,span_us,writes,bytes,appends,overwrites,pages,growth,size,reads,read_bytes,fsyncs,touched"
PAGE = 4096
EXTENT = 1 << 20
BEGIN = 1_700_006_400


def log_uniform(rng, low, high, size=None):
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


class Family:
    """Counts of writes per tick and partition, and how each write looks."""

    def __init__(self, rng, beside, name, ticks, tick_secs):
        self.rng, self.name, self.ticks, self.secs = rng, name, ticks, tick_secs
        # What goes on beside the work: reads per write, syncs per busy tick, share of writes that append, size when emptied.
        self.beside = beside
        self.read_ratio = log_uniform(beside, 0.02, 20) if beside.random() < 0.6 else 0.0
        self.sync_mean = log_uniform(beside, 0.1, 20) if beside.random() < 0.5 else 0.0
        self.creep = log_uniform(beside, 0.002, 0.5) if beside.random() < 0.5 else 0.0
        self.full = log_uniform(beside, 256 << 10, 32 << 20) if beside.random() < 0.25 else np.inf
        self.count = int(log_uniform(rng, 2, 120))
        self.counts = np.zeros((self.count, ticks), np.int64)
        self.bytes_each = log_uniform(rng, 512, 64 << 10) * log_uniform(rng, 0.3, 3, self.count)
        self.hot_parts = rng.integers(1, 9, self.count)
        self.mean = log_uniform(rng, 0.5, 60)
        self.growing = False
        self.sequential = False

    def burst(self, mean):
        return 1 + self.rng.poisson(max(mean, 0.01))

    def steady(self):
        rates = log_uniform(self.rng, 0.002, 5, self.count) * self.secs / 10
        self.counts += self.rng.poisson(rates[:, None], self.counts.shape)

    def on_and_off(self):
        on, off = log_uniform(self.rng, 1, 60), log_uniform(self.rng, 3, 600)
        together = self.rng.random() < 0.4
        for row in self.counts:
            at = int(self.rng.exponential(off))
            if together and row is not self.counts[0]:
                row[:] = np.where(self.counts[0] > 0, self.rng.poisson(self.mean, self.ticks), 0)
                continue
            while at < self.ticks:
                end = min(self.ticks, at + 1 + int(self.rng.exponential(on)))
                row[at:end] += self.rng.poisson(self.mean, end - at)
                at = end + 1 + int(self.rng.exponential(off))

    def periodic(self):
        period = log_uniform(self.rng, 6, self.ticks / 3)
        jitter, length = self.rng.uniform(0, 0.2), self.rng.integers(1, 7)
        for row in self.counts:
            at = self.rng.uniform(0, period)
            while at < self.ticks:
                row[int(at) : int(at) + length] += self.burst(self.mean)
                at += period * (1 + jitter * self.rng.standard_normal())
                if self.rng.random() < 0.01:
                    break

    def heavy_tailed(self):
        shape, least = self.rng.uniform(0.6, 2), log_uniform(self.rng, 0.5, 20)
        for row in self.counts:
            at = self.rng.uniform(0, self.ticks / 2)
            while at < self.ticks:
                row[int(at)] += self.burst(self.mean / 10)
                at += least * (1 + self.rng.pareto(shape))

    def moving(self):
        size, stay = max(1, int(self.count * self.rng.uniform(0.02, 0.4))), log_uniform(self.rng, 6, 400)
        step = int(self.rng.integers(1, size + 1))
        for tick in range(self.ticks):
            first = int(tick / stay) * step
            hot = (first + np.arange(size)) % self.count
            self.counts[hot, tick] += self.rng.poisson(self.mean / 3, size)

    def scan(self, again):
        """Writes each partition once, one after the other; `again`: at intervals, as a nightly job does."""
        self.count = int(log_uniform(self.rng, 40, 600))
        self.counts = np.zeros((self.count, self.ticks), np.int64)
        self.bytes_each = np.full(self.count, log_uniform(self.rng, 16 << 10, 256 << 10))
        self.hot_parts = np.full(self.count, 64)
        self.sequential = True
        lasts = max(2, int(log_uniform(self.rng, 4, self.ticks / 2)))
        period = log_uniform(self.rng, lasts * 1.5, self.ticks) if again else np.inf
        begin = self.rng.uniform(0, min(period, self.ticks / 2))
        random_order = self.rng.random() < 0.3
        while begin < self.ticks:
            order = self.rng.permutation(self.count) if random_order else np.arange(self.count)
            ticks = (begin + lasts * np.arange(self.count) / self.count).astype(int)
            kept = ticks < self.ticks
            part = self.rng.random(self.count) < self.rng.uniform(0.6, 1)
            np.add.at(self.counts, (order[kept & part], ticks[kept & part]), self.burst(EXTENT / self.bytes_each[0]))
            begin += period * (1 + 0.05 * self.rng.standard_normal())

    def once(self):
        """A new place for nearly every write: nothing to foresee."""
        self.count = int(log_uniform(self.rng, 60, 1200))
        self.counts = np.zeros((self.count, self.ticks), np.int64)
        self.bytes_each = np.full(self.count, log_uniform(self.rng, 512, 64 << 10))
        self.hot_parts = np.full(self.count, 2)
        self.counts[np.arange(self.count), self.rng.integers(0, self.ticks, self.count)] = 1

    def appending(self):
        self.growing = True
        self.count = int(log_uniform(self.rng, 2, 60))
        self.counts = np.zeros((self.count, self.ticks), np.int64)
        self.bytes_each = log_uniform(self.rng, 512, 64 << 10, self.count)
        self.hot_parts = np.ones(self.count, int)
        for row in self.counts:
            rate = log_uniform(self.rng, 0.002, 4)
            begin = int(self.rng.uniform(0, self.ticks * 0.7))
            end = int(begin + self.rng.exponential(self.ticks))
            idle = self.rng.uniform(0, 0.9)
            on = self.rng.random((self.ticks + 11) // 12 * 12).reshape(-1, 12)[:, :1].repeat(12, 1).reshape(-1)[: self.ticks]
            row[begin:end] = (self.rng.poisson(rate * self.secs / 10, self.ticks) * (on > idle))[begin:end]

    def daily(self):
        """Slows every process down at night; half of the sites that are long enough."""
        hours = (np.arange(self.ticks) * self.secs / 3_600 + self.rng.uniform(0, 24)) % 24
        level = np.clip(0.5 + 0.6 * np.sin(hours / 24 * 2 * np.pi), 0.02, 1)
        self.counts = self.rng.binomial(self.counts, level[None, :])

    def lines(self, reads):
        rng, beside, tick_us = self.rng, self.beside, int(self.secs * 1e6)
        creep = 0.0 if reads or self.growing or self.sequential else self.creep
        size = np.full(self.count, EXTENT if not self.growing else 0, np.int64)
        size = size * rng.choice([1, 1, 8, 64]) if not self.growing else rng.integers(0, 48 << 10, self.count)
        if creep:
            size = log_uniform(beside, 8 << 10, 64 << 20, self.count).astype(np.int64)
        parts = np.array([rng.choice(64, min(int(n), 64), replace=False) for n in self.hot_parts], dtype=object)
        for tick in range(self.ticks):
            for i in np.flatnonzero(self.counts[:, tick]):
                n = int(self.counts[i, tick])
                data = max(1, int(n * self.bytes_each[i] * rng.uniform(0.7, 1.4)))
                end = BEGIN * 1_000_000 + (tick + 1) * tick_us
                if reads:
                    yield end, f"{self.name}{i}", (0, 0, 0, 0, 0, 0, int(size[i]), n, data, 0, 0)
                    continue
                appends = n if self.growing else int(beside.binomial(n, creep))
                growth = data * appends // n
                if appends and size[i] + growth > self.full:
                    growth = growth - int(size[i])
                size[i] += growth
                room = max(1, int(size[i]) // PAGE)
                if self.sequential:
                    touched, most = (1 << 64) - 1, room
                elif self.growing:
                    touched, most = 1 << min(63, int((size[i] - 1) * 64 // (1 << int(max(size[i], 64 * PAGE) - 1).bit_length()))), room
                else:
                    chosen = rng.choice(parts[i], min(n, len(parts[i])), replace=False)
                    touched, most = int(sum(1 << int(bit) for bit in chosen)), max(1, room * len(parts[i]) // 64)
                pages = int(min(max(1, data // PAGE), most))
                read = int(beside.poisson(min(n * self.read_ratio, 1e6))) if self.read_ratio else 0
                synced = int(beside.poisson(self.sync_mean)) if self.sync_mean else int(n > 3)
                counts = (n, data, appends, n - appends, pages, growth, int(size[i]), read, read * 2 * PAGE, synced, touched)
                yield end, f"{self.name}{i}", counts


KINDS = ("steady", "on_and_off", "periodic", "heavy_tailed", "moving", "scan", "rescan", "once", "appending", "reading")


def site(seed):
    """Lines of a trace, and the seconds of a tick."""
    rng, beside = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    secs, ticks = [(10, 900), (10, 1_500), (60, 1_440), (300, 1_152)][rng.integers(4)]
    lines = []
    for number, kind in enumerate(rng.choice(KINDS, rng.integers(3, 8))):
        family = Family(rng, beside, f"{kind}{number}/", ticks, secs)
        if kind in ("scan", "rescan"):
            family.scan(kind == "rescan")
        elif kind == "reading":
            getattr(family, rng.choice(["steady", "on_and_off", "heavy_tailed", "moving"]))()
        else:
            getattr(family, kind)()
        if ticks * secs > 80_000 and rng.random() < 0.5:
            family.daily()
        lines.extend(family.lines(kind == "reading"))
    more, one_directory = lineages.of_site(seed, ticks, secs, BEGIN * 1_000_000)
    lines += more
    # At one moment a tick comes before a split, and that before the end of its partition.
    order = {"split": 1, "gone": 2}
    lines.sort(key=lambda line: (line[0], order.get(line[2], 0) if isinstance(line[2], str) else 0, line[1]))
    if one_directory:
        numbers = {}
        lines = [(end, f"base/5/{numbers.setdefault(name, 16384 + len(numbers))}", values) for end, name, values in lines]
    return lines, secs


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    lines, secs = site(args.seed)
    span = int(secs * 1e6)
    with open(args.out, "w") as out:
        out.write(f"#weft-trace 1 tick_us={span} source=synthetic-{args.seed}\n{HEAD}\n")
        for end, name, values in lines:
            if isinstance(values, str):
                out.write(f"{end},{name},{values}\n")
                continue
            *numbers, touched = values
            out.write(f"{end},{name},tick,{span},{','.join(map(str, numbers))},{touched:016x}\n")
    print(f"synthetic: {len(lines)} lines")


if __name__ == "__main__":
    main()
