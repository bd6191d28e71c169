"""Settings: flags win, then the environment (`JOULEBOX_*`), then `joulebox.toml` in the working folder.

Any setting may also come from a file named by `JOULEBOX_<NAME>_FILE` (for secrets). A wrong value is refused with one
sentence that names the setting.
"""

import ipaddress
import os
import platform
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from joulebox.errors import JouleboxError
from joulebox.model import Embodied

GRID_SOURCES: Final = ("gb", "energy-charts")
SECRETS: Final = frozenset({"electricity_maps_key", "engine_key", "token"})
"""Settings that are never shown."""
OWNER_COOKIE: Final = "joulebox_owner"
"""Who asks without a token is known by the secret in it: 43 characters as `secrets.token_urlsafe(32)` makes them."""
LOCAL_TOKEN: Final = "local.token"  # noqa: S105 - the name of a file
"""In the data folder: the token of commands on the server's own machine."""
Limits = dict[str, float]
TEMPERATURE_MIN_C: Final = -50.0
TEMPERATURE_MAX_C: Final = 150.0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    return host in {"localhost", "::1"} or host.startswith("127.")


CENTRAL_LOW_RATIO: Final = 0.5
CENTRAL_HIGH_RATIO: Final = 1.5
"""Where an operator gives one figure for embodied emissions: published product footprints differ by about this much."""


def _data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "joulebox"


def _limits(value: object) -> Limits:
    """`45` for every processor, or `cpu=45,gpu=50`."""
    if isinstance(value, dict):
        pairs = [(str(scope), one) for scope, one in value.items()]
    elif isinstance(value, int | float):
        pairs = [("cpu", value), ("gpu", value)]
    else:
        parts = [part.strip() for part in str(value).split(",")]
        whole = len(parts) == 1 and "=" not in parts[0]
        cut = [part.partition("=") for part in ([f"cpu={value}", f"gpu={value}"] if whole else parts)]
        pairs = [(scope.strip(), number) for scope, _, number in cut]
    limits = {}
    for scope, number in pairs:
        try:
            limits[scope] = float(str(number))
        except ValueError:
            limits[scope] = float("nan")
        if not scope.startswith(("cpu", "gpu")) or not TEMPERATURE_MIN_C <= limits[scope] <= TEMPERATURE_MAX_C:
            bounds = f"{TEMPERATURE_MIN_C:g} to {TEMPERATURE_MAX_C:g} °C"
            raise ValueError(f"write degrees, {bounds}, as 45 or as cpu=45,gpu=50")
    return limits


def _public(value: object) -> object:
    """`none` is the empty list."""
    return () if value in ("none", ["none"], ("none",)) else value


