"""The sandbox's lists: paging, filters, order."""

from __future__ import annotations

from datetime import datetime

import pytest

from slproxy.sandbox import Options
from slproxy.sandbox.salesloft import SalesLoft
from tests.support.salesloft import ApiClient

NOW = 1_750_000_020.0  # the start of a clock minute

JANE = "f2106d80-64cc-574c-8fdf-04ea53e59b16"


@pytest.fixture
def client() -> ApiClient:
    return ApiClient(SalesLoft(Options(), clock=lambda: NOW))


def test_a_list_is_paged_by_25_and_counts_only_on_request(client: ApiClient) -> None:
    _, body = client.ask("GET", "/v2/people.json")
    assert body["metadata"] == {"paging": {"per_page": 25, "current_page": 1, "next_page": 2, "prev_page": None}}
    _, body = client.ask("GET", "/v2/people.json?include_paging_counts=true&page=5")
    assert body["metadata"] == {
        "paging": {
            "per_page": 25,
            "current_page": 5,
            "next_page": None,
            "prev_page": 4,
            "total_pages": 5,
            "total_count": 120,
        }
    }


@pytest.mark.parametrize(
    ("query", "per_page", "page", "rows"),
    [
        ("per_page=0", 1, 1, 1),
        ("per_page=-4", 1, 1, 1),
        ("per_page=1000", 100, 1, 100),
        ("page=0", 25, 1, 25),
        ("page=-1", 25, 1, 25),
        ("page=99", 25, 99, 0),
        ("per_page=100&page=2", 100, 2, 20),
    ],
)
def test_paging_out_of_range_is_silently_corrected_and_echoed(
    query: str, per_page: int, page: int, rows: int, client: ApiClient
) -> None:
    status, body = client.ask("GET", f"/v2/people?{query}")
    assert status == 200
    paging = body["metadata"]["paging"]  # type: ignore[index]
    assert (paging["per_page"], paging["current_page"], len(body["data"])) == (per_page, page, rows)  # type: ignore[arg-type]


def test_groups_are_never_paged_and_users_only_with_a_page(client: ApiClient) -> None:
    assert client.ask("GET", "/v2/groups?page=2&per_page=1")[1]["metadata"] == {}
    assert client.ask("GET", "/v2/users?per_page=1")[1]["metadata"] == {}
    assert len(client.rows("/v2/users?per_page=1")) == 6
    assert len(client.rows("/v2/users?per_page=1&page=1")) == 1


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v2/people?ids[]=3&ids[]=5", {3, 5}),
        ("/v2/people?ids%5B%5D=3&ids%5b%5d=5", {3, 5}),
        ("/v2/people?ids=3,5", {3, 5}),
        ("/v2/people?ids=3&nonsense=1", {3}),
        ("/v2/people?ids=3&owner_id[]=99", set()),
        ("/v2/users?guid[]=" + JANE, {1}),
        ("/v2/users?search=AISHA", {3}),
        ("/v2/users?active=false", {6}),
        ("/v2/users?ids=1&has_crm_user=true", {1}),
        ("/v2/account_tiers?name[]=Tier 2", {2}),
        ("/v2/steps?cadence_id=2&type=phone", {6}),
        ("/v2/notes?associated_with_id=3&ids=2", {2}),
        ("/v2/accounts?ids=1,2&archived=true", set()),
        ("/v2/accounts?ids=1,2&archived=false", {1, 2}),
        ("/v2/accounts?name=Alder %26 Finch", {3}),
        ("/v2/tags?search=vip", {1}),
        ("/v2/cadence_memberships?person_id=7", {7}),
        ("/v2/activities/calls?person_id[]=3", {1}),
        ("/v2/custom_fields?field_type=company", {3}),
        ("/v2/bulk_jobs?id[gt]=0", {1}),
        ("/v2/bulk_jobs?id[gt]=1", set()),
    ],
)
def test_a_filter_keeps_what_it_names(target: str, expected: set[int], client: ApiClient) -> None:
    found = client.rows(target)
    if "associated_with_id" in target:
        assert [row["associated_with"]["id"] for row in found] == [3]  # type: ignore[index]
    assert {row["id"] for row in found} == expected


