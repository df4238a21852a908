"""A small network with one input and many outputs, by hand in numpy: a few thousand weights need no framework, and the
losses differ by output. Deterministic: one seed, one thread, one result.

Counts and quiet are not guessed out of the blue: each is a mean, in logarithms (odds, of quiet), of what simple experts say (the
fading means and windows of the features, times the horizon), with weights that the network chooses for each row, times a
factor that is bounded, and close to one where they agree. So a site a thousand times busier than any in training is still forecast in its own scale, and of what
no expert saw written next to nothing is expected.

Inside, shares are logits, counts are log1p, times are log1p of seconds. Rows: float32 [n, features]; targets: float32
[n, WIDTH] in plain units, NaN where nobody knows (the trace ends before the horizon does).
"""

import copy
from typing import NamedTuple

import numpy as np

from outputs import ASKED, COLUMNS, COUNTS, HORIZONS, QUANTILES, QUIET, SHARES, TIMES, WIDTH

CLIP = 30.0
PAGE = 4096
SPANS = (60, 300, 1_800, 21_600, 86_400)
# The span whose mean the fading baseline takes for each horizon (src/forecast/features).
FADE = SPANS[1:]
# How far a network may go from its experts: factors of e for counts, odds for quiet.
BOUND = np.array([1.5] * len(COUNTS) + [3.0] * len(QUIET), np.float32)
# Where the experts say nothing of a count so much of the way is closed: what is left tells such rows apart, and no more.
CLOSED = np.array([0.9] * len(COUNTS) + [0.0] * len(QUIET), np.float32)
# Of that way so much is open where the experts of a count agree, so much more for each factor of e that they are apart, and
# of reads, which are few, where they expect next to nothing.
NARROW, WIDER = np.array([0.02] * len(COUNTS) + [1.0] * len(QUIET), np.float32), 0.5
READS = range(*COLUMNS["reads"].indices(WIDTH))
LITTLE = np.array([1.0 if column in READS else 0.0 for column in ASKED], np.float32)
# Of what is written so little of it is open while writing is steady: by how far the mean square is above the squared mean.
STEADY, STEADY_BY = 0.01, "burst_21600s"
FREE = np.array([0.0 if column in COUNTS and column not in READS else 1.0 for column in ASKED], np.float32)
# No odds of an expert are longer.
ODDS_MOST = 12.0
# An expert that is none: never chosen.
NOBODY = -1e4


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-np.clip(z, -CLIP, CLIP)))


class Scaler:
    """Each feature within the range it had in training, with mean 0 and deviation 1; unused features are 0."""

    def __init__(self, x, used):
        low, high = np.quantile(x, 0.0005, axis=0), np.quantile(x, 0.9995, axis=0)
        self.low, self.high = low.astype(np.float32), high.astype(np.float32)
        clipped = np.clip(x, self.low, self.high)
        self.mean = clipped.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = clipped.std(axis=0, dtype=np.float64)
        self.factor = np.where((spread > 1e-4) & used, 1.0 / np.maximum(spread, 1e-4), 0.0).astype(np.float32)

    @classmethod
    def of(cls, constants):
        """That of a graph."""
        scaler = cls.__new__(cls)
        scaler.low, scaler.high = constants["low"], constants["high"]
        scaler.mean, scaler.factor = constants["mean"], constants["factor"]
        return scaler

    def __call__(self, x):
        return (np.clip(x, self.low, self.high) - self.mean) * self.factor


class Said(NamedTuple):
    """What experts say: `values` [n, ASKED, experts], counts in log1p; how far one may go from them: `apart` [n, ASKED] by how
    far they are from each other, `steady` [n, ASKED] by how steadily it is written."""

    values: np.ndarray
    apart: np.ndarray
    steady: np.ndarray

    def of(self, rows):
        return Said(*(part[rows] for part in self))


def beside(values, burst=1):
    """`Said` of what experts say."""
    apart = NARROW + WIDER * (values.max(axis=2) - values.min(axis=2))
    steady = np.maximum(np.minimum(STEADY + burst, 1), FREE)
    return Said(values, apart, np.broadcast_to(steady, apart.shape))


