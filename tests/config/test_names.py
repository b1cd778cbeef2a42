"""Names of settings: those that are none are errors, and the nearest is suggested."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.settings import SECRET, loaded, refusal


@pytest.mark.parametrize(
    ("toml", "place", "nearest"),
    [
        pytest.param("[listen]\nprot = 1", "listen.prot (file slproxy.toml:2)", "port", id="a key with a typo"),
        pytest.param("\n[listne]\nport = 1", "listne (file slproxy.toml:2)", "listen", id="a section with a typo"),
        pytest.param("listen = { prot = 1 }", "(file slproxy.toml:1)", "port", id="in an inline table"),
        pytest.param("listen.prot = 1", "(file slproxy.toml:1)", "port", id="a dotted key"),
        pytest.param("port = 1", "port (file slproxy.toml:1)", "listen.port", id="a key outside its section"),
        pytest.param("[listen]\nread_only = true", "slproxy.toml:2", "policy.read_only", id="a key of another section"),
        pytest.param("[profile.x.auth]\nclient = '1'", "slproxy.toml:2", "client_id", id="in a profile not in use"),
        pytest.param(
            "[log]\nlevel_file = 'x'", "log.level_file (file slproxy.toml:2)", "level", id="_file of no secret"
        ),
        pytest.param('[log]\nx = """\nz = 1\n"""\nz = 1', "log.z (file slproxy.toml:5)", "", id="below a long string"),
    ],
)
def test_an_unknown_name_in_the_file_is_told_with_its_line_and_the_nearest(
    toml: str, place: str, nearest: str, tmp_path: Path
) -> None:
    message = refusal(tmp_path, toml=toml)
    assert place in message
    assert f"did you mean {nearest}" in message or not nearest


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        pytest.param("SLPROXY_LISTEN_PORT", "SLPROXY_LISTEN__PORT", id="one underscore"),
        pytest.param("SLPROXY_PORT", "SLPROXY_LISTEN__PORT", id="no section"),
        pytest.param("SLPROXY_API_KEY", "SLPROXY_AUTH__API_KEY", id="a credential under our name"),
        pytest.param("SLPROXY_LISTEN__SERVICE_HOST", "SLPROXY_LISTEN__HOST", id="much like Kubernetes"),
        pytest.param("SLPROXY_CA_FILE", "SLPROXY_UPSTREAM__CA_FILE", id="no section, and nearer to another"),
        pytest.param("SLPROXY_LISTEN__PROT", "SLPROXY_LISTEN__PORT", id="a typo"),
        pytest.param("SLPROXY_LISTEN__PORT_FILE", "SLPROXY_LISTEN__PORT", id="a file for what is no secret"),
        pytest.param("SLPROXY_PROFIL", "SLPROXY_PROFILE", id="a typo in what is no setting"),
    ],
)
def test_an_unknown_variable_of_ours_is_told_with_the_nearest(name: str, nearest: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, env={name: SECRET})
    assert name in message
    assert f"did you mean {nearest}?" in message
    assert f"{name} (.env:1)" in refusal(tmp_path, dotenv=f"{name}={SECRET}")


def test_what_kubernetes_injects_for_a_service_called_slproxy_is_left_alone(tmp_path: Path) -> None:
    links = {
        "SLPROXY_SERVICE_HOST": "10.0.0.1",
        "SLPROXY_SERVICE_PORT": "8642",
        "SLPROXY_SERVICE_PORT_HTTP": "8642",
        "SLPROXY_PORT": "tcp://10.0.0.1:8642",
        "SLPROXY_PORT_8642_TCP": "tcp://10.0.0.1:8642",
        "SLPROXY_PORT_8642_TCP_PROTO": "tcp",
        "SLPROXY_PORT_8642_TCP_PORT": "8642",
        "SLPROXY_PORT_8642_TCP_ADDR": "10.0.0.1",
        "SLPROXY_EU_SERVICE_HOST": "10.0.0.2",
        "SLPROXY_EU_PORT": "udp://10.0.0.2:53",
    }
    assert loaded(tmp_path, env=links).listen.port == 8642


def test_variables_of_other_salesloft_tools_are_left_alone(tmp_path: Path) -> None:
    assert loaded(tmp_path, env={"SALESLOFT_BASE_URL": "x", "SALESLOFT_TOKEN_FILE": "x"}).auth.api_key is None
