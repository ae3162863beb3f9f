"""The site's own executor of Flower messages: warm, forking, and deaf to pushed code.

A stock SuperNode starts a new ``flwr-clientapp`` for every message, which unpacks the bundle
that the coordinator pushed, imports it and runs it. Here a process that hospital IT installed
takes that place: it imported the site's own `client.app` once, forks a fresh child for every
message and never looks into the bundle. See ``docs/adr/`` for why.
"""
