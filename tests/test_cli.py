"""The command line on wrong use: one sentence on stderr, the right exit code, no traceback; settings from files."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from commands import joulebox
from gguf_files import write_gguf
from joulebox.cli import app
from joulebox.clock import SystemClock
from joulebox.command_help import SECTIONS
from joulebox.node import calibration, doctor, meter_check, models
from joulebox.node.calibration import calibrated, load_calibration
from joulebox.node.meters import open_meters
from joulebox.node.spool import SPOOL, Spool
from joulebox.protocol import to_json
from joulebox.settings import load_settings
from joulebox.wording import size
from server_stage import offer, stage

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("own_folder")]
NOBODY = ("--server", "http://127.0.0.1:9")


WRONG: list[tuple[tuple[str, ...], int, str]] = [
    (("ask", "Hi", *NOBODY), 1, "joulebox up"),
    (("ask", "Hi", "--server", "localhost:8080"), 2, "http://HOST:PORT"),
    (("ask", "Hi", "--server", ""), 2, "http://HOST:PORT"),
    (("ask", "Hi", "--server", "http://[::1"), 2, "http://HOST:PORT"),
    (("ask", "\udcff\udcfe", *NOBODY), 2, "UTF-8"),
    (("models", "add", "nowhere.gguf"), 1, "nowhere.gguf"),
    (("models", "add", "."), 1, "GGUF"),
    (("models", "add", "broken.gguf"), 1, "not a GGUF file"),
    (("models", "remove", "nope"), 2, "nope"),
    (("models", "remove", "nope", "--data-dir", "broken.gguf/x"), 1, "broken.gguf"),
    (("receipts", "show", "../../etc", *NOBODY), 1, "joulebox up"),
    (("rig", "run", "--folder", "broken.gguf"), 2, "--folder"),
    (("serve", "--port", "70000"), 2, "port"),
    (("serve", "--port", "0", "--data-dir", "broken.gguf"), 1, "JOULEBOX_DATA_DIR"),
    (("node", "--zone", "Germani"), 2, "DE"),
    (("node", "--meter", "magic:"), 2, "powercap"),
    (("node", "--meter", "magic"), 2, "KIND:ADDRESS"),
    (("node", "--meter", "powercap:/nowhere"), 1, "/nowhere"),
    (("node", "--server", "localhost:8080"), 2, "http://HOST:PORT"),
    (("node", "--meter", "none:", "--data-dir", "broken.gguf"), 1, "broken.gguf"),
    (("up", "--zone", "XX"), 2, "XX"),
    (("demo", "--folder", "nowhere"), 2, "nowhere"),
]


@pytest.mark.parametrize(("words", "exit_code", "part"), WRONG, ids=lambda value: str(value)[:60])
def test_wrong_use(
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    exit_code: int,
    part: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each wrong use ends with its exit code and one sentence that names what is wrong."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    Path("broken.gguf").write_bytes(b"no model")
    code, out, err = joulebox(capsys, *words)
    assert (code, out) == (exit_code, "")
    assert part in err
    assert err.startswith("joulebox: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words", [("nosuch",), ("ask",), ("ask", "Hi", "--max-tokens", "many"), ("models",), ("serve", "--port", "1x")]
)
def test_usage(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """What the command line does not know exits 2 and shows how it goes."""
    code, out, err = joulebox(capsys, *words)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert err


def test_the_help_has_every_command_in_one_section_and_no_sentence_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """`joulebox --help` shows each command once, under what one wants to do, with a whole sentence."""
    code, out, _ = joulebox(capsys, "--help")
    assert code == 0
    placed = [name for names in SECTIONS.values() for name in names]
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert sorted(placed) == sorted(commands)
    assert all(f"\n  {name} " in out for name in placed)
    assert "..." not in out.split("Use:")[1]


SETTINGS: list[tuple[str, str]] = [
    ('pue = "x"', "pue"),
    ("nope = 1", "There is no such setting"),
    ("port = ", "Mend that line"),
    ('reading_hz = "fast"', "reading_hz"),
    ("meters = 5", "meters"),
    ('node = ""', "node"),
    ("embodied_kg = inf", "embodied_kg"),
    ("grace_s = nan", "grace_s"),
    ("embodied_low_kg = 5\nembodied_kg = 1\nembodied_high_kg = 9", "embodied"),
    ('zone = "XX"', "XX"),
    ('database_url = "mysql://user:secret@host/db"', "mysql"),
]


@pytest.mark.parametrize(("toml", "part"), SETTINGS)
def test_wrong_settings(capsys: pytest.CaptureFixture[str], toml: str, part: str) -> None:
    """A wrong line in joulebox.toml exits 2 before anything starts, with one sentence that names it and no secret."""
    Path("joulebox.toml").write_text(toml)
    code, out, err = joulebox(capsys, "serve", "--port", "0")
    assert (code, out) == (2, "")
    assert part in err
    assert "secret" not in err
    assert err.count("\n") == 1


def test_settings_from_files(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Flags win over the environment, that over files it names, those over joulebox.toml; unreadable ones are told."""
    Path("joulebox.toml").write_text('zone = "FR"\npue = 1.1\nmeters = ["model:"]\nnode = "toml"\nport = 1\n')
    Path("zone").write_text("DE\n")
    monkeypatch.setenv("JOULEBOX_ZONE_FILE", "zone")
    monkeypatch.setenv("JOULEBOX_NODE", "environment")
    monkeypatch.setenv("JOULEBOX_NODE_FILE", "zone")
    settings = load_settings(port=2)
    assert (settings.zone, settings.pue, settings.meters) == ("DE", 1.1, ("model:",))
    assert (settings.node, settings.port) == ("environment", 2)
    for content, reason in ((None, "No such file"), (b"\xd0\x00", "not text")):
        if content is None:
            monkeypatch.setenv("JOULEBOX_PUE_FILE", "missing")
        else:
            monkeypatch.setenv("JOULEBOX_PUE_FILE", "rubbish")
            Path("rubbish").write_bytes(content)
        code, _, err = joulebox(capsys, "models", "list")
        assert code == 2
        assert "JOULEBOX_PUE_FILE" in err
        assert reason in err


