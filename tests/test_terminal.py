"""What strangers wrote is shown in terminals and logs, and steers neither."""

import ast
import asyncio
import json
import logging
import sys
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest

import page_stage
from commands import ended
from gguf_files import write_gguf
from hostile import FORBIDDEN, HOSTILE, STEERS, liar
from joulebox import console, logs
from joulebox.export_commands import _sink
from joulebox.settings import LOCAL_TOKEN
from joulebox.terminal import cleaned, escaped, harmless, shown_json
from server_stage import Stage, done, stage, story

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]
SRC = Path(__file__).parents[1] / "src" / "joulebox"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_what_steers_is_taken_out_and_what_is_text_stays() -> None:
    """Escapes, C1 codes, overwriting and direction signs go; letters, blanks of all widths, tabs and lines stay."""
    assert not FORBIDDEN.search(harmless(STEERS))
    kept = "Zwölf 東京\u3000タワー 10\u00a0000 :skull:\n\tb"
    assert harmless(kept) == escaped(kept, keep="\n\t") == kept
    assert cleaned({"a\x1b": ["\x9bx", 1, None]}) == {"a": ["x", 1, None]}


def test_json_is_the_same_and_steers_nothing() -> None:
    """What a program reads of it is what was meant, sign by sign, half a pair of surrogates too."""
    value = {"text": f"{STEERS}\U000e0041ü\n", "deep": [{STEERS: STEERS}]}
    for indent in (None, 2):
        text = shown_json(value, indent)
        assert not FORBIDDEN.search(text)
        assert "ü" in text
        assert json.loads(text) == value


