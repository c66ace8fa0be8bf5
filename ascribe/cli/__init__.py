"""The ``ascribe`` command.

Exit codes: 0 done, 1 the API could not be reached or refused, 2 a wrong command line, file or spec, and from
``--wait`` and ``watch`` 3 the job failed, 4 it was cancelled, 5 it was not waited for any longer.
"""

from __future__ import annotations

import stamina

from ascribe.cli import compare, jobs, query, results, select, service, submit
from ascribe.cli.app import app
from ascribe.cli.cache import cache
from ascribe.cli.up import up

for command in (
    up,
    submit.init,
    submit.validate,
    submit.submit,
    submit.watch,
    query.query,
    submit.retry,
    jobs.jobs,
    jobs.show,
    results.scores,
    results.download,
    results.report,
    select.select,
    compare.compare,
    jobs.cancel,
    jobs.delete,
    service.upload,
    service.methods,
    service.limits,
    service.version,
):
    app.command()(command)
app.add_typer(cache, name="cache")


def main() -> None:
    stamina.instrumentation.set_on_retry_hooks([])  # its notes on retries would stand between our own lines
    app()


__all__ = ["app", "main"]