class Experts:
    """What each count and the odds of quiet would be if something went on."""

    def __init__(self, names):
        at = {name: i for i, name in enumerate(names)}
        asked = [self.of(output, horizon) for output in ("pages", "bytes", "reads", "quiet") for horizon in HORIZONS]
        most = max(map(len, asked))
        # Names that a list of features does not have (tests) are silent. A place that is left says what the first one does.
        pad = lambda values, rest: values + [rest] * (most - len(values))
        whole = lambda values: pad(values, values[0])
        self.columns = np.array([whole([at.get(name, -1) for name, _, _ in said]) for said in asked])
        self.factors = np.array([whole([factor for _, factor, _ in said]) for said in asked], np.float32)
        self.factors[self.columns < 0] = 0
        self.columns = np.maximum(self.columns, 0)
        self.steady_by = at.get(STEADY_BY, -1)
        self.near = np.array([pad([near for _, _, near in said], NOBODY) for said in asked], np.float32).reshape(-1)
        self.shape = self.factors.shape

    @staticmethod
    def of(output, horizon):
        """Names of features, factors, and how much each is believed before anything is learned."""
        near = lambda span: -0.5 * abs(np.log(horizon / span))
        if output == "quiet":
            return [(f"still_odds_{other}s", 1.0, 2 * near(other)) for other in HORIZONS]
        if output == "reads":
            # They are few: a longer mean is nearer to what comes, as the baseline has it.
            fade = FADE[HORIZONS.index(horizon)]
            near = lambda span: -abs(np.log(fade / span))
        unit = PAGE if output == "bytes" else 1.0
        rates = {"pages": "pages", "bytes": "pages_of_bytes", "reads": "reads"}[output]
        said = [(f"{rates}_{span}s", unit * horizon / 60, near(span)) for span in SPANS]
        if output == "reads":
            return said + [("last_reads", horizon / 60, near(60))]
        windows = "window_distinct" if output == "pages" else "window_pages"
        said += [(f"{windows}_{span}s", unit * horizon / span, near(span)) for span in SPANS[:3]]
        said += [(name, unit * horizon / 3_600, near(86_400)) for name in ("hour_yesterday", "hour_usual")]
        said += [("day_before", unit * horizon / 86_400, 1.0 if horizon == 86_400 else near(86_400))]
        return said + ([(f"distinct_{horizon}s", 1.0, 0.5)] if output == "pages" else [])

    def __call__(self, x):
        said = x[:, self.columns]
        counts = len(COUNTS)
        said[:, counts:] = np.clip(said[:, counts:], -ODDS_MOST, ODDS_MOST) * np.sign(self.factors[counts:])
        said[:, :counts] = np.log1p(np.expm1(np.clip(said[:, :counts], 0, 40)) * self.factors[:counts])
        return beside(said, x[:, [self.steady_by]] if self.steady_by >= 0 else 1)


class Net:
    """Two hidden layers, and a straight way beside them: what a baseline can do by a line needs no detour. Rows are
    given as (scaled features, what the experts say)."""

    def __init__(self, features, hidden, seed, near):
        rng = np.random.default_rng(seed)
        a, b = hidden

        def layer(rows, columns, gain=2.0):
            return (rng.standard_normal((rows, columns)) * np.sqrt(gain / rows)).astype(np.float32)

        self.w = {
            "w1": layer(features, a),
            "b1": np.zeros(a, np.float32),
            "w2": layer(a, b),
            "b2": np.zeros(b, np.float32),
            "w3": layer(b, WIDTH, 0.2),
            "skip": layer(features, WIDTH, 0.02),
            "b3": np.zeros(WIDTH, np.float32),
            "w4": layer(b, len(near), 0.05),
            "b4": np.array(near, np.float32),
            # Set by `calibrate`, not trained.
            "scale": np.ones(WIDTH, np.float32),
            "offset": np.zeros(WIDTH, np.float32),
        }

    def layers(self, x, said):
        w = self.w
        values = said.values
        h1 = np.maximum(x @ w["w1"] + w["b1"], 0)
        h2 = np.maximum(h1 @ w["w2"] + w["b2"], 0)
        raw = h2 @ w["w3"] + x @ w["skip"] + w["b3"]
        chosen = (h2 @ w["w4"] + w["b4"]).reshape(values.shape)
        chosen = np.exp(chosen - chosen.max(axis=2, keepdims=True))
        chosen /= chosen.sum(axis=2, keepdims=True)
        mixed = (chosen * values).sum(axis=2)
        # What is next to nothing for the experts stays next to nothing.
        little = np.exp(-mixed)
        room = (1 - little * CLOSED) * np.minimum(said.apart + LITTLE * little, 1) * said.steady
        turned = np.tanh(raw[:, ASKED] / BOUND)
        z = raw
        z[:, ASKED] = mixed + BOUND * turned * room
        return h1, h2, z * w["scale"] + w["offset"], chosen, mixed, room, turned

    def forward(self, x, said):
        return self.layers(x, said)[2]

    def gradients(self, x, said, y, weight):
        """Of the mean loss; also the loss."""
        w = self.w
        h1, h2, z, chosen, mixed, room, turned = self.layers(x, said)
        loss, dz = losses(z, y)
        dz *= weight[:, None] / max(weight.sum(), 1e-9)
        dz *= w["scale"]
        # By what was mixed: a count's room depends on it, too.
        little = np.exp(-mixed)
        apart = said.apart + LITTLE * little
        opens = little * CLOSED * np.minimum(apart, 1) - (1 - little * CLOSED) * LITTLE * little * (apart < 1)
        mixing = dz[:, ASKED] * (1 + BOUND * turned * opens * said.steady)
        d4 = (mixing[:, :, None] * chosen * (said.values - mixed[:, :, None])).reshape(len(x), -1)
        dz[:, ASKED] *= room * (1 - turned * turned)
        d2 = (dz @ w["w3"].T + d4 @ w["w4"].T) * (h2 > 0)
        d1 = (d2 @ w["w2"].T) * (h1 > 0)
        return float((loss.sum(axis=1) * weight).sum() / max(weight.sum(), 1e-9)), {
            "w4": h2.T @ d4,
            "b4": d4.sum(axis=0),
            "w3": h2.T @ dz,
            "skip": x.T @ dz,
            "b3": dz.sum(axis=0),
            "w2": h1.T @ d2,
            "b2": d2.sum(axis=0),
            "w1": x.T @ d1,
            "b1": d1.sum(axis=0),
        }


