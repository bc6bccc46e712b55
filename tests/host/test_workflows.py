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
    reports = graphs.all_outputs(graph, result, "PreviewAny")
    assert all(str(count) in report["text"][0] for report in reports)


def test_pixels_outside_the_mask_are_the_input(host: Host) -> None:
    graph = graphs.without_video(graphs.swap("demo_target.mp4", keep=("frames", "images", "mask", "crops")))
    host.run(graph)
    kept = {
        name: torch.load(host.base / "output" / f"{name}.pt", weights_only=True)
        for name in ("frames", "images", "mask", "crops")
    }
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


def test_without_a_source_only_the_lips_are_new(host: Host, clips: list[str]) -> None:
    graph = graphs.load("streaming_video")
    graphs.find(graph, "LoadVideo")["file"] = clips[2]
    del graphs.find(graph, "WSS_TalkingSwapVideo")["face"]
    result = host.run(graph)
    (saved,) = graphs.outputs(graph, result, "SaveVideo")["images"]
    assert media.count_frames(host.saved(saved))[0] == FRAMES
    assert "No source identity" in graphs.outputs(graph, result, "PreviewAny")["text"][0]
    chain = graphs.without_video(graphs.swap("demo_target.mp4", keep=("crops",)))
    host.run(chain)
    swapped = torch.load(host.base / "output" / "crops.pt", weights_only=True)
    del graphs.find(chain, "WSS_Generate")["embedding"]
    chain["90"]["inputs"]["name"] = "kept"
    host.run(chain)
    kept = torch.load(host.base / "output" / "kept.pt", weights_only=True)
    assert kept.shape == swapped.shape
    assert (kept - swapped).abs().mean() > 0.01


def test_streaming_takes_a_video_made_of_frames(host: Host, clips: list[str]) -> None:
    """A VIDEO without a file behind it, at an NTSC rate, with the speech of the graph."""
    graph = graphs.load("streaming_video")
    graphs.find(graph, "LoadVideo")["file"] = clips[3]
    graph["20"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}}
    graph["21"] = {"class_type": "CreateVideo", "inputs": {"images": ["20", 0], "fps": ["20", 2], "audio": ["3", 0]}}
    node = graphs.find(graph, "WSS_TalkingSwapVideo")
    node["video"] = ["21", 0]
    del node["audio"]
    (saved,) = graphs.outputs(graph, host.run(graph), "SaveVideo")["images"]
    count, rate, seconds = media.count_frames(host.saved(saved))
    assert (count, rate) == (FRAMES, RATES[3])
    assert seconds > 0


def test_a_black_mask_protects_everything(host: Host, clips: list[str]) -> None:
    graph = graphs.without_video(graphs.swap(clips[2], keep=("frames", "images", "mask")))
    graph["60"] = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 360, "height": 360}}
    graphs.find(graph, "WSS_PasteBack")["mask"] = ["60", 0]
    host.run(graph)
    frames, images, mask = (
        torch.load(host.base / "output" / f"{name}.pt", weights_only=True) for name in ("frames", "images", "mask")
    )
    assert torch.equal(frames, images)
    assert mask.max() == 0


def test_the_mask_of_face_crop_changes_nothing(host: Host, clips: list[str]) -> None:
    kept = []
    for mask in (None, ["7", 2]):
        graph = graphs.without_video(graphs.swap(clips[2], keep=("images",)))
        if mask is not None:
            graphs.find(graph, "WSS_PasteBack")["mask"] = mask
        host.run(graph)
        kept.append(torch.load(host.base / "output" / "images.pt", weights_only=True))
    assert torch.equal(*kept)


def test_reference_face_is_followed(host: Host, clips: list[str]) -> None:
    """The portrait that the clip was made from finds itself; another person does not."""
    graph = graphs.without_video(graphs.swap(clips[2], keep=("images",)))
    graph["61"] = {"class_type": "LoadImage", "inputs": {"image": "demo_portrait.png"}}
    embed = graphs.find(graph, "WSS_ArcFaceEmbed")
    graph["62"] = {"class_type": "WSS_ArcFaceEmbed", "inputs": {**embed, "image": ["61", 0]}}
    graphs.find(graph, "WSS_FaceCrop")["reference"] = ["62", 0]
    host.run(graph)
    graphs.find(graph, "WSS_FaceCrop")["reference"] = ["8", 0]
    assert "reference" in host.fail(graph)


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
