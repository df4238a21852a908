"""Partitions that come and go, for synthetic sites: some divide when they are large enough or when it is time, some follow one
another as time passes and are dropped when they are old. Random parameters, deterministic by seed; fitted to nothing.

Lines: (end_us, name, values of a tick), or (end_us, name, "split" or "gone").
"""

import numpy as np

PAGE = 4096
PARTS = 64
ALL = (1 << PARTS) - 1
# Partitions of one family at most.
MOST = 250


def log_uniform(rng, low, high):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def mask(begin, end, size):
    """`Tick::touched` of the bytes [begin, end) of a partition."""
    part = (1 << max(int(size) - 1, PARTS * PAGE - 1).bit_length()) // PARTS
    first, last = int(begin) // part, max(int(end) - 1, int(begin)) // part
    return ((1 << (min(last, PARTS - 1) + 1)) - 1) & ~((1 << min(first, PARTS - 1)) - 1)


class Partition:
    def __init__(self, name, size, born, growing):
        self.name, self.size, self.told, self.born, self.growing = name, int(size), 0, born, growing

    def tick(self, rng, family, appended):
        """What a tick in which so many bytes are appended looks like; with overwrites and reads beside."""
        before = self.told
        if before == 0 and self.size > 0:
            appended += self.size
            self.size = 0
        self.size += int(appended)
        self.told = self.size
        writes = max(1, int(appended / family.write_bytes)) if appended > 0 else 0
        over = int(rng.poisson(writes * family.overwrites)) if before > 0 else 0
        touched = mask(before, self.size, self.size) if appended > 0 else 0
        if over:
            begin = rng.uniform(0, 0.9) * self.size
            touched |= mask(begin, begin + 0.1 * self.size, self.size)
        most = self.size // PAGE + 1
        pages = int(min(most, appended // PAGE + (1 if appended > 0 else 0) + over))
        reads = int(rng.poisson(min(writes * family.reads, 1e5)))
        data = int(appended) + over * PAGE
        syncs = int(rng.poisson(family.syncs))
        return (writes + over, data, writes, over, pages, self.size - before, self.size, reads, reads * 2 * PAGE, syncs, touched)


class Family:
    """What its partitions have in common."""

    def __init__(self, rng, name, ticks, secs, begin):
        self.rng, self.name, self.ticks, self.secs, self.begin = rng, name, ticks, secs, begin
        self.number = 0
        self.write_bytes = log_uniform(rng, 512, 256 << 10)
        self.overwrites = log_uniform(rng, 0.05, 3) if rng.random() < 0.5 else 0.0
        self.reads = log_uniform(rng, 0.02, 5) if rng.random() < 0.5 else 0.0
        self.syncs = log_uniform(rng, 0.1, 10) if rng.random() < 0.8 else 0.0
        self.busy = rng.uniform(0.3, 1)

    def at(self, tick):
        """The end of a tick, µs."""
        return self.begin + int((tick + 1) * self.secs * 1e6)

    def new(self, size, born, growing):
        self.number += 1
        return Partition(f"{self.name}{self.number}", size, born, growing)


def dividing(rng, name, ticks, secs, begin):
    """Some of its partitions grow, and divide: at a size, or at a time."""
    family = Family(rng, name, ticks, secs, begin)
    by_time = rng.random() < 0.35
    size, every = log_uniform(rng, 512 << 10, 256 << 20), log_uniform(rng, 4, ticks / 4)
    jitter, share = rng.uniform(0, 0.15), rng.uniform(0.2, 0.7)
    both, in_place, stays = rng.random() < 0.3, rng.random() < 0.2, rng.random() < 0.3
    rate = size * (1 - share) / every / family.busy
    lines, growing = [], []
    limit = {}

    def begun(partition):
        limit[partition.name] = max(0.2, 1 + jitter * rng.standard_normal()), log_uniform(rng, 0.5, 2)
        growing.append(partition)

    for _ in range(int(rng.integers(1, 6))):
        born = int(rng.uniform(0, ticks / 3))
        begun(family.new(rng.uniform(0.01, 0.9) * size, born, rng.random() < 0.75))
    for tick in range(ticks):
        for partition in list(growing):
            if tick < partition.born:
                continue
            first = partition.told == 0
            # One that does not grow is written now and then: it does not divide.
            grows = partition.growing and rng.random() < family.busy
            if not first and not grows and rng.random() > 0.02:
                continue
            factor, speed = limit[partition.name]
            appended = rng.gamma(2, rate * speed / 2) if grows else 0
            values = partition.tick(rng, family, appended)
            if values[0] or values[7]:
                lines.append((family.at(tick), partition.name, values))
            due = tick - partition.born >= every * factor if by_time else partition.size >= size * factor
            if not (partition.growing and due and partition.size > 8 * PAGE) or family.number > MOST:
                continue
            at = family.at(tick) + int(rng.uniform(0.05, 0.9) * secs * 1e6)
            lines.append((at, partition.name, "split"))
            growing.remove(partition)
            last = family.new(partition.size * share, tick + 1, True)
            begun(last)
            if in_place:
                # The rest stays where it is, and is smaller.
                partition.size = int(partition.size * (1 - share))
                partition.growing, partition.born = both, tick + 1
                begun(partition)
                continue
            begun(family.new(partition.size * (1 - share), tick + 1, both))
            if not stays:
                lines.append((family.at(tick + 1 + int(rng.integers(0, 3))), partition.name, "gone"))
    end = family.at(ticks - 1)
    return [line for line in lines if line[0] <= end]


def rolling(rng, name, ticks, secs, begin):
    """One after the other is filled for a while, and dropped when it is old: never divided."""
    family = Family(rng, name, ticks, secs, begin)
    every, kept = log_uniform(rng, max(3, ticks / MOST), ticks / 6), int(rng.integers(2, 11))
    size = log_uniform(rng, 64 << 10, 256 << 20)
    lines = []
    for number in range(int(ticks / every) + 1):
        born, end = int(number * every), int((number + 1) * every)
        partition = family.new(0, born, True)
        rate = size * rng.uniform(0.5, 1.5) / every / family.busy
        for tick in range(born, min(end, ticks)):
            if rng.random() < family.busy:
                lines.append((family.at(tick), partition.name, partition.tick(rng, family, rng.gamma(2, rate / 2))))
        dropped = int(born + (kept + 1) * every)
        if dropped < ticks and partition.told:
            lines.append((family.at(dropped), partition.name, "gone"))
    return lines


def of_site(seed, ticks, secs, begin):
    """Lines of the families of a site, and whether all its partitions lie in one directory, as those of PostgreSQL do."""
    rng = np.random.default_rng([seed, 2])
    together = bool(rng.random() < 0.5)
    lines = []
    for number in range(int(rng.choice([0, 1, 2, 3]))):
        lines += dividing(rng, f"dividing{number}/p", ticks, secs, begin)
    for number in range(int(rng.choice([0, 1, 2]))):
        lines += rolling(rng, f"rolling{number}/p", ticks, secs, begin)
    return lines, together
