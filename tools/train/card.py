"""The card of a model: what trained it, how it scores beside the baselines, and where it does not win.

    python tools/train/card.py model.onnx scores.json CARD.md
"""

import json
import sys
from pathlib import Path

import onnx

import judge
from train import TRAIN, TRAIN_RUN, TUNE, TUNE_RUN

# As make-shipped stretches.
STRETCH = 450

HEAD = """# The shipped model

Written by `tools/train/card.py`; the model is `shipped.onnx` beside this file, made by `tools/train/make-shipped`.

- **For:** forecasts of writes, reads, quiet and splits per partition, which decide what is baked ahead. A wrong forecast costs
  restore speed only.
- **Kind:** three networks of two hidden layers, merged into one, that weigh experts (docs/decisions/0069-the-model.md), {size} bytes, ONNX IR 8, opset 17.
- **Features:** {features}, computed by Weft alone; schema `{schema}`.
- **Seed** {seed}, **date** {date}.
- **Split by time, each set by itself:** the first {train:.0%} trained, up to {tune:.0%} chose the epoch and calibrated, the rest is
  scored; of the `recorded_` sets, which are short, {train_run:.0%} and {tune_run:.0%}. Sets that trained nothing are scored from {untrained:.0%} on; what
  lies before finds the thresholds of all methods.
- **Simulated splits:** those of `file_growth_1996_2014` are a size threshold (64 KiB) on a real growth stream, 180 days as one day.
- **Real splits:** those of the `recorded_` and `unseen_` sets, in which record.py divides partitions of a real server by key when
  they have many rows (60,000; other seeds, other numbers) or are old, and Weft sees it in the server's log. `_by_size` is the same
  run with a split at each multiple of 4 MiB too, as its mount counted. Only rows whose horizon ends within the trace count.
- **An hour and a day:** no run of minutes can judge them. `_long` is the same run with its time stretched {stretch} times: 15 minutes
  are 4.7 days then, eight seconds an hour. What was written is real, how fast is not.
- **Unseen:** the `unseen_` sets are runs of other seeds (other rhythms, sizes, and rules of splitting), that trained nothing and chose
  nothing.
- Extents of one volume are neighbours and not independent: intervals resample {blocks} blocks of time, not rows.

## Training data

| source | licence | SHA-256 |
|---|---|---|
{data}

`vm_disk_2h` and `negative_control_4h` state no licence: they judged, and trained nothing. The hash of a run is that of its trace
(`tools/train/data/`), whichever way its rows were made. "Synthetic" is simple processes with random parameters (`synthetic.py`,
`lineages.py`), not fitted to any trace; its hash is that of the programs.

## Scores

Verdict: the 90 % interval of the difference to the best baseline lies wholly on one side. A lower Brier score, MASE, error or
miscalibration (mean distance of what was said from how often it came, by tenths) is better, and more of all else. Precision,
recall and lead time of splits: a probability of at least 0.5 counts as said; without a warning the lead is 0.

{table}
## Where it does not win

{losses}
There the fallback is the product: the ledger scores model and baselines on the same cases at the site, and the
standard rule decides while the model is worse.

## How far these scores can be trusted

Settings of the network were compared on the test parts before one was chosen, on public sets that train nothing too: of
these none is a clean hold-out. Features of past splits, the experts and their bounds came after a look at the recorded runs of
seed 1. The `unseen_` runs trained nothing, but an earlier model of this kind was judged on them once, and what it missed there
(children of splits, in directories of many kinds of tables) led to one more feature. They are of the same program as the others, with another
pace and other rules of splitting: not another site. Each verdict is one run of one seed. Shares of the top count distinct
pages, not requests. In a run a partition lives for seconds, and few of the rows, which are mostly of idle files, have a split ahead.
Stretched runs have the rhythm of days and the work of minutes: an hour and a day are judged by them and by `file_growth_1996_2014`
alone; a recording of a real site, of weeks, is missing.
"""


def main(path, scores, out):
    model = onnx.load(path)
    told = {prop.key: prop.value for prop in model.metadata_props}
    results = json.loads(Path(scores).read_text())
    data = [f"| {one['name']} | {one['licence']} | `{one['sha256'][:16]}…` |" for one in json.loads(told["data"])]
    losses = [
        f"- {name}: {row['score']}: {row['values']['model']:.3f}, {row['best_baseline']} {row['values'][row['best_baseline']]:.3f}."
        for name, rows in results.items()
        for row in rows
        if row["verdict"] == "loses"
    ]
    even = sum(row["verdict"] == "even" for rows in results.values() for row in rows)
    losses.append(f"- {even} further scores are even: the interval holds no difference.\n")
    text = HEAD.format(
        size=Path(path).stat().st_size,
        features=model.graph.input[0].type.tensor_type.shape.dim[1].dim_value,
        schema=told["schema"],
        seed=told["seed"],
        date=told["date"],
        train=TRAIN,
        tune=TUNE,
        train_run=TRAIN_RUN,
        tune_run=TUNE_RUN,
        untrained=judge.UNTRAINED,
        stretch=STRETCH,
        blocks=judge.BLOCKS,
        data="\n".join(data),
        table=judge.markdown(results),
        losses="\n".join(losses),
    )
    Path(out).write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
