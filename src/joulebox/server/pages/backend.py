"""What the pages need of the service."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from joulebox.model import DatedIntensity
from joulebox.server.access import Act
from joulebox.server.campaigns import Campaign, CampaignCell
from joulebox.server.comparing import Preference
from joulebox.server.feedback import Message
from joulebox.server.idle import IdleShare
from joulebox.statistics.recommending import Advice


class Overviewed(Protocol):
    """What the pages of the whole installation ask for. Every method may raise `JouleboxError`."""

    async def campaigns(self) -> tuple[Sequence[Campaign], Sequence[CampaignCell]]:
        """What was published, the newest campaign first, with all cells."""

    async def idle(self, node: str) -> Sequence[IdleShare]:
        """What a node drew between prompts within a day, by state and meters."""

    async def waiting(self, node: str, zone: str | None, models: Sequence[str]) -> int:
        """How many prompts wait that this node may take."""

    def grid_day(self, zone: str | None) -> tuple[datetime, Sequence[DatedIntensity]]:
        """Now, and what is known of today's grid (UTC) in a zone."""

    async def leave(self, form: Mapping[str, str]) -> None:
        """Keep a message for the operator."""


class Operated(Protocol):
    """What those who run the server do. Every method may raise `JouleboxError`."""

    def now(self) -> datetime:
        """Calendar time."""

    async def make_token(self, form: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a token, in the fields of `POST /api/v1/tokens`; what that answers."""

    async def tokens(self) -> Sequence[Mapping[str, Any]]:
        """Every token there ever was, without its text, oldest first."""

    async def revoke_token(self, token_id: str) -> object:
        """Revoke a token."""

    async def acts(self, limit: int) -> tuple[Sequence[Act], object]:
        """The newest of what administrators did, and what comes after."""

    async def messages(self) -> Sequence[Message]:
        """What people told the operator, newest first."""

    async def forget_message(self, number: int) -> None:
        """Forget one."""

    async def forget_node(self, name: str) -> object:
        """Show a node that is away no more, until it comes back."""


class Backend(Protocol):
    """What the pages ask for. Every method may raise `JouleboxError`, which is shown as its sentence."""

    @property
    def overview(self) -> Overviewed:
        """What is not of one prompt or receipt."""

    @property
    def operating(self) -> Operated:
        """What those who run the server do."""

    async def models(self) -> Sequence[Mapping[str, Any]]:
        """The models that can be asked, as `GET /api/v1/models` lists them."""

    async def nodes(self) -> Sequence[Mapping[str, Any]]:
        """The nodes that have joined, as `GET /api/v1/nodes` lists them."""

    async def drain(self, name: str, why: str | None) -> object:
        """Have a node take no more prompts, because `why`, or again (`None`)."""

    async def status(self, prompt_id: str) -> Mapping[str, Any]:
        """What `GET /api/v1/prompts/{id}` answers."""

    async def receipt(self, receipt_id: str, revision: int | None = None) -> Mapping[str, Any]:
        """What `GET /api/v1/receipts/{id}` answers: the newest revision, or the one named."""

    async def trace(self, receipt_id: str) -> bytes:
        """The evidence behind a receipt; empty where there is none."""

    async def erase(self, receipt_id: str) -> object:
        """Remove the texts behind a receipt."""

    async def whatif(self, receipt_id: str) -> Mapping[str, Any] | None:
        """The `whatif` of `GET /api/v1/receipts/{id}/whatif`."""

    async def report(
        self, start: str | None, until: str | None, zone: str | None, model: str | None
    ) -> Mapping[str, Any]:
        """What `GET /api/v1/report/sci` answers."""

    async def advice(self, category: str, min_accuracy: float, max_energy_j: float | None) -> Advice:
        """Which of the models that can be asked now to take, by what published campaigns found."""

    async def before(self, prompt_id: str) -> Sequence[Mapping[str, Any]]:
        """The turns of the conversation before a prompt, as far as they are for this reader: `id`, `prompt`, `answer`,
        `receipt`."""

    async def compare(self, form: Mapping[str, Any]) -> str:
        """Have several `models` answer one `prompt`; the comparison's id."""

    async def comparison(self, comparison_id: str) -> Mapping[str, Any]:
        """Where a comparison stands, without what its reader must not know yet."""

    async def choose(self, comparison_id: str, choice: str) -> object:
        """Say which answer is better."""

    async def judge(self, comparison_id: str, worth: str) -> object:
        """Say whether the larger energy was worth it."""

    async def preferences(self) -> Sequence[Preference]:
        """What all votes add up to."""

    async def submit(self, form: Mapping[str, Any]) -> str:
        """Take a prompt, in the fields of `POST /api/v1/prompts`; its id."""

    async def cancel(self, prompt_id: str) -> object:
        """Stop a prompt; nothing happens where it is over."""

    async def texts(self, receipt_id: str) -> Mapping[str, Any]:
        """`prompt` and `answer` behind a receipt, `None` where they are not for this reader; `shared`; `own`; what was
        `asked` beside the texts."""

    async def share(self, receipt_id: str, *, shared: bool) -> object:
        """Let everybody with the link read the texts, or nobody else any more."""
