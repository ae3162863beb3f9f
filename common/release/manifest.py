"""The release manifest, and the draft that it is before it has a version and a file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from common.errors import ReleaseError
from common.plan import Hex64
from common.recipe import Fraction, Recipe
from common.release.document import Moment, Part, Version, canonical_json, malformed
from common.release.lineage import Lineage
from common.release.scores import GateCheck, ReleaseMetrics
from common.release.targets import model_target

MAXIMUM_MANIFEST_BYTES = 1_048_576
MAXIMUM_MODEL_BYTES = 4 * 1024**3


class ModelFile(Part):
    """The safetensors target: its path in the repository, SHA-256 of its bytes, and its size."""

    name: str
    sha256: Hex64
    bytes: Annotated[int, Field(ge=1, le=MAXIMUM_MODEL_BYTES)]


class ReleaseDraft(Part):
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
            raise malformed("The release", error) from error

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
        return canonical_json(self)


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
        raise malformed("The release manifest", error) from error
