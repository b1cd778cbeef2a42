"""The operation of a path: the template that SalesLoft's published definition has for it, so that there are few."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slproxy.operations import OTHER, TEMPLATES, operation_of
from slproxy.sandbox.data.definition import definition


def test_the_templates_are_those_of_the_published_definition() -> None:
    published = {operation.path.removesuffix(".json") for operation in definition().operations}
    assert set(TEMPLATES) == published
    assert len(TEMPLATES) == len(published)


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/v2/people", "/v2/people"),
        ("/v2/people.json", "/v2/people"),
        ("/v2/people/17", "/v2/people/{id}"),
        ("/v2/people/17.json", "/v2/people/{id}"),
        ("/v2/people/jane@company.com", "/v2/people/{id}"),
        ("/v2/meetings/settings/searches.json", "/v2/meetings/settings/searches"),
        ("/v2/meetings/settings/4", "/v2/meetings/settings/{id}"),
        ("/v2/bulk_jobs/9/results", "/v2/bulk_jobs/{bulk_jobs_id}/results"),
        ("/v2/people/", OTHER),
        ("/v2/people/17/18", OTHER),
        ("/v2/People", OTHER),
        ("/v2/people/.json", OTHER),
        ("/v2/nothing", OTHER),
        ("/_slproxy/healthz", OTHER),
        ("/v2", OTHER),
        ("", OTHER),
        ("-", OTHER),
    ],
)
def test_a_path_is_told_by_its_template_or_is_another(path: str, operation: str) -> None:
    assert operation_of(path) == operation


@given(st.lists(st.text(), max_size=8).map("/".join))
@settings(max_examples=200, deadline=None)
def test_whatever_the_path_the_operation_is_one_of_the_templates(path: str) -> None:
    assert operation_of(f"/v2/{path}") in {*TEMPLATES, OTHER}
