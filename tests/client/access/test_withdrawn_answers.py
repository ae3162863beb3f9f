"""No answer that is kept for who asks again outlives the cases that it names."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import anyio
import httpx
import pytest
from pydantic import BaseModel
from sqlalchemy import Engine, text

from client.access.idempotency import Idempotency, Replayed
from client.access.roles import Role
from client.cases.status import withdraw_case as mark_withdrawn
from client.cases.store import CaseStore
from client.settings import SiteSettings
from client.withdrawal import withdraw_case, withdraw_patient
from common.database import open_database
from tests.client.access.conftest import GuardedSite
from tests.client.cases.adding import add
from tests.client.serving import picture
from tests.client.stores import make_site


class Answer(BaseModel):
    about: tuple[str, ...]


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> SiteSettings:
    return make_site(tmp_path / "north", database_url=database_url)


@pytest.fixture
def store(site: SiteSettings) -> Iterator[CaseStore]:
    with closing(CaseStore.open(site)) as opened:
        yield opened


@pytest.fixture
def engine(store: CaseStore, site: SiteSettings) -> Iterator[Engine]:
    opened = open_database(site.database)
    yield opened
    opened.dispose()


@pytest.fixture
def kept(engine: Engine) -> Idempotency:
    return Idempotency(engine, bytes(32))


async def ask(
    kept: Idempotency, *about: str, key: str = "k", answered: threading.Event | None = None
) -> bool:
    """Ask under a key for what names cases; tell if it was answered before."""
    try:
        async with kept.once(caller="anna", route="r", key=key, parts=[]) as answering:
            answering.keep(Answer(about=about), status=200)
            if answered is not None:
                answered.set()
    except Replayed:
        return True
    return False


def asked_before(kept: Idempotency, *about: str, key: str = "k") -> bool:
    async def run() -> bool:
        return await ask(kept, *about, key=key)

    return anyio.run(run)


def bodies(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT body FROM kept_answers")).all())


@pytest.mark.parametrize("whole", [True, False])
def test_they_go_with_the_command(
    site: SiteSettings, store: CaseStore, kept: Idempotency, engine: Engine, whole: bool
) -> None:
    first, second = (add(store, seed, patient_id="P").id for seed in (1, 2))
    other = add(store, 3, patient_id="Q").id
    for key, about in (("a", (first,)), ("b", (other, first)), ("c", (second,)), ("d", (other,))):
        assert not asked_before(kept, *about, key=key)
    withdraw_patient(site, "P") if whole else withdraw_case(site, first)
    assert first not in bodies(engine)
    assert (second in bodies(engine)) is not whole
    assert asked_before(kept, key="d"), "what names others alone is answered as before"
    assert not asked_before(kept, key="a")


def test_one_that_is_made_while_its_case_is_withdrawn_is_not_kept(
    store: CaseStore, kept: Idempotency, engine: Engine
) -> None:
    case, other = (add(store, seed).id for seed in (1, 2))

    async def run() -> None:
        async with kept.once(caller="anna", route="r", key="k", parts=[]) as answering:
            store.withdrawals.case(case)
            answering.keep(Answer(about=(other, case)), status=200)

    anyio.run(run)
    assert case not in bodies(engine)
    assert not asked_before(kept), "the key is free"


def test_one_that_is_kept_in_the_moment_of_the_withdrawal_is_not(
    store: CaseStore, kept: Idempotency, engine: Engine
) -> None:
    case, answered = add(store, 1).id, threading.Event()

    async def run() -> bool:
        return await ask(kept, case, answered=answered)

    with ThreadPoolExecutor(1) as pool:
        begun = kept._begin
        entered, go_on = threading.Event(), threading.Event()

        def begin(name: str, fingerprint: str, mine: bool) -> object:
            found = begun(name, fingerprint, mine)
            entered.set()
            assert go_on.wait(20)
            return found

        kept._begin = begin  # type: ignore[method-assign, assignment]
        asking = pool.submit(anyio.run, run)
        assert entered.wait(20)
        with store.transactions.writing() as session:
            mark_withdrawn(session, case)
            go_on.set()
            assert answered.wait(20)
            threading.Event().wait(0.5)  # for its end to come as far as it can
        asking.result(20)
    assert case not in bodies(engine)


def test_who_asks_the_service_again_hears_that_it_was_withdrawn(
    guarded: GuardedSite, settings: SiteSettings
) -> None:
    """The command withdraws, beside the service that answered."""

    def call(path: str, key: str, **options: object) -> httpx.Response:
        headers = {"idempotency-key": key}
        return guarded.call("POST", path, Role.clinician, headers=headers, **options)

    def store() -> httpx.Response:
        fields = {"patient_id": "4711", "label": "mel"}
        return call("/cases", "one", files={"image": ("x.png", picture(1))}, data=fields)

    def judge() -> httpx.Response:
        return call(f"/review/{case_id}/opinion", "two", json={"verdict": "correct", "label": "nv"})

    case_id = store().json()["case_id"]
    assert judge().status_code == 200
    assert withdraw_patient(settings, "4711").cases == 1
    engine = open_database(settings.database)
    assert case_id not in bodies(engine)
    engine.dispose()
    for answer in (store(), judge()):
        assert (answer.status_code, answer.json()["code"]) == (409, "case-withdrawn")
        assert "idempotency-replayed" not in answer.headers