class Settings(BaseModel):
    """All settings, with their defaults. The description of each is the one in the docs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data_dir: Annotated[Path, Field(description="Where database, models and undelivered results are kept.")] = Field(
        default_factory=_data_dir
    )
    models_dir: Annotated[
        Path | None,
        Field(description="Where the list of models and fetched models are kept; without it, the data folder."),
    ] = None
    database_url: Annotated[
        str | None, Field(description="SQLAlchemy URL of the database; without it, `joulebox.db` in the data folder.")
    ] = None
    replica_url: Annotated[
        str | None,
        Field(description="Where other servers on the same database reach this one; without it, where it listens."),
    ] = None
    host: Annotated[str, Field(description="Address the server listens on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port the server listens on.")] = 8080
    server: Annotated[str, Field(description="Where node and command line find the server.")] = "http://127.0.0.1:8080"
    ca_file: Annotated[
        Path | None,
        Field(description="Certificates (PEM) that are trusted beside the system's, for a server of your own."),
    ] = None
    token: Annotated[
        SecretStr | None, Field(description="Token that node and command line show the server, where it wants one.")
    ] = None
    public: Annotated[
        tuple[Literal["read", "ask", "node"], ...] | None,
        BeforeValidator(_public),
        Field(
            description="What the server lets people do without a token: `read`, `ask`, `node`, or `none`. Without it, "
            "everything where it listens on this machine only, else nothing."
        ),
    ] = None
    trusted_proxies: Annotated[
        tuple[str, ...],
        Field(description="Addresses or networks of proxies whose `X-Forwarded-For` is believed; without any, none."),
    ] = ()
    requests_per_minute: Annotated[
        int, Field(ge=0, description="Requests a minute of one token or address, on each server; 0: any number.")
    ] = 600
    asks_per_minute: Annotated[
        int, Field(ge=0, description="Prompts a minute of one token or address, on each server; 0: any number.")
    ] = 30
    outstanding_max: Annotated[
        int, Field(ge=0, description="Prompts of one token or address that wait or run; 0: any number.")
    ] = 20
    prompts_per_day: Annotated[
        int, Field(ge=0, description="Prompts of one token or address within 24 hours; 0: any number.")
    ] = 500
    joules_per_day: Annotated[
        float, Field(ge=0, description="Joules of one token or address within 24 hours, by receipts; 0: any number.")
    ] = 0.0
    operator: Annotated[
        str | None, Field(max_length=2_000, description="Who runs this server, for its page About: name and address.")
    ] = None
    contact: Annotated[
        str | None, Field(max_length=200, description="How to reach them: a mail address, or an `https` address.")
    ] = None
    imprint: Annotated[str | None, Field(max_length=20_000, description="Imprint for the page About, Markdown.")] = None
    privacy: Annotated[
        str | None,
        Field(
            max_length=50_000, description="Privacy notice for the page About, Markdown, beside what is always told."
        ),
    ] = None
    retention_days: Annotated[
        float | None,
        Field(gt=0, le=36_500, description="Texts of prompts that ended longer ago are erased; without it, none."),
    ] = None
    zone: Annotated[
        str | None,
        Field(description="Grid zone of the node (Electricity Maps key, e.g. `DE`); without it, the world mean."),
    ] = None
    grid_g_per_kwh: Annotated[
        float | None,
        Field(ge=0, le=5000, description="Your own carbon intensity of `zone`'s grid, g CO2e per kWh; it wins."),
    ] = None
    grid_low_g_per_kwh: Annotated[float | None, Field(ge=0, le=5000, description="The least it may be.")] = None
    grid_high_g_per_kwh: Annotated[float | None, Field(ge=0, le=5000, description="The most it may be.")] = None
    grid_source: Annotated[str | None, Field(description="Where this intensity comes from.")] = None
    grid_factor: Annotated[
        Literal["lifecycle", "direct"], Field(description="Whether it counts the life cycle or power stations alone.")
    ] = "lifecycle"
    electricity_maps_key: Annotated[
        SecretStr | None, Field(description="Key of Electricity Maps, for live intensities; free ones: non-commercial.")
    ] = None
    electricity_maps_url: Annotated[str, Field(description="Where Electricity Maps answers.")] = (
        "https://api.electricitymaps.com/v4"
    )
    grid_live: Annotated[
        tuple[str, ...],
        Field(description="Live sources without a key, separated by spaces: `gb`, `energy-charts` (`NAME=URL`)."),
    ] = ()
    pue: Annotated[float, Field(ge=1.0, le=5.0, description="Power usage effectiveness of the building.")] = 1.0
    pue_source: Annotated[str | None, Field(description="Where this PUE comes from.")] = None
    water_on_site_l_per_kwh: Annotated[
        float | None,
        Field(ge=0, le=100, description="Litres that the building evaporates per kWh of the machine (WUE on site)."),
    ] = None
    water_electricity_l_per_kwh: Annotated[
        float | None, Field(ge=0, le=1000, description="Litres that making a kWh of the grid's electricity takes.")
    ] = None
    water_source: Annotated[str | None, Field(description="Where these litres come from.")] = None
    embodied_low_kg: Annotated[float | None, Field(gt=0, description="Embodied kg of the machine, low.")] = None
    embodied_kg: Annotated[
        float | None,
        Field(gt=0, description="Embodied kg of the machine, central. A node's own wins over the server's."),
    ] = None
    embodied_high_kg: Annotated[float | None, Field(gt=0, description="Embodied kg of the machine, high.")] = None
    embodied_source: Annotated[str | None, Field(description="Where these kilograms come from.")] = None
    life_years: Annotated[float, Field(gt=0, le=30, description="Years over which the machine is written off.")] = 4.0
    meters: Annotated[
        tuple[str, ...], Field(description="Meters, `KIND:ADDRESS`, separated by spaces; without any, what is found.")
    ] = ()
    node: Annotated[str, Field(min_length=1, max_length=64, description="Name of this node.")] = Field(
        default_factory=lambda: platform.node() or "node"
    )
    log: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="From which level on server and node tell what they do."),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"],
        Field(description="As lines for people, or one JSON object a line; without prompts, answers and keys."),
    ] = "text"
    reading_hz: Annotated[float, Field(gt=0, le=1000, description="How often meters are read.")] = 10.0
    start_min_c: Annotated[
        Limits,
        BeforeValidator(_limits),
        Field(
            description="No colder than this an answer begins, else it is marked: `40`, or by scope `cpu=40,gpu=35`."
        ),
    ] = Field(default_factory=dict)
    start_max_c: Annotated[
        Limits,
        BeforeValidator(_limits),
        Field(description="The node cools down to this before an answer begins: `45`, or by scope `cpu=45,gpu1=50`."),
    ] = Field(default_factory=dict)
    settle_max_s: Annotated[
        float, Field(gt=0, le=1800, description="How long cooling down may take; then the answer begins anyway.")
    ] = 300.0
    warm_up_max_s: Annotated[
        float,
        Field(ge=0, le=600, description="How long a processor below `start_min_c` is warmed up before a quiet prompt."),
    ] = 60.0
    engine: Annotated[
        str | None,
        Field(
            description="Engine the node drives, `KIND:ADDRESS[,key=value...]`, on the same machine; without it, "
            "llama.cpp in a process of the node's own."
        ),
    ] = None
    engine_key: Annotated[SecretStr | None, Field(description="Key that engine wants to be shown.")] = None
    threads: Annotated[int | None, Field(ge=1, description="Threads of the engine; without it, one per core.")] = None
    context_tokens: Annotated[int, Field(ge=256, le=1_048_576, description="Context the engine sets aside.")] = 4096
    idle_unload_s: Annotated[
        float | None,
        Field(gt=0, le=10_000_000, description="A node that was idle so long unloads its model; without it, never."),
    ] = None
    idle_suspend_s: Annotated[
        float | None,
        Field(
            gt=0, le=10_000_000, description="A node that was idle so long runs `suspend_command`; without it, never."
        ),
    ] = None
    suspend_command: Annotated[
        str | None,
        Field(description="Command that suspends the node's machine, such as `systemctl suspend`; no shell reads it."),
    ] = None
    wake_mac: Annotated[
        str | None,
        Field(
            pattern=r"^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$",
            description="Address of the node's network card, by which it is woken; without it, that of the card that "
            "leads to the server.",
        ),
    ] = None
    wake_max_s: Annotated[
        float,
        Field(gt=0, le=1800, description="A node that is not back so long after the first magic packet is given up."),
    ] = 180.0
    wake_address: Annotated[
        tuple[str, ...],
        Field(description="Where the server sends magic packets, `HOST[:PORT]`, separated by spaces."),
    ] = ("255.255.255.255",)
    control_every_s: Annotated[
        float,
        Field(ge=0, le=10_000_000, description="How often an idle node with meters runs its control prompt; 0: never."),
    ] = 21_600.0
    control_prompts: Annotated[
        int, Field(ge=0, description="After so many prompts the control prompt is due as well; 0: only by time.")
    ] = 100
    greener_wait_s: Annotated[
        float, Field(ge=0, description="So long a prompt that asks for the greenest node waits for it at most.")
    ] = 600.0
    receipt_wait_s: Annotated[
        float,
        Field(ge=0, le=600, description="So long OpenAI's and Ollama's clients wait for the receipt after an answer."),
    ] = 30.0
    grace_s: Annotated[float, Field(gt=0, description="How long a silent node keeps its job until rescue.")] = 15.0
    attempt_max_s: Annotated[
        float,
        Field(gt=0, le=2_000_000, description="An attempt that is not over after this is stopped, whatever it says."),
    ] = 21_600.0
    attempts_max: Annotated[int, Field(ge=1, le=20, description="How often a failing prompt is tried.")] = 3

    @field_validator("start_max_c")
    @classmethod
    def _above_the_least(cls, max_c: Limits, info: ValidationInfo) -> Limits:
        min_c = info.data.get("start_min_c") or {}
        for scope, least_c in min_c.items():
            if max_c.get(scope, TEMPERATURE_MAX_C + 1) <= least_c:
                raise ValueError(f"it must be above start_min_c, which is {least_c:g} for {scope}")
        return max_c

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            ipaddress.ip_network(name, strict=False)
        return names

    @field_validator("electricity_maps_key", "engine_key", "token")
    @classmethod
    def _a_key(cls, key: SecretStr | None) -> SecretStr | None:
        text = key.get_secret_value() if key else ""
        if not (text.isascii() and text.isprintable() and " " not in text):
            raise ValueError("a key has no spaces and only plain letters, digits and signs")
        return key if text else None

    @field_validator("electricity_maps_url")
    @classmethod
    def _keeps_the_key(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise ValueError("the key must not travel in the clear: write https://")
        return url.rstrip("/")

    @field_validator("grid_live")
    @classmethod
    def _known_sources(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name.partition("=")[0] not in GRID_SOURCES:
                raise ValueError(f"there is {' and '.join(GRID_SOURCES)}")
        return names

    @property
    def footprint(self) -> Embodied | None:
        """What making the machine emitted, as the operator knows it; `None` where nothing is set.

        Raises `JouleboxError("bad_setting")` where low, central and high are not in order, or central is missing.
        """
        low_kg, central_kg, high_kg = self.embodied_low_kg, self.embodied_kg, self.embodied_high_kg
        if central_kg is None:
            if low_kg is None and high_kg is None:
                return None
            raise JouleboxError(
                "bad_setting",
                "embodied_low_kg and embodied_high_kg are a range around embodied_kg: set embodied_kg too.",
            )
        given = ((low_kg, f"low x{CENTRAL_LOW_RATIO}"), (high_kg, f"high x{CENTRAL_HIGH_RATIO}"))
        assumed = ", ".join(text for kg, text in given if kg is None)
        low_kg = central_kg * CENTRAL_LOW_RATIO if low_kg is None else low_kg
        high_kg = central_kg * CENTRAL_HIGH_RATIO if high_kg is None else high_kg
        if not low_kg <= central_kg <= high_kg:
            raise JouleboxError(
                "bad_setting",
                f"Embodied emissions must rise: embodied_low_kg {low_kg:g}, embodied_kg {central_kg:g}, "
                f"embodied_high_kg {high_kg:g}. Put them in order.",
            )
        source = (self.embodied_source or "operator's setting") + (f" (range assumed: {assumed})" if assumed else "")
        return Embodied(
            low_kg=low_kg, central_kg=central_kg, high_kg=high_kg, life_years=self.life_years, source=source
        )

    def token_for(self, *, admin: bool = False) -> str | None:
        """The token to show the server: the setting; for acts of an `admin`, on the server's own machine, the one that
        the server leaves in its data folder."""
        if self.token is not None:
            return self.token.get_secret_value()
        if admin and is_loopback(urlsplit(self.server).hostname or ""):
            try:
                return (self.data_dir / LOCAL_TOKEN).read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError):
                return None
        return None

    @property
    def models_folder(self) -> Path:
        """The folder of the list of models."""
        return self.models_dir or self.data_dir

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'joulebox.db'}"


def load_settings(**flags: object) -> Settings:
    """Settings from file, environment and flags (a flag that is `None` was not given).

    Raises `JouleboxError("bad_setting")` naming the setting, its value and what it takes.
    """
    values: dict[str, Any] = {}
    path = Path("joulebox.toml")
    if path.is_file():
        try:
            values |= tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise JouleboxError("bad_setting", f"joulebox.toml cannot be read: {error}. Mend that line.") from error
    for name in Settings.model_fields:
        key = f"JOULEBOX_{name.upper()}"
        if (text := os.environ.get(key)) not in (None, ""):
            values[name] = text
        elif file := os.environ.get(f"{key}_FILE"):
            try:
                values[name] = Path(file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not text"
                sentence = f"{key}_FILE names {file}, which cannot be read: {reason}."
                raise JouleboxError("bad_setting", sentence) from error
    values |= {name: value for name, value in flags.items() if value is not None}
    for name in ("meters", "grid_live", "public", "trusted_proxies", "wake_address"):
        if isinstance(values.get(name), str):
            values[name] = tuple(values[name].split())
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        hint = "There is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
        told = name if name in SECRETS else f"{name} = {first['input']!r}"
        # a secret must not be shown by whatever prints the cause either
        raise JouleboxError("bad_setting", f"Setting {told} cannot be used: {hint}.") from (
            None if name in SECRETS else error
        )
