"""The node: lease, settle, measure, deliver; one prompt at a time, for ever."""

import json
import logging
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from math import isfinite
from typing import Any, Final

from pydantic import TypeAdapter

from joulebox.client import Client
from joulebox.clock import Clock
from joulebox.conversation import needs_tools
from joulebox.errors import JouleboxError
from joulebox.evidence import encode_trace
from joulebox.host import running_host
from joulebox.logs import bound
from joulebox.model import Problem, Trace
from joulebox.node.engine import Engine, LocalModel
from joulebox.node.idle import IdleBook
from joulebox.node.measurement import UNCONDITIONAL, Conditions, Machine, Measured, measure
from joulebox.node.recorder import Recorder
from joulebox.node.relay import Relay
from joulebox.node.rest import Rest, sleep_by
from joulebox.node.spool import Spool
from joulebox.protocol import LEASE_WAIT_S, VERSION, Finish, Lease, LeaseRequest, pack_trace, to_json
from joulebox.units import nanoseconds, seconds

LOG: Final = logging.getLogger("joulebox.node")
_LEASE: Final = TypeAdapter(Lease)
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 1.0
NAME_TAKEN_WAIT_S: Final = 8.0
"""So long a name that may be free soon (an earlier self has just died) is waited for."""
RETRIED: Final = frozenset({"engine_died", "energy_interrupted", "internal"})
"""Failures that another attempt may mend."""
TRY_AGAIN: Final = frozenset({"no_server", "database", "internal"})
"""Answers after which a node asks again."""
KEPT: Final = TRY_AGAIN | {"untrusted_server"}
"""Answers to a delivery after which it is tried again."""
BREAKS_MAX: Final = 5
"""A delivery that breaks the server so often is dropped: the node must not stop working because of it."""
HAND_BACK_S: Final = 2.0
"""A node that is stopped waits so long for the server to take its prompt back."""
CANCEL_AGAIN_S: Final = 0.25
NAME: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""What tokens of attempts and ids of prompts are made of."""
NUMBER_MAX: Final = 2**31 - 1


class Agent:
    """A node at work. `models` is asked before every lease, so that models added meanwhile are offered."""

    def __init__(
        self,
        client: Client,
        machine: Machine,
        engine: Engine,
        recorder: Recorder,
        models: Callable[[], list[LocalModel]],
        spool: Spool,
        clock: Clock,
        memory_bytes: int,
        conditions: Conditions = UNCONDITIONAL,
        rest: Rest | None = None,
    ) -> None:
        self._client = client
        self._machine = machine
        self._engine = engine
        self._recorder = recorder
        self._models = models
        self._spool = spool
        self._clock = clock
        self._memory_bytes = memory_bytes
        self._conditions = conditions
        self._rest = rest or Rest()
        self._instance = secrets.token_hex(8)
        self._stopped = threading.Event()
        self._quiet_since_ns = self._idle_since_ns = clock.now_ns()
        self._unloaded_at: datetime | None = None
        self._idle = IdleBook(recorder, clock)
        self._released_ns: int | None = None
        """Up to when the last run's evidence reaches; `None` where it left none."""
        self._host = running_host()
        self._offered: set[str] = set()

    def run(self) -> None:
        """Work until `stop`. Raises `JouleboxError("node_name_taken")` where another node has this name."""
        self._recorder.start()
        self._idle.begin(loaded=self._engine.loaded is not None)
        try:
            self._deliver_all()
            while not self._stopped.is_set():
                lease = self._lease() or self._idles()
                if lease is not None:
                    with bound(job=lease.job_id, attempt=lease.attempt):
                        self._work(lease)
        finally:
            self._engine.unload()
            self._recorder.stop()

    def stop(self) -> None:
        """End after what is under way; from any thread."""
        self._stopped.set()

    def _lease(self, *, suspends: bool = False) -> Lease | None:
        """The next job, or `None` after a quiet while, or with leave to suspend. Waits for a server that is away."""
        taken_until_ns = self._clock.now_ns() + nanoseconds(NAME_TAKEN_WAIT_S)
        wait_s, told = RETRY_FIRST_S, False
        while not self._stopped.is_set():
            try:
                offer = self._offer(suspends=suspends)
                answer = self._client.call("POST", "/node/v1/lease", to_json(offer), timeout_s=LEASE_WAIT_S + 15)
                self._idle.heard(offer.idle)
                return _read_lease(answer) if answer is not None else None
            except JouleboxError as error:
                soon = "retry_s" in error.extra and self._clock.now_ns() < taken_until_ns
                if error.code not in TRY_AGAIN and not soon:
                    raise
                if not told and not soon:
                    LOG.info("waiting for the server at %s", self._client.server)
                    told = True
            self._stopped.wait(wait_s)
            wait_s = min(wait_s * 1.5, RETRY_MAX_S)
        return None

    def _idles(self) -> Lease | None:
        """Nobody asks: what is due of the idle policy, or the job that came instead of leave to suspend."""
        if self._stopped.is_set():
            return None
        if self._engine.loaded is not None and self._rest.unloads(self._idle_s()):
            self._unload()
        if not self._rest.suspends(self._idle_s()):
            return None
        lease = self._lease(suspends=True)
        if lease is None and not self._stopped.is_set():
            self._suspend()
        return lease

    def _suspend(self) -> None:
        """The server gave leave: it has no job, and wakes this machine for the next."""
        LOG.info("idle for %.0f s: the machine suspends", self._idle_s())
        self._idle.end()
        slept_s = sleep_by(self._rest.command, self._clock)
        LOG.info("the machine slept for %.0f s", slept_s)
        self._idle.begin(loaded=self._engine.loaded is not None)
        self._quiet_since_ns = self._idle_since_ns = self._clock.now_ns()

    def _idle_s(self) -> float:
        return seconds(self._clock.now_ns() - self._idle_since_ns)

    def _unload(self) -> None:
        """Nobody has asked for long enough: the engine's process ends, and with it what it draws."""
        LOG.info("idle for %.0f s: the model is unloaded", self._idle_s())
        self._engine.unload()
        self._idle.unloaded()
        self._unloaded_at = self._clock.utc()
        self._quiet_since_ns = self._clock.now_ns()

    def _offer(self, *, suspends: bool = False) -> LeaseRequest:
        loaded = self._engine.loaded
        files = [model.file for model in self._models()]
        self._tell_missing({file.id for file in files})
        return LeaseRequest(
            version=VERSION,
            node=self._machine.node,
            instance=self._instance,
            zone=self._machine.zone,
            memory_bytes=self._memory_bytes,
            engine=self._engine.info,
            models=tuple(file for file in files if (file.memory_bytes or 0) <= self._memory_bytes),
            channels=self._recorder.channels,
            missing=self._recorder.missing,
            loaded=loaded.file.id if loaded else None,
            temperature_c=self._recorder.latest_temperature_c(),
            parts=self._machine.parts,
            idle=self._idle.stretches(last=suspends),
            suspends=suspends,
            cores=self._machine.cores,
            host=self._host,
            unfit=tuple(file for file in files if (file.memory_bytes or 0) > self._memory_bytes),
            wait_s=self._rest.wait_s(self._idle_s(), loaded=loaded is not None),
            policy=self._rest.policy,
            bands=self._conditions.band.bands,
            unloaded_at=self._unloaded_at,
            tools=self._engine.takes_tools,
        )

    def _tell_missing(self, there: set[str]) -> None:
        for name in sorted(self._offered - there):
            LOG.warning("model %s is offered no more: it was removed, or its file is not what it was", name)
        self._offered = there

    def _work(self, lease: Lease) -> None:
        """One attempt from lease to acknowledged result."""
        self._idle.end()
        LOG.info("prompt %s, attempt %d, model %s", lease.job_id, lease.attempt, lease.prompt.model)
        hold = Hold(self._client, lease.token, self._engine.cancel)
        relay = Relay(
            self._client,
            lease.token,
            lease.prompt.mode,
            self._machine,
            self._recorder,
            self._clock,
            self._engine.cancel,
            counts=lease.prompt.max_energy_j is not None,
        )
        finish = self._attempt(lease, relay, hold)
        self._idle.begin(self._released_ns, loaded=self._engine.loaded is not None)
        self._quiet_since_ns = self._idle_since_ns = self._clock.now_ns()
        self._unloaded_at = None
        relay.close()
        self._spool.put(lease.token, finish(relay))
        self._deliver_all()
        hold.release()

    def _hand_back(self, lease: Lease, hold: "Hold", left: Sequence[Trace]) -> None:
        """The node is stopped in the middle: the prompt goes to another at once, not after the period of grace, and
        what it drew so far with it. What cannot be told is found out by the server."""
        LOG.info("prompt %s goes back into the line", lease.job_id)
        problem = Problem(code="energy_interrupted", detail=f"Node {self._machine.node} was stopped in the middle.")
        body = to_json(Finish(outcome="failed", problem=problem, retry=True, trace_b64=_packed(left)))
        with suppress(JouleboxError):
            self._client.call("POST", f"/node/v1/attempts/{lease.token}/finish", body, timeout_s=HAND_BACK_S)
        hold.release()

    def _attempt(self, lease: Lease, relay: Relay, hold: "Hold") -> Callable[[Relay], Finish]:
        """What became of the prompt; the chunks are only known once the relay has closed."""
        left: list[Trace] = []
        self._released_ns = None
        try:
            model = next((one for one in self._models() if one.file.id == lease.prompt.model), None)
            if model is None:
                raise JouleboxError("unknown_model", f"This node no longer holds {lease.prompt.model}. Choose another.")
            if needs_tools(lease.prompt.tools, lease.prompt.messages) and not self._engine.takes_tools:
                sentence = f"The engine of this node, {self._engine.info.name}, takes no tools: ask another node."
                raise JouleboxError("not_supported", sentence)
            measured = measure(
                lease,
                model,
                self._machine,
                self._engine,
                self._recorder,
                self._clock,
                relay,
                self._quiet_since_ns,
                replace(
                    self._conditions,
                    cancelled=lambda: hold.cancelled,
                    judged=lambda: hold.judged,
                    failed=left.append,
                ),
            )
            self._released_ns = measured.released_ns
        except KeyboardInterrupt:
            self._hand_back(lease, hold, left)
            raise
        except JouleboxError as error:
            LOG.warning("prompt %s failed: %s", lease.job_id, error.detail)
            problem, retry = Problem(code=error.code, detail=error.detail), error.code in RETRIED
            return lambda _: Finish(outcome="failed", problem=problem, retry=retry, trace_b64=_packed(left))
        except Exception as error:
            LOG.exception("prompt %s broke the node", lease.job_id)
            problem = Problem(
                code="internal", detail=f"The node broke on this prompt ({type(error).__name__}). Ask again."
            )
            return lambda _: Finish(outcome="failed", problem=problem, retry=True, trace_b64=_packed(left))
        if hold.cancelled or measured.finish_reason == "cancelled":
            return lambda _: Finish(outcome="cancelled", trace_b64=_packed([measured.trace]))
        return lambda relay: _done(measured, relay)

    def _deliver_all(self) -> None:
        """Hand every kept result to the server; one that is refused for good is dropped, with the reason in the log."""
        for token, body in list(self._spool.waiting()):
            wait_s, breaks = RETRY_FIRST_S, 0
            while not self._stopped.is_set():
                try:
                    self._client.call("POST", f"/node/v1/attempts/{token}/finish", body, timeout_s=60)
                    self._spool.done(token)
                    break
                except JouleboxError as error:
                    breaks += error.code == "internal"
                    if error.code not in KEPT or breaks >= BREAKS_MAX:
                        LOG.warning("the server does not take a result: %s", error.detail)
                        self._spool.done(token)
                        break
                self._stopped.wait(wait_s)
                wait_s = min(wait_s * 1.5, RETRY_MAX_S)


