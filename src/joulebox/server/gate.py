"""The gate before every route: who asks, whether the table lets them in, and not too often.

Every route passes here (it is a dependency of the whole application); one that the table does not name is refused.
Rates are counted in this server's memory: several servers on one database count each for itself. Quotas are counted in
the database, for all of them together.
"""

import ipaddress
import logging
import os
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi import FastAPI, Request, Response

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.host import own_folder
from joulebox.server import tracing
from joulebox.server.access import (
    EVERYBODY,
    OWNER,
    SCOPES,
    SESSION,
    TABLE,
    TOKEN,
    Caller,
    Token,
    address_hash,
    digest,
    new_secret,
    new_session,
    new_token,
    owner_of,
    refusal,
    same,
    scopes_of,
    seal,
)
from joulebox.server.origin import refuse_other_sites
from joulebox.server.replicas import PASSED
from joulebox.settings import LOCAL_TOKEN, OWNER_COOKIE, Settings, is_loopback
from joulebox.units import S_PER_HOUR, nanoseconds

if TYPE_CHECKING:
    from limits import RateLimitItem

_log = logging.getLogger(__name__)
OWNER_COOKIE_S: Final = int(400 * 24 * S_PER_HOUR)
"""As long as browsers keep any cookie."""
SESSION_COOKIE: Final = "joulebox_session"
SESSION_S: Final = int(12 * S_PER_HOUR)
"""A browser stays signed in so long."""
SIGN_INS_PER_MINUTE: Final = 10
USED_EVERY: Final = timedelta(hours=1)
"""That a token was used is written down so often at most."""
REMEMBERED_S: Final = 10.0
"""A token revoked through another server opens doors here for so long at most."""
REMEMBERED_MAX: Final = 10_000
FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
LOCAL: Final = "local"
"""The name of the token that commands on this machine show."""
_ALL: Final = frozenset(SCOPES)


class Books(Protocol):
    """What the gate needs of the store."""

    async def secret(self, name: str, new: str) -> str:
        """The secret of that name that all servers on this database share; `new` where there is none yet."""

    async def token(self, token_id: str) -> Token | None:
        """One token."""

    async def used(self, token_id: str, now: datetime) -> None:
        """Note that a token was used."""


