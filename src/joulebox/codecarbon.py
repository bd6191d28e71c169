"""A receipt in the columns of codecarbon's `emissions.csv`, for people whose scripts read that file. Pure.

The columns are those that codecarbon 3 documents for its CSV output (docs, Output). What does not fit:

- `emissions` are those of electricity; what making the machine emitted is in no column of codecarbon's.
- `energy_consumed` is `answer` times PUE in the scope that the receipt names, also where it is the wall; codecarbon's
  own is the sum of processor, card and memory. `cpu_energy`, `gpu_energy` and `ram_energy` stand only where a meter
  measured them, and need not add up to it.
- Intervals, grades and verdicts have no column: receipts that are invalid are left out.
- What a receipt does not hold (place on the map, Python, use in percent) is empty, never guessed.
"""

from collections.abc import Mapping
from typing import Any, Final

from joulebox.columns import Row
from joulebox.units import G_PER_KG, kwh_from_j

COLUMNS: Final = (
    "timestamp",
    "project_name",
    "run_id",
    "experiment_id",
    "duration",
    "emissions",
    "emissions_rate",
    "cpu_power",
    "gpu_power",
    "ram_power",
    "cpu_energy",
    "gpu_energy",
    "ram_energy",
    "energy_consumed",
    "water_consumed",
    "country_name",
    "country_iso_code",
    "region",
    "cloud_provider",
    "cloud_region",
    "os",
    "python_version",
    "codecarbon_version",
    "cpu_count",
    "cpu_model",
    "gpu_count",
    "gpu_model",
    "longitude",
    "latitude",
    "ram_total_size",
    "tracking_mode",
    "cpu_utilization_percent",
    "gpu_utilization_percent",
    "ram_utilization_percent",
    "ram_used_gb",
    "on_cloud",
    "pue",
    "wue",
)
PROJECT: Final = "joulebox"
_PARTS: Final = {"cpu": "cpu", "gpu": "gpu", "ram": "dram"}


def codecarbon_row(receipt: Mapping[str, Any]) -> Row | None:
    """The row of a receipt, in the order of `COLUMNS`; `None` where it is invalid or its energy is not known."""
    sci, carbon, duration_s = receipt["sci"]["answer"], receipt["carbon"], receipt["times"]["duration_s"]
    if receipt["verdict"] == "invalid" or sci["E_kwh"] is None or carbon["operational"] is None:
        return None
    emitted_kg = carbon["operational"]["g"] / G_PER_KG
    water = receipt.get("water")
    cells: dict[str, Any] = {
        "timestamp": receipt["created"][:19],
        "project_name": PROJECT,
        "run_id": receipt["id"],
        "experiment_id": receipt["model"]["name"] if receipt["model"] else None,
        "duration": duration_s,
        "emissions": emitted_kg,
        "emissions_rate": emitted_kg / duration_s if duration_s else None,
        "energy_consumed": sci["E_kwh"],
        "water_consumed": water["l"] if water else None,
        "region": receipt["zone"],
        "tracking_mode": "machine",
        "pue": carbon["pue"],
    }
    cells |= _parts(receipt["energy"]["scopes"], carbon["pue"], duration_s)
    return [cells.get(name) for name in COLUMNS]


def _parts(scopes: Mapping[str, Any], pue: float, duration_s: float) -> dict[str, float]:
    """Energy and mean power of processor, cards and memory, where meters told them; energy times PUE."""
    found: dict[str, float] = {}
    for name, scope in _PARTS.items():
        measured = [one["j"] for key, one in scopes.items() if key.rstrip("0123456789") == scope]
        if measured:
            total_j = sum(measured)
            found[f"{name}_energy"] = kwh_from_j(total_j) * pue
            if duration_s:
                found[f"{name}_power"] = total_j / duration_s
    return found
