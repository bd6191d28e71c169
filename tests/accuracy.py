"""`make accuracy`: what Joulebox says beside the truth of the simulated machine; writes `docs/accuracy.md`.

Each part is a module with a `section()` and can be run alone: `python tests/accuracy.py --only realtime`.
"""

import argparse
import sys
from importlib import import_module

from accuracy_page import PAGE, Section, with_part

PARTS = {
    "realtime": "accuracy_realtime",
    "peers": "accuracy_peers",
    "intervals": "accuracy_intervals",
    "costs": "costs",
}
"""In the order in which they run. A new part needs its marks in the page, or is put at its end."""


def main() -> int:
    """Run the parts and write each into the page as soon as it is done; 0 if no bound was missed."""
    parser = argparse.ArgumentParser(description="Receipts beside the truth of the simulated machine.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=" ".join(PARTS))
    missed: list[str] = []
    for name in parser.parse_args().only:
        print(f"--- {name}", flush=True)
        section: Section = import_module(PARTS[name]).section()
        PAGE.write_text(with_part(PAGE.read_text(encoding="utf-8"), name, section.markdown), encoding="utf-8")
        missed += section.missed
    for one in missed:
        print(f"Missed: {one}.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
