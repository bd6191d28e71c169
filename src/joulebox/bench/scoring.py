"""Is this answer right? Arithmetic on text, without file, clock, chance or process: the same answer, the same score.

What has to be run for it (code, SQL) is described by `program` and run elsewhere; `score` then judges what came out.
"""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Final

from joulebox.bench.task import (
    Answer,
    CodeTarget,
    CriteriaTarget,
    Criterion,
    Metric,
    NumberTarget,
    Outcome,
    Program,
    Sample,
    Score,
    SqlTarget,
    Target,
    TextTarget,
    TranslationTarget,
)

ANSWER_CHARS_MAX: Final = 100_000
"""Longer answers are judged by their beginning: no scorer is slow, whatever comes."""


def program(sample: Sample, answer: Answer) -> Program | None:
    """What has to be run before this answer can be judged; `None` where looking at it is enough."""
    text = _told(answer)
    match sample.target:
        case CodeTarget() as target:
            source = code_in(text, target.entry_point, completes=bool(target.prefix))
            calls = tuple(case.call for case in target.cases)
            return Program(language="python", source=source, calls=calls, check=target.check, prefix=target.prefix)
        case SqlTarget() as target:
            return Program(language="sql", source=query_in(text), setup=target.setup)
    return None


def score(sample: Sample, answer: Answer, outcome: Outcome | None = None) -> Score:
    """Judge one answer; `outcome` is what its `program` gave.

    An answer that was cut off, or that declines, is judged like any other and named as such where it is not right.
    """
    text = _told(answer)
    if not text:
        return Score(correct=False, partial=0.0, mark="empty", reason="There is no answer.")
    cut = answer.finish_reason == "length"
    judged = _judged(sample.target, text, outcome or Outcome(), cut=cut)
    if judged.mark != "wrong":
        return judged
    if answer.finish_reason == "content_filter" or declines(text):
        return replace(judged, mark="refused", reason=f"It declines. {judged.reason}")
    if cut:
        return replace(judged, mark="truncated", reason=f"It was cut off. {judged.reason}")
    return judged


def _judged(target: Target, text: str, outcome: Outcome, *, cut: bool) -> Score:
    match target:
        case CodeTarget():
            return _code(target, outcome)
        case SqlTarget():
            return _sql(target, outcome)
        case NumberTarget():
            return _number(target, text, cut=cut)
        case TextTarget():
            return _text(target, text)
        case TranslationTarget():
            return _translation(target, text)
    return _criteria(target, text, cut=cut)


def accuracy(scores: Iterable[Score]) -> Metric:
    """The share of right answers among those that could be judged."""
    judged = [each for each in scores if each.mark != "unscored"]
    right = sum(each.correct for each in judged)
    return Metric(name="accuracy", value=right / len(judged) if judged else None, n=len(judged))


def _told(answer: Answer) -> str:
    """The answer without what a model thought aloud before it."""
    text = answer.text[:ANSWER_CHARS_MAX]
    after = text.rpartition("</think>")[2]
    return "" if after.lstrip().startswith("<think>") else after.strip()


def _score(passed: int, of: int, reason: str) -> Score:
    right = passed == of
    return Score(correct=right, partial=passed / of, mark="correct" if right else "wrong", reason=reason)


_REFUSALS: Final = re.compile(
    r"(i['’]?m sorry,? but|i apologi[sz]e,? but|sorry,? (but )?i)?[\s,]*"
    r"((as an ai\b)|i('m| am) (unable|not able) to\b|i (can ?not|can['’]?t|could not|will not|won['’]?t)\b"
    r"|i do(n['’]?t| not) (know|have enough))",
    re.IGNORECASE,
)


def declines(text: str) -> bool:
    """Whether the answer begins by saying that it will not or cannot answer."""
    return _REFUSALS.match(text.lstrip("\"'*# \n")) is not None


# --- code -------------------------------------------------------------------------------------------------------------

