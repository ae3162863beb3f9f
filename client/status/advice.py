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
    "disk-full": "Make room on the disk of the site's data.",
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
    "release-stale": "Bring the connection to the coordinator back.",
}
_OTHERWISE = "Read the service's log for this code; answers go on with the model that is here."


def advice(code: str) -> str:
    """Return what to do about an alarm, by its code."""
    return _ADVICE.get(code, _OTHERWISE)
