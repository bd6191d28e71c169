"""Answers that attack: each ends as a failed one, in bounded time, with nothing touched."""

import os
import platform
import socket
import sys
from pathlib import Path

import pytest

from joulebox.bench import sandbox
from joulebox.bench.marking import mark
from joulebox.bench.sandbox import Limits, Unknown, run
from joulebox.bench.task import Answer, Case, CodeTarget, Outcome, Program, Sample, SqlTarget

QUICK = Limits(cpu_s=1, wall_s=3.0, memory_bytes=128 * 2**20, reply_bytes=2**16)
LOCKS = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")

pytestmark = pytest.mark.skipif(not LOCKS, reason="code is locked in on Linux (x86-64, arm64) alone")


def told(source: str, *calls: str, limits: Limits = QUICK, check: str = "") -> Outcome:
    """What comes of this code."""
    return run(Program(language="python", source=source, calls=calls or ("f()",), check=check), limits)


def asked(query: str, setup: str = "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2);") -> Outcome:
    """What comes of this query."""
    return run(Program(language="sql", source=query, setup=setup), QUICK)


def test_code_that_behaves_gives_its_values() -> None:
    """Values of all kinds come back as they are, each call on its own, prose after the code and prints left aside."""
    source = "import heapq\ndef f(x):\n    print('hello')\n    return heapq.nsmallest(1, [x, 2])\n\nThat is it."
    values = told(source, "f(1)", "f('a')", "{1: (None, True)}, {2.5}", "(x for x in [1])", "10**5000")
    results = values.results
    assert values.finished
    assert results[0].value == [1]
    assert (results[1].error or "").startswith("TypeError")
    assert results[2].value == ({1: (None, True)}, frozenset({2.5}))
    assert results[3].value == Unknown(type="generator")
    assert results[4].error is not None


@pytest.mark.parametrize(
    "body",
    [
        "import os\n    os.fork()",
        "import threading\n    threading.Thread(target=print).start()",
        "import os\n    os.posix_spawn('/bin/true', ['true'], {})",
        "import os\n    os.execv('/bin/true', ['true'])",
        "open('/etc/passwd').read()",
        "open('TOUCHED', 'w')",
        "import os\n    os.listdir('/')",
        "import os\n    os.stat('/')",
        "import os\n    os.chmod('FOLDER', 0)",
        "import os\n    os.rmdir('FOLDER')",
        "import os\n    os.kill(os.getppid(), 9)",
        "import os\n    os.kill(PID, 9)",
        "import os\n    os.setuid(0)",
        "import _socket\n    _socket.socket()",
        "import socket\n    socket.create_connection(('127.0.0.1', PORT))",
        "import subprocess\n    subprocess.run(['true'])",
        "import ctypes\n    c = ctypes.CDLL(None)\n    assert c.fork() >= 0 or c.socket(2, 1, 0) >= 0",
        "import ctypes\n    c = ctypes.CDLL(None)\n    assert c.open(b'/', 0) >= 0 or c.ptrace(16, PID, 0, 0) == 0",
        "import resource\n    resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
    ],
)
def test_what_reaches_outside_is_refused(body: str, tmp_path: Path) -> None:
    """Processes, threads, files, signals and the network are refused to Python and to native code alike."""
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        port = listening.getsockname()[1]
        for name, value in (("TOUCHED", folder / "x"), ("FOLDER", folder), ("PID", os.getpid()), ("PORT", port)):
            body = body.replace(name, str(value))
        outcome = told(f"def f():\n    {body}\n    return 'escaped'")
        with pytest.raises(TimeoutError):
            listening.accept()
    assert [result.value for result in outcome.results] in ([None], [])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("while True: pass", "time"),
        ("while True:\n        try:\n            while True: pass\n        except BaseException: pass", "time"),
        ("import signal\n    [signal.signal(s, 1) for s in (2, 15, 24)]\n    while True: pass", "time"),
        ("import threading\n    lock = threading.Lock(); lock.acquire(); lock.acquire()", "time"),
        ("return '#' * 10**6", "output"),
        ("import os\n    while True: os.write(3, b'#' * 9999)", "output"),
        ("import os\n    os._exit(0)", "died"),
        ("import ctypes\n    ctypes.string_at(0)", "died"),
    ],
)
def test_what_does_not_end_is_ended(body: str, fault: str) -> None:
    """Loops, waits, floods and crashes end within the limits, and the outcome says by which."""
    outcome = told(f"def f():\n    {body}", limits=Limits(cpu_s=1, wall_s=2.0, reply_bytes=2**16))
    assert (outcome.finished, outcome.fault) == (False, fault), outcome
    assert outcome.detail.endswith(".")


def test_memory_is_bounded() -> None:
    """Who takes more memory than allowed gets an error, not the machine's memory."""
    outcome = told("def f():\n    return len(bytearray(10**9))")
    assert (outcome.results[0].error or "").startswith("MemoryError")


