"""A campaign's table: right figures, n and interval in every cell, what is missing shown as missing, and verified."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench_record import campaign
from commands import joulebox
from joulebox.bench.campaign import tasks_of
from joulebox.bench.page import as_html, plots
from joulebox.bench.record import Record
from joulebox.bench.table import table_of
from joulebox.bench.verify import as_lines, verify
from joulebox.bench.views import VIEWS, as_csv, as_json, as_markdown, as_text, notes
from joulebox.raster import png_of


def varied(model: str, number: int) -> float:
    """Watts: the large model draws twice the small one's, and prompts differ."""
    return {"small": 20.0, "large": 40.0}[model] + number % 4


@pytest.fixture(scope="module")
def two() -> Record:
    """Two models, twelve math prompts, the small one right in half of them."""
    return campaign(["small", "large"], varied, right=lambda model, number: model == "large" or number % 2 == 0,
                    tokens=lambda model, number: 5 + number)  # fmt: skip


def test_a_cell_has_the_mean_its_interval_and_n(two: Record) -> None:
    """Joules, grams, tokens and right answers of a cell are the means of its receipts; the cheaper one is marked."""
    table = table_of(two)
    small, large = (table.cell("n1", model, "math") for model in ("small", "large"))
    assert small is not None
    assert large is not None
    receipts = [one.receipt for one in two.answers.values() if one.model == "small"]
    assert small.n == small.judged == small.asked == 12
    assert small.answer_j is not None
    assert small.answer_j.value == pytest.approx(fmean(one["energy"]["answer"]["j"] for one in receipts))
    assert small.answer_j.low < small.answer_j.value < small.answer_j.high
    assert small.sci_g is not None
    assert small.sci_g.value == pytest.approx(fmean(one["sci"]["answer"]["per_answer_g"] for one in receipts))
    assert small.token_j is not None
    assert small.token_j.value == pytest.approx(12 * small.answer_j.value / sum(range(5, 17)))
    assert small.right_j is not None
    assert small.right_j.value == pytest.approx(2 * small.answer_j.value)
    assert small.accuracy is not None
    assert (small.accuracy.value, small.right) == (0.5, 6.0)
    assert (small.best, large.best) == (True, False)
    (pair,) = table.pairs
    assert pair.answer.side == "less"
    assert pair.tokens is not None
    assert pair.token is not None
    assert pair.answer.ratio.value == pytest.approx(pair.tokens.ratio.value * pair.token.ratio.value)


def test_what_is_missing_is_shown_as_missing() -> None:
    """Prompts whose receipts are invalid are counted with that reason, never averaged; too few leave the cell empty."""
    table = table_of(campaign(["small"], lambda *_: 30.0, limit=11, invalid=[0, 3]))
    cell = table.cell("n1", "small", "math")
    assert cell is not None
    assert (cell.n, cell.missing, cell.answer_j, cell.accuracy) == (9, (("invalid", 2),), None, None)
    assert (table.apart.discarded, table.apart.discarded_j > 100.0) == (2, True)
    record = campaign(["small"], lambda *_: 30.0, limit=12)
    gone = next(iter(record.answers))
    del record.answers[gone], record.scores[gone]
    text = as_text(table_of(record), record, VIEWS)
    assert "n=11" in text
    assert "1 not asked" in text
    assert "n=11 (1 not asked)" in as_text(table_of(record, 12), record, VIEWS)


def test_repeats_count_once_and_tell_how_steady_the_node_is() -> None:
    """Three repeats of a prompt are one prompt; how far they differ is the node's CV."""
    table = table_of(campaign(["small"], lambda _, number: 30.0 + number % 2, limit=10, repeats=3))
    cell = table.cell("n1", "small", "math")
    assert cell is not None
    assert (cell.n, cell.answers, cell.judged) == (10, 30, 10)
    assert table.repeat_cv["n1"][1] == 20
    assert 0.001 < table.repeat_cv["n1"][0] < 0.1


def test_nodes_are_never_mixed(two: Record) -> None:
    """Answers of another node make cells of their own, and the notes say that they must not be compared."""
    other = campaign(["small", "large"], varied, node="n2")
    record = Record(two.header, sittings=[*two.sittings, *other.sittings], answers={**two.answers})
    moved = {replace(key, repeat=1): replace(one, repeat=1) for key, one in other.answers.items()}
    record.answers.update(moved)
    table = table_of(record)
    assert table.nodes == ("n1", "n2")
    assert {cell.answers for cell in table.cells} == {12}
    assert "must not be compared" in as_text(table, record, VIEWS)


def changed(record: Record, **parts: Any) -> Record:
    """The campaign with parts of its first receipt changed."""
    key, first = next(iter(record.answers.items()))
    receipt = first.receipt | {name: first.receipt[name] | part for name, part in parts.items()}
    answers = record.answers | {key: replace(first, evidence={**first.evidence, "receipt": receipt})}
    return Record(record.header, sittings=record.sittings, answers=answers, scores=record.scores)


def test_each_grid_is_told_with_its_own_figures(two: Record) -> None:
    """Where prompts ran in two grids, each is named with what it emitted, and not with what the other did."""
    here = next(iter(two.answers.values())).receipt["carbon"]["intensity"]
    record = changed(two, carbon={"intensity": here | {"zone": "SE", "g_per_kwh": 20.0}})
    told = [note for note in notes(table_of(record), record) if note.startswith("Grid ")]
    assert [note.partition(" (")[0] for note in told] == [
        f"Grid {here['zone']}: {here['g_per_kwh']:.0f} gCO2e/kWh",
        "Grid SE: 20 gCO2e/kWh",
    ]


