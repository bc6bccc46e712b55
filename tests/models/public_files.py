"""Random weights in the containers in which public files come, SimSwap's pickled recogniser among them."""

from __future__ import annotations

import os
import sys
import types
import warnings
from pathlib import Path

import torch
from torch import nn

from models.networks import build
from models.networks.simswap_arcface import IRSEBlock, SqueezeExcite

# How a state dict is wrapped and stored: (what is saved, further arguments of torch.save)
CONTAINERS = {
    "flat": (lambda s: s, {}),
    "flat legacy": (lambda s: s, {"_use_new_zipfile_serialization": False}),
    "module prefix": (lambda s: {f"module.{k}": v for k, v in s.items()}, {}),
    "nested": (lambda s: {"model": {"state_dict": s}, "epoch": 3}, {}),
    "half": (lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()}, {}),
    "with optimizer": (lambda s: _trained(s), {}),
    "with optimizer legacy": (lambda s: _trained(s), {"_use_new_zipfile_serialization": False}),
}


def _trained(state: dict[str, torch.Tensor]) -> dict:
    """A checkpoint as Wav2Lip's trainers write it."""
    moments = {
        i: {"step": 7, "exp_avg": torch.zeros_like(v), "exp_avg_sq": torch.zeros_like(v)}
        for i, v in enumerate(state.values())
        if v.is_floating_point()
    }
    groups = [{"lr": 1e-4, "betas": (0.9, 0.999), "params": list(moments)}]
    return {
        "state_dict": {f"module.{k}": v for k, v in state.items()},
        "optimizer": {"state": moments, "param_groups": groups},
        "global_step": 7,
        "global_epoch": 1,
    }


def random_network(name: str, **config) -> nn.Module:
    """A network with random weights and batch-norm statistics that let its inputs through."""
    torch.manual_seed(1)
    network = build(name, **config).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)  # torch's default fades through 20 layers
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network


def save_public(path: Path, state: dict[str, torch.Tensor], container: str) -> Path:
    """Write a state dict in one of `CONTAINERS`."""
    wrap, options = CONTAINERS[container]
    torch.save(wrap(state), path, **options)
    return path


def simswap_module(monkeypatch, generation: str = "2023", extra: object = None) -> nn.Module:
    """SimSwap's recogniser as an object of SimSwap's own classes, which pickle finds while the test runs."""
    place = sys.modules["models"] if generation == "2020" else types.ModuleType("models.arcface_models")
    monkeypatch.setitem(sys.modules, place.__name__, place)
    fake = {
        name: type(name, (nn.Module,), {"__module__": place.__name__})
        for name in ("ResNet", "IRBlock", "SEBlock", "ArcMarginModel")
    }
    for name, made in fake.items():
        monkeypatch.setattr(place, name, made, raising=False)
    module = random_network("simswap_arcface", width=1 / 16, dim=32)
    for part in module.modules():
        if isinstance(part, IRSEBlock | SqueezeExcite):
            part.__class__ = fake["IRBlock" if isinstance(part, IRSEBlock) else "SEBlock"]
    module.__class__ = fake["ResNet"]
    if extra is not None:
        module.extra = extra
    return module


def save_simswap_module(path: Path, module: nn.Module, legacy: bool = False) -> Path:
    """Write it as arcface_checkpoint.tar: in 2020 a whole training checkpoint, since 2023 the bare module."""
    content: object = module
    if type(module).__module__ == "models":
        head = sys.modules["models"].ArcMarginModel()  # type: ignore[attr-defined]
        head.weight = nn.Parameter(torch.zeros(1000, 32))
        model, metric = nn.DataParallel(module), nn.DataParallel(head)
        for parallel in (model, metric):
            parallel.src_device_obj = torch.device("cuda", 0)  # what a machine with a GPU leaves in it
        optimizer = torch.optim.SGD([{"params": model.parameters()}, {"params": metric.parameters()}], 0.1, 0.9)
        optimizer.state[head.weight]["momentum_buffer"] = torch.zeros(1000, 32)
        content = {"epoch": 4, "epochs_since_improvement": 0, "acc": 0.99, "model": model}
        content |= {"metric_fc": metric, "optimizer": optimizer}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the classes have no source text
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


class Payload:
    """What an attacker would save: an object whose loading runs a command."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)
