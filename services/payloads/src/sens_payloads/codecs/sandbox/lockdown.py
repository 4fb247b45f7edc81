"""Takes from this process what a codec must never have: files, network, other processes, more memory. There is no way back.

Sources: seccomp(2), prctl(2), setrlimit(2); numbers of system calls from Linux' arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h (aarch64). They never change.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from typing import Final, NamedTuple

MEMORY_BYTES: Final = 192 << 20
"""Address space beyond what the process has when it is locked down."""
CPU_SECONDS: Final = 900
"""CPU time of a child's whole life; it is replaced long before."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_SIGKILL: Final = 9
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_IF_NOT_BELOW: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_JUMP_IF_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_OFFSET_NUMBER: Final = 0  # struct seccomp_data
_OFFSET_ARCHITECTURE: Final = 4
_OFFSET_ARGUMENTS: Final = 16
_X32_BIT: Final = 0x40000000
_PROT_EXEC: Final = 4
_FUTEX_WAKE_PRIVATE: Final = 129


class _Architecture(NamedTuple):
    """Numbers of one machine.

    Attributes:
        audit: AUDIT_ARCH_…, include/uapi/linux/audit.h.
        seccomp: Number of seccomp(2).
        read: Allowed from descriptor 0 only.
        write: Allowed to descriptor 1 only.
        mapping: mmap, mprotect: allowed without PROT_EXEC only.
        futex: Allowed as FUTEX_WAKE only, which pthread_once(3) calls though nobody waits.
        plain: munmap, mremap, madvise, brk, clock_gettime, gettimeofday, exit, exit_group, and on x86_64 time.
    """

    audit: int
    seccomp: int
    read: int
    write: int
    mapping: tuple[int, ...]
    futex: int
    plain: tuple[int, ...]


_ARCHITECTURES: Final = {
    "x86_64": _Architecture(0xC000003E, 317, 0, 1, (9, 10), 202, (11, 25, 28, 12, 228, 96, 60, 231, 201)),
    "aarch64": _Architecture(0xC00000B7, 277, 63, 64, (222, 226), 98, (215, 216, 233, 214, 113, 169, 93, 94)),
}


class LockdownError(Exception):
    """This system can't take the rights away; the text says what is missing."""


def lock_down(*, allow_without_seccomp: bool = False) -> bool:
    """Take away all rights but reading from descriptor 0, writing to descriptor 1, memory, clock and exit.

    Args:
        allow_without_seccomp: Where the system has no seccomp, go on with resource limits alone.

    Returns:
        Whether system calls are filtered.

    Raises:
        LockdownError: They can't be, and that is not allowed.
    """
    os.closerange(3, 65536)
    _limit_resources()
    try:
        _filter_system_calls()
    except LockdownError:
        if not allow_without_seccomp:
            raise
        return False
    return True


def _limit_resources() -> None:
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NOFILE": 3,
        "RLIMIT_NPROC": 0,
        "RLIMIT_CPU": CPU_SECONDS,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    if sys.platform == "linux":
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - pathlib would be loaded for this alone
            pages = int(statm.read().split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY_BYTES)
    for name, limit in limits.items():
        if hasattr(resource, name):
            _lower(getattr(resource, name), limit)


def _lower(limited: int, limit: int) -> None:
    hard = resource.getrlimit(limited)[1]
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(limited, (limit, limit))
    else:
        resource.setrlimit(limited, (hard, hard))


def _filter_system_calls() -> None:
    architecture = _ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or architecture is None or sys.maxsize < 2**32:
        raise LockdownError(f"no seccomp filter is known for {sys.platform} on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    # SIGKILL when the parent ends; no core and no look into the memory; no program that raises rights.
    for option, value in ((_PR_SET_PDEATHSIG, _SIGKILL), (_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
            raise LockdownError(f"prctl({option}) was refused: {os.strerror(ctypes.get_errno())}")
    instructions = _instructions(architecture)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in instructions))
    # struct sock_fprog: a length, and an aligned pointer to the instructions
    program = ctypes.create_string_buffer(struct.pack("@HP", len(instructions), ctypes.addressof(code)))
    refused = libc.syscall(
        ctypes.c_long(architecture.seccomp),
        ctypes.c_ulong(_SECCOMP_SET_MODE_FILTER),
        ctypes.c_ulong(_SECCOMP_FILTER_FLAG_TSYNC),
        program,
    )
    if refused != 0:
        reason = os.strerror(ctypes.get_errno()) if refused < 0 else "another thread can't be filtered"
        raise LockdownError(f"seccomp was refused: {reason}")


def _instructions(architecture: _Architecture) -> list[tuple[int, int, int, int]]:
    """Return the filter as (operation, jump if true, jump if false, operand), linux/filter.h."""
    allow, kill = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _KILL_PROCESS)
    number = (_LOAD, 0, 0, _OFFSET_NUMBER)
    program = [
        (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, architecture.audit),
        kill,
        number,
        (_JUMP_IF_NOT_BELOW, 0, 1, _X32_BIT),
        kill,
    ]
    for plain in architecture.plain:
        program += [(_JUMP_IF_EQUAL, 0, 1, plain), allow]
    for call, descriptor in ((architecture.read, 0), (architecture.write, 1)):
        # Both halves of the 64-bit argument; both machines are little-endian.
        program += [
            (_JUMP_IF_EQUAL, 0, 6, call),
            (_LOAD, 0, 0, _OFFSET_ARGUMENTS),
            (_JUMP_IF_EQUAL, 1, 0, descriptor),
            kill,
            (_LOAD, 0, 0, _OFFSET_ARGUMENTS + 4),
            (_JUMP_IF_EQUAL, 0, 1, 0),
            allow,
            number,
        ]
    for call in architecture.mapping:
        program += [
            (_JUMP_IF_EQUAL, 0, 4, call),
            (_LOAD, 0, 0, _OFFSET_ARGUMENTS + 2 * 8),
            (_JUMP_IF_ANY_BIT, 0, 1, _PROT_EXEC),
            kill,
            allow,
        ]
    program += [
        (_JUMP_IF_EQUAL, 0, 4, architecture.futex),
        (_LOAD, 0, 0, _OFFSET_ARGUMENTS + 8),
        (_JUMP_IF_EQUAL, 1, 0, _FUTEX_WAKE_PRIVATE),
        kill,
        allow,
    ]
    return [*program, kill]
