"""A report of a period for the pages' stage: one node, a day, with everything that a report can hold."""

from typing import Any, Final

from joulebox.server.report import BOUNDARY, UNIT

Json = dict[str, Any]


def _grams(g: float) -> Json:
    return {"g": g, "low": 0.6 * g, "high": 1.5 * g}


def _shown(part: str, method: str, g: str, energy: str | None) -> Json:
    low, high = f"{0.6 * float(g):.3f}", f"{1.5 * float(g):.3f}"
    return {"part": part, "method": method, "g": g, "low": low, "high": high, "energy": energy}


def _factor(symbol: str, name: str, value: float, unit: str, source: str, **more: Any) -> Json:
    told = {"symbol": symbol, "name": name, "value": value, "unit": unit, "source": source}
    return told | {"low": None, "high": None, "method": "sourced", "quality": "", "licence": "ODbL 1.0"} | more


_PARTS: Final = (
    ("answer", "O", "simulated", "1.412", "4.128"),
    ("load", "O", "simulated", "0.103", "0.301"),
    ("around", "O", "simulated", "0.340", "0.994"),
    ("failed", "O", "modelled", "0.021", "0.061"),
    ("idle", "O", "simulated", "3.870", "11.316"),
    ("server", "O", "modelled", "0.012", "0.035"),
    ("making", "M", "modelled", "0.310", None),
    ("waiting", "M", "modelled", "4.905", None),
)
REPORT: Final[Json] = {
    "schema": "joulebox.sci-report/1",
    "method_version": "2026.11.22",
    "made": "2026-11-23T10:20:00+00:00",
    "period": {"start": "2026-11-22T10:20:00+00:00", "until": "2026-11-23T10:20:00+00:00", "s": 86_400.0},
    "zone": None,
    "model": None,
    "simulated": True,
    "at_least": True,
    "counts": {
        "answers": 61,
        "input_tokens": 2_410,
        "output_tokens": 7_980,
        "tokens": 10_390,
        "fruitless": 2,
        "control_runs": 3,
        "nodes": 1,
        "service_s": 86_400.0,
        "unknown_s": 5_400.0,
    },
    "score": {
        "per_token": _grams(1.056e-3),
        "per_million_tokens": _grams(1056.0),
        "per_output_token": _grams(1.375e-3),
        "per_answer": _grams(0.18),
    },
    "total": _grams(10.973),
    "energy_kwh": 0.016835,
    "waiting": {"total": _grams(8.775), "per_answer": _grams(0.144), "kwh_per_answer": 1.855e-4},
    "components": [{"part": part, "term": term, "method": method} for part, term, method, *_ in _PARTS],
    "shown": {
        "unit": "g",
        "energy_unit": "Wh",
        "components": [_shown(part, method, g, energy) for part, _, method, g, energy in _PARTS],
        "total": {"g": "10.973", "low": "6.584", "high": "16.460", "energy": "16.835"},
    },
    "nodes": [
        {
            "name": "atelier",
            "zone": "DE",
            "since": "2026-11-22T10:20:00+00:00",
            "service_s": 86_400.0,
            "asked_s": 410.0,
            "control_s": 35.0,
            "idle_s": 80_555.0,
            "unknown_s": 5_400.0,
            "scopes": ["cpu", "dram"],
            "missing": ["wall"],
            "simulated": True,
            "idle_w": 26.1,
        }
    ],
    "coefficients": [
        _factor("I", "grid DE, average, lifecycle, mean by energy", 342.0, "g/kWh", "Electricity Maps (ODbL)",
                low=171.0, high=513.0, quality="yearly"),
        _factor("TE", "making atelier, over EL = 4 years", 316.0, "kg", "generic desktop", low=190.0, high=487.0,
                method="modelled", licence="named with each part on the receipts"),
        _factor("PUE", "energy of the building per energy of the machine", 1.0, "", "not metered: taken as 1.0",
                method="modelled", licence="the operator's own"),
    ],
    "unknown": [
        (
            "atelier: what it drew in 1.5 h of its 24 h in service is unknown, not zero. Waiting as it last did it "
            "would have emitted 13.4 g more (modelled)."
        ),
        "atelier: no meter covers wall.",
        "The network, and the devices people ask from, are not in the sum.",
    ],
    "boundary": BOUNDARY,
    "unit": UNIT,
}  # fmt: skip
