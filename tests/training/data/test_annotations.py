from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from training.__main__ import main
from training.data.annotations import find_annotated
from training.data.footage import Footage

from .conftest import moved, write_video


@pytest.fixture
def lists(tmp_path):
    """Two stretches of a video that is there, one of one that is not."""
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "RD_annotion_time.txt").write_text("Radio1.mp4 00:01-00:03 00:03-01:00:00 \nRadio2.mp4 00:30-01:35\n\n")
    (folder / "RD_crop_wh.txt").write_text("Radio1_0.mp4 10 600 20 610\n")
    (folder / "RD_resolution.txt").write_text("Radio1.mp4 640\n")
    return folder


@pytest.fixture
def downloads(tmp_path, astronaut):
    """Radio1 as it was downloaded, half as high as its box was drawn for, and in a folder of its own."""
    (tmp_path / "in" / "RD").mkdir(parents=True)
    write_video(tmp_path / "in" / "RD" / "Radio1.mkv", [moved(astronaut, i) for i in range(110)])
    return tmp_path / "in"


def test_stretches_boxes_and_heights_are_read(lists, downloads):
    first, second, missing = find_annotated(downloads, lists)
    assert (first.name, first.start, first.stop) == ("Radio1.mp4#0", 1, 3)
    assert (first.box, first.box_height) == ((10, 20, 600, 610), 640)
    assert first.path == downloads / "RD" / "Radio1.mkv"
    assert (second.name, second.stop, second.box) == ("Radio1.mp4#1", Fraction(3600), None)
    assert first.video == second.video == "Radio1.mp4"
    assert missing.name == "Radio2.mp4#0"


def test_a_box_is_scaled_to_the_video(lists, downloads):
    first = find_annotated(downloads, lists)[0]
    (frames,) = Footage(first, np.arange(25, 30)).chunks(8)
    assert frames.shape == (5, 305, 300, 3)


def test_each_stretch_is_prepared_by_itself_and_missing_videos_are_listed(lists, downloads, tmp_path):
    command = ["prepare", "--input", str(downloads), "--output", str(tmp_path / "out"), "--annotations", str(lists)]
    assert main(command) == 0
    tracks = json.loads((tmp_path / "out" / "index.json").read_text())["tracks"]
    assert [(track["item"], track["frames"]) for track in tracks] == [("Radio1.mp4#0", 50), ("Radio1.mp4#1", 35)]
    failures = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert failures == [{"item": "Radio2.mp4#0", "stage": "probe", "reason": "the video is missing"}]


def test_a_line_that_is_no_annotation_is_named(lists, downloads):
    (lists / "WDA_annotion_time.txt").write_text("a.mp4 00:01-00:02\nb.mp4 soon\n")
    with pytest.raises(ValueError, match=r"WDA_annotion_time.txt, line 2: .*found 'soon'"):
        find_annotated(downloads, lists)
    (lists / "WDA_annotion_time.txt").unlink()
    (lists / "RD_crop_wh.txt").write_text("Radio1_0.mp4 10 600\n")
    with pytest.raises(ValueError, match=r"RD_crop_wh.txt, line 1: expected a name and 4 whole numbers"):
        find_annotated(downloads, lists)
    with pytest.raises(FileNotFoundError, match="annotion_time"):
        find_annotated(downloads, downloads)
