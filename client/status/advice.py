"""What to do about each alarm, in a sentence for whoever is on duty."""

from __future__ import annotations

_ADVICE: dict[str, str] = {
    "coordinator-unreachable": "Answers go on with the model that is here. Check the way out to "
    "the coordinator (network, proxy); tell the coordinator if it is up and this stays.",
    "coordinator-untrusted": "Do not go around this. Ask the coordinator by telephone whether "
    "they have a new CA.",
    "coordinator-slow": "Check the network; it is tried again by itself.",
    "coordinator-error": "Tell the coordinator; it is tried again by itself.",
    "metadata-expired": "Check this machine's clock, then tell the coordinator that the "
    "signatures have run out.",
    "metadata-rollback": "Tell the coordinator at once: older or mixed releases were offered.",
    "metadata-unsigned": "Tell the coordinator at once; install nothing until it is explained.",
    "metadata-refused": "Tell the coordinator.",
    "target-refused": "Tell the coordinator: a file was not the one that was signed.",
    "disk": "Check that the disk has room and works.",
    "disk-full": "Make room on the disk of the site's data: answers go on, nothing is kept.",
    "disk-low": "Make room on the disk of the site's data, or give it a larger one.",
    "database-away": "Bring the database back: answers go on, cases and reviews are not kept.",
    "database-locked": "Find the program that holds the database; answers go on.",
    "database-moved": "Restart the service, so that it opens the file that is there now.",
    "answers-unavailable": "Make room on the disk or bring the database back: until then answers "
    "are missing from outcomes and monitoring.",
    "key-ending": "`wardround site key list` names them: make new ones for their programs, and "
    "remove the old ones.",
    "certificate-expiring": "Ask the coordinator for a new certificate now.",
    "certificate-expired": "Rounds stop without it: ask the coordinator for a new certificate.",
    "certificate-unreadable": "Put the certificate back from the start-up kit.",
    "certificate-not-yet-valid": "Check this machine's clock.",
    "audit-unavailable": "Make room on the disk or bring the database back: answers go on, and "
    "what is missing from the log is counted in it.",
    "audit-damaged": "Run `wardround audit verify`; training stops until it is explained.",
    "release-held": "Look at its figures below and accept or refuse it.",
    "model-mismatch": "The old model goes on. Tell the coordinator which version it was.",
    "release-self-test": "The old model goes on. Tell the coordinator which version it was.",
    "device-memory": "The graphics card is full; it is tried again by itself.",
    "model-stale": "Bring the connection to the coordinator back, or ask it why nothing is "
    "signed any more.",
    "release-refused": "Nothing need be done; accept it below if you know better.",
    "release-rolled-back": "Accept a newer release below when the reason is gone.",
    "release-decisions-damaged": "Decide anew below; check the disk.",
    "performance-low": "Look at the outcomes with a clinician; consider going back to the "
    "release before.",
    "drift-inputs": "Ask whether a scanner, its settings or the patients changed; look at the "
    "outcomes with a clinician.",
    "drift-embeddings": "Ask whether a scanner, its settings or the patients changed.",
    "drift-predictions": "Look at the outcomes with a clinician: the answers are mixed "
    "differently from before.",
    "monitoring-failed": "Read the service's log; answers go on.",
}
_OTHERWISE = "Read the service's log for this code; answers go on with the model that is here."


def advice(code: str) -> str:
    """Return what to do about an alarm, by its code."""
    return _ADVICE.get(code, _OTHERWISE)
