"""`joulebox bench run` against a real server: nothing is asked twice, nothing is lost, whatever is killed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import server_stage
from bench_stage import BenchStage
from joulebox.bench.campaign import begun, chosen_tasks, tasks_of
from joulebox.bench.importing import as_file
from joulebox.bench.plan import rests, shuffled, turns
from joulebox.bench.record import Answered, Book, Header, Key, ModelRef, Record, Sitting, read_record
from joulebox.bench.runner import choose
from joulebox.bench.table import table_of
from joulebox.clock import SimulatedClock
from joulebox.errors import JouleboxError
from joulebox.protocol import to_json

SMALL = ("--models", "m1,m3", "--categories", "math", "--limit", "3", "--block", "5")
MODELS = ("m1", "m2", "m4")
LARGE = ("--models", ",".join(MODELS), "--categories", "math,sql", "--limit", "15")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[BenchStage]:
    stage = BenchStage(tmp_path, [*MODELS, "m3"])
    yield stage
    stage.stop()


def figures(record: Record) -> dict[Key, object]:
    """Of each answer that counts its text, tokens, energy, grams and score: what a table is made of."""
    return {
        key: (
            answer.text,
            answer.receipt["usage"]["output_tokens"],
            answer.receipt["energy"]["answer"],
            answer.receipt["sci"]["answer"]["per_answer_g"],
            record.scores[key].score,
        )
        for key, answer in record.answers.items()
    }


def test_a_campaign_runs_and_goes_on(stage: BenchStage, tmp_path: Path) -> None:
    """Every prompt has one answer with receipt and score; going on asks nothing again, and takes in a further model."""
    path = tmp_path / "c.jsonl"
    _, told = stage.runner("--out", str(path)).communicate()
    assert told.endswith("the models are: m1, m2, m3, m4.\n")
    assert not path.exists()
    told = stage.run(*SMALL, "--out", str(path))
    record = read_record(path)
    assert len(record.answers) == len(record.scores) == 6
    assert {answer.receipt["verdict"] for answer in record.answers.values()} <= {"valid", "suspect"}
    assert all(answer.receipt["verdict"] == "invalid" for answer in record.discarded)
    assert [one.model for one in record.warm_ups] == [next(iter(record.answers)).model, *{
        key.model for key in record.answers} - {next(iter(record.answers)).model}]  # fmt: skip
    assert "[6/6, " in told
    before = path.read_bytes()
    assert "[" not in stage.run("--resume", str(path))
    added = path.read_bytes().removeprefix(before).splitlines()
    assert [json.loads(line)["kind"] for line in added] == ["sitting"]
    stage.run("--resume", str(path), "--models", "m2")
    assert [model.id for model in read_record(path).models] == ["m1", "m3", "m2"]
    assert len(read_record(path).answers) == 9


def test_suspect_answers_are_measured_again(tmp_path: Path) -> None:
    """With --strict what another moment may mend is measured again, of earlier sittings too: the last one counts, the
    others stay in the file, every answer that counts has its score, and nothing is asked for ever."""
    stage = BenchStage(tmp_path / "server", ["m1s"])
    try:
        path = tmp_path / "c.jsonl"
        stage.run("--models", "m1s", "--categories", "math", "--limit", "8", "--out", str(path))
        before = read_record(path)
        suspect = {key for key, one in before.answers.items() if one.receipt["verdict"] == "suspect"}
        assert 0 < len(suspect) < 8
        stage.run("--resume", str(path), "--strict")
        record = read_record(path)
        assert {one.receipt["verdict"] for one in record.answers.values()} == {"valid"}
        assert {one.key for one in record.discarded if one.receipt["verdict"] == "suspect"} == suspect
        assert set(record.scores) == set(record.answers) == set(before.answers)
        prompts = {one.prompt_id for one in (*record.answers.values(), *record.discarded)}
        assert len(prompts) == 8 + len(record.discarded)
        lines = path.read_bytes().count(b"\n")
        stage.run("--resume", str(path), "--strict")
        assert path.read_bytes().count(b"\n") == lines + 1
    finally:
        stage.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_change_nothing(stage: BenchStage, tmp_path: Path) -> None:
    """Runner, server and node are killed at random: answers, energies and scores are those of an undisturbed run."""
    undisturbed, disturbed = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    stage.run(*LARGE, "--out", str(undisturbed))
    hit = stage.run_with_kills(disturbed, 30, 7, *LARGE)
    one, other = read_record(undisturbed), read_record(disturbed)
    tables = [table_of(each) for each in (one, other)]
    apart = tables[1].apart
    print(f"{hit} kills, {len(other.answers)} answers, {len(other.sittings)} sittings; apart: {apart}")
    assert hit >= 20
    assert len(one.answers) == 90
    assert figures(one) == figures(other)
    assert tables[0].cells == tables[1].cells
    assert tables[0].pairs == tables[1].pairs
    assert len(other.sittings) >= 5
    assert apart.aborted > tables[0].apart.aborted


def header(**changes: object) -> Header:
    suite, tasks = chosen_tasks("core", ["math", "sql"], [])
    fields: dict[str, object] = {"seed": 1, "repeats": 1, "block": 10, "max_tokens": None, "limit": None}
    fields |= {"until_separated": True, "precision": None} | changes
    return begun(suite, tasks, "0", SimulatedClock().utc(), **fields)  # type: ignore[arg-type]


def test_tasks_of_ones_own_are_chosen(tmp_path: Path) -> None:
    """Files replace what ships, all of them or those of the named categories; a category that none has, and two files
    that cannot be told apart, are refused by name."""
    (math,), (sql,) = (chosen_tasks("core", [name], [])[1] for name in ("math", "sql"))
    files = {}
    for name, own in {
        "math": replace(math, category="sums"),
        "again": replace(math, category="sums"),
        "same": replace(math, category="other"),
        "sql": replace(sql, category="queries"),
    }.items():
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(as_file(own))
    suite, both = chosen_tasks("core", [], [files["math"], files["sql"]])
    assert (suite, [one.category for one in both]) == ("own", ["sums", "queries"])
    assert [one.category for one in chosen_tasks("core", ["queries"], [files["math"], files["sql"]])[1]] == ["queries"]
    for categories, names, says in (
        (["moon"], ("math",), "No file has the category moon"),
        ([], ("math", "again"), "the same category"),
        ([], ("math", "same"), "a prompt of the same id"),
    ):
        with pytest.raises(JouleboxError, match=says):
            chosen_tasks("core", categories, [files[name] for name in names])
    asked = begun(suite, both, "0", SimulatedClock().utc(), seed=1, repeats=1, block=10, max_tokens=None,
                  limit=None, until_separated=False, precision=None)  # fmt: skip
    assert tasks_of(asked, [files["sql"], files["math"]]) == both
    with pytest.raises(JouleboxError, match="The task sums is not here: give its file with --tasks"):
        tasks_of(asked, [files["sql"]])


def ids(asked: Header) -> dict[str, list[str]]:
    return {task.category: [sample.id for sample in task.samples] for task in tasks_of(asked)}


def test_the_file_that_is_named_is_the_nodes_own(tmp_path: Path) -> None:
    """Of two nodes that call different files alike, a campaign names the file of the node that it runs on."""
    stage = BenchStage(tmp_path, ["m1"])
    try:
        offer = server_stage.offer(node="other", models=("m1",), wait_s=0.0)
        stage.client.call("POST", "/node/v1/lease", to_json(offer))
        digests = {file["nodes"][0]: file["digest"] for file in stage.client.models()}
        assert len(set(digests.values())) == 2
        for node, digest in digests.items():
            (ref,) = choose(stage.client, ["m1"], node).models
            assert ref.digest == digest
    finally:
        stage.stop()


def test_the_order_is_seeded_paired_and_in_turns() -> None:
    """Each model gets each prompt once, in blocks that all models share; the seed decides, the loaded model begins."""
    asked = header(repeats=2, until_separated=False)
    line = list(turns(asked, ids(asked), ["a", "b", "c"]))
    keys = [key for turn in line for key in turn.keys]
    assert len(keys) == len(set(keys)) == 3 * 2 * sum(len(samples) for samples in ids(asked).values())
    rounds = [line[at : at + 3] for at in range(0, len(line), 3)]
    assert all(len({tuple(key.sample for key in turn.keys) for turn in one}) == 1 for one in rounds)
    assert all(later[0].model == earlier[-1].model for earlier, later in pairwise(rounds))
    assert line == list(turns(asked, ids(asked), ["a", "b", "c"]))
    assert shuffled("abcdef", 1) != shuffled("abcdef", 2)
    assert len(list(turns(header(limit=7), ids(asked), ["a"]))) == 2


def taken(asked: Header, joules: dict[str, float]) -> Record:
    """A record in which each model took so much, give or take, for each math prompt."""
    record = Record(asked)
    models = tuple(ModelRef(id=name, digest=name, quantization="") for name in joules)
    record.take(Sitting(at="", node="n", models=models, described={}))
    for model, j in joules.items():
        for at, sample in enumerate(ids(asked)["math"]):
            key = {"model": model, "category": "math", "sample": sample, "repeat": 0, "attempt": 1, "counts": True}
            energy = {"answer": {"j": j * (1 + at % 5 / 10)}}
            evidence = {"receipt": {"energy": energy}}
            record.take(Answered(**key, prompt_id="", text="", finish_reason=None, evidence=evidence))  # type: ignore[arg-type]
    return record


def test_a_model_rests_once_it_is_told_apart() -> None:
    """Three models of which two are alike: after the first look the third rests, the two go on; and not before it."""
    asked = header()
    record = taken(asked, {"a": 1.0, "b": 1.0, "c": 3.0})
    later = {turn.model: turn for turn in turns(asked, ids(asked), ["a", "b", "c"])
             if (turn.category, turn.block) == ("math", 1)}  # fmt: skip
    first = next(turns(asked, ids(asked), ["c"]))
    resting = {model: rests(record, ids(asked), ["a", "b", "c"], turn) for model, turn in later.items()}
    assert resting == {"a": False, "b": False, "c": True}
    assert not rests(record, ids(asked), ["a", "b", "c"], first)


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    """What a kill left of a line is gone when the campaign goes on; a second runner is refused meanwhile."""
    path = tmp_path / "c.jsonl"
    with Book(path, header()) as book:
        sitting = Sitting(at="now", node="n", models=(), described={"text": "ä\ud800"})
        book.add(sitting)
        with pytest.raises(JouleboxError, match="Another runner"):
            Book(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind":"sit')
    assert read_record(path).sittings[0].node == "n"
    with Book(path) as book:
        book.add(sitting)
    assert path.read_bytes() == whole + whole.splitlines(keepends=True)[-1]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A missing or foreign file, a damaged line, a changed task and options at odds each get one sentence."""
    path = tmp_path / "c.jsonl"
    Book(path, header()).__exit__()
    with pytest.raises(JouleboxError, match="is there already"):
        Book(path, header())
    whole = path.read_text()
    for text, says in ((whole + "{}\n", "line 2"), ("", "is empty"), ('{"kind":"score"}\n', "line 1"),
                       (whole.replace("campaign/1", "campaign/9"), "campaign/9")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(JouleboxError, match=says):
            read_record(path)
    path.write_text(whole.replace("sha256:", "sha256:0"))
    with pytest.raises(JouleboxError, match="is not the one that was asked"):
        tasks_of(read_record(path).header)
    for changes, says in (({"repeats": 2}, "each prompt once"), ({"precision": 20.0}, "--precision")):
        with pytest.raises(JouleboxError, match=says):
            header(**changes)
    told = subprocess.run(
        [sys.executable, "-m", "joulebox", "bench", "run", "--suite", "moon"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.returncode, told.stderr) == (
        2,
        "joulebox: There is no suite moon: leave it out, or give files with --tasks.\n",
    )
