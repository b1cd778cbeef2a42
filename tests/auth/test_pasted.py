"""What a person pastes of a login: understood in whatever form it arrives, or asked for again with the reason."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from slproxy.auth.login_attempt import LoginAttempt
from slproxy.auth.pasted import parse_pasted
from slproxy.errors import LoginError, PasteError

STATE = "kT3-s_9xQ2vB7nM4wR8yZ1aL5cD6eF0gHjUiOpAsDfG"
ATTEMPT = LoginAttempt(url="https://u", redirect_uri="http://localhost:3000/callback", state=STATE, verifier="v" * 43)
CODE = "aB3-x_9=kL/m+n"
URL = f"http://localhost:3000/callback?code={quote(CODE, safe='')}&scope=&context=a%2Fb&state={STATE}"
OLD = f"http://localhost:3000/callback?code=OLD-code&state={'o' * 43}"
BEGINS = "That is not the URL you were redirected to; it starts with http://localhost:3000/callback?code="
OTHERS = "That URL belongs to another login"


@pytest.mark.parametrize(
    "pasted",
    [
        URL,
        f"  {URL} \n",
        f'"{URL}"',
        f"'{URL}'\n",
        f"`{URL}`",
        f"<{URL}>",
        f"“{URL}”",
        f"«{URL}»",
        f"[the page]({URL}).",
        f"It says {URL}, and no more",
        f"\x1b[200~{URL}\x1b[201~\n",
        f"\ufeff{URL}\u200b",
        f"{URL}#",
        f"{URL}#_=_",
        URL.replace("&", "&amp;"),
        URL.replace("?", "\\?").replace("&", "\\&").replace("=", "\\="),
        URL.removeprefix("http://localhost:3000"),
        URL.partition("?")[2],
        "?" + URL.partition("?")[2],
        f"state={STATE}&code={quote(CODE, safe='')}",
        # Broken into lines.
        "\n".join(URL[at : at + 40] for at in range(0, len(URL), 40)) + "\n",
        "\r\n".join(URL[at : at + 20] for at in range(0, len(URL), 20)),
        "\n  ".join(URL[at : at + 79] for at in range(0, len(URL), 79)),
        f"{URL[:50]} {URL[50:]}",
        # Escaped, the whole or its query, once or twice more than a browser does.
        quote(URL),
        quote(URL, safe=""),
        quote(quote(URL, safe=""), safe=""),
        URL.partition("?")[0] + "?" + quote(URL.partition("?")[2], safe="=&"),
        # Beside what does not count.
        f"hello\n{URL}\n",
        f"{URL}\ny\n",
        f"{OLD}\n{URL}\n",
        f"{URL}\n{OLD}\n",
    ],
    ids=ascii,
)
def test_the_code_is_found_in_what_a_person_pastes(pasted: str) -> None:
    assert parse_pasted(ATTEMPT, pasted) == CODE


@pytest.mark.parametrize("code", ["C" * 22, "dGhpcyBpcyBhIGNvZGU=", "4/0AX4XfWh:abc-d_e", "12345678"])
@pytest.mark.parametrize("around", [" {}\n", '"{}"', "<{}>"])
def test_a_bare_code_is_taken_as_it_is(code: str, around: str) -> None:
    assert parse_pasted(ATTEMPT, around.format(code)) == code


@pytest.mark.parametrize("cut", range(1, len(URL), 17))
def test_the_rest_of_a_url_may_come_later(cut: int) -> None:
    first, rest = URL[:cut] + "\n", URL[cut:] + "\n"
    with pytest.raises(PasteError):
        parse_pasted(ATTEMPT, first)
    assert parse_pasted(ATTEMPT, rest, before=first) == CODE


def test_an_earlier_try_does_not_stand_in_the_way() -> None:
    assert parse_pasted(ATTEMPT, URL + "\n", before=f"{OLD}\nhello\n" * 30) == CODE


@pytest.mark.parametrize(
    ("pasted", "said"),
    [
        ("", "Nothing was pasted."),
        ("\n", "Nothing was pasted."),
        ("hello", BEGINS),
        ("http://localhost:3000/callback", BEGINS),
        (f"https://accounts.salesloft.com/oauth/authorize?client_id=c&response_type=code&state={STATE}", BEGINS),
        ("https://accounts.salesloft.com/a-page-whose-name-is-as-long-as-a-code", BEGINS),
        ("http://[", BEGINS),
        ("slproxy login --no-browser --profile work", BEGINS),
        ("state=S-as-long-as-a-code", BEGINS),
        (f"code-in-two\nlines-of-it-{'x' * 9}", BEGINS),
        (OLD, OTHERS),
        (f"<{OLD}>", OTHERS),
        (f"http://localhost:3000/callback?error=access_denied&state={'o' * 43}", OTHERS),
        (URL[:-1], OTHERS),
        (URL + "x", OTHERS),
        (URL.replace("state=", "other="), "That URL is not whole: it has no state."),
        ("code=C", "That URL is not whole: it has no state."),
    ],
    ids=ascii,
)
def test_what_is_not_this_login_s_is_asked_for_again_with_the_reason(pasted: str, said: str) -> None:
    with pytest.raises(PasteError) as caught:
        parse_pasted(ATTEMPT, pasted)
    assert caught.value.detail.startswith(said)
    assert STATE not in caught.value.detail


def test_a_denial_of_this_login_ends_it() -> None:
    with pytest.raises(LoginError, match="denied") as caught:
        parse_pasted(ATTEMPT, f"http://localhost:3000/callback?error=access_denied&error_description=x&state={STATE}")
    assert not isinstance(caught.value, PasteError)
