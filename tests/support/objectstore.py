"""A real S3 server on the loopback interface: SeaweedFS, all of it in one process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
import httpx

from ascribe.embedded.host import free_ports

KEY, SECRET = "ascribe-tests", "a-secret-of-no-value"
BUCKET = "ascribe-tests"


@dataclass(frozen=True, slots=True)
class ObjectStore:
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> Mapping[str, str]:
        """What a process sets to use it, beside the URL."""
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": self.endpoint}

    @property
    def options(self) -> Mapping[str, object]:
        """The same for fsspec."""
        return {"key": KEY, "secret": SECRET, "endpoint_url": self.endpoint}


@contextmanager
def running_object_store(folder: Path) -> Iterator[ObjectStore]:
    """Up inside the block, its data in ``folder``; takes about four seconds to start."""
    master, volume, filer, s3, *grpc = free_ports(*[0] * 8)
    flags = {
        "dir": folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1",
        "master.port": master, "volume.port": volume, "filer.port": filer, "s3.port": s3,
        "master.port.grpc": grpc[0], "volume.port.grpc": grpc[1], "filer.port.grpc": grpc[2], "s3.port.grpc": grpc[3],
        "filer.localSocket": folder / "filer.sock", "s3.localSocket": folder / "s3.sock",
        "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.iam": "false", "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64, "volume.max": 16, "master.electionTimeout": "1s",
    }  # fmt: skip
    weed = Path(sys.executable).with_name("weed")
    command = [str(weed), "-logtostderr", "server", "-s3", *(f"-{name}={value}" for name, value in flags.items())]
    credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}  # it takes them for its administrator
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={"HOME": str(folder), "GOMEMLIMIT": "200MiB", **credentials},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        store = ObjectStore(s3, process)
        _await_answer(store)
        fsspec.filesystem("s3", **store.options).mkdir(BUCKET)
        yield store
    finally:
        process.kill()  # its own shutdown takes seconds, and nothing here is to be kept
        process.wait()


def _await_answer(store: ObjectStore) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(store.endpoint, timeout=1)
        except httpx.TransportError:
            assert store.process.poll() is None, "weed ended"
            time.sleep(0.1)
        else:
            return
    raise TimeoutError
