"""The table of commands, and what holds for all of them: options before the command's name, errors, exit statuses.

An error that a user can mend is one line on stderr and exit status 1; wrong usage is status 2; Ctrl-C is 130.

To add a command: write a function whose parameters are its options and whose docstring is its help, and add one line
to `COMMANDS`.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from modeguard.offline.cli.extras import missing_extra
from modeguard.offline.console import Console

__all__ = ["COMMANDS", "Command", "app", "load_command", "main"]


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command is, and its help without importing it.

    Attributes:
        place: "module:function", the module in this folder.
        summary: the function's docstring.
    """

    place: str
    summary: str


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "train": Command(
            "recipe_commands:train",
            "Train the recipe's classifier, or go on where training stopped; prints the file of its weights.",
        ),
        "templates": Command("recipe_commands:templates", "Choose the class templates."),
        "attack": Command("recipe_commands:attack", "Attack the source images."),
        "fit": Command("recipe_commands:fit", "Choose, fit and calibrate the detector."),
        "evaluate": Command("recipe_commands:evaluate_command", "Measure the detector on the test fold."),
        "report": Command("recipe_commands:report", "Write the HTML report."),
        "build": Command(
            "recipe_commands:build_command",
            "Run every step: train, templates, attack, fit, evaluate, bundle, report.",
        ),
        "detect": Command(
            "detect:detect_command",
            "Judge image files. Exit status 1 if one of them cannot be read as an image.",
        ),
        "serve": Command(
            "serve:serve",
            "Serve a bundle over HTTP. The server's own settings are MODEGUARD_* variables, see docs/operations.md.",
        ),
        "demo": Command("demo:demo", "The main job on scikit-learn's digits: build, serve, ask over HTTP, report."),
    }
)
"""Name to command, in the order of the help."""


def load_command(name: str) -> Any:
    """Import a command of the table; click's command, with its options."""
    module, function = COMMANDS[name].place.split(":")
    single = typer.Typer(add_completion=False)
    single.command(name)(getattr(import_module(f"modeguard.offline.cli.{module}"), function))
    return typer.main.get_command(single)


class CommandTable(TyperGroup):
    """The commands by name and summary; one is imported once it is to be run or to tell its options."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, command in COMMANDS.items():
            self.add_command(TyperCommand(name, help=command.summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Name, command and remaining words of a command line; an unknown name is wrong usage."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else None, rest


app = typer.Typer(
    cls=CommandTable,
    help="Tell adversarial images from natural ones by input-space mode connectivity.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def _modeguard(
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores if not given.", min=1)] = None,
) -> None:
    if threads is not None:
        import torch  # noqa: PLC0415 - takes a second or more, which --help is not to wait for

        torch.set_num_threads(threads)
        os.environ["MODEGUARD_TORCH_THREADS"] = str(threads)  # for `serve`


def main() -> None:
    """Run the command line; ends with its exit status."""
    try:
        app()
    except Exception as error:
        if (told := _told_of(error)) is None:
            raise
        Console().error(told)
        sys.exit(1)


def _told_of(error: Exception) -> str | None:
    """What to tell of an error that a user can mend; None of any other."""
    if isinstance(error, ModuleNotFoundError):
        return missing_extra(error)
    from modeguard.detector import ModeguardError  # noqa: PLC0415 - comes with torch

    return str(error) if isinstance(error, ModeguardError) else None
