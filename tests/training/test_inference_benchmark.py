from __future__ import annotations

import copy
import json

import pytest

from training import inference_benchmark, inference_systems
from training.__main__ import main
from training.inference_benchmark import fallen


def row(system="base-96", **numbers):
    return {"system": system, "device": "cpu", "dtype": "bf16", "batch": 16, **numbers}


def test_ratios_that_fell_are_told_and_times_are_not_compared():
    old = {"rows": [row(speedup=20.0, of_conv=0.6, ms=10), row("small-96", speedup=60.0, speedup_e2e=8.0)]}
    new = copy.deepcopy(old)
    new["rows"][0] |= {"ms": 100, "of_conv": 0.52}  # less, but not by 15 %
    assert fallen(old, new) == []
    new["rows"][1]["speedup_e2e"] = 6.0
    new["rows"][0]["speedup"] = 10.0
    assert fallen(old, new) == [
        "base-96 cpu bf16 16: speedup fell from 20.00 to 10.00",
        "small-96 cpu bf16 16: speedup_e2e fell from 8.00 to 6.00",
    ]
    assert fallen({"rows": []}, new) == []


def test_unknown_systems_are_refused():
    import torch

    with pytest.raises(ValueError, match="base-1"):
        inference_systems.system("base-1", torch.float32, torch.device("cpu"))


@pytest.mark.slow
def test_a_run_gives_a_table_a_record_and_a_comparison(tmp_path, caplog):
    output, record = tmp_path / "table.md", tmp_path / "record.json"
    command = "benchmark inference --systems small-96 wav2lip --dtypes fp32 --batches 2 --rounds 2 --no-e2e".split()
    assert main([*command, "--output", str(output), "--record", str(record)]) == 0
    found = json.loads(record.read_text())
    assert [r["system"] for r in found["rows"]] == ["small-96", "wav2lip"]
    for r in found["rows"]:
        assert r["ms"] > 0
        assert r["of_conv"] > 0
        assert r["rtf_net"] == pytest.approx(25 * r["ms"] / 1000)
    assert found["rows"][1]["gmacs"] == pytest.approx(3.967, abs=0.01)  # specification, section 3.1
    assert found["rows"][1]["parameters_m"] == pytest.approx(36.298, abs=0.001)
    assert "| small-96 | fp32 | 2 |" in output.read_text()
    found["rows"][0]["of_conv"] *= 10
    record.write_text(json.dumps(found))
    assert main([*command, "--check", str(record)]) == 0
    assert "slower: small-96 cpu fp32 2: of_conv fell" in caplog.text


@pytest.mark.slow
def test_what_was_measured_is_kept_when_whole_jobs_are_broken_off(tmp_path, monkeypatch):
    def broken_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(inference_benchmark, "EndToEnd", broken_off)
    command = "benchmark inference --systems small-96 --dtypes fp32 --batches 1 2 --rounds 1".split()
    with pytest.raises(KeyboardInterrupt):
        main([*command, "--record", str(tmp_path / "record.json")])
    assert [row["batch"] for row in json.loads((tmp_path / "record.json").read_text())["rows"]] == [1, 2]


@pytest.mark.slow
def test_the_public_cascade_keeps_its_number_type_whatever_the_others_have(tmp_path):
    record = tmp_path / "record.json"
    command = ["benchmark", "inference", "--systems", "cascade upstream", "--dtypes", "bf16"]
    assert main([*command, "--rounds", "1", "--no-e2e", "--record", str(record)]) == 0
    (row,) = json.loads(record.read_text())["rows"]
    assert row["dtype"] == "fp32"
    assert row["of_matmul"] > 0


def test_systems_are_those_of_the_specification():
    assert set(inference_systems.RECIPES) < set(inference_benchmark.SYSTEMS)
