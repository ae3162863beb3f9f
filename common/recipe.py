"""A recipe: the typed, frozen description of one clinical task, read from TOML.

Training, evaluation, release and inference all follow from it. Adding a disease is one TOML
file beside the four in ``common/recipes/``.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from common.compression import Compression
from common.errors import RecipeError

_COORDINATORS_CHOICE = (
    *("title", "source", "model", "training", "without_privacy"),
    *("privacy", "federation", "release"),
)

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
AggregationName: TypeAlias = Literal[
    "mean", "median", "trimmed-mean", "krum", "near-median", "descent"
]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


RoundsMode: TypeAlias = Literal["synchronous", "buffered"]
AlgorithmName: TypeAlias = Literal[
    "fedavg", "fedprox", "fedadam", "fedyogi", "fedadagrad", "scaffold"
]
LocalLayer: TypeAlias = Literal["normalisation", "head"]
LocalLayers: TypeAlias = tuple[LocalLayer, ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ImageSpec(_Part):
    """How pixels are prepared, the same at training and at inference.

    ``size`` is the side in pixels of the square that the network sees. ``region`` names the
    part of the picture that is kept: ``full``, or ``tissue`` (ultrasound: text, muscle band and
    shadow are cropped away). ``mean`` and ``std`` are per RGB channel, on the 0-1 scale; they
    are public constants, never statistics of private data.
    """

    size: Annotated[int, Field(ge=16, le=1024)]
    region: Literal["full", "tissue"] = "full"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)


class ModelSpec(_Part):
    """The timm network. ``alternatives`` may be chosen instead with ``--model``.

    ``normalisation``: ``group`` replaces BatchNorm by GroupNorm (from scratch); ``frozen`` keeps
    pretrained BatchNorm features with frozen statistics. ``trainable`` says which parameters
    move: everything, norms and biases with the head (BiTFiT), or the head alone.
    """

    architecture: str
    alternatives: tuple[str, ...] = ()
    pretrained: bool = False
    normalisation: Literal["group", "frozen"] = "group"
    trainable: Literal["all", "bias", "head"] = "all"


class Augmentation(_Part):
    """Random changes to a training image; each is independent of every other image."""

    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    colour_jitter: Fraction = 0.0


class LossSpec(_Part):
    """The loss is always a mean of per-sample terms, so that one patient moves one term.

    ``class_weights`` are public numbers (from literature), one a class in the recipe's order;
    weights counted from a site's own labels would leak them.
    """

    name: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: Annotated[float, Field(ge=0, le=5)] = 2.0
    class_weights: tuple[PositiveFloat, ...] = ()
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0


class LocalTraining(_Part):
    """What a site does in one round.

    ``sampling_rate`` q is the probability with which each patient enters a local step (Poisson
    sampling under privacy, a shuffled fraction without); the passes over the data of a campaign
    are ``rounds * local_steps * q``. ``proximal_mu`` pulls towards the round's base (FedProx,
    `FederationSpec.algorithm`).
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    local_steps: Annotated[int, Field(ge=1, le=10_000)] = 1
    sampling_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    proximal_mu: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0


class NonPrivateExtras(_Part):
    """Techniques that mix patients: refused with privacy, allowed in ``--no-privacy`` studies."""

    mixup_alpha: Annotated[float, Field(ge=0, le=2)] = 0.0
    cutmix_alpha: Annotated[float, Field(ge=0, le=2)] = 0.0
    balance_classes: bool = False


class PrivacySpec(_Part):
    """Patient-level DP-SGD defaults; the site's policy has the last word.

    ``epsilon`` is for one campaign at the site's delta; ``max_grad_norm`` is the clip C;
    ``augmentation_multiplicity`` averages that many augmentations of the one sampled image
    before clipping (De et al. 2022, arXiv:2204.13650). ``trainable`` is as in `ModelSpec`: the
    fewer parameters move, the less noise there is in the sum of their changes.
    """

    epsilon: PositiveFloat = 8.0
    trainable: Literal["all", "bias", "head"] = "all"
    max_grad_norm: PositiveFloat = 1.0
    augmentation_multiplicity: Annotated[int, Field(ge=1, le=32)] = 1
    training: LocalTraining = LocalTraining()


