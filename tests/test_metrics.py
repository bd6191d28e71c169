"""What `/metrics` tells: numbers that are the receipts', names that promtool would pass, one total however often a
server begins, and a dashboard that asks for nothing else."""

import asyncio
import json
import re
import shutil
import subprocess
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.samples import Sample

import dashboard
import databases
import traces
from joulebox.accounting import account
from joulebox.model import AttemptState, Counted, IdleStretch, Problem
from joulebox.protocol import Finish, TemperatureBand
from joulebox.server import tallies
from joulebox.server.metrics import FAMILIES, UNITS, rendered
from joulebox.server.store import seeing_books
from joulebox.server.store.steps import Steps
from joulebox.server.tallies import Tally, tally
from server_stage import COUNTER, Stage, done, stage, story

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "metrics.md"
PREFIXES = [
    "pico",
    "nano",
    "micro",
    "milli",
    "centi",
    "deci",
    "deca",
    "hecto",
    "kilo",
    "kibi",
    "mega",
    "mebi",
    "giga",
    "gibi",
    "tera",
]
BASE_UNITS = {"seconds", "celsius", "joules", "grams", "watts", "volts", "amperes", "bytes", "meters"}
OTHER_UNITS = {
    "minutes",
    "hours",
    "days",
    "weeks",
    "kelvins",
    "fahrenheit",
    "calories",
    "bits",
    "pounds",
    "ounces",
    "kwh",
}
KINDS = {"gauge", "counter", "histogram", "summary"}
SHORT = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "h", "j", "w", "g", "c", "wh"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def scraped(scene: Stage) -> dict[str, list[Sample]]:
    """What the server tells, by the name of each sample."""
    reply = await scene.http.get("/metrics")
    assert reply.status_code == 200, reply.text
    found: dict[str, list[Sample]] = {}
    for family in parser.text_string_to_metric_families(reply.text):
        for one in family.samples:
            found.setdefault(one.name, []).append(one)
    return found


def value(found: dict[str, list[Sample]], name: str, **labels: str) -> float:
    """The only value of a metric with these labels."""
    (one,) = [one for one in found[name] if labels.items() <= one.labels.items()]
    return float(one.value)


async def answer(scene: Stage, node: str = "n1") -> Json:
    """One prompt answered; its receipt."""
    await scene.ask()
    lease = await scene.lease(node=node)
    reply = await scene.finish(lease, done(lease, "Hel", "lo", node=node))
    receipt: Json = (await scene.http.get(f"/api/v1/receipts/{reply.json()['receipt_id']}")).json()
    return receipt


async def test_counters_are_the_sums_of_the_receipts(tmp_path: Path) -> None:
    """Energy, grams, tokens, seconds, verdicts and grades of two answers are those of their receipts, added up."""
    async with stage(tmp_path) as scene:
        await scene.join()
        receipts = [await answer(scene) for _ in range(2)]
        found = await scraped(scene)
        run = {"node": "n1", "model": "m", "purpose": "prompt"}
        (verdict,) = {one["verdict"] for one in receipts}
        for figure in ("answer", "active", "tail", "full"):
            told = value(found, "joulebox_energy_joules_total", **run, figure=figure, scope="cpu", verdict=verdict)
            assert told == pytest.approx(sum(max(one["energy"][figure]["j"], 0.0) for one in receipts))
        for part in ("operational", "embodied"):
            told = value(found, "joulebox_co2e_grams_total", **run, part=part, zone="DE")
            assert told == pytest.approx(sum(one["carbon"][part]["g"] for one in receipts))
        tokens = value(found, "joulebox_tokens_total", **run, direction="output")
        assert tokens == sum(one["usage"]["output_tokens"] for one in receipts)
        lasted_s = value(found, "joulebox_phase_seconds_total", **run, phase="answer")
        assert lasted_s == pytest.approx(sum(one["times"]["duration_s"] for one in receipts))
        (grade,) = {one["energy"]["answer"]["grade"] for one in receipts}
        assert value(found, "joulebox_receipts_total", **run, grade=grade, verdict=verdict, method="measured") == 2
        assert value(found, "joulebox_prompts_total", **run, state="completed") == 2
        assert value(found, "joulebox_attempts_total", node="n1", outcome="done") == 2


