"""The whole of Ascribe on one machine, with no Docker and no root."""

from ascribe.embedded.stack import Stack

__all__ = ["Stack"]
