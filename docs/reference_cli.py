"""The command line as a page: every command with its arguments and options, from the commands themselves."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from typer.main import get_command

from joulebox.cli import app

PAGE: Final = """# Command line

<!-- Made from the code by `make docs`; edits here are lost. -->

Every command has `--help`. Where a command prints data, `--json` prints it for programs. Exit codes: 0 it worked, 1 it
failed, 2 the command was not understood; a failure is one sentence on stderr ([errors](errors.md)). Settings come from
[flags, environment or a file](settings.md). `joulebox --install-completion` sets up completion in your shell.
"""
_COMPLETION: Final = {"install_completion", "show_completion"}
_TAKES: Final = {int: "whole number", float: "number", str: "text", Path: "path"}


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command with the words that call it."""

    words: str
    command: Any

    @property
    def parts(self) -> list[Any]:
        """Its arguments and options, hidden ones and help apart."""
        return [one for one in self.command.params if not one.hidden and one.name not in _COMPLETION]

    @property
    def help(self) -> str:
        """What it does."""
        return " ".join(inspect.cleandoc(self.command.help or "").split())


def commands() -> list[Command]:
    """All commands, groups before what is in them."""
    return list(_walk("joulebox", get_command(app)))


def _walk(words: str, command: Any) -> Iterator[Command]:
    yield Command(words=words, command=command)
    for name, each in sorted(getattr(command, "commands", {}).items()):
        if not each.hidden:
            yield from _walk(f"{words} {name}", each)


def command_line_page() -> str:
    """Every command with all that it takes."""
    return PAGE + "".join(map(_section, commands()))


def _section(one: Command) -> str:
    within = getattr(one.command, "commands", {})
    usage = [one.words, *(["[OPTIONS]"] if any(map(_is_option, one.parts)) else [])]
    usage += [_argument(part) for part in one.parts if not _is_option(part)]
    usage += ["COMMAND"] if within else []
    text = f"\n## {one.words}\n\n```text\n{' '.join(usage)}\n```\n\n{one.help}\n"
    if one.parts:
        rows = [f"| {_called(part)} | {_takes(part)} | {_default(part)} | {_cell(part.help)} |" for part in one.parts]
        text += "\n".join(["", "| Argument or option | Takes | Default | Meaning |", "|---|---|---|---|", *rows, ""])
    return text


def _is_option(part: Any) -> bool:
    return bool(part.param_type_name == "option")


def _argument(part: Any) -> str:
    name = part.metavar or part.name.upper()
    return name if part.required else f"[{name}]"


def _called(part: Any) -> str:
    if not _is_option(part):
        return f"`{part.metavar or part.name.upper()}`"
    return ", ".join(f"`{name}`" for name in [*part.opts, *part.secondary_opts])


def _takes(part: Any) -> str:
    if _is_option(part) and part.is_flag:
        return ""
    kind = part.type_descriptor.annotation
    kind = next((one for one in get_args(kind) if one is not type(None)), kind)
    limits = [
        f"{word} {value:g}"
        for word, value in (("at least", part.min), ("at most", part.max))
        if value is not None and not (word == "at most" and value >= 2**31 - 1)
    ]
    named = [f"`{part.metavar}`"] if part.metavar and _is_option(part) else [_TAKES.get(kind, "text")]
    return ", ".join([*named, *limits, *(["repeatable"] if getattr(part, "multiple", False) else [])])


def _default(part: Any) -> str:
    if part.required:
        return "required"
    value = part.default
    nothing = value is None or value is False or value in ((), [], "")
    return "" if nothing or callable(value) else f"`{value}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def gaps() -> list[str]:
    """What has no help, each with what to do."""
    wrong = []
    for one in commands():
        if not one.help:
            wrong.append(f"`{one.words}` has no help: give its function a docstring, or its Typer a help=.")
        wrong += [
            f"`{one.words}` does not say what {_called(part)} is: give it help= in its typer.Option or typer.Argument."
            for part in one.parts
            if not part.help
        ]
    return wrong
