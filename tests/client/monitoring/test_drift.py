"""Drift of each kind is found where it is, and chance, repeats and other models are not it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from pydantic import ValidationError

from client.answers.answered import Answered
from client.monitoring.answer_statistics import INPUTS, PROJECTIONS
from client.monitoring.comparison import Interval
from client.monitoring.drift import KINDS, KindDrift, Model, drift, level_of
from client.monitoring.input_statistics import IMAGE_STATISTICS
from client.monitoring.reference import (
    FEWEST_PATIENTS,
    MOST_PATIENTS,
    DriftReference,
    make_reference,
)
from tests.client.monitoring.samples import MODEL, WIDTH, answers, reference, scores

FEWEST = 100


def kinds(found: list[Answered], of: DriftReference | None = None) -> dict[str, KindDrift]:
    looked = drift(of or reference(), found, MODEL, fewest=FEWEST)
    assert tuple(kind.kind for kind in looked) == KINDS
    return {kind.kind: kind for kind in looked}


def levels(found: list[Answered]) -> tuple[int | None, ...]:
    return tuple(kind.level for kind in kinds(found).values())


def test_what_has_moved_is_what_is_named() -> None:
    assert levels(answers(300)) == (0, 0, 0)
    assert levels(answers(300, sharpness=0.3)) == (2, 0, 0)
    assert levels(answers(300, features=0.4)) == (0, 2, 0)
    assert levels(answers(300, logit=3.0)) == (0, 0, 2)
    sharper = kinds(answers(300, sharpness=0.3))["inputs"]
    assert sharper.worst is not None
    assert sharper.worst.name == "sharpness"
    assert sharper.worst.stability.low > 0.25
    moved = kinds(answers(300, features=0.4))["embeddings"]
    assert moved.discrepancy is not None
    assert moved.discrepancy.squared.low > 0
    mix = {one.name: one.level for one in kinds(answers(300, logit=3.0))["predictions"].figures}
    assert mix["mix"] == mix["malignant"] == 2


def test_chance_is_no_drift() -> None:
    raised = [
        sum(bool(kind.level) for kind in drift(
            reference(120, seed=seed), answers(150, seed=1000 + seed), MODEL, fewest=FEWEST
        ))
        for seed in range(10)
    ]  # fmt: skip
    assert sum(raised) == 0  # 0.03 expected


def test_a_significant_trifle_is_no_drift_and_neither_is_a_large_chance() -> None:
    assert level_of(Interval(0.03, 0.05, 0.08), 1e-12) == 0
    assert level_of(Interval(0.30, 0.50, 0.80), 0.01) == 0
    assert level_of(Interval(0.15, 0.30, 0.50), 1e-5) == 1
    assert level_of(Interval(0.26, 0.40, 0.60), 1e-5) == 2


def test_of_few_images_nothing_is_said_and_repeats_are_one() -> None:
    few = answers(FEWEST - 1, sharpness=1.0)
    assert levels(few) == (None, None, None)
    assert levels(few * 5) == (None, None, None)
    assert kinds(few * 5)["inputs"].cases == FEWEST - 1


def test_answers_of_another_model_tell_of_inputs_alone() -> None:
    other = Model("b" * 64, None, MODEL.classes)
    head = Model(MODEL.digest, "c" * 64, MODEL.classes)
    for model in (other, head):
        found = answers(300, sharpness=0.3, features=0.4, logit=3.0, model=model)
        assert levels(found) == (2, None, None)


def test_answers_without_figures_or_with_other_ones_are_left_out() -> None:
    good = answers(150)
    bare = [replace(a, pixels="e" * 63 + a.pixels[-1], statistics=()) for a in good[:8]]
    only = [replace(a, pixels=a.pixels[::-1], statistics=a.statistics[:INPUTS]) for a in good]
    found = kinds([*good, *bare, *only])
    assert found["inputs"].cases == len({a.pixels for a in (*good, *only)})
    assert found["embeddings"].cases == 150
    three = Model(MODEL.digest, None, (*MODEL.classes, "normal"))
    longer = [replace(a, statistics=(*a.statistics, 0.0)) for a in good]
    assert drift(reference(), longer, three, fewest=FEWEST)[1].level is None


def test_a_reference_of_other_figures_is_not_compared_with() -> None:
    older = reference().model_copy(update={"inputs": ("old", *IMAGE_STATISTICS[1:])})
    found = drift(older, answers(300, sharpness=1.0, logit=3.0), MODEL, fewest=FEWEST)
    assert [kind.level for kind in found] == [None, 0, 2]


def test_the_same_answers_give_the_same_verdict() -> None:
    found = answers(200, sharpness=0.05)
    assert drift(reference(), found, MODEL, fewest=FEWEST) == drift(
        reference(), found, MODEL, fewest=FEWEST
    )


def test_constant_figures_drift_only_where_they_change() -> None:
    def flat(value: float) -> list[Answered]:
        column = IMAGE_STATISTICS.index("aspect")
        return [
            replace(a, statistics=(*a.statistics[:column], value, *a.statistics[column + 1 :]))
            for a in answers(200)
        ]

    base = reference().model_copy(
        update={"rows": tuple((*r[:13], 0.0, *r[14:]) for r in reference().rows)}
    )
    assert kinds(flat(0.0), base)["inputs"].level == 0
    assert kinds(flat(0.25), base)["inputs"].level == 2
    assert kinds(flat(-0.25), base)["inputs"].level == 2


def test_a_reference_has_one_image_of_each_patient() -> None:
    found = make_reference(scores(80, images=3))
    assert found is not None
    assert len(found.rows) == 80
    assert found.newest == scores(80, images=3).cases[-1].confirmed_at
    assert make_reference(scores(FEWEST_PATIENTS - 1, images=3)) is None
    many = make_reference(scores(MOST_PATIENTS + 37))
    assert many is not None
    assert len(set(many.rows)) == MOST_PATIENTS
    bare = replace(scores(80), statistics=np.zeros((80, 3)))
    assert make_reference(bare) is None


def test_a_reference_survives_json_and_a_damaged_one_does_not() -> None:
    found = reference(60)
    assert DriftReference.model_validate_json(found.model_dump_json()) == found
    assert found.table().shape == (60, WIDTH)
    assert PROJECTIONS + INPUTS + 2 == WIDTH
    ragged = found.model_dump()
    ragged["rows"] = (*ragged["rows"][:-1], ragged["rows"][-1][:-1])
    with pytest.raises(ValidationError):
        DriftReference.model_validate(ragged)
    with pytest.raises(ValidationError):
        DriftReference.model_validate_json(found.model_dump_json().replace("0.5", "NaN", 1))


def test_newest_of_equal_images_counts() -> None:
    first = answers(150)
    again = [
        replace(moved, pixels=a.pixels, answered_at=a.answered_at + timedelta(days=1))
        for a, moved in zip(first, answers(150, sharpness=0.5), strict=True)
    ]
    assert kinds([*first, *again])["inputs"].level == 2
    assert kinds([*first, *again])["inputs"].cases == 150
