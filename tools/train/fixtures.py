"""Tiny graphs for the tests of the daemon's end (mount/src/onnx): made here once, committed there.

    python tools/train/fixtures.py mount/src/onnx/fixtures
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graph import IR, OPSETS, save

SCHEMA = "of-the-tests"
FLOAT = TensorProto.FLOAT


def port(name, width):
    return helper.make_tensor_value_info(name, FLOAT, ["rows", width])


def const(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.array(values, dtype), name)


def model(nodes, constants, outputs, schema=SCHEMA):
    graph = helper.make_graph(nodes, "fixture", [port("features", 3)], outputs, constants)
    made = helper.make_model(graph, ir_version=IR, opset_imports=OPSETS)
    if schema:
        helper.set_model_props(made, {"schema": schema, "seed": "1", "date": "2026-11-25"})
    onnx.checker.check_model(made)
    return made


# sum: of three features; twice: a sum of (1, 2, 4) times them, and its logarithm, NaN below zero.
SUM = helper.make_node("MatMul", ["features", "ones"], ["sum"])
WEIGHED = helper.make_node("MatMul", ["features", "weights"], ["weighed"])
LOG = helper.make_node("Log", ["weighed"], ["log"])
BOTH = helper.make_node("Concat", ["weighed", "log"], ["twice"], axis=1)
CONSTANTS = [const("ones", [[1], [1], [1]]), const("weights", [[1], [2], [4]])]
OUTPUTS = [port("sum", 1), port("twice", 2)]


def endless():
    """Adds one for ever, as far as a test is concerned."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Add", ["state", "step"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["turns", "true", "start"], ["sum"], body=body)
    start = helper.make_node("MatMul", ["features", "ones"], ["start"])
    constants = CONSTANTS + [const("turns", 1 << 60, np.int64), const("true", True, np.bool_), const("step", 1.0)]
    return model([start, loop, WEIGHED, LOG, BOTH], constants, OUTPUTS)


def main(directory):
    good = [SUM, WEIGHED, LOG, BOTH]
    made = {
        "good": model(good, CONSTANTS, OUTPUTS),
        "other_schema": model(good, CONSTANTS, OUTPUTS, "of-long-ago"),
        "no_schema": model(good, CONSTANTS, OUTPUTS, None),
        "fewer_outputs": model([SUM], CONSTANTS, OUTPUTS[:1]),
        "endless": endless(),
    }
    for name, graph in made.items():
        save(graph, Path(directory) / f"{name}.onnx")


if __name__ == "__main__":
    main(*sys.argv[1:])
