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


@pytest.mark.parametrize("counts", [(12, 12), (1, 1), (3, 2, 1), (5, 1, 1, 3), (6, 1, 1, 1, 1, 1, 1)])
def test_an_exchange_is_found_whenever_there_is_one(tmp_path: Path, counts: tuple[int, ...]):
    people = [f"p{i}" for i, count in enumerate(counts) for _ in range(count)]
    folder_of(tmp_path, people)
    for seed in range(5):
        pairs = shuffled_pairs(tmp_path, seed=seed)
        assert all(people[int(pair.target.stem[1:])] != pair.person for pair in pairs)
        assert len({pair.source for pair in pairs}) == len(people)


def test_pairs_of_files_of_one_name_or_with_letters_from_elsewhere_have_names_of_their_own(tmp_path: Path):
    files = [
        "id1/00001.mp4",
        "id2/00001.mp4",
        "id3/00001.mp4",
        "人.mp4",
        "面.mp4",
        "A.mp4",
        "a.mp4",
        "a__a.mp4",
        "b.mp4",
    ]
    for file in [*files, "b.mov", "id1_00001.mp4", f"{'long' * 50}.mp4"]:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    for seed in range(5):
        names = [pair.name.lower() for pair in shuffled_pairs(tmp_path, seed=seed)]
        assert len(set(names)) == len(names)
        assert all(name.isascii() and "/" not in name and len(name) < 200 for name in names)
    rows = [f"{target},{source}" for target in files[:5] for source in files[:5] if target != source]
    (tmp_path / "pairs.csv").write_text("target,source\n" + "\n".join(rows), encoding="utf-8")
    pairs = read_pairs(tmp_path / "pairs.csv")
    assert len({pair.name for pair in pairs}) == len(rows)
    assert len({pair.person for pair in pairs}) == 5
    write_pairs(tmp_path / "again.csv", pairs)
    assert read_pairs(tmp_path / "again.csv") == pairs


def test_a_name_that_is_no_file_name_gets_a_digest(tmp_path: Path):
    (tmp_path / "t.mp4").touch()
    (tmp_path / "pairs.csv").write_text(
        "target,source,name\nt.mp4,t.mp4,..\nt.mp4,t.mp4,é\nt.mp4,t.mp4,plain\n", "utf-8"
    )
    first, second, third = (pair.name for pair in read_pairs(tmp_path / "pairs.csv"))
    assert first.strip(".") == first and second.isascii() and third == "plain"
    assert first != second


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
