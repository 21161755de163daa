"""The message for a failed line, whether by bad input or a bug."""

from __future__ import annotations

import logging

from diffgen.errors import DiffgenError, reason_of

logger = logging.getLogger("diffgen")


def told(error: Exception) -> str:
    """One line about a failure; where a bug arose is for those who ask for more."""
    if not isinstance(error, DiffgenError):
        logger.info("it arose here", exc_info=error)
    return reason_of(error)
