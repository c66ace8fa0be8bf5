"""The ``ascribe`` command.

Exit codes: 0 done, 1 the API could not be reached or refused, 2 a wrong command line or spec, and from
``submit --wait`` 3 the job failed, 4 it was cancelled, 5 it was not waited for any longer.
"""

from __future__ import annotations

import stamina

from ascribe.cli import jobs, results, service
from ascribe.cli.app import app
from ascribe.cli.up import up

for command in (
    up,
    jobs.submit,
    jobs.validate,
    jobs.jobs,
    jobs.show,
    results.scores,
    results.report,
    jobs.cancel,
    jobs.delete,
    service.methods,
    service.version,
):
    app.command()(command)


def main() -> None:
    stamina.instrumentation.set_on_retry_hooks([])  # its notes on retries would stand between our own lines
    app()


__all__ = ["app", "main"]
