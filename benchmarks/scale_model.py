"""What a job costs on paper: operations and bytes counted, divided by the rates of a host.

Letters as everywhere: N rows, Q right-hand sides, R rank, D the long side of a LoRA matrix, P entries of a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT32, FLOAT64 = 4, 8


@dataclass(frozen=True, slots=True)
class Network:
    """A transformer with LoRA of one rank on some of its matrices.

    ``frozen``: weights that every token is multiplied with. ``adapted``: the sides (inputs, outputs) of each matrix
    with an adapter.
    """

    name: str
    frozen: int
    layers: int
    hidden: int
    adapted: tuple[tuple[int, int], ...]

    def blocks(self, rank: int) -> list[tuple[int, int]]:
        """(R, D) of every LoRA matrix: an A and a B for each adapted one."""
        return [(rank, side) for sides in self.adapted for side in sides]

    def entries(self, rank: int) -> int:
        """P."""
        return sum(short * long for short, long in self.blocks(rank))

    def flops(self, tokens: int) -> float:
        """Forward, and backward towards the inputs: no frozen weight has a gradient of its own.

        Two operations a weight and token each way; attention's two products forward, four backward.
        """
        return 4.0 * self.frozen * tokens + 12.0 * self.layers * self.hidden * tokens**2


@dataclass(frozen=True, slots=True)
class Job:
    network: Network
    rows: int
    queries: int
    rank: int
    tokens: int
    shard_rows: int = 256

    @property
    def shards(self) -> int:
        return -(-self.rows // self.shard_rows)

    @property
    def row_bytes(self) -> int:
        return FLOAT32 * self.network.entries(self.rank)

    @property
    def shard_bytes(self) -> int:
        return self.shard_rows * self.row_bytes

    @property
    def gradient_bytes(self) -> int:
        return self.rows * self.row_bytes

    @property
    def sums_bytes(self) -> int:
        """GFIM's float64 sums of one shard."""
        return FLOAT64 * sum(long**2 for _, long in self.network.blocks(self.rank))


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one worker. ``entry_seconds``: for each entry of a row's gradient, to form, copy, hash and write it."""

    pass_flops: float
    entry_seconds: float
    sum_flops: float
    factor_flops: float
    score_flops: float
    disk_bytes: float
    """Bytes a second to and from the store, where it is not the host's own disk."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of one worker for the whole job, but ``solve``, which is the coordinator's alone."""

    gradients: float
    sums: float
    solve: float
    scores: float
    moving: float
    """Gradients to the store, and back once more for the scores."""


def seconds(job: Job, rates: Rates) -> Seconds:
    """Cholesky in float64 on every GFIM block, for each query on its own."""
    blocks = job.network.blocks(job.rank)
    entries = job.network.entries(job.rank)
    return Seconds(
        gradients=job.rows * (job.network.flops(job.tokens) / rates.pass_flops + entries * rates.entry_seconds),
        sums=job.rows * sum(2.0 * short * long**2 for short, long in blocks) / rates.sum_flops,
        solve=sum(long**3 / 3 + 2.0 * long**2 * short * job.queries for short, long in blocks) / rates.factor_flops,
        scores=2.0 * job.rows * entries * job.queries / rates.score_flops,
        moving=2.0 * job.gradient_bytes / rates.disk_bytes,
    )
