"""What transformers and peft say that is no news to whoever runs a demo."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide three messages that are no news here: the report that the checkpoint has no classifier (we train one), the
    bar of a load that takes a tenth of a second, and what peft calls in transformers under its old name.
    """
    verbosity, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # no annotations
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # no annotations
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
            )
            yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # no annotations
