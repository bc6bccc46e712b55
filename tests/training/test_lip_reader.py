from __future__ import annotations

import pytest
import torch

from models.checkpoints import load_weights, save_weights
from training.batches import Batches
from training.clips import OPENING
from training.export import export
from training.lip_reader import LipReader, load_reader, pretrain_reader, reader_path, softened


def test_softened_pictures_are_a_function_of_the_seed_and_half_are_untouched():
    crops = torch.rand(40, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    once = softened(crops, 3)
    assert torch.equal(once, softened(crops, 3))
    same = (once == crops).flatten(1).all(1).sum().item()
    assert 8 < same < 32


def test_a_reader_learns_what_the_picture_shows_and_loads_again(clip_set, tmp_path):
    """Lips that follow the brightness of the mouth are read from it."""
    crops = clip_set.crops.copy()
    level = (clip_set.lips[:, 12].argsort().argsort() * 7).astype("uint8")
    crops[:, 60:] = level[:, None, None, None]
    lips = (level[:, None] / 255).repeat(14, 1).astype("float32")
    data = type(clip_set)(clip_set.clips, crops, clip_set.windows, lips)
    torch.manual_seed(0)
    reader, numbers = pretrain_reader(data, Batches(data, data.clips, None, 96, 0), steps=60)
    assert numbers["opening_correlation_val"] > 0.9
    torch.save(reader.state_dict(), tmp_path / "reader.pt")
    again = load_reader(tmp_path / "reader.pt")
    probe = torch.rand(2, 3, 96, 96)
    assert torch.equal(again(probe), reader(probe))


def test_a_runs_reader_exports_to_a_file_like_the_bundled_one(tmp_path):
    torch.manual_seed(0)
    reader = LipReader().eval()
    torch.save(reader.state_dict(), tmp_path / "lip_reader.pt")
    file = export(tmp_path / "lip_reader.pt", tmp_path / "reader.safetensors", torch.float32)
    probe = torch.rand(2, 3, 96, 96)
    assert torch.equal(load_reader(file)(probe), reader(probe))
    _, bundled = load_weights(reader_path("builtin"))
    assert load_weights(file)[1].items() >= bundled.items()


def test_only_the_mouth_region_counts():
    reader = LipReader().eval()
    crops = torch.rand(2, 3, 96, 96)
    other = crops.clone()
    other[:, :, :48] = 0
    assert torch.equal(reader(crops), reader(other))


def test_the_bundled_reader_sees_a_mouth_open():
    """A drawn mouth on plain skin: the wider it gapes, the larger the opening it reads."""
    reader = load_reader(reader_path("builtin"))
    faces = torch.full((3, 3, 96, 96), 0.6)
    for i, height in enumerate((0, 4, 9)):
        faces[i, 0, 68 - height // 2 : 72 + height, 36:60] = 0.7
        faces[i, 1:, 68 - height // 2 : 72 + height, 36:60] = 0.3
        faces[i, :, 70 : 70 + height, 39:57] = 0.08
    with torch.inference_mode():
        opening = reader(faces)[:, OPENING]
    assert opening[0] < opening[1] < opening[2]


def test_names_of_readers(tmp_path):
    assert reader_path("none") is None
    assert reader_path(str(tmp_path / "x.pt")) == tmp_path / "x.pt"
    save_weights(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="other.safetensors"):
        load_reader(tmp_path / "other.safetensors")
