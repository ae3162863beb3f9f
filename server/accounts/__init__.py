"""Who may use the coordinator's page and interface, and as what."""
