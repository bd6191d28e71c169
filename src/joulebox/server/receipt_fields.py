"""A receipt inside the answers of APIs that know none: the object `energy` that other tools read, `joulebox` with all
of it, and headers. Pure.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from joulebox.units import J_PER_KWH, NS_PER_S

Json = dict[str, Any]
Receipt = Mapping[str, Any]
LATE: Final = "The receipt was not there within {wait_s:g} s of the answer: fetch it from receipt_url."


class EnergyObject(BaseModel):
    """What an answer took, in the names of Neuralwatt's API. The node ran nothing else meanwhile (ratio 1), and idle
    power is in it; `joulebox` has its uncertainty and grade."""

    energy_j: float = Field(alias="energy_joules")
    energy_kwh: float
    mean_w: float | None = Field(alias="avg_power_watts")
    duration_s: float = Field(alias="duration_seconds")
    attribution_method: str = Field(description="`exclusive, measured`, `exclusive, modelled` or `..., simulated`.")
    attribution_ratio: float
    carbon_g_co2eq: float | None


class JouleboxObject(BaseModel):
    """The receipt, as `GET /api/v1/receipts/{id}` gives it, and where that is. Where it is not there yet, `id` is null
    and `detail` says why."""

    model_config = ConfigDict(extra="allow")

    id: str | None
    prompt_id: str
    receipt_url: str
    model_reason: str | None = Field(description="Why this model, where the choice was left to the server.")


def energy_object(receipt: Receipt | None) -> Json | None:
    """`None` where there is no receipt, or none that knows the answer's energy."""
    figure = receipt["energy"]["answer"] if receipt is not None else None
    if receipt is None or figure is None:
        return None
    total = receipt["carbon"]["total"]
    return {
        "energy_joules": figure["j"],
        "energy_kwh": figure["j"] / J_PER_KWH,
        "avg_power_watts": receipt["power"]["mean_w"],
        "duration_seconds": receipt["times"]["duration_s"],
        "attribution_method": f"exclusive, {_how(receipt)}",
        "attribution_ratio": 1.0,
        "carbon_g_co2eq": total["g"] if total is not None else None,
    }


def _how(receipt: Receipt) -> str:
    if receipt["simulated"]:
        return "simulated"
    return "modelled" if receipt["energy"]["scope"] == "modelled" else "measured"


def header_fields(receipt: Receipt | None, prompt_id: str, receipt_url: str) -> dict[str, str]:
    """What scripts read without opening the answer. Figures that are not known have no header."""
    told: dict[str, object] = {"prompt-id": prompt_id, "receipt": receipt_url}
    if receipt is not None:
        figure = receipt["energy"]["answer"] or {}
        told |= {"receipt-id": receipt["id"], "verdict": receipt["verdict"], "method": _how(receipt)}
        told |= {"joules": figure.get("j"), "joules-u": figure.get("u"), "grade": figure.get("grade")}
        total = receipt["carbon"]["total"] or {}
        told |= {"carbon-g": total.get("g")}
    return {f"x-joulebox-{name}": str(value) for name, value in told.items() if value is not None}


def handed_on(energy: Json | None, told: Receipt) -> Json:
    """The same under the one name of a streamed chunk that LiteLLM's proxy hands on; it puts each key beside the
    choices again. Of the receipt only where it is: the stream has all of it already."""
    place = {name: told[name] for name in ("id", "prompt_id", "receipt_url")}
    return {"provider_specific_fields": {"energy": energy, "joulebox": place}}


def openai_usage(receipt: Receipt | None) -> Json | None:
    """Tokens in OpenAI's words, and the joules where they are known, since chat pages such as Open WebUI show whatever
    stands here; `None` where the engine did not count the tokens, or the receipt is not there."""
    used = receipt["usage"] if receipt is not None else {}
    read, written = used.get("input_tokens"), used.get("output_tokens")
    if read is None or written is None:
        return None
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": _known("cached_tokens", used),
        "completion_tokens_details": _known("reasoning_tokens", used),
        **_energy(receipt),
    }


def _known(name: str, used: Mapping[str, Any]) -> Json | None:
    return {name: used[name]} if used[name] is not None else None


def _energy(receipt: Receipt | None) -> Json:
    figure = receipt["energy"]["answer"] if receipt is not None else None
    return {"energy_joules": figure["j"]} if figure is not None else {}


def ollama_usage(receipt: Receipt | None) -> Json:
    """Tokens and times in Ollama's words, times in ns. What nobody knows is left out, as Ollama does: clients count on
    a number wherever there is a name."""
    if receipt is None:
        return {}
    times, phases, used = receipt["times"], receipt["energy"]["phases"], receipt["usage"]
    total_s = sum(times[name] for name in ("queued_s", "settle_s", "load_s", "duration_s"))
    read_s = _phase_s(phases, "prefill") or times["time_to_first_token_s"]
    written_s = times["duration_s"] - read_s if read_s is not None else None
    told = {
        "total_duration": _ns(total_s),
        "load_duration": _ns(times["load_s"]),
        "prompt_eval_count": used["input_tokens"],
        "prompt_eval_duration": _ns(read_s),
        "eval_count": used["output_tokens"],
        "eval_duration": _ns(_phase_s(phases, "decode") or written_s),
    }
    return {name: value for name, value in told.items() if value is not None}


def _phase_s(phases: Mapping[str, Any], name: str) -> float | None:
    found: float | None = (phases.get(name) or {}).get("s")
    return found


def _ns(duration_s: float | None) -> int | None:
    return round(duration_s * NS_PER_S) if duration_s is not None else None
