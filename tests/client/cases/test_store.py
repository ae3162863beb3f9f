"""Cases: kept once, under pseudonyms, on one side of the split, and never half-written."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin
from sqlalchemy import text

from client.cases import keeping
from client.cases.accepted_image import accept_image
from client.cases.admission import Admitted
from client.cases.case import NewCase, age_band, normal_sex
from client.cases.image_store import ImageStore
from client.cases.leftovers import clear_leftovers
from client.cases.pseudonyms import Pseudonyms
from client.cases.store import Case, CaseStore, DuplicateCase
from client.cases.transactions import Transactions
from common.database import open_database
from common.errors import (
    CaseRefused,
    ConfigurationError,
    ImageRefused,
    InputRefused,
    NotFound,
    StoreError,
)
from tests.client.stores import TASK, make_site, open_store, picture

CLASSES = ("nv", "mel")


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> CaseStore:
    return open_store(tmp_path / "site", database_url=database_url)


def add(store: CaseStore, seed: int, **fields: object) -> Case:
    values: dict[str, object] = {"task": TASK, "patient_id": None, "label": "nv", "source": "test"}
    return store.add(picture(seed), **{**values, **fields})  # type: ignore[arg-type]


def images_on_disk(folder: Path) -> set[str]:
    return {p.name for p in (folder / "data" / "images").rglob("*") if p.is_file()}


def refusal(store: CaseStore, seed: int, **fields: object) -> CaseRefused:
    with pytest.raises(CaseRefused) as caught:
        add(store, seed, **fields)
    return caught.value


def test_a_case_comes_back_as_it_went_in(store: CaseStore) -> None:
    case = add(store, 1, patient_id="P-77", age="045Y", sex="W", split="holdout")
    assert (case.label, case.status, case.split) == ("nv", "confirmed", "holdout")
    assert (case.age_band, case.sex) == ("40-49", "female")
    assert case.created_at.tzinfo is UTC
    assert store.get(case.id) == case
    assert store.image_bytes(case) == picture(1)
    assert store.holdout_cases(TASK) == [case]
    assert store.training_cases(TASK) == store.holdout_cases("other") == []


def test_without_a_label_it_waits_for_one(store: CaseStore) -> None:
    case = add(store, 1, label=None)
    assert (case.status, case.confirmed_at) == ("waiting", None)
    assert store.waiting_cases(TASK) == [case]
    assert store.training_cases(TASK) == store.holdout_cases(TASK) == []
    confirmed = store.confirm(case.id, "mel", classes=CLASSES)
    assert (confirmed.status, confirmed.label) == ("confirmed", "mel")
    assert store.confirm(case.id, "mel", classes=CLASSES) == confirmed
    assert store.waiting_cases(TASK) == []
    with pytest.raises(CaseRefused) as caught:
        store.confirm(case.id, "nv", classes=CLASSES)
    assert caught.value.code == "case-already-confirmed"
    with pytest.raises(CaseRefused) as caught:
        store.confirm(case.id, "naevus", classes=CLASSES)
    assert caught.value.code == "label-unknown"
    with pytest.raises(NotFound):
        store.confirm("0" * 32, "nv", classes=CLASSES)
    assert store.get(case.id) == confirmed


def test_the_same_image_is_kept_once(store: CaseStore) -> None:
    case = add(store, 1, patient_id="P")
    duplicate = refusal(store, 1, patient_id="P")
    assert isinstance(duplicate, DuplicateCase)
    assert duplicate.case == case
    assert refusal(store, 1, patient_id="Q").code == "case-conflict"
    assert refusal(store, 1, patient_id="P", label="mel").code == "case-conflict"
    assert add(store, 1, patient_id="P", task="other").digest == case.digest


def test_the_same_pixels_in_another_file_are_the_same_image(store: CaseStore) -> None:
    add(store, 1)
    with pytest.raises(DuplicateCase):
        store.add(picture(1, kind="BMP"), task=TASK, patient_id=None, label="nv", source="test")


def test_a_label_that_comes_later_confirms(store: CaseStore) -> None:
    waiting = add(store, 1, label=None)
    confirmed = add(store, 1, label="mel")
    assert (confirmed.id, confirmed.status, confirmed.label) == (waiting.id, "confirmed", "mel")


def test_a_patient_stays_on_one_side(store: CaseStore) -> None:
    first = add(store, 1, patient_id="P", split="holdout")
    assert add(store, 2, patient_id=" P ").split == "holdout"
    assert refusal(store, 3, patient_id="P", split="train").code == "patient-split-conflict"
    assert refusal(store, 1, patient_id="P", split="train").code == "patient-split-conflict"
    assert {c.patient for c in store.holdout_cases(TASK)} == {first.patient}
    assert store.training_cases(TASK) == []


def test_a_changed_holdout_fraction_moves_nobody(tmp_path: Path, database_url: str) -> None:
    folder = tmp_path / "site"
    store = open_store(folder, database_url=database_url, holdout_fraction=0.0)
    assert add(store, 1, patient_id="P").split == "train"
    later = open_store(folder, database_url=database_url, holdout_fraction=0.9)
    assert add(later, 2, patient_id="P").split == "train"


def test_one_batch_keeps_patients_and_images_apart_too(store: CaseStore) -> None:
    def new(seed: int, patient: str, split: str | None) -> NewCase:
        image = accept_image(picture(seed))
        return NewCase(image, TASK, patient, "nv", "test", split=split)  # type: ignore[arg-type]

    results = store.add_many([new(1, "P", "train"), new(2, "P", "holdout"), new(1, "P", None)])
    assert isinstance(results[0], Case)
    assert isinstance(results[1], CaseRefused)
    assert results[1].code == "patient-split-conflict"
    assert isinstance(results[2], DuplicateCase)
    assert results[2].case == results[0]
    assert store.add_many([]) == []


def test_counts(store: CaseStore) -> None:
    add(store, 1, patient_id="P", split="train")
    add(store, 2, patient_id="P", split="train", label="mel")
    add(store, 3, patient_id="Q", split="holdout")
    add(store, 4, label=None)
    counts = store.counts(TASK)
    assert (counts.waiting, counts.confirmed, counts.withdrawn) == (1, 3, 0)
    assert (counts.train, counts.holdout) == (2, 1)
    assert (counts.train_patients, counts.holdout_patients) == (1, 1)
    assert [(c.label, c.train, c.holdout) for c in counts.classes] == [("mel", 1, 0), ("nv", 1, 1)]
    assert store.counts("other").confirmed == 0


def test_the_order_is_that_of_the_digests(store: CaseStore) -> None:
    for seed in range(12):
        add(store, seed, split="train")
    digests = [case.digest for case in store.training_cases(TASK)]
    assert len(digests) == 12
    assert digests == sorted(digests)


def test_a_patient_who_withdraws_is_gone_and_does_not_come_back(
    store: CaseStore, tmp_path: Path
) -> None:
    gone = add(store, 1, patient_id="P", age=40, sex="f")
    kept = add(store, 2, patient_id="Q", split="train")
    shared = add(store, 1, patient_id="P", task="other")
    assert store.withdraw_patient("P") == 2
    assert store.withdraw_patient("P") == 0
    left = store.get(gone.id)
    assert (left.status, left.label, left.age_band, left.sex) == ("withdrawn", None, None, None)
    for case in (gone, shared):
        with pytest.raises(StoreError):
            store.image_bytes(case)
    assert store.image_bytes(kept) == picture(2)
    assert refusal(store, 1, patient_id="P").code == "case-withdrawn"
    assert refusal(store, 9, patient_id="P").code == "patient-withdrawn"
    with pytest.raises(CaseRefused):
        store.confirm(gone.id, "nv", classes=CLASSES)
    with pytest.raises(NotFound):
        store.withdraw_patient("nobody")
    assert images_on_disk(tmp_path / "site") == {kept.digest}


def test_a_refused_case_leaves_no_image(store: CaseStore, tmp_path: Path) -> None:
    kept = add(store, 1, patient_id="P", split="train")
    waiting = add(store, 2, patient_id="Q", label=None)
    assert refusal(store, 3, patient_id="P", split="holdout").code == "patient-split-conflict"
    assert refusal(store, 4, patient_id="x" * 10_000).code == "patient-id"
    bitmap, again = accept_image(picture(5, kind="BMP")), accept_image(picture(5))
    both = [NewCase(image, TASK, "P", "nv", "test") for image in (bitmap, again)]
    first, second = store.add_many(both)
    assert isinstance(first, Case)
    assert isinstance(second, DuplicateCase)
    assert images_on_disk(tmp_path / "site") == {kept.digest, waiting.digest, first.digest}


def test_bytes_that_another_task_names_outlive_a_refusal(store: CaseStore) -> None:
    add(store, 9, patient_id="Q", split="train")
    kept = add(store, 1, patient_id="P")
    fault = refusal(store, 1, patient_id="Q", task="other", split="holdout")
    assert fault.code == "patient-split-conflict"
    assert store.image_bytes(kept) == picture(1)


@pytest.mark.parametrize("ages_hours", [0.5, 2])
def test_bytes_that_no_live_case_names_go_after_an_hour(
    tmp_path: Path, database_url: str, ages_hours: float
) -> None:
    """What a kill -9 between bytes and row leaves, perhaps of a patient who withdrew."""
    store = open_store(tmp_path / "site", database_url=database_url)
    kept, _ = add(store, 1, patient_id="P"), add(store, 2, patient_id="Q")
    store.withdraw_patient("Q")
    left = ImageStore(tmp_path / "site/data/images").put(picture(3))
    for digest in (kept.digest, left):
        path = tmp_path / "site/data/images" / digest[:2] / digest
        then = time.time() - ages_hours * 3600
        os.utime(path, (then, then))
    again = open_store(tmp_path / "site", database_url=database_url)
    spared = {left} if ages_hours < 1 else set()
    assert images_on_disk(tmp_path / "site") == {kept.digest} | spared
    assert again.image_bytes(kept) == picture(1)


def test_a_database_that_knows_too_little_costs_no_image(tmp_path: Path) -> None:
    """An empty database by mistake, or one of last year, must not empty the folder of images."""
    store = open_store(tmp_path / "site")
    digests = {add(store, seed).digest for seed in range(3)}
    for digest in digests:
        os.utime(tmp_path / "site/data/images" / digest[:2] / digest, (1, 1))
    other = f"sqlite:///{tmp_path}/other.sqlite"
    add(open_store(tmp_path / "site", database_url=other), 9)
    open_store(tmp_path / "site", database_url=other)
    assert digests < images_on_disk(tmp_path / "site")


def test_a_writer_whose_bytes_were_cleared_writes_them_again(
    store: CaseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It found them there (another's leftover, a day old), so wrote none; then they are cleared."""
    add(store, 2)
    images = ImageStore(tmp_path / "site/data/images")
    left = images.put(picture(1))
    os.utime(tmp_path / "site/data/images" / left[:2] / left, (1, 1))
    put_many = ImageStore.put_many

    def overtaken(self: ImageStore, contents: Iterable[bytes]) -> list[str]:
        digests = put_many(self, contents)
        monkeypatch.setattr(ImageStore, "put_many", put_many)
        assert clear_leftovers(store.transactions, images) == 1
        return digests

    monkeypatch.setattr(ImageStore, "put_many", overtaken)
    assert store.image_bytes(add(store, 1)) == picture(1)


