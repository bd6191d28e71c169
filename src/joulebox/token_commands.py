"""`joulebox tokens`, and how every command reaches its server: with the token that it is told of."""

from typing import TYPE_CHECKING, Annotated

import typer

from joulebox.command_help import Whole
from joulebox.terminal import say, say_json

if TYPE_CHECKING:
    from joulebox.client import Client

tokens_app = typer.Typer(help="Who may use the server.", no_args_is_help=True, rich_markup_mode=None, cls=Whole)

ServerOption = Annotated[str | None, typer.Option("--server", help="Address of the server.", metavar="URL")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def client_of(server: str | None, *, admin: bool = False) -> "Client":
    """The server that a command speaks to, with the token that is set; for an administrator's acts else the local."""
    from joulebox.client import Client
    from joulebox.settings import load_settings

    settings = load_settings(server=server)
    return Client(settings.server, settings.token_for(admin=admin), ca_file=settings.ca_file)


@tokens_app.command("create")
def tokens_create(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.")],
    scope: Annotated[list[str], typer.Option("--scope", help="read, ask, node or admin; repeatable.")],
    expires_days: Annotated[float | None, typer.Option("--expires-days", help="It ends after so many days.")] = None,
    outstanding: Annotated[
        int | None, typer.Option("--outstanding", min=0, help="Prompts that wait or run, for it; 0: any number.")
    ] = None,
    per_day: Annotated[
        int | None, typer.Option("--per-day", min=0, help="Prompts within 24 hours, for it; 0: any number.")
    ] = None,
    joules_per_day: Annotated[
        float | None, typer.Option("--joules-per-day", min=0, help="Joules within 24 hours, for it; 0: any number.")
    ] = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, this once; the server keeps only a hash of it."""
    fields = {"name": name, "scopes": scope, "expires_days": expires_days}
    fields |= {"outstanding_max": outstanding, "prompts_per_day": per_day, "joules_per_day": joules_per_day}
    with client_of(server, admin=True) as client:
        made = client.create_token({key: value for key, value in fields.items() if value is not None})
    if as_json:
        say_json(made)
        return
    say(f"token {made['id']} for {made['name']} ({', '.join(made['scopes'])})", error=True)
    say(made["token"])


@tokens_app.command("list")
def tokens_list(server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Print every token there ever was, without its text."""
    from joulebox.console import token_line

    with client_of(server, admin=True) as client:
        found = client.tokens()
    if as_json:
        say_json(found)
    else:
        say(
            "\n".join(map(token_line, found))
            or "There are no tokens. Make one: joulebox tokens create NAME --scope ask"
        )


@tokens_app.command("mine")
def tokens_mine(server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Print what you may have on the server, and what you have used."""
    from joulebox.console import standing_lines

    with client_of(server) as client:
        found = client.standing()
    say_json(found) if as_json else say("\n".join(standing_lines(found)))


@tokens_app.command("revoke")
def tokens_revoke(
    token_id: Annotated[str, typer.Argument(help="A token; see `joulebox tokens list`.", metavar="ID")],
    server: ServerOption = None,
) -> None:
    """Have a token open nothing from now on."""
    with client_of(server, admin=True) as client:
        gone = client.revoke_token(token_id)
    say(f"Token {gone['id']} ({gone['name']}) is revoked.")


@tokens_app.command("audit")
def tokens_audit(server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Print what administrators did, newest first."""
    from joulebox.console import act_line

    with client_of(server, admin=True) as client:
        acts = list(client.acts())
    say_json(acts) if as_json else say("\n".join(map(act_line, acts)))