async def test_totals_go_on_where_another_server_begins(tmp_path: Path) -> None:
    """A server that begins on the same database tells the totals of the one before it, and adds to them."""
    for count in (1, 2):
        async with stage(tmp_path) as scene:
            await scene.join()
            await answer(scene)
            assert value(await scraped(scene), "joulebox_receipts_total", node="n1") == count


async def test_two_servers_tell_the_same_counters(tmp_path: Path) -> None:
    """Of two servers on one Postgres each tells what prompts took that the other one looked after."""
    with databases.postgres() as url:
        async with stage(tmp_path / "a", database_url=url) as one, stage(tmp_path / "b", database_url=url) as other:
            await one.join()
            await answer(one)
            told = [await scraped(scene) for scene in (one, other)]
            counters = [
                {(name, *sorted(each.labels.items())): each.value for name in FAMILIES for each in found.get(name, ())}
                for found in told
            ]
            mine, others = (
                {key: one for key, one in each.items() if str(key[0]).endswith("_total")} for each in counters
            )
            assert mine == others
            assert mine


async def test_failures_rescues_and_cancelled_prompts_are_counted(tmp_path: Path) -> None:
    """An attempt that failed and was rescued, the one that answered, and a prompt cancelled in the line count once."""
    async with stage(tmp_path) as scene:
        await scene.join()
        asked = await scene.ask()
        lease = await scene.lease()
        problem = Problem(code="engine_died", detail="It died.")
        await scene.finish(lease, Finish(outcome="failed", problem=problem, retry=True))
        lease = await scene.lease()
        await scene.finish(lease, done(lease, "Hel", "lo"))
        assert (await scene.status(asked["id"]))["state"] == "completed"
        waiting = await scene.ask()
        for _ in range(2):  # the second time there is nothing to cancel
            await scene.http.delete(f"/api/v1/prompts/{waiting['id']}")
        found = await scraped(scene)
        outcomes = {one.labels["outcome"]: one.value for one in found["joulebox_attempts_total"]}
        assert outcomes == {"failed": 1, "done": 1}
        assert value(found, "joulebox_rescues_total", node="n1") == 1
        states = {(one.labels["state"], one.labels["node"]): one.value for one in found["joulebox_prompts_total"]}
        assert states == {("completed", "n1"): 1, ("cancelled", "none"): 1}


async def test_idle_energy_is_counted_once(tmp_path: Path) -> None:
    """What a node drew between prompts is added however often it is told, and shows as its power while it is new."""
    async with stage(tmp_path) as scene:
        start = scene.grid.clock.utc().replace(minute=1, second=0, microsecond=0) - timedelta(hours=1)
        stretches = [
            IdleStretch(
                start=start + timedelta(seconds=20 * n),
                until=start + timedelta(seconds=20 * (n + 1)),
                counted=(Counted(channel=COUNTER, amount=200.0, edge=0.0),),
                loaded=True,
            )
            for n in range(3)
        ]
        for told in (stretches[:1], stretches[:2], stretches[:2], stretches):
            await scene.join(idle=tuple(told))
        found = await scraped(scene)
        labels = {"node": "n1", "scope": "cpu", "method": "measured", "loaded": "yes"}
        assert value(found, "joulebox_idle_joules_total", **labels) == pytest.approx(600.0)
        assert value(found, "joulebox_idle_seconds_total", **labels) == pytest.approx(60.0)
        assert "joulebox_node_power_watts" not in found  # an hour old
        now = scene.grid.clock.utc()
        new = IdleStretch(
            start=now - timedelta(seconds=20), until=now, counted=(Counted(channel=COUNTER, amount=240.0, edge=0.0),)
        )
        await scene.join(idle=(new,))
        found = await scraped(scene)
        assert value(found, "joulebox_node_power_watts", node="n1", scope="cpu", doing="idle") == pytest.approx(12.0)


