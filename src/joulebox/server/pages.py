"""What people see: the ask page, the page of one prompt, a receipt. Pure functions from data to HTML, then routes.

Everything works without JavaScript; `static/app.js` adds streaming. Every figure comes from the receipt handed in.
"""

import gzip
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, quote, urlencode

from fastapi import APIRouter, Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from joulebox import wording
from joulebox.accounting.equivalents import Equivalent, equivalents
from joulebox.errors import JouleboxError
from joulebox.model import FINAL_STATES, Prompt
from joulebox.server import report_words
from joulebox.server.gate import remember
from joulebox.server.whatif_words import chart
from joulebox.units import wh_from_j
from joulebox.wording import is_modelled, scope_words

Json = dict[str, Any]

FORM_MAX_BYTES: Final = 1_000_000
REFRESH_S: Final = 2
"""How often the page of a prompt asks again where there is no JavaScript."""
NEGLIGIBLE_RATIO: Final = 0.001
"""A source of uncertainty this much smaller than the largest changes no digit of the joint one."""
POLICY: Final = "default-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
POLICY_ALONE: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
"""For one file that holds its style and asks nobody for anything."""
STATIC: Final = {"app.css": "text/css; charset=utf-8", "app.js": "text/javascript; charset=utf-8"}
BIDI_AND_CONTROL: Final = dict.fromkeys(
    [*range(0x20), 0x7F, 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"
)

BLANK: Final = {
    "completed": "The answer could not be accounted for.",
    "cancelled": "It was stopped before there was an answer to account for.",
    "discarded": "It failed before there was an answer to account for.",
}
"""Why a prompt that is over has no receipt."""
INTENSITY: Final = {
    "measured": "measured at the time",
    "estimated": "estimated for the time",
    "forecast": "forecast",
    "yearly": "yearly mean",
    "static": "fixed by the operator",
}
METERS: Final = {
    "energy_j": "energy counter",
    "power_w": "power meter",
    "temperature_c": "thermometer",
    "busy_ratio": "busy time",
}


class Backend(Protocol):
    """What the pages need of the service. Every method may raise `JouleboxError`, which is shown as its sentence."""

    async def models(self) -> Sequence[Mapping[str, Any]]:
        """The models that can be asked, as `GET /api/v1/models` lists them."""

    async def nodes(self) -> Sequence[Mapping[str, Any]]:
        """The nodes that have joined, as `GET /api/v1/nodes` lists them."""

    async def status(self, prompt_id: str) -> Mapping[str, Any]:
        """What `GET /api/v1/prompts/{id}` answers."""

    async def receipt(self, receipt_id: str) -> Mapping[str, Any]:
        """What `GET /api/v1/receipts/{id}` answers."""

    async def whatif(self, receipt_id: str) -> Mapping[str, Any] | None:
        """The `whatif` of `GET /api/v1/receipts/{id}/whatif`."""

    async def report(
        self, start: str | None, until: str | None, zone: str | None, model: str | None
    ) -> Mapping[str, Any]:
        """What `GET /api/v1/report/sci` answers."""

    async def submit(self, form: Mapping[str, Any]) -> str:
        """Take a prompt, in the fields of `POST /api/v1/prompts`; its id."""

    async def cancel(self, prompt_id: str) -> object:
        """Stop a prompt; nothing happens where it is over."""

    async def texts(self, receipt_id: str) -> Mapping[str, Any]:
        """`prompt` and `answer` behind a receipt, `None` where they are not for this reader; `shared`; `own`."""

    async def share(self, receipt_id: str, *, shared: bool) -> object:
        """Let everybody with the link read the texts, or nobody else any more."""


# --- data to HTML -----------------------------------------------------------------------------------------------------


def render_ask(
    models: Sequence[Mapping[str, Any]],
    nodes: Sequence[Mapping[str, Any]],
    *,
    form: Mapping[str, Any] | None = None,
    problem: Mapping[str, Any] | None = None,
) -> str:
    """The ask page. `form` and `problem` show again what was sent and why it was refused."""
    return _render("ask.html", models=models, nodes=nodes, form=form or {}, problem=problem, defaults=_defaults())


def render_prompt(
    status: Mapping[str, Any], receipt: Mapping[str, Any] | None, nodes: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The page of one prompt: where it stands, the answer so far, the receipt once there is one."""
    # what is not for this reader is not followed either
    final = status.get("state") in FINAL_STATES or status.get("texts") == "private"
    return _render(
        "prompt.html",
        status=status,
        nodes=nodes,
        sentence=wording.done_words(receipt) if receipt else sentence(status),
        final=final,
        blank=BLANK.get(str(status.get("state")), "comes out here, after the answer."),
        refresh_s=REFRESH_S,
        **_told(receipt),
    )


def render_receipt(
    receipt: Mapping[str, Any],
    texts: Mapping[str, Any] | None = None,
    *,
    standalone: bool = False,
    whatif: Mapping[str, Any] | None = None,
) -> str:
    """A receipt on its own page, with the `texts` that its reader may see. `standalone` makes one file that needs no
    server: style inside, no script."""
    style = _text("app.css") if standalone else None
    elsewhere = {"whatif": whatif, "chart": chart(whatif)} if whatif else {}
    return _render("receipt.html", style=style, texts=texts or {}, **_told(receipt), **elsewhere)


def render_report(report: Mapping[str, Any], query: str = "", *, standalone: bool = False) -> str:
    """The SCI report of a period, which `query` asks for. `standalone` makes one file that needs no server."""
    return _render(
        "report.html",
        report=report,
        words=report_words.told(report),
        tables={
            "Nodes": (report_words.NODE_HEAD, [report_words.node_row(one) for one in report["nodes"]]),
            "Factors": (report_words.FACTOR_HEAD, [report_words.factor_row(one) for one in report["coefficients"]]),
        },
        query=query,
        style=_text("app.css") if standalone else None,
        standalone=standalone,
    )


def render_problem(problem: Mapping[str, Any]) -> str:
    """An RFC 9457 problem as a page: what is wrong, what to do."""
    return _render("problem.html", problem=problem)


def sentence(status: Mapping[str, Any]) -> str:
    """Where a prompt stands, in one sentence."""
    state = status.get("state")
    if state == "completed":
        return "Done."
    if state == "cancelled":
        return "Stopped, as asked."
    if state == "discarded":
        return "This prompt failed."
    phase, node = status.get("phase"), status.get("node")
    where = f" on {_name(node)}" if node else ""
    phases = {
        "settling": "Waiting until the machine is calm enough to measure.",
        "loading": f"Loading the model{where}.",
        "answering": f"Answering{where}.",
        "measuring": "The answer is complete. Measuring until the machine is calm again.",
    }
    return phases.get(str(phase)) or _waiting(status)


def _waiting(status: Mapping[str, Any]) -> str:
    before, reason = status.get("position"), status.get("reason")
    if reason:
        told = str(reason)
    elif before:
        told = f"{before} prompt{'s' if before > 1 else ''} before yours"
    else:
        told = "Yours is next" if before == 0 else "Waiting for a node"
    return f"{told[0].upper()}{told[1:].rstrip('.')}."


def _told(receipt: Mapping[str, Any] | None) -> Json:
    """A receipt with what the template says about it."""
    if receipt is None:
        return {"r": None}
    energy = receipt["energy"]
    return {
        "r": receipt,
        "marks": wording.marks(receipt),
        "modelled": is_modelled(receipt),
        "grade": wording.grade_words(receipt),
        "verdict": wording.VERDICTS[receipt["verdict"]],
        "calibration": wording.calibration_words(receipt),
        "spent_s": {
            "answer": receipt["times"]["duration_s"],
            "tail": (energy["phases"].get("tail") or {}).get("s"),
            "full": receipt["sci"]["reserved"]["TiR_s"],
        },
        "alike": alike(receipt),
        "per_s": _rate(receipt),
        "parts": _worth_telling(energy["uncertainty"]),
    }


def alike(receipt: Mapping[str, Any]) -> list[Equivalent]:
    """What the answer's energy and CO2e are like; nothing where they are not known."""
    answer, total = receipt["energy"]["answer"], receipt["carbon"]["total"]
    return list(equivalents(answer["j"] if answer else None, total["g"] if total else None))


def _rate(receipt: Mapping[str, Any]) -> float | None:
    per_token_s = receipt["times"]["time_per_output_token_s"]
    return 1.0 / per_token_s if per_token_s else None


def _worth_telling(parts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The sources of uncertainty, largest first, without those that change nothing."""
    ordered = sorted(parts, key=lambda part: -part["j"])
    return [part for part in ordered if part["j"] > NEGLIGIBLE_RATIO * ordered[0]["j"]]


def in_units(figure: Mapping[str, Any] | None, over_s: float | None) -> Json:
    """An energy in the three units of the switch: joules, watt hours, and mean watts over its time."""
    if figure is None or figure["j"] is None:
        return dict.fromkeys(("j", "wh", "w"), wording.NOT_MEASURED) | {"sure": {}}
    j, u = figure["j"], figure["u"]
    units = {"j": (j, u, "J"), "wh": (wh_from_j(j), None if u is None else wh_from_j(u), "Wh")}
    if over_s:
        units["w"] = (j / over_s, None if u is None else u / over_s, "W")
    told = {"w": wording.NOT_MEASURED} | {name: wording.quantity(*unit) for name, unit in units.items()}
    return told | {"sure": {name: wording.between(*unit) for name, unit in units.items() if u}}


def metered(node: Mapping[str, Any]) -> str:
    """What a node's figures will rest on, said before anybody asks."""
    meters = [meter for meter in node.get("meters", ()) if meter["kind"] in {"energy_j", "power_w"}]
    scopes = dict.fromkeys(scope_words(meter["scope"]) for meter in meters)
    if not scopes:
        return "no meter, so energy is modelled"
    kind = "simulated " if simulated([node]) else ""
    return f"{kind}meters for {', '.join(scopes)}"


def simulated(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the nodes whose machine is a simulated one."""
    return [node["name"] for node in nodes if any(meter["simulated"] for meter in node.get("meters", ()))]


def _when(text: str) -> str:
    """`23 November 2026, 07:31 UTC` from an ISO time; any other text as it is."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    at = at.astimezone(UTC) if at.tzinfo else at
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def _clock(text: str) -> str:
    """`07:31` from an ISO time."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%H:%M}"


def _name(text: object) -> str:
    """A name on one line, without characters that steer the text around it."""
    return str(text).translate(BIDI_AND_CONTROL)


def _code(text: str) -> Markup:
    """A sentence with its `commands` set as code."""
    pieces = enumerate(text.split("`"))
    return Markup().join(Markup("<code>{}</code>").format(piece) if n % 2 else piece for n, piece in pieces)


def _digest(digest: str) -> str:
    return digest.rpartition(":")[2][:12]


def _defaults() -> Json:
    fields = Prompt.__dataclass_fields__
    return {name: fields[name].default for name in ("max_tokens", "temperature", "seed")}


# --- templates and static files ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("joulebox.server"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": _clock,
        "code": _code,
        "digest": _digest,
        "metered": metered,
        "name": _name,
        "plain": wording.plain,
        "saved_words": wording.saved_words,
        "scope": scope_words,
        "simulated": simulated,
        "segment": lambda text: quote(str(text), safe=""),
        "size": wording.size,
        "time": lambda s: wording.quantity(s, None, "s"),
        "when": _when,
    }
    environment.globals |= {
        "asset": lambda name: f"/static/{name}?v={_hash(name)}",
        "in_units": in_units,
        "INTENSITY": INTENSITY,
        "METERS": METERS,
        "NOT_MEASURED": wording.NOT_MEASURED,
        "NOTE": wording.NOTE,
        "WORK_NOTE": wording.WORK_NOTE,
        "PHASES": wording.PHASES,
        "SCI": wording.SCI,
        "SIMULATED": wording.SIMULATED,
        "TOO_SHORT": wording.TOO_SHORT,
        "quantity": wording.quantity,
        "ranged": wording.ranged,
    }
    return environment


def _render(template: str, **context: object) -> str:
    return _environment().get_template(template).render(context)


@lru_cache
def _text(name: str) -> str:
    return files("joulebox.server").joinpath("static", name).read_text(encoding="utf-8")


@lru_cache
def _hash(name: str) -> str:
    return hashlib.sha256(_text(name).encode()).hexdigest()[:12]


# --- routes -----------------------------------------------------------------------------------------------------------


def router(backend: Callable[[Request], Backend]) -> APIRouter:
    """The pages over HTTP. Failures are shown as pages with their status."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def ask_page(request: Request) -> Response:
        try:
            return _page(request, render_ask(await backend(request).models(), await backend(request).nodes()))
        except JouleboxError as error:
            return refused(request, error)

    @routes.post("/ask")
    async def ask(request: Request) -> Response:
        fields: dict[str, str] = {}
        try:
            fields = await _fields(request)
            answer = _see_other(f"/prompts/{quote(await backend(request).submit(_prompt(fields)), safe='')}")
            remember(request, answer)
            return answer
        except JouleboxError as error:
            page = render_ask(
                await backend(request).models(), await backend(request).nodes(), form=fields, problem=problem_of(error)
            )
            return _page(request, page, error.failure.status)

    @routes.get("/prompts/{prompt_id}")
    async def prompt_page(request: Request, prompt_id: str) -> Response:
        try:
            status = await backend(request).status(prompt_id)
            receipt_id = status.get("receipt_id")
            receipt = await backend(request).receipt(receipt_id) if receipt_id else None
            return _page(request, render_prompt(status, receipt, await backend(request).nodes()))
        except JouleboxError as error:
            return refused(request, error)

    @routes.post("/prompts/{prompt_id}/stop")
    async def stop(request: Request, prompt_id: str) -> Response:
        try:
            _same_site(request)
            await backend(request).cancel(prompt_id)
            return _see_other(f"/prompts/{quote(prompt_id, safe='')}")
        except JouleboxError as error:
            return refused(request, error)

    @routes.get("/static/{name}")
    async def static(request: Request, name: str) -> Response:
        if name not in STATIC:
            return refused(request, JouleboxError("not_found", f"There is no file {_name(name)} here."))
        fresh = request.query_params.get("v") == _hash(name)
        cache = "public, max-age=31536000, immutable" if fresh else "no-cache"
        return _packed(request, _text(name), 200, {"Content-Type": STATIC[name], "Cache-Control": cache})

    _figures(routes, backend)
    return routes


def _figures(routes: APIRouter, backend: Callable[[Request], Backend]) -> None:
    """Receipts and the report."""

    @routes.get("/receipts/{receipt_id}")
    async def receipt_page(request: Request, receipt_id: str) -> Response:
        try:
            fetch = backend(request)
            receipt, texts = await fetch.receipt(receipt_id), await fetch.texts(receipt_id)
            return _page(request, render_receipt(receipt, texts, whatif=await fetch.whatif(receipt_id)))
        except JouleboxError as error:
            return refused(request, error)

    @routes.post("/receipts/{receipt_id}/share")
    async def share(request: Request, receipt_id: str) -> Response:
        return await _shared(request, receipt_id, shared=True)

    @routes.post("/receipts/{receipt_id}/unshare")
    async def unshare(request: Request, receipt_id: str) -> Response:
        return await _shared(request, receipt_id, shared=False)

    async def _shared(request: Request, receipt_id: str, *, shared: bool) -> Response:
        try:
            _same_site(request)
            await backend(request).share(receipt_id, shared=shared)
            return _see_other(f"/receipts/{quote(receipt_id, safe='')}")
        except JouleboxError as error:
            return refused(request, error)

    @routes.get("/report/sci")
    async def report_page(request: Request) -> Response:
        asked = {name: request.query_params.get(name) for name in ("from", "to", "zone", "model")}
        try:
            given = {name: value for name, value in asked.items() if value}
            found = await backend(request).report(*(given.get(name) for name in asked))
            return _page(request, render_report(found, urlencode(given)))
        except JouleboxError as error:
            return refused(request, error)


def problem_of(error: JouleboxError) -> Json:
    """The RFC 9457 document of a failure, as far as a page shows it."""
    return {
        "title": error.failure.title,
        "status": error.failure.status,
        "detail": error.detail,
        "code": error.code,
    }


def _same_site(request: Request) -> None:
    """Other sites must not press our buttons: browsers say where a form was sent from."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise JouleboxError("bad_request", "This form was sent by another site. Open the page itself and ask there.")


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a form as they were sent, bounded."""
    _same_site(request)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_MAX_BYTES:
            raise JouleboxError(
                "body_too_large", f"The form is larger than {FORM_MAX_BYTES} bytes. Shorten the prompt."
            )
    try:
        fields = parse_qs(body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as error:
        raise JouleboxError("bad_request", "The form is not valid UTF-8. Send it from the page itself.") from error
    return {name: values[-1].replace("\r\n", "\n") for name, values in fields.items()}


def _prompt(texts: Mapping[str, str]) -> Json:
    """The ask form in the fields of `POST /api/v1/prompts`; empty options are left out."""
    form: Json = {name: texts.get(name, "") for name in ("model", "prompt")}
    if system := texts.get("system", "").strip():
        form["system"] = system
    for name, kind in (("max_tokens", int), ("temperature", float), ("seed", int)):
        if text := texts.get(name, "").strip():
            try:
                form[name] = kind(text)
            except ValueError as error:
                raise JouleboxError("bad_request", f"{name} must be a number; {_name(text)[:40]} is none.") from error
    return form


def _page(request: Request, html: str, status: int = 200) -> Response:
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
    }
    return _packed(request, html, status, headers)


def _packed(request: Request, text: str, status: int, headers: dict[str, str]) -> Response:
    """Text, compressed where the browser takes it; a page of receipts shrinks to a quarter."""
    body = text.encode()
    headers |= {"Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, 9, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, status, headers)


def refused(request: Request, error: JouleboxError) -> Response:
    """A failure as a page."""
    return _page(request, render_problem(problem_of(error)), error.failure.status)


def _see_other(address: str) -> Response:
    return Response(status_code=303, headers={"Location": address})
