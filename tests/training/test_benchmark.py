from __future__ import annotations

from training.__main__ import main


def test_the_table_has_a_row_a_variant_and_ratios_to_the_first(tmp_path, capsys):
    output = tmp_path / "table.md"
    command = "benchmark --recipes debug --batch 2 --steps 1 --rounds 1 --no-compile --output".split()
    assert main([*command, str(output)]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.read_text().splitlines()[2:]]
    assert [row[:3] for row in rows] == [["debug", "fp32", "2"], ["debug", "bf16", "2"]]
    assert rows[0][4] == "1.00"
    assert all(float(row[3]) > 0 and row[5].endswith("%") for row in rows)
    assert output.read_text() in capsys.readouterr().out