class ServerOptimizer(_Part):
    """How the coordinator applies the weighted mean delta (FedOpt, arXiv:2003.00295).

    ``average`` adds it; ``adamw`` treats it, divided by local rate x steps, as a gradient.
    ``adam``, ``yogi`` and ``adagrad`` are that paper's own (algorithm 2), with ``adaptivity`` its
    tau: they take the delta as it is.
    """

    name: Literal["average", "adamw", "adam", "yogi", "adagrad"] = "average"
    adaptivity: PositiveFloat = 1e-3
    learning_rate: PositiveFloat = 1.0
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "one_cycle", "cosine_restarts"] = "constant"
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0


class AggregationSpec(_Part):
    """How a round's updates become one, and what a single site may do to it.

    ``mean`` weighs each site by the patients that it declares, but no site by more than
    ``largest_share`` of the whole where there are three or more. ``median`` and
    ``trimmed-mean`` (Yin et al. 2018, arXiv:1803.01498) are taken a coordinate at a time,
    ``krum`` (Multi-Krum, Blanchard et al. 2017, arXiv:1703.02757) averages the updates that lie
    closest together; these three give every site the same weight, whatever it declares.
    ``near-median`` is the mean again, but without the ``malicious`` updates that lie farthest
    from the coordinate-wise median (after the mean around the median of Xie et al. 2018,
    arXiv:1802.10116, with whole updates in place of coordinates: where hospitals differ, a
    median of each coordinate loses what only one of them knows). ``descent`` is the mean
    without up to ``malicious`` updates that are grossly long, or whose sites have answered to
    the model's movement as climbing a loss does (``server/rounds/descent_memory.py``).

    ``norm_multiple`` holds for all: an update longer than so many times the round's median
    norm is first scaled down to that length (Sun et al. 2019, arXiv:1911.07963); 0 is no bound.
    ``trim_fraction`` is cut off at each end (``trimmed-mean``); ``malicious`` is how many sites
    may lie (``krum``, ``near-median``, ``descent``, and the smallest quorum of all but
    ``mean``); those whose updates the checks refused are among them.
    """

    name: AggregationName = "mean"
    norm_multiple: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3.0
    largest_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    trim_fraction: Annotated[float, Field(ge=0, lt=0.5)] = 0.25
    malicious: Annotated[int, Field(ge=0)] = 1


