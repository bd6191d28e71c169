"""Campaigns made by hand for tests: real traces, accounted as the server does, with energies that are chosen."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import traces
from joulebox.accounting import account, receipt_bytes
from joulebox.bench.campaign import begun, chosen_tasks, tasks_of
from joulebox.bench.plan import ordered
from joulebox.bench.record import Answered, Key, ModelRef, Record, Scored, Sitting
from joulebox.clock import SimulatedClock
from joulebox.evidence import encode_trace
from joulebox.model import Remark, Usage
from joulebox.protocol import pack_trace

Power = Callable[[str, int], float]
"""Of model and prompt's number: watts while it answers, for two seconds."""


def evidence(watts: float, **changes: Any) -> dict[str, Any]:
    """What the server gives of an answer during which the machine drew so much."""
    readings = traces.series(traces.channel(), traces.work(10.0, watts, 30.0, 32.0), 34.0)
    trace = traces.trace(readings, **changes)
    receipt = account(trace, traces.factors(), receipt_id="r", placement=traces.PLACEMENT)
    return {
        "receipt": _plain(receipt_bytes(receipt)),
        "factors": asdict(traces.factors()),
        "trace": pack_trace(encode_trace(trace)),
        "earlier": [],
    }


def _plain(body: bytes) -> dict[str, Any]:
    import json

    told: dict[str, Any] = json.loads(body)
    return told


def campaign(
    models: Sequence[str],
    power: Power,
    *,
    right: Callable[[str, int], bool] = lambda *_: True,
    categories: Sequence[str] = ("math",),
    limit: int = 12,
    invalid: Sequence[int] = (),
    repeats: int = 1,
    node: str = "n1",
    tokens: Callable[[str, int], int] = lambda *_: 9,
) -> Record:
    """A finished campaign. Of the prompts whose number is in `invalid` no receipt counts."""
    suite, tasks = chosen_tasks("core", list(categories), [])
    header = begun(suite, tasks, "0", SimulatedClock().utc(), seed=1, repeats=repeats, block=10, max_tokens=None,
                   limit=limit, until_separated=False, precision=None)  # fmt: skip
    record = Record(header)
    refs = tuple(ModelRef(id=name, digest=f"sha256:{name}", quantization="Q4_1") for name in models)
    record.take(Sitting(at="2026-11-23T07:00:00+00:00", node=node, models=refs, described={}))
    for task in tasks_of(header):
        for number, sample in enumerate(ordered(header, task.category, [each.id for each in task.samples])):
            for key in (Key(model, task.category, sample, repeat) for model in models for repeat in range(repeats)):
                good = number not in invalid
                told = evidence(
                    power(key.model, number + key.repeat),
                    node=node,
                    usage=Usage(input_tokens=27, cached_tokens=0, output_tokens=tokens(key.model, number)),
                    remarks=() if good else (Remark(code="throttled", detail="test", t_ns=31 * traces.S),),
                )
                record.take(Answered(**asdict(key), attempt=1, counts=good, prompt_id="p", text="Answer: 0",
                                     finish_reason="stop", evidence=told))  # fmt: skip
                if good:
                    sure = right(key.model, number)
                    mark: Any = "correct" if sure else "wrong"
                    record.take(Scored(**asdict(key), correct=sure, partial=float(sure), mark=mark, reason=""))
    return record
