"""The layout of the data guide, what is cached, and of what."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from scipy.io import wavfile

from tests.training.research_data import HEAD, write_data
from training.clips import load_clips


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", 80)


def begin(run) -> None:
    """Something that a run learnt from its cache."""
    (run / "audio_tower.pt").touch()


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


def test_other_data_is_refused_where_a_run_has_begun(data, tmp_path):
    load_clips(data, tmp_path / "cache")
    other = write_data(tmp_path / "other", 200, "cd")
    made = load_clips(other, tmp_path / "cache")
    assert [clip.name for clip in made.clips] == ["c", "d"]
    assert abs(int(made.crops[0].mean()) - 200) < 5
    begin(tmp_path)
    with pytest.raises(
        ValueError, match=r"was begun with other data \(differing: talking/manifest\.csv.*another --output"
    ):
        load_clips(data, tmp_path / "cache")


@pytest.mark.parametrize("name", ["talking/manifest.csv", "talking_generated/manifest.csv", "landmarks.npz"])
def test_edited_data_is_refused_and_a_cache_that_is_deleted_made_anew(data, tmp_path, name):
    load_clips(data, tmp_path / "cache")
    begin(tmp_path)
    (data / "talking_generated").mkdir()
    if name == "landmarks.npz":
        np.savez(data / name, **dict(np.load(data / name)), more=np.zeros(1))
    else:
        (data / name).write_text(HEAD + "a.mp4,a.wav,a,val,0\nb.mp4,b.wav,b,train,0\n" * name.startswith("talking/"))
    with pytest.raises(ValueError, match=rf"other data \(differing: {name}\)"):
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
    begin(tmp_path)
    with pytest.raises(ValueError, match=r"other data \(differing: talking/manifest\.csv"):
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
