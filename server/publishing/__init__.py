"""Releases as a signed TUF repository."""
