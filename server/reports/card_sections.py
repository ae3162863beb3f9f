"""The sections that say what the model is, what it was trained on, and where its limits lie."""

from __future__ import annotations

from common.recipe import LocalTraining, Recipe
from server.evaluation import macro_auroc_lower_bound
from server.release_gate import failures
from server.reports.content import ReleaseReport
from server.reports.document import Paragraph, Part, Section, Table
from server.reports.words import NOTHING, figure, listed, moment, short


def summary(report: ReleaseReport) -> Section:
    """Say in a few lines what was made, how well it does, and whether the gate let it pass."""
    found = report.draft.metrics.candidate
    failed = failures(report.draft.gate)
    verdict = (
        f"All {len(report.draft.gate)} checks of the release gate passed."
        if not failed
        else f"The release gate refused it: {listed(failed)}."
    )
    bound = None if report.evaluation is None else macro_auroc_lower_bound(report.evaluation)
    rows = (
        ("Task", report.recipe.title),
        ("State", report.state),
        ("Published", moment(report.published_at)),
        ("Campaign", report.draft.lineage.campaign),
        ("Sites taken in", listed(tuple(p.site for p in report.draft.lineage.sites))),
        ("Holdout cases", str(found.count)),
        ("Macro AUROC", f"{figure(found.macro_auroc)} (95 % lower bound {figure(bound)})"),
        ("Accuracy", figure(found.accuracy)),
        ("Always the most frequent class", f"accuracy {figure(found.majority_baseline)}"),
        ("Privacy", _privacy_line(report)),
    )
    table = Table("At a glance", ("", ""), rows, numeric=False, widths=(0.32, 0.68))
    return Section("summary", "Summary", (table, Paragraph(verdict, notable=bool(failed))))


def _privacy_line(report: ReleaseReport) -> str:
    spent = [
        part.receipt.epsilon_campaign
        for part in report.sites
        if part.receipt is not None and part.receipt.epsilon_campaign is not None
    ]
    if not report.campaign.private or not spent:
        return "a study without differential privacy"
    return f"patient level, epsilon at most {figure(max(spent), 2)} at any site for this campaign"


def model_card(report: ReleaseReport) -> Section:
    """Describe the model (after Mitchell et al. 2019, doi:10.1145/3287560.3287596)."""
    recipe = report.recipe
    positive = listed(recipe.decision.positive_classes)
    use = Paragraph(
        f"Intended use: to support a clinician in reading one kind of image ({recipe.images}), by "
        f"giving the probability of each class and whether {positive} together reach the operating "
        "threshold. It is no diagnosis by itself, is not meant for patients, and is not meant "
        "for images of another kind or from another part of the body."
    )
    spec = recipe.image
    rows = (
        ("Task", f"{recipe.title} ({recipe.name})"),
        ("Classes", listed(recipe.classes)),
        ("Positive classes", positive),
        ("Output", "a probability for each class, and a verdict at the threshold"),
        ("Network", f"{recipe.model.architecture} (timm), one network, no ensemble"),
        ("Image", f"{spec.size} x {spec.size} pixels, RGB, {_region(spec.region)}"),
        ("Normalisation layers", recipe.model.normalisation),
        ("Trained parameters", _scope(report)),
        ("Loss", _loss(recipe)),
        ("Local training", _local(report.campaign.training)),
        ("Aggregation", _aggregation(report)),
        ("Recipe's source", recipe.source or NOTHING),
        ("Made", moment(report.draft.created_at)),
        ("Software", "Wardround on Flower, PyTorch, timm and Opacus"),
    )
    table = Table("The model", ("", ""), rows, numeric=False, widths=(0.28, 0.72))
    return Section("card", "Model card", (use, table))


def _region(region: str) -> str:
    return "whole picture" if region == "full" else "cropped to the tissue"


