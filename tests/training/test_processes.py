"""Runs in processes of their own: several that train together, and one that dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.small_run import write_still

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
GENERATOR = (
    "schedule.gan_start=0 schedule.batch=8 schedule.swapped=4 schedule.kept=1 optim.precision=fp32 schedule.steps=50 "
    "schedule.measure_every=50 schedule.sample_every=0 TERM=1"
).split()
SYNCNET = "optim.precision=fp32 syncnet.supervised_steps=0 syncnet.steps=50 syncnet.windows=4 TERM=1".split()


def small_run(kind: str, folder: Path, changes: list[str], processes: int = 1, status: int = 0) -> str:
    """Run to the end in as many processes, each on one thread; standard error."""
    folder.mkdir(exist_ok=True)
    if not (folder / "faces").exists():
        write_still(folder)
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(together if processes > 1 else []), str(ROOT / "tests" / "training" / "small_run.py")]
    done = subprocess.run(
        [*command, kind, str(folder), *changes],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stderr[-4000:]
    return done.stderr


def moments(optimizer: dict) -> torch.Tensor:
    """First moments after one step: the gradients, but for a factor."""
    return torch.cat([state["exp_avg"].flatten().double() for state in optimizer["state"].values()])


@pytest.mark.parametrize(("kind", "changes"), [("generator", GENERATOR), ("syncnet", SYNCNET)])
def test_two_processes_train_as_one_does(kind, changes, tmp_path):
    """Same weights in both, the gradients of one process with the whole batch; a signal to one stops both, saved.

    Weights are not compared with those of one process: Adam makes a whole step of gradients that are zero but for
    rounding, which those of biases before a batch norm are.
    """
    small_run(kind, tmp_path / "one", changes)
    small_run(kind, tmp_path / "two", changes, processes=2)
    one, first, second = (
        torch.load(tmp_path / name, weights_only=True)
        for name in ("one/process0.pt", "two/process0.pt", "two/process1.pt")
    )
    assert one["step"] == first["step"] == second["step"] == 1
    for part in {"net", "critic", "average", "expert", "heads"} & set(one):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items()), part
        for name, value in one[part].items():
            if "running" in name:  # gathered statistics are those of the whole batch
                torch.testing.assert_close(first[part][name], value, rtol=1e-3, atol=1e-4)
    for part in {"opt", "critic_opt"} & set(one):
        wanted, found = moments(one[part]), moments(first[part])
        assert (found - wanted).norm() < 5e-3 * wanted.norm(), part
    last = "last.pt" if kind == "generator" else "syncnet.pt"
    assert torch.load(tmp_path / "two" / "run" / last, weights_only=True)["step"] == 1


def test_a_killed_run_goes_on_to_the_weights_of_an_unbroken_one(tmp_path):
    """SIGKILL after step 6 of 8, saved after 4."""
    changes = ["schedule.steps=8", "schedule.save_every=4", "schedule.measure_every=4", "schedule.sample_every=0"]
    small_run("generator", tmp_path / "whole", changes)
    small_run("generator", tmp_path / "killed", [*changes, "KILL=6"], status=-signal.SIGKILL)
    assert torch.load(tmp_path / "killed" / "run" / "last.pt", weights_only=True)["step"] == 4
    small_run("generator", tmp_path / "killed", changes)
    whole, resumed = (torch.load(tmp_path / n / "run" / "last.pt", weights_only=True) for n in ("whole", "killed"))
    for part in ("net", "critic", "average"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in whole[part].items()), part
    assert torch.equal(moments(whole["opt"]), moments(resumed["opt"]))
    assert resumed["record"] == whole["record"]
    lines = (tmp_path / "killed" / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 4, 8]


def test_processes_that_cannot_share_a_batch_say_so_before_any_work(tmp_path):
    told = small_run("generator", tmp_path, ["schedule.batch=9", "schedule.swapped=3"], processes=2, status=1)
    assert "2 process(es) of 1 part(s) each need multiples of 2 rows; schedule.batch = 9, schedule.swapped = 3" in told
    assert "--set schedule.batch=10 --set schedule.swapped=4" in told
    assert not (tmp_path / "run").exists()
