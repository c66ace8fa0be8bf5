"""The doorbell's wiring: task names, messages and Celery options that service and worker must agree on.

Plain data, so that this floor imports no celery. Why each option is as it is: docs/adr/0002-ledger-and-doorbell.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ascribe.ledger.base import Call, Ring
from ascribe.settings import Settings
from ascribe.spec import Priority

RUN_TASK = "ascribe.run"
"""Arguments: job id, attempt."""
HELP_TASK = "ascribe.help"
"""Argument: job id."""
DEFAULT_QUEUE = "cpu"
VISIBILITY_TIMEOUT_SECONDS = 7 * 86400
"""Longer than any job: the ledger's lease, not the broker, decides when work is taken away."""
HEALTH_CHECK_SECONDS = 5
"""A worker whose connection the network has forgotten is deaf until kombu replaces it: twice this and a second."""
PRIORITIES: Mapping[Priority, int] = {"high": 0, "normal": 3, "low": 6}
"""As kombu's Redis transport counts: a list in Redis for each, emptied in this order, 0 first."""


def ring_message(ring: Ring) -> dict[str, Any]:
    """Arguments of ``Celery.send_task``. No retry: the ledger rings again, and knows by then whether it still must."""
    return _message(RUN_TASK, [ring.job_id, ring.attempt], ring)


def call_message(call: Call) -> dict[str, Any]:
    """The same for a call to help."""
    return _message(HELP_TASK, [call.job_id], call)


def _message(task: str, args: list[str | int], to: Ring | Call) -> dict[str, Any]:
    return {"name": task, "args": args, "queue": to.queue, "priority": PRIORITIES[to.priority], "retry": False}


def celery_options(settings: Settings) -> dict[str, Any]:
    """Options for ``Celery.conf.update`` on both sides of the queue."""
    return {
        "broker_url": settings.redis_url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,  # a server that is full or read-only answers; without this a worker ends
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
            "global_keyprefix": "ascribe:",
            "priority_steps": sorted(PRIORITIES.values()),
            "socket_keepalive": True,
            "health_check_interval": HEALTH_CHECK_SECONDS,
            "socket_timeout": settings.redis_timeout_seconds,
            "socket_connect_timeout": settings.redis_timeout_seconds,
        },
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_default_queue": DEFAULT_QUEUE,
        "worker_prefetch_multiplier": 1,
        "worker_pool": "prefork",
        "worker_concurrency": 1,
        "worker_pool_start_method": "spawn",
        "worker_proc_alive_timeout": 180,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
    }
