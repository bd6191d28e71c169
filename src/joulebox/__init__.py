"""Joulebox: pick an open model, put in a prompt, get the answer and its receipt.

The map, one prompt from top to bottom:

1. somebody asks                `joulebox.server.api`            Prompt -> job id
2. it waits                     `joulebox.server.jobs`           Prompt -> Job
3. a node is chosen             `joulebox.server.placement`      wish, nodes, grid -> node and time, with the reason
4. the node takes it            `joulebox.node.agent`            lease -> settle -> measure -> deliver
5. under the meters             `joulebox.node.measurement`      Job -> Trace
6. joules                       `joulebox.accounting.figures`    Trace -> Energy, with uncertainty
7. carbon                       `joulebox.accounting.carbon`     joules, seconds, CarbonFactors -> grams, SCI
8. the whole method             `joulebox.accounting.account`    Trace, CarbonFactors -> Receipt
9. somebody reads               `joulebox.server.pages`          Receipt -> HTML, JSON

From Python `joulebox.Client` asks a server (`joulebox.asking`). Without one `joulebox.measure()` measures a block on
this machine, `joulebox.session()` many of them (`joulebox.local`). What fails is a `joulebox.JouleboxError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from joulebox.asking import Client
    from joulebox.errors import JouleboxError
    from joulebox.local import measure, session

__all__ = ["Client", "JouleboxError", "__version__", "measure", "session"]

__version__ = "0.1.0"
_WHERE: Final = {"Client": "asking", "JouleboxError": "errors", "measure": "local", "session": "local"}


def __getattr__(name: str) -> Any:
    """What is imported only when it is wanted, so that importing the package stays instant."""
    if name in _WHERE:
        return getattr(import_module(f"joulebox.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
