"""The outputs of a model, as src/forecast/predictor.rs fixes them: names, widths, what they mean, what they are scored by."""

INPUT = "features"
SPLIT_HORIZONS = (300, 3_600, 86_400)
HORIZONS = (60, 300, 3_600, 86_400)
QUANTILES = (0.1, 0.5, 0.9)
OUTPUTS = (
    ("p_split", 3),
    ("split_secs", 3),
    ("split_point", 1),
    ("pages", 4),
    ("bytes", 4),
    ("reads", 4),
    ("p_quiet", 4),
)
WIDTH = sum(width for _, width in OUTPUTS)
# No split in sight: ten years.
NEVER_SECS = 3.2e8

COLUMNS = {}
_at = 0
for _name, _width in OUTPUTS:
    COLUMNS[_name] = slice(_at, _at + _width)
    _at += _width
# Probabilities are logits inside; counts and times are logarithms inside.
SHARES = [i for name in ("p_split", "split_point", "p_quiet") for i in range(*COLUMNS[name].indices(WIDTH))]
COUNTS = [i for name in ("pages", "bytes", "reads") for i in range(*COLUMNS[name].indices(WIDTH))]
QUIET = list(range(*COLUMNS["p_quiet"].indices(WIDTH)))
# What experts are asked for: these columns stand together, at the end of a row.
ASKED = COUNTS + QUIET
TIMES = list(range(*COLUMNS["split_secs"].indices(WIDTH)))
