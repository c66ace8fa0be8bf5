"""The Python client: submit a job, wait for it, read its scores."""

from ascribe.client.api import Client, JobSummary, Order, ScoredRows, succeeded
from ascribe.client.errors import ClientError

__all__ = ["Client", "ClientError", "JobSummary", "Order", "ScoredRows", "succeeded"]