_FENCE: Final = re.compile(
    r"^[ \t]*(```+|~~~+)[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_STARTS_CODE: Final = re.compile(r"^(def |class |import |from \w+ import |@\w|async def )", re.MULTILINE)


def blocks_in(text: str, *languages: str) -> list[str]:
    """The fenced blocks of a Markdown text that are marked as one of these languages, or not marked at all."""
    return [body for _, language, body in _FENCE.findall(text) if language.lower() in {"", *languages}]


def code_in(text: str, entry_point: str, *, completes: bool = False) -> str:
    """The Python of an answer: the first block that defines `entry_point`, else all blocks, else the text from its
    first line of code on. With `completes`, text without any is what continues the prompt's own code."""
    blocks = blocks_in(text, "python", "python3", "py")
    defines = re.compile(
        rf"^[ \t]*(?:async\s+def|def|class)\s+{re.escape(entry_point)}\b|^{re.escape(entry_point)}\s*=", re.M
    )
    for block in blocks:
        if defines.search(block):
            return block
    if blocks:
        return "\n".join(blocks)
    start = _STARTS_CODE.search(text)
    if completes and not defines.search(text):
        return "\n".join(f"    {line}" if not line[:1].isspace() else line for line in text.splitlines())
    return text[start.start() :] if start else text


def _code(target: CodeTarget, outcome: Outcome) -> Score:
    """Every case, and the check program as one more."""
    of = len(target.cases) + bool(target.check)
    if outcome.fault == "unavailable":
        return Score(correct=False, partial=0.0, mark="unscored", reason=outcome.detail)
    passed = 0
    first_wrong = outcome.detail or (outcome.results[0].error or "" if outcome.results else "")
    for case, result in reversed(list(zip(target.cases, outcome.results, strict=False))):
        if result.error is None and same_value(result.value, case.expected):
            passed += 1
        else:
            first_wrong = f"{case.call} gave {result.error or repr(result.value)[:80]}, not {case.expected!r}"
    checked = outcome.finished and len(outcome.results) == len(target.cases)
    if target.check and checked:
        passed += 1
    elif target.check and outcome.finished:
        first_wrong = outcome.results[-1].error or first_wrong
    if passed == of and not outcome.finished:
        passed -= 1  # it ended itself: nobody ran it to the end
    reason = f"{passed} of {of} tests passed"
    return _score(passed, of, f"{reason}." if passed == of else f"{reason}: {first_wrong}")


def same_value(got: object, expected: object) -> bool:
    """Equal as Python sees it, with floats to nine digits, and true and false not taken for numbers."""
    if isinstance(got, bool) or isinstance(expected, bool):
        return got is expected
    if isinstance(got, int | float) and isinstance(expected, int | float):
        return got == expected or math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple):
        alike = type(got) is type(expected) and len(got) == len(expected)
        return alike and all(same_value(one, other) for one, other in zip(got, expected, strict=True))
    if isinstance(got, dict) and isinstance(expected, dict):
        return got.keys() == expected.keys() and all(same_value(got[key], expected[key]) for key in expected)
    return got == expected


# --- SQL --------------------------------------------------------------------------------------------------------------


def query_in(text: str) -> str:
    """The query of an answer: its last fenced block that reads, else the text from the first SELECT or WITH on."""
    for block in reversed(blocks_in(text, "sql", "sqlite")):
        if re.search(r"\b(select|with|values)\b", block, re.IGNORECASE):
            return block.strip()
    start = re.search(r"\b(?:with\s+(?:recursive\s+)?\w+(?:\s*\([^)]{0,300}\))?\s+as|select)\b", text, re.IGNORECASE)
    if start is None:
        return text
    query, end, _ = text[start.start() :].partition(";")
    return query + end


def _sql(target: SqlTarget, outcome: Outcome) -> Score:
    """The same rows, in the same order where order was asked for."""
    if outcome.fault == "unavailable":
        return Score(correct=False, partial=0.0, mark="unscored", reason=outcome.detail)
    result = outcome.results[0] if outcome.results else None
    if result is None or result.error is not None or not outcome.finished:
        why = outcome.detail or (result.error if result is not None else None) or "It gave nothing."
        return _score(0, 1, f"The query failed: {why}")
    rows = result.value if isinstance(result.value, list) else []
    right = same_rows(rows, target.rows, ordered=target.ordered)
    order = "" if right or not same_rows(rows, target.rows, ordered=False) else " in the wrong order"
    verdict = "are right" if right else f"are not the {len(target.rows)} expected ones" if not order else f"came{order}"
    return _score(int(right), 1, f"The {len(rows)} rows {verdict}.")


def same_rows(got: Sequence[object], expected: Sequence[object], *, ordered: bool) -> bool:
    """Whether two results hold the same rows; numbers count as equal to nine digits, 1 and 1.0 are one number."""
    ours, theirs = [_row(row) for row in got], [_row(row) for row in expected]
    return ours == theirs if ordered else Counter(ours) == Counter(theirs)


