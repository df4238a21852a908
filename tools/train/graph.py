"""What all graphs have in common: versions that ONNX Runtime 1.24 reads, and bytes that do not depend on the day."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from outputs import INPUT, OUTPUTS

# Newer writers default to versions that the pinned runtime refuses.
IR = 8
OPSETS = [helper.make_opsetid("", 17)]


def save(model: onnx.ModelProto, path: Path) -> None:
    """Writes a checked model; the same model is the same bytes."""
    model.producer_name = "weft tools/train"
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def assemble(scaler, net, metadata: dict) -> onnx.ModelProto:
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
    z = node("Add", [straight, deep], "all")
    const_split = numpy_helper.from_array(np.array([width for _, width in OUTPUTS], np.int64), "widths")
    constants.append(const_split)
    parts = [f"{name}_inside" for name, _ in OUTPUTS]
    nodes.append(helper.make_node("Split", [z, "widths"], parts, axis=1))
    const("zero", 0.0)
    const("one", 1.0)
    const("most_log", 40.0)
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
