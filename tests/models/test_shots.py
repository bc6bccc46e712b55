from __future__ import annotations

import numpy as np
import pytest

from models.shots import THUMBNAIL, ShotFinder, change, thumbnail


def picture(seed: int, height: int = 90, width: int = 160) -> np.ndarray:
    """A smooth colourful scene."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / height
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in random.uniform(-2, 2, (9, 3))]
    return (
        np.rint(127 + 40 * np.stack([sum(waves[3 * c : 3 * c + 3]) for c in range(3)], -1))
        .clip(0, 255)
        .astype(np.uint8)
    )


def cuts(frames) -> tuple[int, ...]:
    finder = ShotFinder()
    for frame in frames:
        finder.add([thumbnail(frame)])
    return finder.cuts()


def noisy(scene: np.ndarray, count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [(scene + random.normal(0, 4, scene.shape)).clip(0, 255).astype(np.uint8) for _ in range(count)]


def test_hard_cuts_are_found():
    frames = noisy(picture(1), 12) + noisy(picture(2), 3) + noisy(picture(3), 20) + noisy(picture(1), 5)
    assert cuts(frames) == (12, 15, 35)


def test_a_cut_on_the_second_or_last_frame():
    assert cuts([*noisy(picture(1), 1), *noisy(picture(2), 10)]) == (1,)
    assert cuts([*noisy(picture(1), 10), *noisy(picture(2), 1)]) == (10,)
    assert cuts([picture(1), picture(2)]) == (1,)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare(count):
    assert cuts([picture(1)] * count) == ()


def test_dark_scenes_cut_too():
    frames = noisy(picture(1) // 8, 10) + noisy(picture(2) // 8, 10)
    assert cuts(frames) == (10,)


def test_movement_is_no_cut():
    wide = picture(4, 90, 900)
    assert cuts([wide[:, 4 * i : 4 * i + 160] for i in range(60)]) == ()  # a pan
    start, whip = [wide[:, :160]] * 8, [wide[:, 60 * i : 60 * i + 160] for i in range(12)]
    assert cuts(start + whip) == ()  # a whip pan


def test_a_passing_hand_is_no_cut():
    frames = noisy(picture(1), 30)
    for i in range(10, 20):
        frames[i][20:70, 12 * (i - 10) : 12 * (i - 10) + 40] = (220, 170, 140)
    assert cuts(frames) == ()


def test_exposure_fades_and_flashes_are_no_cuts():
    scene = picture(1).astype(np.float32)
    fade = [(scene * share).astype(np.uint8) for share in np.linspace(0.02, 1, 25)]
    assert all(cut <= 2 for cut in cuts(fade))  # out of black something does begin
    flash = noisy(picture(1), 20)
    flash[9] = np.full_like(flash[9], 250)
    assert cuts(flash) == ()
    flash[9] = picture(7)
    assert cuts(flash) == ()


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_thumbnails_in_chunks_are_frames_one_by_one(chunk):
    frames = noisy(picture(1), 5) + noisy(picture(2), 1) + noisy(picture(1), 5) + noisy(picture(3), 9)
    finder = ShotFinder()
    for start in range(0, len(frames), chunk):
        finder.add([thumbnail(frame) for frame in frames[start : start + chunk]])
    assert finder.cuts() == cuts(frames) == (11,)


@pytest.mark.parametrize("height, width", [(1, 1), (180, 320), (719, 1281), (2000, 3)])
def test_thumbnails_of_any_size(height, width):
    small = thumbnail(np.full((height, width, 3), 90, np.uint8))
    assert small.shape == (*THUMBNAIL[::-1], 3)
    assert abs(small).max() < 1e-5


def test_thumbnails_of_large_frames_are_those_of_small_ones():
    import cv2

    small, large = picture(1, 90, 160), cv2.resize(picture(1, 90, 160), (1280, 720), interpolation=cv2.INTER_CUBIC)
    assert change(thumbnail(small), thumbnail(large)) < 1e-3


def test_change_has_a_scale():
    a, b = (picture(i).astype(np.float32)[::5, ::5] / 255 for i in (1, 2))
    a, b = a - a.mean((0, 1)), b - b.mean((0, 1))
    assert change(a, a) == 0
    assert change(a, -a) == pytest.approx(2, abs=0.05)
    assert 0.6 < change(a, b) < 1.6
    assert change(a * 0, b * 0) == 0


@pytest.mark.parametrize(
    "clip, expected",
    [
        ("scenes/stage_cuts_360p2997.mp4", (20, 82, 211)),
        ("scenes/woman_1080p30.mp4", ()),
        ("scenes/splitscreen5_720p25.mp4", ()),
        ("talking/kitchen_woman_01.mp4", ()),
        ("talking/feifeili_02.mp4", ()),
        ("talking/katiehill_01.mp4", ()),
    ],
)
def test_real_clips(shared_data, clip, expected):
    av = pytest.importorskip("av")
    with av.open(str(shared_data / clip)) as file:
        assert cuts(frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)) == expected
