from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from client.cases.case import Case
from client.cases.store import CaseStore
from client.inference import holdout_scores
from client.inference.engine import Images, InferenceEngine
from client.inference.holdout_scores import BATCH, holdout_digest, score_holdout
from client.inference.outputs import Outputs
from client.inference.score_files import KeptRow, ScoreFiles
from client.settings import SiteSettings
from common.errors import StoreError
from common.imaging import decode, prepare
from tests.client.serving import RECIPE, picture, release, site_settings

CASES = 7


class Counting(InferenceEngine):
    """An engine that counts the images it is asked about."""

    asked = 0

    def outputs(self, images: Images) -> Outputs:
        self.asked += len(images)
        return super().outputs(images)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> SiteSettings:
    return site_settings(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def store(settings: SiteSettings) -> Iterator[CaseStore]:
    with closing(CaseStore.open(settings)) as opened:
        for seed in range(CASES):
            label = RECIPE.classes[seed % 3]
            add(opened, seed, label)
        opened.add(
            picture(90), task=RECIPE.name, patient_id="t", label="nv", source="test", split="train"
        )
        opened.add(picture(91), task=RECIPE.name, patient_id="w", label=None, source="test")
        yield opened


def add(store: CaseStore, seed: int, label: str) -> None:
    store.add(
        picture(seed),
        task=RECIPE.name,
        patient_id=f"p{seed // 2}",
        label=label,
        source="test",
        split="holdout",
    )


@pytest.fixture
def engine(tmp_path: Path) -> Counting:
    made = Counting.load(release(tmp_path, 1), device=torch.device("cpu"))
    assert isinstance(made, Counting)
    made.asked = 0
    return made


def test_confirmed_holdout_cases_are_scored_as_they_would_be_answered(
    store: CaseStore, engine: Counting
) -> None:
    scores = score_holdout(engine, store)
    assert len(scores.cases) == engine.asked == CASES
    assert scores.logits.shape == (CASES, len(RECIPE.classes))
    assert [RECIPE.classes[n] for n in scores.labels] == [c.label for c in scores.cases]
    assert len(set(scores.patients)) == (CASES + 1) // 2
    for row, case in enumerate(scores.cases):
        pixels = prepare(decode(store.image_bytes(case)), RECIPE.image)
        outputs = engine.outputs(pixels[None])
        np.testing.assert_allclose(scores.logits[row], outputs.logits[0], atol=1e-5)
        np.testing.assert_allclose(scores.features[row], outputs.features[0], atol=1e-5)


def test_a_kill_costs_no_more_than_the_last_seconds_of_scoring(
    store: CaseStore, engine: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdout_scores, "KEEP_SECONDS", 0.0)
    files = ScoreFiles(tmp_path / "scores")
    on_disk: list[int] = []

    def look() -> None:
        on_disk.append(sum(len(files.find(path.stem)) for path in tmp_path.rglob("*.npz")))

    score_holdout(engine, store, between=look, files=files)
    assert on_disk == list(range(0, CASES, BATCH))


def test_what_was_scored_is_not_scored_again(
    store: CaseStore, engine: Counting, tmp_path: Path
) -> None:
    files = ScoreFiles(tmp_path / "scores")
    first = score_holdout(engine, store, files=files)
    again = score_holdout(engine, store, files=files)
    assert engine.asked == CASES
    np.testing.assert_array_equal(first.logits, again.logits)
    assert (first.cases, first.digest) == (again.cases, again.digest)
    (path,) = (tmp_path / "scores").glob("*.npz")
    assert path.stat().st_mode & 0o777 == 0o600
    add(store, 200, "mel")
    assert len(score_holdout(engine, store, files=files).cases) == CASES + 1
    assert engine.asked == CASES + 1
    store.withdraw_case(next(c.id for c in store.holdout_cases(RECIPE.name) if c.label == "mel"))


def test_another_model_has_rows_of_its_own(
    store: CaseStore, engine: Counting, tmp_path: Path
) -> None:
    files = ScoreFiles(tmp_path / "scores")
    other = InferenceEngine.load(release(tmp_path, 2), device=torch.device("cpu"))
    one, two = (score_holdout(e, store, files=files) for e in (engine, other))
    assert np.abs(one.logits - two.logits).max() > 0.01


def test_an_interrupted_scoring_keeps_what_it_did(
    store: CaseStore, engine: Counting, tmp_path: Path
) -> None:
    files, turns = ScoreFiles(tmp_path / "scores"), iter(range(2))

    def between() -> None:
        if next(turns, None) is None:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        score_holdout(engine, store, between=between, files=files)
    assert 0 < engine.asked < CASES
    score_holdout(engine, store, files=files)
    assert engine.asked >= CASES
    assert engine.asked == len(store.holdout_cases(RECIPE.name))


def test_the_same_part_of_a_large_holdout_each_time(store: CaseStore, engine: Counting) -> None:
    few = score_holdout(engine, store, maximum=3)
    assert [c.digest for c in few.cases] == sorted(
        c.digest for c in store.holdout_cases(RECIPE.name)
    )[:3]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04"])
def test_damaged_files_count_as_none(
    store: CaseStore, engine: Counting, tmp_path: Path, content: bytes
) -> None:
    files = ScoreFiles(tmp_path / "scores")
    before = score_holdout(engine, store, files=files)
    (path,) = (tmp_path / "scores").glob("*.npz")
    path.write_bytes(content)
    after = score_holdout(engine, store, files=files)
    np.testing.assert_array_equal(before.logits, after.logits)


class Meanwhile(ScoreFiles):
    """Files of a site at which a case is withdrawn, and files deleted, at each of some writes."""

    def __init__(self, folder: Path, store: CaseStore, gone: Sequence[str]) -> None:
        super().__init__(folder)
        self._store, self._gone = store, list(gone)

    def keep(self, key: str, rows: Mapping[str, KeptRow]) -> None:
        if self._gone:
            self._store.withdraw_case(self._gone.pop())
            self.forget()
        super().keep(key, rows)


@pytest.mark.parametrize("every", [0.0, 3600.0])
def test_who_withdraws_while_a_model_is_scored_leaves_no_row(
    *,
    store: CaseStore,
    engine: Counting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: float,
) -> None:
    monkeypatch.setattr(holdout_scores, "KEEP_SECONDS", every)
    before = {case.id for case in store.holdout_cases(RECIPE.name)}
    for seed in (300, 301):
        add(store, seed + round(every), "nv")
    gone = {case.id for case in store.holdout_cases(RECIPE.name)} - before
    files = Meanwhile(tmp_path / "scores", store, sorted(gone))
    scores = score_holdout(engine, store, files=files)
    assert {case.id for case in scores.cases} == before
    assert len(scores.logits) == len(scores.labels) == len(before)
    assert scores.digest == holdout_digest(store.holdout_cases(RECIPE.name))
    (path,) = (tmp_path / "scores").glob("*.npz")
    assert set(files.find(path.stem)) == before


def test_who_withdraws_while_nothing_is_kept_is_not_in_the_scores(
    store: CaseStore, engine: Counting
) -> None:
    before = {case.id for case in store.holdout_cases(RECIPE.name)}
    add(store, 400, "nv")
    (gone,) = {case.id for case in store.holdout_cases(RECIPE.name)} - before
    turns = iter(range(10))

    def between() -> None:
        if next(turns) == CASES // BATCH:
            store.withdraw_case(gone)

    assert {case.id for case in score_holdout(engine, store, between=between).cases} == before


def test_what_cannot_be_looked_up_is_not_kept(
    store: CaseStore, engine: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_task: str) -> list[Case]:
        raise StoreError("")

    def between() -> None:
        monkeypatch.setattr(store, "holdout_cases", away)

    files = ScoreFiles(tmp_path / "scores")
    with pytest.raises(StoreError):
        score_holdout(engine, store, between=between, files=files)
    assert not list((tmp_path / "scores").glob("*.npz"))


def test_rows_of_other_cases_are_pruned(store: CaseStore, engine: Counting, tmp_path: Path) -> None:
    files = ScoreFiles(tmp_path / "scores")
    _, *others = (case.id for case in score_holdout(engine, store, files=files).cases)
    files.prune(set(others))
    (path,) = (tmp_path / "scores").glob("*.npz")
    assert set(files.find(path.stem)) == set(others)
    files.prune(set())
    assert not list((tmp_path / "scores").glob("*.npz"))


def test_an_image_that_is_lost_is_left_out(
    store: CaseStore, engine: Counting, settings: SiteSettings
) -> None:
    case = store.holdout_cases(RECIPE.name)[0]
    path = settings.images / case.digest[:2] / case.digest
    data = path.read_bytes()
    path.unlink()
    try:
        assert case.id not in {c.id for c in score_holdout(engine, store).cases}
    finally:
        path.write_bytes(data)


def test_an_empty_holdout_has_no_rows(tmp_path: Path, engine: Counting) -> None:
    with closing(CaseStore.open(site_settings(tmp_path))) as empty:
        scores = score_holdout(engine, empty, files=ScoreFiles(tmp_path / "scores"))
    assert (len(scores.cases), scores.logits.shape) == (0, (0, len(RECIPE.classes)))
