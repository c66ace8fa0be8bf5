"""The doorbell's wiring: task name, queues and Celery options that service and worker must agree on.

Plain data, so that this floor imports no celery. Why each option is as it is: docs/adr/0002-ledger-and-doorbell.md.
"""

from __future__ import annotations

from typing import Any

from ascribe.settings import Settings

RUN_TASK = "ascribe.run"
"""Arguments: job id, attempt."""
HELP_TASK = "ascribe.help"
"""Argument: job id."""
DEFAULT_QUEUE = "cpu"
VISIBILITY_TIMEOUT_SECONDS = 7 * 86400
"""Longer than any job: the ledger's lease, not the broker, decides when work is taken away."""


def celery_options(settings: Settings) -> dict[str, Any]:
    """Options for ``Celery.conf.update`` on both sides of the queue."""
    return {
        "broker_url": settings.redis_url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
            "global_keyprefix": "ascribe:",
            "socket_keepalive": True,
            "health_check_interval": 25,
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