class FederationSpec(_Part):
    """Rounds, quorum of successes, deadlines in seconds, aggregation and the server's optimizer.

    ``evaluations`` is how many of the rounds, spread evenly, also score the model on the holdouts
    (the first always does, and the final model is scored in any case); 0 is every round. Where
    rounds are many and short, scoring each would cost more than training.

    ``compression`` says how updates travel up, and the model's steps down
    (`common.compression`, ``docs/wire.md``); ``top-k`` keeps ``top_k_fraction`` of each
    tensor's values.

    ``mode`` is ``buffered`` where no round waits for the slowest site (FedBuff, Nguyen et al.
    2022, arXiv:2106.06639; ``docs/algorithms.md``): the model moves after every ``buffer_size``
    accepted updates (0: the quorum), an update more than ``max_staleness`` moves old is left out,
    any ``quorum_steps`` moves in a row hold updates of a quorum of different sites, and a site
    trains ``site_rounds`` times at most (0: twice ``rounds``), which is what its privacy is
    budgeted for.

    ``algorithm`` names a published method (``docs/algorithms.md``) in place of what
    ``server`` and ``server_with_privacy`` say; None leaves it to them. ``proximal_mu`` is
    FedProx' own.

    ``local_layers`` never leave their site (`common.local_layers`); left out of the JSON where
    there are none, so that sites of before can read it.
    """

    algorithm: AlgorithmName | None = None
    proximal_mu: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.01
    local_layers: Annotated[LocalLayers, Field(exclude_if=lambda value: not value)] = ()

    mode: RoundsMode = "synchronous"
    buffer_size: Annotated[int, Field(ge=0, le=1000)] = 0
    max_staleness: Annotated[int, Field(ge=0, le=10_000)] = 20
    quorum_steps: Annotated[int, Field(ge=1, le=10_000)] = 10
    site_rounds: Annotated[int, Field(ge=0, le=100_000)] = 0

    rounds: Annotated[int, Field(ge=1, le=100_000)] = 5
    quorum: Annotated[int, Field(ge=1)] = 2
    round_deadline_seconds: PositiveFloat = 3600.0
    evaluations: Annotated[int, Field(ge=0)] = 0
    early_stopping_rounds: Annotated[int, Field(ge=0)] = 0
    unfreeze_after: Fraction = 0.0
    compression: Compression = "none"
    top_k_fraction: Annotated[float, Field(gt=0, le=1)] = 0.03
    aggregation: AggregationSpec = AggregationSpec()
    server: ServerOptimizer = ServerOptimizer()
    server_with_privacy: ServerOptimizer = ServerOptimizer()

    @model_validator(mode="after")
    def _consistent(self) -> FederationSpec:
        if len(set(self.local_layers)) != len(self.local_layers):
            raise ValueError("local_layers: a layer is named twice")
        if self.algorithm != "scaffold":
            return self
        if self.compression == "top-k":
            raise ValueError("scaffold: a control variate cannot be had from a top-k update")
        if self.aggregation.name != "mean":
            raise ValueError("scaffold: the corrections of all sites only add up under `mean`")
        if self.mode != "synchronous":
            raise ValueError("scaffold: its rounds are synchronous")
        return self

    def optimizer(self, *, private: bool) -> ServerOptimizer:
        """Return how the coordinator applies the aggregate, as the algorithm has it."""
        given = self.server_with_privacy if private else self.server
        if self.algorithm is None:
            return given
        if self.algorithm in ("fedavg", "fedprox", "scaffold"):
            return ServerOptimizer(ema_decay=given.ema_decay)
        name = self.algorithm.removeprefix("fed")
        own = {} if given.name == name else {"learning_rate": 0.01}
        return ServerOptimizer.model_validate(
            given.model_dump() | {"name": name, "weight_decay": 0.0} | own
        )

    def local(self, training: LocalTraining) -> LocalTraining:
        """Return what a site does in a round, as the algorithm has it.

        Raises
        ------
        RecipeError
            With code ``algorithm-optimizer``: SCAFFOLD reads a site's mean gradient out of its
            update, which only plain SGD lets it.
        """
        if self.algorithm is None:
            return training
        if self.algorithm == "scaffold" and (training.optimizer != "sgd" or training.momentum > 0):
            raise RecipeError(
                "SCAFFOLD needs plain SGD at the sites.",
                meaning="A site's mean gradient could not be told from its update.",
                action='Set optimizer = "sgd" and momentum = 0 in the recipe\'s training part '
                "that is used ([privacy.training] with privacy), or choose another algorithm.",
                code="algorithm-optimizer",
            )
        mu = self.proximal_mu if self.algorithm == "fedprox" else 0.0
        return training.model_copy(update={"proximal_mu": mu})


class DecisionSpec(_Part):
    """Which classes count as positive (cancer), and the threshold on their summed probability."""

    positive_classes: tuple[str, ...]
    threshold: Fraction = 0.5


