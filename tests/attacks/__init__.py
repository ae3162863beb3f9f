"""The attack suite: every guarantee is attacked, with its defence and without it.

`make attacks` prints the table; ``test_attacks.py`` proves that each attack works where exactly
the defence that it names is switched off, so that no row can be green for nothing.
"""
