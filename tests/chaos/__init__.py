"""The chaos suite: real processes are killed, frozen and cut off, and every accepted job is accounted for.

python -m tests.chaos runs the long forms (see __main__.py); pytest runs the short ones.
"""
