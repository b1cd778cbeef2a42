"""Bodies as the inspector shows them: text where they are text, decompressed as far as what was kept allows."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable, Sequence

from slproxy.observe import MASK, KeptBody

# How much is shown of what a body holds once it is decompressed, in bytes: a little of it may become gigabytes.
SHOWN = 256 * 1024

# Without a type, it is looked at.
_TEXT = re.compile(r"text/.*|application/(.*[+])?(json|xml|javascript|x-www-form-urlencoded)|", re.IGNORECASE)
# Those of texts: Python knows others as well, of which some take long, and one always fails.
_CHARSET = re.compile(
    r"charset\s*=\s*\"?(utf-?(?:8|16|32)|(?:us-)?ascii|latin-?1|iso-?8859-[0-9]+|windows-[0-9]+|shift_jis|euc-(?:jp|kr)"
    r"|gb[0-9k]+|big5)\b",
    re.IGNORECASE,
)
# Of the control characters, text has these.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f]")

Headers = Sequence[tuple[str, str]]
Mask = Callable[[str, bool], str]


def body_document(kept: KeptBody | None, headers: Headers, *, size: int, mask: Mask) -> dict[str, object]:
    """Return a body as the page gets it; ``size`` is how long it was where nothing of it was kept.

    ``mask`` masks what is secret in a text, which may have been cut.
    """
    kind = first(headers, "content-type")
    if kept is None or not kept.size:
        missing = "none" if not size else "unrecorded"
        return {"kind": missing, "type": kind, "size": size, "kept": 0}
    document: dict[str, object] = {"type": kind, "size": kept.size, "kept": len(kept.data)}
    data, is_cut = decoded(bytes(kept.data), first(headers, "content-encoding"))
    is_cut = is_cut or len(kept.data) < kept.size
    text = None if data is None else as_text(data, kind, is_cut=is_cut)
    if text is None:
        # Masked before it is encoded: half of what would be masked in base64 is the end of something else.
        binary = mask(kept.data.decode("latin-1"), is_cut).replace(MASK, "***").encode("latin-1")
        return {"kind": "binary", **document, "base64": base64.b64encode(binary).decode()}
    return {"kind": "text", **document, "text": mask(text, is_cut), "cut": is_cut}


def decoded(data: bytes, coding: str) -> tuple[bytes | None, bool]:
    """Return what a content coding holds, ``None`` where that is not known, and whether something of it is missing."""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return data, False
    if coding not in ("gzip", "x-gzip", "deflate"):
        return None, True
    # RFC 9110 §8.4.1.2 means the zlib format by "deflate", and some servers the bare one.
    for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
        inflate = zlib.decompressobj(bits)
        try:
            plain = inflate.decompress(data, SHOWN)
        except zlib.error:
            continue
        return plain, not inflate.eof or bool(inflate.unconsumed_tail)
    return None, True


def as_text(data: bytes, kind: str, *, is_cut: bool) -> str | None:
    """Return data as text if its type, or what it looks like, says that it is."""
    named = _CHARSET.search(kind)
    if _TEXT.fullmatch(kind.partition(";")[0].strip()) is None:
        return None
    try:
        text = data.decode(named[1] if named is not None else "utf-8")
    except (UnicodeDecodeError, LookupError):
        if not is_cut:
            return None
        text = data.decode("utf-8", "replace")
    return None if _CONTROL.search(text) and not kind else text


def first(headers: Headers, name: str) -> str:
    """Return the first value of a header, or nothing."""
    return next((value for key, value in headers if key.lower() == name), "")
