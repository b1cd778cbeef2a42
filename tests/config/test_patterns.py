"""What a pattern covers, and which patterns cannot mean what their author thinks."""

from __future__ import annotations

import pytest

from slproxy.config import covers, matcher, rejects
from slproxy.config.patterns import fault, faults


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        pytest.param("/v2/people", "/v2/people", True, id="a pattern covers the very path"),
        pytest.param("/v2/people", "/v2/people.json", True, id="and its .json"),
        pytest.param("/v2/people", "/v2/people/", True, id="and its trailing slash"),
        pytest.param("/v2/people", "/v2/people/1.json", True, id="and what is below"),
        pytest.param("/v2/people", "/v2/people_stages", False, id="and not a longer name"),
        pytest.param("/v2/people", "/v2/peopl", False, id="nor a shorter one"),
        pytest.param("/v2/people", "/x/v2/people", False, id="nor the same words elsewhere"),
        pytest.param("/v2/people", "/V2/people", False, id="nor another case"),
        pytest.param("/v2/people", "/v2/people;x", False, id="nor a path parameter"),
        pytest.param("/v2/people/", "/v2/people/1", True, id="a folder covers what is below it"),
        pytest.param("/v2/people/", "/v2/people", False, id="and not its own name"),
        pytest.param("/", "/anything", True, id="the root covers all"),
    ],
)
def test_what_a_pattern_covers(pattern: str, path: str, expected: bool) -> None:
    assert covers(pattern, path) is expected
    assert (matcher(["/elsewhere", pattern]).match(path) is not None) is expected


def test_no_pattern_covers_nothing() -> None:
    assert matcher([]).match("/v2/people") is None


@pytest.mark.parametrize("path", ["/v2/users", "/v2/users.json", "/v2/users/", "/v2/users/1"])
@pytest.mark.parametrize("pattern", ["/v2/users", "/v2/users/", "/v2/users.json"])
def test_a_reject_closes_the_name_itself_whatever_is_at_its_end(pattern: str, path: str) -> None:
    assert rejects(pattern, path)
    assert not rejects(pattern, "/v2/users_x")


@pytest.mark.parametrize(
    "pattern", ["/", "/v2", "/v2/", "/v2/people/1/notes", "/v2/me.json", "/a~b_c-d.e:f@g,h=i&j!k'l+m"]
)
def test_plain_paths_are_patterns(pattern: str) -> None:
    assert fault(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "v2/", "people", "^/v2/", "//v2/", "/v2//people", "/v2/*", "/v2/.*", "/v2/people$", "/v2/[a-z]+"),
        *("/v2/(people|users)", "/v2/{id}", "/v2/people?x=1", "/v2/people#x", "/v2/%70eople", "/v2/a b", "/v2/a\\b"),
        *(
            "/v2/people;x",
            "/v2/é",
            "/v2/../x",
            "/v2/./x",
            "/v2/..",
            "/v2/.",
            "https://api.salesloft.com/v2/",
            "*",
            "/v2/\n",
        ),
    ],
)
def test_what_could_never_match_or_looks_like_a_pattern_of_another_kind_is_a_fault(pattern: str) -> None:
    assert fault(pattern)


@pytest.mark.parametrize(
    ("accept", "reject", "expected"),
    [
        pytest.param(("/v2/",), (), [], id="the default"),
        pytest.param(("/v2/",), ("/v2/users",), [], id="a reject below an accept"),
        pytest.param(("/v2/people",), ("/v2/people/1",), [], id="a reject below a name"),
        pytest.param(("/v2/people/",), ("/v2/people/1/",), [], id="a reject below a folder"),
        pytest.param(("/",), ("/v2/users",), [], id="a reject below the root"),
        pytest.param(
            ("/v2/people", "/v2/users"), ("/v2/users",), [("reject_paths", "/v2/users")], id="closed in whole"
        ),
        pytest.param(("/v2/users/1",), ("/v2/users",), [("reject_paths", "/v2/users")], id="closed from above"),
        pytest.param(("/v2/",), ("/",), [("reject_paths", "/")], id="everything closed"),
        pytest.param(("/v2/people/",), ("/v2/people",), [("reject_paths", "/v2/people")], id="a folder by its name"),
        pytest.param(("/v2/people",), ("/v2/users",), [], id="a reject of what is closed"),
        pytest.param(("/v2/people",), ("/V2/Users/",), [], id="a reject of what is closed, in another case"),
        pytest.param(("/v3/people",), ("/v3/users", "/v2/users"), [], id="a reject of what is closed in two APIs"),
        pytest.param(("/v3/",), ("/v1/users",), [("reject_paths", "/v1/users")], id="a reject in no API"),
        pytest.param(("/v2/people",), ("/users",), [("reject_paths", "/users")], id="a reject without its API"),
        pytest.param(("/v2/",), ("/users",), [("reject_paths", "/users")], id="a reject that would leave all open"),
        pytest.param(("/v2/",), ("/oauth/",), [("reject_paths", "/oauth/")], id="a reject of elsewhere"),
        pytest.param(("/v2/",), ("/v2/me.json",), [], id="a reject with .json"),
        pytest.param(("/_slproxy",), (), [("accept_paths", "/_slproxy")], id="the proxy's own pages opened"),
        pytest.param(
            ("/",), ("/_slproxy/status",), [("reject_paths", "/_slproxy/status")], id="the proxy's own pages closed"
        ),
    ],
)
def test_patterns_that_cannot_do_what_they_are_there_for(
    accept: tuple[str, ...], reject: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    found = faults("policy", accept=accept, reject=reject, forwarded=("/v2/",), own="/_slproxy/")
    assert [each[:2] for each in found] == expected
