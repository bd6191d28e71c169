"""Links and pipes that somebody planted where a file is to be written: what they lead to is not touched."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gguf_files import gguf_bytes
from joulebox.errors import JouleboxError
from joulebox.host import fresh_file, kept_file
from joulebox.node.calibration import Calibration, load_calibration, store_calibration
from joulebox.node.hub import UNDER_WAY, Hub, HubFile
from joulebox.node.models import Registry
from joulebox.node.spool import Spool
from joulebox.protocol import Finish
from joulebox.server.store import sqlite

FINISH = Finish(outcome="done", answer="secret", finish_reason="stop")
DIGEST = "ab" * 32


def _deliver(folder: Path) -> None:
    Spool(folder).put("t", FINISH)


def _register(folder: Path) -> None:
    file = folder / "own.gguf"
    file.write_bytes(gguf_bytes())
    Registry(folder).add(file)


def _calibrate(folder: Path) -> None:
    path = folder / "calibration.json"
    calibration = Calibration(id="c", at="2026-11-23T08:00:00+00:00", marks={"m": "f"}, channels=())
    store_calibration(path, calibration)
    assert load_calibration(path) == calibration


def _download(folder: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="the extra `models` brings huggingface_hub")
    (folder / UNDER_WAY).mkdir(exist_ok=True)
    file = HubFile(
        repository="a/b", name="c", revision=DIGEST[:40], size_bytes=1, sha256=DIGEST, licence=None, gated=False
    )
    Hub().download(file, folder / UNDER_WAY / "c.part")


def _serve(folder: Path) -> None:
    sqlite.lock(folder / "joulebox.db").close()


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("planted", "write", "written"),
    [
        ("t.part", _deliver, "t.json"),
        ("models.new", _register, "models.json"),
        ("calibration.part", _calibrate, "calibration.json"),
    ],
)
def test_a_link_in_the_way_is_taken_away(
    tmp_path: Path, planted: str, write: Callable[[Path], None], written: str, *, there: bool
) -> None:
    """Where a new file is written, a link that lies there goes, its target stays, and the file is one."""
    victim, folder = tmp_path / "victim", tmp_path / "data"
    folder.mkdir()
    if there:
        victim.write_text("dear")
    (folder / planted).symlink_to(victim)
    write(folder)
    assert (victim.read_text() if there else victim.exists()) == ("dear" if there else False)
    assert (folder / written).is_file()
    assert not (folder / written).is_symlink()


@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe", "folder"])
@pytest.mark.parametrize(
    ("planted", "write"),
    [
        ("lock", _deliver),
        ("models.lock", _register),
        (f"{UNDER_WAY}/c.part", _download),
        ("joulebox.db.lock", _serve),
    ],
)
def test_what_is_no_file_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str, write: Callable[[Path], None], kind: str
) -> None:
    """A lock, or a part that is gone on with, which is a link, a pipe or a folder is refused in one sentence."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    victim, folder = tmp_path / "victim", tmp_path / "data"
    place = folder / planted
    place.parent.mkdir(parents=True)
    if kind == "link":
        victim.write_text("dear")
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(victim)
    with pytest.raises(JouleboxError, match="should be a file: remove it") as caught:
        write(folder)
    assert caught.value.code == "bad_setting"
    assert (victim.read_text() if victim.exists() else None) == ("dear" if kind == "link" else None)


def test_a_pipe_that_somebody_reads_is_no_file(tmp_path: Path) -> None:
    """Nobody gets an answer by holding a pipe open where a file is to be."""
    os.mkfifo(tmp_path / "lock")
    reader = os.open(tmp_path / "lock", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(JouleboxError, match="should be a file"):
            kept_file(tmp_path / "lock")
    finally:
        os.close(reader)


def test_who_is_faster_is_not_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is planted again between taking away and making is not followed."""
    place, victim = tmp_path / "x.part", tmp_path / "victim"
    victim.write_text("dear")
    monkeypatch.setattr(Path, "unlink", lambda _self, **_: place.symlink_to(victim))
    with pytest.raises(FileExistsError):
        fresh_file(place)
    assert victim.read_text() == "dear"


def test_what_is_kept_is_gone_on_with(tmp_path: Path) -> None:
    """A file that is there is written on at its end, and is as long as it was before."""
    (tmp_path / "x").write_bytes(b"abc")
    with kept_file(tmp_path / "x") as file:
        assert file.tell() == 3
        file.write(b"d")
    assert (tmp_path / "x").read_bytes() == b"abcd"
