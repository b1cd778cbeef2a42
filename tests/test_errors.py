"""The tree of errors, held to its own docstring, to docs/contract.md, Errors, and to RFC 9209's registry."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from slproxy import errors
from slproxy.errors import Problem, SlproxyError, UpstreamFault
from tests.support.docs import table

PACKAGE = Path(errors.__file__).parent

CONTRACT = {
    (kind, int(status))
    for kinds, statuses, _ in table("contract.md", "Errors")
    for kind in re.findall("`(.+?)`", kinds)
    for status in statuses.split(", ")
}

# RFC 9209 §2.3.1 to §2.3.32, in its order.
REGISTERED = {
    "dns_timeout",
    "dns_error",
    "destination_not_found",
    "destination_unavailable",
    "destination_ip_prohibited",
    "destination_ip_unroutable",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_read_timeout",
    "connection_write_timeout",
    "connection_limit_reached",
    "tls_protocol_error",
    "tls_certificate_error",
    "tls_alert_received",
    "http_request_error",
    "http_request_denied",
    "http_response_incomplete",
    "http_response_header_section_size",
    "http_response_header_size",
    "http_response_body_size",
    "http_response_trailer_section_size",
    "http_response_trailer_size",
    "http_response_transfer_coding",
    "http_response_content_coding",
    "http_response_timeout",
    "http_upgrade_failed",
    "http_protocol_error",
    "proxy_internal_response",
    "proxy_internal_error",
    "proxy_configuration_error",
    "proxy_loop_detected",
}


def below(root: type[SlproxyError]) -> list[type[SlproxyError]]:
    """Return ``root`` and all its subclasses; a test may have made some more, which do not count."""
    inside = [root] if root.__module__ == errors.__name__ else []
    return inside + [found for child in root.__subclasses__() for found in below(child)]


ALL = below(SlproxyError)
PROBLEMS: list[type[Problem]] = [
    found for found in ALL if issubclass(found, Problem) and not any(found in other.__bases__ for other in ALL)
]


def made(problem: type[Problem], detail: str = "It happened.", hint: str = "Do this.") -> Problem:
    if issubclass(problem, UpstreamFault):
        return problem(detail, maybe_sent=False, hint=hint)
    return problem(detail, hint=hint)


def drawn() -> dict[str, tuple[str | None, int | None]]:
    """Return the parent of each class of the docstring's tree, and the exit code that stands on its line."""
    tree: dict[str, tuple[str | None, int | None]] = {}
    at_depth: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    ([│├└─ ]*)((?:[A-Z]\w+ ?)+)(.*)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        code = re.search(r"exit (\d)$", match[3])
        for name in match[2].split():
            tree[name] = (at_depth.get(depth - 1), int(code[1]) if code else None)
        at_depth[depth] = match[2].split()[0]
    return tree


def test_the_tree_of_the_docstring_is_the_tree_of_the_classes() -> None:
    assert {name: parent for name, (parent, _) in drawn().items()} == {
        found.__name__: None if found is SlproxyError else found.__bases__[0].__name__ for found in ALL
    }


def test_no_class_of_the_tree_is_made_anywhere_else() -> None:
    names = {found.__name__ for found in ALL}
    elsewhere = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and {ast.unparse(base).split(".")[-1] for base in node.bases} & names
    ]
    assert elsewhere == []


def test_the_exit_codes_of_the_docstring_are_those_of_the_classes_and_of_the_contract() -> None:
    tree = drawn()

    def inherited(name: str) -> int:
        parent, code = tree[name]
        return code if code is not None else inherited(parent) if parent is not None else 1

    assert {name: inherited(name) for name in tree} == {found.__name__: found.exit_code for found in ALL}
    assert errors.ConfigError.exit_code == 2  # docs/contract.md, Exit codes: bad usage or configuration
    assert errors.LoginRequired.exit_code == 3  # docs/contract.md, Exit codes: login needed


