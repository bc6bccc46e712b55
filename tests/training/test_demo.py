"""The demo's inputs and its picture; the job in between is tested where it lives."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from training import demo


def test_default_portraits_are_two_different_pictures():
    face, target = demo.astronaut(), demo.hopper()
    assert face.shape == (512, 512, 3) and face.dtype == np.uint8
    assert target.ndim == 3 and target.shape[2] == 3 and target.dtype == np.uint8 and min(target.shape[:2]) >= 256
    assert face.shape != target.shape


def test_defaults_need_no_arguments():
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    args = parser.parse_args([])
    assert args.video is None and args.face is None and args.out.suffix == ".mp4"
    assert Path(args.audio) == demo.SPEECH


@pytest.mark.parametrize("box", [(200, 100, 260, 190), (-20, -30, 60, 70), (470, 480, 560, 600), (0, 0, 512, 512)])
def test_face_square_stays_inside_and_holds_the_face(box):
    rows = np.arange(512 * 512 * 3, dtype=np.uint32).reshape(512, 512, 3)
    square = demo.face_square(rows, np.array(box, np.float32))
    assert square.shape[0] == square.shape[1] >= min(512, max(box[2] - box[0], box[3] - box[1]))
    first, last = square[0, 0, 0] // 3, square[-1, -1, 0] // 3
    inside = np.clip(box, 0, 511)
    assert first % 512 <= inside[0] and first // 512 <= inside[1]
    assert last % 512 >= inside[2] - 1 and last // 512 >= inside[3] - 1


def test_side_by_side_keeps_order_and_leaves_inputs_alone():
    red, green, blue = (
        np.full(shape, colour, np.uint8)
        for shape, colour in (((90, 60, 3), (255, 0, 0)), ((64, 64, 3), (0, 255, 0)), ((30, 80, 3), (0, 0, 255)))
    )
    kept = blue.copy()
    row = demo.side_by_side(red, green, [blue, blue])
    assert row.shape == (demo.TILE + demo.CAPTION, 4 * demo.TILE, 3) and row.dtype == np.uint8
    middles = [tuple(row[demo.TILE // 2, demo.TILE * i + demo.TILE // 2]) for i in range(4)]
    assert middles == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 255)]
    assert np.array_equal(blue, kept)


def test_committed_speech_is_small():
    assert demo.SPEECH.is_file() and demo.SPEECH.stat().st_size <= 200_000
