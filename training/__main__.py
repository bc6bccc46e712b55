"""`python -m training COMMAND`: the pack without the host."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from typing import Any

COMMANDS = {
    "infer": "video + face + speech -> the video with that face, lips in sync",
    "adapt": "adapt the generator to one clip, as a small file that infer and the nodes take",
    "demo": "run the whole job on inputs that need no download",
    "gallery": "draw one picture of what a generator does with two portraits, failures included",
    "doctor": "can this machine train? one line a check, and what to do",
    "prepare": "any folder of videos -> data that the trainers read",
    "generator": "train the generator, or go on training it",
    "syncnet": "train the lip-sync expert, or go on training it",
    "judge": "measure a generator on the validation clips",
    "score": "measure one finished video: sync, identity, sharpness and more",
    "evaluate": "compare systems on a test set: the paper's three tables",
    "benchmark": "training samples a second, or (benchmark inference) every system against the others",
    "export": "turn a training checkpoint into weights that the nodes load",
    "import": "turn a public checkpoint into safetensors that say what they are",
}
MODULES = {"import": "import_weights"}  # commands that cannot be called like their module


def main(arguments: list[str] | None = None) -> int:
    """Run one command; only its own module is imported, so `--help` is quick.

    Returns:
        Exit status: 0, or 1 after an error whose message is on standard error.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if arguments[:1] == [name]:
            _module(name).add_arguments(command)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if "device" in args and args.command != "doctor":  # which tells it in a line of its own
            from .devices import check_device

            check_device(args.device)
        return _module(args.command).run(args)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _module(command: str) -> Any:
    return importlib.import_module(f"{__package__}.{MODULES.get(command, command)}")


if __name__ == "__main__":
    sys.exit(main())
