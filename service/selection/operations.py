"""The rules of selections: scores of the ledger, rows of the source, and that both are of the same rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from ascribe.choosing import Chosen, choose, row_count
from ascribe.errors import Conflict, InvalidInput
from ascribe.job import Job
from ascribe.ledger.base import Ledger
from ascribe.result import TRAIN_ROWS, Manifest
from ascribe.settings import ServiceSettings
from ascribe.sources.checkpoints import inspect_checkpoint
from ascribe.sources.rows import Labels, Rows, labels_of, read_rows
from ascribe.store.remote import Remote
from service.results.schemas import ScoresQuery
from service.results.selection import select
from service.results.vectors import iterate_rows
from service.selection.schemas import LabelSelection, SelectionQuery, SelectionSummary

CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen rows of ``rows``, whose scores are ``scores``; ``places`` lead from the scored rows to ``rows``."""

    job_id: str
    rows: Rows
    labels: Labels | None
    places: list[int]
    scores: list[float]
    chosen: Chosen

    def summary(self) -> SelectionSummary:
        picked = [self.scores[row] for row in self.chosen.places]
        return SelectionSummary(
            job_id=self.job_id,
            rows=len(self.scores),
            selected=len(picked),
            duplicates=self.chosen.duplicates,
            lowest_score=min(picked),
            highest_score=max(picked),
            labels=self._by_label(),
        )

    def lines(self) -> Generator[bytes]:
        """One JSON object a row as its source had it, with ``score`` and ``rank``, the best first; in chunks."""
        buffer = bytearray()
        for rank, row in enumerate(self.chosen.places, start=1):
            record = {**_record(self.rows, self.labels, self.places[row]), "score": self.scores[row], "rank": rank}
            buffer += json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
            if len(buffer) >= CHUNK_BYTES:
                yield bytes(buffer)
                buffer.clear()
        yield bytes(buffer)

    def _by_label(self) -> tuple[LabelSelection, ...]:
        if self.labels is None:
            return ()
        names = [self.labels.name(self.rows.labels[place]) for place in self.places]
        selected = Counter(names[row] for row in self.chosen.places)
        return tuple(
            LabelSelection(label=name, rows=count, selected=selected[name])
            for name, count in sorted(Counter(names).items())
        )


def make(
    job: Job, manifest: Manifest, query: SelectionQuery, *, ledger: Ledger, files: Remote, settings: ServiceSettings
) -> Selection:
    """Read the job's train rows again, and choose.

    Raises:
        Conflict: they are not those that were scored.
        InvalidInput: model or rows cannot be read any more, or there are no labels for a quota.
        NotFound, Expired: there are no such scores, or none any more.
    """
    spec = ledger.spec(job.id)
    if query.quota != "none" and spec.model.task == "causal-lm":
        raise InvalidInput.at("/query/quota", "no_labels", "a language model's rows have no labels: leave quota out")
    which = ScoresQuery(validation_id=query.validation_id, damping=query.damping, relative=query.relative)
    table = select(job, manifest, which, ledger, files)
    (scores,) = table.scored.scores.part(0, table.scored.length)
    labels = None
    if spec.model.task != "causal-lm":
        labels = labels_of(inspect_checkpoint(settings.data_root, spec.model, spec.parameters))
    rows = read_rows(settings, spec.train, "/train", labels)
    if rows.sha256 != manifest.provenance.train_sha256:
        raise Conflict("The train rows have changed since the job scored them: submit it again, then select.")
    places = _places(rows, [row.id for row in iterate_rows(ledger, job.id, TRAIN_ROWS)])
    chosen = choose(
        scores,
        query.count or row_count(len(scores), query.fraction or 0),
        direction=query.order,
        labels=None if labels is None else [labels.name(rows.labels[place]) for place in places],
        quota=query.quota,
        contents=[_content(rows, place) for place in places] if query.duplicates == "drop" else None,
    )
    return Selection(job.id, rows, labels, places, list(scores), chosen)


def _places(rows: Rows, scored_ids: Sequence[str]) -> list[int]:
    """Where the scored rows stand in their source, in which others may stand between: those that were left out.

    The hash of the rows says nothing of their ids. Raises Conflict: they are others now, or in another order.
    """
    place_of = {row_id: place for place, row_id in enumerate(rows.ids)}
    places = [place_of.get(row_id, -1) for row_id in scored_ids]
    if -1 in places or places != sorted(places):
        raise Conflict(
            "The ids of the train rows have changed since the job scored them: submit it again, then select."
        )
    return places


def _content(rows: Rows, place: int) -> tuple[object, ...]:
    """All that the loss of a row depends on."""
    second = rows.completions or rows.text_pairs
    return (rows.texts[place], second and second[place], rows.labels[place] if rows.labels else None)


def _record(rows: Rows, labels: Labels | None, place: int) -> dict[str, Any]:
    """Under the names that inline rows have, and the label as it came."""
    if rows.completions is not None:
        return {"id": rows.ids[place], "prompt": rows.texts[place], "completion": rows.completions[place]}
    assert labels is not None
    record: dict[str, Any] = {"id": rows.ids[place], "text": rows.texts[place]}
    if rows.text_pairs is not None:
        record["text_pair"] = rows.text_pairs[place]
    label = rows.labels[place]
    return record | {"label": labels.name(label) if rows.named else label}
