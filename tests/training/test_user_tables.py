"""Tables as spreadsheet programs write them."""

from __future__ import annotations

import pytest

from training.user_tables import read_table


def test_a_byte_order_mark_and_blank_rows_are_no_content(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_bytes("\ufefffile, identity,split\r\na.mp4,Zoë\r\n,,\r\n".encode())
    assert read_table(path, ("file", "identity")) == [{"file": "a.mp4", "identity": "Zoë", "split": ""}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file;split\na.mp4;val\n", r"manifest\.csv has no column file\. .*commas.*'file;split'"),
        (b"", r"manifest\.csv has no column file"),
        ("file,identity\na.mp4,Zoë\n".encode("latin-1"), r"manifest\.csv is not in UTF-8: byte 0xeb at 22"),
        ("file\na.mp4\n".encode("utf-16"), r"manifest\.csv is not in UTF-8"),
        (b"file,split\na, b.mp4,val\n", r"manifest\.csv, line 2: more cells"),
        (b'file\n"' + 200_000 * b"a", r"manifest\.csv, line \d+: no CSV"),
    ],
)
def test_what_cannot_be_read_is_one_error(tmp_path, content, message):
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(path, ("file",))
