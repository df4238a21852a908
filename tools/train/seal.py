"""Writes a short form of the scores into a model's metadata: `weft model show` tells them.

    python tools/train/seal.py model.onnx scores.json shipped.onnx
"""

import json
import sys
from pathlib import Path

import onnx

import graph


def main(model, scores, out):
    made = onnx.load(model)
    told = {}
    for name, rows in json.loads(Path(scores).read_text()).items():
        for row in rows:
            values = row["values"]
            told[f"{name}: {row['score']}"] = (
                f"{row['verdict']}: {values['model']} against {values[row['best_baseline']]} of {row['best_baseline']}"
            )
    for prop in made.metadata_props:
        if prop.key == "scores":
            prop.value = json.dumps(told)
    graph.save(made, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
