"""Which pixels of a face count as skin, and what of it lies in the frame."""

from __future__ import annotations

import numpy as np
import pytest

from models import geometry, skin_colour

pytest.importorskip("cv2")


def test_all_skin_lies_inside_its_square():
    """Nothing of brow, cheeks and chin is cut off by looking at that square of the crop alone."""
    skin = skin_colour.skin()
    assert skin.shape == (skin_colour.SKIN_SIDE,) * 2 and skin.any()
    assert not skin[[0, -1]].any() and not skin[:, [0, -1]].any()


def test_eyes_and_mouth_are_no_skin_and_cheeks_are():
    skin = skin_colour.skin()

    def at(x: float, y: float) -> bool:
        column, row = int(x * skin_colour.SIDE), int(y * skin_colour.SIDE)
        return bool(skin[row - skin_colour.SKIN_TOP, column - skin_colour.SKIN_LEFT])

    left, right, nose, *mouth = geometry.CROP_TEMPLATE
    assert not at(*left) and not at(*right) and not at(*np.mean(mouth, 0))
    assert at(*nose) and at(left[0], nose[1]) and at(right[0], nose[1])


def _frame() -> np.ndarray:
    """Skin colour where the face is, another one all round it."""
    frame = np.full((200, 200, 3), (0.1, 0.3, 0.9), np.float32)
    frame[20:180, 20:180] = (0.8, 0.6, 0.5)
    return frame


@pytest.mark.parametrize("size", [48, 96, 200])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_flat_crop_takes_the_colour_of_the_frames_face(size, dtype):
    frame = _frame() if dtype == "float32" else np.uint8(_frame() * 255 + 0.5)
    matrix = np.array([[1 / 200, 0, 0], [0, 1 / 200, 0]])
    made = skin_colour.matched(np.full((size, size, 3), 0.4, np.float32), frame, matrix, skin_colour.skin())
    np.testing.assert_allclose(made, np.broadcast_to(np.float32((0.8, 0.6, 0.5)), made.shape), atol=4e-3)


def test_only_skin_inside_the_frame_is_asked():
    """Half the face beyond the left edge: what is repeated there from the border has no say."""
    frame = np.full((200, 200, 3), (0.8, 0.6, 0.5), np.float32)
    frame[:, 0] = 0  # fills all that lies outside
    matrix = np.array([[1 / 200, 0, 0.5], [0, 1 / 200, 0]])
    made = skin_colour.matched(np.full((96, 96, 3), 0.4, np.float32), frame, matrix, skin_colour.skin())
    np.testing.assert_allclose(made[0, 0], (0.8, 0.6, 0.5), atol=0.03)


def test_a_face_outside_the_frame_keeps_its_colours():
    crop = np.full((96, 96, 3), 0.4, np.float32)
    matrix = np.array([[1 / 200, 0, 5.0], [0, 1 / 200, 0]])
    assert skin_colour.matched(crop, _frame(), matrix, skin_colour.skin()) is crop
