"""Silence where `transformers` would print."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(bars: bool) -> Iterator[None]:
    """Keep transformers from printing: what is wrong we refuse ourselves, in one line.

    Args:
        bars: leave its progress bars on, for downloads; local weights load at once.
    """
    from transformers.utils import logging

    verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
