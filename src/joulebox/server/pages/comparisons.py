"""Comparing models: the form, a comparison with its two votes, and what all votes say."""

from collections.abc import Callable, Mapping, Sequence
from math import hypot
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from joulebox import wording
from joulebox.errors import JouleboxError
from joulebox.server.comparing import Preference
from joulebox.server.gate import remember
from joulebox.server.origin import refuse_other_sites
from joulebox.server.pages.asking import REFRESH_S, defaults_of_a_prompt, model_told
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.forms import every_field, fields
from joulebox.server.pages.frame import (
    NOWHERE,
    View,
    one_line,
    page,
    problem_of,
    quantity,
    render,
    see_other,
    view_of,
)
from joulebox.server.pages.markdown import to_html
from joulebox.server.problems import headers_of
from joulebox.statistics.distributions import wilson
from joulebox.wording import Tongue, marked

Json = dict[str, Any]

LETTERS: Final = "ABCD"


def render_compare(
    models: Sequence[Mapping[str, Any]],
    nodes: Sequence[Mapping[str, Any]],
    *,
    form: Mapping[str, str] | None = None,
    chosen: Sequence[str] = (),
    problem: Mapping[str, Any] | None = None,
    view: View = NOWHERE,
) -> str:
    """The form: one prompt, several models. The first two are ticked where nothing was chosen."""
    told = [model_told(model, nodes, view._) for model in models]
    return render(
        "compare.html",
        view,
        models=told,
        form=form or {},
        chosen=chosen or [model["id"] for model in told[:2]],
        problem=problem,
        defaults=defaults_of_a_prompt(),
    )


def render_comparison(comparison: Mapping[str, Any], view: View = NOWHERE) -> str:
    """A comparison: on its way, the blind answers, or what they took."""
    _ = view._
    sides = [_side(letter, side, comparison, _) for letter, side in zip(LETTERS, comparison["sides"], strict=False)]
    headline, beneath = _headline(comparison, _)
    done, count = comparison["answered"], len(comparison["sides"])
    return render(
        "comparison.html",
        view,
        c=comparison,
        sides=sides if comparison["ready"] else [],
        headline=headline,
        beneath=beneath,
        waiting=_("{done} of {count} answers are there.", done=done, count=count),
        refresh_s=REFRESH_S,
    )


def _side(letter: str, side: Mapping[str, Any], comparison: Mapping[str, Any], _: Tongue) -> Json:
    figures = comparison["figures"]
    most = max((one["j"] or 0.0 for one in figures), default=0.0)
    figure = side.get("figure")
    place = LETTERS.index(letter)
    return {
        "letter": letter,
        "model": figure["model"] if figure else None,
        "figure": _figure(figure, _) if figure else None,
        "best": comparison["choice"] == str(place),
        "bar": f"{100 * (figure['j'] or 0.0) / most:.1f}" if figure and most else "0",
        "html": to_html(side["answer"]) if side["answer"] is not None else _("The text is for who asked."),
        "receipt_id": side.get("receipt_id"),
    }


def _figure(figure: Mapping[str, Any], _: Tongue) -> str:
    marks = [_(word) for word in (marked("modelled"), marked("simulated")) if figure[word]]
    return ", ".join([quantity(figure["j"], figure["u"], "J", _), *marks])


def _headline(comparison: Mapping[str, Any], _: Tongue) -> tuple[str | None, str]:
    """How many times the least energy the most is, with what is known of that."""
    figures = sorted(comparison["figures"], key=lambda one: one["j"] or 0.0)
    if len(figures) < 2 or any(not one["j"] or one["j"] <= 0 for one in figures):
        return (_("What it took is not known") if figures else None), ""
    least, most = figures[0], figures[-1]
    ratio = most["j"] / least["j"]
    u = ratio * hypot(most["u"] / most["j"], least["u"] / least["j"])
    times = _.number(wording.quantity(ratio, u, "").strip())
    names = {"large": one_line(most["model"]), "small": one_line(least["model"])}
    if ratio - u <= 1:
        return _("About the same energy"), _(
            "{large} took {times} × the energy of {small}: less than can be told apart.", times=times, **names
        )
    return _("{times} × the energy", times=_.number(wording.plain(ratio, "", 2))), _(
        "{large} took {times} × what {small} took for its answer.", times=times, **names
    )


