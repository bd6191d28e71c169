"""The command line: what a person types, and how it ends."""

import os
import sys

import pytest

from joulebox.cli import main


def uncounted() -> dict[str, str]:
    """This environment without coverage's variable: a command whose time is judged starts as its users start it."""
    return {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}


def ended(*words: str) -> int | str | None:
    """The exit code of `joulebox WORDS`, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["joulebox", *words])
        with pytest.raises(SystemExit) as left:
            main()
    return left.value.code


def joulebox(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `joulebox WORDS`, in this process."""
    code, said = ended(*words), capsys.readouterr()
    assert isinstance(code, int)
    return code, said.out, said.err
