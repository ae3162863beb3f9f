"""What a simulation found, as a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from client.intake.summary import ImportSummary
from common.recipe import Recipe
from server.registry.records import Contribution, Round
from simulations.scoring import (
    HospitalImages,
    Predictions,
    Scores,
    pooled_score,
    scores_by_hospital,
)
from simulations.trained import LastPoint, last_point, trained_passes, trained_rounds
from simulations.warned import Warned


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HospitalReport(_Document):
    """One hospital: its training data, and how the models do on its test patients.

    ``epsilon`` is the campaign's at this hospital (RDP), None without privacy. ``own`` is the
    federation's model with the layers that stayed here, None where it is shared whole.
    """

    name: str
    training_patients: int
    training_images: int
    training_classes: tuple[int, ...]
    epsilon: float | None
    delta: float | None
    federated: Scores
    own: Scores | None = None
    pooled: Scores | None


class RoundReport(_Document):
    """One training round. Scores are of the model that it began with, as the sites' counts say.

    ``updates`` were taken in, of ``sites`` different hospitals: in a buffered round one may have
    sent several. ``seconds`` is None while a round is open; ``update_norm`` is the mean over
    updates.
    """

    number: int
    sites: int
    updates: int
    macro_auroc: float | None
    balanced_accuracy: float | None
    update_norm: float | None
    epsilon: float | None
    seconds: float | None


class Gap(_Document):
    """Pooled minus federated: above 0, the federation lost something."""

    macro_auroc: float | None
    balanced_accuracy: float | None


class Setup(_Document):
    """What was chosen beside the recipe, so that a run can be told from another and repeated.

    ``sites_by``, ``slow`` (``SITE=SECONDS``) and ``adversaries`` (``SITE=BEHAVIOUR``) are written
    as the command takes them. ``weights`` is the name of the file that it started from,
    ``weights_digest`` that file's SHA-256 (hex); both None where there was none.
    """

    seed: int
    sites_by: str
    weights: str | None = None
    weights_digest: str | None = None
    slow: tuple[str, ...] = ()
    adversaries: tuple[str, ...] = ()


class SimulationReport(_Document):
    """The whole result of `wardround simulate`; its JSON is ``metrics.json``.

    ``federated`` and ``pooled`` are exact scores over all test images; ``passes`` is what both
    were trained over all training images (`trained_passes`), in ``rounds`` of ``planned_rounds``:
    fewer where they stopped early. ``last`` is the model after the last round, scored as the
    ``curve``'s rounds are: by the sites' counts of cases. ``aggregation`` is how updates became
    one, and ``adversaries`` the simulated attacks. ``seed``, ``sites_by``, ``weights``,
    ``weights_digest`` and ``slow`` are as in `Setup`. ``refused_by_code`` counts
    the rows of the data that no hospital could import; ``patient_ids_at_several_sites`` the ids
    that are taken as another patient at each; ``warnings`` are the imports' and the campaign's.
    ``own`` are the scores of the model with each hospital's own ``local_layers`` at its own
    patients.
    """

    recipe: str
    architecture: str
    image_size: int
    classes: tuple[str, ...]
    private: bool
    epsilon: float | None
    aggregation: str
    algorithm: str | None = None
    mode: str = "synchronous"
    local_layers: tuple[str, ...] = ()
    adversaries: tuple[str, ...]
    seed: int
    sites_by: str
    weights: str | None = None
    weights_digest: str | None = None
    slow: tuple[str, ...] = ()
    refused_by_code: Mapping[str, int] = {}
    patient_ids_at_several_sites: int = 0
    warnings: tuple[Warned, ...] = ()
    rounds: int
    planned_rounds: int | None = None
    passes: float
    federated: Scores
    own: Scores | None = None
    pooled: Scores | None
    gap: Gap | None
    hospitals: tuple[HospitalReport, ...]
    curve: tuple[RoundReport, ...]
    last: LastPoint | None = None
    campaign_seconds: float
    seconds: float

    @classmethod
    def build(
        cls,
        recipe: Recipe,
        hospitals: Sequence[HospitalImages],
        rounds: Sequence[Round],
        contributions: Sequence[Contribution],
        *,
        setup: Setup,
        federated: Predictions,
        pooled: Predictions | None,
        own: Predictions | None = None,
        private: bool,
        campaign_seconds: float,
        seconds: float,
        imports: Sequence[ImportSummary] = (),
        shared_patients: int = 0,
        warnings: tuple[Warned, ...] = (),
    ) -> SimulationReport:
        """Put the report together."""
        count = len(recipe.classes)
        trained = trained_rounds(rounds)
        whole = pooled_score(federated, count)
        union = pooled_score(pooled, count) if pooled is not None else None
        return cls(
            recipe=recipe.name,
            architecture=recipe.model.architecture,
            image_size=recipe.image.size,
            classes=recipe.classes,
            private=private,
            epsilon=recipe.privacy.epsilon if private else None,
            aggregation=recipe.federation.aggregation.name,
            algorithm=recipe.federation.algorithm,
            mode=recipe.federation.mode,
            local_layers=recipe.federation.local_layers,
            **setup.model_dump(),
            refused_by_code=_refused(imports),
            patient_ids_at_several_sites=shared_patients,
            warnings=warnings,
            rounds=len(trained),
            planned_rounds=recipe.federation.rounds,
            passes=trained_passes(recipe, rounds, contributions, hospitals, private=private),
            federated=whole,
            own=pooled_score(own, count) if own is not None else None,
            pooled=union,
            gap=_gap(whole, union) if union is not None else None,
            hospitals=_hospitals(recipe, hospitals, contributions, federated, own, pooled),
            curve=tuple(_round(r, contributions) for r in trained),
            last=last_point(recipe, rounds),
            campaign_seconds=round(campaign_seconds, 1),
            seconds=round(seconds, 1),
        )


def _refused(imports: Sequence[ImportSummary]) -> dict[str, int]:
    codes: Counter[str] = Counter()
    for summary in imports:
        codes.update(summary.refused_by_code)
    return dict(codes)


def _gap(federated: Scores, pooled: Scores) -> Gap:
    def minus(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a - b

    return Gap(
        macro_auroc=minus(pooled.macro_auroc, federated.macro_auroc),
        balanced_accuracy=minus(pooled.balanced_accuracy, federated.balanced_accuracy),
    )


def _hospitals(
    recipe: Recipe,
    hospitals: Sequence[HospitalImages],
    contributions: Sequence[Contribution],
    federated: Predictions,
    own: Predictions | None,
    pooled: Predictions | None,
) -> tuple[HospitalReport, ...]:
    count = len(recipe.classes)
    shared = scores_by_hospital(federated, hospitals, count)
    local = scores_by_hospital(own, hospitals, count) if own is not None else {}
    union = scores_by_hospital(pooled, hospitals, count) if pooled is not None else {}
    receipts = {
        c.site: c.receipt for c in contributions if c.receipt is not None and c.receipt.steps
    }
    reports = []
    for hospital in hospitals:
        receipt = receipts.get(hospital.name)
        classes = np.bincount(hospital.training.labels, minlength=count)
        reports.append(
            HospitalReport(
                name=hospital.name,
                training_patients=len(hospital.training.patients),
                training_images=len(hospital.training),
                training_classes=tuple(int(n) for n in classes),
                epsilon=receipt.epsilon_campaign if receipt is not None else None,
                delta=receipt.delta if receipt is not None else None,
                federated=shared[hospital.name],
                own=local.get(hospital.name),
                pooled=union.get(hospital.name),
            )
        )
    return tuple(reports)


def _round(found: Round, contributions: Sequence[Contribution]) -> RoundReport:
    accepted = [c for c in contributions if c.round == found.number and c.outcome == "accepted"]
    norms = [c.update_norm for c in accepted if c.update_norm is not None]
    spent = [
        c.receipt.epsilon_campaign
        for c in accepted
        if c.receipt is not None and c.receipt.epsilon_campaign is not None
    ]
    ended = found.finished_at
    return RoundReport(
        number=found.number,
        sites=len({c.site for c in accepted}),
        updates=len(accepted),
        macro_auroc=found.metrics.macro_auroc if found.metrics is not None else None,
        balanced_accuracy=found.metrics.balanced_accuracy if found.metrics is not None else None,
        update_norm=float(np.mean(norms)) if norms else None,
        epsilon=max(spent) if spent else None,
        seconds=(ended - found.started_at).total_seconds() if ended is not None else None,
    )
