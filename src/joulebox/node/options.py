"""What may follow a meter's or an engine's address (`KIND:ADDRESS,key=value`), read and checked: a value, or one
sentence why not."""

import re
from collections.abc import Collection, Mapping
from math import inf, isfinite
from pathlib import Path
from typing import Final

from joulebox.errors import JouleboxError

TIMEOUT_S: Final = 2.0
TIMEOUT_MAX_S: Final = 60.0
TIMEOUT_OPTION: Final = "seconds after which a question without an answer is given up (2)"
_HOST_AND_PORT: Final = re.compile(
    r"(?:\[(?P<bracketed>[0-9A-Fa-f:.%]+)\]|(?P<host>[\w.-]+))(?::(?P<port>[0-9]{1,5}))?"
)
_PORT_MAX: Final = 65_535


def timeout_s(options: Mapping[str, str]) -> float:
    """Option `timeout` in seconds, 2 without it. Raises `JouleboxError("bad_setting")`."""
    return number(options, "timeout", TIMEOUT_S, most=TIMEOUT_MAX_S)


def number(options: Mapping[str, str], name: str, default: float, *, most: float = inf) -> float:
    """A number above zero and at most `most`. Raises `JouleboxError("bad_setting")`."""
    text = options.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (isfinite(value) and 0.0 < value <= most):
        limit = f" and at most {most:g}" if isfinite(most) else ""
        raise refused(name, text, f"give a number above 0{limit}")
    return value


def whole(options: Mapping[str, str], name: str, default: int, *, least: int = 0, most: int) -> int:
    """A whole number from `least` to `most`, decimal or as `0x1F`. Raises `JouleboxError("bad_setting")`."""
    text = options.get(name)
    if text is None:
        return default
    try:
        value = int(text, 16 if text.lower().startswith("0x") else 10)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise refused(name, text, f"give a whole number from {least} to {most}")
    return value


def choice(options: Mapping[str, str], name: str, default: str, choices: Collection[str]) -> str:
    """One word of `choices`. Raises `JouleboxError("bad_setting")`."""
    text = options.get(name, default)
    if text not in choices:
        raise refused(name, text, f"give {', '.join(filter(None, choices))}")
    return text


def secret(options: Mapping[str, str], name: str) -> str | None:
    """Option `name`, or the first line of the file that option `name`_file names. Raises `bad_setting`."""
    path = options.get(f"{name}_file")
    if path is None:
        return options.get(name)
    try:
        return Path(path).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise refused(f"{name}_file", path, f"the file cannot be read ({reason})") from error


def host_and_port(text: str, before: str, default_port: int) -> tuple[str, int]:
    """`HOST` or `HOST:PORT` (an IPv6 address in square brackets); `before` is what stands before it in a setting.

    Raises `JouleboxError("bad_setting")`.
    """
    found = _HOST_AND_PORT.fullmatch(text)
    port = int(found["port"] or default_port) if found else 0
    if not found or not 0 < port <= _PORT_MAX:
        raise JouleboxError("bad_setting", f"Meter {before}{text} cannot be used: write {before}HOST:PORT.")
    return found["bracketed"] or found["host"], port


def refused(name: str, text: str, remedy: str) -> JouleboxError:
    """`bad_setting` for one option."""
    return JouleboxError("bad_setting", f"Option {name}={text} cannot be used: {remedy}.")
