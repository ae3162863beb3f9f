"""The release manifest: what a released model is, where it comes from and what it scored.

It travels as a TUF target, so that its signature, freshness and version order are TUF's
business (https://theupdateframework.github.io/specification/latest/); this module only says
what the signed bytes mean. Everything that a site needs to serve the model is in it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from common.errors import ReleaseError
from common.evaluation import Metrics
from common.plan import Hex64, Identifier
from common.recipe import Fraction, Recipe
from common.records import Receipt

MAXIMUM_MANIFEST_BYTES = 1_048_576
MAXIMUM_MODEL_BYTES = 4 * 1024**3
MAXIMUM_VERSION = 2**31 - 1

Version = Annotated[int, Field(ge=1, le=MAXIMUM_VERSION)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]


def _whole_seconds_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


Moment = Annotated[AwareDatetime, AfterValidator(_whole_seconds_utc)]


def release_target(version: int) -> str:
    """Return the TUF target path of a release's manifest."""
    return f"release-{version}.json"


def model_target(model_digest: str) -> str:
    """Return the TUF target path of a model's weights."""
    return f"model-{model_digest}.safetensors"


def latest_target(task: str) -> str:
    """Return the TUF target path of the pointer to a task's newest release."""
    return f"latest-{task}.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelFile(_Part):
    """The safetensors target: its path in the repository, SHA-256 of its bytes, and its size."""

    name: str
    sha256: Hex64
    bytes: Annotated[int, Field(ge=1, le=MAXIMUM_MODEL_BYTES)]


class SiteContribution(_Part):
    """One site's part in a release.

    ``rounds`` is the number of rounds whose update was taken in. ``receipt`` is the site's last
    one, whose ``epsilon_campaign`` and ``epsilon_life`` already add up all earlier rounds; the
    coordinator's registry keeps every receipt. It is None for a model that was not trained
    federated.
    """

    site: Identifier
    rounds: Annotated[int, Field(ge=0)]
    receipt: Receipt | None = None


class Lineage(_Part):
    """Where a model comes from.

    ``candidate`` is the registry's identifier; publishing the same candidate twice is one
    release. ``base_release`` is the release that the campaign started from, None from scratch.
    A clinical rollback ``replaces`` one release by the weights of an older one, which it
    ``restores``; both are None otherwise.
    """

    campaign: Identifier
    candidate: Identifier
    rounds: Annotated[int, Field(ge=0)]
    base_release: Version | None = None
    restores: Version | None = None
    replaces: Version | None = None
    sites: tuple[SiteContribution, ...] = ()


class OperatingPoint(_Part):
    """What the positive verdict does on the holdouts at the release's threshold.

    ``wanted_sensitivity`` chose the threshold; None where it is the recipe's own. The threshold
    was chosen on the patients that the rates are of: they are a little better than on new ones.
    """

    threshold: Fraction
    wanted_sensitivity: Fraction | None
    sensitivity: Fraction | None
    specificity: Fraction | None
    cases: Annotated[int, Field(ge=0)]


class ReleaseMetrics(_Part):
    """Merged holdout metrics of the candidate, and of the champion on the same patients.

    ``operating`` and ``calibration_error`` (of the top class) are None where no site released
    what they follow from.
    """

    candidate: Metrics
    champion: Metrics | None = None
    operating: OperatingPoint | None = None
    calibration_error: Fraction | None = None


class GateCheck(_Part):
    """One named check of the release gate: its figure, the limit it was held to, the verdict.

    ``unjudged`` names the sites or subgroups that have too few cases for a verdict on them. It is
    the coordinator's: sites read of it in the explanation (`ReleaseDraft.released`).
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    passed: bool
    figure: FiniteFloat | None = None
    limit: FiniteFloat | None = None
    explanation: Annotated[str, Field(max_length=500)] = ""
    unjudged: Annotated[
        tuple[Annotated[str, Field(max_length=80)], ...],
        Field(max_length=10_000, exclude_if=lambda names: not names),
    ] = ()

    @property
    def verdict(self) -> Literal["passed", "failed", "not enough cases to judge"]:
        """The verdict in words; one that lacks cases need not have failed (``passed``)."""
        if self.figure is None and self.unjudged:
            return "not enough cases to judge"
        return "passed" if self.passed else "failed"


class ReleaseDraft(_Part):
    """A model that passed the gate, before the repository gives it a version and a file.

    Attributes
    ----------
    recipe : Recipe
        The whole recipe, as trained: preparation, network, classes and positive classes.
    model_digest : str
        `common.update.tensors_digest` of the weights (64 hex digits).
    threshold : float
        Operating threshold on the summed probability of the positive classes, in [0, 1].
    lineage, metrics, gate
        Where it comes from, what it scored, what it had to pass.
    protocol : str or None
        SHA-256 of the protocol whose limits the gate held it to.
    created_at : datetime
        UTC, whole seconds.
    """

    recipe: Recipe
    model_digest: Hex64
    threshold: Fraction
    lineage: Lineage
    metrics: ReleaseMetrics
    gate: tuple[GateCheck, ...] = ()
    protocol: Hex64 | None = None
    created_at: Moment

    def released(self, version: int, file: ModelFile) -> ReleaseManifest:
        """Return the manifest of this draft as a release; an earlier version and file are lost.

        Its checks lack ``unjudged``, which sites of before would refuse; the explanation says it.

        Raises
        ------
        ReleaseError
            With code ``manifest-malformed``, if the numbers contradict the lineage.
        """
        fields = {name: getattr(self, name) for name in ReleaseDraft.model_fields}
        told = tuple(check.model_copy(update={"unjudged": ()}) for check in self.gate)
        try:
            return ReleaseManifest(**fields | {"gate": told}, version=version, file=file)
        except ValidationError as error:
            raise _malformed("The release", error) from error

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return self.recipe.classes

    @property
    def task(self) -> str:
        """The clinical task: the recipe's name."""
        return self.recipe.name