class ReleaseGateSpec(_Part):
    """Limits that a candidate must pass before it may be released; None asks for nothing.

    ``docs/release-gate.md`` says how each is judged. ``accuracy_floor`` is None where the source
    set none. ``non_inferiority_margin`` is the macro AUROC that a candidate may lose against the
    champion by the figures themselves; ``interval_margin`` is what it may lose at the lower end
    of the difference's 95 % interval, the two models' AUROCs being correlated by
    ``champion_correlation``. ``wanted_sensitivity`` for the positive classes chooses the
    operating threshold; None keeps the recipe's. ``worst_site_auroc_floor`` and
    ``worst_subgroup_auroc_floor`` are broken by a site or subgroup whose figure is below, over
    the classes of which it has ``judged_cases`` cases, and as many of the others; one without
    such a class is not judged. ``largest_change`` is the distance to the base model over the
    base's norm.
    ``not_required`` names checks that pass where their figure cannot be had, as where no site's
    policy releases it; all others then fail.
    """

    accuracy_floor: Fraction | None = None
    macro_auroc_floor: Fraction = 0.5
    non_inferiority_margin: Fraction = 0.0
    interval_margin: Fraction | None = None
    champion_correlation: Fraction = 0.5
    minimum_sites: Annotated[int, Field(ge=1)] = 2
    wanted_sensitivity: Fraction | None = None
    sensitivity_floor: Fraction | None = None
    calibration_error_ceiling: Fraction | None = None
    worst_site_auroc_floor: Fraction | None = None
    worst_subgroup_auroc_floor: Fraction | None = None
    judged_cases: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    epsilon_ceiling: PositiveFloat | None = None
    largest_change: PositiveFloat | None = None
    not_required: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")], ...] = ()


def _pairs(table: object) -> object:
    return tuple(table.items()) if isinstance(table, dict) else table


_Words = Annotated[str, Field(min_length=1, max_length=80)]
DisplayNames = Annotated[
    tuple[tuple[str, _Words], ...],
    BeforeValidator(_pairs),
    PlainSerializer(dict, return_type=dict[str, str]),
    Field(exclude_if=lambda names: not names),
]
"""Words for classes, a TOML table; kept as pairs, so that a recipe stays frozen."""


class Recipe(_Part):
    """One clinical task. See each part for its meaning and units.

    ``display`` has the words in which pages name a class, for those whose own name is a code.
    It is no part of what the recipe means: neither the digest nor `allows` looks at it.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    title: str
    images: str
    source: str = ""
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=1000)]
    optional_classes: tuple[str, ...] = ()
    image: ImageSpec
    model: ModelSpec
    augmentation: Augmentation = Augmentation()
    loss: LossSpec = LossSpec()
    training: LocalTraining = LocalTraining()
    without_privacy: NonPrivateExtras = NonPrivateExtras()
    privacy: PrivacySpec = PrivacySpec()
    federation: FederationSpec = FederationSpec()
    decision: DecisionSpec
    release: ReleaseGateSpec = ReleaseGateSpec()
    display: DisplayNames = ()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a class is named twice")
        if self.loss.class_weights and len(self.loss.class_weights) != len(self.classes):
            raise ValueError("loss.class_weights: one weight a class, or none")
        unknown = set(self.decision.positive_classes) - set(self.classes)
        if unknown:
            raise ValueError(f"decision.positive_classes: unknown {sorted(unknown)}")
        named = [name for name, _ in self.display]
        unknown = set(named) - {*self.classes, *self.optional_classes}
        if unknown or len(set(named)) != len(named):
            raise ValueError(f"display: unknown or named twice {sorted(unknown or named)}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON, so that two ends can tell that they agree.

        Without ``display``, which changes words and no meaning.
        """
        return hashlib.sha256(self.model_dump_json(exclude={"display"}).encode()).hexdigest()

    def display_name(self, name: str) -> str:
        """Return how a page names a class: ``Melanoma (mel)``, or the bare name without words."""
        words = dict(self.display).get(name)
        if words is None:
            return name
        return words if name.lower() in words.lower().split() else f"{words} ({name})"

    def allows(self, other: Recipe) -> bool:
        """Tell whether ``other`` is this task, at most with another of its networks.

        A coordinator may choose the network (this recipe's own or one of its alternatives), the
        image size, and all that concerns its own side: rounds, optimizers, limits, thresholds.
        What an image, a class and a patient's loss mean must be the same.
        """
        if other.model.architecture not in (self.model.architecture, *self.model.alternatives):
            return False
        return self._meaning() == other._meaning()

    def _meaning(self) -> str:
        data = self.model_dump()
        for part in _COORDINATORS_CHOICE:
            del data[part]
        data.pop("display", None)
        del data["image"]["size"], data["decision"]["threshold"]
        return json.dumps(data, sort_keys=True)

    def toml(self) -> str:
        """Return the recipe as TOML that `parse_recipe` reads back."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def with_changes(
        self,
        *,
        model: str | None = None,
        image_size: int | None = None,
        rounds: int | None = None,
        epsilon: float | None = None,
        normalisation: Literal["group", "frozen"] | None = None,
        aggregation: AggregationName | None = None,
        algorithm: AlgorithmName | None = None,
        local_layers: LocalLayers | None = None,
        mode: RoundsMode | None = None,
        buffer_size: int | None = None,
        site_rounds: int | None = None,
    ) -> Recipe:
        """Return the recipe with the parts that the command line may override.

        Raises
        ------
        RecipeError
            If the changed recipe breaks a rule.
        """
        data = self.model_dump()
        if model is not None:
            data["model"]["architecture"] = model
        if image_size is not None:
            data["image"]["size"] = image_size
        if rounds is not None:
            data["federation"]["rounds"] = rounds
        if epsilon is not None:
            data["privacy"]["epsilon"] = epsilon
        if normalisation is not None:
            data["model"]["normalisation"] = normalisation
        if aggregation is not None:
            data["federation"]["aggregation"]["name"] = aggregation
        if algorithm is not None:
            data["federation"]["algorithm"] = algorithm
        if local_layers is not None:
            data["federation"]["local_layers"] = local_layers
        if mode is not None:
            data["federation"]["mode"] = mode
        if buffer_size is not None:
            data["federation"]["buffer_size"] = buffer_size
        if site_rounds is not None:
            data["federation"]["site_rounds"] = site_rounds
        return _validated(data, origin=f"recipe {self.name} with changes")


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with Wardround, sorted."""
    folder = resources.files("common") / "recipes"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