def test_models_on_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are added, listed with both sizes, and removed without touching the file; what is too big is refused."""
    write_gguf(Path("tiny.gguf"))
    code, out, _ = joulebox(capsys, "models", "add", "tiny.gguf")
    assert (code, out.split(":")[0]) == (0, "tiny")
    [listed] = json.loads(joulebox(capsys, "models", "list", "--json")[1])
    assert (listed["id"], listed["fits"]) == ("tiny", True)
    monkeypatch.setattr(models, "available_memory_bytes", lambda: 1_000_000)
    write_gguf(Path("second.gguf"), general__name="Second")
    code, out, err = joulebox(capsys, "models", "add", "second.gguf")
    assert (code, out) == (1, "")
    assert "1 MB" in err
    assert size(listed["memory_bytes"]) in err
    assert "does not fit" in joulebox(capsys, "models", "list")[1]
    assert joulebox(capsys, "models", "remove", "tiny")[:2] == (0, "tiny removed.\n")
    assert Path("tiny.gguf").is_file()
    assert "No models yet" in joulebox(capsys, "models", "list")[1]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_ctrl_c_cancels_the_prompt(tmp_path: Path) -> None:
    """Ctrl-C while `ask` waits, for its turn or a greener hour, cancels the prompt, says so and exits 130."""
    async with stage(tmp_path) as scene:
        await scene.http.post("/node/v1/lease", content=to_json(offer(wait_s=0.0)))
        wish = ("--placement", "zone:de", "--deadline", "2099-01-01", "--priority", "deferrable")
        command = ("-m", "joulebox", "ask", "Hi", "--server", scene.url, *wish)
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=subprocess.PIPE)
        assert process.stderr is not None
        assert b"waiting" in await process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert await process.stderr.read() == b"joulebox: the prompt was cancelled.\n"
        assert await process.wait() == 130
        [prompt] = (await scene.http.get("/api/v1/prompts")).json()["prompts"]
        assert prompt["state"] == "cancelled"
        placed = prompt["placement"]
        assert (placed["policy"], placed["deadline"]) == ("zone:DE", "2099-01-01T00:00:00+00:00")
        assert prompt["priority"] == "deferrable"


# --- the machine and its meters ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """The words that name the meters of a rig which `joulebox rig run` serves in real time."""
    command = [sys.executable, "-m", "joulebox", "rig", "run", "--folder", str(tmp_path_factory.mktemp("rig"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        addresses = process.stdout.readline().split('"')[1].split()
        yield tuple(word for address in addresses for word in ("--meter", address))
        process.terminate()


def _look(monkeypatch: pytest.MonkeyPatch, look_s: float) -> None:
    """Look at each meter only so long."""
    for name in ("CHECK_S", "CHECK_MAX_S"):
        monkeypatch.setattr(meter_check, name, look_s)


def test_the_doctor_tells_what_and_why_and_how(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor says of each thing its state, why it matters and how to mend it; it exits 1 only if one breaks
    measurements."""
    monkeypatch.setattr(doctor, "LOOK_S", 0.2)
    code, out, err = joulebox(capsys, "doctor", "--meter", "model:", "--json")
    checks = json.loads(out)
    assert err == ""
    assert code == any(check["state"] == "bad" for check in checks)
    [meter] = [check for check in checks if check["name"] == "energy meter"]
    assert (meter["state"], meter["found"]) == ("ok", "model:")
    code, out, err = joulebox(capsys, "doctor", "--meter", "powercap:/nowhere")
    assert (code, err) == (1, "")
    told = " ".join(out.split())
    assert re.match("bad energy meter: .*/nowhere.* leaves every receipt without energy. Mend: ", told)
    assert "measurements here" in out.splitlines()[-1]


