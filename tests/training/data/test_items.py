"""Which videos there are, and what a manifest says of them."""

from __future__ import annotations

import unicodedata

import pytest

from training.data.annotations import find_annotated
from training.data.items import find_items


def folder_of(tmp_path, *names: str, manifest: str = "", encoding: str = "utf-8"):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    if manifest:
        (tmp_path / "manifest.csv").write_bytes(manifest.encode(encoding))
    return tmp_path


def test_a_manifest_as_excel_writes_it_is_honoured(tmp_path):
    folder = folder_of(tmp_path, "a.mp4", manifest="file,identity,split\r\na.mp4,ann,val\r\n", encoding="utf-8-sig")
    (item,) = find_items(folder)
    assert (item.identity, item.split) == ("ann", "val")


def test_a_manifest_names_files_of_its_folder_in_any_spelling(tmp_path):
    below = "below/caf\u00e9.mp4"
    decomposed = unicodedata.normalize("NFD", below)
    folder = folder_of(tmp_path, "a.mp4", below, manifest=f"file,identity\n./a.mp4,ann\nbelow/../{decomposed},ben\n")
    assert [item.identity for item in find_items(folder)] == ["ann", "ben"]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("file,identity\nA.mp4,ann\n", r"names 1 files that are not there: 'A\.mp4'\. Paths count"),
        ("file,identity\n,ann\n", r"names 1 files that are not there: ''"),
        ("file;identity\na.mp4;ann\n", r"manifest\.csv has no column file"),
        ("video,identity\na.mp4,ann\n", r"manifest\.csv has no column file"),
    ],
)
def test_a_manifest_that_would_say_nothing_is_refused(tmp_path, manifest, message):
    with pytest.raises(ValueError, match=message):
        find_items(folder_of(tmp_path, "a.mp4", manifest=manifest))


def test_manifests_of_other_things_are_let_be(tmp_path):
    """Those of a folder without videos, and rows that name pictures."""
    folder = folder_of(tmp_path, "a.mp4", "face.png", "weights/w.bin", manifest="file,identity\nface.png,ann\n")
    (folder / "weights" / "manifest.csv").write_text("name\nw.bin\n")
    assert [item.identity for item in find_items(folder)] == [None]


def test_a_number_sign_belongs_to_the_name_and_tells_stretches_apart_only_where_there_are_some(tmp_path):
    names = ["Episode #1.mp4", "Episode #2.mp4"]
    assert [item.video for item in find_items(folder_of(tmp_path, *names))] == names
    (tmp_path / "x_annotion_time.txt").write_bytes("\ufeffRadio#1.mp4 00:30-01:00 01:30-02:30\n".encode())
    stretches = find_annotated(tmp_path, tmp_path)
    assert [item.name for item in stretches] == ["Radio#1.mp4#0", "Radio#1.mp4#1"]
    assert {item.video for item in stretches} == {"Radio#1.mp4"}
