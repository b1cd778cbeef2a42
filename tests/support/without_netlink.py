"""A program that the kernel answers no question about sockets: ``python -m tests.support.without_netlink COMMAND``.

Services are confined so, by systemd's ``RestrictAddressFamilies=`` among others.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys

# The number of socket(2) (unistd.h).
SOCKET = {"x86_64": 41, "aarch64": 198}
# linux/prctl.h, linux/seccomp.h, linux/bpf_common.h
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
NUMBER_AT, FIRST_ARGUMENT_AT = 0, 16
EAFNOSUPPORT = 97


def confine() -> None:
    """Let nothing from here on open a socket of AF_NETLINK."""
    filtering = b"".join(
        struct.pack("=HBBI", *each)
        for each in (
            (LOAD, 0, 0, NUMBER_AT),
            (JUMP_IF_EQUAL, 0, 3, SOCKET[platform.machine()]),
            (LOAD, 0, 0, FIRST_ARGUMENT_AT),
            (JUMP_IF_EQUAL, 0, 1, socket.AF_NETLINK),
            (RETURN, 0, 0, FAIL | EAFNOSUPPORT),
            (RETURN, 0, 0, ALLOW),
        )
    )
    kept = ctypes.create_string_buffer(filtering, len(filtering))
    program = struct.pack("@HP", len(filtering) // 8, ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    confine()
    os.execvp(sys.argv[1], sys.argv[1:])  # the very program