def test_meters_are_checked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rig: tuple[str, ...]
) -> None:
    """Each channel shows its value, its mean and its pace; a meter at fault is named with its fault and exits 1."""
    _look(monkeypatch, 0.3)
    code, out, _ = joulebox(capsys, "meters", "check", *rig, "--json")
    counter, heat = json.loads(out)
    assert (code, counter["ok"], heat["ok"]) == (0, True, True)
    package = next(one for one in counter["channels"] if one["name"] == "package-0")
    assert (package["unit"], package["mean_unit"]) == ("J", "W")
    assert 3.0 < package["mean"] < 100.0
    assert 2.0 < package["readings_per_s"] < 11.0
    assert 30.0 < heat["channels"][0]["value"] < 110.0
    code, out, _ = joulebox(capsys, "meters", "check", *rig)
    assert code == 0
    assert out.count("[works]") == 2
    assert "package-0" in out
    code, out, _ = joulebox(capsys, "meters", "check", "--meter", "feed:udp://127.0.0.1:0")
    assert code == 1
    assert "[fails]" in out
    assert "no value" in out


def test_meters_are_calibrated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rig: tuple[str, ...]
) -> None:
    """Under a real load the meters are calibrated and told in a table; the node then names that calibration."""
    for name, value in (("TICK_WATCH_MIN_S", 0.4), ("STEP_S", 0.25)):
        monkeypatch.setattr(calibration, name, value)
    code, out, err = joulebox(capsys, "meters", "calibrate", *rig, "--idle-s", "3")
    assert code == 0
    assert "listening to the idle machine for 3 s" in err
    stored = load_calibration(tmp_path / "data" / "calibration.json")
    assert stored is not None
    assert f"Calibration {stored.id} is kept in" in out
    assert [one.name for one in stored.channels] == ["package-0", "package-0/core", "package-0/dram"]
    for one in stored.channels:
        assert one.name in out
        assert 0.0 < (one.idle_w or 0.0) < 100.0
        assert 0.0 < one.read_s < 0.1
    meters = open_meters(rig[1::2])
    _, named = calibrated(meters, stored)
    for meter in meters:
        meter.close()
    ref = named(SystemClock().utc())
    assert ref is not None
    assert (ref.id, ref.stale) == (stored.id, None)


def test_nothing_is_calibrated_beside_a_node(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Where a node works in the data folder, or nothing there measures, calibrate refuses with one sentence."""
    spool = Spool(tmp_path / "data" / SPOOL)
    code, out, err = joulebox(capsys, "meters", "calibrate", "--meter", "model:")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "stop it, then calibrate" in err
    del spool
    code, out, err = joulebox(capsys, "meters", "calibrate", "--meter", "model:")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no energy or power meter" in err
    assert not (tmp_path / "data" / "calibration.json").exists()


def test_meters_are_served(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rig: tuple[str, ...]
) -> None:
    """`meters serve` prints the setting for the node on the other machine, and both meters can be read by it."""
    _look(monkeypatch, 1.0)
    command = [sys.executable, "-m", "joulebox", "meters", "serve", "--port", "0", *rig]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        setting = process.stdout.readline()
        try:
            assert setting.startswith('JOULEBOX_METERS="remote:http://127.0.0.1:')
            monkeypatch.setenv("JOULEBOX_METERS", setting.split('"')[1])
            # One reading that comes too late, as on a busy machine, is a fault rightly told
            looks = (joulebox(capsys, "meters", "check", "--json") for _ in range(3))
            code, out, _ = next((look for look in looks if look[0] == 0), (1, "", ""))
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
    assert code == 0
    assert [len(meter["channels"]) for meter in json.loads(out)] == [3, 1]
