"""Wiring: the application, and the process that serves it on a socket of its own."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

from fastapi import APIRouter, Depends, FastAPI
from granian.constants import HTTPModes, Interfaces
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp

from joulebox.clock import Clock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.server import (
    access_api,
    api,
    campaigns_api,
    comparing_api,
    export,
    feedback_api,
    metrics,
    node_api,
    pages,
)
from joulebox.server.description import describe
from joulebox.server.desk import Desk
from joulebox.server.foreign import ollama, openai, responses
from joulebox.server.gate import Gate, document
from joulebox.server.grid.feeds import feeds_of
from joulebox.server.grid.live import Grid
from joulebox.server.keeper import Keeper
from joulebox.server.lives import Listener, Lives
from joulebox.server.planner import Planner
from joulebox.server.problems import PROBLEMS, NewRouter, Shell, install
from joulebox.server.replicas import Replicas
from joulebox.server.retention import Retention
from joulebox.server.service import Service
from joulebox.server.shortcut import Shortcut
from joulebox.server.store import Store
from joulebox.server.waker import Waker
from joulebox.server.wakes import Wakes
from joulebox.settings import Settings, is_loopback

_log = logging.getLogger(__name__)
BACKLOG: Final = 1024
REQUESTS_MAX: Final = 8192
"""Requests held at once: every waiting node is one, and every person who watches a prompt."""
KEEP_ALIVE: Final = ((socket.TCP_KEEPIDLE, 6), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
"""A node whose machine has vanished is noticed after 6 + 3 * 2 s; probes cost the node no wake-up."""
UNHEARD_S: Final = 12
"""The same where something was sent to it, such as the word to cancel: the kernel probes no connection that waits for
an acknowledgement, and sends again for a quarter of an hour."""
STOP_S: Final = 3.0
GARBAGE: Final = 10_000
"""So many new objects make Python look for circles among them."""


def build_app(settings: Settings, clock: Clock | None = None, listener: Listener | None = None) -> FastAPI:
    """The application. Its lifespan opens the database and takes up what an earlier server left. `listener` is told of
    every prompt that ends.

    Raises `JouleboxError("bad_setting")`; entering the lifespan raises `JouleboxError("database")`.
    """
    store = Store(settings.database)
    clock = clock or SystemClock()
    grid = Grid(settings, clock, store, feeds_of(settings))
    keeper = Keeper(grid, store)
    desk = Desk(store, settings, clock, grid, Wakes(store.sleeps, clock))
    waker = Waker(desk, store.sleeps, clock, settings.wake_address)
    replicas = Replicas(desk)
    planner = Planner(desk, store, grid, settings, clock)
    gate = Gate(settings, clock, store.access)
    service = Service(desk, store, grid, replicas, planner, gate.forget)
    retention = Retention(store, clock, settings.retention_days)
    lives = Lives(store, listener)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await store.open()
        try:
            await gate.open()
            replicas.secret = gate.secret
            await grid.open()
            await desk.open(settings.replica_url or app.state.url)
            for task in (keeper, planner, waker, retention):
                task.start()
            yield
        finally:
            for task in (planner, waker, keeper, retention):
                await task.stop()
            await grid.close()
            await desk.close()
            await replicas.close()
            await lives.close()
            await store.close()

    app = FastAPI(
        title="Joulebox",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=PROBLEMS,
        dependencies=[Depends(gate)],
    )
    app.state.desk = desk
    app.state.grid = grid
    app.state.planner = planner
    app.state.waker = waker
    app.state.service = service
    app.state.url = ""
    app.add_middleware(
        GZipMiddleware,
        minimum_size=1000,
        compresslevel=6,
        exclude_content_types=(*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/x-ndjson"),
    )
    app.add_middleware(Shell, large=[node_api.LARGE])
    install(app, pages.refused)
    new = partial(APIRouter, dependencies=[Depends(gate)], responses=PROBLEMS)
    for_nodes = node_api.router(new, desk, replicas)
    for routes in (for_nodes, *_for_people(new, settings, service, gate, grid)):
        app.routes.extend(routes.routes)  # a router that is included has every route made a second time
    document(app)
    describe(app)
    app.state.entrance = Shortcut(app, gate, for_nodes.routes, [node_api.LARGE])
    return app


def _for_people(new: NewRouter, settings: Settings, service: Service, gate: Gate, grid: Grid) -> list[APIRouter]:
    """Every route but the nodes' own."""
    foreign = [one.router(new, settings.receipt_wait_s) for one in (openai, responses, ollama)]
    return [
        api.router(new, service),
        pages.router(new, service.seen_by, gate, _operator(settings), _rules(settings)),
        access_api.router(new),
        comparing_api.router(new),
        feedback_api.router(new),
        campaigns_api.router(new, service),
        metrics.router(new, metrics.Metrics(service.desk, service.store.seeing, grid)),
        export.router(new),
        *foreign,
    ]