def _row(row: object) -> tuple[object, ...]:
    cells = row if isinstance(row, list | tuple) else (row,)
    return tuple(
        float(f"{cell:.9g}") if isinstance(cell, int | float) else cell if isinstance(cell, str) else repr(cell)
        for cell in cells
    )


# --- numbers ----------------------------------------------------------------------------------------------------------

_DIGITS: Final = r"(?:\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?!\d)|\d+)(?:[.]\d+)?|[.]\d+"
_NUMBER: Final = re.compile(
    rf"(?<![\w.])(?P<sign>[-+\u2212\u2013]\s?)?[$€£]?\s?(?P<first>{_DIGITS})"
    rf"(?:,(?P<decimals>\d{{1,2}}|\d{{4,}})(?![\d.]))?"
    rf"(?:\s*(?:[x×*·]|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{{?(?P<ten>[-\u2212]?\d+)\}}?|[eE](?P<exponent>[-+]?\d+)(?!\w))?"
    rf"(?:\s*/\s*(?P<below>{_DIGITS}))?(?![\d])"
)
_TEX_FRACTION: Final = re.compile(r"(-?\s?)(\d{0,9})\s?\\[dt]?frac\s?\{\s?(-?\d+)\s?\}\s?\{\s?(\d+)\s?\}")
_MIXED: Final = re.compile(r"(?<![\d./])(-?)(\d+)\s+(\d+)/(\d+)(?![\d/.])")
_MARKED: Final = re.compile(
    r"(?:\*\*|__)?\b(?:final\s+)?answer(?:\s+is\b|(?:\*\*|__)?\s?[:=])\s*[:=]?\s*(?:\*\*|__)?(.+)", re.IGNORECASE
)


