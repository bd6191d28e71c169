"""The way to the newest schema: one migration chain serves the file and the server."""

from typing import Any, Final

from sqlalchemy.engine import URL, Connection

from joulebox.errors import JouleboxError

HEAD: Final = "0021"
"""The newest schema. Alembic, a quarter of a second to import, is only asked when a database has another one."""


def shown(url: URL) -> str:
    """The URL without its password."""
    return url.render_as_string(hide_password=True)


def migrate(connection: Connection, where: str) -> None:
    """Bring the schema to `HEAD`. Raises `JouleboxError("database")` where a newer Joulebox wrote it."""
    from sqlalchemy import inspect, text

    known = inspect(connection).has_table("alembic_version")
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if known else None
    if version != HEAD:
        _upgrade(connection, version, where)


def refuse_newer(version: str, where: str) -> None:
    """Raises `JouleboxError("database")` where this Joulebox does not know that schema."""
    if version == HEAD:
        return
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        ScriptDirectory.from_config(_chain()).get_revision(version)
    except CommandError as error:
        newer = f"The database {where} was written by a newer Joulebox (schema {version})"
        raise JouleboxError("database", f"{newer}: update Joulebox, or use another database.") from error


def _upgrade(connection: Connection, version: str | None, where: str) -> None:
    from alembic import command

    if version is not None:
        refuse_newer(version, where)
    config = _chain()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _chain() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "joulebox.server.store:migrations")
    config.set_main_option("path_separator", "os")
    return config
