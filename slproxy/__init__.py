"""slproxy: a local reverse proxy for the SalesLoft API that holds the token, so that you never do.

The map, one noun a file. A module imports only from lines above its own (``tests/test_imports.py`` holds it to that)::

    errors  config                          know nothing of the rest
    headers policy retry oauth journal      decisions: no aiohttp, asyncio, files, clock
    store → credentials                     the token at rest; the token in use
    body upstream                           a request's body, replayable; sends one request, aiohttp's client lives here only
    forward                                 the recipe: handle → _send → _dispatch
    login pages                             the browser's side: the redirect of a login; the proxy's own pages
    server                                  the listening side of aiohttp, and what it decides wrongly for a proxy
    app → cli                               app builds everything; cli talks to a person
    sandbox                                 alone: a fake SalesLoft that imports nothing of slproxy

The life of a request stands in ``forward.Forwarder.handle``, in the order of the contract:
check, strip, inject, pace, send, learn, cure, answer.
"""

__version__ = "0.1.0"
