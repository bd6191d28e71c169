"""`joulebox feedback`: what people told the operator on the page About."""

from typing import Annotated

import typer

from joulebox.terminal import say, say_json
from joulebox.token_commands import JsonOption, ServerOption, client_of


def feedback(
    forget: Annotated[int | None, typer.Option("--forget", metavar="NUMBER", help="Forget this message.")] = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what people told the operator, newest first."""
    from joulebox.console import message_lines

    with client_of(server, admin=True) as client:
        if forget is not None:
            client.forget_feedback(forget)
            say(f"Message {forget} is forgotten.")
            return
        found = client.feedback()
    if as_json:
        say_json(found)
    else:
        say("\n\n".join(map(message_lines, found)) or "Nobody has written yet.")
