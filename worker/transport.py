"""kombu's Redis transport, but for a message that cannot be acknowledged: it is let go of.

kombu goes on counting such a message as being worked on. With a prefetch of one the worker would take no other, until
its connection is made anew, which nothing asks for: it is deaf for good. Here the broker may keep the message and send
it again, to find nothing to claim; whether a job is done is the ledger's to say.
"""

from __future__ import annotations

from kombu.transport import redis, virtual


class QoS(redis.QoS):
    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu has no annotations
        except Exception:
            self._let_go(delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]
        except Exception:
            self._let_go(delivery_tag)
            raise

    def _let_go(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]


class Channel(redis.Channel):
    QoS = QoS


class Transport(redis.Transport):
    Channel = Channel
