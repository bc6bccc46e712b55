"""What the gallery's captions say is measured: mouths in grey levels, likeness, lips."""

from __future__ import annotations

import numpy as np
import pytest

from training.studio import Studio

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def studio():
    return Studio("builtin")


def test_mouth_change_is_of_the_mouth_alone_and_in_grey_levels(studio):
    still = studio.portraits["Collins"]
    _, track = studio.draw(still, studio.silence, None)
    assert studio.mouth_change(still, still, track) == 0
    darker = still - np.minimum(still, 10)
    darker[: int(studio.faces["Collins"].landmarks[:2, 1].max()) + 5] = 0  # down to the eyes
    assert studio.mouth_change(still, darker, track) == pytest.approx(10, abs=1)


def test_cosines_know_who_is_who(studio):
    to_source, to_target = studio.cosines(studio.portraits["Hopper"], "Collins", "Hopper")
    assert to_target == pytest.approx(1, abs=1e-4)
    assert to_source < 0.4


def test_a_still_talks_at_the_loudest_moment_and_rests_without_sound(studio):
    still = studio.portraits["Hopper"]
    windows = studio.loudest.new_tensor(np.concatenate([studio.silence, studio.loudest]))
    frames, track = studio.draw(still, windows, None)
    opening, _ = studio.lips(frames, track)
    assert opening[1] > opening[0]
    assert frames.shape == (2, *still.shape)
    assert np.array_equal(frames[:, :20], np.stack([still[:20]] * 2))


def test_weights_that_are_missing_are_one_error():
    with pytest.raises(ValueError, match="nowhere"):
        Studio("nowhere.safetensors")
