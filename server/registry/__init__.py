"""Campaigns, rounds, candidates and releases, kept in SQL."""
