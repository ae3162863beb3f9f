"""How the service comes by the model that answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from client.composition.basis import Basis
from client.forking import ANSWERS
from client.inference.engine import InferenceEngine
from client.inference.graphs import GraphStore
from client.inference.quickening import Quickener
from client.personalisation.head import PersonalHeads
from client.personalisation.serving import load_personalised, load_plain, outdated
from client.releases.files import LocalRelease
from client.releases.putting_together import ReleaseParts, make_release_parts
from client.releases.watcher import Releases
from common.release import ReleaseManifest


@dataclass(frozen=True)
class Models:
    """What decides which model answers, and what makes it quick."""

    releases: ReleaseParts
    quickener: Quickener


def make_models(basis: Basis, releases: Releases | None) -> Models:
    """Put together what loads releases, with the site's own head where it has one.

    Parameters
    ----------
    basis : Basis
    releases : Releases or None
        Where models come from; None is the site's release cache.
    """
    settings, asking = basis.settings, basis.asking
    heads = PersonalHeads(settings)
    quick = asking.on_cpu and settings.inference.runtime == "auto"
    load = partial(load_personalised, heads=heads, device=asking.device)
    quickener = Quickener(load, GraphStore(settings.graphs))

    def load_member(release: LocalRelease) -> InferenceEngine:
        member = load_plain(release, device=asking.device)
        return quickener.hasten(member) if quick else member

    def on_served(manifest: ReleaseManifest) -> None:
        ANSWERS.give()  # to the parent of this process, where it has one
        heads.keep_only(manifest.model_digest)
        basis.audit.release(manifest)

    parts = make_release_parts(
        *(settings, basis.store, basis.holder),
        releases=releases,
        load=quickener.load if quick else load,
        load_member=load_member,
        outdated=partial(outdated, heads=heads),
        busy=lambda: asking.admission.admitted > 0,
        on_served=on_served,
        on_decision=basis.audit.decision,
    )
    return Models(parts, quickener)
