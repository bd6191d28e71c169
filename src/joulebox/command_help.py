"""The help of commands: the sections of `joulebox --help`, and a first sentence that is never cut off."""

from typing import TYPE_CHECKING

from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter  # where typer keeps its own click

SECTIONS = {
    "Use": ("up", "demo", "ask", "compare", "measure", "receipts", "models"),
    "Compare models": ("bench",),
    "The measuring machine": ("doctor", "meters", "node", "rig"),
    "The service": ("serve", "tokens", "report", "control", "feedback", "db", "backup", "restore"),
}
_LONGEST = 400  # characters of a first sentence; it is wrapped, not cut


class Whole(TyperGroup):
    """A group of commands whose help is a whole sentence each."""

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write the commands into the help of their group."""
        self._write("Commands", tuple(self.commands), formatter)

    def _write(self, title: str, names: tuple[str, ...], formatter: "HelpFormatter") -> None:
        with formatter.section(title):
            formatter.write_dl([(name, self.commands[name].get_short_help_str(_LONGEST)) for name in names])


class Sectioned(Whole):
    """All of `joulebox`: by what one wants to do."""

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write the sections into the help; a command that stands in none is a mistake, told by a test."""
        for title, names in SECTIONS.items():
            self._write(title, names, formatter)
