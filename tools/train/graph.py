"""What all graphs have in common: versions that ONNX Runtime 1.24 reads, and bytes that do not depend on the day."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from net import BOUND, CLOSED, FREE, LITTLE, NARROW, ODDS_MOST, STEADY, WIDER
from outputs import ASKED, COUNTS, INPUT, OUTPUTS

# Newer writers default to versions that the pinned runtime refuses.
IR = 8
OPSETS = [helper.make_opsetid("", 17)]


def save(model: onnx.ModelProto, path: Path) -> None:
    """Writes a checked model; the same model is the same bytes."""
    model.producer_name = "weft tools/train"
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def constants_of(path: Path) -> dict:
    """The arrays of a graph of ours, by name: what a further training begins with."""
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def assemble(scaler, experts, net, metadata: dict) -> onnx.ModelProto:
    """One graph of a scaler and a network: features in, every output in plain units out."""
    constants, nodes = [], []

    def const(name, values):
        constants.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    x = node("Max", [INPUT, const("low", scaler.low)], "raised")
    x = node("Min", [x, const("high", scaler.high)], "clipped")
    x = node("Sub", [x, const("mean", scaler.mean)], "centred")
    x = node("Mul", [x, const("factor", scaler.factor)], "scaled")
    h = node("Gemm", [x, const("w1", net.w["w1"]), const("b1", net.w["b1"])], "first")
    h = node("Relu", [h], "first_relu")
    h = node("Gemm", [h, const("w2", net.w["w2"]), const("b2", net.w["b2"])], "second")
    h = node("Relu", [h], "second_relu")
    straight = node("Gemm", [x, const("skip", net.w["skip"]), const("b3", net.w["b3"])], "straight")
    deep = node("MatMul", [h, const("w3", net.w["w3"])], "deep")
    raw = node("Add", [straight, deep], "without_experts")

    # What the experts say, and how much each is believed.
    def whole(name, values):
        constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    asked, each = experts.shape
    counts = len(COUNTS)
    said = node("Gather", [INPUT, whole("columns", experts.columns[:counts].reshape(-1))], "asked", axis=1)
    said = node("Min", [node("Max", [said, const("zero", 0.0)], "asked_least"), const("most_log", 40.0)], "asked_most")
    said = node("Sub", [node("Exp", [said], "rates_and_one"), const("one", 1.0)], "rates")
    said = node("Mul", [said, const("factors", experts.factors[:counts].reshape(-1))], "expected")
    said = node("Log", [node("Add", [said, "one"], "expected_and_one")], "expected_log")
    said = node("Reshape", [said, whole("by_count", [-1, counts, each])], "said_counts")
    odds = node("Gather", [INPUT, whole("odds_columns", experts.columns[counts:].reshape(-1))], "odds_asked", axis=1)
    odds = node("Max", [odds, const("least_odds", -ODDS_MOST)], "odds_least")
    odds = node("Min", [odds, const("most_odds", ODDS_MOST)], "odds_most")
    odds = node("Mul", [odds, const("odds_known", np.sign(experts.factors[counts:]).reshape(-1))], "odds")
    odds = node("Reshape", [odds, whole("by_odds", [-1, asked - counts, each])], "said_odds")
    said = node("Concat", [said, odds], "said", axis=1)
    gates = node("Gemm", [h, const("w4", net.w["w4"]), const("b4", net.w["b4"])], "gates")
    gates = node("Reshape", [gates, whole("by_asked", [-1, asked, each])], "gates_by_asked")
    chosen = node("Softmax", [gates], "chosen", axis=2)
    mixed = node("ReduceSum", [node("Mul", [chosen, said], "weighed"), whole("third", [2])], "mixed", keepdims=0)
    # Beside them the network turns each within bounds. The rest of a row is its own.
    nodes.append(helper.make_node("Split", [raw, whole("own_and_asked", [ASKED[0], asked])], ["own", "turn"], axis=1))
    turned = node("Tanh", [node("Div", ["turn", const("bound", BOUND)], "turn_share")], "turned")
    turned = node("Mul", [turned, "bound"], "turned_by")
    little = node("Exp", [node("Neg", [mixed], "mixed_below")], "little")
    left = node("Sub", ["one", node("Mul", [little, const("closed", CLOSED)], "left")], "left_of_little")
    apart = [node(kind, ["said"], f"{kind}_said", axes=[2], keepdims=0) for kind in ("ReduceMax", "ReduceMin")]
    apart = node("Mul", [node("Sub", apart, "apart"), const("wider", WIDER)], "wider_by")
    apart = node("Add", [apart, const("narrow", NARROW)], "wide")
    apart = node("Add", [apart, node("Mul", [little, const("little_opens", LITTLE)], "little_by")], "open_of_all")
    room = node("Mul", [left, node("Min", [apart, "one"], "open")], "room")
    if experts.steady_by >= 0:
        steady = node("Gather", [INPUT, whole("steady_by", [experts.steady_by])], "burst", axis=1)
        steady = node("Min", [node("Add", [steady, const("steady", STEADY)], "unsteady"), "one"], "unsteady_most")
        room = node("Mul", [room, node("Max", [steady, const("free", FREE)], "unsteady_of_all")], "room_by_steadiness")
    z = node("Add", [mixed, node("Mul", [turned, room], "turned_in_room")], "of_experts")
    z = node("Concat", ["own", z], "uncalibrated", axis=1)
    z = node("Mul", [z, const("scale", net.w["scale"])], "scaled_odds")
    z = node("Add", [z, const("offset", net.w["offset"])], "all")
    whole("widths", [width for _, width in OUTPUTS])
    parts = [f"{name}_inside" for name, _ in OUTPUTS]
    nodes.append(helper.make_node("Split", [z, "widths"], parts, axis=1))
    for (name, _), part in zip(OUTPUTS, parts):
        if name in ("p_split", "split_point", "p_quiet"):
            node("Sigmoid", [part], name)
        else:
            bounded = node("Min", [node("Max", [part, "zero"], f"{name}_least"), "most_log"], f"{name}_most")
            node("Sub", [node("Exp", [bounded], f"{name}_exp"), "one"], name)
    float_port = helper.make_tensor_value_info
    inputs = [float_port(INPUT, TensorProto.FLOAT, ["rows", len(scaler.mean)])]
    outputs = [float_port(name, TensorProto.FLOAT, ["rows", width]) for name, width in OUTPUTS]
    graph = helper.make_graph(nodes, "weft-forecast", inputs, outputs, constants)
    model = helper.make_model(graph, ir_version=IR, opset_imports=OPSETS)
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    return model
