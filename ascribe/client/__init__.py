"""The Python client: submit a job, wait for it, read its scores."""

from ascribe.client.api import Client
from ascribe.client.async_api import AsyncClient
from ascribe.client.errors import ClientError
from ascribe.client.messages import Format, JobSummary, Order, ScoredRows, Selection
from ascribe.client.waiting import succeeded

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Format",
    "JobSummary",
    "Order",
    "ScoredRows",
    "Selection",
    "succeeded",
]