class Hold:
    """The connection held open while a job runs, in a thread blocked in reading it: it costs no wake-ups, the server
    sees at once when this node dies, and a cancelled prompt is told through it. Cut, it is taken up again. An attempt
    that was given to another node meanwhile is cancelled too: nobody waits for its answer. `judged` is what the server
    told where the energy budget is spent: joules, and seconds after the request."""

    def __init__(self, client: Client, token: str, on_cancel: Callable[[], None]) -> None:
        self._client = client
        self._path = f"/node/v1/attempts/{token}/hold"
        self._on_cancel = on_cancel
        self._released = threading.Event()
        self.cancelled = False
        self.judged: tuple[float, float] | None = None
        self._thread = threading.Thread(target=self._run, name="hold", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """The job is over: do not take the line up again."""
        self._released.set()

    def _run(self) -> None:
        wait_s = RETRY_FIRST_S
        while not self._released.is_set():
            try:
                for word in self._client.lines(self._path):
                    wait_s = RETRY_FIRST_S
                    if word.get("say") == "cancel":
                        return self._cancel()
                    if word.get("say") == "enough":
                        self._enough(word)
                    if word.get("say") == "bye":
                        return None
            except JouleboxError as error:
                if error.code == "stale_attempt":
                    return self._cancel()
            self._released.wait(wait_s)
            wait_s = min(wait_s * 1.5, RETRY_MAX_S)
        return None

    def _enough(self, word: dict[str, Any]) -> None:
        """The answer so far is kept. The server knows by its tokens: the engine is at work and hears it, or is done."""
        try:
            judged = float(word["judged_j"]), float(word["judged_s"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return
        if not all(map(isfinite, judged)):
            return
        self.judged = judged
        if not self._released.is_set():
            self._on_cancel()

    def _cancel(self) -> None:
        """Again and again until the job is over: an engine that has not begun to answer does not hear it. The next job
        is never meant."""
        self.cancelled = True
        while not self._released.is_set():
            self._on_cancel()
            self._released.wait(CANCEL_AGAIN_S)


def _done(measured: Measured, relay: Relay) -> Finish:
    return Finish(
        outcome="done",
        answer=measured.answer,
        finish_reason=measured.finish_reason,
        chunks=relay.chunks,
        trace_b64=_packed([measured.trace]),
        tool_calls=measured.tool_calls,
    )


def _packed(traces: Sequence[Trace]) -> str | None:
    """The last trace as it travels; `None` where there is none."""
    return pack_trace(encode_trace(traces[-1])) if traces else None


def _read_lease(answer: dict[str, object]) -> Lease:
    """A lease of which nothing leads astray: its token becomes a file's name here, its numbers are reckoned with."""
    try:
        json.dumps(answer, allow_nan=False)
        lease = _LEASE.validate_python(answer)
        if not (NAME.fullmatch(lease.token) and NAME.fullmatch(lease.job_id)):
            raise ValueError("a name that is none")
        if not all(0 <= number <= NUMBER_MAX for number in (lease.attempt, lease.prompt.max_tokens, lease.prompt.seed)):
            raise ValueError("a number that is none")
    except (ValueError, RecursionError) as error:  # what is not in the form too
        raise JouleboxError("protocol_version", "The server's lease cannot be read: update node and server.") from error
    return lease
