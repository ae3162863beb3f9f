"""What a head and layers of a site's own have in common: the trial on the holdout, and its end.

Both are held against the release on the same cases, kept in the same place, and reported alike.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from client.cases.store import CaseStore
from client.personalisation.head import PersonalHead, PersonalHeads
from client.personalisation.judging import MARGIN, HoldoutCases, Judgement, case_groups, judge
from client.releases.cache import LocalRelease
from client.settings import SiteSettings
from client.training.dataset import PatientImages
from client.withdrawn_mark import withdrawn_now
from common.errors import CaseRefused, ReleaseError, StoreError
from common.release import ReleaseManifest


class Personalised(BaseModel):
    """What `personalise` did, for inside the site only.

    ``what`` of the site's own was tried: a fitted ``head``, or the ``layers`` that stayed here in
    the release's campaign (`client.personalisation.own_layers`); ``head_digest`` is of either.
    ``serving`` says which head answers from now on. The figures are of the site's own holdout:
    macro AUROCs, the 95 % interval of their difference, and how many of ``positives`` each finds
    at the release's threshold. ``pull`` is how strongly the fit was held to the release's head;
    None where no fit generalised better than it. All are None after ``--off``.
    """

    model_config = ConfigDict(frozen=True)

    site: str
    what: Literal["head", "layers"] = "head"
    serving: str
    removed: bool = False
    release: int | None = None
    model_digest: str | None = None
    head_digest: str | None = None
    pull: float | None = None
    margin: float = MARGIN
    released_auroc: float | None = None
    personal_auroc: float | None = None
    difference_lower: float | None = None
    difference_upper: float | None = None
    released_found: int | None = None
    personal_found: int | None = None
    positives: int | None = None


def held(release: LocalRelease | None) -> LocalRelease:
    """Return the release that a site holds.

    Raises
    ------
    ReleaseError
        With code ``no-model``, if it holds none.
    """
    if release is None:
        raise ReleaseError(
            "The site holds no release yet.",
            action="Wait for the coordinator's first release.",
            code="no-model",
        )
    return release


def judge_on_holdout(
    images: PatientImages,
    released: NDArray[np.float64],
    personal: NDArray[np.float64],
    manifest: ReleaseManifest,
) -> Judgement:
    """Hold what is the site's own against the release, by the rule of `judging`.

    Parameters
    ----------
    images : PatientImages
        The site's whole holdout, N images.
    released, personal : ndarray of float64, (N, K)
        The probabilities that each gives.
    manifest : ReleaseManifest
        The release's.

    Raises
    ------
    CaseRefused
        With code ``holdout-too-small``.
    """
    numbers = np.zeros(len(images), np.int64)
    for number, patient in enumerate(images.patients):
        numbers[patient] = number
    cases, owners = case_groups(images.labels, numbers)
    means = [
        np.array([part[case].mean(axis=0) for case in cases]) if cases else part
        for part in (released, personal)
    ]
    labels = np.array([images.labels[case[0]] for case in cases], dtype=np.int64)
    recipe = manifest.recipe
    positive = [recipe.classes.index(name) for name in recipe.decision.positive_classes]
    found = HoldoutCases(means[0], means[1], labels, owners)
    return judge(found, positive=positive, threshold=manifest.threshold)


def keep(
    heads: PersonalHeads,
    own: PersonalHead,
    *,
    name: str,
    withdrawn: int,
    unchanged: Callable[[], bool],
    changed: CaseRefused,
) -> None:
    """Keep what served better, unless a patient withdrew while it was made.

    Parameters
    ----------
    heads : PersonalHeads
    own : PersonalHead
    name : str
        What it is, in words that begin an error: ``The head``.
    withdrawn : int
        How many cases had been withdrawn before those were read that it was made of
        (`client.withdrawn_mark`): what a killed process leaves here is known by it.
    unchanged : callable
        Tells whether all cases are there that it was made of.
    changed : CaseRefused
        What to raise if they are not.

    Raises
    ------
    CaseRefused
        As said.
    StoreError
        If the disk failed.
    """
    if not unchanged():
        raise changed
    try:
        heads.keep(own, withdrawn=withdrawn)
    except OSError as error:
        raise StoreError(
            f"{name} cannot be kept ({error.strerror or error}).", action="Free disk space."
        ) from error
    if not unchanged():
        heads.forget()  # a withdrawal meanwhile found nothing that it could have removed
        raise changed


def withdrawn_by_now(settings: SiteSettings) -> int:
    """Return how many cases are withdrawn; `StoreError` if the database cannot be read."""
    with closing(CaseStore.open(settings)) as store:
        return withdrawn_now(store.transactions)


def outcome(
    settings: SiteSettings,
    manifest: ReleaseManifest,
    own: PersonalHead,
    judgement: Judgement,
    *,
    what: Literal["head", "layers"],
    pull: float | None = None,
) -> Personalised:
    """Return what came of a trial; ``pull`` as in `Personalised`."""
    return Personalised(
        site=settings.name,
        what=what,
        serving="personal" if judgement.serves else "release",
        release=manifest.version,
        model_digest=manifest.model_digest,
        head_digest=own.digest,
        pull=pull,
        released_auroc=judgement.released_auroc,
        personal_auroc=judgement.personal_auroc,
        difference_lower=judgement.lower,
        difference_upper=judgement.upper,
        released_found=judgement.released_found,
        personal_found=judgement.personal_found,
        positives=judgement.positives,
    )
