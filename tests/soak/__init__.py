"""Campaigns under kill -9 at random moments."""
