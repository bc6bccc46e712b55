"""Every example workflow runs to success in a real host, on a real clip where one is at hand."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.host import graphs, media
from tests.host.comfy import Host, checkout_files

RATES = [
    Fraction(24000, 1001),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(50),
    Fraction(60),
]
FRAMES = 7


@pytest.fixture(scope="module")
def clips(host: Host, astronaut: np.ndarray) -> list[str]:
    """A short clip at each of the seven rates."""
    names = []
    frames = media.nodding(astronaut[:360, 40:400], FRAMES)
    for rate in RATES:
        names.append(f"rate_{rate.numerator}_{rate.denominator}.mp4")
        media.write_video(host.base / "input" / names[-1], frames, rate)
    return names


@pytest.mark.parametrize("name", graphs.NAMES)
def test_example_workflow(host: Host, name: str) -> None:
    graph = graphs.load(name)
    host.forget()  # nothing comes from the example before
    result = host.run(graph, timeout=600)
    (saved,) = graphs.outputs(graph, result, "SaveVideo")["images"]
    count, rate, seconds = media.count_frames(host.saved(saved))
    expected, target_rate, _ = media.count_frames(host.base / "input" / "demo_target.mp4")
    if name == "still_portrait":
        with_speech = media.read_speech(host.base / "input" / "demo_speech.flac", 60)
        expected, target_rate = round(len(with_speech) / 16_000 * 25), Fraction(25)
    assert count == expected
    assert abs(rate - target_rate) < 1e-2  # core Save Video rounds the rate
    assert abs(seconds - count / rate) < 1 / rate + Fraction(1024, 16_000) + Fraction(1, 100)
    report = graphs.outputs(graph, result, "PreviewAny")["text"][0]
    assert str(count) in report


def test_pixels_outside_the_mask_are_the_input(host: Host) -> None:
    graph = graphs.without_video(graphs.swap("demo_target.mp4", keep=("frames", "images", "mask", "crops")))
    host.run(graph)
    kept = {name: torch.load(host.base / "output" / f"{name}.pt") for name in ("frames", "images", "mask", "crops")}
    count = len(kept["frames"])
    assert kept["images"].shape == kept["frames"].shape
    assert kept["mask"].shape == kept["frames"].shape[:3]
    assert kept["crops"].shape[0] == count
    difference = (kept["images"] - kept["frames"]).abs().amax(-1)
    assert difference[kept["mask"] == 0].max() == 0
    assert (kept["mask"] == 0).float().mean() > 0.3
    assert difference[kept["mask"] > 0.9].mean() > 0.001  # and inside, something was drawn
    assert 0 <= kept["images"].min()
    assert kept["images"].max() <= 1


@pytest.mark.parametrize("index", range(len(RATES)), ids=[str(rate) for rate in RATES])
def test_as_many_frames_out_as_in_through_the_nodes(host: Host, clips: list[str], index: int) -> None:
    graph = graphs.swap(clips[index])
    result = host.run(graph)
    (saved,) = graphs.outputs(graph, result, "SaveVideo")["images"]
    count, rate, _ = media.count_frames(host.saved(saved))
    assert count == FRAMES
    assert abs(rate - RATES[index]) < 1e-2


@pytest.mark.parametrize("index", range(len(RATES)), ids=[str(rate) for rate in RATES])
def test_streaming_keeps_count_and_exact_rate(host: Host, clips: list[str], index: int) -> None:
    graph = graphs.load("streaming_video")
    graphs.find(graph, "LoadVideo")["file"] = clips[index]
    result = host.run(graph)
    (saved,) = graphs.outputs(graph, result, "SaveVideo")["images"]
    count, rate, seconds = media.count_frames(host.saved(saved))
    assert count == FRAMES
    assert rate == RATES[index]
    assert abs(seconds - FRAMES / rate) < 0.1  # pad: the sound is cut to the video


def test_running_changes_nothing_global(host: Host, clips: list[str]) -> None:
    look = {"1": {"class_type": "TestState", "inputs": {}}}
    before = json.loads(host.run(look)["1"]["state"][0])
    graph = graphs.load("streaming_video")
    graphs.find(graph, "LoadVideo")["file"] = clips[2]
    graphs.find(graph, "WSS_TalkingSwapVideo")["smoothing"] = 0.35  # not the cached run
    host.run(graph)
    after = json.loads(host.run(look)["1"]["state"][0])
    for name, old, new in zip(("environment", "sys.path", "folder_paths", "torch", "cwd"), before, after, strict=True):
        assert old == new, name


def test_checkout_gets_no_files(host: Host) -> None:
    """Runs write into the host's folders only."""
    assert checkout_files() <= host.checkout_before


def test_networks_travel_in_the_hosts_patcher(host: Host) -> None:
    """The host's own button frees them, and they come back."""
    host.run(graphs.swap("demo_target.mp4"))
    loads = host.log.read_text().count("Requested to load WavSyncSwap")
    assert loads > 0
    host.forget()
    host.run(graphs.swap("demo_target.mp4"))
    assert host.log.read_text().count("Requested to load WavSyncSwap") > loads