def test_one_withdrawn_case_leaves_the_others(store: CaseStore) -> None:
    wrong, right = add(store, 1, patient_id="P"), add(store, 2, patient_id="P")
    assert store.withdraw_case(wrong.id).status == "withdrawn"
    assert store.get(right.id) == right
    add(store, 3, patient_id="P")


def test_an_image_that_another_task_still_uses_is_kept(store: CaseStore) -> None:
    case = add(store, 1)
    other = add(store, 1, task="other")
    store.withdraw_case(case.id)
    assert store.image_bytes(other) == picture(1)


def test_images_that_a_crash_left_after_a_withdrawal_are_removed_on_opening(
    tmp_path: Path, database_url: str
) -> None:
    store = open_store(tmp_path / "site", database_url=database_url)
    case = add(store, 1, patient_id="P")
    store.withdraw_patient("P")
    path = tmp_path / "site" / "data" / "images" / case.digest[:2] / case.digest
    path.write_bytes(picture(1))
    open_store(tmp_path / "site", database_url=database_url)
    assert not path.exists()


def test_nothing_on_disk_names_the_patient(tmp_path: Path) -> None:
    store = open_store(tmp_path / "site")
    info = PngImagePlugin.PngInfo()
    info.add_text("PatientName", "DOE-JANE-1954")
    Image.new("RGB", (32, 32), (5, 6, 7)).save(tmp_path / "DOE-JANE-1954.png", pnginfo=info)
    image = (tmp_path / "DOE-JANE-1954.png").read_bytes()
    case = store.add(image, task=TASK, patient_id="MRN-DOE-JANE-1954", label="nv", source="test")
    store.close()
    for path in (tmp_path / "site").rglob("*"):
        if path.is_file():
            assert b"DOE-JANE" not in path.read_bytes(), path
    assert case.patient != Pseudonyms(b"\0" * 32).patient("MRN-DOE-JANE-1954")


