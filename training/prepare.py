"""`python -m training prepare --input VIDEOS --output DATA`: any folder of videos -> data that all trainers read.

Every video goes through the same stages, each done once: 25 fps and 16 kHz, shots, faces, crops, sync, quality,
identity. Then people are told apart, split, and packed into tar shards. A run that was killed goes on where it was and
ends with the same bytes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from models.networks.wavsyncswap import SIZES

from .data.annotations import find_annotated
from .data.engines import ENGINES, one_thread, run_all
from .data.items import Item, Settings, find_items
from .data.pack import pack
from .data.sync import load_expert
from .data.work import write_json
from .lip_reader import load_reader, reader_path


def check_settings(output: Path, settings: Settings) -> None:
    """Refuse to mix tracks that were made in different ways.

    Raises:
        ValueError: `output` was prepared with other settings; the message names them.
    """
    path, wanted = output / "settings.json", settings.described()
    if not path.is_file():
        write_json(path, wanted)
        return
    made = json.loads(path.read_text(encoding="utf-8"))
    changed = [f"{name} was {made.get(name)}, now {value}" for name, value in wanted.items() if made.get(name) != value]
    if changed:
        raise ValueError(f"{output} was begun with other settings: {'; '.join(changed)}. Give another --output.")


def prepare(
    items: list[Item], output: Path, settings: Settings, engine: str = "local", processes: int = 1
) -> dict[str, Any]:
    """Prepare and pack; the manifest.

    Args:
        items: the videos.
        output: folder of the result; its `work` holds what is needed to go on, and may be deleted at the end.
        settings: how.
        engine: "local" or "ray".
        processes: how many videos at once.

    Raises:
        ValueError: other settings than before, or nothing usable in any video.
    """
    check_settings(output, settings)
    run_all(items, output / "work", settings, engine, processes)
    with one_thread():
        return pack(items, output / "work", output, settings)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training prepare`."""
    parser.add_argument("--input", type=Path, required=True, help="folder of videos, looked through with all below it")
    parser.add_argument("--output", type=Path, required=True, help="folder for the result: --data of the trainers")
    parser.add_argument(
        "--annotations", type=Path, help="folder of HDTF's lists of stretches and boxes (default: whole videos)"
    )
    parser.add_argument(
        "--px",
        type=int,
        choices=SIZES,
        default=96,
        help="side of the crops to be trained, pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="videos prepared at once, one thread each (default: %(default)s)"
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="local",
        help="where: processes of this machine, or a Ray cluster, that of RAY_ADDRESS if set (default: %(default)s)",
    )
    parser.add_argument(
        "--reader",
        default="builtin",
        help="reads mouth numbers: builtin, lip_reader.pt of a run, or none to store none (default: %(default)s)",
    )
    parser.add_argument(
        "--sync",
        type=Path,
        help="exported sync expert to measure offsets with (default: by --reader, else sync stays unknown)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the split into train and val (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Prepare, and say what came of it."""
    reader, expert = (path and path.absolute() for path in (reader_path(args.reader), args.sync))
    # What is wrong with a file is told before any work; in its stage it would fail every video.
    if reader:
        load_reader(reader)
    if expert:
        load_expert(expert)
    settings = Settings(args.px, args.seed, reader, expert)
    # Absolute, because the processes of a cluster stand in other folders.
    folder, output = args.input.absolute(), args.output.absolute()
    items = find_annotated(folder, args.annotations) if args.annotations else find_items(folder)
    manifest = prepare(items, output, settings, args.engine, args.processes)
    print(
        f"{manifest['tracks']} tracks of {manifest['people']} people, {manifest['hours'] * 60:.1f} minutes, in "
        f"{len(manifest['shards'])} shards; {manifest['failures']} videos or tracks left out.\n"
        f"Look at {args.output / 'report.html'}, then: python -m training generator --data {args.output} --output RUN"
    )
    return 0
