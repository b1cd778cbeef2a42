"""slproxy: a local reverse proxy for the SalesLoft API that keeps the token, so that your programs need none.

The map, one noun a file. A module imports only from lines above its own (``tests/test_imports.py`` holds it to that)::

    errors settings paths                      know nothing of the rest
    values → sources → config                  from a file, the environment and flags to settings
    servertime → costs → headers framing retry ratelimit oauth journal → cors → policy
                                               decisions: no aiohttp, asyncio, files or clock, but journal's writer
    seal store → filestore redisstore → keyringstore redisbudget
                                               the token at rest: what encrypts it, and the places for it; and the
                                               budget that replicas share
    grants → credentials                       the ways to get a token; the token in use
    body upstream pacing                       a request's body, replayable; sends one request: aiohttp's client is
                                               here; who waits for the budget
    forward                                    the recipe: handle → _send → _dispatch
    login pages probe                          a login's redirect; the proxy's own pages; who asks for them from here
    connection → server                        aiohttp's listening side, and what it decides wrongly for a proxy
    app → doctor status → commands → cli       app builds everything; what is wrong; what there is to know; what a
                                               person types; serve, sandbox
    sandbox                                    alone: a fake SalesLoft that imports nothing of slproxy

The life of a request stands in ``forward.Forwarder.handle``, in the order of the contract:
check, strip, inject, pace, send, learn, cure, answer.
"""

__version__ = "0.1.0"
