"""What a simulation found, as a document, a table, curves and a page to read."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

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

    ``seconds`` is None while a round is open; ``update_norm`` is the mean over sites.
    """

    number: int
    sites: int
    macro_auroc: float | None
    balanced_accuracy: float | None
    update_norm: float | None
    epsilon: float | None
    seconds: float | None


class Gap(_Document):
    """Pooled minus federated: above 0, the federation lost something."""

    macro_auroc: float | None
    balanced_accuracy: float | None


class SimulationReport(_Document):
    """The whole result of `wardround simulate`; its JSON is ``metrics.json``.

    ``federated`` and ``pooled`` are exact scores over all test images; ``passes`` is what was
    trained over each hospital's data (`trained_passes`), in ``rounds`` of ``planned_rounds``: fewer
    where they stopped early. ``last`` is the model after the last round, scored as the ``curve``'s
    rounds are: by the sites' counts of cases. ``aggregation`` is how updates became one, and
    ``adversaries`` the simulated attacks, as ``SITE=BEHAVIOUR``. ``refused_by_code`` counts the
    rows of the data that no hospital could import. ``own`` are the scores of the
    model with each hospital's own ``local_layers`` at its own patients.
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
    refused_by_code: Mapping[str, int] = {}
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
        federated: Predictions,
        pooled: Predictions | None,
        own: Predictions | None = None,
        private: bool,
        campaign_seconds: float,
        seconds: float,
        adversaries: tuple[str, ...] = (),
        imports: Sequence[ImportSummary] = (),
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
            adversaries=adversaries,
            refused_by_code=_refused(imports),
            rounds=len(trained),
            planned_rounds=recipe.federation.rounds,
            passes=trained_passes(
                recipe, rounds, contributions, sites=len(hospitals), private=private
            ),
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


def write_report(report: SimulationReport, folder: Path) -> None:
    """Write ``metrics.json``, ``metrics.csv`` (a row a round), ``report.md`` and the curves.

    The curves are ``curves.svg`` and ``curves.png``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(RoundReport.model_fields))
        writer.writeheader()
        writer.writerows(line.model_dump() for line in report.curve)
    (folder / "report.md").write_text(as_markdown(report), "utf-8")
    _draw(report, folder)


def as_markdown(report: SimulationReport) -> str:
    """Return the report as a page of Markdown."""
    privacy = (
        f"differential privacy, epsilon {report.epsilon:g}" if report.private else "no privacy"
    )
    attacked = f" ATTACKED by {', '.join(report.adversaries)}." if report.adversaries else ""
    lines = [
        f"# Simulation of {report.recipe}",
        "",
        f"{report.architecture} at {report.image_size} px, {len(report.hospitals)} hospitals, "
        f"{rounds_in_words(report)}, {report.passes:.1f} passes over the data, {privacy}, "
        f"aggregated by {report.aggregation}{_method(report)}.{attacked} "
        f"Rounds took {report.campaign_seconds:.0f} s, all together {report.seconds:.0f} s.",
        *([f"\n{refused_in_words(report)}"] if report.refused_by_code else []),
        "",
        "## All test patients",
        "",
        "| training | images | macro AUROC | balanced accuracy | accuracy |",
        "|---|---|---|---|---|",
        _score_line("federated", report.federated),
    ]
    if report.own is not None:
        lines.append(_score_line("federated, each hospital with its own layers", report.own))
    if report.pooled is not None and report.gap is not None:
        lines.append(_score_line("pooled", report.pooled))
        gap = f"{figure(report.gap.macro_auroc)} | {figure(report.gap.balanced_accuracy)}"
        lines.append(f"| gap (pooled - federated) | | {gap} | |")
    baseline = figure(report.federated.majority_baseline)
    lines += [
        f"| always the most frequent class | {report.federated.count} | 0.500 | "
        f"{1 / len(report.classes):.3f} | {baseline} |",
        "",
        "## Each hospital's test patients",
        "",
        "| hospital | training patients | test images | epsilon | macro AUROC | "
        "balanced accuracy | accuracy | majority |",
        "|---|---|---|---|---|---|---|---|",
        *(_hospital_line(hospital) for hospital in report.hospitals),
        "",
        "![Curves](curves.svg)",
        "",
    ]
    return "\n".join(lines)


def figure(value: float | None, digits: int = 3) -> str:
    """Return a figure as text; a dash where it is undefined."""
    return "–" if value is None else f"{value:.{digits}f}"


def refused_in_words(report: SimulationReport) -> str:
    """Return which rows of the data were refused, by code; empty where none was."""
    codes = ", ".join(f"{count} x {code}" for code, count in report.refused_by_code.items())
    return f"Refused rows of the data: {codes}." if codes else ""


def _refused(imports: Sequence[ImportSummary]) -> dict[str, int]:
    codes: Counter[str] = Counter()
    for summary in imports:
        codes.update(summary.refused_by_code)
    return dict(codes)


def rounds_in_words(report: SimulationReport) -> str:
    """Return how many rounds there were, and whether they ended before their time."""
    if report.planned_rounds is None or report.rounds >= report.planned_rounds:
        return f"{report.rounds} rounds"
    return f"{report.rounds} rounds (stopped early, of {report.planned_rounds})"


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
        sites=len(accepted),
        macro_auroc=found.metrics.macro_auroc if found.metrics is not None else None,
        balanced_accuracy=found.metrics.balanced_accuracy if found.metrics is not None else None,
        update_norm=float(np.mean(norms)) if norms else None,
        epsilon=max(spent) if spent else None,
        seconds=(ended - found.started_at).total_seconds() if ended is not None else None,
    )


def _method(report: SimulationReport) -> str:
    told = [
        f"algorithm {report.algorithm}" if report.algorithm else "",
        f"{report.mode} rounds" if report.mode != "synchronous" else "",
        f"local layers {', '.join(report.local_layers)}" if report.local_layers else "",
    ]
    return "".join(f", {part}" for part in told if part)


def _score_line(name: str, scores: Scores) -> str:
    return (
        f"| {name} | {scores.count} | {figure(scores.macro_auroc)} | "
        f"{figure(scores.balanced_accuracy)} | {figure(scores.accuracy)} |"
    )


def _hospital_line(hospital: HospitalReport) -> str:
    scores = hospital.federated
    return (
        f"| {hospital.name} | {hospital.training_patients} | {scores.count} | "
        f"{figure(hospital.epsilon, 2)} | {figure(scores.macro_auroc)} | "
        f"{figure(scores.balanced_accuracy)} | {figure(scores.accuracy)} | "
        f"{figure(scores.majority_baseline)} |"
    )


def _draw(report: SimulationReport, folder: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots()
    for name, title, colour in (
        ("macro_auroc", "macro AUROC", "tab:blue"),
        ("balanced_accuracy", "balanced accuracy", "tab:orange"),
    ):
        points = [(r.number - 1, getattr(r, name)) for r in report.curve]
        if report.last is not None:
            points.append((report.rounds, getattr(report.last, name)))
        known = [(x, y) for x, y in points if y is not None]
        axes.plot([x for x, _ in known], [y for _, y in known], color=colour, label=title)
        union = getattr(report.pooled, name) if report.pooled is not None else None
        if union is not None:
            axes.axhline(union, color=colour, linestyle="--", label=f"{title}, pooled")
    axes.set(xlabel="rounds", ylabel="on test patients", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    drawing.savefig(folder / "curves.svg")
    drawing.savefig(folder / "curves.png", dpi=120)
