"""HTML pages: consent, refusal, and a broken server."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from string import Template

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
  :root { color-scheme: light dark; --ink: #1c2430; --paper: #fff; --ground: #eef1f4; --quiet: #5d6878; --act: #2c5f34 }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e8ebef; --paper: #1b212a; --ground: #11151b; --quiet: #9aa5b4; --act: #3f8a4b }
  }
  body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--ground); color: var(--ink);
         font: 16px/1.5 system-ui, sans-serif }
  main { box-sizing: border-box; width: min(26rem, 92vw); padding: 2rem; background: var(--paper); border-radius: 12px;
         box-shadow: 0 8px 30px #0002 }
  h1 { margin: 0 0 .75rem; font-size: 1.3rem }
  p { margin: .5rem 0 } .quiet { color: var(--quiet); font-size: .9rem; overflow-wrap: anywhere }
  form { display: flex; gap: .75rem; margin-top: 1.5rem }
  button { flex: 1; padding: .7rem; border: 1px solid var(--quiet); border-radius: 8px; background: none;
           color: inherit; font: inherit; cursor: pointer }
  button[value=allow] { background: var(--act); border-color: var(--act); color: #fff }
</style>
</head>
<body><main>$content</main></body>
</html>
""")


def consent(params: Mapping[str, str]) -> str:
    """Return the page that asks Jane Smith; its form sends the request's parameters back with the answer."""
    kept = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in params.items()
        if name != "sandbox_consent"
    )
    scope = params.get("scope")
    return PAGE.substitute(
        title="Authorize · SalesLoft sandbox",
        content=(
            f"<h1>Let {escape(params['client_id'])} use your SalesLoft account?</h1>"
            "<p>You are <strong>Jane Smith</strong> (jane@company.com).</p>"
            + (f"<p>It asks for: <code>{escape(scope)}</code></p>" if scope else "")
            + f'<p class="quiet">You will be sent to {escape(params["redirect_uri"])}. '
            "This is a sandbox: nothing here is real.</p>"
            f'<form method="post" action="/oauth/authorize">{kept}'
            '<button name="sandbox_consent" value="deny">Deny</button>'
            '<button name="sandbox_consent" value="allow">Allow</button></form>'
        ),
    )


def refused(reason: str) -> str:
    """Return the page that says why nobody is asked."""
    return PAGE.substitute(
        title="Refused · SalesLoft sandbox",
        content=f'<h1>An error has occurred</h1><p>{escape(reason)}</p><p class="quiet">SalesLoft sandbox</p>',
    )


BROKEN = (
    "<!doctype html>\n<html><head><title>We're sorry, but something went wrong</title></head><body></body></html>\n"
)
