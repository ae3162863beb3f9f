"""Readers judge cases: who said what, when a case may train, and what to be careful about."""