def render_preferences(found: Sequence[Preference], view: View = NOWHERE) -> str:
    """What all votes say, pair by pair."""
    return render("preferences.html", view, rows=[_row(one, view._) for one in found])


def _row(one: Preference, _: Tongue) -> Json:
    larger, larger_span = _share(one.large_wins, one.n, _)
    worth, worth_span = _share(one.worth_yes, one.worth_told, _)
    return {
        "large": one.large,
        "small": one.small,
        "n": one.n,
        "larger": larger,
        "larger_span": larger_span,
        "smaller": _share(one.small_wins, one.n, _)[0],
        "ties": _share(one.ties, one.n, _)[0],
        "ratio": _(wording.NOT_MEASURED) if one.ratio is None else _.number(wording.plain(one.ratio, "×", 2)),
        "worth": worth,
        "worth_span": worth_span,
    }


def _share(count: int, n: int, _: Tongue) -> tuple[str, str]:
    if not n:
        return _("no votes"), ""
    share = wilson(count, n)
    span = _("{low} to {high}", low=f"{100 * share.low:.0f}", high=f"{100 * share.high:.0f} %")
    return f"{100 * share.value:.0f} %", span


def add(routes: APIRouter, backend: Callable[[Request], Backend]) -> None:
    """The routes of comparing."""

    @routes.get("/compare")
    async def compare_page(request: Request) -> Response:
        fetch = backend(request)
        return page(request, render_compare(await fetch.models(), await fetch.nodes(), view=view_of(request)))

    @routes.post("/compare")
    async def compare(request: Request) -> Response:
        given: dict[str, list[str]] = {}
        try:
            refuse_other_sites(request)
            given = await every_field(request)
            asked = {"prompt": _last(given, "prompt"), "models": given.get("models", [])}
            text = _last(given, "max_tokens").strip()
            if text and not (text.isdecimal() and text.isascii() and len(text) < 10):
                raise JouleboxError("bad_request", f"max_tokens must be a number; {one_line(text)[:40]} is none.")
            comparison_id = await backend(request).compare(asked | ({"max_tokens": int(text)} if text else {}))
            answer = see_other(f"/compare/{quote(comparison_id, safe='')}")
            remember(request, answer)
            return answer
        except JouleboxError as error:
            fetch = backend(request)
            html = render_compare(
                await fetch.models(),
                await fetch.nodes(),
                form={name: values[-1] for name, values in given.items()},
                chosen=given.get("models", []),
                problem=problem_of(error),
                view=view_of(request),
            )
            answer = page(request, html, error.failure.status)
            answer.headers.update(headers_of(error))
            return answer

    @routes.get("/compare/{comparison_id}")
    async def comparison_page(request: Request, comparison_id: str) -> Response:
        found = await backend(request).comparison(comparison_id)
        return page(request, render_comparison(found, view_of(request)))

    @routes.post("/compare/{comparison_id}/vote")
    async def vote(request: Request, comparison_id: str) -> Response:
        refuse_other_sites(request)
        await backend(request).choose(comparison_id, (await fields(request)).get("choice", ""))
        return see_other(f"/compare/{quote(comparison_id, safe='')}")

    @routes.post("/compare/{comparison_id}/worth")
    async def worth(request: Request, comparison_id: str) -> Response:
        refuse_other_sites(request)
        await backend(request).judge(comparison_id, (await fields(request)).get("worth", ""))
        return see_other(f"/compare/{quote(comparison_id, safe='')}")

    @routes.get("/preferences")
    async def preferences_page(request: Request) -> Response:
        return page(request, render_preferences(await backend(request).preferences(), view_of(request)))


def _last(given: Mapping[str, Sequence[str]], name: str) -> str:
    return given[name][-1] if given.get(name) else ""
