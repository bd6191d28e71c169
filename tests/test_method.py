"""The same evidence gives the same receipt for as long as the method's version is the same.

`method.json` holds what this version makes of the cases. Who changes the arithmetic on purpose takes the next
`METHOD_VERSION` and writes it again (`python tests/test_method.py`); its difference shows which figures moved.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from joulebox.accounting import METHOD_VERSION, account
from joulebox.accounting.attempts import left_alone
from joulebox.accounting.figures import reckon
from joulebox.metering import counted, curve_of, idle_spreads
from joulebox.model import ReadingKind
from joulebox.plain import plain
from method_cases import Case, cases
from traces import PLACEMENT, S

KEPT = Path(__file__).with_name("method.json")
LEFT_OUT = {"schema", "id", "placement", "model", "engine", "node", "zone", "seed", "meters", "calibration", "usage"}
DIGITS = 8
CASES = cases()


def figures(case: Case) -> Any:
    """All that the method makes of a case, in plain numbers and words."""
    receipt = account(case.trace, case.factors, receipt_id="r", placement=PLACEMENT, earlier=case.earlier)
    told: dict[str, Any] = {key: value for key, value in vars_of(receipt).items() if key not in LEFT_OUT}
    told["carbon"] = {key: told["carbon"][key] for key in ("operational", "embodied", "total")} | {
        "slots": told["carbon"]["intensity"]["slots"]
    }
    told["sci"] = {name: {k: v for k, v in one.items() if k != "boundary"} for name, one in told["sci"].items()}
    told["parts"] = plain(dict(reckon(case.trace).parts))
    drawn = [one for one in case.trace.series if one.channel.kind is not ReadingKind.TEMPERATURE_C]
    told["counted"] = [
        None if (found := counted(one, 20 * S, 27 * S)) is None else [found.amount, found.edge] for one in drawn
    ]
    told["quiet"] = [
        [[each.guard_s, each.length_s, each.rms_j, each.windows] for each in idle_spreads(curve_of(one), one.channel)]
        for one in drawn
    ]
    told["alone"] = [left_alone(one.trace) for one in case.earlier if one.trace]
    return rounded(told)


def vars_of(receipt: Any) -> dict[str, Any]:
    return dict(plain(receipt))


def rounded(value: Any) -> Any:
    """Numbers with as many digits as two machines may be expected to agree on."""
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def differences(kept: Any, found: Any, where: str = "") -> list[str]:
    """What is not as it was kept, by its path."""
    if isinstance(kept, dict) and isinstance(found, dict) and kept.keys() == found.keys():
        return [each for key in kept for each in differences(kept[key], found[key], f"{where}.{key}")]
    if isinstance(kept, list) and isinstance(found, list) and len(kept) == len(found):
        return [
            each for n, (a, b) in enumerate(zip(kept, found, strict=True)) for each in differences(a, b, f"{where}.{n}")
        ]
    if isinstance(kept, float) and isinstance(found, float):
        same = abs(kept - found) <= 1e-7 * abs(kept) + 1e-12
    else:
        same = kept == found
    return [] if same else [f"{where}: {kept} was kept, {found} was found"]


@pytest.fixture(scope="module")
def kept() -> Any:
    return json.loads(KEPT.read_text())


def test_the_cases_are_of_this_version(kept: Any) -> None:
    """What is kept was made by the method's present version, and of every case."""
    assert kept["method_version"] == METHOD_VERSION, "python tests/test_method.py writes it again"
    assert list(kept["cases"]) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_receipt_stays_as_it_is(name: str, kept: Any) -> None:
    """No figure, verdict or sentence of a receipt changes without a new version of the method."""
    assert differences(kept["cases"][name], json.loads(json.dumps(figures(CASES[name])))) == []


def write() -> None:
    """What this version makes of every case, one a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(figures(case), ensure_ascii=False)}" for name, case in CASES.items()]
    head = f'{{"method_version": "{METHOD_VERSION}", "cases": {{\n'
    KEPT.write_text(head + ",\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    write()
