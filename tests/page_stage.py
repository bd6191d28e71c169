"""A stage for the pages: receipts as machines of three kinds would get them, and a server that plays scripted streams.

`python tests/page_stage.py PORT` serves it. The streams wait at gates, which `POST /stage/next` opens one by one, so
that tests and pictures see each state for as long as they like.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from math import sin
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from joulebox import model as nouns
from joulebox.accounting.embodied import embodied_of_parts
from joulebox.errors import JouleboxError
from joulebox.evidence import encode_trace
from joulebox.server.campaigns import Campaign, CampaignCell, advise
from joulebox.server.comparing import Preference, Tally, preferences
from joulebox.server.feedback import checked
from joulebox.server.idle import IdleShare
from joulebox.server.pages import Operator, problem_of, refused, router
from joulebox.server.problems import install
from joulebox.statistics.recommending import Advice
from operating_stage import NOW, RULES, StageDoor, StageOperating
from report_stage import REPORT
from traces import S, channel, series, trace

Json = dict[str, Any]
ANSWER = (
    "Energy is what it takes to make something happen: to lift a cup, to warm a room, to answer a question.\n\n"
    "Power is how fast energy is used. A lamp of ten watts uses ten joules every second, so an answer of a hundred "
    "joules is that lamp, lit for ten seconds."
)
QUESTION = "What is the difference between energy and power? It's for a 12-year-old."
GRID = nouns.Intensity(
    g_per_kwh=342.0,
    low=171.0,
    high=513.0,
    zone="DE",
    at="2025",
    source="Electricity Maps (ODbL), yearly mean of 2025",
    kind="average",
    factor="lifecycle",
    quality="yearly",
)
MACHINE = embodied_of_parts(
    nouns.MachineParts(
        form="desktop",
        cpu=nouns.CpuPart(
            name="12th Gen Intel(R) Core(TM) i7-12700", vendor="GenuineIntel", family=6, model=151, sockets=1, cores=12
        ),
        memory_bytes=64 * 10**9,
        disks=(nouns.DiskPart(kind="ssd", size_bytes=10**12),),
        gpus=(nouns.GpuPart(name="NVIDIA L4", pci="10de:27b8"), nouns.GpuPart(name=None, pci="10de:ffff")),
    ),
    4.0,
)


def _sci(o_g: float | None, m_g: float, e_j: float | None, used_s: float, boundary: str) -> nouns.Sci:
    total_g = None if o_g is None else o_g + m_g
    return nouns.Sci(
        O_g=o_g,
        O_active_g=None if o_g is None else 0.75 * o_g,
        O_idle_g=None if o_g is None else 0.25 * o_g,
        M_g=m_g,
        E_kwh=None if e_j is None else e_j / 3.6e6,
        I_g_per_kwh=342.0,
        TE_kg=316.0,
        EL_years=4.0,
        TiR_s=used_s,
        RR=1.0,
        ToR=1.0,
        per_answer_g=total_g,
        per_output_token_g=None if total_g is None else total_g / 96,
        per_token_g=None if total_g is None else total_g / 138,
        boundary=boundary,
    )


REASONS = (
    nouns.Reason(
        code="missing_scope",
        level="note",
        sentence="No meter covers this machine; its energy is modelled from how busy it was. Add a meter.",
    ),
    nouns.Reason(
        code="shared_host",
        level="suspect",
        sentence="The machine is virtual, so other guests may have disturbed it. Use a machine of your own.",
    ),
)


def _modelled_energy(answer_j: float, u_j: float, full_j: float) -> nouns.Energy:
    return nouns.Energy(
        scope="modelled",
        missing=("wall", "cpu", "dram"),
        answer=nouns.Figure(j=answer_j, u=u_j, grade="D"),
        active=nouns.Figure(j=38.1034, u=27.7712, grade="D"),
        tail=nouns.Figure(j=0.7214, u=4.1098, grade="D"),
        full=nouns.Figure(j=full_j, u=104.6630, grade="D"),
        phases={
            "load": nouns.PhaseFigure(j=21.9, u=12.2, s=0.5283, method="modelled"),
            "prefill": nouns.PhaseFigure(j=9.53, u=5.29, s=0.2119, method="modelled"),
            "decode": nouns.PhaseFigure(j=51.9, u=28.8, s=1.1536, method="modelled"),
            "tail": nouns.PhaseFigure(j=0.7214, u=4.1098, s=1.0, method="modelled"),
        },
        scopes={},
        uncertainty=(
            nouns.UncertaintyPart(source="power profile of the machine", j=16.9),
            nouns.UncertaintyPart(source="busy ratio, resolution", j=0.41),
            nouns.UncertaintyPart(source="idle, sham windows", j=2.2),
        ),
    )


def modelled_receipt() -> nouns.Receipt:
    """A machine with no meter: grade D, wide, modelled."""
    answer_j, u_j, full_j = 61.4372, 34.1288, 187.221
    operational = nouns.Grams(g=answer_j * 342 / 3.6e6, low=0.00129, high=0.0136)
    embodied = nouns.Grams(g=0.013034, low=0.0079, high=0.0201)
    o_full_g = full_j * 342 / 3.6e6
    return nouns.Receipt(
        schema="joulebox/receipt/1",
        id="r_01JD3K7ZX4",
        prompt_id="p_01JD3K7ZX4",
        revision=1,
        method_version="1",
        created="2026-11-23T07:31:25+00:00",
        simulated=False,
        model=nouns.ModelInfo(
            name="smollm2-135m-instruct",
            digest="sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            quantization="Q4_1",
        ),
        engine=nouns.EngineInfo(name="llama.cpp", version="b10549"),
        node="atelier",
        zone="DE",
        seed=0,
        finish_reason="stop",
        verdict="suspect",
        reasons=REASONS,
        usage=nouns.Usage(input_tokens=42, cached_tokens=0, output_tokens=96),
        times=nouns.Times(
            queued_s=0.0213,
            settle_s=0.0,
            load_s=0.5283,
            time_to_first_token_s=0.2119,
            time_per_output_token_s=0.012143,
            duration_s=1.3655,
        ),
        energy=_modelled_energy(answer_j, u_j, full_j),
        power=nouns.Power(mean_w=44.993, idle_w=17.09, peak_w=48.8),
        temperature=(),
        carbon=nouns.Carbon(
            operational=operational,
            embodied=embodied,
            total=nouns.Grams(g=operational.g + embodied.g, low=0.0092, high=0.0337),
            intensity=GRID,
            hardware=MACHINE,
            pue=1.0,
            pue_source="not metered: taken as 1.0",
        ),
        sci=nouns.SciBoundaries(
            answer=_sci(operational.g, embodied.g, answer_j, 1.3655, "The node, from the request to the last token."),
            reserved=_sci(
                o_full_g, 0.0397, full_j, 4.16, "The node, from lease to release: load, guards, tail included."
            ),
        ),
        meters=(
            nouns.MeterInfo(
                name="model:/busy",
                kind="busy_ratio mean",
                scope="modelled",
                tick_s=0.1,
                lag_s=0.0,
                accuracy="Desktop profile, idle to full load",
            ),
        ),
        placement=nouns.Placement(policy="fastest", reason="The only node that has the model.", saved_g=None),
    )


def powercap_receipt() -> nouns.Receipt:
    """The rig: CPU and memory counters, simulated."""
    base = modelled_receipt()
    operational = nouns.Grams(g=86.4321 * 342 / 3.6e6, low=0.00411, high=0.0123)
    return replace(
        base,
        id="r_01JD3M0Q8B",
        calibration=nouns.CalibrationRef(id="c1", at="2026-11-22T08:00:00+00:00"),
        prompt_id="p_01JD3M0Q8B",
        simulated=True,
        verdict="valid",
        reasons=(),
        energy=nouns.Energy(
            scope="cpu+dram",
            missing=("wall", "gpu0"),
            answer=nouns.Figure(j=86.4321, u=3.1442, grade="C"),
            active=nouns.Figure(j=51.2087, u=3.9903, grade="C"),
            tail=nouns.Figure(j=2.4471, u=1.1120, grade="D"),
            full=nouns.Figure(j=1633.09, u=32.11, grade="C"),
            phases={
                "load": nouns.PhaseFigure(j=30.11, u=1.22, s=0.5283, method="measured"),
                "prefill": nouns.PhaseFigure(j=13.06, u=0.71, s=0.2119, method="measured"),
                "decode": nouns.PhaseFigure(j=73.37, u=2.80, s=1.1536, method="measured"),
                "tail": nouns.PhaseFigure(j=None, u=None, s=None, method=None),
            },
            scopes={"cpu": nouns.ScopeFigure(j=80.1134, u=2.9910), "dram": nouns.ScopeFigure(j=6.3187, u=0.4102)},
            uncertainty=(
                nouns.UncertaintyPart(source="gain of the counters", j=1.31),
                nouns.UncertaintyPart(source="idle, sham windows", j=0.86),
            ),
        ),
        power=nouns.Power(mean_w=63.297, idle_w=25.8, peak_w=71.1),
        temperature=(nouns.Temperature(sensor="cpu", start_c=41.2, end_c=55.03),),
        carbon=replace(
            base.carbon,
            operational=operational,
            total=nouns.Grams(g=operational.g + base.carbon.embodied.g, low=0.0120, high=0.0324),
        ),
        sci=nouns.SciBoundaries(
            answer=_sci(operational.g, 0.013034, 86.4321, 1.3655, base.sci.answer.boundary),
            reserved=_sci(1633.09 * 342 / 3.6e6, 0.0397, 1633.09, 4.16, base.sci.reserved.boundary),
        ),
        meters=(
            nouns.MeterInfo(
                name="powercap:/package-0",
                kind="energy_j counter",
                scope="cpu",
                tick_s=0.001,
                lag_s=0.0,
                accuracy="RAPL, 3 %",
            ),
            nouns.MeterInfo(
                name="powercap:/dram",
                kind="energy_j counter",
                scope="dram",
                tick_s=0.001,
                lag_s=0.0,
                accuracy="RAPL, 6 %",
            ),
        ),
    )


def unmeasured_receipt() -> nouns.Receipt:
    """No meter and no model: every energy is unknown, and nothing may look like zero."""
    base = modelled_receipt()
    sci = nouns.SciBoundaries(
        answer=_sci(None, 0.013034, None, 1.3655, base.sci.answer.boundary),
        reserved=_sci(None, 0.0397, None, 4.16, base.sci.reserved.boundary),
    )
    unknown = nouns.PhaseFigure(j=None, u=None, s=None, method=None)
    return replace(
        base,
        id="r_01JD3N9W2C",
        prompt_id="p_01JD3N9W2C",
        verdict="invalid",
        energy=nouns.Energy(
            scope=None,
            missing=("wall", "cpu", "dram"),
            answer=None,
            active=None,
            tail=None,
            full=None,
            phases=dict.fromkeys(("load", "prefill", "decode", "tail"), unknown),
            scopes={},
            uncertainty=(),
        ),
        power=nouns.Power(mean_w=None, idle_w=None, peak_w=None),
        carbon=replace(base.carbon, operational=None, total=None),
        sci=sci,
        meters=(),
        reasons=(
            nouns.Reason(
                code="missing_scope",
                level="invalid",
                sentence="No meter gave a single reading. See `joulebox meters list`.",
            ),
        ),
    )


RECEIPTS = {"modelled": modelled_receipt, "powercap": powercap_receipt, "nothing": unmeasured_receipt}


def _expected(answers: int, low_j: float, median_j: float, high_j: float, **more: Any) -> Json:
    told = {"answers": answers, "low_j": low_j, "median_j": median_j, "high_j": high_j, "u_j": None, "grade": "C"}
    return told | {"modelled": False, "simulated": True} | more


MODELS: Sequence[Json] = (
    {"id": "modelled", "quantization": "Q4_1", "size_bytes": 98_000_000,
     "expected": _expected(1, 13.41, 13.41, 13.41, u_j=7.2, grade="D", modelled=True, simulated=False)},
    {"id": "powercap", "quantization": "Q4_K_M", "size_bytes": 1_117_320_736,
     "expected": _expected(12, 71.2, 86.4, 103.0), "first_node": "atelier", "wait_s": 0.0},
    {"id": "nothing", "quantization": "Q8_0", "size_bytes": 491_400_032},
)  # fmt: skip
NODES: Sequence[Json] = (
    {
        "name": "atelier",
        "state": "idle",
        "reason": "waits for prompts",
        "since": "2026-11-23T07:31:00+00:00",
        "zone": "DE",
        "models": ["powercap"],
        "loaded": "powercap",
        "temperature_c": 41.25,
        "bands": [{"scope": "cpu", "min_c": 35.0, "max_c": 45.0}],
        "meters": [
            {"kind": "energy_j", "scope": "cpu", "simulated": True},
            {"kind": "energy_j", "scope": "dram", "simulated": True},
            {"kind": "temperature_c", "scope": "cpu", "simulated": True},
        ],
    },
)


def as_json(receipt: nouns.Receipt) -> Json:
    """A receipt as it comes over the wire."""
    plain: Json = json.loads(json.dumps(asdict(receipt)))
    return plain


# --- the server -------------------------------------------------------------------------------------------------------


def _trace() -> nouns.Trace:
    """A machine at 26 W that reads for 0.2 s and writes for 1.2 s, with a word every eighth of a second."""

    def total(t_s: float) -> float:
        reading, writing = min(max(t_s - 3.0, 0.0), 0.2), min(max(t_s - 3.2, 0.0), 1.17)
        return 26 * t_s + 35 * reading + 38 * writing + 0.2 * sin(9 * t_s)

    tokens = tuple(nouns.TokenTime(t_ns=round((3.2 + n / 8) * S), n=1) for n in range(9))
    load = nouns.Span(name="load", start_ns=round(1.5 * S), end_ns=2 * S)
    made = trace(series(channel(), total, 6.0, period_s=0.02), start_s=3.0, end_s=4.37, tokens=tokens)
    return replace(made, spans=(*made.spans, load), leased_ns=round(1.4 * S))


TRACE = encode_trace(_trace())
FIGURES: tuple[Json, ...] = (
    {"model": "qwen3-4b", "j": 812.0, "u": 29.0, "modelled": False, "simulated": True},
    {"model": "smollm2-135m", "j": 86.4, "u": 3.1, "modelled": False, "simulated": True},
)


CAMPAIGN = Campaign(
    id="c1",
    title="Campaign c1 of 2026-11-22: code 1, math 1, sql 1",
    created="2026-11-22T08:00:00+00:00",
    published=NOW,
    notes=("Measured at wall; grade A.", "Missing, qwen3-4b sql: 3 failed."),
)


def _cell(model: str, category: str, j: float, share: float, n: int = 50) -> CampaignCell:
    """A model's figures in a category: `j` joules an answer, a `share` of `n` right; of fewer than ten none."""

    def spread(value: float, by: float) -> Json | None:
        return {"value": value, "low": value / by, "high": value * by} if n >= 10 else None

    right = spread(j / share, 1.3) if share * n >= 5 else None
    ends = {"value": share, "low": max(share - 0.13, 0.0), "high": min(share + 0.13, 1.0)} if n >= 10 else None
    figures = {"answer_j": spread(j, 1.1), "token_j": spread(j / 120, 1.08), "right_j": right}
    figures |= {"sci_g": spread(j * 1.2e-4, 1.12), "accuracy": ends}
    return CampaignCell(campaign="c1", node="atelier", model=model, digest="sha256:0", category=category, asked=50,
                        n=n, judged=n, right=share * n, figures=figures)  # fmt: skip


