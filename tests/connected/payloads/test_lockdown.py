"""Tries to break out of a process that was locked down as a child is, with and without the rights of root."""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sens_payloads.codecs.sandbox import lockdown

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux'")

PROBE = """
import ctypes, mmap, os, signal, socket, subprocess, sys, time, threading
sys.path.append(sys.argv[1])
from sens_payloads.codecs.sandbox import lockdown
libc = ctypes.CDLL(None, use_errno=True)
NOBODY = 65534
if sys.argv[2] == "nobody":
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
parent = os.getppid()
machine_code = b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3"  # mov eax, 20 (getpid of i386); int 0x80; ret
executable = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
executable.write(machine_code)
call_i386 = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(executable)))
if sys.argv[3] == "cpu":
    lockdown.CPU_SECONDS = 1
lockdown.lock_down()
os.write(1, b"locked ")
exec(sys.argv[4])
os.write(1, b"done")
os._exit(0)
"""

USERS = ["same", "nobody"] if os.geteuid() == 0 else ["same"]
SYS = -signal.SIGSYS
SOURCE = str(Path(lockdown.__file__).parents[3])


def attempt(code: str, user: str, option: str = "") -> "subprocess.CompletedProcess[bytes]":
    arguments = [sys.executable, "-I", "-S", "-B", "-c", PROBE, SOURCE, user, option, code]
    return subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, env={})


@pytest.mark.parametrize("user", USERS)
class TestALockedDownProcess:
    @pytest.mark.parametrize(
        "code",
        [
            "open('/etc/passwd')",
            "open('/proc/self/mem', 'r+b')",
            "open('/dev/null')",
            "os.listdir('/')",
            "os.stat('/')",
            "os.unlink('/tmp/does-not-exist')",
            "socket.socket()",
            "socket.socketpair()",
            "os.pipe()",
            "os.dup(1)",
            "os.fork()",
            "os.posix_spawn('/bin/true', ['true'], {})",
            "threading.Thread(target=print).start()",
            "os.execv('/bin/true', ['true'])",
            "os.execv(sys.executable, ['python', '-c', 'import os; os.write(1, b\"escaped\")'])",
            "os.kill(parent, 0)",
            "os.kill(os.getpid(), signal.SIGTERM)",
            "libc.ptrace(16, parent, 0, 0)",
            "libc.process_vm_readv(parent, 0, 0, 0, 0, 0)",
            "libc.prctl(4, 1, 0, 0, 0)",
            "os.setuid(0)",
            "os.nice(-5)",
            "os.chroot('/')",
            "libc.unshare(0x10000000)",
            "libc.syscall(425, 1, 0)",  # io_uring_setup
            "libc.syscall(435, 0, 0)",  # clone3
            "libc.syscall(321, 0, 0, 0)" if platform.machine() == "x86_64" else "libc.syscall(280, 0, 0, 0)",  # bpf
            "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
            "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
            "libc.mprotect(ctypes.c_void_p(ctypes.addressof(libc.mprotect) & ~4095), 4096, 7)",
            "os.write(2, b'x')",
            "os.write(3, b'x')",
            "libc.write(ctypes.c_long(1 << 32 | 1), b'x', 1)",
            "os.read(1, 1)",
            "time.sleep(0.01)",
            "import json",
        ],
    )
    def test_ends_when_it_asks_for_more(self, code: str, user: str) -> None:
        ended = attempt(code, user)

        assert (ended.stdout, ended.returncode) == (b"locked ", SYS)

    @pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 and i386 are x86_64's other interfaces")
    @pytest.mark.parametrize("code", ["libc.syscall(ctypes.c_long(0x40000000 | 1), 1, b'x', 1)", "call_i386()"])
    def test_ends_when_it_speaks_another_binary_interface(self, code: str, user: str) -> None:
        assert (attempt(code, user).returncode, attempt("pass", user).returncode) == (SYS, 0)

    def test_may_compute_ask_for_the_time_and_take_memory(self, user: str) -> None:
        ended = attempt(
            "a = [bytes(1 << 20) for _ in range(64)]; time.time(); time.process_time(); time.monotonic(); del a", user
        )

        assert (ended.stdout, ended.returncode) == (b"locked done", 0)

    def test_gets_no_memory_beyond_its_limit(self, user: str) -> None:
        ended = attempt(
            "\ntry: bytearray(10 << 30)\nexcept MemoryError: os.write(1, b'refused ')\n"
            "a = []\ntry:\n while True: a.append(bytearray(1 << 20))\nexcept MemoryError: n = len(a); a.clear(); os.write(1, b'%d ' % n)\n",
            user,
        )

        locked, refused, megabytes, done = ended.stdout.split()
        assert (locked, refused, done) == (b"locked", b"refused", b"done")
        assert 100 < int(megabytes) < 200

    def test_that_never_ends_is_ended(self, user: str) -> None:
        assert attempt("while True: pass", user, "cpu").returncode in {-signal.SIGXCPU, -signal.SIGKILL}

    def test_that_crashes_leaves_no_core(self, user: str) -> None:
        assert attempt("ctypes.string_at(0)", user).returncode == -signal.SIGSEGV
        assert list(Path("/").glob("core*")) == list(Path().glob("core*")) == []


class TestAForeignMachine:
    def test_is_refused_in_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "riscv64")

        with pytest.raises(lockdown.LockdownError, match="no seccomp filter is known for linux on riscv64"):
            lockdown._filter_system_calls()
