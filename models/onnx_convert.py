"""Recogniser networks from .onnx files as torch modules: differentiable, on any device, without onnxruntime.

insightface publishes its recognisers as ONNX with batch norms folded into convolutions, so their weights fit no state
dict. Here the graph itself is executed, node by node, with its initialisers as parameters. Only the operators such
networks use are known (https://onnx.ai/onnx/operators/ defines them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Attributes = dict[str, Any]
Inputs = Sequence[Any]  # tensors, None for an input left out
Operator = Callable[[Inputs, Attributes], Tensor]


@dataclass(frozen=True)
class Node:
    """One operation: its function, the names of what it reads, the name it makes, and what nobody reads afterwards."""

    run: Operator
    inputs: tuple[str, ...]
    output: str
    attributes: Attributes
    spent: tuple[str, ...]


class OnnxNetwork(nn.Module):
    """An ONNX graph with one image input and one output, executed in torch.

    Attributes:
        raw_input: the graph normalises its input itself and expects 0..255, as networks converted from MXNet do;
            otherwise it expects [-1, 1].
    """

    def __init__(self, model: Any) -> None:
        """Convert a loaded `onnx.ModelProto`.

        Raises:
            ValueError: if the graph has an operator, or a form of one, that recognisers do not use.
        """
        super().__init__()
        graph = model.graph
        self._integers: dict[str, Tensor] = {}  # shapes and axes; they stay on the CPU
        self._keys: dict[str, str] = {}  # graph name -> parameter name
        self._add_constants(graph)
        weights = {initialiser.name for initialiser in graph.initializer}
        inputs = [value.name for value in graph.input if value.name not in weights]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ValueError(f"it has {len(inputs)} inputs and {len(graph.output)} outputs; a recogniser has one each.")
        self.input, self.output = inputs[0], graph.output[0].name
        self.nodes = _plan(graph)
        self.raw_input = _normalises_itself(graph)

    def _add_constants(self, graph: Any) -> None:
        from onnx import numpy_helper

        arrays = [(initialiser.name, numpy_helper.to_array(initialiser)) for initialiser in graph.initializer]
        for node in graph.node:
            if node.op_type == "Constant":
                value = _attributes(node).get("value")
                if value is None:
                    raise ValueError(f"its constant {node.output[0]!r} has an unusual form.")
                arrays.append((node.output[0], value))
        for name, array in arrays:
            tensor = torch.from_numpy(array.copy())
            if tensor.is_floating_point():
                self._keys[name] = f"p{len(self._keys)}"
                self.register_parameter(self._keys[name], nn.Parameter(tensor.float(), requires_grad=False))
            else:
                self._integers[name] = tensor

    def forward(self, x: Tensor) -> Tensor:
        """[B,3,H,W] float RGB (range: see `raw_input`) -> [B,D], not normalised."""
        values: dict[str, Tensor | None] = {name: getattr(self, key) for name, key in self._keys.items()}
        values.update(self._integers)
        values.update({"": None, self.input: x})
        for node in self.nodes:
            values[node.output] = node.run([values[name] for name in node.inputs], node.attributes)
            for name in node.spent:
                del values[name]
        result = values[self.output]
        assert result is not None
        return result.flatten(1)


def load_onnx(path: Path) -> OnnxNetwork:
    """Read a recogniser from an .onnx file.

    Args:
        path: existing file with a graph that maps [B or 1,3,112,112] to one vector per picture.

    Returns:
        The network in evaluation mode on the CPU; a batch size written into the file does not bind it.

    Raises:
        ValueError: if the file is damaged, or no recogniser.
        RuntimeError: if the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise RuntimeError(
            f"Reading {path.name} needs the package 'onnx' (pip install onnx), which is not installed or does not load "
            f"({error}). Weights as .pth or .safetensors need no extra package."
        ) from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path))
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ValueError(f"{path.name} is truncated, or not an ONNX file. Copy or download it again.") from error
    if not model.graph.node:
        raise ValueError(f"{path.name} is truncated, or not an ONNX file: it holds no graph. Download it again.")
    _check_input(model.graph, path.name)
    try:
        return OnnxNetwork(model).eval()
    except ValueError as error:
        raise ValueError(
            f"{path.name} is no face recogniser this pack can read: {error} Use the recognition model of an "
            "insightface pack (w600k_r50.onnx, w600k_mbf.onnx, glintr100.onnx, ...)."
        ) from error


def _check_input(graph: Any, name: str) -> None:
    weights = {initialiser.name for initialiser in graph.initializer}
    for value in graph.input:
        if value.name not in weights:
            sides = [d.dim_value for d in value.type.tensor_type.shape.dim]
            if len(sides) != 4 or any(
                found not in (0, want) for found, want in zip(sides[1:], (3, 112, 112), strict=True)
            ):
                shown = [side or "any" for side in sides]
                raise ValueError(
                    f"{name} takes input {shown}, a face recogniser [batch, 3, 112, 112]; it is another kind of model."
                )


