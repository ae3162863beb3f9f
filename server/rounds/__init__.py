"""A campaign's rounds: asking the sites, checking, aggregating, going on."""
