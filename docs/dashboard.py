"""Writes docs/grafana/joulebox.json (`make docs`): the dashboard, of the metrics in `server/metrics.py` alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PATH: Final = Path(__file__).with_name("grafana") / "joulebox.json"
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
ONCE: Final = "max without (instance, job, pod, namespace, service, endpoint, container)"
"""Servers that share a database tell the same counters: each is taken once."""
COLUMNS: Final = 24
NODE: Final = 'node=~"$node"'
RUN: Final = f'{NODE},model=~"$model",purpose="prompt"'
BUCKET: Final = "[$__rate_interval]"
WHOLE: Final = "[$__range]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel: what it shows, of which expressions (each with its legend), in which unit."""

    title: str
    told: str
    unit: str
    shown: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 12
    stacked: bool = False


def grown(metric: str, labels: str, over: str = WHOLE) -> str:
    """What a counter gained."""
    return f"{ONCE} (increase({metric}{{{labels}}}{over}))"


def rate(metric: str, labels: str) -> str:
    """What a counter gains a second."""
    return f"{ONCE} (rate({metric}{{{labels}}}{BUCKET}))"


def gauge(metric: str, labels: str = NODE) -> str:
    """What a gauge shows, whichever server knows it."""
    return f"{ONCE} ({metric}{{{labels}}})"


def stat(title: str, told: str, unit: str, expression: str) -> Panel:
    """A single number over the time that is shown."""
    return Panel(title=title, told=told, unit=unit, shown=((expression, ""),), kind="stat", width=4)