CELLS = (
    *(
        _cell(model, category, j * factor, share * quality)
        for model, j, share in (("smollm2-135m", 21.0, 0.08), ("qwen3-0.6b", 86.4, 0.46), ("qwen3-1.7b", 240.0, 0.44))
        for category, factor, quality in (("code", 1.6, 0.9), ("math", 0.8, 1.1), ("sql", 1.0, 1.0), ("all", 1.1, 1.0))
    ),
    _cell("qwen3-4b", "code", 1210.0, 0.78),
    _cell("qwen3-4b", "math", 640.0, 0.9),
    _cell("qwen3-4b", "sql", 800.0, 0.5, 4),
)
CONTROL: Json = {
    "state": "steady",
    "sentence": "Control prompt: steady since 2026-11-01, now 0.6 % above its reference.",
    "limit": 6.0,
    "reference": {"at": "2026-11-01T08:00:00+00:00", "mean_j": 41.2, "spread_j": 0.31},
    "runs": [
        {"at": f"2026-11-{22 - n:02}T04:00:00+00:00", "receipt_id": "r_01JD3M0Q8B", "answer_j": 41.2 + 0.2 * (n % 3),
         "u_j": 1.6, "note": None, "high": 2.2 - 0.1 * n, "low": 0.05 * n}
        for n in range(18)
    ],
}  # fmt: skip


