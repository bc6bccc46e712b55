"""Folders and files in odd states: no node is lost, nothing is trained in vain, nothing stale is used."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoints import save_weights
from models.identity import FaceEmbedding
from models.networks import build
from tests.host import media
from tests.host.inside import inside
from tests.host.test_schema import IDS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """models/wavsyncswap of a base directory."""
    path = tmp_path / "models" / "wavsyncswap"
    for name in ("recognisers", "adapters", "embeddings"):
        (path / name).mkdir(parents=True)
    return path


def save_recogniser(path: Path, identifier: str, seed: int = 0) -> None:
    torch.manual_seed(seed)
    metadata = {"network": "iresnet18", "id": identifier, "config": {"width": 0.125}}
    save_weights(path, build("iresnet18", width=0.125).state_dict(), metadata)


def test_links_that_lead_nowhere_take_no_node_away(tmp_path: Path, folder: Path) -> None:
    save_recogniser(folder / "recognisers" / "good.safetensors", "good")
    links = ["recognisers/gone.onnx", "adapters/gone.safetensors", "embeddings/gone.safetensors", "gone.pth"]
    links += ["../insightface/models/gone/det_gone.onnx", "../insightface/models/gone/w600k_gone.onnx"]
    links += ["../insightface/models/there/w600k_gone.onnx", "../../output/wavsyncswap/gone.safetensors"]
    for name in links:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(tmp_path / "nowhere" / Path(name).name)
    (folder / "../insightface/models/there/det_10g.onnx").touch()
    (folder / "recognisers" / "circle").symlink_to(folder / "recognisers" / "circle")
    script = """
    found = [lost, sorted(nodes), options("WSS_ArcFaceEmbed", "recogniser"), options("WSS_ArcFaceEmbed", "detector")]
    found += [options("WSS_LoadEmbedding", "file"), options("WSS_LoadAdapter", "adapter")]
    found += [options("WSS_LoadModel", "model"), options("WSS_LoadAudioMel", "audio_file")]
    os.rename(base / "disk", base / "gone")  # which the host remembers
    found += [options("WSS_LoadModel", "model")]
    """.replace("\n    ", "\n")
    disk = tmp_path / "disk"
    disk.mkdir()
    found, _ = inside(tmp_path, script, [disk])  # without an input folder, too
    assert found[0] == []
    assert set(found[1]) == IDS
    assert found[2:4] == [["builtin", "recognisers/good.safetensors"], ["builtin", "there"]]
    assert found[4:] == [["none found"], ["none found"], ["builtin (small 96)"], ["none"], ["builtin (small 96)"]]


def test_without_a_models_folder_there_is_what_ships(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file, where no folder can be made")
    script = """
model = nodes["WSS_LoadModel"].execute("builtin (small 96)", "fp32").args[0]
found = [lost, sorted(nodes), model.generator.px, refusal(part("folders").new_adapter_folder)]
"""
    (lost, nodes, px, refused), log = inside(tmp_path, script)
    assert lost == []
    assert set(nodes) == IDS
    assert px == 96
    assert "cannot make" in log
    assert "none of these folders can be written" in refused
    assert str(tmp_path / "models" / "wavsyncswap" / "adapters") in refused


ADAPT = """
adapt, model = part("adapt"), nodes["WSS_LoadModel"].execute("builtin (small 96)", "fp32").args[0]
trained = []
def train(*rest):
    trained.append(str(rest[-1]))
    raise ValueError("trained")
adapt._train = train
def run(name):
    images = torch.zeros(2, 8, 8, 3)
    return refusal(nodes["WSS_Adapt"].execute, model, 1, name, "builtin", 0.6, "largest", 0, 0, -1, -1, 25.0,
        images=images)
"""


def test_adapt_looks_for_a_place_before_it_trains(tmp_path: Path, folder: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("no folder")
    script = f"""{ADAPT}
found = [run('x' * 300), run('名' * 300), run('my clip'), trained[:]]
adapters = base / "models/wavsyncswap/adapters"
found += [os.listdir(adapters)]
adapters.rmdir()
adapters.write_text("no folder either")
found += [run('a'), len(trained)]
"""
    first, second, third, trained, left, refused, runs = inside(tmp_path, script, [blocked / "wavsyncswap"])[0]
    assert first == second == third == "trained"
    assert [Path(path).parent for path in trained] == [folder / "adapters"] * 3
    assert max(len(Path(path).name.encode()) for path in trained) < 100
    assert Path(trained[2]).name.startswith("my_clip_")
    assert Path(trained[1]).name.startswith("名名")
    assert left == []  # of the attempt to write
    assert runs == 3
    assert "none of these folders can be written" in refused
    assert str(blocked) in refused


def test_a_broken_recogniser_stands_in_nobodys_way(tmp_path: Path, folder: Path) -> None:
    places = folder / "recognisers"
    (places / "a_broken.pth").write_bytes(b"<!DOCTYPE html>")
    save_recogniser(places / "b_good.safetensors", "good")
    save_recogniser(places / "c_other.safetensors", "other")
    save_recogniser(places / "d_cut.safetensors", "cut")
    state = build("iresnet18", width=0.25).state_dict()
    del state["fc.weight"]
    save_weights(places / "d_cut.safetensors", state, {"network": "iresnet18", "id": "cut"})
    script = """
import numpy as np
recognition = part("recognition")
from pack.models import identity
loaded, load = [], identity.load_recogniser
def counted(name, device):
    loaded.append(os.path.basename(name))
    return load(name, device=device)