async def test_gauges_tell_what_nodes_and_the_line_do(tmp_path: Path) -> None:
    """State, temperature against its band, power of a running answer, the line by state, and the grid with its zone."""
    async with stage(tmp_path, grid_g_per_kwh=360.0, zone="DE") as scene:
        bands = (TemperatureBand(scope="cpu", min_c=None, max_c=45.0),)
        await scene.join(temperature_c=41.5, bands=bands)
        await scene.join(node="n2", instance="b", zone=None, models=("other",))
        await scene.ask()
        await scene.ask()
        lease = await scene.lease(temperature_c=41.5, bands=bands)
        async with scene.hold(lease):
            await scene.send(lease, story("Hel", "lo"))
            found = await scraped(scene)
        assert value(found, "joulebox_node_state", node="n1", state="busy") == 1
        assert value(found, "joulebox_node_state", node="n1", state="idle") == 0
        assert value(found, "joulebox_node_temperature_celsius", node="n1") == 41.5
        assert value(found, "joulebox_node_temperature_band_celsius", node="n1", bound="max") == 45.0
        assert value(found, "joulebox_node_power_watts", node="n1", scope="cpu", doing="answering") == 30.0
        states = {one.labels["state"]: one.value for one in found["joulebox_queue_prompts"]}
        assert states == {"available": 1, "running": 1}
        grid = value(found, "joulebox_grid_intensity_grams_per_joule", zone="DE", bound="central", quality="static")
        assert grid == pytest.approx(1e-4)
        assert value(found, "joulebox_grid_intensity_grams_per_joule", zone="world", bound="central") > 0
        assert value(found, "joulebox_node_info", node="n1", zone="DE", engine="scripted") == 1
        assert found["process_resident_memory_bytes"][0].value > 1e6


async def test_openmetrics_is_told_where_it_is_asked_for(tmp_path: Path) -> None:
    """`Accept` chooses OpenMetrics, which ends with its mark and names units, else Prometheus text; both are parsed."""
    async with stage(tmp_path) as scene:
        await scene.join()
        await answer(scene)
        new = await scene.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert new.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert new.text.endswith("# EOF\n")
        units = {one.name: one.unit for one in openmetrics.text_string_to_metric_families(new.text)}  # type: ignore[no-untyped-call]
        assert units["joulebox_energy_joules"] == "joules"
        assert units["joulebox_grid_intensity_grams_per_joule"] == "grams_per_joule"
        old = await scene.http.get("/metrics")
        assert old.headers["content-type"].startswith("text/plain; version=")
        assert "# EOF" not in old.text


def lint(text: str) -> list[str]:
    """What promtool's lint says of metrics in text form, as far as it is about names, help and kinds."""
    wrong, kinds, helps = [], dict[str, str](), Counter[str]()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, told = line[7:].partition(" ")
            helps[name] += 1
            wrong += [f"{name}: no help"] if not told.strip() else []
        elif line.startswith("# TYPE "):
            name, _, kind = line[7:].partition(" ")
            wrong += [f"{name}: told twice"] if name in kinds else []
            kinds[name] = kind
    wrong += [f"{name}: help told {count} times" for name, count in helps.items() if count != 1]
    wrong += [f"{name}: no help" for name in kinds if name not in helps]
    for name, kind in kinds.items():
        parts = name.split("_")
        wrong += [f"{name}: colon or capitals"] if not re.fullmatch(r"[a-z][a-z0-9_]*", name) else []
        wrong += [f"{name}: a counter ends in _total"] if (kind == "counter") != name.endswith("_total") else []
        wrong += [f"{name}: the kind is in the name"] if KINDS & set(parts) else []
        wrong += [f"{name}: no base unit"] if OTHER_UNITS & set(parts) else []
        prefixed = [part for part in parts for unit in BASE_UNITS for one in PREFIXES if part == one + unit]
        wrong += [f"{name}: no base unit"] if prefixed else []
        wrong += [f"{name}: abbreviated unit"] if SHORT & set(parts[1:]) else []
        wrong += [f"{name}: a suffix of histograms"] if name.endswith(("_bucket", "_count", "_sum")) else []
    return wrong + _repeated(text)


