"""``vmm completion``: a script with which the shell completes commands, options and recipes.

    vmm completion bash > ~/.local/share/bash-completion/completions/vmm
    vmm completion zsh > ~/.zfunc/_vmm        # a folder of fpath, before compinit
    vmm completion fish > ~/.config/fish/completions/vmm.fish

It takes a while to write, once, and completing costs nothing then; write it anew after an update.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import shtab

from vmm import cli
from vmm.command_line import CommandParser
from vmm.recipe_files import PACKAGED
from vmm.text_output import complain, say

_SHELLS = ("bash", "zsh", "fish")
_RECIPES = {"bash": "_vmm_recipes", "zsh": "_vmm_recipes", "fish": "(_vmm_recipes)"}
_PREAMBLE = {
    "bash": """\
_vmm_recipes() {{
  compgen -W "{names}" -- "$1"
  compgen -f -X '!*.y*ml' -- "$1"
  compgen -d -S / -- "$1"
}}""",
    "zsh": """\
_vmm_recipes() {{
  compadd -- {names}
  _files -g '*.(yaml|yml)'
}}""",
    "fish": """\
function _vmm_recipes
  string split ' ' "{names}"
  __fish_complete_suffix .yaml
end""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script; returns the exit status."""
    parser = CommandParser(
        prog="vmm completion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=_SHELLS)
    shell = parser.parse_args(argv).shell
    complain("all commands and settings are looked up, which takes up to half a minute")
    say(script(shell), lines=True)
    return 0


def script(shell: str) -> str:
    """Write the script for a shell."""
    recipes = sorted(path.relative_to(PACKAGED).as_posix() for path in PACKAGED.rglob("*.yaml"))
    whole = [name for name in recipes if not name.startswith(("published/", "ablations/"))]
    preambles = {name: text.format(names=" ".join(whole)) for name, text in _PREAMBLE.items()}
    return str(shtab.complete(whole_parser(), shell, preamble=preambles))  # type: ignore[arg-type]


def whole_parser() -> argparse.ArgumentParser:
    """Put the options of all commands into one parser, which completes and parses nothing."""
    whole = argparse.ArgumentParser(prog="vmm")
    whole.add_argument("--version", action="store_true", help="print the version")
    commands = whole.add_subparsers()
    from vmm.setting_help import names  # loads torch, which the help does without

    settings = names()
    for name, about in cli.TRAINER_COMMANDS.items():
        _take_recipes(commands.add_parser(name, help=about.partition(":")[0]), settings)
    for name, command in cli.COMMANDS.items():
        parser = _add(commands, name, command)
        if name == "summary":  # reads its words as `vmm fit` does
            _take_recipes(parser, settings)
    for group, members in cli.GROUPS.items():
        inner = commands.add_parser(group, help=cli.ABOUT_GROUPS[group]).add_subparsers()
        for name, command in members.items():
            _add(inner, name, command)
    return whole


def _take_recipes(parser: argparse.ArgumentParser, settings: Sequence[str]) -> None:
    add: Any = parser.add_argument
    add("recipes", nargs="*", help="recipe and overlays").complete = _RECIPES
    add("-c", "--config", help="the same").complete = _RECIPES
    add("--print_config", action="store_true", help="show what would be run")
    for setting in settings:
        add(f"--{setting}")


def _add(commands: Any, name: str, command: cli.Command) -> argparse.ArgumentParser:
    module, _, function = command.main.partition(":")
    if module == __name__:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=command.about)
        parser.add_argument("shell", choices=_SHELLS)
        return parser
    own = _parser_of(getattr(import_module(module), function))
    parser = commands.add_parser(name, parents=[own], add_help=False, help=command.about)
    for action in parser._actions:
        if action.type is Path or (not action.option_strings and not action.choices):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser


class _Met(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def _parser_of(main: Callable[[list[str]], int]) -> argparse.ArgumentParser:
    """Let a command come as far as its options, and take these away from it."""

    def meet(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Met(parser)

    parse = CommandParser.parse_args
    CommandParser.parse_args = meet  # type: ignore[assignment, method-assign]
    try:
        main([])
    except _Met as met:
        return met.parser
    finally:
        CommandParser.parse_args = parse  # type: ignore[method-assign]
    raise AssertionError(f"{main} reads no options")
