"""Public weights as a user has them: dropped into models/wavsyncswap, chosen in the loader, run."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.host import graphs, media
from tests.host.comfy import Host
from tests.models.public_files import random_network, save_public, save_simswap_module, simswap_module
from training.import_weights import import_weights

TALK, SWAP, ID_NET = "wav2lip.pth", "simswap/latest_net_G.pth", "arcface_checkpoint.tar"
BOTH = f"{TALK} + {SWAP}"
CLIP, FRAMES = "four_frames.mp4", 4
SHORTEST = "one_frame.mp4"  # whatever the clock says, it is drawn in one pass: runs can be compared to the bit


@pytest.fixture(scope="module", autouse=True)
def files(host: Host, astronaut: np.ndarray) -> Iterator[Path]:
    """A short clip, and narrow random networks in the public layouts and containers."""
    for name, count in ((CLIP, FRAMES), (SHORTEST, 1)):
        frames = media.nodding(astronaut[:320, 60:380], count)
        media.write_video(host.base / "input" / name, frames, Fraction(25), media.babble(0.2))
    folder = host.base / "models" / "wavsyncswap"
    (folder / "simswap").mkdir()
    save_public(folder / TALK, random_network("wav2lip", width=1 / 8).state_dict(), "with optimizer legacy")
    save_public(folder / SWAP, random_network("simswap_224", width=1 / 8, id_dim=32).state_dict(), "flat legacy")
    save_public(folder / "syncnet_v2.pth", {"netcnnaud.0.weight": torch.zeros(64, 1, 3, 3)}, "flat")
    with pytest.MonkeyPatch.context() as patch:
        save_simswap_module(folder / ID_NET, simswap_module(patch))
    yield folder
    for name in (TALK, SWAP, ID_NET, "syncnet_v2.pth"):
        (folder / name).unlink()


def options(host: Host, node: str, widget: str) -> list[str]:
    return host.get(f"/object_info/{node}")[node]["input"]["required"][widget][1]["options"]


def swap_graph(model: str, recogniser: str | None, clip: str = CLIP) -> dict[str, Any]:
    """The composable swap with a model, embedded by a recogniser or with nothing to embed."""
    graph = graphs.without_video(graphs.swap(clip, keep=("frames", "images", "crops")))
    graphs.find(graph, "WSS_LoadModel")["model"] = model
    if recogniser is None:
        del graphs.find(graph, "WSS_Generate")["embedding"]
    else:
        graphs.find(graph, "WSS_ArcFaceEmbed")["recogniser"] = recogniser
    return graph


def test_the_loader_lists_generators_alone_and_in_pairs(host: Host) -> None:
    listed = options(host, "WSS_LoadModel", "model")
    assert listed[0] == "builtin (small 96)"
    assert {TALK, SWAP, BOTH} <= set(listed)
    assert not {ID_NET, "syncnet_v2.pth"} & set(listed)
    recognisers = options(host, "WSS_ArcFaceEmbed", "recogniser")
    assert ID_NET in recognisers
    assert not {TALK, SWAP} & set(recognisers)


@pytest.mark.parametrize(
    "model, recogniser, side",
    [(TALK, None, 144), (SWAP, ID_NET, 224), (BOTH, ID_NET, 224)],
    ids=["lips", "swap", "both"],
)
def test_each_draws_faces(host: Host, model: str, recogniser: str | None, side: int) -> None:
    host.run(swap_graph(model, recogniser))
    frames, images, crops = (
        torch.load(host.base / "output" / f"{name}.pt", weights_only=True) for name in ("frames", "images", "crops")
    )
    assert crops.shape == (len(frames), side, side, 3)
    assert torch.isfinite(images).all()
    assert (images - frames).abs().amax((1, 2, 3)).min() > 0.1
    assert torch.equal(images[:, :20, :20], frames[:, :20, :20])


@pytest.mark.parametrize("model, recogniser", [(TALK, None), (BOTH, ID_NET)], ids=["lips", "both"])
def test_the_streaming_node_makes_a_video(host: Host, model: str, recogniser: str | None) -> None:
    graph = graphs.load("streaming_video")
    graphs.find(graph, "LoadVideo")["file"] = CLIP
    graphs.find(graph, "WSS_LoadModel")["model"] = model
    if recogniser is None:
        del graphs.find(graph, "WSS_TalkingSwapVideo")["face"]
    else:
        graphs.find(graph, "WSS_TalkingSwapVideo")["recogniser"] = recogniser
    assert_talking(host, graph)


def test_the_composable_nodes_make_a_video(host: Host) -> None:
    graph = graphs.swap(CLIP)
    graphs.find(graph, "WSS_LoadModel")["model"] = BOTH
    graphs.find(graph, "WSS_ArcFaceEmbed")["recogniser"] = ID_NET
    assert_talking(host, graph)


def assert_talking(host: Host, graph: dict[str, Any]) -> None:
    """The video that a graph saves has the clip's frames and sound, another face, and nothing else that is new."""
    (saved,) = graphs.outputs(graph, host.run(graph), "SaveVideo")["images"]
    count, rate, seconds = media.count_frames(host.saved(saved))
    assert (count, rate) == (FRAMES, 25)
    assert seconds > 0.1
    before, _ = media.read_frames(host.base / "input" / CLIP, 1)
    after, _ = media.read_frames(host.saved(saved), 1)
    difference = np.abs(after.astype(int) - before)
    assert difference.mean((1, 2, 3)).min() > 3  # random weights draw a random face
    assert difference[:, :20, :20].mean() < 4  # as far as the encoder leaves it


def test_imported_weights_draw_what_the_public_file_draws(host: Host, files: Path) -> None:
    """After `python -m training import`, under its new name and alone."""
    import_weights(files / TALK, files / "imported.safetensors")
    try:
        assert {"imported.safetensors", f"imported.safetensors + {SWAP}"} <= set(
            options(host, "WSS_LoadModel", "model")
        )
        drawn = []
        for name in (TALK, "imported.safetensors"):
            host.run(graphs.exact(swap_graph(name, None, SHORTEST)))
            drawn.append(torch.load(host.base / "output" / "crops.pt", weights_only=True))
        assert torch.equal(*drawn)
    finally:
        (files / "imported.safetensors").unlink()


def test_what_does_not_fit_is_explained(host: Host) -> None:
    assert "Choose arcface_checkpoint.tar" in host.fail(swap_graph(BOTH, "builtin"))
    assert "Wav2Lip moves the lips" in host.fail(swap_graph(TALK, "builtin"))
    assert "SimSwap puts in another identity and there is none" in host.fail(swap_graph(SWAP, None))
