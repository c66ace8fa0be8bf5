"""Settings as value objects, read from ``ASCRIBE_*`` variables when a process composes itself, never at import."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Secret, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from ascribe.spec import Queue


def _redis_scheme(url: object) -> object:
    # kombu knows no valkey:// scheme; the protocol is the same.
    return "redis" + url.removeprefix("valkey") if isinstance(url, str) and url.startswith("valkey") else url


_STORES = {"file": "fsspec", "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
"""Schemes of stores in which a file appears as a whole, and the package that speaks to each."""


def _usable_store(url: str) -> str:
    if not url:
        return url
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _STORES:
        raise ValueError(f"must begin with one of {', '.join(f'{name}://' for name in _STORES)}")
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError("must name a folder from the root: file:///folder")
    package = _STORES[scheme]
    if importlib.util.find_spec(package) is None:
        extra = "ascribe[s3]" if package == "s3fs" else package
        raise ValueError(f"{scheme}:// needs the package {package}: pip install '{extra}'")
    return url


def _json_object(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError:
        raise ValueError("must be a JSON object") from None  # theirs would quote it


LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]
RedisUrl = Annotated[str, BeforeValidator(_redis_scheme)]
StoreOptions = Annotated[Secret[dict[str, Any]], BeforeValidator(_json_object)]
StoreUrl = Annotated[str, AfterValidator(_usable_store)]


class Settings(BaseSettings):
    """What service and worker must agree on."""

    model_config = SettingsConfigDict(env_prefix="ASCRIBE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    redis_timeout_seconds: float = Field(default=3, gt=0)
    tenant: str = Field(default="default", pattern=r"^[a-z0-9-]{1,40}$")
    data_root: Path = Path("data")

    log_format: LogFormat = Field(default="auto", description="auto: for people on a terminal, else JSON lines.")
    log_level: LogLevel = "info"
    uploads_dir: Path = Path(".ascribe/uploads")
    results_dir: Path = Field(
        default=Path(".ascribe/results"),
        description="Where score vectors too large for Redis go without a store; the same folder for all.",
    )
    store_url: StoreUrl = Field(
        default="", description="Where all machines keep shards, uploads and large results; empty: local folders alone."
    )
    store_options: StoreOptions = Field(
        default=Secret({}), description="JSON for the store's file system: endpoint_url, key, secret and the like."
    )
    store_timeout_seconds: float = Field(default=30, gt=0, description="Silence of the store that counts as failing.")

    lease_seconds: float = Field(default=60, gt=0, description="A running job not renewed for so long is taken away.")
    stall_seconds: float = Field(
        default=900, gt=0, description="Renewal stops when progress has not moved for so long."
    )
    max_attempts: int = Field(
        default=3, ge=1, description="Times a job loses its worker before it fails as worker_lost."
    )
    retry_backoff_seconds: float = Field(
        default=5,
        ge=0,
        description="How long a job whose worker was lost waits; twice as long after each further loss, up to 300.",
    )
    reconcile_seconds: float = Field(default=2, gt=0)
    ring_again_seconds: float = Field(default=15, gt=0, description="A queued job nobody claimed is rung again.")

    result_ttl_seconds: int = Field(default=7 * 86400, ge=1)
    record_ttl_seconds: int = Field(default=30 * 86400, ge=1)
    idempotency_ttl_seconds: int = Field(default=86400, ge=1)

    max_rows: int = Field(default=1_000_000, ge=1, description="Rows of one dataset.")
    max_cells: int = Field(default=50_000_000, ge=1, description="Stored scores of one job: vectors x train rows.")
    max_redis_result_bytes: int = Field(
        default=64 << 20, ge=0, description="Score vectors of one job that Redis keeps; more go to a file."
    )
    max_row_tokens: int = Field(default=8192, ge=1, le=8192, description="Tokens of one row: bounds model.max_length.")
    max_parameters: int = Field(default=10_000_000, ge=1, description="Entries of one row's gradient.")
    max_solution_bytes: int = Field(
        default=8 << 30, ge=1, description="Memory for the validation gradients of a job and their solutions."
    )
    max_solve_bytes: int = Field(
        default=8 << 30, ge=1, description="Memory that a solver picked by `auto` may take on top of the gradients."
    )
    max_gauss_newton_bytes: int = Field(
        default=16 << 30,
        ge=0,
        description="Cached rows of a Gauss-Newton Hessian; beyond, every product with it runs the model.",
    )
    max_memory_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Memory of one worker: a job that by its estimate needs more is refused. With null the service "
        "refuses none, and a worker goes by the memory of its machine or container.",
    )
    max_job_seconds: float = Field(default=86400, gt=0, description="Seconds one attempt of a job may run.")
    max_queued_jobs: int = Field(default=1000, ge=1, description="Jobs that wait; beyond, submitting answers 429.")
    max_file_bytes: int = Field(default=1 << 30, ge=1, description="Bytes of one file of rows, decompressed.")
    max_line_bytes: int = Field(default=1 << 20, ge=1, description="Bytes of one row of a file, its line or its texts.")
    max_decompression_ratio: float = Field(
        default=100, ge=1, description="How many times its size a compressed file of rows may expand to."
    )
    reader_memory_bytes: int = Field(
        default=1 << 30, ge=512 << 20, description="Address space of the process that reads a file of rows."
    )
    reader_seconds: float = Field(default=300, gt=0, description="Seconds that reading one file of rows may take.")
    allow_gguf: bool = Field(
        default=False, description="Take bases whose weights are a GGUF file; needs the extra ascribe[gguf]."
    )
    preview_characters: int = Field(default=200, ge=0, description="Text kept beside the scores; 0 keeps none.")

    @property
    def heartbeat_seconds(self) -> float:
        """How often a lease is renewed: often enough that losing a few renewals loses nothing."""
        return self.lease_seconds / 6


class ServiceSettings(Settings):
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: SecretStr | None = Field(default=None, min_length=16)
    max_body_bytes: int = Field(default=16 << 20, ge=1, description="Bytes of a request's body.")
    max_followers: int = Field(
        default=500, ge=0, description="Clients that may follow events or wait for a job at once; others poll."
    )
    slow_reader_seconds: float = Field(
        default=60, gt=0, description="A client to whom nothing of its download could be sent for so long is let go."
    )


class WorkerSettings(Settings):
    cache_dir: Path = Path(".ascribe/cache")
    cache_max_bytes: int = Field(
        default=50 << 30, ge=1, description="Entries that no job uses make room, the longest unused first."
    )
    cache_reserve_bytes: int = Field(default=1 << 30, ge=0, description="Disk space that the cache leaves free.")
    queue: Queue = Field(default="cpu", description="The worker takes the jobs of this queue.")
    alive_file: Path | None = Field(
        default=None, description="The worker's main loop touches it every second, for `python -m worker.probe`."
    )
    device: str = "cpu"
    threads: int = Field(default=1, ge=1)
    token_budget: int = Field(default=1024, ge=1, description="Padded tokens in one batch of the gradient pass.")
    shard_rows: int = Field(default=256, ge=1, description="Rows of one gradient shard; a crash costs at most one.")
    attention: Literal["sdpa", "eager"] = "sdpa"
