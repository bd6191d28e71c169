"""The benchmark's statistics against published tables, and against simulated campaigns whose truth is known."""

import math
import random
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.statistics import Interval
from joulebox.statistics.clustered import Part, mean_of, ratio_of_sums, variation
from joulebox.statistics.comparing import Looks, cheapest, compare, holm, less_by_chance, paired
from joulebox.statistics.distributions import (
    at_least,
    at_most,
    beta_cdf,
    student_t_above,
    student_t_quantile,
    wilson,
)
from joulebox.statistics.recommending import Candidate, recommend

PROMPTS = 50
CAP_TOKENS = 256
FAST, FULL = 150, 2000

# --- published tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "freedom", "published"),
    [
        (0.975, 1, 12.706),
        (0.995, 1, 63.657),
        (0.975, 4, 2.776),
        (0.95, 9, 1.833),
        (0.995, 9, 3.250),
        (0.975, 49, 2.010),
    ],
)
def test_students_t_is_that_of_the_tables(p: float, freedom: int, published: float) -> None:
    """Quantiles of Student's t agree with the printed tables, and the tail beyond them is what is left."""
    assert student_t_quantile(p, freedom) == pytest.approx(published, abs=5e-4)
    assert student_t_quantile(1 - p, freedom) == pytest.approx(-published, abs=5e-4)
    assert student_t_above(student_t_quantile(p, freedom), freedom) == pytest.approx(1 - p, rel=1e-9)


