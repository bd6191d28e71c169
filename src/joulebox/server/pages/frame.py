"""What all pages have in common: templates in the reader's language, navigation, footer, static files, headers.

A page is a template that extends `base.html`, rendered with the `View` of whoever asks. To add one: a module beside
this one, its route in `access.TABLE`, its line in `NAVIGATION`, its address in the tests' list of pages.
"""

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from joulebox import wording
from joulebox.errors import JouleboxError
from joulebox.server.access import Caller
from joulebox.server.tongue import NAMES, chosen, tongue
from joulebox.units import J_PER_WH, S_PER_HOUR
from joulebox.wording import ENGLISH, Tongue, marked

Json = dict[str, Any]

NAVIGATION: Final = (
    ("/", marked("Ask")),
    ("/compare", marked("Compare")),
    ("/table", marked("Table")),
    ("/nodes", marked("Nodes")),
    ("/report/sci", marked("Report")),
)
"""The pages that every page leads to, in order."""
FOOT: Final = (("/method", marked("Method")), ("/api", marked("API")), ("/about", marked("About")))
"""The same, at its foot."""
SCRIPT: Final = "text/javascript; charset=utf-8"
STYLE: Final = "text/css; charset=utf-8"
STATIC: Final = {"app.css": STYLE, "overview.css": STYLE, "admin.css": STYLE, "app.js": SCRIPT, "page.js": SCRIPT}
LANGUAGE_COOKIE: Final = "joulebox_language"
LANGUAGE_COOKIE_S: Final = int(400 * 24 * S_PER_HOUR)
POLICY: Final = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
POLICY_ALONE: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
"""For one file that holds its style and asks nobody for anything."""
TRANSFER_WH_PER_MB: Final = 0.055 + 0.059 + 0.080
"""Electricity of data centres, networks and people's devices for what a page transfers: the operational part of the
Sustainable Web Design Model 4 (sustainablewebdesign.org), in kWh per GB."""
WEIGHT: Final = "@@weight@@"
"""Stands in the footer until the page's size is known."""
USED: Final = re.compile(r'(?:src|href)="/static/([\w.]+)\?v=')
WORDS: Final = re.compile(r'_\(("(?:[^"\\]|\\.)*")\)')
BIDI_AND_CONTROL: Final = dict.fromkeys(
    [*range(0x20), 0x7F, 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"
)


@dataclass(frozen=True, slots=True)
class View:
    """Who looks: the language, where they are, whether they run the server, and by what key they signed in, if so."""

    _: Tongue = ENGLISH
    path: str = "/"
    query: str = ""
    admin: bool = False
    signed: str | None = None

    @property
    def here(self) -> str:
        """This address."""
        return self.path + (f"?{self.query}" if self.query else "")

    @property
    def languages(self) -> list[tuple[str, str, str]]:
        """Tag, name and address of every other language, which lead back here."""
        return [
            (tag, name, f"/language/{tag}?{urlencode({'to': self.here})}")
            for tag, name in NAMES.items()
            if tag != self._.tag
        ]


NOWHERE: Final = View()


def view_of(request: Request) -> View:
    """How this request wants its page."""
    headers = request.headers
    spoken = chosen(request.cookies.get(LANGUAGE_COOKIE), headers.get("accept-language", ""))
    caller: Caller | None = getattr(request.state, "caller", None)
    admin, signed = (caller.admin, caller.name if caller.session else None) if caller else (False, None)
    if request.method != "GET":
        return View(spoken, admin=admin, signed=signed)
    return View(spoken, request.url.path, request.url.query, admin, signed)


def render(template: str, view: View, **context: object) -> str:
    """A page."""
    return _environment(view._.tag).get_template(template).render({"view": view, **context})


# --- words in templates -----------------------------------------------------------------------------------------------


@lru_cache
def _environment(tag: str) -> Environment:
    _ = tongue(tag)
    environment = Environment(
        loader=PackageLoader("joulebox.server"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": _clock,
        "code": code,
        "digest": _digest,
        "name": one_line,
        "number": lambda value: _.number(str(value)),
        "plain": lambda value, unit="", digits=wording.LONE_DIGITS: plain(value, _, unit, digits),
        "said": _.said,
        "scope": partial(wording.scope_words, _=_),
        "segment": lambda text: quote(str(text), safe=""),
        "size": partial(wording.size, _=_),
        "time": lambda s: quantity(s, None, "s", _),
        "when": partial(when, _=_),
    }
    environment.globals |= {
        "_": _,
        "asset": lambda name: f"/static/{name}?v={_hash(name, tag)}" + ("" if tag == ENGLISH.tag else f"&l={tag}"),
        "many": _.many,
        "NAVIGATION": NAVIGATION,
        "FOOT": FOOT,
        "WEIGHT": WEIGHT,
        "NOT_MEASURED": _(wording.NOT_MEASURED),
        "NOTE": wording.NOTE,
        "WORK_NOTE": wording.WORK_NOTE,
        "PHASES": wording.PHASES,
        "SCI": wording.SCI,
        "SIMULATED": wording.SIMULATED,
        "TOO_SHORT": wording.TOO_SHORT,
        "quantity": lambda value, u, unit: quantity(value, u, unit, _),
        "ranged": lambda *figure: ranged(*figure, _=_),
    }
    return environment


def quantity(value: float | None, u: float | None, unit: str, _: Tongue) -> str:
    """`86.4 ± 3.1 J` as this language writes it."""
    return _.number(_(wording.quantity(value, u, unit)))


def plain(value: float | None, _: Tongue, unit: str = "", digits: int = wording.LONE_DIGITS) -> str:
    """`5.21 s` as this language writes it."""
    return _.number(_(wording.plain(value, unit, digits)))


def ranged(
    central: float | None, low: float | None, high: float | None, unit: str, *, _: Tongue
) -> tuple[str, str | None]:
    """A figure and its range as this language writes them."""
    shown, span = wording.ranged(central, low, high, unit)
    if span is None:
        return _.number(_(shown)), None
    first, last = span.split(" to ")
    return _.number(shown), _("{low} to {high}", low=_.number(first), high=_.number(last))


def when(text: str, _: Tongue = ENGLISH) -> str:
    """`23 November 2026, 07:31 UTC` from an ISO time; any other text as it is."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    at = at.astimezone(UTC) if at.tzinfo else at
    return f"{wording.date_words(at, _)}, {at:%H:%M} UTC"


def _clock(text: str) -> str:
    """`07:31` from an ISO time."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%H:%M}"


def one_line(text: object) -> str:
    """A name on one line, without characters that steer the text around it."""
    return str(text).translate(BIDI_AND_CONTROL)


def code(text: str) -> Markup:
    """A sentence with its `commands` set as code."""
    pieces = enumerate(text.split("`"))
    return Markup().join(Markup("<code>{}</code>").format(piece) if n % 2 else piece for n, piece in pieces)


def _digest(digest: str) -> str:
    return digest.rpartition(":")[2][:12]


# --- static files -----------------------------------------------------------------------------------------------------


@lru_cache
def text_of(name: str, tag: str = ENGLISH.tag) -> str:
    """A static file, scripts in the language: what stands in `_(...)` becomes a plain string."""
    text = files("joulebox.server").joinpath("static", name).read_text(encoding="utf-8")
    return WORDS.sub(lambda found: _literal(tongue(tag)(_unquoted(found[1]))), text) if name.endswith(".js") else text


def _unquoted(literal: str) -> str:
    return literal[1:-1].replace('\\"', '"').replace("\\\\", "\\")


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@lru_cache
def _hash(name: str, tag: str) -> str:
    return hashlib.sha256(text_of(name, tag).encode()).hexdigest()[:12]


@lru_cache
def _packed(name: str, tag: str) -> bytes:
    return gzip.compress(text_of(name, tag).encode(), 9, mtime=0)


def static(request: Request, name: str) -> Response:
    """A file of style or script. Raises `JouleboxError("not_found")`."""
    if name not in STATIC:
        raise JouleboxError("not_found", f"There is no file {one_line(name)} here.")
    asked = request.query_params.get("l", ENGLISH.tag)
    tag = asked if asked in NAMES else ENGLISH.tag
    fresh = request.query_params.get("v") == _hash(name, tag)
    cache = "public, max-age=31536000, immutable" if fresh else "no-cache"
    headers = {"Content-Type": STATIC[name], "Cache-Control": cache, **_SAME}
    if _gzip(request):
        return Response(_packed(name, tag), 200, headers | {"Content-Encoding": "gzip"})
    return Response(text_of(name, tag).encode(), 200, headers)


# --- answers ----------------------------------------------------------------------------------------------------------

_SAME: Final = {"Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}


def page(request: Request, html: str, status: int = 200) -> Response:
    """A page, compressed where the browser takes it (a page of receipts shrinks to a quarter), that says its own
    weight."""
    headers = _SAME | {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        "Content-Security-Policy": POLICY,
        # not `no-referrer`: browsers would send `Origin: null` with our own forms, by which others' are told apart
        "Referrer-Policy": "same-origin",
    }
    packed = _gzip(request)
    body = _weighed(html, view_of(request)._, packed=packed).encode()
    if packed:
        return Response(gzip.compress(body, 9, mtime=0), status, headers | {"Content-Encoding": "gzip"})
    return Response(body, status, headers)


def _weighed(html: str, _: Tongue, *, packed: bool) -> str:
    """The page with its weight in the footer: what a first visit transfers, style and script included."""
    before, mark, after = html.rpartition(WEIGHT)
    if not mark:
        return html
    drafted = f"{before}{_weight_words(len(html), _)}{after}".encode()
    size = len(gzip.compress(drafted, 6)) if packed else len(drafted)
    for name in dict.fromkeys(USED.findall(html)):
        size += len(_packed(name, _.tag)) if packed else len(text_of(name, _.tag).encode())
    return before + _weight_words(size, _) + after


def _weight_words(size_bytes: int, _: Tongue) -> str:
    return _(
        "This page: {size} for a first visit, about {energy} of electricity (modelled: {factor} kWh per GB,"
        " Sustainable Web Design Model 4).",
        size=_.number(wording.plain(size_bytes / 1000, "kB")),
        energy=plain(transfer_j(size_bytes), _, "J", 2),
        factor=_.number(f"{TRANSFER_WH_PER_MB:.3f}"),
    )


def transfer_j(size_bytes: float) -> float:
    """Joules for transferring and showing so many bytes, modelled (see `TRANSFER_WH_PER_MB`)."""
    return size_bytes / 1e6 * TRANSFER_WH_PER_MB * J_PER_WH


def _gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


def refused(request: Request, error: JouleboxError) -> Response:
    """A failure as a page."""
    return page(request, render_problem(problem_of(error), view_of(request)), error.failure.status)


def render_problem(problem: Mapping[str, Any], view: View = NOWHERE) -> str:
    """An RFC 9457 problem as a page: what is wrong, what to do; where a key opens it, the way to show one."""
    sign_in = f"/signin?{urlencode({'to': view.here})}" if problem["code"] == "unauthorized" else None
    return render("problem.html", view, problem=problem, sign_in=sign_in)


def problem_of(error: JouleboxError) -> Json:
    """The RFC 9457 document of a failure, as far as a page shows it."""
    return {
        "title": error.failure.title,
        "status": error.failure.status,
        "detail": error.detail,
        "code": error.code,
    }


def see_other(address: str) -> Response:
    """Look there."""
    return Response(status_code=303, headers={"Location": address})


def own_address(text: str, otherwise: str = "/") -> str:
    """An address of this server that somebody is to be led back to; any other is not followed."""
    here = re.fullmatch(r"/(?![/\\])[^\s\\]*", text)
    return quote(text, safe="/?&=%+:,;~-_.") if here else otherwise


def origin_of(request: Request) -> str:
    """Where this server is found, as whoever asks found it; a proxy in between may have brought TLS."""
    base = str(request.base_url).rstrip("/")
    behind_tls = request.headers.get("x-forwarded-proto") == "https" and base.startswith("http:")
    return f"https:{base.removeprefix('http:')}" if behind_tls else base


def language(request: Request, tag: str) -> Response:
    """Remember a language, and back to where it was chosen. Raises `JouleboxError("not_found")`."""
    if tag not in NAMES:
        raise JouleboxError("not_found", f"There is no language {one_line(tag)[:20]} here.")
    answer = see_other(own_address(request.query_params.get("to", "/")))
    https = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
    answer.set_cookie(LANGUAGE_COOKIE, tag, max_age=LANGUAGE_COOKIE_S, httponly=True, samesite="lax", secure=https)
    return answer
