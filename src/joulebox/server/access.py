"""Who may do what: tokens with scopes, those who ask, and one table of every route with what it needs.

Nothing here reads a clock, a network or a database: `gate` finds out who asks, the routes' own checks are `Caller.may`
and `Caller.owns`.
"""

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

from joulebox.errors import JouleboxError
from joulebox.server.jobs import new_id

Scope = Literal["read", "ask", "node", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
Need = Literal["anyone", "link", "read", "ask", "owner", "node", "server", "admin", "tokens"]
"""What a route takes: nothing; its unguessable address; a scope; to be the prompt's owner (the route looks); to be
another server on the same database; to be an administrator; the same by a token, even where everything is open."""
IMPLIED: Final[Mapping[Scope, frozenset[Scope]]] = {
    "read": frozenset({"read"}),
    "ask": frozenset({"read", "ask"}),
    "node": frozenset({"node"}),
    "admin": frozenset({"read", "ask", "admin"}),
}
TABLE: Final[Mapping[tuple[str, str], Need]] = {
    ("GET", "/healthz"): "anyone",
    ("GET", "/readyz"): "anyone",
    ("GET", "/metrics"): "read",
    ("GET", "/static/{name}"): "anyone",
    ("GET", "/language/{tag}"): "anyone",
    ("GET", "/signin"): "anyone",
    ("POST", "/signin"): "anyone",
    ("POST", "/signout"): "anyone",
    ("GET", "/"): "read",
    ("GET", "/report/sci"): "read",
    ("POST", "/ask"): "ask",
    ("GET", "/compare"): "read",
    ("POST", "/compare"): "ask",
    ("GET", "/compare/{comparison_id}"): "link",
    ("POST", "/compare/{comparison_id}/vote"): "owner",
    ("POST", "/compare/{comparison_id}/worth"): "owner",
    ("GET", "/preferences"): "read",
    ("GET", "/table"): "read",
    ("GET", "/table/front.svg"): "read",
    ("GET", "/nodes"): "read",
    ("GET", "/method"): "anyone",
    ("GET", "/api"): "read",
    ("GET", "/about"): "anyone",
    ("POST", "/about/feedback"): "ask",
    ("GET", "/admin"): "admin",
    ("POST", "/admin/nodes/{name}/drain"): "admin",
    ("POST", "/admin/nodes/{name}/resume"): "admin",
    ("POST", "/admin/nodes/{name}/forget"): "admin",
    ("POST", "/admin/messages/{number}/forget"): "admin",
    ("GET", "/admin/keys"): "tokens",
    ("POST", "/admin/keys"): "tokens",
    ("POST", "/admin/keys/{token_id}/revoke"): "tokens",
    ("GET", "/api/v1/preferences"): "read",
    ("GET", "/prompts/{prompt_id}"): "link",
    ("POST", "/prompts/{prompt_id}/stop"): "owner",
    ("GET", "/receipts/{receipt_id}"): "link",
    ("GET", "/receipts/{receipt_id}/badge.svg"): "link",
    ("GET", "/receipts/{receipt_id}/card.png"): "link",
    ("POST", "/receipts/{receipt_id}/delete"): "owner",
    ("POST", "/receipts/{receipt_id}/share"): "owner",
    ("POST", "/receipts/{receipt_id}/unshare"): "owner",
    ("POST", "/api/v1/prompts"): "ask",
    ("GET", "/api/v1/prompts"): "read",
    ("GET", "/api/v1/prompts/{prompt_id}"): "link",
    ("DELETE", "/api/v1/prompts/{prompt_id}"): "owner",
    ("DELETE", "/api/v1/prompts/{prompt_id}/texts"): "owner",
    ("GET", "/api/v1/prompts/{prompt_id}/receipt"): "link",
    ("GET", "/api/v1/prompts/{prompt_id}/events"): "owner",
    ("POST", "/api/v1/comparisons"): "ask",
    ("GET", "/api/v1/receipts"): "read",
    ("GET", "/api/v1/receipts.jsonl"): "read",
    ("GET", "/api/v1/receipts/{receipt_id}"): "link",
    ("GET", "/api/v1/receipts/{receipt_id}/whatif"): "link",
    ("DELETE", "/api/v1/receipts/{receipt_id}"): "owner",
    ("POST", "/api/v1/receipts/{receipt_id}/share"): "owner",
    ("DELETE", "/api/v1/receipts/{receipt_id}/share"): "owner",
    ("GET", "/api/v1/receipts/{receipt_id}/trace.json"): "link",
    ("GET", "/api/v1/receipts/{receipt_id}/trace.csv"): "link",
    ("GET", "/api/v1/receipts/{receipt_id}/trace.parquet"): "link",
    ("GET", "/api/v1/receipts/{receipt_id}/evidence"): "link",
    ("POST", "/api/v1/receipts/{receipt_id}/recompute"): "admin",
    ("GET", "/api/v1/models"): "read",
    ("GET", "/api/v1/nodes"): "read",
    ("GET", "/api/v1/nodes/{name}/idle"): "read",
    ("GET", "/api/v1/report/sci"): "read",
    ("GET", "/api/v1/table"): "read",
    ("GET", "/api/v1/recommend"): "read",
    ("GET", "/api/v1/feedback"): "admin",
    ("DELETE", "/api/v1/feedback/{number}"): "admin",
    ("POST", "/api/v1/campaigns"): "admin",
    ("DELETE", "/api/v1/campaigns/{campaign_id}"): "admin",
    ("DELETE", "/api/v1/nodes/{name}"): "admin",
    ("POST", "/api/v1/nodes/{name}/baseline"): "admin",
    ("POST", "/api/v1/nodes/{name}/drain"): "admin",
    ("DELETE", "/api/v1/nodes/{name}/drain"): "admin",
    ("GET", "/api/v1/me"): "read",
    ("POST", "/api/v1/tokens"): "tokens",
    ("GET", "/api/v1/tokens"): "tokens",
    ("DELETE", "/api/v1/tokens/{token_id}"): "tokens",
    ("GET", "/api/v1/audit"): "tokens",
    ("POST", "/v1/chat/completions"): "ask",
    ("POST", "/v1/completions"): "ask",
    ("POST", "/v1/responses"): "ask",
    ("GET", "/v1/models"): "read",
    ("GET", "/v1/models/{model_id}"): "read",
    ("POST", "/api/chat"): "ask",
    ("POST", "/api/generate"): "ask",
    ("GET", "/api/tags"): "read",
    ("GET", "/api/ps"): "read",
    ("POST", "/api/show"): "read",
    ("GET", "/api/version"): "anyone",
    ("HEAD", "/"): "anyone",
    ("POST", "/node/v1/lease"): "node",
    ("GET", "/node/v1/attempts/{token}/hold"): "node",
    ("POST", "/node/v1/attempts/{token}/events"): "node",
    ("POST", "/node/v1/attempts/{token}/finish"): "node",
    ("GET", "/node/v1/attempts/{token}/log"): "server",
}
"""Every route. One that is not here is answered to nobody."""

TOKEN: Final = re.compile(r"jb_([0-9A-Za-z]{16})_([0-9A-Za-z_-]{43})")
OWNER: Final = re.compile(r"[0-9A-Za-z_-]{43}")
SESSION: Final = re.compile(r"([0-9A-Za-z]{1,16})\.(\d{1,12})\.([0-9A-Za-z_-]{43})", re.ASCII)
"""Whose, until when (Unix seconds), and the seal on both."""
SECRET_BYTES: Final = 32
IPV6_PREFIX: Final = 64
"""One household or machine has a whole network of this size to choose addresses from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as it is kept: `hash` is the SHA-256 of its text, which nobody keeps; `used`: when it last was, to the
    hour. `outstanding_max`, `prompts_per_day` and `joules_per_day` replace the settings of that name, 0: no limit."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    hash: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    used: datetime | None = None
    outstanding_max: int | None = None
    prompts_per_day: int | None = None
    joules_per_day: float | None = None

    def valid(self, now: datetime) -> bool:
        """Whether it still opens anything."""
        return self.revoked is None and (self.expires is None or now < self.expires)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A line of the audit log: who (a token's id and its name then) did what to what."""

    at: datetime
    actor: str
    name: str
    act: str
    subject: str
    detail: str = ""
    number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an asker has in hand: prompts not over, prompts since a moment, and when the first of those was asked."""

    outstanding: int
    asked: int
    first: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks. `asker` is whom fairness and quotas count; `owner` is whom the texts belong to; `unlimited`: no rate
    and no quota. `session`: a browser that signed in. `cookie` is the owner's secret that this answer is to leave with
    the browser."""

    name: str
    scopes: frozenset[Scope] = frozenset()
    token_id: str | None = None
    server: bool = False
    unlimited: bool = False
    session: bool = False
    asker: str | None = None
    owner: str | None = None
    cookie: str | None = None
    outstanding_max: int = 0
    prompts_per_day: int = 0
    joules_per_day: float = 0.0

    def may(self, need: Need) -> bool:
        """Whether the table lets this caller in. Owners are let in here and looked at by the route."""
        match need:
            case "anyone" | "link" | "owner":
                return True
            case "server":
                return self.server or ("node" in self.scopes and self.token_id is None and self.unlimited)
            case "tokens":
                return "admin" in self.scopes and self.token_id is not None
            case scope:
                return scope in self.scopes

    @property
    def admin(self) -> bool:
        """Whether everything of everybody may be seen and done."""
        return "admin" in self.scopes

    def owns(self, owner: str | None) -> bool:
        """Whether what belongs to `owner` is this caller's to see and to remove."""
        return self.admin or (owner is not None and owner == self.owner)


EVERYBODY: Final = Caller(name="anyone here", scopes=frozenset(SCOPES), unlimited=True)
"""Whoever reaches a server that listens on this machine only and was not told otherwise."""


def scopes_of(named: Sequence[Scope]) -> frozenset[Scope]:
    """The scopes with those they imply."""
    return frozenset().union(*(IMPLIED[scope] for scope in named))


def new_secret() -> str:
    """256 random bits as 43 characters."""
    return secrets.token_urlsafe(SECRET_BYTES)


def new_token() -> tuple[str, str, str]:
    """A new token: its id, its text (shown once), and the hash that is kept."""
    token_id, secret = new_id(), new_secret()
    text = f"jb_{token_id}_{secret}"
    return token_id, text, digest(text)


def digest(text: str) -> str:
    """SHA-256: a random secret of 256 bits needs no slow hash."""
    return hashlib.sha256(text.encode()).hexdigest()


def new_session(secret: str, token: Token, until_s: int) -> str:
    """What a browser shows that a token has signed in: not the token itself, and of no use once that is revoked."""
    return f"{token.id}.{until_s}.{seal(secret, token, until_s)}"


def seal(secret: str, token: Token, until_s: int) -> str:
    """The seal on a session, which only servers that share `secret` can make."""
    told = f"session {token.id} {until_s} {token.hash}"
    return _unpadded(hmac.new(secret.encode(), told.encode(), hashlib.sha256).digest())


def same(one: str, other: str) -> bool:
    """Compared in a time that tells nothing."""
    return hmac.compare_digest(one.encode(), other.encode())


def owner_of(secret: str) -> str:
    """How the owner of this secret is kept."""
    return "c:" + _unpadded(hashlib.sha256(secret.encode()).digest())


def _unpadded(digested: bytes) -> str:
    return base64.urlsafe_b64encode(digested).decode().rstrip("=")


def address_hash(secret: str, address: str) -> str:
    """An address as fairness and quotas know it: a keyed hash, of an IPv6 address only its network."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        known = address
    else:
        if isinstance(ip, ipaddress.IPv6Address):
            ip = ip.ipv4_mapped or ipaddress.ip_network((ip, IPV6_PREFIX), strict=False).network_address
        known = str(ip)
    return "a:" + hmac.new(secret.encode(), known.encode(), hashlib.sha256).hexdigest()[:40]


def refusal(caller: Caller, need: Need) -> JouleboxError:
    """Why the table does not let this caller in, and what to do."""
    scope = {"tokens": "admin", "server": "node"}.get(need, need)
    how = f"`joulebox tokens create NAME --scope {scope}`"
    if caller.token_id is not None:
        return JouleboxError("forbidden", f"This token does not have the scope {scope}: make one with {how}.")
    return JouleboxError(
        "unauthorized",
        f"This needs a token with the scope {scope}, sent as Authorization: Bearer. Make one with {how}.",
    )


def not_yours() -> JouleboxError:
    """The texts of a prompt are its owner's."""
    return JouleboxError(
        "forbidden", "This prompt belongs to somebody else: only who asked it, or an administrator, may do this."
    )


def shown(token: Token) -> dict[str, Any]:
    """A token as its list shows it: never its text, never its hash."""
    return {
        "id": token.id,
        "name": token.name,
        "scopes": list(token.scopes),
        "created": token.created.isoformat(timespec="seconds"),
        "expires": token.expires.isoformat(timespec="seconds") if token.expires else None,
        "revoked": token.revoked.isoformat(timespec="seconds") if token.revoked else None,
        "used": token.used.isoformat(timespec="seconds") if token.used else None,
        "outstanding_max": token.outstanding_max,
        "prompts_per_day": token.prompts_per_day,
        "joules_per_day": token.joules_per_day,
    }
