"""slproxy: a local reverse proxy for the SalesLoft API that keeps the token, so that your programs need none.

The areas, in the order of imports: each imports only from those before it, to which
``tests/test_architecture.py`` holds them::

    errors      what can go wrong, whose fault it is, and what to do about it
    untrusted   text from outside: parsed without surprises, printed without effect
    operations  SalesLoft's operations, by the templates of their paths
    config/     what can be set, and where each value came from
    http/       HTTP's own notions: header fields and dates
    sockets/    who is at the other end of a connection, and whether anybody still is
    retry/      whether a request is sent again, and when
    observe/    what happened, told: log, audit, metrics, traces
    store/      the token at rest: file, keyring, Redis, memory, and its encryption
    pace/       the team's rate limit: who may send, and when
    auth/       ways to authenticate; the token in use
    upstream/   sends one request to SalesLoft, once
    forward/    the life of a request: check, strip, inject, pace, send, learn, cure, answer
    inspect/    what happened lately, shown in the browser
    server/     the listening side
    changes     what a reload changes
    listeners   everybody who is told what happens
    own_pages   what the proxy tells of itself
    access      a token and its store, for commands that serve nothing
    clock       where time and chance come from in a process that serves
    app         builds everything, and reloads it
    cli/        what a person types
    sandbox/    a fake SalesLoft, alone: it imports nothing of the others

The life of a request stands in ``forward.forward.Forwarder.handle``, top to bottom.
"""

__version__ = "0.1.0"
