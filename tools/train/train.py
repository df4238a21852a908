"""From exported features to one ONNX model, and its card.

    python tools/train/train.py --out model.onnx --card card.md --seed 1 --source DIR:LICENCE[:SHA256] ...

DIR is what `weft trace features` wrote. The same sources and seed give the same bytes. Each source is split by time:
the first 70 % train, the next 10 % choose the epoch and calibrate, the rest is for `judge.py` (of runs of record.py, which are
short, 40 % and 10 %).
"""

import argparse
import json
import os
import sys
from pathlib import Path

# One thread: sums in one order, the same bytes each time. Before numpy is loaded.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np

import graph
import net
from data import Rows, sha256

# What follows the second is for judging, and for comparing (bounds.json, which `weft train` reads too).
BOUNDS = json.loads(Path(__file__).with_name("bounds.json").read_text())
TRAIN, TUNE = 0.7, BOUNDS["newest_from"]
# Of a run of minutes: a split is known to come or not within five minutes only when so much is left.
TRAIN_RUN, TUNE_RUN = 0.4, 0.5
HIDDEN = (64, 32)
# Networks of different seeds, merged into one.
NETS, SEED_STEP = 3, 1_000
# Rows of one source at most: none is to outweigh the others by its mere length.
MOST_ROWS, MOST_SYNTHETIC_ROWS = 40_000, 8_000
# What a source weighs against a synthetic site, of which there are many. A run of record.py is there several times.
PUBLIC, RUN = 6.0, 3.0
# Features that name a moment of a short trace rather than a state: a model of a few days must not lean on them.
UNUSED = {"day_sin", "day_cos", "week_sin", "week_cos", "age", "hours_known", "since_ddl", "splits_known"}


def is_run(name):
    """A run of record.py, by the name of its rows."""
    return name.startswith("recorded_")


def parts(name):
    """Shares of the time of a source: up to the first it trains, up to the second it tunes, the rest is judged."""
    return (TRAIN_RUN, TUNE_RUN) if is_run(name) else (TRAIN, TUNE)


def sample(rows, begin, end, rng):
    index, y = rows.within(begin, end)
    known = np.isfinite(y).any(axis=1)
    index, y = index[known], y[known]
    synthetic = rows.about["source"].startswith("synthetic")
    most = MOST_SYNTHETIC_ROWS if synthetic else MOST_ROWS
    if len(index) > most:
        chosen = np.sort(rng.choice(len(index), most, replace=False))
        index, y = index[chosen], y[chosen]
    weight = rows.weight[index].astype(np.float64)
    # Training damps what idle rows weigh, for they are all alike; calibration does not.
    damped = np.sqrt(weight)
    trust = 1.0 if synthetic else RUN if is_run(rows.name) else PUBLIC
    return np.array(rows.x[index]), y, trust * damped / damped.sum(), trust * weight / weight.sum()


def train(sources, seed, hidden=HIDDEN, epochs=8, log=print, begin=None):
    """A scaler, experts and a calibrated network of a list of `Rows`; `begin`: constants of the model to go on from."""
    rng = np.random.default_rng(seed)
    early, tune = [], []
    for rows in sources:
        middle, end = rows.split(*parts(rows.name))
        early.append(sample(rows, rows.at.min(), middle, rng))
        tune.append(sample(rows, middle, end, rng))
    x, y, weight, _ = (np.concatenate(columns) for columns in zip(*early))
    tx, ty, damped, true = (np.concatenate(columns) for columns in zip(*tune))
    weight, damped, true = (w / w.mean() for w in (weight, damped, true))
    names = sources[0].about["features"]
    used = np.array([name not in UNUSED for name in names])
    scaler = net.Scaler.of(begin) if begin else net.Scaler(x, used)
    experts = net.Experts(names)
    later, said, inside = scaler(tx), experts(tx), net.inside(ty)

    def stop(candidate):
        loss, _ = net.losses(candidate.forward(later, said), inside)
        return float((loss.sum(axis=1) * damped).mean())

    weight = weight.astype(np.float32)
    seeds = [seed] if begin else [seed + SEED_STEP * n for n in range(NETS)]
    scaled, own = scaler(x), experts(x)
    nets = [net.fit(scaled, own, y, weight, hidden, one, experts.near, epochs=epochs, stop=stop, begin=begin) for one in seeds]
    apart = ", ".join(f"{stop(one):.4f}" for one in nets)
    made = net.merged(nets)
    before = stop(made)
    net.calibrate(made, later, said, ty, true)
    log(f"{len(x)} rows of {len(sources)} sources; loss on later rows {apart}; merged {before:.4f}, calibrated {stop(made):.4f}")
    return scaler, experts, made


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--date", default="", help="written into the model; part of its bytes")
    parser.add_argument("--from", dest="begin", type=Path, help="go on from this model (one of ours)")
    parser.add_argument("--source", action="append", required=True, metavar="DIR:LICENCE[:SHA256]")
    args = parser.parse_args()
    sources, told, synthetic = [], [], []
    for source in args.source:
        directory, licence, *rest = source.split(":")
        if not licence or licence == "not stated":
            sys.exit(f"train: the licence of {directory} is not stated: such data may judge, not train")
        rows = Rows(directory)
        sources.append(rows)
        if licence == "synthetic":
            synthetic.append(rows.about["source"])
            continue
        digest = rest[0] if rest else sha256(Path(directory) / "features.npy")
        told.append({"name": rows.name, "licence": licence, "sha256": digest, "rows": len(rows.x)})
    if synthetic:
        made_by = sha256(*(Path(__file__).with_name(name) for name in ("synthetic.py", "lineages.py")))
        name = f"{len(synthetic)} sites of synthetic.py, {synthetic[0]} to {synthetic[-1]}"
        told.append({"name": name, "licence": "Apache-2.0, ours", "sha256": made_by})
    schemas = {rows.about["schema"] for rows in sources}
    if len(schemas) != 1:
        sys.exit("train: the sources were exported by different versions of weft: export them again")
    begin = graph.constants_of(args.begin) if args.begin else None
    scaler, experts, made = train(sources, args.seed, begin=begin, log=lambda line: print(f"train: {line}"))
    metadata = {
        "schema": schemas.pop(),
        "date": args.date,
        "seed": args.seed,
        "data": json.dumps(told, sort_keys=True),
        "scores": "{}",
    }
    graph.save(graph.assemble(scaler, experts, made, metadata), args.out)
    print(f"train: {args.out} ({args.out.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
