"""Children that root starts as another account, on the real system."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sens_cli.up import account
from sens_cli.up.account import NAME, Account, Children, children, children_account
from sens_cli.up.process import process_identity
from sens_common.errors import SensError
from support.servers import scratch_folder, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts its children as another account")

NOBODY_ELSES = Account("60999", 60999, 60999)


def run(started_as: Children, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command as `sens up` does."""
    return subprocess.run(
        started_as.command(list(command)),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        stdin=subprocess.DEVNULL,
    )


class TestChildren:
    async def test_have_neither_roots_number_nor_its_groups_nor_a_way_back(self, tmp_path: Path) -> None:
        started_as = await children(tmp_path)
        status = run(started_as, "/bin/cat", "/proc/self/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert started_as.account is not None
        number = str(started_as.account.uid)
        assert number != "0"
        assert set(fields["Uid"].split()) == {number}
        assert fields["Groups"].strip() == ""
        assert fields["CapEff"] == "0" * 16
        assert fields["NoNewPrivs"] == "1"

    def test_reach_what_they_need_below_a_closed_folder_and_nothing_else_of_it(self) -> None:
        with scratch_folder("sens-account-") as folder:
            private = folder / "private"
            (private / "needed/deep").mkdir(parents=True)
            (private / "other").mkdir()
            (private / "needed/deep/file").write_text("wanted")
            private.chmod(0o700)
            refused = run(Children(NOBODY_ELSES), "/bin/cat", str(private / "needed/deep/file"))
            reached = run(
                Children(NOBODY_ELSES, (str(private / "needed"),)), "/bin/cat", str(private / "needed/deep/file")
            )
            seen = run(Children(NOBODY_ELSES, (str(private / "needed"),)), "/bin/ls", str(private))
            assert "Permission denied" in refused.stderr
            assert reached.stdout == "wanted"
            assert seen.stdout.split() == ["needed"]
            assert sorted(path.name for path in private.iterdir()) == ["needed", "other"]
            assert stat.S_IMODE(private.stat().st_mode) == 0o700

    def test_end_with_their_parent(self) -> None:
        script = (
            "import os, subprocess, sys; from sens_cli.up.account import Account, Children;"
            f"command = Children(Account('x', {NOBODY_ELSES.uid}, {NOBODY_ELSES.gid})).command(['/bin/sleep', '600']);"
            "child = subprocess.Popen(command); print(child.pid, flush=True);"
            # The launcher has become the program once its name is another one.
            "\nwhile open(f'/proc/{child.pid}/comm').read() != 'sleep\\n': pass\nos._exit(0)"
        )
        number = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
        wait_until(lambda: process_identity(number) is None, "the child ends")

    async def test_are_refused_at_the_start_where_the_account_can_run_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(SensError, match=r"can't run them: .*nothing_of_that_name.*\n.*another user"):
            await children(tmp_path, check="import nothing_of_that_name")


class TestFiles:
    def test_are_given_to_the_account_but_not_what_lies_elsewhere(self) -> None:
        with scratch_folder("sens-account-") as folder:
            (folder / "data/inner").mkdir(parents=True)
            (folder / "data/inner/own").write_text("x")
            (folder / "elsewhere").write_text("x")
            (folder / "data/link").symlink_to(folder / "elsewhere")
            (folder / "data/second").hardlink_to(folder / "elsewhere")
            Children(NOBODY_ELSES).give(folder / "data", folder / "missing")
            owners = {
                path.relative_to(folder).as_posix(): path.lstat().st_uid
                for path in [folder / "data", *folder.rglob("*")]
            }
        assert owners == {
            "data": NOBODY_ELSES.uid,
            "data/inner": NOBODY_ELSES.uid,
            "data/inner/own": NOBODY_ELSES.uid,
            "data/link": NOBODY_ELSES.uid,
            "data/second": 0,
            "elsewhere": 0,
        }


class TestTheAccount:
    def test_is_a_number_that_no_account_has(self) -> None:
        found = children_account()
        assert found is not None
        if found.name != NAME:
            assert not [
                line for line in Path("/etc/passwd").read_text().splitlines() if line.split(":")[2] == str(found.uid)
            ]

    def test_is_the_one_that_somebody_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = account.pwd.struct_passwd((NAME, "x", 4321, 4322, "", "/", "/bin/false"))  # type: ignore[attr-defined]  # same
        monkeypatch.setattr(account.pwd, "getpwnam", lambda _name: entry)  # type: ignore[attr-defined]  # same
        assert children_account() == Account(NAME, 4321, 4322)
