"""Scores a model beside every baseline, on each set by itself, on the part of it that lies after training.

    python tools/train/judge.py --model model.onnx --json scores.json --markdown table.md DIR:TASK ...

TASK: extents (pages written in the next window), tables (load in the next 300 s, and its bytes), growth (crosses the
threshold within a day of scaled time), reads (what is read in the next window), rate (bytes of the next hour and day,
and quiet), recorded (a run of record.py: pages, quiet, and splits), stretched (the same, within an hour and a day). DIR: from `weft trace features`, with all rows. Thresholds of every method, the model's too, are those that
were best before the test begins. Intervals: 90 %, by resampling blocks of time.
"""

import argparse
import json
import os

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np
import onnxruntime

import scores
from data import Rows
from outputs import COLUMNS, HORIZONS, OUTPUTS, SPLIT_HORIZONS
from train import parts

BLOCKS = 12
# One block cannot be resampled.
BLOCKS_LEAST = 2
# A probability of at least this counts as said, and so it does in the ledger.
SAID = 0.5
# Where the test of a set begins that trained nothing: what lies before finds the thresholds.
UNTRAINED = 0.3


def predict(path, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [name for name, _ in OUTPUTS]
    parts = [session.run(names, {"features": np.array(x[i : i + 8192])}) for i in range(0, len(x), 8192)]
    return np.concatenate([np.concatenate(part, axis=1) for part in parts])


def column(output, horizon):
    return COLUMNS[output].start + HORIZONS.index(horizon)


class Windows:
    """Moments `horizon` apart, so that windows do not overlap; those after `begin` are for the test, in blocks."""

    def __init__(self, rows, horizon, begin, labels):
        moments = np.unique(rows.at)
        keep = moments[(moments - moments[0]) % horizon < max(np.diff(moments).min(), 1)]
        known = np.isfinite(rows.y[:, labels])
        self.before = [np.flatnonzero((rows.at == t) & known) for t in keep[keep + horizon <= begin]]
        tested = [np.flatnonzero((rows.at == t) & known) for t in keep[keep >= begin]]
        tested = [index for index in tested if len(index)]
        self.before = [index for index in self.before if len(index)]
        self.blocks = [tested[i : i + per] for per in [max(1, -(-len(tested) // BLOCKS))] for i in range(0, len(tested), per)]

    def say_something(self):
        """A short trace has no window before the test to find thresholds in, or too few in it for an interval."""
        return len(self.before) > 0 and len(self.blocks) >= BLOCKS_LEAST


def first_writes(rows):
    """Of each moment at which a partition is first seen, how many, and what they had written: nobody can guess them."""
    order = np.lexsort((rows.at, rows.key))
    first = order[np.r_[True, np.diff(rows.key[order]) != 0]]
    return rows.at[first]


def unseen(rows, begins, horizon, firsts):
    return int(np.sum((firsts > begins) & (firsts <= begins + horizon)))


def f1_of(rows, windows, truth, score, horizon, fixed=None):
    """F1 with its threshold from before the test, and tallies per block: hits, guessed, true."""
    past = np.concatenate(windows.before)
    threshold = scores.best_threshold(truth[past], score[past]) if fixed is None else fixed
    threshold = max(threshold, 1e-9)
    firsts = first_writes(rows)
    tallies = []
    for block in windows.blocks:
        hit = guessed = true = 0.0
        for index in block:
            w = rows.weight[index]
            guess = score[index] >= threshold
            hit += (w * (guess & truth[index])).sum()
            guessed += (w * guess).sum()
            true += (w * truth[index]).sum() + unseen(rows, rows.at[index[0]], horizon, firsts)
        tallies.append((hit, guessed, true))
    return tallies


def ratio_f1(tallies):
    hit, guessed, true = np.sum(tallies, axis=0)
    return 2 * hit / max(guessed + true, 1e-9)


def top_of(rows, windows, amount, score, share):
    tallies = []
    for block in windows.blocks:
        got = all_of = 0.0
        for index in block:
            count = max(1, round(share * rows.weight[index].sum()))
            order = np.argsort(-score[index], kind="stable")[:count]
            got += amount[index][order].sum()
            all_of += amount[index].sum()
        tallies.append((got, all_of))
    return tallies


def ratio(tallies):
    got, all_of = np.sum(tallies, axis=0)
    return got / max(all_of, 1e-9)


def mean(tallies):
    total, count = np.sum(tallies, axis=0)
    return total / max(count, 1e-9)


def row(name, tallies_by_method, combine, better="more"):
    """One score of all methods: values, intervals, and that of the difference to the best baseline."""
    values = {method: combine(tallies) for method, tallies in tallies_by_method.items()}
    sign = 1 if better == "more" else -1
    best = max((m for m in values if m != "model"), key=lambda m: sign * values[m])
    pairs = list(zip(tallies_by_method["model"], tallies_by_method[best]))
    low, high = scores.interval(pairs, lambda blocks: combine([a for a, _ in blocks]) - combine([b for _, b in blocks]))
    return {
        "score": name,
        "better": better,
        "values": {method: round(float(value), 4) for method, value in values.items()},
        "model_interval": [round(float(v), 4) for v in scores.interval(tallies_by_method["model"], combine)],
        "best_baseline": best,
        "difference_interval": [round(float(low), 4), round(float(high), 4)],
        "verdict": "wins" if sign * low > 0 and sign * high > 0 else "loses" if sign * low < 0 and sign * high < 0 else "even",
    }


def filled(values, length):
    return np.nan_to_num(np.array(values, np.float64), nan=0.0) if values is not None else np.zeros(length)


def written(rows, said, horizon, output="pages", share=(0.01, 0.05, 0.1)):
    col, quiet = column(output, horizon), column("p_quiet", horizon)
    windows = Windows(rows, horizon, rows.split(rows.begin)[0], col)
    if not windows.say_something():
        return []
    amount = np.nan_to_num(rows.y[:, col])
    truth = amount > 0
    reads = output == "reads"
    score = {
        name: filled(rows.baselines[name][:, col], len(truth)) for name in ("persistence", "ewma", "climatology")
    }
    score["model"] = said[:, col]
    guess = dict(score)
    if not reads:
        guess["model"] = 1 - said[:, quiet]
    fixed = {"persistence": 1e-9}
    f1 = {m: f1_of(rows, windows, truth, guess[m], horizon, fixed.get(m)) for m in guess}
    told = [row(f"F1, {output} in {horizon} s", f1, ratio_f1)]
    for part in share:
        tops = {m: top_of(rows, windows, amount, score[m], part) for m in score}
        told.append(row(f"share of {output} in the top {part:.0%}, {horizon} s", tops, ratio))
    return told


def absolute(rows, windows, truth, score, log):
    f = np.log1p if log else (lambda v: v)
    return [
        (
            sum((rows.weight[i] * np.abs(f(truth[i]) - f(np.maximum(score[i], 0)))).sum() for i in block),
            sum(rows.weight[i].sum() for i in block),
        )
        for block in windows.blocks
    ]


def squared(rows, windows, truth, score):
    return [
        (
            sum((rows.weight[i] * (score[i] - truth[i]) ** 2).sum() for i in block),
            sum(rows.weight[i].sum() for i in block),
        )
        for block in windows.blocks
    ]


def recorded(rows, said):
    """What a run of minutes allows: windows that fit into it, quiet, and splits as they were."""
    told = []
    for horizon in (60, 300):
        told += written(rows, said, horizon) + still(rows, said, horizon)
    return told + splits(rows, said)


def stretched(rows, said):
    """The same with its time stretched: what a run of minutes says of hours and days."""
    return written(rows, said, 3_600) + still(rows, said, 3_600) + splits(rows, said)


def still(rows, said, horizon):
    """Whether nothing is written."""
    col = column("p_quiet", horizon)
    windows = Windows(rows, horizon, rows.split(rows.begin)[0], col)
    if not windows.say_something():
        return []
    truth = np.nan_to_num(rows.y[:, col])
    shares = {n: filled(rows.baselines[n][:, col], 0) for n in ("persistence", "ewma", "climatology")}
    shares["model"] = said[:, col]
    return [row(f"Brier of quiet, {horizon} s", {m: squared(rows, windows, truth, s) for m, s in shares.items()}, mean, "less")]


def known_whole(rows, col, horizon):
    """Rows whose horizon the trace sees to its end. A split that came is known before that, one that did not come is not:
    the others are all true."""
    return np.isfinite(rows.y[:, col]) & (rows.left >= horizon)


def splits(rows, said):
    """Splits that a trace records, by horizon, as the ledger scores them. Nothing here needs a threshold from before."""
    told = []
    begin = rows.split(rows.begin)[0]
    for number, horizon in enumerate(SPLIT_HORIZONS):
        col = COLUMNS["p_split"].start + number
        test = known_whole(rows, col, horizon) & (rows.at >= begin)
        truth = np.nan_to_num(rows.y[:, col]) > 0
        moments = np.unique(rows.at[test])
        if not truth[test].any() or len(moments) < BLOCKS_LEAST:
            continue
        edges = np.quantile(moments, np.linspace(0, 1, BLOCKS + 1)[1:-1])
        block_of = np.searchsorted(edges, rows.at)
        blocks = [np.flatnonzero(test & (block_of == b)) for b in range(BLOCKS)]
        blocks = [b for b in blocks if len(b)]
        methods = {n: filled(rows.baselines[n][:, col], 0) for n in ("persistence", "climatology", "linear", "ninety")}
        methods["model"] = said[:, col]
        w = rows.weight
        guesses = {m: s >= SAID for m, s in methods.items()}
        brier = {m: [((w[b] * (s[b] - truth[b]) ** 2).sum(), w[b].sum()) for b in blocks] for m, s in methods.items()}
        bins = {m: [in_bins(s[b], truth[b], w[b]) for b in blocks] for m, s in methods.items()}
        right = {m: [((w * (truth & g))[b].sum(), (w * g)[b].sum()) for b in blocks] for m, g in guesses.items()}
        both = {m: [((w * (truth & g))[b].sum(), (w * g)[b].sum(), (w * truth)[b].sum()) for b in blocks] for m, g in guesses.items()}
        found = {m: [((w * (truth & g))[b].sum(), (w * truth)[b].sum()) for b in blocks] for m, g in guesses.items()}
        told += [
            row(f"Brier of splits, {horizon} s", brier, mean, "less"),
            row(f"miscalibration of splits, {horizon} s", bins, apart, "less"),
            row(f"precision of splits, {horizon} s", right, ratio),
            row(f"recall of splits, {horizon} s", found, ratio),
            row(f"F1 of splits, {horizon} s", both, ratio_f1),
            lead(rows, truth, test, guesses, blocks, f"mean lead time of splits, {horizon} s"),
        ]
    return told


def in_bins(said, truth, weight):
    """By tenth of the probability: cases, what was said, what came."""
    number = np.minimum((said * 10).astype(int), 9)
    return np.array([np.bincount(number, weights=v, minlength=10) for v in (weight, weight * said, weight * truth)])


def apart(tallies):
    cases, told, came = np.sum(tallies, axis=0)
    return np.abs(told - came).sum() / max(cases.sum(), 1e-9)


def tables(rows, said):
    told = written(rows, said, 300, share=(0.1,))
    col = column("bytes", 300)
    windows = Windows(rows, 300, rows.split(rows.begin)[0], col)
    truth = np.nan_to_num(rows.y[:, col])
    methods = {name: filled(rows.baselines[name][:, col], 0) for name in ("persistence", "ewma", "last_value")}
    methods["model"] = said[:, col]
    errors = {m: absolute(rows, windows, truth, score, True) for m, score in methods.items()}
    return told + [row("mean error of log bytes, 300 s", errors, mean, "less")]


def rate(rows, said):
    told = []
    for horizon in (3_600, 86_400):
        col, quiet = column("bytes", horizon), column("p_quiet", horizon)
        begin = rows.split(rows.begin)[0]
        windows = Windows(rows, np.diff(np.unique(rows.at)).min(), begin, col)
        truth = np.nan_to_num(rows.y[:, col])
        methods = {n: filled(rows.baselines[n][:, col], 0) for n in ("persistence", "ewma", "yesterday", "last_value", "climatology")}
        methods["model"] = said[:, col]
        past = np.concatenate(windows.before)
        # MASE: in units of the error of "as the hour before" before the test (Hyndman and Koehler, 2006).
        unit = np.abs(truth[past] - methods["persistence"][past]).mean()
        errors = {m: [(a / max(unit, 1e-9), n) for a, n in absolute(rows, windows, truth, s, False)] for m, s in methods.items()}
        told.append(row(f"MASE of bytes, {horizon} s", errors, mean, "less"))
        still = np.nan_to_num(rows.y[:, quiet])
        if 0 < still[past].mean() < 1:
            shares = {n: filled(rows.baselines[n][:, quiet], 0) for n in ("persistence", "ewma")}
            shares["climatology"] = np.full(len(still), still[past].mean())
            shares["model"] = said[:, quiet]
            told.append(row(f"Brier of quiet, {horizon} s", {m: squared(rows, windows, still, s) for m, s in shares.items()}, mean, "less"))
    return told


def growth(rows, said):
    """Who crosses the threshold within the longest horizon, of those at a quarter of it or more."""
    col = COLUMNS["p_split"].start + 2
    names = rows.about["features"]
    fill = np.array(rows.x[:, names.index("fill")])
    begin = rows.split(rows.begin)[0]
    known = known_whole(rows, col, 86_400) & (fill >= 0.25) & (np.array(rows.x[:, names.index("size")]) > 0)
    test, past = known & (rows.at >= begin), known & (rows.at < begin - 86_400)
    truth = np.nan_to_num(rows.y[:, col]) > 0
    if not truth[test].any():
        return []
    methods = {n: filled(rows.baselines[n][:, col], 0) for n in ("linear", "ninety", "persistence")}
    methods["climatology"] = np.full(len(truth), truth[past].mean())
    methods["model"] = said[:, col]
    edges = np.quantile(rows.at[test], np.linspace(0, 1, BLOCKS + 1)[1:-1])
    block_of = np.searchsorted(edges, rows.at)
    blocks = [np.flatnonzero(test & (block_of == b)) for b in range(BLOCKS)]
    blocks = [b for b in blocks if len(b)]
    brier = {m: [(((s[b] - truth[b]) ** 2 * rows.weight[b]).sum(), rows.weight[b].sum()) for b in blocks] for m, s in methods.items()}
    told = [row("Brier of crossing, 1 d", brier, mean, "less")]
    for name in ("linear", "ninety"):
        guess = methods[name] > 0.5
        hit = (truth & guess & test).sum()
        recall = hit / max(truth[test].sum(), 1)
        # The model guesses so many as give it the same recall; both tallied per block.
        order = np.sort(methods["model"][test & truth])[::-1]
        threshold = order[min(max(int(np.ceil(recall * len(order))) - 1, 0), len(order) - 1)]
        same = methods["model"] >= threshold
        tallies = {m: [((truth[b] & g[b]).sum(), g[b].sum()) for b in blocks] for m, g in ((name, guess), ("model", same))}
        told.append(row(f"precision at the recall of {name} ({recall:.2f})", tallies, ratio))
        told.append(lead(rows, truth, test, {name: guess, "model": same}, blocks, f"mean lead time at the recall of {name}, s"))
    return told


def lead(rows, truth, test, guesses, blocks, name, unit=3_600):
    """Seconds between the first warning of a crossing and the crossing; 0 without a warning. Crossings of one partition
    within `unit` seconds are one."""
    secs = np.nan_to_num(rows.y[:, COLUMNS["split_secs"].start])
    tallies = {}
    for method, guess in guesses.items():
        per = []
        for b in blocks:
            crossing = {}
            for i in b[truth[b]]:
                event = (rows.key[i], int((rows.at[i] + secs[i]) // unit))
                crossing[event] = max(crossing.get(event, 0.0), float(secs[i]) if guess[i] else 0.0)
            per.append((sum(crossing.values()), len(crossing)))
        tallies[method] = per
    return row(name, tallies, mean)


TASKS = {
    "recorded": recorded,
    "stretched": stretched,
    "extents": lambda rows, said: written(rows, said, 60) + written(rows, said, 300),
    "sections": lambda rows, said: written(rows, said, 300) + written(rows, said, 3_600),
    "tables": tables,
    "growth": growth,
    "reads": lambda rows, said: written(rows, said, 300, "reads") + written(rows, said, 3_600, "reads"),
    "rate": rate,
}


def markdown(results):
    lines = ["| set | score | model (90 %) | best baseline | others | verdict |", "|---|---|---|---|---|---|"]
    for name, told in results.items():
        for one in told:
            values = dict(one["values"])
            model, best = values.pop("model"), one["best_baseline"]
            rest = ", ".join(f"{m} {v:.3f}" for m, v in values.items() if m != best)
            low, high = one["model_interval"]
            lines.append(
                f"| {name} | {one['score']} | {model:.3f} ({low:.3f} to {high:.3f}) | {best} {values[best]:.3f} | {rest} | {one['verdict']} |"
            )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--json")
    parser.add_argument("--markdown")
    parser.add_argument("--untrained", action="append", default=[], metavar="NAME", help="sets that trained nothing")
    parser.add_argument("sets", nargs="+", metavar="DIR:TASK")
    args = parser.parse_args()
    results = {}
    for one in args.sets:
        directory, task = one.rsplit(":", 1)
        rows = Rows(directory)
        rows.begin = UNTRAINED if rows.name in args.untrained else parts(rows.name)[1]
        results[rows.name] = TASKS[task](rows, predict(args.model, rows.x))
    if args.json:
        with open(args.json, "w") as out:
            json.dump(results, out, indent=1, sort_keys=True)
            out.write("\n")
    text = markdown(results)
    if args.markdown:
        with open(args.markdown, "w") as out:
            out.write(text)
    print(text, end="")


if __name__ == "__main__":
    main()
