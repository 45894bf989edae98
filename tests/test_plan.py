"""The plan: imbalanced-learn's meaning of a strategy, and the bounds around it."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from imblearn.over_sampling import RandomOverSampler
from imblearn.utils import check_sampling_strategy

from vaeaug import merging
from vaeaug.config import Recipe
from vaeaug.plan import DEFAULT_SHARE, Plan, PlanError, make_plan

RULES = ("auto", "minority", "not minority", "not majority", "all")
COUNTS = st.lists(st.integers(1, 60), min_size=2, max_size=6)


def labels_of(counts: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def made(plan: Plan) -> list[int]:
    return [each.n_synthetic for each in plan]


def refused(*arguments: Any, **keys: Any) -> str:
    with pytest.raises(PlanError) as error:
        make_plan(*arguments, **keys)
    return str(error.value)


# -- imbalanced-learn's meaning ----------------------------------------------------------------


@settings(deadline=None)
@given(COUNTS, st.sampled_from(RULES), st.randoms(use_true_random=False))
def test_a_rule_means_what_it_means_to_imbalanced_learn(
    counts: list[int], rule: str, random: Any
) -> None:
    labels = labels_of(counts)
    random.shuffle(labels)
    plan = make_plan(labels, rule, share=0)
    theirs = check_sampling_strategy(rule, labels, "over-sampling")
    assert {each.label: each.n_synthetic for each in plan if each.label in theirs} == theirs
    assert all(each.n_synthetic == 0 for each in plan if each.label not in theirs)
    _, resampled = RandomOverSampler(sampling_strategy=rule, random_state=0).fit_resample(
        labels[:, None], labels
    )
    assert [each.target_count for each in plan] == np.bincount(resampled).tolist()
    assert [each.real for each in plan] == counts


@settings(deadline=None)
@given(COUNTS, st.data())
def test_a_mapping_gives_totals(counts: list[int], data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.sampled_from(range(len(counts))), min_size=1))
    totals = {c: counts[c] + data.draw(st.integers(0, 50)) for c in chosen}
    labels = labels_of(counts)
    plan = make_plan(labels, totals)
    assert [each.target_count for each in plan] == [
        totals.get(c, count) for c, count in enumerate(counts)
    ]
    _, resampled = RandomOverSampler(sampling_strategy=totals, random_state=0).fit_resample(
        labels[:, None], labels
    )
    assert [each.target_count for each in plan] == np.bincount(resampled).tolist()
    assert make_plan(labels, lambda y: totals) == plan


def test_a_class_without_samples_says_why() -> None:
    plan = make_plan(labels_of([9, 4, 2]), {0: 9, 1: 20})
    assert [each.reason for each in plan] == [
        "as large as the strategy has it",
        "sampling strategy",
        "not in the strategy",
    ]


def test_a_callable_is_given_the_labels() -> None:
    plan = make_plan(labels_of([9, 4]), lambda y: {1: 2 * int((y == 1).sum())})
    assert made(plan) == [0, 4]


def test_a_list_brings_its_classes_up_to_the_largest() -> None:
    assert made(make_plan(labels_of([9, 4, 2]), [1])) == [0, 5, 0]
    assert made(make_plan(labels_of([9, 4, 2]), ["c", 1], class_names=("a", "b", "c"))) == [0, 5, 7]


@pytest.mark.usefixtures("unchecked")
def test_classes_go_by_name_by_index_and_by_the_text_of_an_index() -> None:
    names = ("cat", "dog")
    for key in ("dog", 1, np.int64(1), "1"):
        assert made(make_plan(labels_of([9, 4]), {key: 6}, class_names=names)) == [0, 2]


def test_a_name_goes_before_an_index_that_reads_the_same() -> None:
    assert made(make_plan(labels_of([9, 4]), {"1": 12}, class_names=("1", "0"))) == [3, 0]


@settings(deadline=None)
@given(st.integers(2, 100), st.integers(1, 100), st.floats(0.1, 1.0))
def test_a_number_is_a_ratio_of_two_classes(large: int, small: int, ratio: float) -> None:
    assume(small < int(ratio * large))
    labels = labels_of([large, small])
    _, resampled = RandomOverSampler(sampling_strategy=ratio, random_state=0).fit_resample(
        labels[:, None], labels
    )
    plan = make_plan(labels, ratio, share=0)
    assert [each.target_count for each in plan] == np.bincount(resampled).tolist()


# -- Refused -----------------------------------------------------------------------------------


def test_fewer_than_there_are() -> None:
    assert refused(labels_of([9, 4]), {"dog": 3}, class_names=("cat", "dog")) == (
        "sampling_strategy: class 'dog' has 4 real images and a total of 3 is requested; totals "
        "include the real ones, so expected at least 4"
    )


@pytest.mark.parametrize("key", ["bird", 2, -1, "2", 1.5])
@pytest.mark.usefixtures("unchecked")
def test_an_unknown_class(key: Any) -> None:
    assert refused(labels_of([9, 4]), {key: 30}, class_names=("cat", "dog")) == (
        f"sampling_strategy: unknown class {key!r}; expected one of cat, dog or an index below 2"
    )


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (0.5, "use target_ratio=0.5"),
        (16.0, "name the total of each, as in {'2': 100}"),
    ],
)
def test_a_number_for_many_classes_advises_what_is_taken(number: float, advice: str) -> None:
    assert refused(labels_of([9, 4, 2]), number) == (
        f"sampling_strategy: a number ({number}) is for two classes, and there are 3; for more "
        f"classes {advice}"
    )


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("most", "When 'sampling_strategy' is a string"),
        (2.0, r"should be in the range \(0, 1\]"),
        (math.nan, "NaN"),
        ({0: 9.5}, "class 0: expected a whole total, got 9.5"),
        ({0: True}, "class 0: expected a whole total, got True"),
        (None, "expected a rule, a number, a mapping, a list or a callable, got None"),
        (True, "expected a rule, a number, a mapping, a list or a callable, got True"),
        (lambda y: 3, "expected the callable to return a mapping class -> total, got int"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_not_a_strategy(strategy: Any, message: str) -> None:
    with pytest.raises(PlanError, match=f"^sampling_strategy: .*{message}"):
        make_plan(labels_of([9, 4]), strategy)


def test_a_class_without_images_cannot_be_asked_for() -> None:
    message = refused(labels_of([9, 4]), {2: 5}, class_names=("a", "b", "c"))
    assert message.startswith("sampling_strategy: ")
    assert "not present in the data" in message


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "expected a non-empty 1-D array of integers"),
        ([[0, 1]], "expected a non-empty 1-D array of integers, got int64 of shape (1, 2)"),
        ([0.0, 1.0], "expected a non-empty 1-D array of integers, got float64"),
        ([-1, -1], "expected at least one labelled image, got only unlabelled ones"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_not_labels(labels: Any, message: str) -> None:
    assert refused(labels).startswith(f"labels: {message}")


def test_labels_beyond_the_names() -> None:
    message = refused([0, 1, 2], class_names=("a", "b"))
    assert message == "labels: expected classes below 2, got 2"


def test_one_class_alone() -> None:
    assert "more than 1 class" in refused([0, 0, 0])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"target_ratio": 1.5}, "target_ratio: expected a number in (0, 1], got 1.5"),
        ({"target_ratio": 0}, "target_ratio: expected a number in (0, 1], got 0"),
        ({"max_synthetic_ratio": -1}, "max_synthetic_ratio: expected at least 0, got -1"),
        ({"max_synthetic_ratio": math.nan}, "max_synthetic_ratio: expected at least 0, got nan"),
        ({"min_class_count": 0}, "min_class_count: expected at least 1, got 0"),
        ({"share": 1.0}, "share: expected a number in [0, 1), got 1.0"),
    ],
)
def test_bounds_of_the_bounds(keys: dict[str, Any], message: str) -> None:
    assert refused(labels_of([9, 4]), **keys) == message


def test_a_ratio_beside_an_explicit_strategy() -> None:
    assert refused(labels_of([9, 4]), {1: 9}, target_ratio=0.5) == (
        "target_ratio: expected a string sampling_strategy with it, got dict; pass one or the other"
    )


# -- The bounds --------------------------------------------------------------------------------


@settings(deadline=None)
@given(COUNTS, st.integers(1, 100))
def test_target_ratio_is_a_fraction_of_the_largest(counts: list[int], percent: int) -> None:
    plan = make_plan(labels_of(counts), "not majority", target_ratio=percent / 100, share=0)
    goal = math.ceil(Fraction(percent, 100) * max(counts))
    majority = counts.index(max(counts))
    for each in plan:
        expected = each.real if each.label == majority else max(each.real, goal)
        assert each.target_count == expected


@settings(deadline=None)
@given(COUNTS, st.integers(1, 400))
def test_max_synthetic_ratio_bounds_every_class(counts: list[int], percent: int) -> None:
    free = make_plan(labels_of(counts), "all", share=0.25)
    bounded = make_plan(labels_of(counts), "all", share=0.25, max_synthetic_ratio=percent / 100)
    for each, before in zip(bounded, free, strict=True):
        most = math.floor(Fraction(percent, 100) * each.real)
        assert each.n_synthetic == min(before.n_synthetic, most)
        is_bounded = before.n_synthetic > most
        assert is_bounded == each.reason.startswith("bounded by max_synthetic_ratio")


def test_a_class_too_small_gets_none_and_the_plan_says_why() -> None:
    plan = make_plan(labels_of([20, 8, 7]), min_class_count=8, share=0.25)
    assert made(plan) == [7, 7, 0]
    # As large as the others: its own images are repeated more often.
    assert [each.target_count for each in plan] == [27, 27, 27]
    assert [each.repeated for each in plan] == [0, 12, 20]
    assert plan[2].share == 0
    assert plan[2].reason == (
        "too few real images (7 of at least 8) to learn from: use classic augmentation for this "
        "class"
    )


@settings(deadline=None)
@given(COUNTS, st.sampled_from(RULES), st.integers(1, 95))
def test_a_rule_gives_sizes_and_every_class_the_same_share(
    counts: list[int], rule: str, percent: int
) -> None:
    share = percent / 100
    labels = labels_of(counts)
    theirs = check_sampling_strategy(rule, labels, "over-sampling")
    plan = make_plan(labels, rule, share=share)
    for each in plan:
        assert each.size == each.real + theirs.get(each.label, 0)
        assert each.n_synthetic == round(each.size * share / (1 - share))
        assert each.target_count == each.size + each.n_synthetic
        assert each.n_synthetic == round(share * each.target_count)
        assert each.repeated == theirs.get(each.label, 0)
    if rule == "all":
        assert len({each.target_count for each in plan}) == 1


@settings(deadline=None)
@given(COUNTS, st.integers(1, 95))
def test_a_share_beside_totals_is_reached_and_not_by_more_than_one(
    counts: list[int], percent: int
) -> None:
    share = Fraction(percent, 100)
    totals = {0: counts[0] + 3}
    plan = make_plan(labels_of(counts), totals, share=percent / 100)
    for each, before in zip(plan, make_plan(labels_of(counts), totals), strict=True):
        assert each.n_synthetic >= before.n_synthetic
        assert Fraction(each.n_synthetic, each.target_count) >= share
        assert each.repeated == 0
        if each.n_synthetic > before.n_synthetic:
            one_less = each.n_synthetic - 1
            assert Fraction(one_less, each.real + one_less) < share
            assert each.reason.startswith(f"so that {percent}% of the class is synthetic")


def test_the_default_share_is_that_of_merging_for_rules_and_none_for_explicit_strategies() -> None:
    labels = labels_of([90, 40])
    assert DEFAULT_SHARE == merging.DEFAULT_SHARE == Recipe().share == 0.3
    for rule in ("auto", 1.0):
        assert made(make_plan(labels, rule)) == [39, 39]
        assert made(make_plan(labels, rule, share=0)) == [0, 50]
    for explicit in ({1: 90}, [1], lambda y: {1: 90}):
        assert made(make_plan(labels, explicit)) == [0, 50]
        assert [each.share for each in make_plan(labels, explicit)] == [0, 50 / 90]


def test_photos_of_four_sizes() -> None:
    plan = make_plan(labels_of([160, 90, 60, 24]))
    assert made(plan) == [69, 69, 69, 69]
    assert [each.repeated for each in plan] == [0, 70, 100, 136]
    assert [each.target_count for each in plan] == [229, 229, 229, 229]


def test_unlabelled_images_are_not_counted() -> None:
    plan = make_plan([0, 0, 0, 1, -1, -1])
    assert [each.real for each in plan] == [3, 1]


def test_a_plan_is_a_sequence_of_plain_rows() -> None:
    plan = make_plan(labels_of([9, 4]), class_names=("cat", "dog"))
    assert len(plan) == 2
    assert plan.n_synthetic == 8
    assert plan.to_json()[1] == {
        "label": 1,
        "name": "dog",
        "real": 4,
        "size": 9,
        "share": 0.3,
        "target_count": 13,
        "n_synthetic": 4,
        "repeated": 5,
        "reason": "30% of every class",
    }
