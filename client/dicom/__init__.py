"""DICOM: decoding files apart from the service, receiving them from a PACS, reports back to it."""
