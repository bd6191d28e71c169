"""What counts as a right answer, by arithmetic alone."""

from fractions import Fraction

import pytest

from joulebox.bench.scoring import (
    accuracy,
    blocks_in,
    chrf,
    code_in,
    declines,
    json_in,
    marked_in,
    normalised,
    numbers_in,
    query_in,
    same_rows,
    same_value,
    score,
)
from joulebox.bench.task import (
    Answer,
    Case,
    CodeTarget,
    CriteriaTarget,
    Criterion,
    NumberTarget,
    Outcome,
    Result,
    Sample,
    Score,
    SqlTarget,
    Target,
    TextTarget,
    TranslationTarget,
)

THIN, NARROW, MINUS = "\u2009", "\u202f", "\u2212"


def judged(target: Target, text: str, finish_reason: str = "stop", outcome: Outcome | None = None) -> Score:
    """The score of this text."""
    sample = Sample(id="one", prompt="?", target=target)
    return score(sample, Answer(id="one", text=text, finish_reason=finish_reason), outcome)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 42.", "42"),
        ("Answer: 1,234.50 euros", "1234.5"),
        (f"Answer: 12{NARROW}345 km", "12345"),
        (f"Answer: 1{THIN}000{THIN}000", "1000000"),
        ("Answer: $1,000,000", "1000000"),
        ("Answer: 3,5", "3.5"),
        (f"Answer: {MINUS}7", "-7"),
        ("Answer: - 7", "-7"),
        ("Answer: 7/8", "7/8"),
        ("Answer: 14/16 of the cake", "7/8"),
        ("Answer: 1 3/4 cups", "7/4"),
        (r"Answer: $\frac{7}{8}$", "7/8"),
        (r"Answer: $2\frac{1}{2}$", "5/2"),
        (r"So it is \boxed{15}", "15"),
        (r"So it is \boxed{\dfrac{3}{4}}.", "3/4"),
        ("Answer: 3.2 x 10^4 J", "32000"),
        (r"Answer: 3 \times 10^{-2}", "0.03"),
        ("Answer: 6.02e23", "6.02e23"),
        ("**Answer:** 12 %", "12"),
        ("**Answer**: x = 5", "5"),
        ("Answer: 2 * 3 = 6", "6"),
        ("Answer:\n**38 metres**", "38"),
        ("First 3, then 4, so 7 in all.", "7"),
        ("Janet has 9.\n#### 18", "18"),
        ("Answer: 5\nWait. Answer: 6", "6"),
        ("Answer: .5", "1/2"),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, value: str) -> None:
    """Signs, thousands, decimals, fractions, powers, units, marks and boxes all give the number that was meant."""
    told = judged(NumberTarget(value=value), text)
    assert (told.correct, told.mark) == (True, "correct"), told.reason


@pytest.mark.parametrize(
    "text", ["Answer: 43", "Forty-two", "Answer: 4.2", "Answer: 420", "42 is wrong, it is 41", "Answer: 42/0", ""]
)
def test_another_number_is_not_taken_for_the_right_one(text: str) -> None:
    """What is near, spelled out, or only on the way does not count."""
    assert not judged(NumberTarget(value="42"), text).correct


def test_a_tolerance_is_absolute() -> None:
    """A rounded number counts as far as the task allows."""
    target = NumberTarget(value="3.14159", tolerance="0.005")
    assert judged(target, "Answer: 3.14").correct
    assert not judged(target, "Answer: 3.13").correct


def test_thousands_are_groups_of_three() -> None:
    """A list of numbers is not one long number, and a version or a word with digits is none."""
    assert numbers_in("1, 2, 30") == [1, 2, 30]
    assert numbers_in("12,345,678 and 1,5") == [12_345_678, Fraction(3, 2)]
    assert numbers_in("x2 and v1.2.3") == []
    assert numbers_in("1/0 1e999999 " + "9" * 500) == []


def test_the_last_mark_counts() -> None:
    """Who corrects an answer is taken at the last word."""
    assert marked_in("Answer: 1\n... **Final answer:** 2 apples") == "2 apples"
    assert marked_in("There are two answers here.") is None


def test_a_number_on_the_way_is_no_answer_when_the_text_was_cut_off() -> None:
    """Of a text that was cut off only a number that is called the answer counts."""
    target = NumberTarget(value="42")
    cut = judged(target, "First, 6 times 7 is 42", finish_reason="length")
    assert (cut.correct, cut.mark) == (False, "truncated")
    assert judged(target, "Answer: 42\nI hope that this", finish_reason="length").correct


# --- short texts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["Kurt Gödel", "godel", "It was **Gödel**.", "The Goedel!", "I think it is Gödel\nbecause", "Answer: gödel",
     "<think>Hilbert?</think>Gödel"],
)  # fmt: skip
def test_an_accepted_name_counts_in_any_dress(text: str) -> None:
    """Case, accents, articles, emphasis, thoughts and a sentence around it do not matter."""
    assert judged(TextTarget(accepted=("Gödel", "Goedel")), text).correct


