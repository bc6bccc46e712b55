"""The layout of the data guide, on a face of made-up landmarks: what is cached, and of what."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from scipy.io import wavfile

from models.video_writer import VideoWriter
from training.clips import BLENDSHAPES, load_clips
from training.research_layout import LEFT_EYE, MOUTH_LEFT, MOUTH_RIGHT, NOSE_TIP, RIGHT_EYE

FRAMES, SIDE = 6, 64
MESH = {
    **dict.fromkeys(LEFT_EYE, (24, 26)),
    **dict.fromkeys(RIGHT_EYE, (40, 26)),
    NOSE_TIP: (32, 34),
    MOUTH_LEFT: (26, 44),
    MOUTH_RIGHT: (38, 44),
    10: (32, 12),
    152: (32, 56),
    13: (32, 43),
    14: (32, 45),
}
HEAD = "file,wav,identity,split,av_lag_left\n"


def write_data(folder, brightness: int, names: str = "ab"):
    """Grey clips of one brightness, one of each person; the last one is for validation."""
    (folder / "talking").mkdir(parents=True)
    arrays = {"index": np.array(list(MESH)), "blendshape_names": np.array(BLENDSHAPES)}
    rows = ""
    for i, name in enumerate(names):
        with VideoWriter(folder / "talking" / f"{name}.mp4", SIDE, SIDE, 25, None) as writer:
            writer.write(np.full((FRAMES, SIDE, SIDE, 3), brightness, np.uint8))
        wavfile.write(folder / "talking" / f"{name}.wav", 16000, np.zeros(640 * FRAMES, np.int16))
        arrays[f"{name}/points"] = np.tile(np.array(list(MESH.values())) * 64, (FRAMES, 1, 1)).astype(np.int16)
        arrays[f"{name}/blendshapes"] = np.zeros((FRAMES, len(BLENDSHAPES)), np.float16)
        rows += f"{name}.mp4,{name}.wav,{name},{'val' if i else 'train'},0\n"
    np.savez(folder / "landmarks.npz", **arrays)
    (folder / "talking" / "manifest.csv").write_text(HEAD + rows)
    return folder


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", 80)


def as_once(cache) -> None:
    """Make a cache look like one from before caches said what they were made of."""
    index = cache / "clips.json"
    index.write_text(json.dumps(json.loads(index.read_text())["clips"]))


def test_a_cache_is_made_once_and_moves_with_the_data(data, tmp_path):
    made = load_clips(data, tmp_path / "cache")
    assert [(clip.name, clip.split, clip.frames) for clip in made.clips] == [("a", "train", 6), ("b", "val", 6)]
    assert abs(int(made.crops[0].mean()) - 80) < 5
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    again = load_clips(data.rename(tmp_path / "elsewhere"), tmp_path / "cache")
    assert again.clips == made.clips
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == before


def test_other_data_is_refused_with_what_to_do(data, tmp_path):
    load_clips(data, tmp_path / "cache")
    other = write_data(tmp_path / "other", 200, "cd")
    with pytest.raises(ValueError, match=r"cache was made of other data: talking/manifest\.csv.*another --output"):
        load_clips(other, tmp_path / "cache")


@pytest.mark.parametrize("name", ["talking/manifest.csv", "talking_generated/manifest.csv", "landmarks.npz"])
def test_edited_data_is_refused_and_a_cache_that_is_deleted_made_anew(data, tmp_path, name):
    load_clips(data, tmp_path / "cache")
    (data / "talking_generated").mkdir()
    if name == "landmarks.npz":
        np.savez(data / name, **dict(np.load(data / name)), more=np.zeros(1))
    else:
        (data / name).write_text(HEAD + "a.mp4,a.wav,a,val,0\nb.mp4,b.wav,b,train,0\n" * name.startswith("talking/"))
    with pytest.raises(ValueError, match=f"other data: {name} was another"):
        load_clips(data, tmp_path / "cache")
    (tmp_path / "cache" / "clips.json").unlink()
    made = load_clips(data, tmp_path / "cache")
    assert [clip.split for clip in made.clips] == (
        ["val", "train"] if name.startswith("talking/") else ["train", "val"]
    )


def test_another_lag_moves_the_sound_and_another_size_is_refused(data, tmp_path):
    wavfile.write(data / "talking" / "a.wav", 16000, np.random.default_rng(0).integers(-9000, 9000, 3840, np.int16))
    first = load_clips(data, tmp_path / "cache")
    windows = first.windows.copy()
    assert not np.array_equal(load_clips(data, tmp_path / "cache", lag=0).windows, windows)
    assert np.array_equal(load_clips(data, tmp_path / "cache").windows, windows)
    with pytest.raises(ValueError, match="crops of 120 px; training at 128 px"):
        load_clips(data, tmp_path / "cache", px=128)


def test_a_cache_from_before_is_used_where_it_is_safe(data, tmp_path):
    cache, crops = tmp_path / "cache", tmp_path / "cache" / "crops.npy"
    made = load_clips(data, cache)
    as_once(cache)
    before = crops.stat().st_mtime_ns
    assert load_clips(data, cache).clips == made.clips
    assert crops.stat().st_mtime_ns == before
    later = (cache / "clips.json").stat().st_mtime + 10
    os.utime(data / "landmarks.npz", (later, later))  # perhaps edited: what is made anew of the same data is the same
    crops.unlink()
    np.save(crops, np.zeros_like(made.crops))
    assert np.array_equal(load_clips(data, cache).crops, made.crops)
    as_once(cache)
    with pytest.raises(ValueError, match=r"other data: talking/manifest\.csv was another"):
        load_clips(write_data(tmp_path / "other", 200, "cd"), cache)


def test_a_manifest_that_cannot_be_used_is_one_error(data, tmp_path):
    manifest = data / "talking" / "manifest.csv"
    for text, message in (
        ("file,wav,identity\na.mp4,a.wav,a\n", "has no column split"),
        (HEAD + "a.mp4,a.wav,a,test,0\n", "a.mp4 into the split 'test'"),
        (HEAD, "list no clip"),
    ):
        manifest.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_clips(data, tmp_path / "cache")