@pytest.mark.parametrize(
    ("target", "field", "expected"),
    [
        ("/v2/people?account_id=4&per_page=100", "account", 4),
        ("/v2/people?person_stage_id[]=2&per_page=100", "person_stage", 2),
        ("/v2/people?owned_by_guid[]=" + JANE, "owner", 1),
        ("/v2/accounts?account_stage_id=2", "company_stage", 2),
        ("/v2/cadence_memberships?cadence_id=1", "cadence", 1),
        ("/v2/tasks?user_id[]=2", "user", 2),
        ("/v2/activities/emails?cadence_id=1", "cadence", 1),
    ],
)
def test_a_filter_by_id_looks_into_the_embedded_resource(
    target: str, field: str, expected: int, client: ApiClient
) -> None:
    found = client.rows(target)
    assert found
    assert {row[field]["id"] for row in found} == {expected}  # type: ignore[index]


def test_custom_fields_tags_and_addresses_filter(client: ApiClient) -> None:
    red = client.rows("/v2/people?custom_fields[Favorite%20Color]=red")
    assert red
    assert all(row["custom_fields"] == {"Favorite Color": "red"} for row in red)
    assert all("conference" in row["tags"] for row in client.rows("/v2/accounts?tag[]=conference"))  # type: ignore[operator]
    address = red[0]["email_address"]
    found = client.rows(f"/v2/people?email_addresses[]={address}")
    assert [row["id"] for row in found] == [red[0]["id"]]
    assert client.rows("/v2/people?email_addresses[]=nobody@nowhere.example") == []


@pytest.mark.parametrize("bound", ["gt", "gte", "lt", "lte"])
def test_a_time_bounds_a_list(bound: str, client: ApiClient) -> None:
    middle = client.row("GET", "/v2/accounts/12")
    at = str(middle["updated_at"])
    # An unencoded plus has become a space on its way; SalesLoft's offsets are negative, so this one is made positive.
    shifted = datetime.fromisoformat(at).astimezone(datetime.fromisoformat("2024-01-01T00:00:00+02:00").tzinfo)
    found = {row["id"] for row in client.rows(f"/v2/accounts?updated_at[{bound}]={shifted.isoformat()}")}
    assert (
        found
        == {
            "gt": set(range(13, 26)),
            "gte": set(range(12, 26)),
            "lt": set(range(1, 12)),
            "lte": set(range(1, 13)),
        }[bound]
    )


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", [25, 24, 23]),
        ("sort_direction=asc", [1, 2, 3]),
        ("sort_by=updated_at&sort_direction=DESC", [25, 24, 23]),
        ("sort_by=name&sort_direction=ASC", [3, 2, 4]),
        ("sort_by=name&sort_direction=desc", [20, 19, 18]),
    ],
)
def test_a_list_is_sorted_latest_first_unless_told_otherwise(query: str, ids: list[int], client: ApiClient) -> None:
    assert [row["id"] for row in client.rows(f"/v2/accounts?per_page=3&{query}")] == ids


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_what_has_no_value_comes_first_in_ascending_order_and_last_in_descending(
    direction: str, client: ApiClient
) -> None:
    found = client.rows(f"/v2/people?ids=1,2,3,4,5,6,7,8&sort_by=last_contacted_at&sort_direction={direction}")
    values = [str(row["last_contacted_at"] or "") for row in found]
    assert {"", max(values)} < set(values)
    assert values == sorted(values, reverse=direction == "desc")


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ("/v2/people?ids=x", "ids"),
        ("/v2/people?updated_at[gt]=yesterday", "updated_at"),
        ("/v2/people?do_not_contact=perhaps", "do_not_contact"),
        ("/v2/people?sort_by=colour", "sort_by"),
        ("/v2/people?sort_by=account", "sort_by"),
        ("/v2/people?sort_direction=up", "sort_direction"),
        ("/v2/people?page=two", "page"),
        ("/v2/people?per_page=many", "per_page"),
        ("/v2/people?include_paging_counts=some", "include_paging_counts"),
        ("/v2/cadences?archived=x", "archived"),
    ],
)
def test_a_bad_value_in_a_query_is_422(target: str, field: str, client: ApiClient) -> None:
    status, body = client.ask("GET", target)
    assert status == 422
    assert list(body["errors"]) == [field]  # type: ignore[call-overload]
