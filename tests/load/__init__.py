"""Load on a site's service: real processes, a real coordinator, Locust's users."""
