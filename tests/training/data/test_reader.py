from __future__ import annotations

import json
import shutil
from collections import defaultdict

import numpy as np
import pytest
import torch

from models.identity import load_recogniser
from models.networks.blocks import audio_tower
from models.references import pose_thumbnail
from tests.training.research_data import write_data
from training.audio_tower import pretrain
from training.batches import Batches, SourceBank
from training.clips import Clip, ClipSet, load_clips, stored_side
from training.data.pictures import decode
from training.judge import unit_crops
from training.samples import find_sound
from training.sources import clip_vectors, source_bank
from training.sync_windows import SyncBatches


@pytest.fixture
def data(prepared, tmp_path) -> ClipSet:
    return load_clips(prepared, tmp_path / "cache")


@pytest.fixture
def bank() -> SourceBank:
    vectors = torch.nn.functional.normalize(torch.randn(2, 512, generator=torch.Generator().manual_seed(0)), dim=1)
    return SourceBank(vectors, ["person_0000", "somebody"])


def test_webdataset_reads_the_shards(prepared, data):
    """The public reader finds the same samples: a track's facts and arrays, then its pictures."""
    webdataset = pytest.importorskip("webdataset")
    shards = [str(path) for path in sorted(prepared.glob("*.tar"))]
    kinds = defaultdict(set)
    for sample in webdataset.WebDataset(shards, shardshuffle=False):
        kinds[frozenset(key for key in sample if not key.startswith("__"))].add(sample["__key__"])
        if "jpg" in sample and sample["__key__"] == "t00001_000007":
            assert np.array_equal(decode(sample["jpg"]), data.crops[data.clips[1].start + 7])
        if "json" in sample:
            assert json.loads(sample["json"])["identity"] == "person_0000"
    assert kinds[frozenset({"json", "npz", "wav"})] == {"t00000", "t00001"}
    assert len(kinds[frozenset({"jpg"})]) == len(data.crops)


def test_sound_is_stored_as_long_as_the_pictures(prepared, data):
    for clip in data.clips:
        samples, rate = find_sound(prepared, clip)
        assert (samples.shape, rate) == ((1, 640 * clip.frames), 16000)
        assert np.abs(samples).max() > 0.05
    assert find_sound(prepared, Clip("t00009", "p", "val", 0, 1, False)) is None


def test_crops_are_indexed_like_an_array(data):
    side = stored_side(96)
    whole = np.stack(list(data.crops))
    assert data.crops.shape == whole.shape == (73, side, side, 3)
    assert len(data.crops) == 73
    random = np.random.default_rng(0)
    for key in (5, -1, slice(3, 60, 7), [4, 4, 2], random.integers(0, 73, (3, 5)), np.arange(73) % 2 == 0, np.int64(8)):
        assert np.array_equal(data.crops[key], whole[key])
    assert np.array_equal(data.crops[2:9, 3:-3, 5:-5], whole[2:9, 3:-3, 5:-5])
    assert np.array_equal(data.crops[7, 3:-3], whole[7, 3:-3])
    for key in (73, -74, [0, 80]):
        with pytest.raises(IndexError, match="there are 73"):
            data.crops[key]


def test_the_crop_shows_the_face_where_the_nodes_would(data, astronaut):
    """The stored crop is the unit crop with its margin: the recogniser sees the same person in both."""
    recogniser = load_recogniser()
    from models.faces import load_detector

    wanted = recogniser.embed_image(astronaut, load_detector()).vector
    found = clip_vectors(data, data.clips[0], recogniser).numpy()
    assert (found @ wanted).min() > 0.8


def test_poses_and_vectors_are_those_of_the_pictures(data):
    assert np.array_equal(data.poses, np.stack([pose_thumbnail(crop) for crop in data.crops]))
    recogniser = load_recogniser()
    stored = clip_vectors(data, data.clips[1], recogniser)
    fresh = clip_vectors(ClipSet(data.clips, data.crops, data.windows, None), data.clips[1], recogniser)
    assert torch.allclose(stored, fresh, atol=1e-5)


def test_data_without_mouth_numbers_says_so_to_whom_needs_them(data):
    with pytest.raises(ValueError, match=r"no mouth numbers.*without --reader none"):
        pretrain(data, 2, audio_tower(0.5))
    with pytest.raises(ValueError, match="no mouth numbers"):
        SyncBatches(data, data.clips, 0)(0, 1, 2)


def test_another_size_is_refused(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"crops of 120 px; training at 128 px needs 160"):
        load_clips(prepared, tmp_path, px=128)


