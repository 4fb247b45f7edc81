"""The filter of system calls, run by an interpreter of its instructions: so the one of the other machine is tried as well."""

import pytest

from sens_payloads.codecs.sandbox import lockdown

ALLOW, KILL = 0x7FFF0000, 0x80000000
X86_64 = {
    "read": 0, "write": 1, "open": 2, "close": 3, "fstat": 5, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "ioctl": 16, "dup": 32,
    "socket": 41, "clone": 56, "fork": 57, "execve": 59, "exit": 60, "kill": 62, "ptrace": 101, "prctl": 157, "futex": 202,
    "clock_gettime": 228, "exit_group": 231, "openat": 257, "execveat": 322, "io_uring_setup": 425, "clone3": 435,
}  # fmt: skip
AARCH64 = {
    "read": 63, "write": 64, "openat": 56, "close": 57, "fstat": 80, "mmap": 222, "mprotect": 226, "munmap": 215, "brk": 214, "ioctl": 29,
    "dup": 23, "socket": 198, "clone": 220, "execve": 221, "exit": 93, "kill": 129, "ptrace": 117, "prctl": 167, "futex": 98,
    "clock_gettime": 113, "exit_group": 94, "execveat": 281, "io_uring_setup": 425, "clone3": 435,
}  # fmt: skip
NUMBERS = {"x86_64": X86_64, "aarch64": AARCH64}
MACHINES = pytest.mark.parametrize("machine", ["x86_64", "aarch64"])


def judge(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """Run the filter for one system call (linux/filter.h, struct seccomp_data)."""
    architecture = lockdown._ARCHITECTURES[machine]
    words = {0: number, 4: architecture.audit if audit is None else audit}
    for position, argument in enumerate((*arguments, 0, 0, 0, 0, 0, 0)[:6]):
        words[16 + 8 * position] = argument & 0xFFFFFFFF
        words[20 + 8 * position] = argument >> 32
    program = lockdown._instructions(architecture)
    accumulator = at = 0
    while True:
        operation, if_true, if_false, operand = program[at]
        at += 1
        if operation == 0x20:
            accumulator = words[operand]
        elif operation == 0x06:
            return operand
        else:
            true = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}
            at += if_true if true[operation] else if_false


@MACHINES
class TestTheFilter:
    def test_allows_what_a_child_needs(self, machine: str) -> None:
        numbers = NUMBERS[machine]
        for name in ("munmap", "brk", "clock_gettime", "exit", "exit_group"):
            assert judge(machine, numbers[name], 1, 2, 3) == ALLOW, name
        assert judge(machine, numbers["read"], 0, 5, 6) == judge(machine, numbers["write"], 1, 5, 6) == ALLOW
        assert judge(machine, numbers["mmap"], 0, 4096, 3) == judge(machine, numbers["mprotect"], 0, 4096, 1) == ALLOW
        assert judge(machine, numbers["futex"], 0, 129) == ALLOW

    def test_kills_for_all_else(self, machine: str) -> None:
        numbers = NUMBERS[machine]
        needed = {numbers[name] for name in ("read", "write", "mmap", "mprotect", "futex")}
        allowed = {number for number in range(600) if number not in needed and judge(machine, number) == ALLOW}

        assert allowed == set(lockdown._ARCHITECTURES[machine].plain)
        assert (
            allowed & {numbers[name] for name in numbers.keys() & {"open", "openat", "socket", "clone", "execve"}}
            == set()
        )

    def test_looks_at_arguments(self, machine: str) -> None:
        numbers = NUMBERS[machine]
        assert judge(machine, numbers["read"], 3) == judge(machine, numbers["read"], 1 << 32) == KILL
        assert judge(machine, numbers["write"], 2) == judge(machine, numbers["write"], 1 << 32 | 1) == KILL
        assert judge(machine, numbers["mmap"], 0, 4096, 7) == judge(machine, numbers["mprotect"], 0, 4096, 5) == KILL
        assert judge(machine, numbers["futex"], 0, 0) == judge(machine, numbers["futex"], 0, 128) == KILL

    def test_kills_callers_of_another_binary_interface(self, machine: str) -> None:
        write = NUMBERS[machine]["write"]
        other = {"x86_64": 0x40000003, "aarch64": 0x40000028}[machine]  # i386, arm
        assert judge(machine, write, 1, audit=other) == judge(machine, write | 0x40000000, 1) == KILL
