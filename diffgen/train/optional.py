"""Extras of a run, such as the model card, whose failure must not lose the model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from diffgen.errors import one_line

logger = logging.getLogger("diffgen")


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Turn any failure inside into a warning that `what` is missing."""
    try:
        yield
    except Exception as error:
        logger.warning("%s could not be made: %s", what, one_line(str(error)))