def test_images_that_are_none_leave_no_trace(store: CaseStore, tmp_path: Path) -> None:
    with pytest.raises(ImageRefused):
        store.add(b"no image", task=TASK, patient_id="P", label="nv", source="test")
    with pytest.raises(NotFound):
        store.withdraw_patient("P")
    assert not [p for p in (tmp_path / "site/data/images").rglob("*") if p.is_file()]


def test_another_key_does_not_open_the_store(tmp_path: Path, database_url: str) -> None:
    folder = tmp_path / "site"
    open_store(folder, database_url=database_url).close()
    (folder / "keys" / "pseudonyms").unlink()
    with pytest.raises(ConfigurationError) as caught:
        open_store(folder, database_url=database_url)
    assert caught.value.code == "pseudonym-key"


def test_a_failing_database_is_a_store_error(tmp_path: Path) -> None:
    settings = make_site(tmp_path / "site", database_url="postgresql://nobody@/x?host=/nowhere")
    with pytest.raises(StoreError):
        CaseStore.open(settings)


def test_a_lost_image_is_a_store_error(store: CaseStore, tmp_path: Path) -> None:
    case = add(store, 1)
    (tmp_path / "site" / "data" / "images" / case.digest[:2] / case.digest).unlink()
    with pytest.raises(StoreError) as caught:
        store.image_bytes(case)
    assert caught.value.code == "image-missing"


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (45, "40-49"), (45.9, "40-49"), ("45.0", "40-49"), ("045Y", "40-49"), ("0", "0-9"),
        ("007M", "0-9"), ("130M", "10-19"), ("012W", "0-9"), (89, "80-89"), (90, "90+"),
        (130, "90+"), (131, None), (-3, None), ("", None), (None, None), ("nan", None),
        ("unknown", None), ("1954-11-07", None), (float("nan"), None),
    ],
)  # fmt: skip
def test_ages_become_bands(age: float | str | None, band: str | None) -> None:
    assert age_band(age) == band


