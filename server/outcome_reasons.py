"""What each code of a request's outcome means, in words for whoever runs the federation."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from common.refusals import SITE_REFUSALS

TRAINING_LOST = "training-lost"
"""Of a site that refuses a round as answered before, though no answer to it ever came."""

PLAN_LATE = "plan-late"
"""Of a site that refuses a plan as expired, and is right by the coordinator's own clock."""

ROUND_LOST = "round-lost"
"""Of a round that ended without a step for that, and of the updates that it had got."""

_SILENT = {
    "not-connected": "The site was not connected.",
    "awaited": "The site is registered, and not connected yet.",
    "asked": "The site was asked, and has not answered yet.",
    "not-delivered": "The SuperLink no longer knew the site when it was to be asked.",
    "deadline": "The site had not answered when its time was up.",
    "late": "The site had not answered when its time was up.",
    "absent": "The site was not connected.",
    "campaign-over": "The site was still at work when the campaign's rounds were over.",
    "site-rounds-used-up": "The site has trained as often as its privacy was budgeted for.",
}
_FAILED = {
    "site-app-not-loaded": "The site's software could not be started: its log says why.",
    "site-app-failed": "The site's software failed at this request: its log says why.",
    "site-app-crashed": "The site's runner was killed or crashed while it worked on this.",
    "reply-lost": "The site's answer was lost on the way; it is asked to send it again.",
    "site-unreachable": "The site's node was gone when it was to be asked.",
    PLAN_LATE: "The site came to the request after its plan's end, having been busy or away; it is "
    "asked again.",
    "site-failed": "Flower reports that the site failed, and not how.",
    TRAINING_LOST: "The site began to train this round and was cut off, so no update came. The "
    "round's privacy is spent there, and it does not train it again; it joins the next one.",
    ROUND_LOST: "Sites were cut off while they trained, and without them there was no quorum. The "
    "round is over without a step, its updates were not used, and the next one starts from the "
    "same model.",
    "answer-dropped": "What the site had sent was removed when the campaign failed; it is asked "
    "to send it again.",
    "step-not-taken": "No step was made of the update: the sites' rounds were used up.",
}
_REJECTED = {
    "reply-node": "Another node answered in the site's place.",
    "site-revoked": "The site was revoked after it was asked; what it sent was not used.",
    "reply-site": "The site answered under another's name.",
    "reply-binding": "The answer was to another request.",
    "reply-malformed": "The answer broke the wire format: are both ends of one version?",
    "reply-receipt": "The receipt is incomplete, or contradicts the plan.",
    "reply-evaluation": "The holdout counts contradict each other or the recipe.",
    "update-missing": "The answer held no update.",
    "update-binding": "The update was to another request.",
    "update-names": "The update has other tensors than were asked for.",
    "update-compression": "The update's compressed form breaks a rule.",
    "update-norm": "The update is larger than training could have made it.",
    "update-stale": "The update was trained on a model that is too many steps old, or on one "
    "from before more parameters began to move.",
}

OUTCOME_REASONS: Mapping[str, str] = MappingProxyType(
    dict(SITE_REFUSALS) | _SILENT | _FAILED | _REJECTED
)
"""A site's own codes (`common.refusals`) and the coordinator's."""
