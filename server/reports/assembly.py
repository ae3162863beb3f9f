"""A report's sections in their order."""

from __future__ import annotations

from server.reports import card_sections as card
from server.reports import group_sections as groups
from server.reports import performance_sections as performance
from server.reports import provenance_sections as provenance
from server.reports.content import ReleaseReport
from server.reports.document import Document


def document(report: ReleaseReport) -> Document:
    """Return the report as sections, ready to be drawn."""
    sections = (
        card.summary(report),
        card.model_card(report),
        card.data(report),
        performance.performance(report),
        performance.calibration(report),
        performance.threshold(report),
        groups.sites(report),
        groups.subgroups(report),
        provenance.privacy(report),
        provenance.gate(report),
        provenance.lineage(report),
        card.limits(report),
    )
    return Document(
        title=f"{report.recipe.title}: {report.name}",
        subtitle="Model card and report",
        sections=(*sections, provenance.checklists(sections)),
    )