@pytest.mark.parametrize(
    ("sex", "normal"),
    [("F", "female"), ("female", "female"), (" Male ", "male"), ("O", "other"), ("unknown", None),
     ("", None), (None, None), ("Jane Doe", None)],
)  # fmt: skip
def test_sexes_are_normalised(sex: str | None, normal: str | None) -> None:
    assert normal_sex(sex) == normal


# Several processes, and crashes


def test_bytes_are_durable_before_the_transaction_begins(
    store: CaseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    class Watched(keeping.Admission):
        def admit(self, new: NewCase) -> Admitted | CaseRefused:
            found.append(len(list((tmp_path / "site/data/images").rglob(new.image.digest))))
            return super().admit(new)

    monkeypatch.setattr(keeping, "Admission", Watched)
    add(store, 1)
    assert found == [1]


def test_bytes_that_a_withdrawal_deleted_meanwhile_are_written_again(
    store: CaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_many = ImageStore.put_many

    def overtaken(self: ImageStore, contents: Iterable[bytes]) -> list[str]:
        digests = put_many(self, contents)
        monkeypatch.setattr(ImageStore, "put_many", put_many)
        for digest in digests:
            self.remove(digest)
        return digests

    monkeypatch.setattr(ImageStore, "put_many", overtaken)
    assert store.image_bytes(add(store, 1)) == picture(1)


def test_writers_go_one_at_a_time(database_url: str) -> None:
    engines = [open_database(database_url) for _ in range(2)]
    inside, over = threading.Event(), threading.Event()

    def second() -> None:
        with Transactions(engines[1], 7).writing() as session:
            session.execute(text("SELECT 1"))
            inside.set()
        over.set()

    with Transactions(engines[0], 7).writing() as session:
        session.execute(text("SELECT 1"))
        thread = threading.Thread(target=second)
        thread.start()
        assert not inside.wait(0.5)
    assert over.wait(30)
    thread.join()
    for engine in engines:
        engine.dispose()


def _add_in_child(folder: str, url: str | None, seeds: list[int], results: object) -> None:
    store = open_store(Path(folder), database_url=url)
    kept = refused = 0
    for seed in seeds:
        try:
            add(store, seed, patient_id=f"P{seed % 5}")
            kept += 1
        except InputRefused as error:
            refused += error.code == "case-duplicate"
    results.put((kept, refused))  # type: ignore[attr-defined]


def test_processes_adding_the_same_images(tmp_path: Path, database_url: str) -> None:
    folder = tmp_path / "site"
    open_store(folder, database_url=database_url).close()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    children = [
        context.Process(
            target=_add_in_child, args=(str(folder), database_url, list(range(40)), results)
        )
        for _ in range(2)
    ]
    for child in children:
        child.start()
    answers = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join(timeout=30)
    assert sum(kept for kept, _ in answers) == 40
    assert sum(refused for _, refused in answers) == 40
    store = open_store(folder, database_url=database_url)
    cases = store.training_cases(TASK) + store.holdout_cases(TASK)
    assert len(cases) == 40
    assert len({c.patient for c in cases}) == 5
    assert all(store.image_bytes(case) for case in cases)


_WRITER = """
import sys
from pathlib import Path
from tests.client.stores import TASK, open_store, picture
store = open_store(Path(sys.argv[1]), database_url=sys.argv[2] or None)
print("ready", flush=True)
for seed in range(100_000):
    case = store.add(picture(seed), task=TASK, patient_id=None, label="nv", source="test")
    print(case.id, flush=True)
"""


def _kill_a_writer(folder: Path, url: str, after: int) -> list[str]:
    """Return the ids that a writer had confirmed when kill -9 hit it."""
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder), url],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(after + 1)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    return [line.strip() for line in lines[1:] if len(line) == 33]


def test_kill_9_loses_no_confirmed_case_and_leaves_no_half_file(
    tmp_path: Path, database_url: str
) -> None:
    after = 5
    folder = tmp_path / "site"
    open_store(folder, database_url=database_url).close()
    confirmed = _kill_a_writer(folder, database_url, after)
    assert len(confirmed) >= after
    store = open_store(folder, database_url=database_url)
    for case_id in confirmed:
        assert store.image_bytes(store.get(case_id))
    cases = store.training_cases(TASK) + store.holdout_cases(TASK)
    assert {case.id for case in cases} >= set(confirmed)
    assert len(cases) <= len(confirmed) + 1
    assert all(store.image_bytes(case) for case in cases)  # checked against the digest
    files = [p for p in (folder / "data" / "images").rglob("*") if p.is_file()]
    whole = [p for p in files if not p.name.startswith(".writing-")]
    assert len(files) <= len(cases) + 1  # at most the one whose row did not come to be
    assert all(hashlib.sha256(p.read_bytes()).hexdigest() == p.name for p in whole)
    add(store, 10**6)  # the next writer goes on
