"""Scores, and how sure one can be of them: intervals by resampling blocks of time, since neighbours are not independent."""

import numpy as np


def f1(truth, guess):
    """Of two boolean arrays."""
    hit = np.sum(truth & guess)
    return 2 * hit / max(np.sum(truth) + np.sum(guess), 1)


def best_threshold(truth, score):
    """The value of `score` at and above which guessing gives the best F1."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(truth[order])
    guessed = np.arange(1, len(order) + 1)
    values = 2 * hits / (guessed + truth.sum())
    # Equal scores are guessed together.
    last = np.append(np.diff(score[order]) != 0, True)
    return float(score[order][np.argmax(np.where(last, values, -1))]) if len(order) else np.inf


def brier(truth, share):
    return float(np.mean((np.asarray(share, float) - truth) ** 2))


def precision_at(truth, score, recall):
    """Precision when so much has been guessed, best first, that `recall` of the truth is in it."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(truth[order])
    want = recall * truth.sum()
    at = int(np.searchsorted(hits, want - 1e-9))
    # Those of equal score come along.
    while at + 1 < len(order) and score[order][at + 1] == score[order][at]:
        at += 1
    return float(hits[min(at, len(hits) - 1)] / (min(at, len(hits) - 1) + 1)) if truth.any() else np.nan


def top_share(amount, score, count):
    """Share of `amount` in the `count` rows of highest score."""
    if amount.sum() <= 0:
        return np.nan
    order = np.argsort(-score, kind="stable")[:count]
    return float(amount[order].sum() / amount.sum())


def interval(per_block, combine, seed=1, rounds=500, coverage=0.9):
    """Interval of `combine(blocks)` under resampling of blocks: `per_block` is any list, `combine` takes such a list."""
    rng = np.random.default_rng(seed)
    n = len(per_block)
    values = [combine([per_block[i] for i in rng.integers(0, n, n)]) for _ in range(rounds)]
    values = [value for value in values if np.isfinite(value)]
    if not values:
        return np.nan, np.nan
    return tuple(np.quantile(values, [(1 - coverage) / 2, (1 + coverage) / 2]))
