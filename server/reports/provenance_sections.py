"""The sections that say what it cost in privacy, how it was judged, and where it comes from."""

from __future__ import annotations

from common.records import Receipt
from common.release import GateCheck
from server.outcome_reasons import OUTCOME_REASONS
from server.registry.records import Round
from server.reports.checklists import CHECKLISTS, answer
from server.reports.content import ReleaseReport, SitePart
from server.reports.document import LineChart, Paragraph, Part, Section, Series, Table
from server.reports.words import count_or_figure, figure, moment, short


def privacy(report: ReleaseReport) -> Section:
    """Show every site's receipt."""
    told = [part for part in report.sites if part.receipt is not None]
    if not told:
        words = "No site left a receipt for this model, so that nothing is known of its privacy."
        return Section("privacy", "Privacy receipts", (Paragraph(words, notable=True),), False)
    asked = report.campaign.settings.epsilon
    intro = (
        "This was a study without differential privacy; no epsilon holds for it."
        if asked is None
        else f"The campaign asked each site to spend at most epsilon {short(asked)}. Each site's "
        "ledger reserved its part before it trained. Epsilons are upper bounds by Renyi "
        "accounting at the site's own delta; neighbouring data sets differ in one whole patient."
    )
    if any(part.receipt is not None and part.receipt.life_unbounded for part in told):
        intro += (
            " A site whose life is unbounded once trained without privacy: the epsilon bounds what "
            "this campaign tells of its patients, and nothing bounds what all that it ever did "
            "tells."
        )
    spent = Table(
        "What it cost, by each site's last receipt",
        ("site", "unit", "epsilon (campaign)", "epsilon (site's life)", "delta"),
        tuple(_spent(part.site, part.receipt) for part in told if part.receipt),
        widths=(0.3, 0.13, 0.21, 0.22, 0.14),
    )
    how = Table(
        "How it was trained",
        ("site", "rounds", "steps", "sampling rate", "clip", "noise multiplier"),
        tuple(_how(part, part.receipt) for part in told if part.receipt),
        widths=(0.3, 0.11, 0.11, 0.17, 0.1, 0.21),
    )
    return Section("privacy", "Privacy receipts", (Paragraph(intro), spent, how))


def _spent(site: str, receipt: Receipt) -> tuple[str, ...]:
    life = "unbounded" if receipt.life_unbounded else figure(receipt.epsilon_life, 2)
    total = (figure(receipt.epsilon_campaign, 2), life)
    return (site, receipt.privacy_unit, *total, short(receipt.delta))


def _how(part: SitePart, receipt: Receipt) -> tuple[str, ...]:
    counts = (str(part.rounds), str(part.steps), short(receipt.sampling_rate))
    clip = short(receipt.max_grad_norm)
    return (part.site, *counts, clip, figure(receipt.noise_multiplier))


def gate(report: ReleaseReport) -> Section:
    """Show each check with its figure, its limit and its verdict."""
    checks = report.draft.gate
    if not checks:
        words = "No verdicts of a release gate are recorded for this model."
        return Section("gate", "Release gate", (Paragraph(words, notable=True),), answers=False)
    intro = (
        "Limits stand in the recipe and the campaign's settings, which were fixed before training. "
        "A check without its figure fails, unless they name it as not required or set no limit."
    )
    rows = tuple(
        (check.name, count_or_figure(check.figure), count_or_figure(check.limit),
         _verdict(check), check.explanation)
        for check in checks
    )  # fmt: skip
    table = Table(
        "Verdicts",
        ("check", "figure", "limit", "verdict", "what it is"),
        rows,
        numeric=False,
        widths=(0.26, 0.1, 0.1, 0.11, 0.43),
    )
    return Section("gate", "Release gate", (Paragraph(intro), table))


def _verdict(check: GateCheck) -> str:
    if check.verdict in ("passed", "failed"):
        return "passed" if check.passed else "FAILED"
    return f"{check.verdict} ({'not required' if check.passed else 'FAILED'})"


def lineage(report: ReleaseReport) -> Section:
    """Show campaign, rounds, base release and digests."""
    campaign, draft = report.campaign, report.draft
    base = "none: from the recipe's first weights"
    if draft.lineage.base_release is not None:
        base = f"release v{draft.lineage.base_release}"
    rows = (
        ("Campaign", campaign.id),
        ("Created, started", f"{moment(campaign.created_at)}, {moment(campaign.started_at)}"),
        ("Finished", moment(campaign.finished_at)),
        ("Training rounds", str(draft.lineage.rounds)),
        ("Base", base),
        ("First weights (tensors)", campaign.initial_digest),
        ("Model (tensors)", draft.model_digest),
        ("Model file (SHA-256)", report.file_sha256 or "not published"),
        ("Recipe", draft.recipe.digest),
        ("Protocol (SHA-256)", draft.protocol or "none: the recipe's limits hold"),
    )
    table = Table("Where it comes from", ("", ""), rows, numeric=False, widths=(0.28, 0.72))
    parts: list[Part] = [table, *_rounds(report), *_left_out(report)]
    return Section("lineage", "Lineage", tuple(parts))


def _rounds(report: ReleaseReport) -> list[Part]:
    scored = [r for r in report.rounds if r.metrics is not None and r.metrics.count]
    if len(scored) < 2:
        return []
    series = (
        Series("macro AUROC", _over(scored, "macro_auroc"), markers=True),
        Series("balanced accuracy", _over(scored, "balanced_accuracy"), markers=True),
    )
    first, last = scored[0].number, scored[-1].number
    return [
        LineChart(
            "Over the rounds: the model that each round began with", "round", "score",
            series, x_range=(float(first), float(max(last, first + 1))), whole_x=True,
        )
    ]  # fmt: skip


def _over(rounds: list[Round], name: str) -> tuple[tuple[float, float], ...]:
    found = ((r.number, getattr(r.metrics, name)) for r in rounds)
    return tuple((float(number), value) for number, value in found if value is not None)


def _left_out(report: ReleaseReport) -> list[Part]:
    rows = tuple(
        (part.site, code, str(times), OUTCOME_REASONS.get(code, ""))
        for part in report.sites
        for code, times in part.left_out
    )
    if not rows:
        return [Paragraph("No site was left out of any round that it was asked for.")]
    headings = ("site", "reason", "times", "meaning")
    caption = "Requests to sites that brought nothing, by reason"
    return [Table(caption, headings, rows, numeric=False, widths=(0.24, 0.22, 0.08, 0.46))]


def checklists(sections: tuple[Section, ...]) -> Section:
    """Map the items of the reporting guidelines to the sections that answer them."""
    titles = {section.anchor: section.title for section in sections}
    lacking = frozenset(section.anchor for section in sections if not section.answers)
    parts: list[Part] = [
        Paragraph(
            "Which section answers which item. Wardround answers for what a coordinator can know; "
            "items about patients, readers, ethics and funding are the investigators' to answer."
        )
    ]
    for checklist in CHECKLISTS:
        rows = tuple((i.number, i.asks, answer(i, titles, lacking)) for i in checklist.items)
        caption = f"{checklist.name}: {checklist.source}"
        headings = ("item", "asks for", "answered in")
        parts.append(Table(caption, headings, rows, numeric=False, widths=(0.07, 0.43, 0.5)))
    return Section("checklists", "TRIPOD+AI and CLAIM", tuple(parts))
