"""The coordinator service's HTTP edge: releases, health, campaigns, metrics."""
