from __future__ import annotations

import numpy as np
import pytest

from training.data.people import name_people, split_people


def tracks(people: list[int], seed: int = 0, spread: float = 0.02) -> np.ndarray:
    """Unit vectors near one of some people's own, float32 [N, 128]."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(people) + 1, 128))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors = centres[people] + spread * random.standard_normal((len(people), 128))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_tracks_of_one_person_get_one_name_in_order_of_appearance():
    names = name_people(tracks([3, 0, 3, 1, 0]), [None] * 5)
    assert names == ["person_0000", "person_0001", "person_0000", "person_0002", "person_0001"]
    assert name_people(tracks([0]), [None]) == ["person_0000"]


def test_a_label_spreads_to_unlabelled_tracks_of_the_same_face_and_is_never_overruled():
    names = name_people(tracks([0, 0, 1, 0, 2]), ["ann", None, None, "anna", "ben"])
    assert names[0] == "ann"
    assert names[1] in ("ann", "anna")
    assert names[2:] == ["person_0000", "anna", "ben"]


def test_a_label_like_an_automatic_name_stays_one_persons_own():
    names = name_people(tracks([0, 1, 2, 1]), ["person_0000", None, None, None])
    assert names == ["person_0000", "person_0001", "person_0002", "person_0001"]


@pytest.mark.parametrize("seed", range(5))
def test_a_tenth_of_the_videos_is_kept_half_of_it_of_unseen_people(seed):
    """Forty people of five videos each: 20 videos are kept."""
    people = [f"p{i:02d}" for i in range(40) for _ in range(5)]
    videos = [f"v{i:03d}" for i in range(200)]
    split = split_people(videos, people, [None] * 200, seed)
    of = {name: {p for p, s in zip(people, split, strict=True) if s == name} for name in ("train", "val", "val_seen")}
    assert split.count("val") == split.count("val_seen") == 10
    assert not of["val"] & (of["train"] | of["val_seen"])
    assert of["val_seen"] <= of["train"]
    assert split == split_people(videos, people, [None] * 200, seed)
    assert split != split_people(videos, people, [None] * 200, seed + 100)


def test_tracks_of_one_person_in_one_video_stay_together():
    people = [f"p{i // 6}" for i in range(120)]
    videos = [f"v{i // 3}" for i in range(120)]
    split = split_people(videos, people, [None] * 120, 0)
    assert len(set(zip(videos, split, strict=True))) == 40


def test_somebody_is_always_left_to_train_on():
    assert split_people(["a", "b"], ["x", "x"], [None, None], 0).count("train") == 1  # the other one is val_seen
    assert sorted(split_people(["a", "b"], ["x", "y"], [None, None], 0)) == ["train", "val"]
    assert split_people(["a"], ["x"], [None], 0) == ["train"]


def test_a_given_split_holds_and_nobody_in_val_is_trained_on():
    people = ["x", "x", "y", "y", "z", "w"]
    split = split_people(list("abcdef"), people, ["val", None, "train", "val_seen", "train", "val"], 0)
    assert split == ["val", "val", "train", "val_seen", "train", "val"]
    unlabelled = split_people(list("abc"), ["x", "x", "x"], ["train", None, "train"], 0)
    assert unlabelled == ["train"] * 3