OPERATOR = Operator(
    name="Joulebox Demo\nMusterweg 1, 10115 Berlin",
    contact="hello@joulebox.test",
    imprint="Responsible for the content: **A. Muster**.",
    privacy="Texts are read by nobody, unless something breaks.",
    retention_days=30,
)


class StageOverview:
    """Satisfies `Overviewed` from memory."""

    def __init__(self) -> None:
        self.published = True
        self.messages: list[Mapping[str, str]] = []

    async def campaigns(self) -> tuple[Sequence[Campaign], Sequence[CampaignCell]]:
        return ((CAMPAIGN,), CELLS) if self.published else ((), ())

    async def idle(self, node: str) -> Sequence[IdleShare]:
        return [IdleShare(loaded=True, scope="cpu+dram", lasted_s=20_880.0, j=542_880.0, u=16_704.0, mean_w=26.0)]

    async def waiting(self, node: str, zone: str | None, models: Sequence[str]) -> int:
        return 3

    def grid_day(self, zone: str | None) -> tuple[datetime, Sequence[nouns.DatedIntensity]]:
        day = NOW.replace(hour=0, minute=0)
        return NOW, [_hour(day + timedelta(hours=n), 330 + 120 * sin(n / 4), n) for n in range(24)]

    async def leave(self, form: Mapping[str, str]) -> None:
        checked(form.get("message", ""), form.get("contact", ""))
        self.messages.append(form)


