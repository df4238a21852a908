"""A small network with one input and many outputs, by hand in numpy: a few thousand weights need no framework, and the
losses differ by output. Deterministic: one seed, one thread, one result.

Inside, shares are logits, counts are log1p, times are log1p of seconds. Rows: float32 [n, features]; targets: float32
[n, WIDTH] in plain units, NaN where nobody knows (the trace ends before the horizon does).
"""

import numpy as np

from outputs import COUNTS, QUANTILES, SHARES, TIMES, WIDTH

CLIP = 30.0


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

    def __call__(self, x):
        return (np.clip(x, self.low, self.high) - self.mean) * self.factor


class Net:
    """Two hidden layers, and a straight way beside them: what a baseline can do by a line needs no detour."""

    def __init__(self, features, hidden, seed):
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
        }

    def forward(self, x):
        w = self.w
        h1 = np.maximum(x @ w["w1"] + w["b1"], 0)
        h2 = np.maximum(h1 @ w["w2"] + w["b2"], 0)
        return h1, h2, h2 @ w["w3"] + x @ w["skip"] + w["b3"]

    def gradients(self, x, y, weight):
        """Of the mean loss; also the loss."""
        w = self.w
        h1, h2, z = self.forward(x)
        loss, dz = losses(z, y)
        dz *= weight[:, None] / max(weight.sum(), 1e-9)
        d2 = (dz @ w["w3"].T) * (h2 > 0)
        d1 = (d2 @ w["w2"].T) * (h1 > 0)
        return float((loss.sum(axis=1) * weight).sum() / max(weight.sum(), 1e-9)), {
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


# Weight of each output in the loss: counts are in units of a factor e, and there are many of them.
SCALE = np.ones(WIDTH, np.float32)
SCALE[COUNTS] = 0.15
SCALE[TIMES] = 0.05


def losses(z, t):
    """Per row and output, and its derivative by z. `t` is from `inside`."""
    known = np.isfinite(t)
    t = np.where(known, t, 0)
    loss, dz = np.zeros_like(z), np.zeros_like(z)
    p = sigmoid(z[:, SHARES])
    share = t[:, SHARES]
    loss[:, SHARES] = -(share * np.log(p + 1e-7) + (1 - share) * np.log(1 - p + 1e-7))
    dz[:, SHARES] = p - share
    error = z[:, COUNTS] - t[:, COUNTS]
    loss[:, COUNTS], dz[:, COUNTS] = error * error / 2, error
    for column, quantile in zip(TIMES, QUANTILES):
        error = np.abs(t[:, column]) - z[:, column]
        # A negative time is how long there was no split for certain: whoever says later than that may be right.
        open_end = (t[:, column] < 0) & (error < 0)
        loss[:, column] = np.where(open_end, 0, np.maximum(quantile * error, (quantile - 1) * error))
        dz[:, column] = np.where(open_end, 0, np.where(error > 0, -quantile, 1 - quantile))
    scale = np.where(known, SCALE, 0)
    return loss * scale, dz * scale


def fit(x, y, weight, hidden, seed, epochs=12, rate=3e-3, decay=1e-4, stop=None):
    """Trains; `stop(net)` after each epoch gives a score (lower is better), of which the best epoch is kept."""
    net = Net(x.shape[1], hidden, seed)
    batch = int(np.clip(len(x) // 60, 64, 512))
    rng = np.random.default_rng(seed + 1)
    t = inside(y)
    # A bias that is the answer without features: the rest learns what differs from it.
    for column in range(WIDTH):
        known = np.isfinite(t[:, column])
        mean = np.average(np.abs(t[known, column]), weights=weight[known]) if known.any() else 0.0
        mean = np.log(np.clip(mean, 1e-4, 1 - 1e-4) / (1 - np.clip(mean, 1e-4, 1 - 1e-4))) if column in SHARES else mean
        net.w["b3"][column] = mean
    first = {key: np.zeros_like(value) for key, value in net.w.items()}
    second = {key: np.zeros_like(value) for key, value in net.w.items()}
    step, best, kept = 0, np.inf, None
    steps = epochs * max(1, len(x) // batch)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, max(1, len(order) - batch + 1), batch):
            rows = order[start : start + batch]
            _, grads = net.gradients(x[rows], t[rows], weight[rows])
            step += 1
            now = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
            for key, grad in grads.items():
                first[key] += 0.1 * (grad - first[key])
                second[key] += 0.001 * (grad * grad - second[key])
                move = first[key] / (1 - 0.9**step) / (np.sqrt(second[key] / (1 - 0.999**step)) + 1e-8)
                pull = decay * net.w[key] if key.startswith(("w", "skip")) else 0
                net.w[key] -= (now * (move + pull)).astype(np.float32)
        score = stop(net) if stop else -step
        if score < best:
            best, kept = score, {key: value.copy() for key, value in net.w.items()}
    net.w = kept
    return net


def calibrate(net, x, y, weight):
    """Scale and offset of the logit of each share (Platt), on rows not trained on; folded into the last layer."""
    _, _, z = net.forward(x)
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
        net.w["w3"][:, column] *= a
        net.w["skip"][:, column] *= a
        net.w["b3"][column] = net.w["b3"][column] * a + float(np.clip(b, -1.5, 1.5))
