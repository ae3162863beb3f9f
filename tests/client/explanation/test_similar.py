"""The nearest confirmed cases, as they are at this moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from client.cases.store import CaseStore
from client.explanation.similar import SimilarCases
from client.inference.engine import InferenceEngine, ModelHolder
from common.imaging import decode, prepare
from tests.client.serving import RECIPE, picture, release, site_settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[InferenceEngine]:
    folder = tmp_path_factory.mktemp("releases")
    return [InferenceEngine.load(release(folder, version), device=CPU) for version in (1, 2)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CaseStore]:
    opened = CaseStore.open(site_settings(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def holder(engines: list[InferenceEngine]) -> ModelHolder:
    made = ModelHolder()
    made.swap(engines[0])
    return made


def keep(store: CaseStore, count: int, *, first: int = 0, label: str | None = "mel") -> list[str]:
    return [
        store.add(
            picture(first + n),
            task=RECIPE.name,
            patient_id=str(first + n),
            label=label,
            source="http",
        ).id
        for n in range(count)
    ]


def found(similar: SimilarCases, engine: InferenceEngine, image: bytes) -> list[str]:
    return [case.case_id for case in similar.nearest(engine, image).cases]


def test_the_nearest_are_those_of_the_features(
    store: CaseStore, holder: ModelHolder, engines: list[InferenceEngine]
) -> None:
    ids = keep(store, 9)
    keep(store, 1, first=50, label=None)  # waits: says nothing yet
    similar = SimilarCases(holder, store, RECIPE.name, maximum=100)
    assert similar.nearest(engines[0], picture(99)).compared == 0
    assert similar.update()
    images = np.stack([prepare(decode(picture(n)), RECIPE.image) for n in (*range(9), 99)])
    features = engines[0].outputs(images).features.astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    distances = 1 - features[:9] @ features[9]
    expected = [ids[n] for n in np.argsort(distances)[:5]]
    answer = similar.nearest(engines[0], picture(99))
    assert [case.case_id for case in answer.cases] == expected
    assert [c.distance for c in answer.cases] == pytest.approx(np.sort(distances)[:5], abs=1e-5)
    assert {case.label for case in answer.cases} == {"mel"}
    assert (answer.compared, answer.confirmed) == (9, 9)
    # The image itself says nothing of others.
    assert ids[3] not in found(similar, engines[0], picture(3))


def test_a_withdrawn_case_is_gone_at_once_and_a_new_one_comes(
    store: CaseStore, holder: ModelHolder, engines: list[InferenceEngine]
) -> None:
    ids = keep(store, 6)
    similar = SimilarCases(holder, store, RECIPE.name, maximum=100)
    similar.update()
    store.withdraw_case(ids[0])
    store.withdraw_patient("1")
    assert set(found(similar, engines[0], picture(99))) == set(ids[2:])  # not yet told
    new = keep(store, 1, first=70)
    assert similar.update()
    assert similar.nearest(engines[0], picture(99)).compared == 5
    assert set(found(similar, engines[0], picture(99))) == {*ids[2:], *new}


def test_another_model_makes_it_anew(
    store: CaseStore,
    holder: ModelHolder,
    engines: list[InferenceEngine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep(store, 5)
    computed: list[int] = []
    outputs = InferenceEngine.outputs

    def counted(self: InferenceEngine, images: np.ndarray) -> object:  # type: ignore[type-arg]
        computed.append(len(images))
        return outputs(self, images)

    monkeypatch.setattr(InferenceEngine, "outputs", counted)
    similar = SimilarCases(holder, store, RECIPE.name, maximum=100)
    similar.update()
    similar.update()
    assert sum(computed) == 5  # once each
    keep(store, 1, first=20)
    similar.update()
    assert sum(computed) == 6  # the new one alone
    holder.swap(engines[1])
    assert similar.nearest(engines[1], picture(99)).compared == 0  # never one model's by another's
    similar.update()
    assert sum(computed) == 6 + 1 + 6
    # The site's own layers on the same release see otherwise, too.
    monkeypatch.setattr(engines[1], "head_digest", "c" * 64)
    assert similar.nearest(engines[1], picture(99)).compared == 0
    similar.update()
    assert sum(computed) == 6 + 1 + 6 + 1 + 6
    assert similar.nearest(engines[1], picture(99)).compared == 6


def test_no_more_than_the_newest_are_compared(
    store: CaseStore, holder: ModelHolder, engines: list[InferenceEngine]
) -> None:
    ids = keep(store, 5)
    similar = SimilarCases(holder, store, RECIPE.name, maximum=3)
    similar.update()
    answer = similar.nearest(engines[0], picture(99))
    assert {case.case_id for case in answer.cases} == set(ids[2:])
    assert (answer.compared, answer.confirmed) == (3, 5)


def test_its_thread_ends(store: CaseStore, holder: ModelHolder) -> None:
    keep(store, 2)
    similar = SimilarCases(holder, store, RECIPE.name, maximum=10, poll_seconds=3600)
    similar.start()
    similar.close()
    assert not similar._thread.is_alive()
