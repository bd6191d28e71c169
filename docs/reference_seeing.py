"""The reference pages of what watches and takes away: metrics, OpenTelemetry names, columns of exports."""

from collections.abc import Callable, Sequence
from typing import Final

from joulebox import codecarbon
from joulebox.columns import READING, RECEIPT, Column
from joulebox.server import otel
from joulebox.server.metrics import FAMILIES

MADE: Final = "<!-- Made from the code by `make docs`; edits here are lost. -->"
_METRICS: Final = f"""# Metrics

{MADE}

What `GET /metrics` tells, beside the process metrics (`process_*`) of every Prometheus client. How to scrape it:
[metrics](../how-to/metrics.md).

Labels: `node` and `model` are names, `zone` a grid zone, `purpose` is `prompt` or `control`, `scope` is what the energy
covers, `method` is `measured`, `modelled` or `simulated`, `verdict` is `valid`, `suspect` or `invalid`, `grade` is `A`
to `D`. `none` stands where there is nothing or nobody knows. Counters are kept in the database.

| Metric | Kind | Labels | What it is |
|---|---|---|---|
"""
_OTEL: Final = f"""# OpenTelemetry names

{MADE}

What prompts are told as where an `OTEL_*` variable names an exporter: [OpenTelemetry](../how-to/opentelemetry.md).
Names with `gen_ai.` are those of the semantic conventions {otel.SEMCONV}; those with `joulebox.` are ours, unit last.
The second column is where the value stands in the receipt (`receipt.`) or the prompt; what is not known is left out.

"""
_EXPORT: Final = f"""# Columns of exports

{MADE}

How to get them: [export](../how-to/export.md). A cell is empty (Parquet: null) where the receipt has `null`. In CSV a
text that a spreadsheet could take for a formula has an apostrophe before it.

"""


def _rows(rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def metrics_page() -> str:
    """Every metric with kind, labels and meaning."""
    return _METRICS + _rows(
        [
            [f"`{one.name}`", one.kind, " ".join(f"`{label}`" for label in one.labels), one.help]
            for one in FAMILIES.values()
        ]
    )


def opentelemetry_page() -> str:
    """Every attribute of every span, and every metric."""
    head = "| Attribute | Value |\n|---|---|\n"
    spans = {
        "`prompt MODEL`: a prompt from asking to its end": otel.PROMPT,
        "`attempt N`: one node's try, below it": otel.ATTEMPT,
        f"`{otel.OPERATION} MODEL`: the answer, below its attempt": otel.INFERENCE,
        "`settle`, `load`, `prefill`, `decode`, `measure`": otel.PHASE,
    }
    parts = [
        f"## {title}\n\n{head}" + _rows([[f"`{name}`", f"`{path}`"] for name, path in names.items()])
        for title, names in spans.items()
    ]
    rows = [[f"`{name}`", one.kind, f"`{one.unit}`", one.help] for name, one in otel.INSTRUMENTS.items()]
    metrics = "## Metrics\n\n| Metric | Kind | Unit | What it is |\n|---|---|---|---|\n" + _rows(rows)
    return _OTEL + "\n".join([*parts, metrics])


def _columns(title: str, columns: Sequence[Column]) -> str:
    head = f"## {title}\n\n| Column | Kind | What it is |\n|---|---|---|\n"
    return head + _rows([[f"`{one.name}`", one.kind, one.meaning] for one in columns])


def export_page() -> str:
    """Every column of receipts, readings and the file for codecarbon's readers."""
    names = "".join(f"- `{name}`\n" for name in codecarbon.COLUMNS)
    return _EXPORT + "\n".join(
        [
            _columns("Receipts", RECEIPT),
            _columns("Readings of a trace", READING),
            f"## As codecarbon's emissions.csv\n\n{names}",
        ]
    )


PAGES: Final[dict[str, Callable[[], str]]] = {
    "export.md": export_page,
    "metrics.md": metrics_page,
    "opentelemetry.md": opentelemetry_page,
}
