"""One call, made by either client: the same test then holds for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from tests.support.fake_api import FakeApi

Use = Callable[[Any], Any]
"""What to do with a client: ``lambda client: client.get(job_id)``."""


class Call(Protocol):
    def __call__(self, api: FakeApi, use: Use, **options: Any) -> Any:
        """The result; of what yields, a list."""


def call_in_place(api: FakeApi, use: Use, **options: Any) -> Any:
    with api.client(**options) as client:
        result = use(client)
        return [*result] if isinstance(result, Iterator) else result


def call_in_a_loop(api: FakeApi, use: Use, **options: Any) -> Any:
    async def main() -> Any:
        async with api.async_client(**options) as client:
            result = use(client)
            return [each async for each in result] if isinstance(result, AsyncIterator) else await result

    return asyncio.run(main())
