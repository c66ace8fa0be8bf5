"""Shared work in Redis: the parts of a running job."""

from __future__ import annotations

from collections.abc import Sequence

from ascribe.ledger import messages
from ascribe.ledger.redis_client import kept, ms
from ascribe.ledger.redis_reader import RedisReader
from ascribe.ledger.values import Claim, Part, Standing

OFFER_BATCH = 1000
"""Parts one script lays out: it must not hold the server for long."""


class RedisParts(RedisReader):
    """The part of :class:`ascribe.ledger.redis.RedisLedger` that many workers of one job meet at."""

    def offer(self, claim: Claim, environment: str, parts: Sequence[str]) -> None:
        for place in range(0, max(1, len(parts)), OFFER_BATCH):
            batch = parts[place : place + OFFER_BATCH]
            kept(self._scripts.run("offer", claim.job_id, claim.fence, environment, place, *batch))

    def take(self, job_id: str, worker: str, environment: str, *, owner: Claim | None = None) -> Part | None:
        lease, most = ms(self._policy.lease_seconds), self._policy.max_attempts
        fence = owner.fence if owner else ""
        answer = kept(self._scripts.run("take", job_id, environment, lease, most, fence))
        if answer is None:
            return None
        if answer == b"environment":
            raise messages.wrong_environment()
        held, name, token = answer
        return Part(job_id, int(held), name.decode(), token, worker)

    def keep(self, part: Part) -> None:
        self._say(part, "keep")

    def finish(self, part: Part) -> None:
        self._say(part, "finish")

    def drop(self, part: Part) -> None:
        self._say(part, "drop")

    def _say(self, part: Part, verb: str) -> None:
        lease = ms(self._policy.lease_seconds)
        kept(self._scripts.run("part", part.job_id, part.fence, part.name, part.token, verb, lease, part.worker))

    def standing(self, claim: Claim) -> Standing:
        return Standing(*kept(self._scripts.run("standing", claim.job_id, claim.fence)))

    def finished_parts(self, claim: Claim, after: int = 0) -> Sequence[tuple[str, str]]:
        flat = [text.decode() for text in kept(self._scripts.run("finished", claim.job_id, claim.fence, after))]
        return list(zip(flat[::2], flat[1::2], strict=True))