@pytest.mark.parametrize(
    ("right", "n", "score", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_shares_have_the_published_intervals(
    right: int, n: int, score: tuple[float, float], exact: tuple[float, float]
) -> None:
    """Wilson's interval and Clopper and Pearson's bounds agree with the examples of Newcombe (1998)."""
    found = wilson(right, n)
    assert (found.low, found.high) == pytest.approx(score, abs=5e-5)
    assert (at_least(right, n, 0.025), at_most(right, n, 0.025)) == pytest.approx(exact, abs=5e-5)


def test_the_beta_function_is_the_binomial() -> None:
    """The incomplete beta function adds up the binomial's terms."""
    for n, k, p in ((12, 5, 0.3), (40, 1, 0.02), (200, 150, 0.8)):
        tail = math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
        assert beta_cdf(p, k, n - k + 1) == pytest.approx(tail, rel=1e-10)


def test_holm_raises_p_values_as_published() -> None:
    """Holm's procedure multiplies the smallest by their number, the next by one less, and never falls."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({}) == {}


@given(st.lists(st.floats(0.01, 1e6), min_size=10, max_size=12))
def test_a_mean_lies_in_its_interval_and_scales(values: list[float]) -> None:
    """The interval holds the mean, and a thousand times the joules have a thousand times the interval."""
    found, scaled = mean_of(values), mean_of([value * 1000 for value in values])
    assert found is not None
    assert scaled is not None
    assert found.low <= found.value * (1 + 1e-9)
    assert found.value <= found.high * (1 + 1e-9)
    assert scaled.value == pytest.approx(1000 * found.value)
    assert found.value == pytest.approx(fmean(values))


def test_too_little_has_no_interval() -> None:
    """Fewer than ten prompts, or fewer than five right answers, give no figure; repeats give a node's CV."""
    assert mean_of([1.0] * 9) is None
    assert ratio_of_sums([Part(1.0, float(i < 4)) for i in range(50)]) is None
    assert ratio_of_sums([Part(1.0, float(i < 5)) for i in range(50)]) is not None
    assert mean_of([2.0] * 10) == Interval(2.0, 2.0, 2.0)
    assert variation([[1.0], [2.0]]) is None
    assert variation([[9.0, 11.0], [90.0, 110.0]]) == pytest.approx((math.sqrt(0.02), 2))


# --- simulated campaigns ----------------------------------------------------------------------------------------------


def tokens(chance: random.Random, middle: float = 4.0) -> int:
    """How long an answer is: skewed, and cut off at the cap."""
    return min(CAP_TOKENS, int(chance.lognormvariate(middle, 0.8)) + 1)


def energy_j(chance: random.Random, length: int, scale: float = 1.0) -> float:
    """What such an answer takes: reading, writing, and the meter's noise."""
    return scale * (3 + 0.1 * length) * chance.lognormvariate(0, 0.05)


def an_answer(chance: random.Random) -> list[Part]:
    return [Part(energy_j(chance, tokens(chance)), 1.0)]


def two_repeats(chance: random.Random) -> list[Part]:
    length = tokens(chance)
    return [Part(energy_j(chance, length), 1.0) for _ in range(2)]


def a_token(chance: random.Random) -> list[Part]:
    length = tokens(chance)
    return [Part(energy_j(chance, length), float(length))]


def a_right_answer(chance: random.Random) -> list[Part]:
    length = tokens(chance)
    return [Part(energy_j(chance, length), float(chance.random() < (0.55 if length < 60 else 0.3)))]


Draw = Callable[[random.Random], list[Part]]
FIGURES: list[Draw] = [an_answer, two_repeats, a_token, a_right_answer]


def one_prompt(draw: Draw, chance: random.Random) -> Part:
    parts = draw(chance)
    return Part(sum(part.above for part in parts), sum(part.below for part in parts))


def coverage(draw: Draw, campaigns: int, prompts: int = PROMPTS) -> float:
    """How often the interval of a simulated campaign holds what very many prompts come to."""
    chance = random.Random(20261123)
    many = [one_prompt(draw, chance) for _ in range(100_000)]
    truth = sum(part.above for part in many) / sum(part.below for part in many)
    held = 0
    for _ in range(campaigns):
        found = ratio_of_sums([one_prompt(draw, chance) for _ in range(prompts)])
        held += found is not None and found.low <= truth <= found.high
    return held / campaigns


def test_intervals_hold_the_truth_in_a_few_campaigns() -> None:
    """The interval of the joules of an answer holds the truth 93 to 97 times of 100 (few campaigns, the same seed)."""
    assert 0.93 <= coverage(an_answer, FAST) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("draw", FIGURES)
def test_intervals_hold_the_truth(draw: Draw) -> None:
    """Per answer, per token, per right answer and with repeats: over many campaigns 93 to 97 of 100."""
    share = coverage(draw, FULL)
    print(f"{draw.__name__}: the interval holds the truth in {share:.1%} of {FULL} campaigns of {PROMPTS} prompts")
    assert 0.93 <= share <= 0.97


def share_coverage(share: float, n: int) -> float:
    """How often Wilson's interval holds a true share, reckoned over all outcomes."""
    held = [k for k in range(n + 1) if (found := wilson(k, n)).low <= share <= found.high]
    return math.fsum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in held)


def test_wilson_holds_the_truth() -> None:
    """Averaged over shares from 5 to 95 %, Wilson's interval of 50 prompts holds the truth 93 to 97 times of 100."""
    assert 0.93 <= fmean(share_coverage(share / 100, PROMPTS) for share in range(5, 96)) <= 0.97


Campaign = list[dict[str, float]]
"""By prompt in order, what each model took."""


def campaign(chance: random.Random, scales: Sequence[float], prompts: int = PROMPTS) -> Campaign:
    """Models that answer the same prompts at these costs: long prompts are long for all, each has its own manner."""
    rows = []
    for _ in range(prompts):
        hard = chance.gauss(4.0, 0.5)
        rows.append(
            {
                f"m{at}": energy_j(chance, min(CAP_TOKENS, int(chance.lognormvariate(hard, 0.5)) + 1), scale)
                for at, scale in enumerate(scales)
            }
        )
    return rows


def until_separated(rows: Campaign, step: int = 10) -> tuple[int, dict[tuple[str, str], str]]:
    """Answers asked for, and what was decided of each pair, when a model rests once all its pairs are decided."""
    names = list(rows[0])
    looks = Looks(models=len(names), looks=len(rows) // step)
    sides: dict[tuple[str, str], str] = {}
    answers = 0
    for end in range(step, len(rows) + 1, step):
        open_ = [(one, other) for i, one in enumerate(names) for other in names[i + 1 :] if (one, other) not in sides]
        answers += step * len({name for pair in open_ for name in pair})
        for one, other in open_:
            found = looks.at([(row[one], row[other]) for row in rows[:end]])
            if found is not None and found.side != "open":
                sides[one, other] = found.side
    return answers, sides


def wrong_stops(campaigns: int, scales: Sequence[float] = (1.0, 1.0, 1.0)) -> float:
    """How often a campaign of models that are alike says of any pair that they are not."""
    chance = random.Random(7)
    return sum(bool(until_separated(campaign(chance, scales))[1]) for _ in range(campaigns)) / campaigns


def answers_needed(campaigns: int, scales: Sequence[float]) -> tuple[float, float]:
    """Of the fixed design's answers, the share asked for until separated; and how often a pair was told wrongly."""
    chance = random.Random(8)
    asked, wrong = 0, 0
    for _ in range(campaigns):
        answers, sides = until_separated(campaign(chance, scales))
        asked += answers
        wrong += any((scales[int(one[1:])] < scales[int(other[1:])]) != (side == "less")
                     for (one, other), side in sides.items())  # fmt: skip
    return asked / (campaigns * PROMPTS * len(scales)), wrong / campaigns


TYPICAL = (1.0, 2.3, 4.6)
"""Three small models one beside the other, as the CPU seconds of their answers are (135M, 0.5B, 1.5B)."""


def test_stopping_early_seldom_errs_and_saves() -> None:
    """Models that are alike are told apart in at most 5 % of campaigns; typical ones with half the answers or fewer."""
    assert wrong_stops(FAST) <= 0.05
    share, wrong = answers_needed(FAST, TYPICAL)
    assert share <= 0.5
    assert wrong <= 0.05


@pytest.mark.slow
def test_stopping_early_seldom_errs_and_saves_at_full_size() -> None:
    """The same over many campaigns, and with models that are close."""
    errs, (share, wrong) = wrong_stops(FULL), answers_needed(FULL, TYPICAL)
    near, near_wrong = answers_needed(FULL, (1.0, 1.1, 1.2))
    print(f"alike: told apart in {errs:.2%}; typical: {share:.1%} of the answers, {wrong:.2%} wrong; "
          f"close: {near:.1%}, {near_wrong:.2%} wrong")  # fmt: skip
    assert max(errs, wrong, near_wrong) <= 0.05
    assert share <= 0.5


def wrong_marks(campaigns: int, scales: Sequence[float], categories: int = 5) -> float:
    """How often a table whose cheapest is no cheaper than the next has any mark."""
    chance = random.Random(9)
    wrong = 0
    for _ in range(campaigns):
        chances = {}
        for category in range(categories):
            rows = campaign(chance, scales)
            figures = {name: {str(at): row[name] for at, row in enumerate(rows)} for name in rows[0]}
            found = cheapest(figures)
            assert found is not None
            chances[category] = found[1]
        wrong += min(holm(chances).values()) < 0.05
    return wrong / campaigns


def test_the_mark_of_the_cheapest_is_seldom_given_by_chance() -> None:
    """Among models that are alike, or of which two are, a table of five categories marks any in about 5 % at most."""
    assert wrong_marks(FAST, (1.0, 1.0)) <= 0.08
    assert wrong_marks(FAST, (1.0, 1.0, 3.0)) <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize("scales", [(1.0, 1.0), (1.0, 1.0, 3.0), (1.0,) * 4])
def test_the_mark_of_the_cheapest_is_seldom_given_by_chance_at_full_size(scales: tuple[float, ...]) -> None:
    """The same over many campaigns, with the room that their number leaves to chance."""
    share = wrong_marks(FULL, scales)
    print(f"{scales}: a mark by chance in {share:.2%} of {FULL} tables of five categories")
    assert share <= 0.06


def test_the_cheapest_is_marked_where_it_is_clear() -> None:
    """A model that takes half as much is the cheapest; a comparison says how many times, too few pairs nothing."""
    rows = campaign(random.Random(3), (2.0, 1.0, 3.0))
    figures = {name: {str(at): row[name] for at, row in enumerate(rows)} for name in rows[0]}
    found = cheapest(figures)
    assert found is not None
    assert found[0] == "m1"
    assert found[1] < 0.01
    told = compare(paired(figures["m0"], figures["m1"]))
    assert told.side == "more"
    assert told.ratio.low < 2.0 < told.ratio.high
    assert compare([(1.0, 1.0), (1.01, 1.0), (1.0, 1.01), (1.0, 1.0), (1.0, 1.0)], precision=0.1).side == "alike"
    assert less_by_chance([(1.0, 2.0)] * 4) == 1.0
    assert cheapest({"m0": {"a": 1.0}}) is None
    with pytest.raises(ValueError, match="above zero"):
        compare([(0.0, 1.0)] * 6)


# --- recommendations --------------------------------------------------------------------------------------------------


def candidate(model: str, right: float, joules: float, prompts: int = PROMPTS) -> Candidate:
    return Candidate(model=model, prompts=prompts, right=right, answer_j=Interval(joules, joules * 0.9, joules * 1.1))


def test_the_cheapest_that_is_surely_good_enough_is_recommended() -> None:
    """A cheap model below the floor is passed over, and said so; a floor of nothing takes the cheapest."""
    small, middle, large = candidate("small", 5, 1.0), candidate("middle", 42, 3.0), candidate("large", 48, 9.0)
    advice = recommend([large, middle, small], 0.6)
    assert advice.model == "middle"
    assert "42 of 50" in advice.reason
    assert "small 10%" in advice.reason
    assert recommend([large, middle, small], 0.0).model == "small"
    assert recommend([large, middle, small], 0.8).model == "large"


def test_what_cannot_be_told_yet_says_how_many_prompts_would() -> None:
    """A model just above the floor needs more prompts; about so many make it certain, and a few fewer do not."""
    advice = recommend([candidate("only", 35, 1.0)], 0.6)
    assert advice.model is None
    assert advice.more_prompts is not None
    assert f"about {advice.more_prompts} more prompts" in advice.reason
    after = PROMPTS + advice.more_prompts
    assert recommend([candidate("only", 0.7 * after, 1.0, after)], 0.6).model == "only"
    assert recommend([candidate("only", 0.7 * (after - 2), 1.0, after - 2)], 0.6).model is None


def test_a_budget_and_a_hopeless_floor_are_answered() -> None:
    """Models above the energy budget do not count; where none is good enough, the best is named."""
    cheap, dear = candidate("cheap", 10, 1.0), candidate("dear", 50, 9.0)
    assert "surely stays below 0.5 J" in recommend([cheap, dear], 0.5, 0.5).reason
    over = recommend([cheap, dear], 0.5, 5.0)
    assert (over.model, over.more_prompts) == (None, None)
    assert "No model is that good: the best, cheap" in over.reason
    assert "run a campaign" in recommend([], 0.5).reason


def below_the_floor(campaigns: int, shares: Sequence[float], floor: float) -> float:
    """How often a model whose true share is below the floor is recommended."""
    chance = random.Random(10)
    wrong = 0
    for _ in range(campaigns):
        models = {f"m{at}": share for at, share in enumerate(shares)}
        seen = [
            candidate(name, sum(chance.random() < share for _ in range(PROMPTS)), 1.0 + at)
            for at, (name, share) in enumerate(models.items())
        ]
        advice = recommend(seen, floor)
        wrong += advice.model is not None and models[advice.model] < floor
    return wrong / campaigns


@pytest.mark.parametrize("shares", [(0.59, 0.59, 0.59), (0.599, 0.9), (0.599,)])
def test_a_model_below_the_floor_is_seldom_recommended(shares: tuple[float, ...]) -> None:
    """However many candidates lie just below the floor, one of them is recommended in at most 5 % of campaigns."""
    assert below_the_floor(FAST, shares, 0.6) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("shares", [(0.599,) * 8, (0.599, 0.599, 0.9), (0.599,)])
def test_a_model_below_the_floor_is_seldom_recommended_at_full_size(shares: tuple[float, ...]) -> None:
    """The same over many campaigns."""
    share = below_the_floor(4 * FULL, shares, 0.6)
    print(f"{len(shares)} models, floor 60 %: one below it recommended in {share:.2%} of {4 * FULL} campaigns")
    assert share <= 0.05


def test_the_normal_is_what_t_becomes() -> None:
    """With many degrees of freedom Student's t is the normal distribution."""
    assert student_t_quantile(0.975, 1_000_000) == pytest.approx(NormalDist().inv_cdf(0.975), abs=1e-4)


# --- at the ends ------------------------------------------------------------------------------------------------------


def test_distributions_end_where_they_end() -> None:
    """Below its range a distribution is 0, above it 1, the median of Student's t is 0, ten million cases are told as
    well as ten, and what is no number stays none."""
    assert (beta_cdf(-0.1, 2, 3), beta_cdf(0.0, 2, 3), beta_cdf(1.0, 2, 3), beta_cdf(1.5, 2, 3)) == (0, 0, 1, 1)
    assert student_t_quantile(0.5, 7) == 0.0
    assert beta_cdf(0.5, 5e6, 5e6) == pytest.approx(0.5, abs=1e-6)
    assert math.isnan(beta_cdf(math.nan, 2, 3))


@pytest.mark.parametrize(("right", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_a_share_of_nothing_is_refused(right: int, n: int) -> None:
    """Without cases, or with more right ones than cases, there is no share."""
    with pytest.raises(ValueError, match="at least one case"):
        wilson(right, n)


def test_pairs_that_do_not_scatter() -> None:
    """Too few pairs are not compared; pairs that all say the same leave nothing to chance."""
    with pytest.raises(ValueError, match="at least 5 pairs"):
        compare([(1.0, 2.0)] * 4)
    assert less_by_chance([(1.0, 2.0)] * 4) == 1.0
    assert (less_by_chance([(1.0, 2.0)] * 5), less_by_chance([(2.0, 2.0)] * 5)) == (0.0, 1.0)


def test_a_ratio_of_sums_without_any_above() -> None:
    """Where most prompts have nothing above the line, resamples without any leave the ratio without an upper end."""
    found = ratio_of_sums([Part(0.0, 1.0)] * 19 + [Part(1.0, 1.0)])
    assert found is not None
    assert found.value == pytest.approx(0.05)
    assert 0.0 < found.low < found.value
    assert found.high == math.inf
