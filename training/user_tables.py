"""Tables that people write, such as manifests: what spreadsheet programs do to them is allowed for, or one error."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without the byte order mark that Excel begins it with; line ends as they are.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is in another encoding.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not in UTF-8: byte {error.object[error.start]:#04x} at {error.start}. Save it as UTF-8, in "
            'Excel as "CSV UTF-8".'
        ) from error


def read_table(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows of a CSV file by the names in its first line; rows without anything are left out, cells are never None.

    Args:
        path: the file.
        columns: those that it must have.

    Raises:
        OSError: the file cannot be read.
        ValueError: another encoding, a column is missing, or a row that does not fit the first line.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), restval="")
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        if missing := [name for name in columns if name not in reader.fieldnames]:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}. The first line must name columns, separated by commas. "
                f"It is {','.join(reader.fieldnames)!r}."
            )
        rows = []
        for row in reader:
            if None in row:
                raise ValueError(
                    f"{path}, line {reader.line_num}: more cells than the first line has columns. Put what has commas "
                    "in it into quotation marks."
                )
            if any(row.values()):
                rows.append(row)
        return rows
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: no CSV ({error}). Save it as CSV in UTF-8.") from error
