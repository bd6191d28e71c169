"""The fenced blocks of README and docs, and a shell that runs those of a page as somebody would who reads it.

Before a fence a page may say, each on a line of its own:

    <!-- not run: needs root -->     the block is only looked at, not run; the reason begins as one of REASONS
    <!-- fails: what it says here --> it may end with exit code 1
    <!-- server stopped -->       the page's server is stopped before it
    <!-- prints -->                  the block before it prints this; figures may differ, `...` stands for any lines

and anywhere on the page `<!-- run by: tests/test_x.py -->` where a test of its own runs all of it. A block under a line
such as "`joulebox.toml`:" is written into that file. `ID` is a receipt's id and `NAME` the node's name; a backup with a
time in its name is the newest one, and `~/Downloads/model.Q4_K_M.gguf` is the model.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
MADE: Final = "<!-- Made from the code by `make docs`; edits here are lost. -->"
REASONS: Final = (
    "needs root",
    "needs hardware",
    "needs a network",
    "needs another machine",
    "needs a program",
    "needs time",
    "an outline",
)
SHELL: Final = ("bash", "sh")
FOREVER: Final = re.compile(r"^(?:[A-Z_]+=\S+ )*joulebox (?:up|serve|rig run|meters serve|node(?= --| *$))(?!.*[&;|])")
PLACEHOLDERS: Final = ("ID", "NAME")
WAIT_S: Final = 240
_READY: Final = """
ready() {
  for _ in $(seq 600); do
    curl -fs http://127.0.0.1:8080/api/v1/models 2> /dev/null | grep -q '"available":true' && return 0
    sleep 0.2
  done
  echo "nothing answers at http://127.0.0.1:8080 after two minutes; this was said:" >&2
  cat ./*.log .*.log >&2
  exit 1
}
"""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: where it begins, its language, what the page says of it, and the file that it is written into."""

    page: Path
    line: int
    language: str
    text: str
    marks: Mapping[str, str]
    file: str | None = None

    @property
    def where(self) -> str:
        """As editors open it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def not_run(self) -> str | None:
        """Why it is not run."""
        return self.marks.get("not run")


def pages() -> list[Path]:
    """Every page that people write, and those made of the code."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def run_by(page: Path) -> str | None:
    """The test file that runs a page, where it has one of its own."""
    found = re.search(r"^<!-- run by: (\S+) -->$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page. Raises `AssertionError` where a fence is never closed."""
    lines, found, at = page.read_text(encoding="utf-8").splitlines(), list[Block](), 0
    while at < len(lines):
        fence = re.match(r"^(\s*)(```+)(\S*)", lines[at])
        if fence is None:
            at += 1
            continue
        end = next((n for n in range(at + 1, len(lines)) if lines[n].strip() == fence[2]), None)
        assert end is not None, f"{page.relative_to(ROOT)}:{at + 1}: this block is never closed: end it with {fence[2]}"
        text = "".join(f"{line.removeprefix(fence[1])}\n" for line in lines[at + 1 : end])
        marks, file = _before(lines[:at])
        found.append(Block(page=page, line=at + 1, language=fence[3], text=text, marks=marks, file=file))
        at = end + 1
    return found


def _before(lines: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """The comments right above a fence, and the file that the line above them names."""
    marks: dict[str, str] = {}
    for line in reversed(lines):
        comment = re.fullmatch(r"\s*<!-- ([a-z ]+?)(?:: (.*?))? -->\s*", line)
        if comment:
            marks[comment[1]] = comment[2] or ""
        elif line.strip():
            named = re.match(r"^\s*`([^`\s]+\.[a-z]+)`.*:$", line)
            return marks, named[1] if named else None
    return marks, None


def script(page: Path) -> str:
    """What the page has people do, as one script of bash. Says `@@ LINE` before what each block prints."""
    parts, own, steps = ["set -e", _READY], False, list[str]()
    wanted = [block for block in blocks(page) if block.not_run is None and "prints" not in block.marks]
    for session, group in groupby(wanted, key=lambda block: block.language == "python" and block.file is None):
        if session:
            steps.append(_session(list(group)))
            continue
        for block in group:
            if block.file is not None:
                steps.append(_written(block))
            elif block.language in SHELL:
                own = own or bool(re.search(r"^joulebox (?:up|serve)\b", block.text, re.MULTILINE))
                steps.append(_typed(block))
    if not own:
        parts.append("joulebox up > up.log 2>&1 &\nserver=$!\nready")
    if any(re.search(_placeholder("ID"), block.text) for block in blocks(page)):
        parts.append("joulebox ask 'What is the capital of France?' --max-tokens 8 --json > .first.json 2> /dev/null")
        parts.append('ID=$(python -c \'import json; print(json.load(open(".first.json"))["receipt"]["id"])\')')
    parts.append("NAME=$(python -c 'import platform; print(platform.node())')")
    return "\n".join([*parts, *steps, "true"])


def runs(page: Path) -> bool:
    """Whether there is anything to run on a page."""
    kinds = (*SHELL, "python")
    return run_by(page) is None and any(
        block.language in kinds and block.not_run is None and block.file is None for block in blocks(page)
    )


def _session(together: Sequence[Block]) -> str:
    """Blocks of Python without a shell between them are one program: each goes on where the one before it ended."""
    name = f"block{together[0].line}.py"
    text = "".join(f'print("@@ {block.line}", flush=True)\n{block.text}' for block in together)
    return f"cat > {name} <<'END OF PYTHON'\n{text}END OF PYTHON\npython {name}\n"


def _written(block: Block) -> str:
    file = block.file or ""
    return f"mkdir -p '{Path(file).parent}'\ncat > '{file}' <<'END OF {block.line}'\n{block.text}END OF {block.line}\n"


def _typed(block: Block) -> str:
    text = block.text.replace("\\\n", " ")
    lines: list[str] = []
    for line in text.splitlines():
        command = line.partition("  #")[0].rstrip()
        if FOREVER.match(command):
            up = re.search(r"\bjoulebox (?:up|serve)\b", command)
            lines.append(f"{command} > .{len(lines)}.log 2>&1 &\n{'ready' if up else 'sleep 1'}")
        else:
            lines.append(line)
    typed = "\n".join(lines) + "\n"
    for name in PLACEHOLDERS:
        typed = re.sub(_placeholder(name), f"${name}", typed)
    typed = re.sub(r"joulebox-backup-\d+T\d+Z\.zip", "$(ls -t joulebox-backup-*.zip | head -1)", typed)
    return _step(block, typed)


def _placeholder(name: str) -> str:
    return rf"(?<![\w$-]){name}(?![\w=-])"


def _step(block: Block, typed: str) -> str:
    if "fails" in block.marks:
        typed = f"code=0; {{\n{typed}}} || code=$?\n[ $code -le 1 ]\n"
    if "server stopped" in block.marks:
        typed = f'kill "$server"\nwait "$server" || true\n{typed}'
    return f"echo '@@ {block.line}'\n{typed}"


def _alone(text: str) -> list[str]:
    """Where this is run by root the page has a network of its own, so that its ports are nobody else's."""
    own = ["unshare", "--net", "bash", "-c", "ip link set lo up"]
    if os.geteuid() or subprocess.run(own, check=False, capture_output=True).returncode:
        return ["bash", "-c", text]
    return ["unshare", "--net", "bash", "-c", 'ip link set lo up; exec bash -c "$0"', text]


def carried_out(page: Path, home: Path, model: Path) -> tuple[int, dict[int, str], str]:
    """Run a page in an empty folder below `home`, where the model's file lies. The exit code, what each block printed,
    by its line, and everything that was said."""
    models, work = home / ".local/share/joulebox/models", home / "work"
    models.mkdir(parents=True)
    work.mkdir()
    shutil.copy(model, models / model.name)
    (home / "Downloads").mkdir()
    (home / "Downloads" / "model.Q4_K_M.gguf").symlink_to(model)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOULEBOX_", "XDG_"))}
    environment = kept | {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "80",
    }
    with (home / "out").open("w+", encoding="utf-8") as out:
        shell = subprocess.Popen(
            _alone(script(page)), cwd=work, env=environment, stdout=out, stderr=subprocess.STDOUT, process_group=0
        )
        try:
            code = shell.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            _end(shell)
        out.seek(0)
        said = out.read()
    printed = re.split(r"^@@ (\d+)\n", said, flags=re.MULTILINE)
    return code, dict(zip(map(int, printed[1::2]), printed[2::2], strict=True)), said


def _end(shell: "subprocess.Popen[bytes]") -> None:
    """Whatever the page has started: first asked, then ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(shell.pid, number)
        except ProcessLookupError:
            return
        try:
            shell.wait(5)
        except subprocess.TimeoutExpired:
            continue


def unlike(shown: str, printed: str) -> list[str]:
    """Lines of a page's example that the command did not print, in order; figures may differ."""
    told = [_without_figures(line) for line in printed.splitlines()]
    missing = []
    for line in shown.splitlines():
        wanted = _without_figures(line)
        if wanted in {"", "...", "…"}:
            continue
        if wanted in told:
            told = told[told.index(wanted) + 1 :]
        else:
            missing.append(line)
    return missing


def _without_figures(line: str) -> str:
    return " ".join(re.sub(r"\d+(?:[.,:]\d+)*", "0", line).split())
