"""Whether a challenger is better than the champion, on the newest part of a site's own trace: what neither was trained on.

    python compare.py --champion A.onnx --challenger B.onnx ROWS

Prints one line of JSON. Better: a lower loss (that of training: proper scores of every output), and the 90 % interval of
the difference, by resampling blocks of time, lies below zero. Minutes show nothing: see bounds.json, which `weft train` goes
by before it trains.
"""

import argparse
import json
import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

import net
import scores
from data import Rows
from judge import BLOCKS, predict
from outputs import COUNTS, SHARES, TIMES
from train import BOUNDS, TUNE

# What the newest window has at least: blocks of several moments, and seconds.
MOMENTS_LEAST, SPAN_LEAST = BOUNDS["moments"], BOUNDS["span_secs"]


def back(said):
    """Plain units as the network has them inside."""
    z = np.array(said, np.float32)
    share = np.clip(z[:, SHARES], 1e-6, 1 - 1e-6)
    z[:, SHARES] = np.log(share / (1 - share))
    z[:, COUNTS + TIMES] = np.log1p(z[:, COUNTS + TIMES])
    return z


def loss(model, x, y):
    """Per row; a row without a forecast costs as much as any could."""
    z = back(predict(model, x))
    bad = ~np.isfinite(z).all(axis=1)
    lost = net.losses(np.nan_to_num(z), net.inside(y))[0].sum(axis=1)
    return np.where(bad, max(lost.max(), 100.0), lost)


def compare(champion, challenger, rows):
    begin = rows.split(TUNE)[0]
    index, y = rows.within(begin, rows.at.max() + 1)
    known = np.isfinite(y).any(axis=1)
    index, y = index[known], y[known]
    moments = np.unique(rows.at[index])
    span = int(moments[-1] - moments[0]) if len(moments) else 0
    if len(moments) < MOMENTS_LEAST or span < SPAN_LEAST:
        why = f"the newest fifth of the trace has {len(moments)} moments within {span} s, and too little to compare by:"
        return {"better": False, "why": f"{why} {MOMENTS_LEAST} within {SPAN_LEAST} s are needed; let it grow, and train again"}
    weight = rows.weight[index]
    lost = [loss(model, rows.x[index], y) for model in (champion, challenger)]
    edges = np.quantile(moments, np.linspace(0, 1, BLOCKS + 1)[1:-1])
    block = np.searchsorted(edges, rows.at[index])
    tallies = [
        tuple(float((weight[block == b] * one[block == b]).sum()) for one in (*lost, np.ones(len(index))))
        for b in range(BLOCKS)
        if (block == b).any()
    ]

    def difference(blocks):
        a, b, n = np.sum(blocks, axis=0)
        return (b - a) / n

    low, high = scores.interval(tallies, difference)
    a, b, n = np.sum(tallies, axis=0)
    better = bool(b < a and high < 0)
    told = {"champion": round(a / n, 5), "challenger": round(b / n, 5), "interval": [round(low, 5), round(high, 5)]}
    return {"better": better, "rows": len(index), "blocks": len(tallies), **told}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--champion", required=True)
    parser.add_argument("--challenger", required=True)
    parser.add_argument("rows")
    args = parser.parse_args()
    print(json.dumps(compare(args.champion, args.challenger, Rows(args.rows))))


if __name__ == "__main__":
    main()
