"""A device that is none or not here is one error of every command."""

from __future__ import annotations

import pytest
import torch

from training.__main__ import COMMANDS, main
from training.devices import check_device

COMMAND_LINES = {
    "infer": ["--video", "no.mp4", "--out", "o.mp4"],
    "adapt": ["--video", "no.mp4"],
    "generator": ["--data", "no", "--output", "out"],
    "syncnet": ["--data", "no", "--output", "out"],
    "score": ["--video", "no.mp4"],
    "evaluate": ["--data", "no", "--output", "out", "--systems", "ground_truth"],
    "benchmark": [],
}


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_every_command_tells_it_before_any_work(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    for device in ("foo", "cuda:x"):
        assert main([command, *COMMAND_LINES[command], "--device", device]) == 1
        assert capsys.readouterr().err == f"error: --device {device!r} is no device. Give cpu, cuda, cuda:N or mps.\n"
    assert not list(tmp_path.iterdir())
    assert command in COMMANDS


@pytest.mark.parametrize(("found", "device"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_cards_that_are_not_here(monkeypatch, found, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    with pytest.raises(ValueError, match=rf"--device {device} cannot be used: {found} CUDA device\(s\) found"):
        check_device(device)
    if found:
        check_device("cuda")
        check_device("cuda:1")


@pytest.mark.parametrize("device", ["meta", "cpu:1", "vulkan"])
def test_devices_that_do_not_compute(device):
    with pytest.raises(ValueError, match=f"--device {device} cannot be used: .*doctor"):
        check_device(device)


def test_a_cpu_is_always_here():
    check_device("cpu")
