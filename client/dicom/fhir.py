"""A prediction as a FHIR R4 Bundle: DiagnosticReport, RiskAssessment and Device.

Without a patient reference: the service never learns whom an upload shows. Whoever files the
bundle adds ``subject``, which R4 requires of a RiskAssessment; until then it carries the
Data Absent Reason extension (http://hl7.org/fhir/R4/extension-data-absent-reason.html).
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from client.dicom.answer import Answer

SYSTEM = "urn:wardround"
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


def fhir_bundle(answer: Answer, *, site: str, now: datetime | None = None) -> dict[str, Any]:
    """Return the bundle of one answer as a JSON document.

    The report's status is ``preliminary``: no person has read it.

    Parameters
    ----------
    answer : Answer
    site : str
        The site's name.
    now : datetime, optional
        When, with a time zone.
    """
    moment = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    device, risk, report = (f"urn:uuid:{uuid.uuid4()}" for _ in range(3))
    subject = {"extension": [{"url": _ABSENT, "valueCode": "unknown"}]}
    resources = {device: _device(answer, site), risk: _risk(answer, device, moment, subject)}
    resources[report] = {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "identifier": [_identifier("request", answer.request_id)],
        "code": {"text": f"Classification of an image by a model ({answer.task})"},
        "subject": subject,
        "effectiveDateTime": moment,
        "issued": moment,
        "performer": [{"reference": device}],
        "extension": [
            {
                "url": "http://hl7.org/fhir/StructureDefinition/diagnosticReport-risk",
                "valueReference": {"reference": risk},
            }
        ],
        "conclusion": _conclusion(answer),
    }
    entries = [{"fullUrl": url, "resource": resource} for url, resource in resources.items()]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": moment,
        "entry": entries,
    }


def _conclusion(answer: Answer) -> str:
    verdict = f"{answer.verdict.capitalize()} at the threshold {answer.threshold:g}"
    said = f"{verdict}: {answer.positive_probability:.4f}. Not verified by a person."
    return f"{said} {answer.advice}".rstrip()


def _device(answer: Answer, site: str) -> dict[str, Any]:
    return {
        "resourceType": "Device",
        "identifier": [
            _identifier(kind, digest)
            for kind, digest in (
                ("model-digest", answer.model_digest),
                ("head-digest", answer.head_digest),
                ("profile-digest", answer.profile_digest),
            )
            if digest is not None
        ],
        "manufacturer": "Wardround",
        "deviceName": [
            {"name": f"Wardround {answer.task} at {site}", "type": "user-friendly-name"}
        ],
        "version": [
            {"value": str(answer.model_version)},
            *({"type": {"text": "together with"}, "value": str(v)} for v in answer.together_with),
        ],
    }


def _risk(answer: Answer, device: str, moment: str, subject: dict[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "RiskAssessment",
        "status": "preliminary",
        "subject": subject,
        "occurrenceDateTime": moment,
        "performer": {"reference": device},
        "prediction": [
            {"outcome": {"text": name}, "probabilityDecimal": round(probability, 6)}
            for name, probability in answer.shown.items()
        ],
    } | _notes(answer)


def _notes(answer: Answer) -> dict[str, Any]:
    notes = (
        f"Made {answer.company}." if answer.company else "",
        "The probabilities are calibrated at the site; the verdict is of the uncalibrated sum."
        if answer.calibrated_probabilities
        else "",
        f"Disagreement of models, 0 to 1: {answer.uncertainty:.4f}"
        if answer.uncertainty is not None
        else "",
    )
    said = [{"text": text} for text in notes if text]
    return {"note": said} if said else {}


def _identifier(kind: str, value: str) -> dict[str, str]:
    return {"system": f"{SYSTEM}:{kind}", "value": value}
