"""A node process whose machine is simulated anew for each prompt, seeded by what is asked: the same prompt, the same
answer and the same readings, whatever happened before, on a clock that jumps. It speaks to a real server.

    python tests/simulated_node.py URL NAME MODEL...

Of some prompts the engine dies at the first attempt, of some the first receipt is invalid; seldom twice, as in life.
Of a model whose name ends in s every other first receipt is suspect.
"""

import hashlib
import secrets
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from joulebox.client import Client
from joulebox.clock import SimulatedClock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.evidence import encode_trace
from joulebox.model import ModelFile, Problem, Remark, Trace
from joulebox.node.agent import Hold
from joulebox.node.engine import LocalModel
from joulebox.node.engines.scripted import Script, Scripted
from joulebox.node.measurement import Conditions, Machine, measure
from joulebox.node.meters import open_meters
from joulebox.node.recorder import Recorder
from joulebox.protocol import VERSION, Finish, Lease, LeaseRequest, pack_trace, to_json
from joulebox.rig.physics import Machine as SimulatedMachine
from joulebox.rig.powercap_tree import RigPowercap
from joulebox.units import nanoseconds

REAL_S = 0.02
"""So long an answer takes in real time, for somebody to be killed in."""
DIES, INVALID = 9, 7
"""One prompt of so many."""
_LEASE: TypeAdapter[Lease] = TypeAdapter(Lease)


def model_file(name: str) -> ModelFile:
    """A model whose name ends in how slow it is: `m3` takes three times as long for a token as `m1`."""
    return ModelFile(
        id=name, digest=f"sha256:{name}", quantization="none", size_bytes=1, memory_bytes=1, context_tokens=4096
    )


def number_of(lease: Lease) -> int:
    """What the simulation of a prompt is seeded by: what is asked, of whom, with which seed; not by its attempt."""
    said = "\0".join([lease.prompt.model, str(lease.prompt.seed), *(turn.content for turn in lease.prompt.messages)])
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:6], "big")


def answer(lease: Lease, name: str, folder: Path, seen: Counter[int]) -> Finish:
    """What came of an attempt, measured on a machine of its own by the real measurement and drivers."""
    number, clock = number_of(lease), SimulatedClock()
    machine = SimulatedMachine(number)
    rig = RigPowercap(clock, machine, folder)
    recorder = Recorder([rig.following(meter) for meter in open_meters(rig.addresses[:1])], clock, reading_hz=10.0)
    slow = int("".join(sign for sign in lease.prompt.model if sign.isdigit()) or 1)
    engine = Scripted(clock, Script(load_s=0.1, token_s=0.02 * slow, prefill_s=0.1 * slow), machine.activity)
    if lease.attempt == 1 and number % DIES == 0:
        engine.script = replace(engine.script, die_after_tokens=3)
    path = folder / "model.gguf"
    path.touch()
    left: list[Trace] = []
    recorder.start()
    clock.sleep_until(nanoseconds(3.0))
    try:
        measured = measure(
            lease,
            LocalModel(file=model_file(lease.prompt.model), path=path),
            Machine(node=name, zone="DE", cores=2, memory_bytes=8_000_000_000),
            engine,
            recorder,
            clock,
            lambda *_, **__: None,
            0,
            Conditions(failed=left.append),
        )
    except JouleboxError as error:
        problem = Problem(code=error.code, detail=error.detail)
        trace_b64 = pack_trace(encode_trace(left[-1]))
        return Finish(outcome="failed", problem=problem, retry=True, trace_b64=trace_b64)
    finally:
        recorder.stop()
        rig.close()
    trace = measured.trace
    if number % INVALID == 0 and not seen[number]:
        trace = replace(trace, remarks=(*trace.remarks, Remark(code="throttled", detail="as simulated")))
    elif lease.prompt.model.endswith("s") and number % 2 and not seen[number]:
        trace = replace(trace, remarks=(*trace.remarks, Remark(code="meter_gap", detail="as simulated")))
    seen[number] += 1
    return Finish(
        outcome="done",
        answer=measured.answer,
        finish_reason=measured.finish_reason,
        chunks=((0, measured.answer),),
        trace_b64=pack_trace(encode_trace(trace)),
    )


def deliver(client: Client, lease: Lease, finish: Finish, clock: SystemClock) -> None:
    """Hand it over, however often the server is away; one that was given to somebody else is dropped."""
    while True:
        try:
            client.call("POST", f"/node/v1/attempts/{lease.token}/finish", to_json(finish), timeout_s=30)
        except JouleboxError as error:
            if error.code not in ("no_server", "database", "internal"):
                return
            clock.sleep_until(clock.now_ns() + nanoseconds(0.1))
        else:
            return


def offer(name: str, instance: str, models: list[str]) -> LeaseRequest:
    """What the node says when it asks for work."""
    clock = SimulatedClock()
    with tempfile.TemporaryDirectory() as folder:
        rig = RigPowercap(clock, SimulatedMachine(1), Path(folder))
        recorder = Recorder([rig.following(meter) for meter in open_meters(rig.addresses[:1])], clock, reading_hz=10.0)
        rig.close()
    return LeaseRequest(
        version=VERSION,
        node=name,
        instance=instance,
        zone="DE",
        memory_bytes=8_000_000_000,
        engine=Scripted(clock).info,
        models=tuple(map(model_file, models)),
        channels=recorder.channels,
        missing=recorder.missing,
    )


def main(url: str, name: str, *models: str) -> None:
    """Work until killed."""
    clock, seen = SystemClock(), Counter[int]()
    asked = offer(name, secrets.token_hex(8), list(models))
    with Client(url) as client, tempfile.TemporaryDirectory() as folder:
        while True:
            try:
                told: dict[str, Any] | None = client.call("POST", "/node/v1/lease", to_json(asked), timeout_s=40)
            except JouleboxError:
                clock.sleep_until(clock.now_ns() + nanoseconds(0.1))
                continue
            if told is None:
                continue
            lease = _LEASE.validate_python(told)
            hold = Hold(client, lease.token, lambda: None)
            clock.sleep_until(clock.now_ns() + nanoseconds(REAL_S))
            deliver(client, lease, answer(lease, name, Path(folder), seen), clock)
            hold.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
