from __future__ import annotations

import numpy as np
import pytest

from models.tracklets import Sighting, Tracklet, join, link, overlap, without_false_alarms

LOOKS = {name: np.random.default_rng(i).normal(0, 1, 192).astype(np.float32) for i, name in enumerate("ab")}


def seen(frame: int, x: float, name: str = "a", size: float = 40, identity: list[float] | None = None) -> Sighting:
    box = np.array([x - size / 2, 100 - size / 2, x + size / 2, 100 + size / 2])
    vector = None if identity is None else np.float32(identity)
    return Sighting(frame, box, 0.9, np.zeros((5, 2), np.float32), LOOKS[name], vector)


def tracklet(*sightings: Sighting) -> Tracklet:
    result = Tracklet()
    for sighting in sightings:
        result.add(sighting)
    return result


def frames_of(tracklets: list[Tracklet]) -> list[list[int]]:
    return [list(t.sightings) for t in tracklets]


def test_overlap():
    box = np.array([0.0, 0, 10, 10])
    assert overlap(box, box) == 1
    assert overlap(box, box + 5) == pytest.approx(25 / 175)
    assert overlap(box, box + 10) == 0
    assert overlap(box * 0, box * 0) == 0


def test_speed_is_extrapolated():
    x = 10 + np.cumsum(np.minimum(4 * np.arange(25), 50))  # at last 1.25 face sizes a frame
    (one,) = link([[seen(i, x[i])] for i in range(25)], 25)
    assert len(one.sightings) == 25


def test_looks_decide_who_is_who_where_boxes_meet():
    """Two people meet and turn back: place and movement alone would exchange them."""
    script = []
    for i in range(41):
        x = 3.0 * min(i, 40 - i)
        script.append([seen(i, 100 + x, "a"), seen(i, 222 - x, "b")])
    one, two = link(script, 25)
    assert all((s.look == LOOKS["a"]).all() for s in one.sightings.values())
    assert all((s.look == LOOKS["b"]).all() for s in two.sightings.values())
    assert len(one.sightings) == len(two.sightings) == 41


def test_a_lost_face_is_waited_for_with_patience():
    script = [[seen(i, 100 + 2 * i)] if not 10 <= i < 20 else [] for i in range(30)]
    assert len(link(script, 25)) == 1
    assert frames_of(link(script, 5)) == [list(range(10)), list(range(20, 30))]


def test_a_new_face_beside_a_known_one():
    script = [[seen(i, 100), *([seen(i, 190, "b")] if i >= 5 else [])] for i in range(10)]
    assert frames_of(link(script, 25)) == [list(range(10)), list(range(5, 10))]


def test_false_alarms():
    short, long = tracklet(seen(0, 0), seen(1, 0)), tracklet(*(seen(i, 0) for i in range(3)))
    assert without_false_alarms([short, long]) == [long]
    assert without_false_alarms([short]) == [short]


def test_join_by_place_size_and_looks():
    before = tracklet(seen(0, 100), seen(10, 100))
    assert frames_of(join([before, tracklet(seen(60, 180), seen(61, 180))], 25)) == [[0, 10, 60, 61]]
    assert len(join([before, tracklet(seen(20, 250))], 25)) == 2  # too far for 0.4 s
    assert len(join([before, tracklet(seen(20, 100, size=90))], 25)) == 2
    assert len(join([before, tracklet(seen(20, 100, "b"))], 25)) == 2
    assert len(join([before, tracklet(seen(10, 100))], 25)) == 2  # both in one frame


def test_join_by_identity_where_it_is_known():
    before = tracklet(seen(0, 100, identity=[1, 0]))
    assert len(join([before, tracklet(seen(20, 100, identity=[0, 1]))], 25)) == 2
    assert len(join([before, tracklet(seen(20, 100, "b", identity=[1, 0.1]))], 25)) == 1  # turned, other looks


def test_join_prefers_the_nearest_and_makes_chains():
    parts = [tracklet(seen(0, 100)), tracklet(seen(20, 150)), tracklet(seen(22, 102)), tracklet(seen(40, 104))]
    assert sorted(frames_of(join(parts, 25))) == [[0, 22, 40], [20]]
    assert join([], 25) == []


def test_identity_is_the_mean_direction():
    assert tracklet(seen(0, 0)).identity is None
    both = tracklet(seen(0, 0, identity=[1, 0]), seen(1, 0), seen(2, 0, identity=[0, 1])).identity
    np.testing.assert_allclose(both, np.sqrt([0.5, 0.5]))
    assert tracklet(seen(0, 0, identity=[0, 0])).identity is None
