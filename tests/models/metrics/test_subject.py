"""Which face of result and reference is judged."""

from __future__ import annotations

import numpy as np
import pytest

from models.frames import FrameArray
from models.metrics import metric
from models.metrics.identity import source_embedding
from models.metrics.subject import Subject, Tools
from models.selection import Selection
from tests.models.metrics.stage import FPS, SIDE, MarkDetector, scene
from tests.models.metrics.test_identity import ColourRecogniser, tinted

SHOT, WIDTH = 20, 200  # frames, px that one person has
RED, GREEN = (1.0, 0.2, 0.2), (0.2, 1.0, 0.2)


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    """Red stands left of green; after a cut, and upside down in brightness, green stands left of red."""
    plain = scene(np.full(SHOT, 0.5), (WIDTH, 160))
    red, green = tinted(plain, RED), tinted(plain, GREEN)
    after = np.concatenate([green, red], 2)
    after[:, :10], after[:, 140:] = 255, 255  # another room
    after[:, :, :15], after[:, :, -40:] = 255, 255
    return np.concatenate([np.concatenate([red, green], 2), after])


def sides(track) -> list[bool]:
    """Where the face is, shot by shot: is it on the right?"""
    return [bool(track.centres[i, 0] > WIDTH) for i in (SHOT // 2, SHOT + SHOT // 2)]


@pytest.mark.parametrize("order", ["largest", "left-right", "right-left"])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("recogniser", [None, ColourRecogniser()])
def test_the_result_is_judged_where_the_reference_has_the_face(people, order, index, recogniser):
    tools = Tools(MarkDetector(), recogniser)
    subject = Subject(
        FrameArray(people, FPS), tools, reference=FrameArray(people, FPS), selection=Selection(order, index)
    )
    assert subject.place.cuts == (SHOT,)
    assert subject.place.present.all()
    assert np.abs(subject.track.centres - subject.place.centres).max() < 1e-9
    across = [order == "right-left", order == "right-left"] if index == 0 else [order != "right-left"] * 2
    if recogniser is not None:  # who was chosen in the first frame, as the swap does it
        across[1] = not across[0]
    assert sides(subject.track) == across


def test_a_clip_against_itself_shows_the_same_person_throughout(people):
    tools, red = Tools(MarkDetector(), ColourRecogniser()), people[:SHOT, :, :WIDTH]
    source = source_embedding(FrameArray(red, FPS), tools.detector, tools.recogniser)
    subject = Subject(FrameArray(people, FPS), tools, reference=FrameArray(people, FPS), source=source)
    curves = metric("identity").measure(subject).curves
    assert curves["to_source"].min() > 0.99
    assert curves["to_target"].min() > 0.999


def test_a_result_whose_faces_are_elsewhere_is_refused(people):
    moved = np.roll(people[:SHOT, :, WIDTH:], SIDE, 2)  # green wraps round the border: its mark is far from red's
    left = np.concatenate([np.zeros_like(moved), moved], 2)
    subject = Subject(
        FrameArray(left, FPS),
        Tools(MarkDetector()),
        reference=FrameArray(people[:SHOT], FPS),
        selection=Selection("left-right"),
    )
    with pytest.raises(ValueError, match="No face is where the other video has it.*same frames"):
        _ = subject.track


@pytest.mark.parametrize("height, width", [(159, 199), (160, 199), (159, 200)])
def test_a_result_may_be_a_pixel_longer_where_the_reference_is_odd(people, height, width):
    """A coder of 4:2:0 repeats the last row or column; so does this pack's own writer."""
    given = people[:SHOT, :height, :width]
    made = np.pad(given, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    tools = Tools(MarkDetector(), ColourRecogniser())
    source = source_embedding(FrameArray(given, FPS), tools.detector, tools.recogniser)
    subject = Subject(FrameArray(made, FPS), tools, reference=FrameArray(given, FPS), source=source)
    for chunk in subject.chunks():
        assert np.array_equal(chunk.made, chunk.given)
    assert subject.track.frame_size == (width, height)
    assert metric("identity").measure(subject).curves["to_target"].min() > 0.999
    for video, reference in (
        (given, made),
        (made[:, :, :-2], given),
        (np.pad(made, ((0, 0), (0, 1), (0, 1), (0, 0))), given),
    ):
        other = Subject(FrameArray(video, FPS), tools, reference=FrameArray(reference, FPS))
        with pytest.raises(ValueError, match="its reference .* pixel by pixel"):
            next(other.chunks())