@pytest.mark.parametrize(
    "text", ["Gödelian", "Hilbert", "", "Hilbert said " * 20 + "Gödel", "Answer: Hilbert, not Gauss. Gödel"]
)
def test_other_names_do_not_count(text: str) -> None:
    """A part of a word, another name, or the name far behind everything else is not the answer."""
    assert not judged(TextTarget(accepted=("Gödel",), rejected=("Hilbert",)), text).correct


def test_naming_two_is_guessing() -> None:
    """The right name beside a rejected one is not right."""
    target = TextTarget(accepted=("north",), rejected=("south",))
    assert judged(target, "North").correct
    assert not judged(target, "North or south").correct


def test_words_are_compared_bare() -> None:
    """Normalising leaves words in lower case, without accents, articles and punctuation."""
    assert normalised("  The «Élan»,  an 1,000-year  o'clock! ") == "elan 1000 year oclock"


# --- code and SQL -----------------------------------------------------------------------------------------------------

ADD = CodeTarget(entry_point="add", cases=(Case(call="add(1, 2)", expected=3), Case(call="add(0, 0)", expected=0)))


def test_code_is_found_in_prose() -> None:
    """The block that defines the function is taken, whatever stands around it, closed or not."""
    block = "def add(a, b):\n    return a + b\n"
    assert code_in(f"Sure!\n```python\n{block}```\nUse it:\n```python\nprint(add(1, 2))\n```", "add") == block
    assert code_in(f"```\nimport os\n```\n~~~py\n{block}~~~", "add") == block
    assert code_in(f"```python\n{block}", "add") == block
    assert code_in(f"Here it is:\n{block}", "add") == block
    assert code_in("return a + b", "add", completes=True) == "    return a + b"
    assert "x = 1" in code_in("```js\nlet y\n```\n```py\nx = 1\n```", "add")


def test_a_query_is_found_in_prose() -> None:
    """The last block with a query is taken, else what begins with SELECT or WITH, up to its semicolon."""
    assert query_in("So:\n```sql\nSELECT 1\n```\nor better\n```sql\nSELECT 2;\n```") == "SELECT 2;"
    assert query_in("The query is SELECT a FROM t; it works.") == "SELECT a FROM t;"
    assert query_in("With care:\nWITH x AS (SELECT 1) SELECT * FROM x") == "WITH x AS (SELECT 1) SELECT * FROM x"
    assert blocks_in("```sql\nSELECT 1\n```", "python") == []


def test_partial_is_the_share_of_tests() -> None:
    """One test of two is half, and the first that failed is named."""
    half = Outcome(results=(Result(value=3), Result(error="ValueError: no")), finished=True)
    told = judged(ADD, "def add(a, b): ...", outcome=half)
    assert (told.correct, told.partial, told.mark) == (False, 0.5, "wrong")
    assert told.reason == "1 of 2 tests passed: add(0, 0) gave ValueError: no, not 0"


def test_a_program_that_ends_itself_is_not_right() -> None:
    """Right values do not help who was not run to the end."""
    told = judged(
        ADD, "x", outcome=Outcome(results=(Result(value=3), Result(value=0)), fault="died", detail="It died.")
    )
    assert not told.correct


def test_what_cannot_be_run_here_is_not_wrong() -> None:
    """Where there is no sandbox, an answer stays unscored, and no share counts it."""
    told = judged(ADD, "x", outcome=Outcome(fault="unavailable", detail="Not here."))
    assert (told.correct, told.mark) == (False, "unscored")
    assert accuracy([told]).value is None
    query = SqlTarget(setup="", rows=((1,),))
    assert judged(query, "SELECT 1", outcome=Outcome(fault="unavailable", detail="Not here.")).mark == "unscored"
    right = judged(NumberTarget(value="1"), "1")
    assert accuracy([told, right, judged(NumberTarget(value="1"), "2")]).value == 0.5


def test_values_are_equal_as_python_sees_them() -> None:
    """Types of containers and truth values matter, the last digits of a float do not."""
    assert same_value([1, (2.0, "a")], [1, (2, "a")])
    assert same_value(0.1 + 0.2, 0.3)
    assert same_value({"a": [0.1 + 0.2]}, {"a": [0.3]})
    assert not same_value(True, 1)
    assert not same_value((1, 2), [1, 2])
    assert not same_value({"a": 1}, {"b": 1})


def test_rows_are_a_bag_unless_order_was_asked_for() -> None:
    """Repeated rows count, order counts only where the task says so, and 1 is 1.0."""
    assert same_rows([(1, "a"), (2, None)], [(2, None), (1.0, "a")], ordered=False)
    assert not same_rows([(1, "a"), (2, None)], [(2, None), (1, "a")], ordered=True)
    assert not same_rows([(1,), (1,)], [(1,)], ordered=False)
    assert same_rows([(1 / 3,)], [(0.333333333333,)], ordered=True)
    target = SqlTarget(setup="", rows=((1,), (2,)), ordered=True)
    told = judged(target, "SELECT 1", outcome=Outcome(results=(Result(value=[(2,), (1,)]),), finished=True))
    assert told.reason == "The 2 rows came in the wrong order."


# --- translation and criteria -----------------------------------------------------------------------------------------


