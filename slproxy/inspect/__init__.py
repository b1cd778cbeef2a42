"""The inspector: what happened lately, kept in memory and shown in the browser.

``inspector`` is the listener, and ``pages`` what is served. ``ring`` keeps what happened, ``feed`` streams it to tabs
that are open; ``rows``, ``details``, ``bodies`` and ``har`` word it, ``veil`` masks what is secret in that; ``resend``
makes a request of a recorded one; ``static`` are the files of the page.
"""

from slproxy.inspect.facts import facts_of
from slproxy.inspect.inspector import Inspector
from slproxy.inspect.pages import INSPECTOR, InspectorPages

__all__ = ["INSPECTOR", "Inspector", "InspectorPages", "facts_of"]
