"""What both sides of a federation share: recipes, images, models, updates, plans, releases.

`common` knows neither `client` nor `server`; ``tests/test_boundaries.py`` keeps it so.
"""