def _operator(settings: Settings) -> pages.Operator:
    """Who runs the server, for its page About."""
    return pages.Operator(
        name=settings.operator,
        contact=settings.contact,
        imprint=settings.imprint,
        privacy=settings.privacy,
        retention_days=settings.retention_days,
    )


def _rules(settings: Settings) -> pages.Rules:
    """Who may do how much, for the page of those who run the server."""
    closed = settings.public is None and not is_loopback(settings.host)
    return pages.Rules(
        public=() if closed else settings.public,
        retention_days=settings.retention_days,
        requests_per_minute=settings.requests_per_minute,
        asks_per_minute=settings.asks_per_minute,
        outstanding_max=settings.outstanding_max,
        prompts_per_day=settings.prompts_per_day,
        joules_per_day=settings.joules_per_day,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections keep alive by themselves (accepted sockets inherit the options).

    Raises `JouleboxError("port_in_use")`; port 0 takes a free one.
    """
    family, kind, protocol, _, address = _resolve(host, port)
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option, value in KEEP_ALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNHEARD_S)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        reason = f"Port {port} on {host} cannot be used: {error.strerror}"
        raise JouleboxError("port_in_use", f"{reason}. Choose another with --port, or stop what uses it.") from error
    sock.setblocking(False)
    return sock


def _resolve(host: str, port: int) -> tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise JouleboxError("bad_setting", f"Setting host = {host!r} cannot be used: {error.strerror}.") from error
    return found[0]  # type: ignore[return-value]


def _own_url(sock: socket.socket) -> str:
    """Where other servers reach this one: the address it listens on, or, where that is every address, its name."""
    host, port = sock.getsockname()[:2]
    everywhere = host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    return url_of(socket.gethostname() if everywhere else host, sock) if port else ""


def url_of(host: str, sock: socket.socket) -> str:
    """Where the server is found."""
    return f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"


class _Server(Server):
    """granian on a socket that is already open."""

    def __init__(self, app: ASGIApp, sock: socket.socket) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,  # the lifespan is entered here, so that its failures are seen
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=REQUESTS_MAX,
            log_enabled=False,
        )
        self._own = sock

    def _init_shared_socket(self) -> None:
        self._ssp = None
        # granian closes the descriptor it is given
        self._shd = SocketHolder(os.dup(self._own.fileno()), False, self.backlog)  # type: ignore[assignment,call-arg]


@asynccontextmanager
async def running(app: FastAPI, sock: socket.socket) -> AsyncIterator[None]:
    """Serve `app` on `sock` as long as the block lasts. Streams that are open at its end are ended, not waited for."""
    app.state.url = _own_url(sock)
    async with app.router.lifespan_context(app):
        server = _Server(app.state.entrance, sock)
        serving = asyncio.ensure_future(server.serve())
        try:
            yield
        finally:
            await app.state.desk.close()
            server.stop()  # type: ignore[no-untyped-call]
            with suppress(TimeoutError):
                await asyncio.wait_for(serving, STOP_S)


def serve(settings: Settings, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. `on_ready` is told the URL as soon as requests are taken.

    Raises `JouleboxError`: `port_in_use`, `database`, `bad_setting`.
    """
    app = build_app(settings, listener=_listener())
    with listen(settings.host, settings.port) as sock:
        asyncio.run(_serve(app, sock, lambda: on_ready(url_of(settings.host, sock)) if on_ready else None))


def _listener() -> Listener | None:
    """Who is told of prompts, where the environment names somebody. What keeps it from working is said, and no more."""
    if not any(name.startswith("OTEL_") for name in os.environ):
        return None
    from joulebox.server.otel import from_environment

    try:
        return from_environment()
    except JouleboxError as error:
        _log.warning("nothing is exported: %s", error.detail)
        return None


def _spare_what_stays() -> None:
    """What is loaded by now stays, and need not be looked through again and again for what may go."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 20)


async def _serve(app: FastAPI, sock: socket.socket, on_ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def stopping() -> None:
        stop.set()
        # Everything that matters is in the database by now; a stuck connection must not keep the process alive.
        loop.call_later(STOP_S, os._exit, 0)

    # Not the loop's own handlers: while hundreds of connections end at once, the pipe they come through is full.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopping))
    async with running(app, sock):
        _spare_what_stays()
        on_ready()
        await stop.wait()