def test_a_folder_of_anything_else_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither index.json nor talking/manifest.csv.*training prepare"):
        load_clips(tmp_path, tmp_path / "cache")


def test_shards_of_another_layout_are_refused_with_what_to_do(prepared, tmp_path):
    copy = shutil.copytree(prepared, tmp_path / "copy", ignore=shutil.ignore_patterns("work"))
    index = json.loads((copy / "index.json").read_text()) | {"version": 1}
    (copy / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"layout 1, this version reads layout 2.*into another folder"):
        load_clips(copy, tmp_path / "cache")


def test_the_cache_follows_the_shards(prepared, data, tmp_path):
    moved = load_clips(prepared, tmp_path / "cache", lag=0)
    assert not np.array_equal(moved.windows, data.windows)
    assert np.array_equal(load_clips(prepared, tmp_path / "cache").windows, data.windows)


def test_other_shards_are_refused_where_a_run_has_begun(prepared, data, tmp_path):
    copy = shutil.copytree(prepared, tmp_path / "copy", ignore=shutil.ignore_patterns("work"))
    load_clips(copy, tmp_path / "cache")  # the same, elsewhere
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"videos": 8}))
    load_clips(copy, tmp_path / "cache")
    load_clips(prepared, tmp_path / "cache")
    (tmp_path / "last.pt").touch()
    with pytest.raises(ValueError, match=r"other data \(differing: manifest\.json\)\. Give another --output"):
        load_clips(copy, tmp_path / "cache")


def test_caches_of_the_two_layouts_do_not_mix(prepared, data, tmp_path):
    research = write_data(tmp_path / "research", 80)
    made = load_clips(research, tmp_path / "cache")
    assert np.array_equal(load_clips(prepared, tmp_path / "cache").windows, data.windows)
    again = load_clips(research, tmp_path / "cache")
    assert np.array_equal(again.windows, made.windows)
    assert np.array_equal(again.lips, made.lips)
    (tmp_path / "last.pt").touch()
    with pytest.raises(ValueError, match=r"other data \(differing: its layout\)"):
        load_clips(prepared, tmp_path / "cache")


def test_one_person_alone_cannot_be_swapped(data, tmp_path):
    with pytest.raises(ValueError, match=r"only one person.*at least two"):
        source_bank(data, tmp_path / "faces", load_recogniser())


def damaged(prepared, folder, rows: list[int]):
    """A copy of the data in which the pictures of some rows are overwritten."""
    copy = shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns("work"))
    places = [
        (track["shard"], place)
        for track in json.loads((copy / "index.json").read_text())["tracks"]
        for place in track["pictures"]
    ]
    for row in rows:
        shard, (offset, size, _) = places[row]
        with (copy / shard).open("r+b") as file:
            file.seek(offset + size // 2)
            file.write(b"\0" * (size // 4))
    return copy


def test_a_bad_picture_is_listed_and_replaced_by_its_neighbour(prepared, data, bank, tmp_path):
    copy = damaged(prepared, tmp_path / "copy", [20, 40])
    broken = load_clips(copy, tmp_path / "other")
    whole = np.stack(list(data.crops))
    assert np.array_equal(broken.crops[[19, 20, 21]], whole[[19, 19, 21]])
    assert np.array_equal(broken.crops[40], whole[41])  # first of the second track: nothing before it
    assert np.array_equal(broken.crops[40], whole[41])
    lines = [json.loads(line) for line in (tmp_path / "other" / "bad_samples.jsonl").read_text().splitlines()]
    assert [(line["row"], line["picture"]) for line in lines] == [(20, "t00000_000020"), (40, "t00001_000000")]
    again = Batches(load_clips(copy, tmp_path / "third"), broken.clips, bank, 96, 0)(0, 8, 2)
    assert torch.equal(Batches(broken, broken.clips, bank, 96, 0)(0, 8, 2).crops, again.crops)


def test_too_many_bad_pictures_stop_the_run_and_say_where_the_list_is(prepared, tmp_path):
    broken = load_clips(damaged(prepared, tmp_path / "copy", list(range(0, 36, 3))), tmp_path / "cache")
    with pytest.raises(ValueError, match=r"11 bad pictures.*more than 1 %: .*bad_samples\.jsonl"):
        broken.crops[:]


def test_judge_and_batches_take_shards(data, bank):
    assert unit_crops(data, data.clips[0]).shape == (40, 3, 96, 96)
    batch = Batches(data, data.clips, bank, 96, 0)(0, 6, 2)
    assert batch.crops.shape == (6, 6, 96, 96)
    assert torch.isfinite(batch.crops).all()