def calls_of_problems() -> list[tuple[str, type[Problem], dict[str, object]]]:
    """Return where the package makes a problem, which one, and what it is given by name: a constant, or its code."""
    by_name = {problem.__name__: problem for problem in PROBLEMS}
    return [
        (
            f"{path.name}:{node.lineno}",
            by_name[name],
            {
                keyword.arg: value.value if isinstance(value := keyword.value, ast.Constant) else value
                for keyword in node.keywords
                if keyword.arg
            },
        )
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func).split(".")[-1]) in by_name
    ]


def test_types_and_statuses_are_those_of_the_contract_and_no_others() -> None:
    by_class = {(problem.type, problem.status) for problem in PROBLEMS}
    by_call = {
        (problem.type, told["status"])
        for _, problem, told in calls_of_problems()
        if isinstance(told.get("status"), int)
    }
    assert by_class | by_call == CONTRACT


def test_each_problem_has_a_type_of_its_own() -> None:
    types = [problem.type for problem in PROBLEMS]
    assert sorted(types) == sorted(set(types))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_problem_says_all_that_the_contract_asks_for(problem: type[Problem]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", problem.type)
    assert problem.title.strip()
    assert 400 <= problem.status <= 599
    assert made(problem).proxy_status == f"slproxy; error={problem.proxy_error}"
    assert problem.proxy_error in REGISTERED


def test_each_problem_is_made_with_a_hint() -> None:
    assert [where for where, _, given in calls_of_problems() if not given.get("hint")] == []


def test_every_proxy_status_that_a_call_names_is_registered() -> None:
    told = {
        (where, name) for where, _, given in calls_of_problems() if isinstance(name := given.get("proxy_error"), str)
    }
    assert {(where, name) for where, name in told if name not in REGISTERED} == set()
    assert told, "somebody names one, so that this test can fail"


def test_every_proxy_status_that_a_foreign_error_is_translated_to_is_registered() -> None:
    named = {
        node.value
        for name in ("faults", "connect_faults", "tunnel")
        for node in ast.walk(ast.parse((PACKAGE / "upstream" / f"{name}.py").read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"(connection|destination|dns|http|proxy|tls)_[a-z_]+", node.value)
    }
    assert named <= REGISTERED
    assert "tls_certificate_error" in named


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_body_is_one_json_object_of_six_fields(problem: type[Problem]) -> None:
    body = made(problem, 'A "detail" with ünicode.', "A hint.").body()
    assert body.endswith(b"}\n")
    assert json.loads(body) == {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": 'A "detail" with ünicode.',
        "hint": "A hint.",
        "error": 'A "detail" with ünicode.',
    }


def test_what_one_problem_says_of_itself_stays_with_it() -> None:
    told = errors.TooLarge("Too long.", status=414, proxy_error="http_request_denied", headers=(("A", "b"),))
    assert (told.status, told.proxy_status, told.headers) == (414, "slproxy; error=http_request_denied", (("A", "b"),))
    assert json.loads(told.body())["status"] == 414
    other = errors.TooLarge("Too large.")
    assert (other.status, other.proxy_status, other.headers) == (413, "slproxy; error=http_request_error", ())


@pytest.mark.parametrize("reached", [True, False])
@pytest.mark.parametrize("fault", [errors.UpstreamUnreachable, errors.UpstreamTimeout])
def test_a_fault_of_the_upstream_tells_whether_a_byte_may_have_left(fault: type[UpstreamFault], reached: bool) -> None:
    assert fault("It broke.", maybe_sent=reached).maybe_sent is reached


def test_the_text_of_an_error_is_its_detail_and_never_its_cause() -> None:
    with pytest.raises(SlproxyError) as caught:
        raise errors.StoreError("Cannot read.", hint="Look.") from OSError("text of another library")
    error = caught.value
    assert (str(error), error.detail, error.hint) == ("Cannot read.", "Cannot read.", "Look.")