def test_only_one_module_prints() -> None:
    """Nothing of the product prints past the module that keeps the terminal from being steered."""
    pipes = {"node/engines/llamacpp_process.py", "node/engines/transformers_process.py"}  # read by the node
    spared = {"terminal.py", *pipes}
    for path in sorted(SRC.rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {ast.unparse(call.func) for call in calls}
        name = path.relative_to(SRC).as_posix()
        if name not in spared and not name.startswith("rig/"):
            allowed = {"Console"} if name == "console.py" else set()
            assert not names & {"print", "typer.echo", "typer.secho", "Console"} - allowed, name


def test_a_receipt_of_a_stranger_is_only_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Square brackets in a receipt make no links and no colours, its control characters do nothing."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = StringIO()
    receipt = page_stage.as_json(page_stage.RECEIPTS["powercap"]())
    receipt["id"] = receipt["node"] = receipt["energy"]["scope"] = HOSTILE
    receipt["carbon"]["intensity"] |= {"quality": HOSTILE, "zone": HOSTILE}
    console.show_receipt(receipt, out)
    shown = out.getvalue()
    assert "\x1b]" not in shown
    assert "[link=" in shown
    colours = set(_escapes(shown))
    assert colours <= set(_escapes(_usual()))


def _usual() -> str:
    out = StringIO()
    console.show_receipt(page_stage.as_json(page_stage.RECEIPTS["powercap"]()), out)
    return out.getvalue()


def _escapes(text: str) -> list[str]:
    return [part.partition("m")[0] for part in text.split("\x1b")[1:]]


# --- the command line against a server that lies ----------------------------------------------------------------------


def run(*words: str) -> int | str | None:
    """The exit code of a command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        if "export" in words:  # into a pipe or a file go the bytes as they are
            patch.setattr(sys.stdout, "isatty", lambda: True)
        return ended(*words)


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("tokens", "create", "x", "--scope", "ask"),
    ("receipts", "show", "{receipt}"),
    ("receipts", "show", "{receipt}", "--parts"),
    ("receipts", "recompute", "{receipt}"),
    ("receipts", "export", "{receipt}", "--format", "csv"),
    ("receipts", "erase", "{receipt}"),
    ("report", "sci"),
    ("report", "sci", "--html"),
    ("control", "show"),
    ("node", "list"),
    ("node", "idle", "n1"),
    ("node", "drain", "n1"),
    ("tokens", "list"),
    ("tokens", "mine"),
    ("tokens", "audit"),
    ("feedback",),
    ("bench", "recommend", "--max-energy-j", "1"),
)
AS_JSON = ("receipts show {receipt}", "report sci", "control show", "node list", "tokens list", "tokens audit")


@pytest.mark.slow
async def test_no_command_is_steered_by_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a server says in each of its texts, no command passes on what steers a terminal, nor breaks."""
    monkeypatch.setenv("JOULEBOX_DATA_DIR", str(tmp_path))  # where the stage's server leaves the local token
    async with stage(tmp_path) as on:
        await on.join()
        asked = asyncio.create_task(_answered(on))
        with liar(on.url) as other:
            assert await asyncio.to_thread(run, "ask", "hi", "--model", "m", "--server", other.url) == 0
            receipt, said = await asked, capsys.readouterr()
            assert not FORBIDDEN.search(said.out + said.err)
            words = [COMMANDS[0], *((*one.split(), "--json") for one in AS_JSON), *COMMANDS[1:]]
            for each in words:
                command = [part.format(receipt=receipt) for part in each]
                code = await asyncio.to_thread(run, *command, "--server", other.url)
                said = capsys.readouterr()
                assert code in (0, 1), (command, said.err)
                assert not FORBIDDEN.search(said.out + said.err), command
                assert "Traceback" not in said.err, (command, said.err)
                if "--json" in command:
                    assert said.out, (command, code, said.err)
                    assert json.dumps(HOSTILE)[1:-1] in json.dumps(json.loads(said.out)), command
            assert (tmp_path / LOCAL_TOKEN).exists()


async def _answered(on: Stage) -> str:
    """A node answers what comes, with words of its own."""
    lease = await on.lease()
    async with on.hold(lease):
        await on.send(lease, story(HOSTILE))
        return str((await on.finish(lease, done(lease, HOSTILE))).json()["receipt_id"])


def test_an_export_is_whole_in_a_file_and_harmless_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes go to a pipe as they are; on a terminal the same is only shown."""
    for terminal in (False, True):
        out = TextIOWrapper(BytesIO(), encoding="utf-8")
        monkeypatch.setattr(out, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(sys, "stdout", out)
        with _sink(None) as file:
            file.writelines([b'{"node": "', HOSTILE.encode(), b'"}\n'])
        written = out.buffer.getvalue().decode()
        assert bool(FORBIDDEN.search(written)) is not terminal
        assert written.endswith('"}\n')


@pytest.mark.parametrize("detail", [HOSTILE, HOSTILE * 100])
def test_a_refusal_is_only_shown(capsys: pytest.CaptureFixture[str], detail: str) -> None:
    """The sentence of a server that refuses, and one that nobody foresaw, reach the terminal as text."""

    def refuse(*_: object) -> tuple[int, dict[str, str], bytes]:
        problem = {"code": "not_found", "detail": detail, "status": 404}
        return 404, {"content-type": "application/problem+json"}, json.dumps(problem).encode()

    with liar("", refuse) as other:
        assert run("receipts", "show", "x", "--server", other.url) == 2
    said = capsys.readouterr().err
    assert not FORBIDDEN.search(said)
    assert "alert(1)" in said


def test_model_files_are_only_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file whose name and header steer terminals is listed as text."""
    path = tmp_path / f"a{STEERS[:12]}.gguf"
    write_gguf(path)
    assert run("models", "add", str(path)) in (0, 1)
    run("models", "list")
    run("models", "list", "--json")
    said = capsys.readouterr()
    assert not FORBIDDEN.search(said.out + said.err)


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_of_the_log_stays_one(form: str) -> None:
    """A name, sentence or failure with line breaks and escapes forges no further line, in either form."""
    stream, log = StringIO(), logging.getLogger("joulebox.test_terminal")
    before = logging.getLogger().handlers[:], logging.getLogger(logs.OURS).level
    logs.configure("server", "info", form, stream)
    try:
        forged = f"\nserver: all is well\r\n{HOSTILE}"
        log.info("node %s", forged, extra=logs.about(node=forged))
        try:
            raise ValueError(forged)
        except ValueError:
            log.exception("broken")
    finally:
        logging.getLogger().handlers[:] = before[0]
        logging.getLogger(logs.OURS).setLevel(before[1])
    said = stream.getvalue()
    assert not FORBIDDEN.search(said)
    lines = [line for line in said.splitlines() if not line.startswith("    ")]
    assert len(lines) == 2
    assert all(line.startswith(("server: node", "server: broken", "{")) for line in lines)
    assert "alert(1)" in lines[0]
