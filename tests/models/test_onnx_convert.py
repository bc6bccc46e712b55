"""ONNX recognisers executed in torch, against onnxruntime on the same file."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from models.networks import build
from models.onnx_convert import load_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def settled(width=0.125):
    """A thin IResNet-18 whose batch norms are not at their neutral start values."""
    torch.manual_seed(0)
    network = build("iresnet18", width=width, dim=64)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return network.eval()


def export(network, path, fold=True, **options):
    training = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
    torch.onnx.export(
        network,
        torch.zeros(1, 3, 112, 112),
        str(path),
        dynamo=False,
        training=training,
        do_constant_folding=fold,
        **options,
    )
    return path


def reference(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images.numpy()])


def images(count=2):
    return torch.from_numpy(np.random.RandomState(5).uniform(-1, 1, (count, 3, 112, 112))).float()


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("opset", [11, 17])
def test_iresnet_like_insightface_exports_it(tmp_path, fold, opset):
    network = settled()
    path = export(network, tmp_path / "w600k_r18.onnx", fold, opset_version=opset)
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert {"Conv", "PRelu", "BatchNormalization", "Add", "Gemm"} <= kinds
    converted = load_onnx(path)
    assert not converted.raw_input
    with torch.no_grad():
        found = converted(images())
        np.testing.assert_allclose(found, reference(path, images()), atol=1e-4)
        np.testing.assert_allclose(found, network(images()), atol=1e-4)


def test_folding_removes_batch_norms(tmp_path):
    """Otherwise the two halves of the test above are one."""

    def norms(fold):
        graph = onnx.load(export(settled(), tmp_path / f"{fold}.onnx", fold)).graph
        return sum(node.op_type == "BatchNormalization" for node in graph.node)

    assert norms(True) < norms(False)


class Uneven(nn.Module):
    """A convolution padded on two sides only, as other frameworks write it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, x):
        return self.conv((x - 127.5) / 128.0).flatten(1)


def test_foreign_forms(tmp_path):
    path = tmp_path / "foreign.onnx"
    network = Uneven().eval()
    export(network, path)
    model = onnx.load(path)
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    next(a for a in conv.attribute if a.name == "pads").ints[:] = [0, 0, 1, 1]
    onnx.save(model, path)
    converted = load_onnx(path)
    assert converted.raw_input
    raw = images() * 127.5 + 127.5
    np.testing.assert_allclose(converted(raw).detach(), reference(path, raw), atol=1e-4)


def test_flatten_by_size_arithmetic(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, 2, groups=1)
            self.depthwise = nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False)
            self.head = nn.Linear(8, 16, bias=False)

        def forward(self, x):
            x = nn.functional.relu6(self.depthwise(torch.relu(self.conv(x))))
            x = nn.functional.adaptive_avg_pool2d(torch.sigmoid(x), 1)
            return self.head(x.view(x.size(0), -1))

    path = export(
        Net().eval(), tmp_path / "net.onnx", input_names=["x"], dynamic_axes={"x": {0: "batch"}}, opset_version=12
    )
    assert "Shape" in {node.op_type for node in onnx.load(path).graph.node}
    np.testing.assert_allclose(load_onnx(path)(images(3)).detach(), reference(path, images(3)), atol=1e-5)


def test_gradient_reaches_the_image_and_weights_stay_frozen(tmp_path):
    converted = load_onnx(export(settled(), tmp_path / "w.onnx"))
    x = images().requires_grad_()
    converted(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in converted.parameters())
    assert sum(p.numel() for p in converted.parameters()) > 100_000


def test_weights_follow_the_module(tmp_path):
    converted = load_onnx(export(settled(), tmp_path / "w.onnx")).double()
    assert converted(images().double()).dtype == torch.float64
    assert all(p.device.type == "meta" for p in converted.to("meta").parameters())


def test_real_foreign_file(shared_data):
    path = shared_data / "weights" / "mobilefacenet_128.onnx"
    if not path.is_file():
        pytest.skip("mobilefacenet_128.onnx is absent")
    converted = load_onnx(path)
    with torch.no_grad():
        found = converted(images(3))  # the file itself is fixed to one picture
    assert found.shape == (3, 128)
    np.testing.assert_allclose(found, reference(path, images(3)), atol=1e-4)


@pytest.mark.parametrize("content", [b"", b"<!doctype html><html></html>", b"\x08\x07\x12\x07pytorch"])
def test_other_content(tmp_path, content):
    path = tmp_path / "w.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="w.onnx is truncated, or not an ONNX file"):
        load_onnx(path)


def test_truncated_file(tmp_path):
    path = export(settled(), tmp_path / "w.onnx")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="truncated"):
        load_onnx(path)


def test_another_kind_of_model_is_named(tmp_path):
    class Detector(nn.Module):
        def forward(self, x):
            return nn.functional.interpolate(x, scale_factor=2.0).sum(1)

    path = export(Detector(), tmp_path / "d.onnx")
    with pytest.raises(ValueError, match="it uses .*Resize.*insightface"):
        load_onnx(path)
    torch.onnx.export(Detector(), torch.zeros(1, 3, 640, 640), str(path), dynamo=False)
    with pytest.raises(ValueError, match=r"takes input \[1, 3, 640, 640\]"):
        load_onnx(path)


def test_absent_package_is_explained(tmp_path, monkeypatch):
    path = export(settled(), tmp_path / "w.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RuntimeError, match="needs the package 'onnx'"):
        load_onnx(path)