ANSWER: Final = f'{RUN},figure="answer"'
FULL: Final = f'{NODE},figure="full"'
WRITTEN: Final = f'{RUN},direction="output"'
AVAILABLE: Final = 'state="available"'
MODEL: Final = 'model=~"$model"'
RECEIPTS: Final = grown("joulebox_receipts_total", RUN)
DOUBTFUL: Final = grown("joulebox_receipts_total", f'{RUN},verdict!="valid"')
PANELS: Final[tuple[Panel, ...]] = (
    stat(
        "Energy of answers",
        "Answers to people, idle included, all scopes of the chosen nodes. Compare nodes of one scope only.",
        "joule",
        f"sum({grown('joulebox_energy_joules_total', ANSWER)})",
    ),
    stat(
        "Emissions of answers",
        "CO2e, operational and embodied, central values.",
        "massg",
        f"sum({grown('joulebox_co2e_grams_total', RUN)})",
    ),
    stat("Answers", "Receipts of people's prompts.", "short", f"sum({RECEIPTS})"),
    stat(
        "Not valid",
        "Share of receipts that are suspect or invalid.",
        "percentunit",
        f"(sum({DOUBTFUL}) or vector(0)) / sum({RECEIPTS})",
    ),
    stat(
        "Idle energy",
        "Drawn between prompts, attributed to none.",
        "joule",
        f"sum({grown('joulebox_idle_joules_total', NODE)})",
    ),
    stat("Waiting", "Prompts in the line now.", "short", f"sum({gauge('joulebox_queue_prompts', AVAILABLE)})"),
    Panel(
        title="Power now",
        told="The newest reading of a node that answers, or the mean of its last idle stretch.",
        unit="watt",
        shown=((gauge("joulebox_node_power_watts"), "{{node}} {{scope}} {{doing}}"),),
    ),
    Panel(
        title="Mean power, by what it is for",
        told="Joules a second: of attempts from lease to release by model, and of waiting.",
        unit="watt",
        shown=(
            (f"sum by (model) ({rate('joulebox_energy_joules_total', FULL)})", "{{model}}"),
            (f"sum({rate('joulebox_idle_joules_total', NODE)})", "waiting"),
        ),
        stacked=True,
    ),
    Panel(
        title="Joules per answer",
        told="Energy of answers over their number.",
        unit="joule",
        shown=(
            (
                (
                    f"sum by (node, model, scope) ({rate('joulebox_energy_joules_total', ANSWER)}) / "
                    f"sum by (node, model, scope) ({rate('joulebox_receipts_total', RUN)})"
                ),
                "{{model}} on {{node}} ({{scope}})",
            ),
        ),
    ),
    Panel(
        title="Joules per token written",
        told="Energy of answers over the tokens that they have.",
        unit="joule",
        shown=(
            (
                (
                    f"sum by (node, model) ({rate('joulebox_energy_joules_total', ANSWER)}) / "
                    f"sum by (node, model) ({rate('joulebox_tokens_total', WRITTEN)})"
                ),
                "{{model}} on {{node}}",
            ),
        ),
    ),
    Panel(
        title="Verdicts",
        told="Receipts by verdict.",
        unit="short",
        shown=((f"sum by (verdict) ({grown('joulebox_receipts_total', RUN, BUCKET)})", "{{verdict}}"),),
        stacked=True,
    ),
    Panel(
        title="Grades",
        told="Receipts by the grade of the answer's energy: A and B at the wall, D modelled.",
        unit="short",
        shown=((f"sum by (grade) ({grown('joulebox_receipts_total', RUN, BUCKET)})", "{{grade}}"),),
        stacked=True,
    ),
    Panel(
        title="Where a prompt's time goes",
        told="Mean seconds of an answered prompt in each phase.",
        unit="s",
        shown=(
            (
                (
                    f"sum by (phase) ({rate('joulebox_phase_seconds_total', RUN)}) / "
                    f"scalar(sum({rate('joulebox_receipts_total', RUN)}))"
                ),
                "{{phase}}",
            ),
        ),
        stacked=True,
    ),
    Panel(
        title="The line",
        told="Prompts by where they are.",
        unit="short",
        shown=((f"sum by (state) ({gauge('joulebox_queue_prompts', MODEL)})", "{{state}}"),),
        stacked=True,
    ),
    Panel(
        title="Temperature against the start band",
        told="An answer begins within the band.",
        unit="celsius",
        shown=(
            (gauge("joulebox_node_temperature_celsius"), "{{node}}"),
            (gauge("joulebox_node_temperature_band_celsius"), "{{node}} {{scope}} {{bound}}"),
        ),
    ),
    Panel(
        title="Nodes by state",
        told="What each node does.",
        unit="short",
        shown=((f"sum by (state) ({gauge('joulebox_node_state')})", "{{state}}"),),
        stacked=True,
    ),
    Panel(
        title="Grid",
        told="Carbon intensity now, with its range.",
        unit="suffix:g/kWh",
        shown=((f"3.6e6 * {gauge('joulebox_grid_intensity_grams_per_joule', '')}", "{{zone}} {{bound}}, {{source}}"),),
    ),
    Panel(
        title="Attempts and rescues",
        told="Attempts by how they ended, and those after which the prompt went back into the line.",
        unit="short",
        shown=(
            (f"sum by (outcome) ({grown('joulebox_attempts_total', NODE, BUCKET)})", "{{outcome}}"),
            (f"sum({grown('joulebox_rescues_total', NODE, BUCKET)})", "rescued"),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    x = y = high = 0
    panels = []
    for number, one in enumerate(PANELS, start=1):
        height = 4 if one.kind == "stat" else 8
        if x + one.width > COLUMNS:
            x, y, high = 0, y + high, 0
        panels.append(_panel(number, one, {"x": x, "y": y, "w": one.width, "h": height}))
        x, high = x + one.width, max(high, height)
    return {
        "title": "Joulebox",
        "uid": "joulebox",
        "description": "Energy and carbon of answers, by their receipts.",
        "tags": ["joulebox", "energy"],
        "editable": True,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_source(), _variable("node"), _variable("model")]},
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }


def _panel(number: int, one: Panel, place: dict[str, int]) -> dict[str, Any]:
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 20 if one.stacked else 0, "showPoints": "never"}
    custom["stacking"] = {"mode": "normal" if one.stacked else "none", "group": "A"}
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
    options["tooltip"] = {"mode": "multi", "sort": "desc"}
    if one.kind == "stat":
        custom, options = {}, {"colorMode": "none", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return {
        "id": number,
        "type": one.kind,
        "title": one.title,
        "description": one.told,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": one.unit, "custom": custom, "min": 0}, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(65 + i), "datasource": SOURCE, "expr": expression, "legendFormat": legend or "__auto"}
            for i, (expression, legend) in enumerate(one.shown)
        ],
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(label: str) -> dict[str, Any]:
    metric = {"node": "joulebox_node_info", "model": "joulebox_receipts_total"}[label]
    return {
        "name": label,
        "label": label.title(),
        "type": "query",
        "datasource": SOURCE,
        "query": f"label_values({metric}, {label})",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "hide": 0,
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1) + "\n"


def main() -> None:
    """Write it."""
    PATH.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