def _repeated(text: str) -> list[str]:
    lines = Counter(line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#"))
    labels = [f"{name}: {count} times" for name, count in lines.items() if count > 1]
    return labels + [line for line in text.splitlines() if re.search(r"[{,](le|quantile)=", line)]


async def test_names_pass_the_lint(tmp_path: Path) -> None:
    """Every metric has help, base units, the suffix of its kind and no duplicate, and the lint finds what is wrong."""
    async with stage(tmp_path) as scene:
        await scene.join()
        await answer(scene)
        text = (await scene.http.get("/metrics")).text
        assert lint(text) == []
        labels = {name for one in FAMILIES.values() for name in one.labels}
        assert labels.isdisjoint({"prompt", "job", "user", "owner", "asker", "token", "receipt"})
    spoilt = "# TYPE joulebox_kilojoules counter\njoulebox_kilojoules 1\njoulebox_kilojoules 2\n"
    assert {one.partition(": ")[2] for one in lint(spoilt)} == {
        "no help",
        "a counter ends in _total",
        "no base unit",
        "2 times",
    }


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_promtool_finds_nothing(tmp_path: Path) -> None:
    """Where Prometheus's own tool is there, it finds nothing wrong either."""
    async with stage(tmp_path) as scene:
        await scene.join()
        await answer(scene)
        text = (await scene.http.get("/metrics")).content
    line = ["promtool", "check", "metrics"]
    checked = await asyncio.to_thread(subprocess.run, line, input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


def test_units_are_in_the_names() -> None:
    """Each family ends in one of the units, or counts or names things; each unit is used."""
    counted = {"receipts", "tokens", "prompts", "attempts", "rescues", "info", "state"}
    bare = [one.name.removesuffix("_total").rpartition("_")[2] for one in FAMILIES.values() if not one.unit]
    assert set(bare) == counted
    assert {one.unit for one in FAMILIES.values() if one.unit} == set(UNITS)


def test_tallies_have_the_labels_of_their_family() -> None:
    """What is counted has exactly the labels that the table of metrics names."""
    receipt = account(
        traces.trace(traces.series(COUNTER, traces.work(10.0, 30.0, 30.0, 32.0), 34.0)),
        traces.factors(),
        receipt_id="r",
        placement=traces.PLACEMENT,
    )
    counted = tallies.of_receipt(receipt) + tallies.of_attempt("n", AttemptState.LOST, again=True)
    assert {one.name: sorted(dict(one.labels)) for one in counted} == {
        one.name: sorted(FAMILIES[one.name].labels) for one in counted
    }


def test_less_than_nothing_counts_as_nothing() -> None:
    """A negative amount, which noise makes, does not make a total shrink, and equal additions are one."""
    both = tallies.summed([tally("a", -1.0, node="n"), tally("a", 2.0, node="n"), tally("a", 3.0, node="n")])
    assert both == [Tally("a", (("node", "n"),), 5.0)]


async def test_a_scrape_costs_milliseconds(tmp_path: Path) -> None:
    """However many receipts there are, a scrape reads totals: of ten nodes and five models in milliseconds."""
    async with stage(tmp_path) as scene:
        await scene.join()
        receipt = account(
            traces.trace(traces.series(COUNTER, traces.work(10.0, 30.0, 30.0, 32.0), 34.0)),
            traces.factors(),
            receipt_id="r",
            placement=traces.PLACEMENT,
        )
        found = [
            Tally(one.name, tuple(sorted((dict(one.labels) | {"node": f"n{n}", "model": f"m{m}"}).items())), 1.5)
            for one in tallies.of_receipt(receipt)
            for n in range(10)
            for m in range(5)
        ]

        def grow(part: list[Tally]) -> Steps[None]:
            yield from seeing_books.add(part)

        for place in range(0, len(found), 100):
            await scene.store._database.carry_out(grow(found[place : place + 100]), "change")
        await scene.http.get("/metrics")
        took_s, watched = [], await scene.store.seeing.watched()
        for _ in range(5):
            before_s = time.process_time()
            watched = await scene.store.seeing.watched()
            took_s.append(time.process_time() - before_s)
        assert sum(len(values) for values in watched.totals.values()) >= len(found)
        assert min(took_s) < 0.01


def test_totals_cost_one_statement() -> None:
    """However much an answer adds, it is one statement."""
    steps = seeing_books.add([tally("a", 1.0, node=f"n{n}") for n in range(20)])
    next(steps)
    with pytest.raises(StopIteration):
        steps.send([])


def test_the_dashboard_is_what_its_table_says() -> None:
    """The committed file equals what `make docs` writes."""
    assert dashboard.PATH.read_text(encoding="utf-8") == dashboard.text(), "run `make docs`"


def test_the_dashboard_asks_for_our_metrics_alone() -> None:
    """Every metric in every expression and variable is one of the table, with labels that it has."""
    document = json.loads(dashboard.PATH.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    asked += [one["query"] for one in document["templating"]["list"] if one["type"] == "query"]
    named = {name for one in asked for name in re.findall(r"joulebox_\w+", one)}
    assert len(named) >= 12
    assert named <= set(FAMILIES)
    for expression in asked:
        for name, labels in re.findall(r"(joulebox_\w+)\{([^}]*)\}", expression):
            used = set(re.findall(r"(\w+)(?:=~|!=|!~|=)", labels))
            assert used <= set(FAMILIES[name].labels), expression


def test_every_expression_is_promql() -> None:
    """The dashboard's expressions and the queries of the page are read by a parser of the language."""
    document = json.loads(dashboard.PATH.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    asked += re.findall(r"^```promql\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(asked) > 20
    for expression in asked:
        plain = expression.replace("$__rate_interval", "5m").replace("$__range", "1d")
        promql_parser.parse(plain)  # raises where it is none
        assert set(re.findall(r"joulebox_\w+", plain)) <= set(FAMILIES)
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("sum(rate(x[5m])")


def test_the_dashboard_loads_by_grafanas_schema() -> None:
    """Grafana's own types take the dashboard, and give the same panels, queries and places back."""
    register_default_plugins()
    document = json.loads(dashboard.PATH.read_text(encoding="utf-8"))
    loaded = json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))
    assert loaded["title"] == "Joulebox"
    for mine, theirs in zip(document["panels"], loaded["panels"], strict=True):
        assert theirs["gridPos"] == mine["gridPos"]
        assert [one["expr"] for one in theirs["targets"]] == [one["expr"] for one in mine["targets"]]
        assert theirs["fieldConfig"]["defaults"]["unit"] == mine["fieldConfig"]["defaults"]["unit"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in document["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= dashboard.COLUMNS for panel in document["panels"])


def test_rendering_needs_no_server() -> None:
    """The text of nothing is every family with its help and no value, and a label's value is escaped."""
    body, media_type = rendered({"joulebox_rescues_total": [({"node": 'a"b\\c\nd'}, 1.0)]}, "")
    text = body.decode()
    assert media_type.startswith("text/plain")
    assert r'joulebox_rescues_total{node="a\"b\\c\nd"} 1.0' in text
    assert all(f"# HELP {name} " in text for name in FAMILIES)