def marked_in(text: str) -> str | None:
    """What an answer itself calls its answer: after `Answer:`, after `####`, or in a TeX box; the last one counts."""
    found = [(each.start(), each.group(1)) for each in _MARKED.finditer(text)]
    found += [(each.start(), each.group(1)) for each in re.finditer(r"####\s*(.+)", text)]
    found += [(each.start(), each.group(1)) for each in re.finditer(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}", text)]
    return max(found)[1].strip() if found else None


def numbers_in(text: str) -> list[Fraction]:
    """The numbers of a text in their order: signs, thousands, decimals, powers of ten, fractions, mixed numbers."""
    text = text.replace("\\,", "").replace("{,}", ",").replace("\\$", "$").replace("\\%", "%")
    text = _TEX_FRACTION.sub(
        lambda tex: f"{tex[1].strip()}{tex[2]} {tex[3]}/{tex[4]}" if tex[2] else f"{tex[1]}{tex[3]}/{tex[4]}", text
    )
    text = _MIXED.sub(
        lambda mixed: f"{mixed[1]}{int(mixed[2][:99]) * int(mixed[4][:99]) + int(mixed[3][:99])}/{mixed[4]}", text
    )
    found = (_fraction(match) for match in _NUMBER.finditer(text))
    return [number for number in found if number is not None]


def _fraction(match: re.Match[str]) -> Fraction | None:
    """One number, exactly; nothing where it cannot be one (a zero below the line, an absurd exponent)."""
    exponent = int((match["ten"] or match["exponent"] or "0").replace("\u2212", "-")[:6])
    if abs(exponent) > 400 or len(match[0]) > 400:
        return None
    separators = str.maketrans("", "", ",\u00a0\u2009\u202f")
    first = match["first"].translate(separators) + (f".{match['decimals']}" if match["decimals"] else "")
    below = Fraction((match["below"] or "1").translate(separators))
    if not below:
        return None
    value = Fraction(first) * Fraction(10) ** exponent / below
    return -value if (match["sign"] or "").strip() in ("-", "\u2212", "\u2013") else value


def _number(target: NumberTarget, text: str, *, cut: bool) -> Score:
    """The number that the answer calls its answer, else its last one; of an answer that was cut off only the former."""
    marked = marked_in(text)
    found = numbers_in(marked) if marked else []
    if marked and found and "=" in marked:
        found = found[-1:]
    told = found[0] if found else None
    if told is None and not cut:
        told = next(reversed(numbers_in(text)), None)
    if told is None:
        return _score(0, 1, "It gives no number.")
    right = abs(told - Fraction(target.value)) <= Fraction(target.tolerance)
    return _score(int(right), 1, f"It says {_written(told)}{'' if right else f', not {target.value}'}.")


def _written(number: Fraction) -> str:
    whole = number.denominator == 1
    return str(number)[:40] if whole else f"{Decimal(number.numerator) / Decimal(number.denominator):.6g}"


# --- short texts ------------------------------------------------------------------------------------------------------

_WORDS_LOOKED_AT: Final = 40


def normalised(text: str) -> str:
    """Lower case without accents, punctuation and articles, words one space apart."""
    bare = "".join(each for each in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(each))
    words = re.sub(r"(?<=\d),(?=\d{3})", "", bare).replace("'", "").replace("’", "")
    return " ".join(word for word in re.findall(r"\w+", words) if word not in {"a", "an", "the"})


def _text(target: TextTarget, text: str) -> Score:
    """An accepted answer within what the answer calls its answer, or else within its first lines."""
    marked = marked_in(text)
    looked_at = normalised(marked) if marked else " ".join(normalised(text).split()[:_WORDS_LOOKED_AT])
    named = _names_one_of(looked_at, target.accepted)
    other = _names_one_of(looked_at, target.rejected)
    reason = f"It names {named!r}." if named else f"It does not name {target.accepted[0]!r}."
    return _score(int(named is not None and other is None), 1, reason if other is None else f"It names {other!r}.")


def _names_one_of(text: str, names: Sequence[str]) -> str | None:
    return next((name for name in names if f" {normalised(name)} " in f" {text} "), None)


# --- translation ------------------------------------------------------------------------------------------------------

_GRAM_MAX: Final = 6
_BETA_SQUARED: Final = 4.0


def chrf(text: str, references: Sequence[str]) -> float:
    """The chrF (Popović 2015) of a text, 0 to 100: character n-grams to 6, beta 2, no spaces, nearest reference."""
    return max((_chrf(text, reference) for reference in references), default=0.0)


def _chrf(text: str, reference: str) -> float:
    """As sacrebleu's `sentence_chrf`, which averages precision and recall over the orders that both texts have."""
    ours, theirs = re.sub(r"\s+", "", text), re.sub(r"\s+", "", reference)
    precisions, recalls = [], []
    for order in range(1, min(_GRAM_MAX, len(ours), len(theirs)) + 1):
        mine, wanted = (
            Counter(each[at : at + order] for at in range(len(each) - order + 1)) for each in (ours, theirs)
        )
        shared = (mine & wanted).total()
        precisions.append(shared / mine.total())
        recalls.append(shared / wanted.total())
    if not precisions or not any(precisions):
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 100 * (1 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)


def _translation(target: TranslationTarget, text: str) -> Score:
    """The chrF of the answer without a label, quotation marks or a fence around it."""
    text = _unwrapped(text)
    reached = chrf(text[:2000], target.references)
    right = reached >= target.chrf_min
    reason = f"chrF {reached:.1f}, {target.chrf_min:g} wanted."
    return Score(correct=right, partial=reached / 100, mark="correct" if right else "wrong", reason=reason)


def _unwrapped(text: str) -> str:
    """The text that stands alone in a fence, after a label such as `Translation:`, or in quotation marks."""
    blocks = blocks_in(text, "text", "plaintext")
    text = (blocks[0] if len(blocks) == 1 else text).strip()
    text = re.sub(
        r"^\W*(translation|translated( text)?|english|german|french|spanish|deutsch|français|español)\W*:\W*",
        "",
        text,
        flags=re.I,
    )
    return text.strip("\"'`*“”„«»‹› \n\t")


# --- criteria ---------------------------------------------------------------------------------------------------------


_PATTERN_CHARS_MAX: Final = 2000


def words_in(text: str) -> list[str]:
    """The words of a text; a bullet or a dash on its own is none."""
    return [each for each in text.split() if re.search(r"\w", each)]


def bullets_in(text: str) -> list[str]:
    """The lines that begin with `-`, `*`, `+` or a dot."""
    return re.findall(r"^[ \t]*[-*+•][ \t]+(.*\S)", text, re.MULTILINE)


def sentences_in(text: str) -> list[str]:
    """The sentences of a text without abbreviations: what ends in `.`, `!` or `?` before a space or the end."""
    return [each for each in re.split(r"(?<=[.!?])[\"'”’)]*\s+|\n+", text.strip()) if re.search(r"\w", each)]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _paragraphs(text: str) -> list[str]:
    return [each for each in re.split(r"\n\s*\n", text.strip()) if each.strip()]


def json_in(text: str) -> object:
    """The JSON value that the answer is, alone or in one fence. Raises `ValueError` where it is none."""
    blocks = blocks_in(text, "json")
    try:
        return json.loads(blocks[0] if len(blocks) == 1 else text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _json_is(text: str, wanted: object) -> bool:
    try:
        return _same_json(json_in(text), wanted)
    except ValueError:
        return False


def _same_json(got: object, wanted: object) -> bool:
    """Equal, with texts compared without regard to case and spaces around them."""
    if isinstance(got, str) and isinstance(wanted, str):
        return got.strip().casefold() == wanted.strip().casefold()
    if isinstance(got, dict) and isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(_same_json(got[key], wanted[key]) for key in wanted)
    if isinstance(got, list) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(_same_json(*pair) for pair in zip(got, wanted, strict=True))
    return same_value(got, wanted)


def _names(text: str, choices: object) -> bool:
    assert isinstance(choices, Sequence)
    return _names_one_of(normalised(text), [str(each) for each in choices]) is not None


def _matches(text: str, pattern: str) -> bool:
    """Patterns look at short texts alone: what they cost grows faster than the text."""
    return len(text) <= _PATTERN_CHARS_MAX and re.fullmatch(pattern, text, re.DOTALL) is not None


def _whole(value: object) -> int:
    assert isinstance(value, int)
    return value


CRITERIA: Final[dict[str, tuple[str, Callable[[str, object], bool]]]] = {
    "words_max": ("at most {} words", lambda text, value: len(words_in(text)) <= _whole(value)),
    "words_min": ("at least {} words", lambda text, value: len(words_in(text)) >= _whole(value)),
    "words": ("exactly {} words", lambda text, value: len(words_in(text)) == _whole(value)),
    "sentences": ("exactly {} sentences", lambda text, value: len(sentences_in(text)) == _whole(value)),
    "sentences_max": ("at most {} sentences", lambda text, value: len(sentences_in(text)) <= _whole(value)),
    "bullets": ("exactly {} bullets", lambda text, value: len(bullets_in(text)) == _whole(value)),
    "only_bullets": ("nothing but bullets", lambda text, _: len(bullets_in(text)) == len(_lines(text))),
    "lines": ("exactly {} lines", lambda text, value: len(_lines(text)) == _whole(value)),
    "paragraphs": ("exactly {} paragraphs", lambda text, value: len(_paragraphs(text)) == _whole(value)),
    "names": ("names one of {}", _names),
    "lacks": ("does not name any of {}", lambda text, value: not _names(text, value)),
    "is": ("is one of {}", lambda text, value: isinstance(value, list) and normalised(text) in map(normalised, value)),
    "holds": ("contains {!r}", lambda text, value: str(value) in text),
    "holds_not": ("does not contain {!r}", lambda text, value: str(value) not in text),
    "begins": ("begins with {!r}", lambda text, value: text.startswith(str(value))),
    "ends": ("ends with {!r}", lambda text, value: text.endswith(str(value))),
    "upper": ("is all in capitals", lambda text, _: text == text.upper() and text != text.lower()),
    "lower": ("is all in small letters", lambda text, _: text == text.lower() and text != text.upper()),
    "matches": ("has the form asked for", lambda text, value: _matches(text, str(value))),
    "json": ("is the JSON asked for", _json_is),
}
"""What can be asked of a text: kind, the words for it, the test."""


def meets(text: str, criterion: Criterion) -> bool:
    """Whether a text meets one criterion."""
    return CRITERIA[criterion.kind][1](text.strip(), criterion.value)


def _criteria(target: CriteriaTarget, text: str, *, cut: bool) -> Score:
    """Each criterion counts alike; what was cut off is not a finished text, whatever it meets."""
    missed = [each for each in target.criteria if not meets(text, each)]
    of = len(target.criteria)
    passed = of - len(missed)
    if missed:
        return _score(passed, of, f"It misses: {CRITERIA[missed[0].kind][0].format(missed[0].value)}.")
    met = _score(of, of, f"It meets {of} of {of} criteria.")
    return replace(met, correct=False, mark="wrong") if cut else met
