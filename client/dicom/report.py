"""A prediction as a DICOM structured report: TID 1500, Comprehensive 3D SR, UNVERIFIED."""

from __future__ import annotations

import io
from collections.abc import Iterator

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from pydicom import Dataset, dcmwrite
from pydicom.sr.codedict import codes

from client.dicom.answer import Answer
from client.dicom.filing import MANUFACTURER, SCHEME, derived_uid, evidence, in_silence
from client.dicom.picture import DicomContext

_SERIES_NUMBER = 9001


@in_silence()
def write_report(answer: Answer, context: DicomContext, *, site: str) -> bytes:
    """Write a report of one answer on one image, as a Part 10 file with a preamble.

    Its SOP Instance UID follows from the image and from what answered (`Answer.source`): a report
    that is sent again after a crash is the same instance, and a PACS keeps one; an answer of
    another model, head, profile or threshold is another. It is filed in the image's study, under
    the patient as the image names them, and marked UNVERIFIED and PARTIAL: no person has read it.

    Parameters
    ----------
    answer : Answer
    context : DicomContext
        The image's.
    site : str
        The site's name; the reporting device's UID follows from it.
    """
    image = evidence(context)
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(answer, site)),
        procedure_reported=_code("INFERENCE", "Classification of an image by a model"),
        imaging_measurements=[_group(answer, image)],
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=[image],
    )
    source = (image.SOPInstanceUID, *answer.source)
    report = Comprehensive3DSR(
        evidence=[image],
        content=content,
        series_instance_uid=derived_uid("series", *source),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=derived_uid("report", *source),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=False,
        is_final=False,
        is_verified=False,
        manufacturer_model_name=f"Wardround {answer.task}"[:64],
        software_versions=answer.software[:64],
        device_serial_number=answer.model_digest[:64],
        series_description="Model result, not verified",
    )
    report.preamble = bytes(128)  # without it Orthanc gives back a file that cannot be read
    target = io.BytesIO()
    dcmwrite(target, report, enforce_file_format=True)
    return target.getvalue()


def _observer(answer: Answer, site: str) -> ObserverContext:
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", site),
            name=f"Wardround at {site}",
            manufacturer_name=MANUFACTURER,
            model_name=f"Wardround {answer.task}",
            serial_number=answer.model_digest,
        ),
    )


def _group(answer: Answer, image: Dataset) -> MeasurementsAndQualitativeEvaluations:
    measurements = [*_probabilities(answer)]
    positive = ", ".join(answer.positive_classes)
    own = ", uncalibrated" if answer.calibrated_probabilities else ""
    total = f"Sum{own} over {positive}"
    measurements.append(_measurement("P-POSITIVE", total, answer.positive_probability))
    measurements.append(_measurement("THRESHOLD", "Decision threshold", answer.threshold))
    if answer.uncertainty is not None:
        measurements.append(_measurement("UNCERTAINTY", "Model disagreement", answer.uncertainty))
    verdict = _code(answer.verdict.upper(), f"{answer.verdict.capitalize()} at the threshold")
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derived_uid("tracking", image.SOPInstanceUID, *answer.source),
            identifier=f"request {answer.request_id}",
        ),
        algorithm_id=AlgorithmIdentification(
            name=f"Wardround {answer.task}",
            version=_version(answer),
            parameters=_parameters(answer),
        ),
        measurements=measurements,
        qualitative_evaluations=[
            QualitativeEvaluation(_code("VERDICT", "Threshold verdict, not verified"), verdict),
            *(_referral(reason) for reason in answer.refer_reasons),
            *(_warning(note.code) for note in answer.warnings),
        ],
        source_images=[SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)],
    )


def _probabilities(answer: Answer) -> Iterator[Measurement]:
    """Name them as what they are: calibrated ones have a code of their own."""
    calibrated = answer.calibrated_probabilities is not None
    kind, words = ("C", "Calibrated probability of") if calibrated else ("P", "Probability of")
    for name, probability in answer.shown.items():
        yield _measurement(f"{kind}:{name}", f"{words} {name}", probability)


def _version(answer: Answer) -> str:
    others = ", ".join(str(version) for version in answer.together_with)
    said = (
        f"{answer.model_version} sha256:{answer.model_digest}",
        f"the site's own head sha256:{answer.head_digest}" if answer.head_digest else "",
        f"mean with versions {others}" if others else "",
    )
    return "; ".join(text for text in said if text)


def _parameters(answer: Answer) -> list[str]:
    said = (
        f"threshold {answer.threshold:.6g} of the {answer.threshold_source}",
        f"profile of the site sha256:{answer.profile_digest}" if answer.profile_digest else "",
        "probabilities calibrated at the site; the verdict is of the uncalibrated sum"
        if answer.calibrated_probabilities
        else "",
    )
    return [text for text in said if text]


def _referral(reason: str) -> QualitativeEvaluation:
    value = _code(reason.upper(), f"Refer: {reason}")
    return QualitativeEvaluation(_code("REFERRAL", "Why a person should decide"), value)


def _warning(code: str) -> QualitativeEvaluation:
    value = _code(code.upper(), f"Warning: {code}")
    return QualitativeEvaluation(_code("IMAGE-WARNING", "Warning about the image"), value)


def _measurement(value: str, meaning: str, number: float) -> Measurement:
    return Measurement(name=_code(value, meaning), value=round(number, 6), unit=codes.UCUM.NoUnits)


def _code(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value[:16], SCHEME, meaning[:64])
