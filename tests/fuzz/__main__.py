"""`make fuzz`: atheris on each parser, one process each, for a while; what it kept is where the next run begins.

`python tests/fuzz --seconds 480` shares that time among the targets. A find ends the run with exit code 1 and leaves
the input that made it in the folder of that target; a run of all targets with fewer inputs than `LEAST` ends so too.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

CORPUS = Path(".cache/fuzz")
BYTES_MAX = 4_096
MEMORY_MB = 1_024
INPUT_S = 10
LEAST = 1_000_000
DONE = re.compile(r"Done (\d+) (?:runs )?in (\d+) second|stat::number_of_executed_units:\s*(\d+)")


def main() -> int:
    """All targets that are worth it, or those named; the number of inputs each took."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("targets", nargs="*")
    options.add_argument("--seconds", type=int, default=480, help="for all targets together (480)")
    options.add_argument("--inside", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.inside:
        _inside(chosen.inside, chosen.seconds)
    from fuzz.targets import TARGETS

    names = chosen.targets or list(TARGETS)
    each_s = max(1, round(chosen.seconds / len(names)))
    total, failed = 0, 0
    for name in names:
        command = [sys.executable, __file__, "--inside", name, "--seconds", str(each_s)]
        before_s = _children_s()
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        used_s = max(_children_s() - before_s, 0.01)
        found = re.findall(r"^#(\d+)", done.stderr, re.MULTILINE)
        inputs = max(map(int, found), default=0)
        total, failed = total + inputs, failed + (done.returncode != 0)
        told = f"{name:20} {inputs:>10,} inputs, {inputs / used_s:>9,.0f} for a second of the processor"
        print(told + ("" if done.returncode == 0 else ": FOUND"), flush=True)
        if done.returncode:
            print(done.stderr[-3_000:])
    print(f"{'all':20} {total:>10,} inputs to {len(names)} targets, {failed} finds")
    if not chosen.targets and total < LEAST:
        print(f"That is fewer than {LEAST:,}: give it more --seconds.")
        return 1
    return 1 if failed else 0


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _inside(name: str, s: int) -> None:
    """One target under atheris; does not return."""
    import atheris

    with atheris.instrument_imports(include=["joulebox"]):
        from fuzz.targets import TARGETS
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    os.environ.setdefault("PYTHONHASHSEED", "0")
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={s}",
            f"-max_len={BYTES_MAX}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-timeout={INPUT_S}",
            f"-artifact_prefix={corpus}/find-",
            "-seed=1",
            "-print_final_stats=1",
        ],
        TARGETS[name],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    sys.path[:0] = ["tests"]
    raise SystemExit(main())