def test_a_flood_of_prints_goes_nowhere() -> None:
    """What an answer prints is thrown away and does not stand in the way of its value."""
    assert told("def f():\n    print('#' * 10**6)\n    return 1").results[0].value == 1


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the old calling convention is x86's")
def test_the_old_door_of_the_kernel_is_shut() -> None:
    """Native code may ask what the lock allows, and ends the process when it asks through the 32-bit entrance."""
    native = (
        "import ctypes\ndef f(code):\n    c = ctypes.CDLL(None)\n    c.mmap.restype = ctypes.c_void_p\n"
        "    page = c.mmap(None, 4096, 7, 0x22, -1, 0)\n    ctypes.memmove(page, bytes.fromhex(code), 8)\n"
        "    return ctypes.CFUNCTYPE(ctypes.c_int)(page)() > 0"
    )
    getpid, getpid_of_32_bits = "b8270000000f05c3", "b814000000cd80c3"
    outcome = told(native, f"f({getpid!r})", f"f({getpid_of_32_bits!r})")
    assert [result.value for result in outcome.results] == [True]
    assert outcome.fault == "died"


def test_code_cannot_say_that_it_is_right() -> None:
    """Forged values, an early exit and an object that equals everything do not pass a test."""
    target = CodeTarget(entry_point="f", cases=(Case(call="f(2)", expected=4),))
    sample = Sample(id="one", prompt="?", target=target)
    forged = """import os
for n in range(3, 9):
    try: os.write(n, b'{"value": 3}' + bytes([10]) + b'{"finished": ""}' + bytes([10]))
    except OSError: pass
os._exit(0)"""
    same = "class Same:\n    def __eq__(self, other): return True\ndef f(x): return Same()"
    for source in (forged, same, "def f(x): raise SystemExit(0)", "import sys\nsys.exit(0)", "def f(x): return 5"):
        judged = mark(sample, Answer(id="one", text=f"```python\n{source}\n```"))
        assert (judged.correct, judged.mark) == (False, "wrong"), source
    assert mark(sample, Answer(id="one", text="def f(x):\n    return x * x")).correct


def test_a_check_program_counts_only_when_it_ends() -> None:
    """Tests written as a program pass when they run to the end, and not when the answer leaves before."""
    sample = Sample(
        id="one", prompt="?", target=CodeTarget(entry_point="f", check="assert f() == 1", prefix="import math")
    )
    for source, right in (
        ("def f():\n    return math.ceil(0.5)", True),
        ("def f():\n    return 2", False),
        ("import os\nos._exit(0)\ndef f(): ...", False),
        ("def f():\n    raise SystemExit", False),
    ):
        assert mark(sample, Answer(id="one", text=source)).correct is right, source


@pytest.mark.parametrize(
    "query",
    [
        "ATTACH 'PATH' AS other",
        "VACUUM INTO 'PATH'",
        "DROP TABLE t",
        "DELETE FROM t",
        "INSERT INTO t VALUES (3)",
        "CREATE TABLE u (a)",
        "PRAGMA journal_mode = WAL",
        "SELECT 1; DROP TABLE t",
        "SELECT load_extension('PATH')",
        "SELECT readfile('/etc/passwd')",
        "SELECT length(zeroblob(2000000000))",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT hex(randomblob(40000)) FROM c",
        "SELECT",
    ],
)
def test_a_query_can_only_read(query: str, tmp_path: Path) -> None:
    """Writing, attaching, loading, endless and huge queries end as failed ones."""
    outcome = asked(query.replace("PATH", str(tmp_path / "x.db")))
    assert not [result for result in outcome.results if result.error is None]
    assert list(tmp_path.iterdir()) == []


def test_a_query_gives_its_rows() -> None:
    """Rows come back with their types, whatever the query does to read them."""
    rows = asked("SELECT a, NULL, 1.5, 'x', sum(a) OVER (ORDER BY a) FROM t ORDER BY a DESC;").results[0].value
    assert rows == [(2, None, 1.5, "x", 3), (1, None, 1.5, "x", 1)]


def test_where_code_cannot_be_locked_in_it_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the kernel's lock Python is not run and stays unscored, and SQL is still answered."""
    cell = Path(sandbox.__file__).with_name("cell.py").read_text()
    weak = tmp_path / "cell.py"
    weak.write_text(cell.replace("known is None", "True"))
    monkeypatch.setattr(sandbox, "_CELL", weak)
    touched = tmp_path / "touched"
    outcome = told(f"open({str(touched)!r}, 'w')\ndef f(): return 1")
    assert (outcome.fault, outcome.finished, touched.exists()) == ("unavailable", False, False)
    sample = Sample(id="one", prompt="?", target=SqlTarget(setup="", rows=((1,),)))
    assert mark(sample, Answer(id="one", text="SELECT 1")).correct
