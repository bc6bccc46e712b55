from __future__ import annotations

from types import SimpleNamespace

import torch

from training import training_benchmark
from training.__main__ import main


def test_the_table_has_a_row_a_variant_and_ratios_to_fp32_and_the_first(tmp_path, capsys):
    output = tmp_path / "table.md"
    command = "benchmark --recipes debug --batch 4 --steps 1 --rounds 1 --no-compile --output".split()
    assert main([*command, str(output)]) == 0
    text = output.read_text()
    environment, _, *lines = text.splitlines()
    assert "torch" in environment
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [row[:4] for row in rows] == [
        [kind, "debug", precision, "4"] for kind in ("generator", "syncnet") for precision in ("fp32", "bf16")
    ]
    assert rows[0][5] == rows[0][6] == rows[2][5] == "1.00"
    assert all(float(row[4]) > 0 and row[7].endswith("%") for row in rows)
    assert text in capsys.readouterr().out


def test_the_median_round_counts_and_ratios_are_within_the_run():
    def variant(precision: str, *rounds: tuple[float, float]) -> SimpleNamespace:
        one = SimpleNamespace(kind="syncnet", name="debug", precision=precision, batch=10, rounds=list(rounds))
        one.median = lambda steps: training_benchmark.Variant.median(one, steps)
        return one

    slow, fast = variant("fp32", (9.0, 9.0), (2.0, 0.5), (1.0, 0.1)), variant("bf16", (0.5, 0.05))
    text = training_benchmark.table([slow, fast], 4)
    assert "| syncnet | debug | fp32 | 10 | 20.0 | 1.00 | 1.00 | 25.0 % |" in text
    assert "| syncnet | debug | bf16 | 10 | 80.0 | 4.00 | 4.00 | 10.0 % |" in text


def test_every_loss_but_that_of_the_expert_takes_part():
    losses = {}
    for kind in training_benchmark.KINDS:
        one = training_benchmark.Variant(kind, "debug", "fp32", 4, "cpu", compiled=False)
        losses[kind] = set(one.trainer.train_step(one.draw(0)))
        assert one.device == torch.device("cpu")
    assert losses["generator"] >= {"l1", "low", "identity", "lips", "adversarial", "matching"}
    assert losses["syncnet"] == {"lips_audio", "lips_face", "contrastive", "probability"}


def test_numbers_that_measure_nothing_are_refused(capsys):
    assert main(["benchmark", "--batch", "2"]) == 1
    assert "--batch of at least 4" in capsys.readouterr().err
