"""What `--help` says of every option of every command."""

from __future__ import annotations

import argparse
import importlib

import pytest

from training.__main__ import COMMANDS, MODULES


def options(name: str) -> list[argparse.Action]:
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"training.{MODULES.get(name, name)}").add_arguments(parser)
    return parser._actions


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained_with_its_default(name):
    """Switches are off by default, and what must be given has none."""
    for action in options(name):
        what = action.option_strings or [action.dest]
        assert action.help, what
        given = action.required or action.nargs == 0
        assert given or "default" in action.help, f"{what}: {action.help!r} tells no default"
        if isinstance(action.default, str | int | float) and not given and not isinstance(action.default, bool):
            shown = action.help % {**vars(action), "prog": ""}
            assert str(action.default) in shown, f"{what}: {shown!r} hides {action.default!r}"
