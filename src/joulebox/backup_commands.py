"""`joulebox backup` and `joulebox restore`: wiring only; what is heavy is imported where it is used."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joulebox.errors import JouleboxError
from joulebox.terminal import say, say_json
from joulebox.token_commands import JsonOption

if TYPE_CHECKING:
    from joulebox.server.store.archive import Manifest

DataOption = Annotated[Path | None, typer.Option("--data-dir", help="Where the server's database is kept.")]


def backup(
    file: Annotated[
        Path | None,
        typer.Argument(help="The new file, or a folder for it; without it, this one.", metavar="FILE"),
    ] = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Save everything the server keeps, as it is at this moment, in one file; the server may go on."""
    from joulebox.clock import SystemClock
    from joulebox.console import Progress
    from joulebox.server.store import archive
    from joulebox.settings import load_settings

    now, progress = SystemClock().utc().replace(microsecond=0), Progress()
    place = file or Path()
    if place.is_dir():
        place /= f"joulebox-backup-{now:%Y%m%dT%H%M%SZ}.zip"
    made = archive.back_up(load_settings(data_dir=data_dir).database, place, now, progress.share)
    progress.clear()
    if as_json:
        say_json({"file": str(place)} | archive.described(made))
        return
    say("\n".join([f"The backup is in {place}{_weight(place)}.", *_inside(made)]))


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `joulebox backup` made.", metavar="FILE")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace what the database holds; of a SQLite file the old one is kept.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only unpack it and look everything through; nothing is changed.")
    ] = False,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a backup back, of this version or an earlier one. Stop the servers first."""
    from joulebox.clock import SystemClock
    from joulebox.console import Progress
    from joulebox.server.store import archive
    from joulebox.settings import load_settings

    if check and replace:
        raise JouleboxError("bad_request", "Choose one of --check and --replace.")
    settings, progress, aside = load_settings(data_dir=data_dir), Progress(), None
    if check:
        made = archive.check(file, settings.data_dir, progress.share)
    else:
        now = SystemClock().utc()
        made, aside = archive.restore(file, settings.database, settings.data_dir, now, progress.share, replace=replace)
    progress.clear()
    if as_json:
        say_json({"aside": aside and str(aside)} | archive.described(made))
        return
    say(f"{file} is in order and can be restored." if check else f"{file} is restored. Start the server.")
    if aside is not None:
        say(f"What was there before is kept as {aside}: remove it when you no longer need it.")
    say("\n".join(_inside(made)))


def _weight(place: Path) -> str:
    from joulebox.wording import size

    return f" ({size(place.stat().st_size)}, readable for you alone)"


def _inside(made: "Manifest") -> Iterator[str]:
    from joulebox.wording import size

    by = f"Joulebox {made.joulebox} (schema {made.schema}) from {made.source}"
    yield f"Made {made.created:%Y-%m-%d %H:%M:%S} UTC by {by}."
    counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in made.rows.items() if count)
    yield f"Inside: {counts or 'nothing yet'}."
    yield "Not inside:"
    yield from (f"  {what}" for what in made.left_out)
    for model in made.models:
        named = f"{model.id} {model.quantization}, {size(model.size_bytes)}, {model.digest}"
        yield f"  {model.node} had the model {named}"
