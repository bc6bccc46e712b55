"""Commands write over nothing that they read, and say before any work where they cannot write."""

from __future__ import annotations

import os

import pytest

from training.__main__ import main
from training.outputs import check_file, check_folder, check_outputs


@pytest.fixture
def clip(tmp_path):
    """A file whose content must survive; no command gets as far as to see that it is no video."""
    path = tmp_path / "v.mp4"
    path.write_bytes(b"precious")
    return path


def test_one_file_under_two_names_is_found(tmp_path, clip):
    (tmp_path / "sub").mkdir()
    for other in ("v.mp4", "sub/../v.mp4"):
        with pytest.raises(ValueError, match=r"--out: .*v\.mp4 is read \(--video\), and would be overwritten"):
            check_outputs([("--out", tmp_path / other)], [("--video", clip)])
    os.link(clip, tmp_path / "linked.mp4")
    with pytest.raises(ValueError, match=r"linked\.mp4 is read"):
        check_outputs([("--out", tmp_path / "linked.mp4")], [("--video", clip)])
    with pytest.raises(ValueError, match="is written by --out too"):
        check_outputs([("--out", tmp_path / "o"), ("--profile", tmp_path / "sub" / ".." / "o")], [])
    check_outputs([("--out", tmp_path / "o"), ("--profile", None)], [("--video", clip), ("--weights", "builtin")])


def test_what_cannot_be_written_is_told(tmp_path, clip):
    with pytest.raises(ValueError, match="is a folder. Name a file in it"):
        check_file("--out", tmp_path)
    with pytest.raises(ValueError, match=r"v\.mp4 is in the way: a folder is needed"):
        check_file("--out", clip / "deeper" / "o.mp4")
    with pytest.raises(ValueError, match=r"--output: .*v\.mp4 is in the way"):
        check_folder("--output", clip)
    check_folder("--output", tmp_path / "not" / "yet")
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("allowed", ["file", "folder"])
def test_permissions_are_asked_for(tmp_path, clip, monkeypatch, allowed):
    monkeypatch.setattr(os, "access", lambda path, mode: (path == clip) == (allowed == "file"))
    message = "nothing can be written to" if allowed == "file" else "is write-protected"
    with pytest.raises(ValueError, match=message):
        check_file("--out", clip)


@pytest.mark.parametrize(
    "command",
    [
        "infer --video v.mp4 --audio s.wav --out v.mp4",
        "infer --video a.mp4 --audio v.mp4 --out sub/../v.mp4",
        "infer --video a.mp4 --face b.png v.mp4 --out v.mp4",
        "infer --video a.mp4 --weights v.mp4 --out v.mp4",
        "infer --video v.mp4 --out o.mp4 --profile v.mp4",
        "adapt --video v.mp4 --output v.mp4",
        "adapt --video a.mp4 --audio v.mp4 --output v.mp4",
        "demo --video v.mp4 --out v.mp4",
        "score --video v.mp4 --output v.mp4",
        "score --video a.mp4 --source b.png v.mp4 --output v.mp4",
        "gallery --weights v.mp4 --output v.mp4",
        "benchmark inference --clip v.mp4 --record v.mp4",
    ],
)
def test_no_command_overwrites_its_input(tmp_path, clip, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    clip.chmod(0o444)
    before = sorted(tmp_path.iterdir())
    assert main(command.split()) == 1
    assert "v.mp4 is read (--" in capsys.readouterr().err
    assert clip.read_bytes() == b"precious"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "input_name"),
    [("--video me.png", "me.png"), ("--face me_target.png", "me_target.png"), ("--audio me.png", "me.png")],
)
def test_the_demo_writes_no_side_file_over_an_input(tmp_path, monkeypatch, capsys, options, input_name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / input_name).write_bytes(b"precious")
    assert main(["demo", *options.split(), "--out", "me.mp4"]) == 1
    assert f"{input_name} is read (--" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [input_name]
    assert (tmp_path / input_name).read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("infer --video a.mp4 --out sub", "--out: sub is a folder"),
        ("infer --video a.mp4 --out o.mp4 --profile sub", "--profile: sub is a folder"),
        ("infer --video a.mp4 --out v.mp4/o.mp4", "v.mp4 is in the way"),
        ("infer --video a.mp4 --out o.mp4 --smoothing 3", "smoothing is 3"),
        ("adapt --video a.mp4 --output sub", "--output: sub is a folder"),
        ("generator --data sub --output v.mp4", "v.mp4 is in the way: a folder is needed"),
        ("syncnet --data sub --output v.mp4/run", "v.mp4 is in the way: a folder is needed"),
    ],
)
def test_impossible_outputs_are_told_before_models_are_loaded(tmp_path, clip, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.mp4").touch()
    for name in ("training.infer.Engines", "training.adapt.Clip"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("work was begun"))
    assert main(command.split()) == 1
    assert message in capsys.readouterr().err
