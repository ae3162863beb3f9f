"""Look-alikes are seen in whatever order cases are committed, and sought outside the lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, update

from client.cases import keeping
from client.cases.accepted_image import accept_image
from client.cases.case import NewCase
from client.cases.store import Case, CaseStore
from client.cases.tables import CaseRow
from client.review import near_duplicates
from client.review.near_duplicates import NearDuplicates
from tests.client.review.scenes import scene
from tests.client.stores import TASK, open_store, picture

WAIT = 30.0


def add(store: CaseStore, image: bytes, patient: str) -> Case:
    return store.add(image, task=TASK, patient_id=patient, label=None, source="test")


def look_alikes(store: CaseStore, case: Case) -> list[str]:
    with store.transactions.reading() as session:
        row = session.get_one(CaseRow, case.id)
        return [near.case_id for near in store.look_alikes(session, row)]


@pytest.fixture
def stores(tmp_path: Path, database_url: str) -> Iterator[list[CaseStore]]:
    """Return three processes' stores of one site: two that write, and one that goes on."""
    opened = [open_store(tmp_path / "site", database_url=database_url) for _ in range(3)]
    yield opened
    for store in opened:
        store.close()


def test_a_case_that_waited_for_the_lock_is_seen_by_a_store_that_goes_on(
    stores: list[CaseStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick, running = stores
    begun, looked = threading.Event(), threading.Event()

    class Ordered(keeping.Admission):
        """The slow one asks for the lock while the quick one has it, and then waits for a look."""

        def __init__(self, session: Any, *arguments: Any, **options: Any) -> None:
            name = threading.current_thread().name
            if name == "quick":
                session.get(CaseRow, "")  # the lock is taken
                waiting.start()
                begun.wait(1.0)  # where all begins with the lock, it cannot begin yet
                threading.Event().wait(0.2)
            begun.set()
            super().__init__(session, *arguments, **options)
            if name == "slow":
                assert looked.wait(WAIT)

    monkeypatch.setattr(keeping, "Admission", Ordered)
    kept: dict[str, Case] = {}
    waiting = threading.Thread(
        target=lambda: kept.update(slow=add(slow, scene(1), "A")), name="slow"
    )
    first = threading.Thread(
        target=lambda: kept.update(quick=add(quick, scene(2), "B")), name="quick"
    )
    first.start()
    first.join(WAIT)
    assert look_alikes(running, kept["quick"]) == []
    looked.set()
    waiting.join(WAIT)
    copy = add(running, scene(1, quality=50), "C")
    assert look_alikes(running, copy) == [kept["slow"].id]
    assert kept["slow"].created_at > kept["quick"].created_at


def test_after_a_clock_was_set_back_new_cases_are_still_seen(stores: list[CaseStore]) -> None:
    writer, _, running = stores
    ahead = add(writer, scene(1), "A")
    with writer.transactions.writing() as session:
        chosen = update(CaseRow).where(CaseRow.id == ahead.id)
        session.execute(chosen.values(created_at=datetime.now(UTC) + timedelta(days=400)))
    assert look_alikes(running, ahead) == []
    for seed in range(2, 5):
        case = add(writer, scene(seed), f"P{seed}")
        copy = add(running, scene(seed, quality=50), f"Q{seed}")
        assert look_alikes(running, copy) == [case.id]
    copy = add(running, scene(1, quality=50), "B")
    assert look_alikes(running, copy) == [ahead.id]


def test_what_was_rolled_back_is_known_to_nobody(
    stores: list[CaseStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, other, _ = stores

    def fails(*_: object) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patched:
        patched.setattr(keeping, "remove_unless_live", fails)
        with pytest.raises(RuntimeError):
            add(writer, scene(1), "A")
    case = add(other, scene(2), "B")
    assert look_alikes(writer, add(writer, scene(1, quality=50), "C")) == []
    assert look_alikes(writer, add(writer, scene(2, quality=50), "D")) == [case.id]


@dataclass
class Watched:
    """What a store does while it has the lock: statements, and hashes compared."""

    statements: list[str] = field(default_factory=list)
    compared: int = 0
    inside: bool = False

    def executes(self, _conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.inside |= statement == "BEGIN IMMEDIATE"
        if self.inside:
            self.statements.append(statement)

    def ends(self, _conn: Any) -> None:
        self.inside = False


def batch(seeds: Sequence[int]) -> list[NewCase]:
    return [NewCase(accept_image(picture(s)), TASK, f"P{s}", "nv", "import") for s in seeds]


def test_what_a_batch_costs_under_the_lock_grows_neither_with_it_nor_with_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "site")
    watched, real = Watched(), near_duplicates._distances

    def counted(columns: Any, word: Any) -> Any:
        watched.compared += columns.shape[1] if watched.inside else 0
        return real(columns, word)

    monkeypatch.setattr(near_duplicates, "_distances", counted)
    event.listen(store._engine, "before_cursor_execute", watched.executes)
    event.listen(store._engine, "commit", watched.ends)
    event.listen(store._engine, "rollback", watched.ends)
    found = []
    for seeds in (range(3), range(100, 130), range(200, 203)):
        watched.statements, watched.compared = [], 0
        store.add_many(batch(seeds))
        found.append((len(watched.statements), watched.compared))
    statements, _ = found[0]
    assert statements < 12
    assert found == [(statements, 3 * 3), (statements, 30 * 30), (statements, 3 * 3)]
    store.close()


def test_bits_are_counted_as_they_differ() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, (4, 50), np.uint64, endpoint=False)
    hashes[:, 0], hashes[:, 1] = ~hashes[:, 2], hashes[:, 2]
    found = near_duplicates._distances(hashes, hashes[:, 2])
    ones = [sum(int(word).bit_count() for word in one ^ hashes[:, 2]) for one in hashes.T]
    assert found.tolist() == ones
    assert found[:3].tolist() == [256, 0, 0]


def test_the_nearest_come_first_and_a_comparison_goes_on_where_it_ended(tmp_path: Path) -> None:
    store = open_store(tmp_path / "site")
    near = NearDuplicates(24)
    far = add(store, scene(1, quality=20), "A")
    image = (TASK, accept_image(scene(1)).likeness)
    with store.transactions.reading() as session:
        before = near.compare(session, [image])
    close = add(store, scene(1, quality=95), "B")
    with store.transactions.reading() as session:
        after = near.compare(session, [image], before)
        found = near.find(session, *image, of="")
    assert (before[image].compared, after[image].compared) == (1, 2)
    assert [one.case_id for one in found] == [close.id, far.id]
    assert after[image].near == ((1, found[0].distance), (0, found[1].distance))
    store.close()