class Gate:
    """Who is let in. One per server process."""

    def __init__(self, settings: Settings, clock: Clock, books: Books) -> None:
        self._settings = settings
        self._clock = clock
        self._books = books
        self._open = settings.public is None and is_loopback(settings.host)
        self._public = scopes_of(settings.public or ())
        self._proxies = [ipaddress.ip_network(one, strict=False) for one in settings.trusted_proxies]
        self._tokens: dict[str, tuple[Token | None, int]] = {}
        self._rates: _Rates | None = None
        self._local: Token | None = None
        self.secret = ""

    async def open(self) -> None:
        """Take up the secret that servers share, and leave a token for commands on this machine."""
        self.secret = await self._books.secret("access", new_secret())
        kept = digest(_local_token(self._settings.data_dir / LOCAL_TOKEN))
        self._local = Token(id=LOCAL, name=LOCAL, scopes=SCOPES, hash=kept, created=self._now())

    def forget(self, token_id: str) -> None:
        """Look a token up anew."""
        self._tokens.pop(token_id, None)

    async def __call__(self, request: Request, response: Response) -> None:
        """Let a request in, its caller noted, or raise `unauthorized`, `forbidden`, `too_many_requests`."""
        need = TABLE.get((request.method, request.scope["route"].path_format))
        if need is None:
            raise JouleboxError("internal", "This address is not in the table of who may use it.")
        if need == "anyone":
            request.state.caller = Caller(name="anyone")
            return
        refuse_other_sites(request)
        caller = request.state.caller = await self._caller(request)
        if not caller.unlimited:
            await self._slow_down("request", caller.asker or "", self._settings.requests_per_minute)
        if not caller.may(need):
            raise refusal(caller, need)
        if need == "ask" and not caller.unlimited:
            await self._slow_down("ask", caller.asker or "", self._settings.asks_per_minute)
            if caller.owner is None:
                secret = new_secret()
                caller = replace(caller, owner=owner_of(secret), cookie=secret)
        if need == "ask":
            tracing.note(request.headers.get("traceparent"))
        request.state.caller = caller
        remember(request, response)

    # --- who ----------------------------------------------------------------------------------------------------------

    async def _caller(self, request: Request) -> Caller:
        if (passed := request.headers.get(PASSED)) is not None and same(passed, self.secret):
            return Caller(name="server", scopes=frozenset({"node"}), server=True, unlimited=True)
        everybody = self._open and _from_here(request)
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (text := text.strip()):
            token = await self._token(text)
            if token is not None and (not everybody or "admin" in token.scopes):
                return self._bearer(token)
            if not everybody:
                await self._slow_down("request", self._asker(request), self._settings.requests_per_minute)
                raise JouleboxError("unauthorized", "This token is not known, has expired or was revoked: use another.")
        signed = await self.signed(request)
        if signed is not None and (signed.admin or not everybody):
            return signed
        return EVERYBODY if everybody else self._anonymous(request)

    def _bearer(self, token: Token) -> Caller:
        if token is self._local:
            return Caller(name=LOCAL, scopes=_ALL, token_id=LOCAL, unlimited=True)
        scopes, settings = scopes_of(token.scopes), self._settings
        own, day, energy = token.outstanding_max, token.prompts_per_day, token.joules_per_day
        return Caller(
            name=token.name,
            scopes=scopes,
            token_id=token.id,
            unlimited=bool(scopes & {"admin", "node"}),
            asker=f"k:{token.id}",
            owner=f"k:{token.id}",
            outstanding_max=settings.outstanding_max if own is None else own,
            prompts_per_day=settings.prompts_per_day if day is None else day,
            joules_per_day=settings.joules_per_day if energy is None else energy,
        )

    def _anonymous(self, request: Request) -> Caller:
        secret = request.cookies.get(OWNER_COOKIE, "")
        return Caller(
            name="anyone",
            scopes=self._public,
            asker=self._asker(request),
            owner=owner_of(secret) if OWNER.fullmatch(secret) else None,
            outstanding_max=self._settings.outstanding_max,
            prompts_per_day=self._settings.prompts_per_day,
            joules_per_day=self._settings.joules_per_day,
        )

    def _asker(self, request: Request) -> str:
        return address_hash(self.secret, self.address(request))

    def address(self, request: Request) -> str:
        """Where a request comes from: the connection's other end, or what a trusted proxy says of it."""
        address = request.client.host if request.client else ""
        hops = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
        while hops and self._trusted(address):
            address = hops.pop().strip() or address
        return address

    def _trusted(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._proxies)

    async def _token(self, text: str) -> Token | None:
        """The valid token of this text."""
        if (parts := TOKEN.fullmatch(text)) is None:
            return None
        kept = digest(text)
        if self._local is not None and same(self._local.hash, kept):
            return self._local
        token = await self._kept(parts[1])
        if token is None or not same(token.hash, kept) or not token.valid(self._now()):
            return None
        await self._use(token)
        return token

    async def _kept(self, token_id: str) -> Token | None:
        """The token of that id, as it was a few seconds ago."""
        if token_id == LOCAL:
            return self._local
        token, until_ns = self._tokens.get(token_id, (None, 0))
        if self._clock.now_ns() >= until_ns:
            token = await self._books.token(token_id)
            if token is not None:
                self._remember(token, self._clock.now_ns() + nanoseconds(REMEMBERED_S))
        return token

    def _remember(self, token: Token, until_ns: int) -> None:
        if len(self._tokens) >= REMEMBERED_MAX:
            self._tokens.clear()
        self._tokens[token.id] = (token, until_ns)

    async def _use(self, token: Token) -> None:
        now = self._now()
        if token is not self._local and (token.used is None or now - token.used >= USED_EVERY):
            _, until_ns = self._tokens.get(token.id, (None, 0))
            self._remember(replace(token, used=now), until_ns)
            await self._books.used(token.id, now)

    def _now(self) -> datetime:
        return self._clock.utc()

    # --- by a browser -------------------------------------------------------------------------------------------------

    async def sign_in(self, request: Request, text: str) -> tuple[str, Caller]:
        """What a browser is to show from now on for a key, and who that is.

        Raises `JouleboxError`: `too_many_requests`, `bad_request`, `unauthorized`, `forbidden`.
        """
        await self._slow_down("sign-in", self._asker(request), SIGN_INS_PER_MINUTE)
        if not text.strip():
            raise JouleboxError("bad_request", "There is no key: paste the whole of it, from jb_ to its end.")
        token = await self._token(text.strip())
        if token is None:
            raise JouleboxError("unauthorized", "This key is not known, has expired or was revoked: use another.")
        caller = self._bearer(token)
        if "read" not in caller.scopes:
            raise JouleboxError("forbidden", "This key is for nodes and opens no page: use one for people.")
        return new_session(self.secret, token, int(self._now().timestamp()) + SESSION_S), caller

    async def signed(self, request: Request) -> Caller | None:
        """Who has signed in with this browser; `None` where nobody has, or no longer."""
        found = SESSION.fullmatch(request.cookies.get(SESSION_COOKIE, ""))
        if found is None or int(found[2]) <= self._now().timestamp():
            return None
        token = await self._kept(found[1])
        if token is None or not same(seal(self.secret, token, int(found[2])), found[3]):
            return None
        if not token.valid(self._now()):
            return None
        await self._use(token)
        return replace(self._bearer(token), session=True)

    # --- not too often ------------------------------------------------------------------------------------------------

    async def _slow_down(self, what: str, who: str, per_minute: int) -> None:
        if per_minute:
            self._rates = self._rates or _Rates()
            if (wait_s := await self._rates.hit(what, who, per_minute, self._now())) is not None:
                sentence = f"More than {per_minute} {what}s a minute: try again in {wait_s} s."
                raise JouleboxError("too_many_requests", sentence, retry_after_s=wait_s)


