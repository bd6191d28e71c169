"""The command line's part for nodes: what each does, and taking one out and back."""

from typing import Annotated

import typer

from joulebox.command_help import Whole
from joulebox.terminal import say, say_json
from joulebox.token_commands import JsonOption, ServerOption, client_of

NodeArgument = Annotated[str, typer.Argument(help="Name of a node; see `joulebox node list`.")]
node_app = typer.Typer(rich_markup_mode=None, cls=Whole, invoke_without_command=True)


@node_app.command("list")
def node_list(server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Print what each node does, since when and why."""
    from joulebox.console import node_lines

    with client_of(server) as client:
        nodes = client.nodes()
    say_json(nodes) if as_json else say("\n".join(node_lines(nodes)))


@node_app.command("idle")
def node_idle(name: NodeArgument, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Print what a node does while nobody asks, and what it drew meanwhile in the last 24 hours."""
    from joulebox.console import idle_lines

    with client_of(server) as client:
        found = client.idle(name)
    say_json(found) if as_json else say("\n".join(idle_lines(found)))


@node_app.command("drain")
def node_drain(
    name: NodeArgument,
    why: Annotated[str, typer.Option("--why", help="What people who wait for it are told.")] = "maintenance",
    server: ServerOption = None,
) -> None:
    """Have a node finish what it does and take no more prompts, until `joulebox node resume`."""
    with client_of(server, admin=True) as client:
        found = client.drain(name, why)
    say(f"{name} takes no more prompts{'; it finishes the one it has' if 'finishes' in found['reason'] else ''}.")


@node_app.command("resume")
def node_resume(name: NodeArgument, server: ServerOption = None) -> None:
    """Have a node take prompts again."""
    with client_of(server, admin=True) as client:
        client.resume(name)
    say(f"{name} takes prompts again.")


@node_app.command("forget")
def node_forget(name: NodeArgument, server: ServerOption = None) -> None:
    """Show a node that is away no more, until it comes back; receipts and reports keep what it did."""
    with client_of(server, admin=True) as client:
        client.forget_node(name)
    say(f"{name} is not shown any more.")
