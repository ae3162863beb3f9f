"""Who may use a site's service, and as what."""
