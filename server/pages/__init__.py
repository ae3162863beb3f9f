"""The coordinator's page: templates, one style sheet, small ES modules, charts drawn as SVG."""
