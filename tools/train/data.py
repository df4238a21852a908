"""Rows as `weft trace features` writes them: a directory of NumPy arrays and about.json. Features are computed there and
nowhere else, so that training and serving cannot differ."""

import hashlib
import json
from pathlib import Path

import numpy as np

from outputs import COLUMNS, HORIZONS, SPLIT_HORIZONS, WIDTH


class Rows:
    """Row for row: `x` float32 [n, features]; `y` float32 [n, WIDTH] in the order of a model's outputs, NaN where nobody
    knows; `left` seconds to the end of the trace; `at` seconds since 1970; `key` number of the partition; `weight` how
    many rows it stands for; `baselines` name -> float32 [n, WIDTH]."""

    def __init__(self, directory):
        directory = Path(directory)
        self.name = directory.name
        self.about = json.loads((directory / "about.json").read_text())
        load = lambda name: np.load(directory / f"{name}.npy", mmap_mode="r")
        self.x, self.weight = load("features"), np.array(load("weight"))
        self.at, self.key = load("at_us") // 1_000_000, np.array(load("partition"))
        labels = load("labels")
        label = {name: labels[:, i] for i, name in enumerate(self.about["labels"])}
        self.left = label["left_secs"]
        self.y = np.full((len(self.x), WIDTH), np.nan, np.float32)
        for column, horizon in zip(self._columns("p_split"), SPLIT_HORIZONS):
            self.y[:, column] = label[f"split_{horizon}s"]
        for column in self._columns("split_secs"):
            self.y[:, column] = label["split_secs"]
        self.y[:, COLUMNS["split_point"].start] = label["split_point"]
        for output, name in (("pages", "pages"), ("bytes", "bytes"), ("reads", "reads"), ("p_quiet", "quiet")):
            for column, horizon in zip(self._columns(output), HORIZONS):
                self.y[:, column] = label[f"{name}_{horizon}s"]
        self._drop_what_is_not_observed()
        self.baselines = {name: load(f"baseline_{name}") for name in self.about["baselines"]}

    def _columns(self, output):
        return range(*COLUMNS[output].indices(WIDTH))

    def _drop_what_is_not_observed(self):
        """A source without any split, read or write says nothing of them: absent is not never."""
        self.splits = bool(np.nanmax(self.y[:, COLUMNS["p_split"]], initial=0) > 0)
        if not self.splits:
            for output in ("p_split", "split_secs", "split_point"):
                self.y[:, COLUMNS[output]] = np.nan
        if not np.nanmax(self.y[:, COLUMNS["reads"]], initial=0) > 0:
            self.y[:, COLUMNS["reads"]] = np.nan
        if not np.nanmax(self.y[:, COLUMNS["bytes"]], initial=0) > 0:
            for output in ("pages", "bytes", "p_quiet"):
                self.y[:, COLUMNS[output]] = np.nan

    def split(self, *shares):
        """The moments at which so much of the time has passed."""
        moments = np.unique(self.at)
        return [moments[min(int(len(moments) * share), len(moments) - 1)] for share in shares]

    def within(self, begin, end):
        """Rows of [begin, end), with targets blanked that reach beyond: what comes later is not known yet."""
        index = np.flatnonzero((self.at >= begin) & (self.at < end))
        y = self.y[index].copy()
        left = np.minimum(self.left[index], end - self.at[index])
        for output, horizons in (("p_split", SPLIT_HORIZONS), *((o, HORIZONS) for o in ("pages", "bytes", "reads", "p_quiet"))):
            for column, horizon in zip(self._columns(output), horizons):
                y[left < horizon, column] = np.nan
        if self.splits:
            # No split until then is known, and no more: told as a negative number (`net.losses`).
            secs = y[:, COLUMNS["split_secs"].start]
            late = ~(secs <= left)
            y[late, COLUMNS["split_secs"]] = -left[late, None]
            y[late, COLUMNS["split_point"].start] = np.nan
        return index, y


def sha256(*paths):
    """Of the bytes of files, one after the other."""
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()