def test_what_is_not_known_is_no_zero(two: Record) -> None:
    """One answer whose tokens and grams nobody knows leaves its cell without these figures; joules stay."""
    sci = next(iter(two.answers.values())).receipt["sci"]
    record = changed(two, usage={"output_tokens": None}, sci={"answer": sci["answer"] | {"per_answer_g": None}})
    model = next(iter(record.answers)).model
    cell = table_of(record).cell("n1", model, "math")
    assert cell is not None
    assert (cell.n, cell.sci_g, cell.token_j) == (12, None, None)
    assert cell.answer_j is not None
    assert table_of(record).pairs[0].tokens is None


def test_every_form_says_the_same(two: Record) -> None:
    """Text, Markdown, CSV, JSON and HTML hold the same figures with n; the plots are SVG that names its models."""
    table = table_of(two)
    text = as_text(table, two, VIEWS)
    cell = next(line for line in text.splitlines() if line.startswith("small")).split("  ")[1].strip()
    assert cell in as_markdown(table, two, VIEWS)
    assert cell in as_html(table, two)
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    told = json.loads(as_json(table, two))
    assert [row["model"] for row in rows] == ["small", "large"]
    assert float(rows[0]["answer_j"]) == told["cells"][0]["answer_j"]["value"]
    assert f"{told['cells'][0]['sci_g']['value'] * 1000:.3g} (" in cell
    drawn = plots(table)
    assert set(drawn) == {"energy.svg", "pareto-math.svg"}
    for svg in drawn.values():
        words = [each.text for each in ET.fromstring(svg).iter() if each.tag.endswith("text")]
        assert {"small", "large"} <= set(words)
        assert any(table.known_by in str(word) for word in words)
    assert "On the front: small, large." in drawn["pareto-math.svg"]
    assert png_of(drawn["energy.svg"], 640).startswith(b"\x89PNG")


def test_a_campaign_is_verified(two: Record, tmp_path: Path) -> None:
    """Receipts follow from their evidence; a figure or a score that was changed afterwards is found and named."""
    tasks = tasks_of(two.header)
    scored_again = verify(two, tasks, lambda _: None)[1]
    verified, again = verify(scored_again, tasks, lambda _: None)
    assert verified.sound
    assert (verified.identical, verified.scores, verified.ratio) == (24, 24, 1.0)
    assert table_of(again) == table_of(scored_again)
    forged = Record(two.header, sittings=two.sittings, answers=dict(two.answers), scores=dict(scored_again.scores))
    key = next(iter(forged.answers))
    energy = {**forged.answers[key].receipt["energy"], "scope": "wall"}
    receipt = {**forged.answers[key].receipt, "energy": energy}
    forged.answers[key] = replace(forged.answers[key], evidence={**forged.answers[key].evidence, "receipt": receipt})
    forged.scores[key] = replace(forged.scores[key], correct=True, mark="correct")
    found, _ = verify(forged, tasks, lambda _: None)
    assert not found.sound
    assert (found.wrong, found.scores_differ) == (1, 1)
    assert any("energy do not follow" in line for line in as_lines(found))
    path = tmp_path / "c.jsonl"
    lines: list[Any] = [forged.header, *forged.sittings, *forged.answers.values(), *forged.scores.values()]
    path.write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines))
    told = subprocess.run(
        [sys.executable, "-m", "joulebox", "bench", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert (told.returncode, "23 of 24 receipts follow" in told.stdout) == (1, True)


def test_the_command_writes_every_form(two: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`joulebox bench table` prints or writes the table of a campaign in the form, the views and the plots that are
    asked for; what there is not is refused with what there is. `bench recommend` takes a model of it, or says why."""

    def run(*words: str) -> tuple[int, str]:
        code, out, err = joulebox(capsys, "bench", *words)
        return code, out + err

    path, written, plotted = tmp_path / "c.jsonl", tmp_path / "table.html", tmp_path / "plots"
    lines: list[Any] = [two.header, *two.sittings, *two.answers.values(), *two.scores.values()]
    path.write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines))
    table, asked = table_of(two), ("table", str(path))
    assert run(*asked) == (0, as_text(table, two, VIEWS) + "\n")
    assert run(*asked, "--view", "energy") == (0, as_text(table, two, [VIEWS[1]]) + "\n")
    assert run(*asked, "--format", "markdown") == (0, as_markdown(table, two, VIEWS))
    _, anew = verify(two, tasks_of(two.header), lambda _: None)
    for record, words in ((two, ("--json",)), (anew, ("--format", "json", "--again"))):
        assert json.loads(run(*asked, *words)[1]) == json.loads(as_json(table_of(record), record))
    assert run(*asked, "--format", "html", "--output", str(written)) == (0, f"The table is in {written}.\n")
    assert written.read_text() == as_html(table, two)
    assert run(*asked, "--plots", str(plotted), "--png")[0] == 0
    assert {one.stem for one in plotted.glob("*.png")} == {one.stem for one in plotted.glob("*.svg")} != set()
    for wrong, says in (
        (("--view", "moon"), "There is no view moon: choose among sci, energy"),
        (("--format", "pdf"), "There is no format pdf: choose among text, markdown"),
        (("--png",), "say where with --plots"),
    ):
        code, said = run(*asked, *wrong)
        assert (code, says in said) == (2, True)
    code, said = run("recommend", str(path), "--category", "math", "--min-accuracy", "0.5", "--json")
    assert (code, json.loads(said)["model"]) == (0, "large")
    assert run("recommend", str(path), "--min-accuracy", "1.0")[0] == 1
    for wrong, says in (
        (("--node", "moon"), "Node moon was not measured"),
        (("--category", "moon"), "no category moon"),
    ):
        code, said = run("recommend", str(path), *wrong)
        assert (code, says in said) == (2, True)
