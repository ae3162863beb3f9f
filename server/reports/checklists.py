"""Which section of a report answers which item of TRIPOD+AI and of CLAIM.

TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378 (27 items, 52 with their parts). CLAIM 2024
update: Tejani et al. 2024, Radiology: Artificial Intelligence 6(4):e240300 (44 items). Items are
named in short words of our own; the statements themselves say what they ask. Numbers and order
were compared item by item with copies of the checklist of TRIPOD+AI (version of 11 January 2024)
and of the form of CLAIM 2024, not with the articles' own tables. An item counts as answered where
a section speaks of all that it asks, in part where a section that it needs only says that the
release lacks its figures; what a coordinator cannot know is left to the investigators.
"""

from __future__ import annotations

from dataclasses import dataclass

OPEN = "not answered by Wardround: for the investigators"
LACKING = "not answered for this release: see "
PARTLY = "in part: "


@dataclass(frozen=True)
class Item:
    """One item: its number, what it asks in short, and the anchors of sections that answer it."""

    number: str
    asks: str
    anchors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checklist:
    """A reporting guideline."""

    name: str
    source: str
    items: tuple[Item, ...]


def _items(*lines: tuple[str, str, str]) -> tuple[Item, ...]:
    return tuple(Item(number, asks, tuple(anchors.split())) for number, asks, anchors in lines)


TRIPOD_AI = Checklist(
    "TRIPOD+AI (2024)",
    "Collins et al. 2024, BMJ 385:e078378",
    _items(
        ("1", "Title: development or evaluation, population, outcome", "card"),
        ("2", "Abstract", "summary"),
        ("3a", "Health care context and rationale", ""),
        ("3b", "Target population, purpose, users", "card"),
        ("3c", "Known health inequalities between groups", ""),
        ("4", "Objectives", ""),
        ("5a", "Sources of data, why these, how representative", ""),
        ("5b", "Dates of the data", ""),
        ("6a", "Setting: number and place of centres", "data"),
        ("6b", "Eligibility", ""),
        ("6c", "Treatments received, and how handled", ""),
        ("7", "Data preparation and quality checks", "data"),
        ("8a", "Outcome: definition, time horizon, assessment", ""),
        ("8b", "Outcome assessors", ""),
        ("8c", "Blinding of the outcome", ""),
        ("9a", "Choice of predictors", "card"),
        ("9b", "Definition of predictors, how and when measured", ""),
        ("9c", "Predictor assessors", ""),
        ("10", "Sample size", ""),
        ("11", "Missing data", ""),
        ("12a", "How data were used and partitioned", "data"),
        ("12b", "Handling of predictors", "data"),
        ("12c", "Type of model, building, internal validation", "card lineage"),
        ("12d", "Heterogeneity between clusters", "sites"),
        ("12e", "Measures and plots of performance", "performance calibration"),
        ("12f", "Updating that arose from the evaluation", "threshold"),
        ("12g", "How predictions are calculated", "card threshold"),
        ("13", "Class imbalance", "card"),
        ("14", "Fairness: approaches, and why", "subgroups gate"),
        ("15", "Output, classification, thresholds", "threshold"),
        ("16", "Differences between training and evaluation data", "data"),
        ("17", "Ethical approval and consent", ""),
        ("18a", "Funding", ""),
        ("18b", "Conflicts of interest", ""),
        ("18c", "Where the study protocol is", ""),
        ("18d", "Registration", ""),
        ("18e", "Sharing of data", "limits"),
        ("18f", "Sharing of code", ""),
        ("19", "Patient and public involvement", ""),
        ("20a", "Flow of participants", ""),
        ("20b", "Characteristics of participants", ""),
        ("20c", "Distributions compared with the development data", ""),
        ("21", "Participants and outcomes in each analysis", "data performance"),
        ("22", "The full model, and how to have it", "lineage"),
        ("23a", "Performance with intervals and subgroups", "performance subgroups"),
        ("23b", "Heterogeneity of performance between clusters", "sites"),
        ("24", "Results of model updating", "lineage gate"),
        ("25", "Interpretation", ""),
        ("26", "Limitations", "limits"),
        ("27a", "Poor or absent input at use", "limits"),
        ("27b", "Interaction and expertise needed at use", "card"),
        ("27c", "Next steps of research", ""),
    ),
)

CLAIM = Checklist(
    "CLAIM (2024 update)",
    "Tejani et al. 2024, Radiology: Artificial Intelligence 6(4):e240300",
    _items(
        ("1", "Named as a study of AI, with the category of technology", "card"),
        ("2", "Abstract", "summary"),
        ("3", "Background, intended use and role", ""),
        ("4", "Aims and hypotheses", ""),
        ("5", "Prospective or retrospective", ""),
        ("6", "Goal of the study", ""),
        ("7", "Data sources", "data"),
        ("8", "Inclusion and exclusion", ""),
        ("9", "Data preprocessing", "data"),
        ("10", "Selection of data subsets", ""),
        ("11", "De-identification", "data"),
        ("12", "Missing data", ""),
        ("13", "Image acquisition protocol", ""),
        ("14", "How the reference standard was obtained", ""),
        ("15", "Why that reference standard", ""),
        ("16", "Source of the reference standard's annotations", "data"),
        ("17", "Annotation of the test set", ""),
        ("18", "Variability between and within raters", ""),
        ("19", "How data were assigned to partitions", "data"),
        ("20", "Level at which partitions are disjoint", "data"),
        ("21", "Intended sample size", ""),
        ("22", "Description of the model", "card"),
        ("23", "Software", "card"),
        ("24", "Initial parameters", "lineage"),
        ("25", "Training", "card privacy"),
        ("26", "How the final model was selected", "lineage gate"),
        ("27", "Ensembles", "card"),
        ("28", "Metrics of performance", "performance"),
        ("29", "Measures of significance and uncertainty", "performance"),
        ("30", "Robustness or sensitivity analysis", ""),
        ("31", "Explainability or interpretability", ""),
        ("32", "Evaluation on internal data", "performance"),
        ("33", "Testing on external data", ""),
        ("34", "Registration of a trial", ""),
        ("35", "Patients included and excluded", ""),
        ("36", "Characteristics of each partition's cases", ""),
        ("37", "Performance metrics and their uncertainty", "performance"),
        ("38", "Diagnostic performance and its precision", "performance threshold"),
        ("39", "Failure analysis of incorrect results", ""),
        ("40", "Limitations", "limits"),
        ("41", "Implications for practice, intended use, role", ""),
        ("42", "Reference to the protocol or further technical detail", "lineage"),
        ("43", "Availability of software, model and data", "lineage limits"),
        ("44", "Funding and other support, role of funders", ""),
    ),
)
CHECKLISTS = (TRIPOD_AI, CLAIM)


def answer(item: Item, titles: dict[str, str], lacking: frozenset[str]) -> str:
    """Say where an item is answered.

    Parameters
    ----------
    item : Item
        Of a checklist.
    titles : dict of str to str
        Title by anchor, of every section of the report.
    lacking : frozenset of str
        Anchors of sections that only say that the release lacks what they are about.
    """
    if not item.anchors:
        return OPEN
    told = "; ".join(titles[anchor] for anchor in item.anchors if anchor not in lacking)
    missing = "; ".join(titles[anchor] for anchor in item.anchors if anchor in lacking)
    if not missing:
        return told
    return f"{PARTLY}{told}; {LACKING}{missing}" if told else LACKING + missing