def _scope(report: ReleaseReport) -> str:
    words = {"all": "all", "bias": "norms, biases and head", "head": "the head alone"}
    phases = report.campaign.settings.phases
    moving = ", ".join(f"{words[p.scope]} from round {p.first_round}" for p in phases)
    local = report.recipe.federation.local_layers
    return f"{moving}; {' and '.join(local)} at each site alone" if local else moving


def _loss(recipe: Recipe) -> str:
    name = recipe.loss.name.replace("_", " ")
    weights = " with public class weights" if recipe.loss.class_weights else ""
    return name + weights


def _local(training: LocalTraining) -> str:
    steps = f"{training.local_steps} step" + ("s" if training.local_steps != 1 else "")
    return (
        f"{training.optimizer}, rate {short(training.learning_rate)}, {steps} a round, each "
        f"patient in a step with probability {short(training.sampling_rate)}"
    )


def _aggregation(report: ReleaseReport) -> str:
    spec, optimizer = report.campaign.aggregation, report.campaign.server_optimizer
    bound = (
        f", norms at most {short(spec.norm_multiple)} x the median" if spec.norm_multiple else ""
    )
    return f"{spec.name}{bound}; server optimizer {optimizer.name}"


def data(report: ReleaseReport) -> Section:
    """Say as much of the data as the sites' policies let out."""
    told = [p for p in report.sites if p.rounds]
    rows = tuple(
        (
            part.site,
            str(part.rounds),
            str(part.receipt.public_patients) if part.receipt else NOTHING,
        )
        for part in told
    )
    headings = ("site", "rounds taken in", "declared training patients")
    words = [
        f"Training: cases that clinicians of {len(told)} sites confirmed, at those sites; no image "
        "and no label left them. What a site declares as its number of patients is a public "
        "figure that it chose; the true count is not known to the coordinator.",
        "Evaluation: patients that each site's own service set aside when their label was "
        "confirmed, for ever and by patient, never by image: no patient is in both parts. The "
        f"holdout counts of this report are over {report.draft.metrics.candidate.count} cases. "
        "They come from the same sites as the training data; there was no external test.",
        "Images are stripped of identifiers when they enter a site, and prepared alike at "
        f"training, evaluation and use: {report.recipe.image.size} pixels, "
        f"{_region(report.recipe.image.region)}, fixed public normalisation.",
    ]
    if report.suppressed is not None:
        words.append(
            f"{report.suppressed} did not leave them: smaller classes are left out there, small "
            "cells of the confusion matrix are pooled, and scores are joined into ranges."
        )
    parts: list[Part] = [Paragraph(text) for text in words]
    parts.append(Table("Training, by site", headings, rows))
    return Section("data", "Training and evaluation data", tuple(parts))


def limits(report: ReleaseReport) -> Section:
    """Say what does not follow from this report."""
    words = [
        "Holdout counts (all scores, curves and tables of performance) are not noised: they lie "
        "outside the differential privacy guarantee, and each site's policy decides whether they "
        "leave it at all.",
        "Epsilons are upper bounds as each site's own ledger states them; the coordinator cannot "
        "check them against the patients. They hold for the unit that the receipts name.",
        "Labels are what clinicians confirmed at each site. Wardround does not know how they came "
        "to them, nor how far two readers would agree.",
        "Performance is that of the sites that took part. Another hospital, scanner or population "
        "may do worse; nothing here is an external validation or a clinical trial.",
        "An image that cannot be decoded, or is too large or too small, is refused at use. An "
        "image of something else is not recognised as such.",
        "Data stay at the hospitals and are not shared. The weights and this report's figures are "
        "in the coordinator's signed release repository.",
    ]
    if not report.campaign.private:
        words.insert(0, "This model was trained WITHOUT differential privacy: its weights give no "
                        "guarantee to any patient.")  # fmt: skip
    return Section("limits", "Limits, and what lies outside the guarantee",
                   tuple(Paragraph(text) for text in words))  # fmt: skip