def _hour(start: datetime, g_per_kwh: float, n: int) -> nouns.DatedIntensity:
    quality: Any = "estimated" if n <= NOW.hour else "forecast"
    source = "Energy-Charts (energy-charts.info, Fraunhofer ISE); range: x0.75 to x1.3"
    known = replace(
        GRID, g_per_kwh=g_per_kwh, low=0.75 * g_per_kwh, high=1.3 * g_per_kwh, quality=quality, source=source
    )
    return nouns.DatedIntensity(
        start=start.isoformat(), until=(start + timedelta(hours=1)).isoformat(), intensity=known
    )


class Stage:
    """Prompts in memory and their scripts; satisfies `pages.Backend`."""

    def __init__(self) -> None:
        self.jobs: dict[str, Json] = {}
        self.forms: dict[str, Json] = {}
        self.opened: dict[str, int] = {}
        self.bell = asyncio.Condition()
        self.stopped: set[str] = set()
        self.shared: set[str] = set()
        self.removed: set[str] = set()
        self.choice: str | None = None
        self.worth: str | None = None
        self.connections: dict[str, int] = {}
        self.overview = StageOverview()
        self.operating = StageOperating()
        self._ids = count(1)

    async def models(self) -> Sequence[Mapping[str, Any]]:
        return MODELS

    async def nodes(self) -> Sequence[Mapping[str, Any]]:
        return [{**node, "control": CONTROL} for node in NODES]

    async def drain(self, name: str, why: str | None) -> None:
        raise JouleboxError("not_found", f"There is no node {name}.")

    async def advice(self, category: str, min_accuracy: float, max_energy_j: float | None) -> Advice:
        offered = {(cell.model, cell.digest) for cell in CELLS}
        return advise(CELLS, offered, category, min_accuracy, max_energy_j)

    async def status(self, prompt_id: str) -> Mapping[str, Any]:
        if prompt_id not in self.jobs:
            raise JouleboxError("not_found", f"There is no prompt {prompt_id}. Ask again from the start page.")
        return self.jobs[prompt_id]

    async def trace(self, receipt_id: str) -> bytes:
        return b"" if receipt_id == as_json(unmeasured_receipt())["id"] else TRACE

    async def erase(self, receipt_id: str) -> None:
        self.removed.add(receipt_id)

    async def receipt(self, receipt_id: str, revision: int | None = None) -> Mapping[str, Any]:
        for make in RECEIPTS.values():
            if (receipt := as_json(make()))["id"] == receipt_id:
                return receipt
        raise JouleboxError("not_found", f"There is no receipt {receipt_id}.")

    async def whatif(self, receipt_id: str) -> Mapping[str, Any] | None:
        return None

    async def report(
        self, start: str | None, until: str | None, zone: str | None, model: str | None
    ) -> Mapping[str, Any]:
        return REPORT

    async def before(self, prompt_id: str) -> Sequence[Mapping[str, Any]]:
        return []

    async def compare(self, form: Mapping[str, Any]) -> str:
        if len(form["models"]) < 2:
            raise JouleboxError("bad_request", "Choose 2 to 4 models to compare.")
        return "c2"

    async def comparison(self, comparison_id: str) -> Mapping[str, Any]:
        if comparison_id not in {"c1", "c2"}:
            raise JouleboxError("not_found", f"There is no comparison {comparison_id}.")
        ready, figures = comparison_id == "c1", FIGURES if self.choice and comparison_id == "c1" else ()
        sides = [{"answer": text if ready else None} for text in (ANSWER, ANSWER.partition(":")[0] + ".")]
        shown = [{"figure": one, "receipt_id": "r_01JD3M0Q8B"} for one in figures] or [{}, {}]
        return {
            "id": comparison_id,
            "own": True,
            "prompt": QUESTION,
            "answered": 2 if ready else 1,
            "waiting": "" if ready else "p9",
            "ready": ready,
            "failed": False,
            "choice": self.choice if ready else None,
            "worth": self.worth if ready else None,
            "figures": figures,
            "sides": [side | more for side, more in zip(sides, shown, strict=True)],
        }

    async def choose(self, comparison_id: str, choice: str) -> None:
        self.choice = self.choice or choice

    async def judge(self, comparison_id: str, worth: str) -> None:
        self.worth = worth

    async def preferences(self) -> Sequence[Preference]:
        return preferences(
            [
                Tally(
                    one="qwen3-4b",
                    other="smollm2-135m",
                    one_wins=2,
                    other_wins=1,
                    ties=1,
                    worth_yes=1,
                    worth_told=2,
                    ratios=(9.1, 9.7),
                )
            ]
        )

    async def submit(self, form: Mapping[str, Any]) -> str:
        if not form["prompt"].strip():
            raise JouleboxError("empty_prompt", "The prompt is empty. Type a question and ask again.")
        prompt_id = f"p{next(self._ids)}"
        self.forms[prompt_id] = dict(form)
        start = datetime.now(UTC) + timedelta(seconds=40)
        self.jobs[prompt_id] = {
            "id": prompt_id,
            "state": "available",
            "phase": "queued",
            "position": 2,
            "expected_start": start.isoformat(),
            "reason": "2 prompts are before yours",
            "node": None,
            "attempt": 0,
            "answer": None,
            "finish_reason": None,
            "receipt_id": None,
            "error": None,
        }
        return prompt_id

    async def cancel(self, prompt_id: str) -> None:
        self.stopped.add(prompt_id)
        self.jobs[prompt_id] |= {"state": "cancelled", "phase": None}
        await self.advance()

    async def texts(self, receipt_id: str) -> Mapping[str, Any]:
        removed = receipt_id in self.removed
        own = receipt_id == "r_01JD3M0Q8B" and not removed
        return {
            "prompt": QUESTION if own else None,
            "answer": ANSWER if own else None,
            "system": None,
            "asked": {"temperature": 0.0, "max_tokens": 256, "turns": 1, "by_flags": True},
            "removed": removed,
            "shared": receipt_id in self.shared,
            "own": own,
        }

    async def share(self, receipt_id: str, *, shared: bool) -> None:
        (self.shared.add if shared else self.shared.discard)(receipt_id)

    async def advance(self) -> None:
        """Open the next gate of the latest prompt."""
        latest = next(reversed(self.jobs))
        self.opened[latest] = self.opened.get(latest, 0) + 1
        async with self.bell:
            self.bell.notify_all()

    async def pass_gate(self, prompt_id: str, gate: int) -> bool:
        """Wait at a gate; whether the prompt goes on behind it."""
        async with self.bell:
            await self.bell.wait_for(lambda: self.opened.get(prompt_id, 0) > gate or prompt_id in self.stopped)
        return prompt_id not in self.stopped

    def script(self, prompt_id: str) -> list[tuple[str, Json]]:
        """The events of a prompt; `gate` waits, `cut` drops the connection once."""
        form, job = self.forms[prompt_id], self.jobs[prompt_id]
        prompt, receipt = form["prompt"], as_json(RECEIPTS[form["model"]]())
        waiting = {"position": 2, "expected_start": job["expected_start"], "reason": job["reason"]}
        words = [part + " " for part in ANSWER.split(" ")]
        if "hostile" in prompt:
            words = ["<script>alert(1)</script>\n  ", "<img src=x onerror=alert(1)> ", "\u202eabc ", "&amp;"]
        reading = ((0.0, 26.1), (0.25, 61.0), (0.5, 64.5))
        tokens: list[tuple[str, Json]] = [("power", {"t_s": t_s, "w": w, "scope": "cpu"}) for t_s, w in reading]
        for n, word in enumerate(words):
            tokens.append(("token", {"text": word, "n": 1}))
            if n % 4 == 1:
                watts = 68 - 6 * min(1, n / 6) + (n * 7) % 5
                tokens.append(("power", {"t_s": 0.6 + n / 10, "w": watts, "scope": "cpu"}))
        half = len(tokens) // 2
        if "restart" in prompt:
            tokens[half:half] = [("gate", {}), ("restarted", {"attempt": 2}), ("gate", {}), *tokens[:half]]
        if "cut" in prompt:
            tokens[half:half] = [("cut", {})]
        settling = {"sensor": "cpu", "now_c": 61.0, "target_c": 45.0, "expected_s": 18.0}
        start = [
            ("queued", waiting),
            ("gate", {}),
            ("settling", settling),
            ("gate", {}),
            ("phase", {"phase": "loading"}),
            ("started", {"node": "atelier", "attempt": 1}),
            ("phase", {"phase": "answering"}),
        ]
        if "fail" in prompt:
            return [
                *start,
                ("error", {"code": "engine_died", "detail": "The engine stopped. Try a shorter prompt."}),
            ]
        measuring = [("answer", {"finish_reason": "stop"}), ("phase", {"phase": "measuring"}), ("gate", {})]
        return [*start, *tokens[:half], ("gate", {}), *tokens[half:], *measuring, ("receipt", receipt)]

    async def play(self, prompt_id: str, after: str | None) -> AsyncIterator[str]:
        """The stream from after that event id on."""
        attempt, gates, done = 1, count(), int(after.rpartition(".")[2]) if after else -1
        self.connections[prompt_id] = self.connections.get(prompt_id, 0) + 1
        yield "retry: 50\n\n"
        for seq, (name, data) in enumerate(self.script(prompt_id)):
            attempt = data["attempt"] if name == "restarted" else attempt
            gate = next(gates) if name == "gate" else None
            if seq <= done:
                continue
            if gate is not None:
                if not await self.pass_gate(prompt_id, gate):
                    yield f"id: {attempt}.{seq}\nevent: cancelled\ndata: {{}}\n\n"
                    return
            elif name == "cut":
                if self.connections[prompt_id] == 1:
                    return
            else:
                if "slowly" in self.forms[prompt_id]["prompt"]:
                    await asyncio.sleep(0.03)
                if name == "receipt":
                    self.jobs[prompt_id] |= {
                        "state": "completed",
                        "phase": None,
                        "receipt_id": data["id"],
                        "answer": ANSWER,
                    }
                yield f"id: {attempt}.{seq}\nevent: {name}\ndata: {json.dumps(data)}\n\n"