def load_recipe(name_or_path: str) -> Recipe:
    """Read a shipped recipe by name, or any recipe by the path of its TOML file.

    Raises
    ------
    RecipeError
        If there is no such recipe, it is no TOML, or it breaks a rule; the message names the
        field.
    """
    if name_or_path in shipped_recipes():
        text = (resources.files("common") / "recipes" / f"{name_or_path}.toml").read_text("utf-8")
        return parse_recipe(text, origin=name_or_path)
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"The recipe {path} cannot be read: {error}.",
                action="Check the path and its permissions.",
            ) from error
        return parse_recipe(text, origin=str(path))
    raise RecipeError(
        f"There is no recipe {name_or_path!r}.",
        action=f"Use one of {', '.join(shipped_recipes())}, or the path of a .toml file.",
    )


def parse_recipe(text: str, *, origin: str = "recipe") -> Recipe:
    """Parse a recipe's TOML (or the JSON of `Recipe.model_dump_json`).

    Raises
    ------
    RecipeError
        As for `load_recipe`.
    """
    try:
        if text.lstrip().startswith("{"):
            return Recipe.model_validate_json(text)
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            f"{origin} is not valid TOML: {error}.",
            action="Correct the line that is named; common/recipes has examples.",
        ) from error
    except ValidationError as error:
        raise _as_recipe_error(error, origin) from error
    return _validated(data, origin=origin)


def _validated(data: dict[str, object], *, origin: str) -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise _as_recipe_error(error, origin) from error


def _as_recipe_error(error: ValidationError, origin: str) -> RecipeError:
    faults = "; ".join(
        f"{'.'.join(str(p) for p in e['loc']) or 'recipe'}: {e['msg']}" for e in error.errors()
    )
    return RecipeError(f"{origin} breaks a rule: {faults}.", action="Correct the field and retry.")