def inside(y):
    """Targets as the network sees them; NaN stays."""
    t = np.array(y, np.float32)
    t[:, COUNTS] = np.log1p(np.maximum(t[:, COUNTS], 0))
    t[:, TIMES] = np.copysign(np.log1p(np.abs(t[:, TIMES])), t[:, TIMES])
    return t


def plain(z):
    """What a network says, in plain units."""
    out = np.array(z, np.float64)
    out[:, SHARES] = sigmoid(z[:, SHARES])
    out[:, COUNTS + TIMES] = np.expm1(np.clip(z[:, COUNTS + TIMES], 0, 40))
    return out


BYTES = list(range(*COLUMNS["bytes"].indices(WIDTH)))
MEANS = [column for column in COUNTS if column not in BYTES]
# Beyond a factor of e^2.5 = 12 an excess counts no more than in proportion to its logarithm.
BURST = 2.5
# How much more than others the weights of what goes beside the experts are pulled to zero.
ASIDE = 20.0
# Weight of each output in the loss: counts are in units of a factor e, and there are many of them.
SCALE = np.ones(WIDTH, np.float32)
SCALE[COUNTS] = 0.2
SCALE[TIMES] = 0.05
# Splits are rare: what most rows say of them costs next to nothing.
SCALE[COLUMNS["p_split"]] = 3.0


def losses(z, t):
    """Per row and output, and its derivative by z. `t` is from `inside`."""
    known = np.isfinite(t)
    t = np.where(known, t, 0)
    loss, dz = np.zeros_like(z), np.zeros_like(z)
    p = sigmoid(z[:, SHARES])
    share = t[:, SHARES]
    loss[:, SHARES] = -(share * np.log(p + 1e-7) + (1 - share) * np.log(1 - p + 1e-7))
    dz[:, SHARES] = p - share
    # Bytes: the median, whose error counts by its factor. Pages and reads: the mean, for they are what a policy weighs
    # (the deviance of a gamma distribution, whose slope is 1 - y/m; bounded, for one burst is not to turn all).
    error = z[:, BYTES] - t[:, BYTES]
    loss[:, BYTES], dz[:, BYTES] = np.sqrt(error * error + 1e-4), error / np.sqrt(error * error + 1e-4)
    excess = t[:, MEANS] - z[:, MEANS]
    most = np.minimum(excess, BURST)
    loss[:, MEANS] = np.exp(most) - most - 1 + (excess - most) * (np.exp(BURST) - 1)
    dz[:, MEANS] = 1 - np.exp(most)
    for column, quantile in zip(TIMES, QUANTILES):
        error = np.abs(t[:, column]) - z[:, column]
        # A negative time is how long there was no split for certain: whoever says later than that may be right.
        open_end = (t[:, column] < 0) & (error < 0)
        loss[:, column] = np.where(open_end, 0, np.maximum(quantile * error, (quantile - 1) * error))
        dz[:, column] = np.where(open_end, 0, np.where(error > 0, -quantile, 1 - quantile))
    scale = np.where(known, SCALE, 0)
    return loss * scale, dz * scale