def application() -> FastAPI:
    """The pages, and as much of the API as they speak to."""
    app, stage = FastAPI(docs_url=None, redoc_url=None, openapi_url=None), Stage()
    install(app, refused)
    app.state.stage = stage
    app.include_router(router(APIRouter, lambda _: stage, StageDoor(), OPERATOR, RULES))

    @app.post("/api/v1/prompts")
    async def submit(request: Request) -> Response:
        try:
            prompt_id = await stage.submit(await request.json())
        except JouleboxError as error:
            return JSONResponse(problem_of(error), error.failure.status, media_type="application/problem+json")
        return JSONResponse(stage.jobs[prompt_id], 202)

    @app.get("/api/v1/prompts/{prompt_id}/events")
    async def events(request: Request, prompt_id: str) -> Response:
        stream = stage.play(prompt_id, request.headers.get("last-event-id"))
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @app.delete("/api/v1/prompts/{prompt_id}")
    async def cancel(prompt_id: str) -> Json:
        await stage.cancel(prompt_id)
        return stage.jobs[prompt_id]

    @app.post("/stage/next")
    async def advance() -> Json:
        await stage.advance()
        return {}

    @app.get("/stage/forms/{prompt_id}")
    async def sent(prompt_id: str) -> Json:
        return stage.forms[prompt_id]

    return app


def serve(port: int) -> None:
    """Serve the stage until told to stop."""
    from granian import Granian
    from granian.constants import Interfaces

    Granian("page_stage:application", factory=True, address="127.0.0.1", port=port, interface=Interfaces.ASGI).serve()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
