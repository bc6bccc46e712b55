"""Sync Score and Identity Score in a real host give what the engine gives, from a file as from frames."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.checkpoints import save_weights
from models.faces import load_detector
from models.geometry import GEOMETRY_ID
from models.identity import load_recogniser
from models.metrics.identity import measure
from models.metrics.subject import Subject, Tools
from models.metrics.sync import SyncReport, score_crops, score_video
from models.metrics.sync_model import load_sync_model
from models.networks import build
from models.video import VideoFile
from tests.host import graphs, media
from tests.host.comfy import Host

CLIP, SILENT = "score_clip.mp4", "score_silent.mp4"
EXPERT = "sync/judge.safetensors"


@pytest.fixture(scope="module", autouse=True)
def clips(host: Host, astronaut: np.ndarray) -> None:
    frames = media.nodding(astronaut[:360, 40:400], 32)
    frames[10:20, :, :, 1] //= 2  # something that changes an embedding
    media.write_video(host.base / "input" / CLIP, frames, Fraction(25), media.babble(1.28))
    media.write_video(host.base / "input" / SILENT, frames, Fraction(25))


@pytest.fixture(scope="module")
def expert(host: Host) -> Iterator[Path]:
    """A sync expert with random weights: what it says means nothing, but it says the same everywhere."""
    path = host.base / "models" / "wavsyncswap" / EXPERT
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = build("syncnet_expert").eval()
    save_weights(path, network.state_dict(), {"network": "syncnet_expert", "config": {}, "geometry": GEOMETRY_ID})
    yield path
    path.unlink()


def clip(host: Host) -> VideoFile:
    return VideoFile(host.base / "input" / CLIP)


def sync_graph(**inputs: Any) -> graphs.Graph:
    settings = {"mode": "video", "min_frames": 20, "min_face": 100, "valid_only": False, "fps": 25.0}
    settings |= {"model": EXPERT, "detector": "builtin", "threshold": 0.6, "video": ["1", 0]}
    graph: graphs.Graph = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": CLIP}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "5": {"class_type": "WSS_SyncScore", "inputs": {**settings, **inputs}},
        "6": {"class_type": "TestKeep", "inputs": {"value": ["5", 4], "name": "plot"}},
    }
    return graph | shown("5", range(6), without=4)


def shown(node: str, outputs: range, without: int) -> graphs.Graph:
    """Nodes that show number and text outputs, called "node.output"."""
    return {f"{node}.{i}": graphs.text([node, i]) for i in outputs if i != without}


def texts(result: dict[str, Any], node: str) -> dict[int, str]:
    return {int(key.split(".")[1]): value["text"][0] for key, value in result.items() if key.startswith(f"{node}.")}


def check_sync(result: dict[str, Any], expected: SyncReport) -> None:
    found = texts(result, "5")
    numbers = [float(found[i]) for i in range(4)]
    wanted = [expected.distance, expected.confidence, expected.offset, expected.offset_ms]
    assert numbers == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert EXPERT.rpartition("/")[2] in found[5]
    assert f"{expected.mode} mode" in found[5]


def test_sync_score_of_a_file(host: Host, expert: Path) -> None:
    result = host.run(sync_graph())
    with clip(host) as video:
        expected = score_video(
            video, video.audio(), load_sync_model(expert), load_detector(), min_track=20, min_face=100
        )
    check_sync(result, expected)
    plot = torch.load(host.base / "output" / "plot.pt", weights_only=True)
    assert plot.shape == (1, 600, 960, 3)
    assert 0 <= plot.min() < 0.5 < plot.max() <= 1
    (shown_plot,) = result["5"]["images"]  # the node shows it too
    assert host.saved(shown_plot).is_file()


def test_sync_score_of_frames_as_crops(host: Host, expert: Path) -> None:
    graph = sync_graph(mode="crops", images=["2", 0], audio=["2", 1], fps=25.0, valid_only=True)
    del graph["5"]["inputs"]["video"]
    with clip(host) as video:
        expected = score_crops(video, video.audio(), load_sync_model(expert), valid_only=True)
    check_sync(host.run(graph), expected)


def test_auto_takes_the_bundled_expert_where_there_is_no_syncnet(host: Host, expert: Path) -> None:
    assert "sync_expert.safetensors" in texts(host.run(sync_graph(model="auto")), "5")[5]


def test_sync_score_explains(host: Host, expert: Path) -> None:
    assert "longest track has 32" in host.fail(sync_graph(min_frames=100))
    assert "no sound" in host.fail(sync_graph() | {"1": {"class_type": "LoadVideo", "inputs": {"file": SILENT}}})
    assert "neither is connected" in host.fail(
        {
            "5": {
                "class_type": "WSS_SyncScore",
                "inputs": {k: v for k, v in sync_graph()["5"]["inputs"].items() if k != "video"},
            }
        }
    )
    assert "gone.pth" in host.fail(sync_graph(model="gone.pth"))


def test_sync_models_are_no_generators(host: Host, expert: Path) -> None:
    offered = json.dumps(host.get("/object_info/WSS_LoadModel"))
    assert EXPERT not in offered
    assert EXPERT in json.dumps(host.get("/object_info/WSS_SyncScore"))


def identity_graph(**inputs: Any) -> graphs.Graph:
    settings: dict[str, Any] = {"detector": "builtin", "threshold": 0.6, "face_order": "largest", "face_index": 0}
    settings |= {"select_frame": 0, "point_x": -1, "point_y": -1, "fps": 25.0, "source": ["4", 0]}
    portrait = {"image": ["3", 0], "recogniser": "builtin", "detector": "builtin", "threshold": 0.6}
    graph: graphs.Graph = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": CLIP}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "demo_portrait.png"}},
        "4": {"class_type": "WSS_ArcFaceEmbed", "inputs": portrait},
        "5": {"class_type": "WSS_IdentityScore", "inputs": {**settings, **inputs}},
        "6": {"class_type": "TestKeep", "inputs": {"value": ["5", 2], "name": "plot"}},
    }
    return graph | shown("5", range(4), without=2)


@pytest.mark.parametrize("frames", [False, True], ids=["file", "frames"])
def test_identity_score(host: Host, astronaut: np.ndarray, frames: bool) -> None:
    made = {"images": ["2", 0]} if frames else {"video": ["1", 0]}
    given = {"original_images": ["2", 0]} if frames else {"original": ["1", 0]}
    found = texts(host.run(identity_graph(**made, **given)), "5")
    recogniser, detector = load_recogniser(), load_detector()
    with clip(host) as video, clip(host) as same:
        source = recogniser.embed_image(astronaut, detector)
        subject = Subject(video, Tools(detector, recogniser), reference=same, source=source)
        expected = measure(subject)
    exact = 2e-3 if frames else 1e-4  # the host's own decoder is a level darker
    assert float(found[0]) == pytest.approx(expected.scores["to_source"], abs=exact)
    assert float(found[1]) == pytest.approx(1, abs=1e-4)  # the video is its own original
    assert 0.3 < float(found[0]) < 0.99
    assert "32 of 32 frames" in found[3]
    assert torch.load(host.base / "output" / "plot.pt", weights_only=True).shape == (1, 300, 960, 3)


def test_identity_score_with_a_target_embedding_or_none(host: Host) -> None:
    found = texts(host.run(identity_graph(video=["1", 0], target=["4", 0])), "5")
    assert found[0] == found[1]
    assert texts(host.run(identity_graph(video=["1", 0])), "5")[1] == "nan"


def test_identity_score_explains(host: Host) -> None:
    assert "both are connected" in host.fail(identity_graph(video=["1", 0], images=["2", 0]))
    graph = identity_graph(video=["1", 0], original_images=["7", 0])
    graph["7"] = {
        "class_type": "ImageScale",
        "inputs": {"image": ["2", 0], "upscale_method": "area", "width": 200, "height": 200, "crop": "disabled"},
    }
    assert "360x360 px, its reference 200x200" in host.fail(graph)


def test_comparison_with_its_sync_scores_switched_on(host: Host, expert: Path) -> None:
    graph = graphs.load("compare_systems", muted=True)
    for node in graph.values():
        if node["class_type"] == "WSS_SyncScore":
            node["inputs"]["min_frames"] = 16  # the tests' clip has a second
    result = host.run(graph, timeout=600)
    for kind in ("WSS_SyncScore", "WSS_IdentityScore"):
        plots = graphs.all_outputs(graph, result, kind)
        assert len(plots) == 2
        assert all(host.saved(plot["images"][0]).is_file() for plot in plots)
    a, b = (
        float(re.search(r"source: mean (-?[\d.]+)", one["text"][0])[1])  # type: ignore[index]
        for one in graphs.all_outputs(graph, result, "PreviewAny")
    )
    assert a > b + 0.05  # A was given the source's face
    (saved,) = graphs.outputs(graph, result, "SaveVideo")["images"]
    with VideoFile(host.saved(saved)) as video, VideoFile(host.base / "input" / "demo_target.mp4") as target:
        assert video.info.width == 3 * target.info.width + 2 * 8
