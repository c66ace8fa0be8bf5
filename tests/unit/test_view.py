"""A spec as answers show it: everything but inline rows, whatever kind of source there is."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from ascribe.spec import JobSpec
from ascribe.spec_inputs import Source
from ascribe.view import DatasetView, SpecView
from tests.support.ledger import spec

SOURCES: dict[str, dict[str, Any]] = {
    "file": {"kind": "file", "path": "topics/train.jsonl"},
    "dataset": {"kind": "dataset", "id": "ds_" + "0" * 64},
    "inline": {"kind": "inline", "rows": [{"text": "a", "label": 0}] * 3},
}


def test_every_kind_of_source_has_a_view() -> None:
    union = get_args(Source)[0]
    assert {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(union)} == set(SOURCES)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("rows", [False, True])
def test_a_view_reads_back_as_it_was_written(kind: str, rows: bool) -> None:
    asked = spec(train={"source": SOURCES[kind]}, labels={"team": "support"}, queue="gpu", priority="low")

    view = SpecView.of(asked, rows=rows)

    assert SpecView.model_validate_json(view.model_dump_json()) == view
    assert isinstance(view.train, DatasetView)
    shown, given = view.model_dump(mode="json"), asked.model_dump(mode="json")
    for dataset in ("train", "validation"):
        if given[dataset]["source"]["kind"] == "inline":
            all_rows = given[dataset]["source"]["rows"]
            assert shown[dataset]["source"].pop("row_count") == len(all_rows)
            if not rows:
                assert shown[dataset]["source"].pop("rows") == []
                del given[dataset]["source"]["rows"]
    assert shown == given


def test_a_view_is_a_spec_to_whoever_reads_it() -> None:
    assert isinstance(SpecView.of(spec()), JobSpec)