identity.load_recogniser = counted
def of(name):
    return recognition.recogniser_of(identity.FaceEmbedding(np.eye(512)[0], name))
found = [of("good").id, loaded[:], refusal(of, "nobody"), refusal(of, "cut"), loaded]
"""
    good, first, nobody, cut, loaded = inside(tmp_path, script)[0]
    assert good == "good"
    assert first == ["b_good.safetensors"]  # nothing else was loaded on the way
    for message in (nobody, cut):
        assert "not available" in message
        assert "a_broken.pth is not a" in message
    assert "d_cut.safetensors" in cut.partition("could not be read")[2]
    assert "d_cut.safetensors" not in nobody.partition("could not be read")[2]
    assert loaded == ["b_good.safetensors", "d_cut.safetensors"]


def test_a_replaced_file_is_used_at_once_and_an_old_one_not_again(tmp_path: Path, folder: Path) -> None:
    save_recogniser(folder / "recognisers" / "mine.safetensors", "mine")
    pack = tmp_path / "models" / "insightface" / "models" / "pack"
    pack.mkdir(parents=True)
    (pack / "det_10g.onnx").write_bytes(b"one")
    script = """
recogniser, detector = "recognisers/mine.safetensors", "pack"
users = ["WSS_ArcFaceEmbed", "WSS_TalkingSwapVideo", "WSS_FaceCrop", "WSS_IdentityScore", "WSS_SyncScore", "WSS_Adapt"]
def seen(recogniser, detector, **more):
    words = dict(recogniser=recogniser, detector=detector, threshold=0.6, model="builtin", face=None) | more
    return [repr(nodes[name].fingerprint_inputs(**words)) for name in users]
def changed(before, *now, **more):
    return [name for name, a, b in zip(users, before, seen(*now, **more)) if a != b]
both, plain = seen(recogniser, detector), seen("builtin", "builtin")
given = seen(recogniser, "builtin", embedding=None)
found = [changed(both, recogniser, detector)]
path = base / "models/wavsyncswap" / recogniser
os.utime(path, ns=(1, 1))
found += [changed(both, recogniser, detector), changed(given, recogniser, "builtin", embedding=None)]
both, first = seen(recogniser, detector), part("recognition").detector_id("pack")
(base / "models/insightface/models/pack/det_10g.onnx").write_bytes(b"another")
found += [changed(both, recogniser, detector), changed(plain, "builtin", "builtin")]
found += [first != part("recognition").detector_id("pack"), part("recognition").detector_id("builtin")]
"""
    found = inside(tmp_path, script)[0]
    assert found[0] == []
    assert found[1] == ["WSS_ArcFaceEmbed", "WSS_TalkingSwapVideo"]
    assert found[2] == ["WSS_ArcFaceEmbed"]  # an embedding is connected: the face picture is not looked at
    assert len(found[3]) == 6
    assert found[4] == []
    assert found[5:] == [True, "builtin"]


def test_an_embedding_is_saved_where_it_is_found_again(tmp_path: Path, folder: Path) -> None:
    FaceEmbedding(np.float32(np.eye(512)[0]), "somebody").save(folder / "embeddings" / "one.safetensors")
    (tmp_path / "output").mkdir()
    script = """
embedding = nodes["WSS_LoadEmbedding"].execute("embeddings/one.safetensors").args[0]
def save(name):
    return nodes["WSS_SaveEmbedding"].execute(embedding, name).args[1]
refused = [refusal(save, name) for name in ("../up", ".", "..", "a/../../b", "..\\\\up", "./", "a/..")]
kept = [save(name) for name in ("hero", "", "people/anna", "/rooted", "./here", "dots..", "x/")]
found = [refused, kept, options("WSS_LoadEmbedding", "file")]
"""
    refused, kept, listed = inside(tmp_path, script)[0]
    assert all(message and "no name of a file in output/wavsyncswap" in message for message in refused)
    place = tmp_path / "output" / "wavsyncswap"
    names = sorted(Path(path).relative_to(place).as_posix() + " [output]" for path in kept)
    assert listed == ["embeddings/one.safetensors", *names]
    assert len(set(names)) == 7
    assert os.listdir(tmp_path / "output") == ["wavsyncswap"]


def test_a_long_sound_shows_progress_and_can_be_cancelled(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    random = np.random.default_rng(0)
    noise = (0.1 * random.standard_normal(160 * 24_000)).astype(np.float32)
    media.write_audio(tmp_path / "input" / "long.flac", noise, 24_000)
    script = """
management, told = comfy.model_management, []
def hook(value, total, preview, node_id=None):
    told.append(value / total)
    if value / total >= limit:
        management.interrupt_current_processing(True)
comfy.utils.set_progress_bar_global_hook(hook)
found = []
for limit in (0.1, 0.5, 2):
    del told[:]
    management.interrupt_current_processing(False)
    try:
        ended = nodes["WSS_LoadAudioMel"].execute("long.flac", 1.0).args[3]
    except management.InterruptProcessingException:
        ended = "cancelled"
    found.append([ended, told[-1], len(told)])
"""
    early, late, never = inside(tmp_path, script)[0]
    assert early[0] == late[0] == "cancelled"
    assert 0.1 <= early[1] < 0.2  # while the file is read
    assert 0.5 <= late[1] < 0.6
    assert "long.flac: 160.000 s" in never[0]
    assert never[1] == 1
    assert never[2] > 20
