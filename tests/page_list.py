"""Every page, for whoever holds something against all of them: what they weigh, whether everybody can use them, how
they look. A new page adds its line here."""

from dataclasses import dataclass
from typing import Final

ASK_MAX_BYTES: Final = 12_000
PAGE_MAX_BYTES: Final = 8_000
"""Of any other page, without its data."""
REQUESTS_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of the stage: its name, address and what its first visit may weigh (gzip, without its data).
    `axe`: it is looked at in a browser each time; another page like it may stand for it."""

    name: str
    path: str
    max_bytes: int = PAGE_MAX_BYTES
    axe: bool = True


PAGES: Final = (
    Listed("ask", "/", ASK_MAX_BYTES),
    Listed("receipt", "/receipts/r_01JD3M0Q8B"),
    Listed("modelled", "/receipts/r_01JD3K7ZX4", axe=False),
    Listed("unmeasured", "/receipts/r_01JD3N9W2C", axe=False),
    Listed("missing", "/receipts/nowhere"),
    Listed("compare", "/compare"),
    Listed("comparison", "/compare/c1"),
    Listed("waiting", "/compare/c2", axe=False),
    Listed("preferences", "/preferences"),
    Listed("table", "/table"),
    Listed("accuracy", "/table?figure=accuracy&category=math&sort=model&node=atelier&min=60", axe=False),
    Listed("nodes", "/nodes"),
    Listed("method", "/method"),
    Listed("reference", "/api"),
    Listed("report", "/report/sci"),
    Listed("about", "/about"),
    Listed("sign-in", "/signin"),
    Listed("admin", "/admin"),
    Listed("keys", "/admin/keys"),
)
