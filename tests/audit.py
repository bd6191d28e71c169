"""`make audit`: what the pins are, as far as that can be told without the network, and what is known against them.

    python tests/audit.py [--offline]

Of every pin: is it what is installed, under which licence, and are its files what its own record says. Then pip-audit
asks OSV for known vulnerabilities of exactly these versions; where OSV cannot be reached, that is said, and not taken
for good news. Exit code 1 where something is wrong, 0 otherwise.
"""

import argparse
import base64
import hashlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

PINS: Final = Path(__file__).parents[1] / "constraints.txt"
FREE: Final = re.compile(r"\b(MIT|X11|BSD|0BSD|Apache|ISC|PSF|Python|CNRI|Zlib|CC0|Unlicense|HPND|Public Domain)", re.I)
ASIDE: Final = re.compile(r"\b(MPL|Mozilla)", re.I)
"""Copyleft of single files: what only uses them, unchanged, is free of it."""
TEXT: Final = {
    "MIT": "Permission is hereby granted, free of charge",
    "BSD": "Redistribution and use in source and binary forms",
    "Apache-2.0": "Apache License",
    "MPL-2.0": "Mozilla Public License",
}
AUDIT_S: Final = 300


def main(words: Sequence[str] | None = None) -> int:
    """Say what was found."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--offline", action="store_true", help="ask nobody")
    chosen = options.parse_args(words)
    pins = [Requirement(line) for line in PINS.read_text().splitlines() if line.strip()]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    found = {pin.name: one for pin in here if (one := _installed(pin.name)) is not None}
    wrong = [*_versions(here, found), *_licences(found), *_files(found)]
    print(f"{len(pins)} pins, {len(here)} of them for this machine, {len(found)} of those installed.")
    for kind, count in Counter(_kind(licence_of(one)) for one in found.values()).most_common():
        print(f"  {kind}: {count}")
    print("Pins hold versions, no hashes: installed files were held against the digests of their own records.")
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    known = "Known vulnerabilities: not asked." if chosen.offline else _vulnerabilities(here)
    print(known)
    return 1 if wrong or known.startswith("VULNERABLE") else 0


def _installed(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


Found = dict[str, importlib.metadata.Distribution]


def _versions(pins: Sequence[Requirement], found: Found) -> Iterator[str]:
    for pin in pins:
        if pin.name in found and not pin.specifier.contains(found[pin.name].version, prereleases=True):
            yield f"{pin} is pinned and {found[pin.name].version} installed: run make clean, then make check."


def licence_of(one: importlib.metadata.Distribution) -> str:
    """The licence that a distribution tells, by expression, classifier, field or text; empty where it tells none."""
    told = one.metadata.json
    kinds = [line.rpartition("::")[2].strip() for line in told.get("classifier", ()) if line.startswith("License")]
    named = str(told.get("license_expression") or "; ".join(kinds) or str(told.get("license", "")).split("\n")[0])
    if named.strip():
        return named.strip()
    for file in one.files or ():
        if re.match(r"(licen[cs]e|copying)", file.name, re.I):
            text = file.read_text() or ""
            return next((kind for kind, words in TEXT.items() if words in text), "")
    return ""


def _kind(licence: str) -> str:
    if FREE.search(licence):
        return "free for any use (MIT, BSD, Apache and their like)"
    return "free beside other code (MPL)" if ASIDE.search(licence) else f"not told, or other: {licence or 'nothing'}"


def _licences(found: Found) -> Iterator[str]:
    for name, one in found.items():
        licence = licence_of(one)
        if not FREE.search(licence) and not ASIDE.search(licence) and name not in KNOWN:
            yield f"{name} {one.version} has the licence {licence or 'that nobody told'}: look at it first."


KNOWN: Final = {
    "axe-playwright-python": "MIT, as its repository says; used by tests alone",
    "promql-parser": "Apache-2.0, as its repository says; used by tests alone",
}
"""Licences that a distribution itself does not tell."""


def _files(found: Found) -> Iterator[str]:
    for name, one in found.items():
        for file in one.files or ():
            if file.hash is None or file.name.endswith(".pyc"):
                continue
            path = Path(str(file.locate()))
            if not path.is_file() or _digest(path, file.hash.mode) != file.hash.value:
                yield f"{name} {one.version}: {file} is not the file that was installed. Run make clean."
                break


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return base64.urlsafe_b64encode(hashlib.file_digest(file, kind).digest()).decode().rstrip("=")


def _vulnerabilities(pins: Sequence[Requirement]) -> str:
    """What pip-audit was told by OSV about these versions."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{pin.name}{pin.specifier}\n" for pin in pins))
        file.flush()
        command = [uv, "tool", "run", "-q", "pip-audit", "--disable-pip", "--no-deps", "-s", "osv", "-r", file.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return _not_asked(type(error).__name__)
    if done.returncode == 0:
        return f"Known vulnerabilities: none of {len(pins)} pins, by OSV."
    if re.search(r"Found \d+ known vulnerabilit", done.stderr):
        return f"VULNERABLE:\n{done.stdout}"
    return _not_asked((done.stderr.strip().splitlines() or ["it said nothing"])[-1])


def _not_asked(why: str) -> str:
    return f"Known vulnerabilities: NOT CHECKED, OSV could not be asked ({why[:160]}). Run it where there is a network."


if __name__ == "__main__":
    raise SystemExit(main())