def test_chrf_is_sacrebleus() -> None:
    """Our few lines give what the reference implementation gives."""
    sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu is not installed: pip install sacrebleu")
    texts = [
        "The cat sat on the mat.",
        "A cat is sitting on a mat",
        "Die Katze sitzt auf der Matte.",
        "Katze",
        "é",
        "x y",
        "",
    ]
    for text in texts:
        for reference in texts[:-1]:
            theirs = sacrebleu.sentence_chrf(text, [reference, texts[0]]).score
            assert chrf(text, [reference, texts[0]]) == pytest.approx(theirs, abs=1e-9), (text, reference)


def test_a_translation_counts_from_its_threshold_on() -> None:
    """Quotation marks, a fence or a label around it are taken off; another language is far below."""
    target = TranslationTarget(references=("The weather is fine today.", "The weather is nice today."), chrf_min=60)
    for text in (
        "The weather is nice today.",
        '"The weather is fine today"',
        "Translation: the weather is nice today.",
    ):
        assert judged(target, text).correct
    wrong = judged(target, "Das Wetter ist heute schön.")
    assert (wrong.mark, wrong.correct) == ("wrong", False)
    assert 0 < wrong.partial < 0.4


@pytest.mark.parametrize(
    ("kind", "value", "good", "bad"),
    [
        ("words_max", 3, "one two three", "one two three four"),
        ("words_min", 3, "one - two three", "one two -"),
        ("words", 2, "Hello, world!", "Hello"),
        ("sentences", 2, "One is here. Two (also) is!", "One."),
        ("sentences_max", 1, "Only one", "One. Two."),
        ("bullets", 2, "- a\n* b", "- a"),
        ("only_bullets", True, "- a\n- b", "Here:\n- a"),
        ("lines", 2, "a\n\nb", "a"),
        ("paragraphs", 2, "a\n\nb", "a\nb"),
        ("names", ["1989", "nineteen eighty-nine"], "In Nineteen eighty nine", "In 19890"),
        ("lacks", ["sea"], "seaside", "By the sea."),
        ("is", ["yes"], "Yes.", "Yes, it is"),
        ("holds", "->", "a -> b", "a to b"),
        ("holds_not", ",", "a b", "a, b"),
        ("begins", "Dear", "Dear all", "dear all"),
        ("ends", "?", "Why?", "Why."),
        ("upper", True, "STOP", "Stop"),
        ("lower", True, "stop", "Stop"),
        ("matches", r"\d{4}-\d\d", "2024-05", "05/2024"),
        ("json", {"name": "Ada", "age": 36}, '```json\n{"age": 36, "name": "ada"}\n```', '{"name": "Ada"}'),
    ],
)
def test_each_criterion_tells_a_good_text_from_a_bad_one(kind: str, value: object, good: str, bad: str) -> None:
    """Every kind of criterion holds for one text and not for another."""
    target = CriteriaTarget(criteria=(Criterion(kind=kind, value=value), Criterion(kind="words_max", value=99)))
    assert judged(target, good).correct
    assert (judged(target, bad).correct, judged(target, bad).partial) == (False, 0.5)
    assert judged(target, good, finish_reason="length").mark == "truncated"


# --- what became of it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot answer this.",
        "As an AI language model, I",
        "I am unable to say",
    ],
)
def test_a_refusal_is_recognised(text: str) -> None:
    """An answer that declines is called refused, an answer that is right is not."""
    assert declines(text)
    assert judged(TextTarget(accepted=("Paris",)), text).mark == "refused"
    assert not declines("Icannot is a word. I can say: Paris.")
    assert judged(TextTarget(accepted=("Paris",)), "x", finish_reason="content_filter").mark == "refused"


def test_json_that_is_nested_beyond_all_reading_is_none() -> None:
    """A hundred thousand brackets are no JSON, and no failure of the machine that judges them."""
    with pytest.raises(ValueError, match="nested too deeply"):
        json_in("[" * 100_000)


def test_no_answer_is_empty() -> None:
    """Blank text, or thoughts that never ended, are no answer."""
    for text in ("", " \n", "<think>Paris"):
        assert judged(TextTarget(accepted=("Paris",)), text).mark == "empty"


@pytest.mark.parametrize(
    "unit", [" ", "\n", "```a\n", "1 ", "with x (", "\\frac{", "answer: ", "\\boxed{", "####", "9", "- ", "~~~\n"]
)
@pytest.mark.timeout(20)
def test_no_text_makes_scoring_slow(unit: str) -> None:
    """A hundred thousand characters of anything are judged in moments."""
    text = "x" + unit * (100_000 // len(unit))
    targets: list[Target] = [
        NumberTarget(value="1"),
        TextTarget(accepted=("a",)),
        TranslationTarget(references=("a b",), chrf_min=50),
    ]
    kinds: tuple[tuple[str, object], ...] = (("sentences", 1), ("bullets", 1), ("paragraphs", 1), ("json", {}))
    targets += [CriteriaTarget(criteria=tuple(Criterion(kind=kind, value=value) for kind, value in kinds))]
    for target in targets:
        judged(target, text)
    code_in(text, "f")
    query_in(text)
