"""The model card and report of a release, out of the registry alone, as HTML and as PDF."""