class ReleaseManifest(ReleaseDraft):
    """A released model: a draft with the version and the file that the repository gave it.

    Attributes
    ----------
    version : int
        Monotonic over all releases of a coordinator.
    file : ModelFile
        The safetensors target that holds the weights.
    """

    version: Version
    file: ModelFile

    @model_validator(mode="after")
    def _consistent(self) -> ReleaseManifest:
        if self.file.name != model_target(self.model_digest):
            raise ValueError("file.name: not the name that model_digest gives")
        if self.lineage.base_release is not None and self.lineage.base_release >= self.version:
            raise ValueError("lineage.base_release: not older than the release itself")
        return self

    def to_json(self) -> bytes:
        """Return the manifest as canonical JSON: sorted keys, no spaces, UTF-8.

        Equal manifests give equal bytes.
        """
        return _canonical(self)


class LimitedRelease(_Part):
    """A release that not every site may take.

    ``sites`` are those that may, None all of them; where it is ``held``, only a site that has it
    already goes on with it.
    """

    version: Version
    sites: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=4096)] | None = None
    held: bool = False


class LatestRelease(_Part):
    """Which of a task's releases are meant for which site, itself a signed target.

    Attributes
    ----------
    task : str
        The clinical task.
    version : int
        The newest release that is meant for every site; 0 while there is none.
    limited : tuple of LimitedRelease
        Newer ones, the oldest first: those in their first rings, and those that are held.
    """

    task: Identifier
    version: Annotated[int, Field(ge=0, le=MAXIMUM_VERSION)]
    limited: Annotated[tuple[LimitedRelease, ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _ordered(self) -> LatestRelease:
        versions = (self.version, *(release.version for release in self.limited))
        if any(later <= earlier for earlier, later in pairwise(versions)):
            raise ValueError("limited: not newer than version, or out of order")
        return self

    @property
    def newest(self) -> int:
        """The task's newest release, whomever it is meant for; it never goes down."""
        return self.limited[-1].version if self.limited else self.version

    def offered(self, site: str, *, current: int = 0) -> int:
        """Return the newest release that is meant for a site.

        Parameters
        ----------
        site : str
            The site's name.
        current : int
            The version that the site has now, 0 for none.

        Returns
        -------
        int
            Its version, 0 if there is none. It may be older than ``current``, where that was
            held or limited meanwhile: versions never go down, so the site keeps what it has.
        """
        for release in reversed(self.limited):
            named = release.sites is None or site in release.sites
            if named and (not release.held or release.version == current):
                return release.version
        return self.version

    def to_json(self) -> bytes:
        """Return canonical JSON, as `ReleaseManifest.to_json`.

        Without limited releases it is what sites read before there were rings.
        """
        return _canonical(self, leave_out=None if self.limited else {"limited"})


def parse_manifest(data: bytes) -> ReleaseManifest:
    """Parse a manifest's JSON.

    Raises
    ------
    ReleaseError
        With code ``manifest-too-large`` or ``manifest-malformed``.
    """
    if len(data) > MAXIMUM_MANIFEST_BYTES:
        raise ReleaseError("The release manifest is larger than 1 MiB.", code="manifest-too-large")
    try:
        return ReleaseManifest.model_validate_json(data)
    except ValidationError as error:
        raise _malformed("The release manifest", error) from error


def parse_latest(data: bytes) -> LatestRelease:
    """Parse the pointer to the newest release.

    Raises
    ------
    ReleaseError
        With code ``manifest-malformed``.
    """
    try:
        return LatestRelease.model_validate_json(data)
    except ValidationError as error:
        raise _malformed("The pointer to the newest release", error) from error


def _canonical(document: BaseModel, *, leave_out: set[str] | None = None) -> bytes:
    data = document.model_dump(mode="json", exclude=leave_out)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _malformed(what: str, error: ValidationError) -> ReleaseError:
    faults = "; ".join(
        f"{'.'.join(str(p) for p in e['loc']) or 'document'}: {e['msg']}"
        for e in error.errors(include_input=False, include_url=False)[:5]
    )
    return ReleaseError(
        f"{what} breaks the schema: {faults}.",
        meaning="It was made by a newer or a faulty coordinator.",
        action="Upgrade this site's Wardround, or ask the coordinator.",
        code="manifest-malformed",
    )
