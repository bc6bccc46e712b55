from __future__ import annotations

import hashlib
import html
import json
import shutil
import signal
import subprocess
import sys

import pytest

from training.__main__ import main
from training.data.items import Settings, find_items
from training.data.stages import STAGES
from training.data.work import sha256_of
from training.prepare import prepare

RESULTS = ("index.json", "manifest.json", "failures.jsonl", "report.html")


def content(folder) -> dict[str, str]:
    """Digests of everything a run leaves beside its working folder."""
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}


def failures(folder) -> dict[str, tuple[str, str]]:
    entries = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    return {entry["item"]: (entry["stage"], entry["reason"]) for entry in entries}


def test_every_unusable_video_is_listed_with_stage_and_reason(prepared):
    found = failures(prepared)
    assert set(found) == {"no_face.mp4", "no_sound.mp4", "short.mp4", "cut.mp4", "empty.mp4"}
    assert found["no_face.mp4"][0] == "track"
    assert "none was found" in found["no_face.mp4"][1]
    assert found["no_sound.mp4"] == ("probe", "no sound")
    assert found["short.mp4"] == ("probe", "0.40 s long; at least 1 s are needed")
    assert found["cut.mp4"][0] == found["empty.mp4"][0] == "probe"
    assert "its end is missing" in found["cut.mp4"][1]
    assert "empty.mp4 cannot be opened" in found["empty.mp4"][1]


def test_the_manifest_tells_what_there_is(prepared):
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert (manifest["videos"], manifest["tracks"], manifest["failures"]) == (7, 2, 5)
    assert manifest["frames"] == 40 + 33  # 40 frames at 30 fps last 1.33 s
    for name, shard in manifest["shards"].items():
        assert shard["sha256"] == hashlib.sha256((prepared / name).read_bytes()).hexdigest()


def test_mirrored_pictures_of_one_person_are_one_person(prepared):
    tracks = json.loads((prepared / "index.json").read_text())["tracks"]
    assert {track["identity"] for track in tracks} == {"person_0000"}


def test_a_finished_run_started_again_repeats_nothing_and_changes_nothing(videos, prepared, tmp_path, monkeypatch):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    for name in STAGES:
        monkeypatch.setitem(STAGES, name, lambda *_: pytest.fail("a stage ran again"))
    prepare(find_items(videos), copy, Settings())
    assert content(copy) == content(prepared)


KILLED = """
import os, signal, sys
from pathlib import Path
from training.data.items import Settings, find_items
from training.prepare import prepare

def deadly(source, target, replace=os.replace):
    if Path(target).name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = deadly
prepare(find_items(Path(sys.argv[1])), Path(sys.argv[2]), Settings())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_in_every_stage_it_ends_with_the_same_bytes(root, videos, prepared, tmp_path):
    """Each run is killed when a file is complete and about to get its name; the last one is let through."""
    output = tmp_path / "out"
    stages = [f"{name}.json" for name in STAGES]
    for name in [*stages, "train-000000.tar", "manifest.json", "report.html", "index.json"]:
        command = [sys.executable, "-c", KILLED, str(videos), str(output), name]
        killed = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
        assert not (output / "index.json").exists()
    prepare(find_items(videos), output, Settings())
    assert content(output) == content(prepared)
    assert not list(output.rglob("*.part"))


@pytest.mark.slow
def test_two_processes_make_the_same_bytes(videos, prepared, tmp_path):
    prepare(find_items(videos), tmp_path / "out", Settings(), processes=2)
    assert content(tmp_path / "out") == content(prepared)


@pytest.mark.slow
def test_a_ray_cluster_makes_the_same_bytes(videos, prepared, tmp_path):
    pytest.importorskip("ray")
    prepare(find_items(videos), tmp_path / "out", Settings(), "ray", 2)
    assert content(tmp_path / "out") == content(prepared)


def test_other_settings_are_refused(videos, prepared):
    with pytest.raises(ValueError, match=r"px was 96, now 128.*another --output"):
        prepare(find_items(videos), prepared, Settings(px=128))


def test_a_folder_without_videos_is_one_error(tmp_path, capsys):
    assert main(["prepare", "--input", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "There is no video" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_nothing_usable_says_where_the_reasons_are(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"no video")
    command = ["prepare", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main(command) == 1
    assert "failures.jsonl says why" in capsys.readouterr().err
    assert failures(tmp_path / "out")["a.mp4"][0] == "probe"


def test_the_report_shows_every_track_and_what_was_left_out_and_why(prepared):
    page = (prepared / "report.html").read_text()
    seen = {path.parent.name.split("_mp4-")[0] for path in (prepared / "work").glob("*/still.jpg")}
    assert seen >= {"no_face", "no_sound", "short"}
    assert "empty" not in seen  # nothing to be seen in it
    assert page.count("data:image/jpeg;base64,") == 2 + len(seen)
    assert 'src="http' not in page
    for name in failures(prepared):
        assert f"<figcaption>{name}, track none<br>{html.escape(': '.join(failures(prepared)[name]))}<" in page
    assert "unknown for 2 of 2 tracks" in page


@pytest.mark.parametrize("option", ["--reader", "--sync"])
def test_a_file_that_cannot_judge_is_told_before_any_work(videos, tmp_path, capsys, option):
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"eight thousand words")
    command = ["prepare", "--input", str(videos), "--output", str(tmp_path / "out"), option, str(bad)]
    assert main(command) == 1
    assert "bad.pt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("px", ["7", "100"])
def test_a_size_that_no_network_trains_at_is_refused(videos, tmp_path, capsys, px):
    with pytest.raises(SystemExit):
        main(["prepare", "--input", str(videos), "--output", str(tmp_path / "out"), "--px", px])
    assert "96, 128, 192, 256, 384, 512" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_labels_and_splits_of_a_manifest_are_honoured(videos, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.mp4").symlink_to(videos / "a.mp4")
    (folder / "manifest.csv").write_text("file,identity,split\na.mp4,eileen,val\n")
    prepare(find_items(folder), tmp_path / "out", Settings())
    (track,) = json.loads((tmp_path / "out" / "index.json").read_text())["tracks"]
    assert (track["identity"], track["split"], track["shard"]) == ("eileen", "val", "val-000000.tar")
    (folder / "manifest.csv").write_text("file,split\na.mp4,somewhere\n")
    with pytest.raises(ValueError, match="split 'somewhere'; choose one of train, val, val_seen"):
        find_items(folder)