def fit(x, said, y, weight, hidden, seed, near, epochs=12, rate=3e-3, decay=1e-2, stop=None, begin=None):
    """Trains; `stop(net)` after each epoch gives a score (lower is better), of which the best epoch is kept. `begin`:
    weights to begin with."""
    net = Net(x.shape[1], hidden, seed, near)
    if begin is not None:
        net.w = {key: begin[key].copy() for key in net.w}
        rate, decay = rate / 5, 0.0
    batch = int(np.clip(len(x) // 60, 64, 512))
    rng = np.random.default_rng(seed + 1)
    t = inside(y)
    # A bias that is the answer without features: the rest learns what differs from it.
    for column in range(WIDTH):
        known = np.isfinite(t[:, column])
        if column in ASKED or begin is not None:
            continue
        mean = np.average(np.abs(t[known, column]), weights=weight[known]) if known.any() else 0.0
        mean = np.log(np.clip(mean, 1e-4, 1 - 1e-4) / (1 - np.clip(mean, 1e-4, 1 - 1e-4))) if column in SHARES else mean
        net.w["b3"][column] = mean
    first = {key: np.zeros_like(value) for key, value in net.w.items()}
    second = {key: np.zeros_like(value) for key, value in first.items()}
    step, best, kept = 0, np.inf, None
    if begin is not None and stop:
        best, kept = stop(net), {key: value.copy() for key, value in net.w.items()}
    own = np.ones(WIDTH, np.float32)
    own[ASKED] = ASIDE
    # Of reads, which are few, the losses say little of whom to believe.
    gates = np.repeat([ASIDE if column in READS else 1.0 for column in ASKED], len(near) // len(ASKED)).astype(np.float32)
    steps = epochs * max(1, len(x) // batch)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, max(1, len(order) - batch + 1), batch):
            rows = order[start : start + batch]
            _, grads = net.gradients(x[rows], said.of(rows), t[rows], weight[rows])
            step += 1
            now = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
            for key, grad in grads.items():
                first[key] += 0.1 * (grad - first[key])
                second[key] += 0.001 * (grad * grad - second[key])
                move = first[key] / (1 - 0.9**step) / (np.sqrt(second[key] / (1 - 0.999**step)) + 1e-8)
                # Of a weight matrix: what speaks into a count beside the experts is held closest to nothing.
                pull = 0
                if key.startswith(("w", "skip")):
                    pull = decay * net.w[key] * {"w3": own, "skip": own, "w4": gates}.get(key, 1)
                net.w[key] -= (now * (move + pull)).astype(np.float32)
        score = stop(net) if stop else -step
        if score < best:
            best, kept = score, {key: value.copy() for key, value in net.w.items()}
    net.w = kept
    return net


def merged(nets):
    """One network that says the mean of several, where they are lines: before odds and logarithms are taken back, and of whom
    to believe. What one of them picked up by chance the others have not."""
    weights = [net.w for net in nets]
    across = lambda key: np.concatenate([w[key] for w in weights], axis=1)
    down = lambda key: (np.concatenate([w[key] for w in weights]) / len(nets)).astype(np.float32)
    mean = lambda key: np.mean([w[key] for w in weights], axis=0).astype(np.float32)
    rows, columns = weights[0]["w2"].shape
    w2 = np.zeros((rows * len(nets), columns * len(nets)), np.float32)
    for i, w in enumerate(weights):
        w2[i * rows : (i + 1) * rows, i * columns : (i + 1) * columns] = w["w2"]
    whole = copy.copy(nets[0])
    whole.w = {
        "w1": across("w1"),
        "b1": np.concatenate([w["b1"] for w in weights]),
        "w2": w2,
        "b2": np.concatenate([w["b2"] for w in weights]),
        "w3": down("w3"),
        "w4": down("w4"),
        **{key: mean(key) for key in ("skip", "b3", "b4", "scale", "offset")},
    }
    return whole


def calibrate(net, x, said, y, weight):
    """Scale and offset of the logit of each share (Platt), on rows not trained on."""
    z = net.forward(x, said)
    for column in SHARES:
        known = np.isfinite(y[:, column])
        share, w = y[known, column], weight[known]
        positives = float((share * w).sum() / max(w.sum(), 1e-9)) * known.sum()
        if known.sum() < 500 or min(positives, known.sum() - positives) < 20:
            continue
        logit = z[known, column].astype(np.float64)
        a, b = 1.0, 0.0
        for _ in range(30):
            p = sigmoid(a * logit + b)
            g = np.array([((p - share) * logit * w).sum(), ((p - share) * w).sum()])
            h = w * p * (1 - p) + 1e-9
            hess = np.array([[(h * logit * logit).sum(), (h * logit).sum()], [(h * logit).sum(), h.sum()]])
            move = np.linalg.solve(hess + np.eye(2) * 1e-6 * np.trace(hess), g)
            a, b = a - move[0], b - move[1]
        # A slope far from one says that the window is odd, not that the network is.
        a = float(np.clip(a, 0.5, 1.5))
        net.w["scale"][column] *= a
        net.w["offset"][column] = net.w["offset"][column] * a + float(np.clip(b, -1.5, 1.5))
