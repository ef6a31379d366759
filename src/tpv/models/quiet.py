"""Silence where `transformers` would print."""

import logging as standard
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(bars: bool) -> Iterator[None]:
    """Keep transformers and accelerate from printing: what is wrong we refuse ourselves, in one line.

    Args:
        bars: leave its progress bars on, for downloads; local weights load at once.
    """
    from transformers.utils import logging

    verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    placing = standard.getLogger("accelerate")
    level = placing.level
    logging.set_verbosity_error()
    placing.setLevel(standard.ERROR)
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        placing.setLevel(level)
        if shown:
            logging.enable_progress_bar()
