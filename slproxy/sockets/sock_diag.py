"""Linux's ``sock_diag(7)``: who owns a TCP socket of this network namespace. It needs no rights."""

from __future__ import annotations

import errno
import socket
import struct

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 1
_ALL_STATES = 0xFFF
_NO_COOKIE = 0xFFFFFFFF
# nlmsghdr; inet_diag_req_v2 up to the two ports of the socket's id, and what follows the two addresses.
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")
_PORTS = struct.Struct("!HH")
_ID_REST = struct.Struct("=III")
_ERROR = struct.Struct("=i")
# In inet_diag_msg: the ports stand behind family, state, timer and retransmissions, uid and inode at its end.
_PORTS_AT = _HEADER.size + 4
_OWNER = struct.Struct("=II")
_OWNER_AT = _HEADER.size + 64
_REPLY_SIZE = 4096

Address = tuple[str, int]


def opened() -> socket.socket:
    """Open a socket to the kernel that ``owner`` asks through. Raises OSError where the system has none."""
    if not hasattr(socket, "AF_NETLINK"):
        raise OSError(errno.EAFNOSUPPORT, "no netlink")
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)


def owner(kernel: socket.socket, near: Address, far: Address | None) -> int | None:
    """Return the uid of who owns the TCP socket whose own end is ``near``: connected to ``far``, or listening.

    ``None``: there is none, or nobody has it open any more. Of the latter (TIME_WAIT, closed with bytes unsent, not yet
    accepted) the kernel says uid 0, and inode 0: a client that sends and leaves is not root.

    Raises:
        OSError: the kernel does not answer.
    """
    family = socket.AF_INET6 if ":" in near[0] else socket.AF_INET
    port = 0 if far is None else far[1]
    query = (
        _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES)
        + _PORTS.pack(near[1], port)
        + socket.inet_pton(family, near[0]).ljust(16, b"\0")
        + (b"" if far is None else socket.inet_pton(family, far[0])).ljust(16, b"\0")
        + _ID_REST.pack(0, _NO_COOKIE, _NO_COOKIE)
    )
    kernel.send(_HEADER.pack(_HEADER.size + len(query), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0) + query)
    # The answer is made within the call that asks: there is nothing to wait for.
    reply = kernel.recv(_REPLY_SIZE, socket.MSG_DONTWAIT)
    if _HEADER.unpack_from(reply)[1] == _NLMSG_ERROR:
        code = -_ERROR.unpack_from(reply, _HEADER.size)[0]
        if code == errno.ENOENT:
            return None
        raise OSError(code, "sock_diag")
    uid, inode = _OWNER.unpack_from(reply, _OWNER_AT)
    # Where it finds no connection, the kernel answers with the owner of whatever listens on the near port.
    return int(uid) if inode and _PORTS.unpack_from(reply, _PORTS_AT) == (near[1], port) else None
