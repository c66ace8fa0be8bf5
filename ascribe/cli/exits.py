"""Exit codes of the ``ascribe`` command."""

OTHER, WRONG_INPUT, FAILED, CANCELLED, TIMEOUT = 1, 2, 3, 4, 5
