from __future__ import annotations

import json
import logging
import sys

import numpy as np
import pytest
from PIL import Image

from training.keeper import Record
from training.report import curves, write_report
from training.watch import Watch, entries, flat

ENTRY = {"step": 2, "samples_per_s": 5.0, "data_share": 0.1, "l1": 4.0, "raw": {"l1": 0.4}, "share": {"l1": 1.0}}


def test_groups_become_names_with_a_slash():
    assert dict(flat(ENTRY))["share/l1"] == 1.0
    assert "step" not in dict(flat(ENTRY))


def test_lines_of_a_process_that_died_unsaved_are_taken_out(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({**ENTRY, "step": step}) + "\n" for step in (20, 40, 60)) + '{"step": 8')
    assert [entry["step"] for entry in entries(log)] == [20, 40, 60]
    with Watch(tmp_path, "log.jsonl", step=40, steps=100) as watch:
        watch.write({**ENTRY, "step": 60, "l1": 9.0})
    assert [(entry["step"], entry["l1"]) for entry in entries(log)] == [(20, 4.0), (40, 4.0), (60, 9.0)]


def test_other_processes_write_nothing(tmp_path):
    with Watch(tmp_path, "log.jsonl", 0, 5, active=False) as watch:
        watch.advance(1, ENTRY, {"l1": 1.0})
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_numbers_and_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    with Watch(tmp_path, "log.jsonl", 0, 5) as watch:
        watch.write(ENTRY)
        watch.picture(2, picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "samples" / "0000002.png")), picture)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"l1", "raw/l1", "share/l1", "samples_per_s"} <= set(board.Tags()["scalars"])
    assert [(event.step, event.value) for event in board.Scalars("l1")] == [(2, 4.0)]
    assert board.Tags()["images"] == ["samples"]


def test_a_terminal_gets_a_bar_with_the_time_left_and_logging_goes_on(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    try:
        before = sys.stderr
        with Watch(tmp_path, "log.jsonl", 0, 5) as watch:
            watch.advance(2, ENTRY, {"l1": 1.25, "share": {"l1": 1.0}})
            logging.getLogger("x").warning("a message")
        assert handler.stream is before
    finally:
        logging.getLogger().removeHandler(handler)
    shown = capsys.readouterr().err
    assert "2/5" in shown
    assert "5.0 samples/s, losses 1.250 together" in shown
    assert "a message" in shown


def test_the_report_has_curves_speed_and_the_last_numbers(tmp_path):
    lines = [{**ENTRY, "step": step, "val_l1": 0.5 / step} for step in (1, 2)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_report(tmp_path, "log.jsonl", "Generator", Record("0123456789abcdef")).read_text()
    assert "| l1 | 0.25 | 0.25 | 0.5 |" in text
    assert "| l1 | 4.0000 | 0.4000 | 1.0000 |" in text
    assert "5.0 samples/s in its last process, 10.0 % of the time waiting for data. Data 0123456789ab" in text
    pytest.importorskip("matplotlib")
    for name in ("measured", "losses", "shares", "speed"):
        assert f"({name}.png)" in text
        assert Image.open(tmp_path / f"{name}.png").size == (800, 400)
    assert curves(lines)["val_l1"] == [(1, 0.5), (2, 0.25)]


def test_a_run_that_logged_nothing_still_has_a_report(tmp_path):
    assert "Nothing was logged" in write_report(tmp_path, "syncnet.jsonl", "Sync expert", Record()).read_text()
    assert (tmp_path / "syncnet_report.md").exists()
