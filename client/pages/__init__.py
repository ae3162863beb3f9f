"""The clinician's page: one template, one style sheet, small ES modules, nothing from elsewhere."""
