"""`joulebox compare`: one prompt, several models, the same node; how many times the energy first of all."""

from typing import TYPE_CHECKING, Annotated

import typer

from joulebox.terminal import harmless, say, say_json
from joulebox.token_commands import JsonOption, ServerOption

if TYPE_CHECKING:
    from joulebox.client import ServerEvent


def compare(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    models: Annotated[str, typer.Option("--models", help="Two to four models: a,b.", metavar="NAMES")],
    system: Annotated[str | None, typer.Option("--system", help="System prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Longest answer in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="0 repeats the same answer.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the choice of tokens.")] = None,
    order_seed: Annotated[
        int | None, typer.Option("--order-seed", help="Decides who goes first; by lot without it.")
    ] = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask several models the same on one node, in turn: how many times the energy, then what each took and said."""
    from joulebox.asking import Client
    from joulebox.console import Progress, event_words, question_of, show_comparison

    progress = Progress()

    def watch(model: str, event: "ServerEvent") -> None:
        if (sentence := event_words(event)) is not None:
            progress.say(f"{harmless(model)}: {sentence}")

    names = list(dict.fromkeys(name.strip() for name in models.split(",") if name.strip()))
    with Client(server) as client:
        try:
            found = client.compare(
                question_of(prompt),
                names,
                system=system,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
                order_seed=order_seed,
                watch=watch,
            )
        except KeyboardInterrupt:
            progress.clear()
            say("the prompts were cancelled.", error=True)
            raise
        finally:
            progress.clear()
    if as_json:
        say_json(found.to_dict())
    else:
        show_comparison(found.to_dict())