def _attributes(node: Any) -> Attributes:
    from onnx import AttributeProto, helper, numpy_helper

    result = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.type == AttributeProto.TENSOR:
            value = numpy_helper.to_array(value)
        result[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return result


def _plan(graph: Any) -> list[Node]:
    """Nodes in the file's (topological) order, with the names to forget after each."""
    unknown = sorted({node.op_type for node in graph.node} - set(_OPERATORS) - {"Constant"})
    if unknown:
        raise ValueError(f"it uses {', '.join(unknown)}.")
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    last_use = {name: i for i, node in enumerate(nodes) for name in node.input}
    made = {node.output[0] for node in nodes} - {graph.output[0].name}
    plan = []
    for i, node in enumerate(nodes):
        attributes = _attributes(node)
        if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise ValueError(f"its {node.op_type} pads automatically.")
        spent = tuple(name for name in dict.fromkeys(node.input) if name in made and last_use[name] == i)
        plan.append(Node(_OPERATORS[node.op_type], tuple(node.input), node.output[0], attributes, spent))
    return plan


def _normalises_itself(graph: Any) -> bool:
    """Whether the image passes a subtraction and a scaling before its first convolution."""
    before: set[str] = set()
    for node in graph.node:
        if node.op_type == "Conv":
            break
        before.add(node.op_type)
    return "Sub" in before and bool(before & {"Mul", "Div"})


def _conv(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight, *bias = inputs
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if (top, left) != (bottom, right):
        x, top, left = functional.pad(x, (left, right, top, bottom)), 0, 0
    stride, dilation = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    group = attributes.get("group", 1)
    return functional.conv2d(x, weight, bias[0] if bias else None, stride, (top, left), dilation, group)


def _prelu(inputs: Inputs, _: Attributes) -> Tensor:
    x, slope = inputs
    return torch.where(x >= 0, x, x * slope)  # slopes [C,1,1] broadcast as the standard says


def _batch_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight, bias, mean, variance = inputs
    return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, attributes.get("epsilon", 1e-5))


def _gemm(inputs: Inputs, attributes: Attributes) -> Tensor:
    a, b, *c = inputs
    a = a.t() if attributes.get("transA", 0) else a
    b = b.t() if attributes.get("transB", 0) else b
    y = attributes.get("alpha", 1.0) * (a @ b)
    return y + attributes.get("beta", 1.0) * c[0] if c and c[0] is not None else y


def _reshape(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, shape = inputs[0], inputs[1].tolist()
    if attributes.get("allowzero", 0) == 0:
        shape = [x.shape[i] if side == 0 else side for i, side in enumerate(shape)]
    if shape[0] == 1 and len(shape) > 1:
        shape[0] = x.shape[0]  # files exported for one picture
    return x.reshape(shape)


def _flatten(inputs: Inputs, attributes: Attributes) -> Tensor:
    if attributes.get("axis", 1) != 1:
        raise ValueError("Flatten of another axis than 1 in a recogniser.")
    return inputs[0].flatten(1)


def _clip(inputs: Inputs, attributes: Attributes) -> Tensor:
    low, high = [*inputs[1:], None, None][:2]  # inputs since opset 11, attributes before
    low = attributes.get("min") if low is None else low
    high = attributes.get("max") if high is None else high
    return torch.clamp(inputs[0], low, high)


def _concat(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.cat(list(inputs), attributes["axis"])


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    axes = attributes["axes"] if "axes" in attributes else inputs[1].tolist()
    x = inputs[0]
    for axis in sorted(axes):
        x = x.unsqueeze(axis)
    return x


def _gather(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, index = inputs
    axis = attributes.get("axis", 0)
    return x.index_select(axis, index.reshape(-1)).reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])


# Shape, Gather, Unsqueeze, Concat: the way older exporters write "flatten all but the batch".
_OPERATORS: dict[str, Operator] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": lambda inputs, _: inputs[0] / inputs[1],
    "Dropout": lambda inputs, _: inputs[0],
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean((2, 3), keepdim=True),
    "Identity": lambda inputs, _: inputs[0],
    "MatMul": lambda inputs, _: inputs[0] @ inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "PRelu": _prelu,
    "Relu": lambda inputs, _: torch.relu(inputs[0]),
    "Reshape": _reshape,
    "Shape": lambda inputs, _: torch.tensor(inputs[0].shape),
    "Sigmoid": lambda inputs, _: torch.sigmoid(inputs[0]),
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
    "Unsqueeze": _unsqueeze,
}