class _Rates:
    """Requests a minute, by a library; it is loaded when the first one is counted."""

    def __init__(self) -> None:
        from limits.aio.storage import MemoryStorage
        from limits.aio.strategies import SlidingWindowCounterRateLimiter

        self._limiter: SlidingWindowCounterRateLimiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._items: dict[int, RateLimitItem] = {}

    async def hit(self, what: str, who: str, per_minute: int, now: datetime) -> int | None:
        """Count one; seconds to wait where it is one too many."""
        from limits import RateLimitItemPerMinute

        item = self._items.setdefault(per_minute, RateLimitItemPerMinute(per_minute))
        if await self._limiter.hit(item, what, who):
            return None
        window = await self._limiter.get_window_stats(item, what, who)
        return min(max(ceil(window.reset_time - now.timestamp()), 1), 60)


def remember(request: Request, response: Response) -> None:
    """Leave the owner's secret with the browser that asked."""
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is not None and caller.cookie is not None:
        owner, secure = caller.cookie, _https(request)
        response.set_cookie(OWNER_COOKIE, owner, max_age=OWNER_COOKIE_S, httponly=True, samesite="lax", secure=secure)


def keep_session(request: Request, response: Response, session: str | None) -> None:
    """Leave a session with the browser, or (`None`) have it forget the one it has."""
    lasts_s = 0 if session is None else SESSION_S
    response.set_cookie(
        SESSION_COOKIE, session or "", max_age=lasts_s, httponly=True, samesite="strict", secure=_https(request)
    )


def _https(request: Request) -> bool:
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"


def _from_here(request: Request) -> bool:
    """Whether nobody stands between: a proxy on this machine brings requests of the whole world, and a name that leads
    here may be a trick of a page from elsewhere."""
    host = request.url.hostname or ""
    return is_loopback(host) and not any(name in request.headers for name in FORWARDED)


def _local_token(path: Path) -> str:
    """The token for commands on this machine, in a file that only its owner reads; a new one where there is none."""
    try:
        text = path.read_text(encoding="ascii").strip()
        if TOKEN.fullmatch(text) and not path.stat().st_mode & 0o077:
            return text
    except (OSError, UnicodeDecodeError):
        pass
    _, text, _ = new_token()
    try:
        own_folder(path.parent)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(text + "\n")
    except OSError as error:
        _log.warning("commands on this machine have no token: %s cannot be written: %s", path, error.strerror)
    return text


def document(app: FastAPI) -> None:
    """Have the OpenAPI document say what each route takes, from the table."""
    plain = app.openapi

    def documented() -> dict[str, Any]:
        made = app.openapi_schema is not None
        schema = plain()
        if not made:
            _secure(schema)
        return schema

    app.openapi = documented  # type: ignore[method-assign]


def _secure(schema: dict[str, Any]) -> None:
    schema.setdefault("components", {})["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "A token that `joulebox tokens create` made."},
        "owner": {"type": "apiKey", "in": "cookie", "name": OWNER_COOKIE, "description": "Set where somebody asks."},
        "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE, "description": "Set by signing in."},
    }
    for (method, path), need in TABLE.items():
        operation = schema["paths"].get(path, {}).get(method.lower())
        if operation is not None:
            operation["x-joulebox-needs"] = need
            operation["security"] = [] if need == "anyone" else [{"token": []}, {"session": []}]
            if need in ("link", "owner", "read", "ask"):
                operation["security"] += [{"owner": []}, {}]
