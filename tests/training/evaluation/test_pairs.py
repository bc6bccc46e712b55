"""The test set: manifests, and the shuffle in which nobody gets their own face."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.evaluation.pairs import read_pairs, shuffled_pairs, write_pairs


def folder_of(tmp_path: Path, people: list[str], split: str = "val") -> Path:
    """Empty files that a manifest calls videos of these people, with sound beside the first."""
    lines = ["file,identity,split"]
    for i, person in enumerate(people):
        (tmp_path / f"v{i}.mp4").touch()
        lines.append(f"v{i}.mp4,{person},{split}")
    (tmp_path / "v0.wav").touch()
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_nobody_gets_their_own_face(tmp_path: Path):
    people = ["a", "a", "b", "c", "c", "d"]
    pairs = shuffled_pairs(folder_of(tmp_path, people))
    assert [pair.target.name for pair in pairs] == [f"v{i}.mp4" for i in range(6)]
    assert sorted(pair.source.name for pair in pairs) == [f"v{i}.mp4" for i in range(6)]
    assert all(pair.person == people[int(pair.source.stem[1:])] for pair in pairs)
    assert all(people[i] != pair.person for i, pair in enumerate(pairs))
    assert [pair.audio is not None for pair in pairs] == [True] + [False] * 5
    assert shuffled_pairs(tmp_path) == pairs
    assert any(shuffled_pairs(tmp_path, seed=seed) != pairs for seed in range(1, 5))


@pytest.mark.parametrize(("people", "split"), [(["a"], "val"), (["a", "a", "b"], "val"), (["a", "b"], "train")])
def test_too_few_people(tmp_path: Path, people: list[str], split: str):
    with pytest.raises(ValueError, match="nobody may get their own face"):
        shuffled_pairs(folder_of(tmp_path, people, split))


def test_a_manifest_is_read_and_written(tmp_path: Path):
    for name in ("t.mp4", "s.png", "a.wav"):
        (tmp_path / name).write_bytes(name.encode())
    text = "target,source,audio\nt.mp4,s.png,a.wav\nt.mp4,t.mp4,\n"
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8-sig")  # as Excel does
    one, two = read_pairs(tmp_path / "pairs.csv")
    assert (one.name, one.person, one.audio) == ("t__s", "s", tmp_path / "a.wav")
    assert (two.name, two.person, two.audio) == ("t__t", "t", None)
    assert set(one.digest()) == {"target", "source", "audio"}
    assert set(two.digest()) == {"target", "source"}
    write_pairs(tmp_path / "again.csv", [one, two])
    assert read_pairs(tmp_path / "again.csv") == [one, two]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\nt.mp4\n", "found file"),
        ("target,source\n", "found no rows"),
        ("target,source\nt.mp4,\n", "line 2: no source"),
        ("target,source\nt.mp4,gone.png\n", r"line 2: the source .*gone\.png does not exist"),
        ("target,source,name\nt.mp4,t.mp4,x\nt.mp4,t.mp4,x\n", "the name 'x' more than once"),
    ],
)
def test_faulty_manifests(tmp_path: Path, text: str, message: str):
    (tmp_path / "t.mp4").touch()
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_pairs(tmp_path / "pairs.csv")
