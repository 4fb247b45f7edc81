"""What ``sens verify`` finds of the Linux user of deployments: on files of the test's own, as an account that is really asked."""

import base64
import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from sens_cli.verify import host
from sens_cli.verify.environment import Environment
from sens_cli.verify.host import check_host
from sens_cli.verify.outcome import CheckFailedError, NotRunError
from support.servers import scratch_folder

ACCOUNT = "system:serviceaccount:sens-test:deploy-test"
ENVIRONMENT = Environment(name="test", test_namespace="sens-test")
# Root looks at another account, anybody else at its own.
USER = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def token(subject: str) -> str:
    part = base64.urlsafe_b64encode(json.dumps({"sub": subject, "exp": 1}).encode()).decode().rstrip("=")
    return f"head.{part}.signature"


def kubeconfig(**user: str) -> str:
    return json.dumps({"kind": "Config", "users": [{"name": "x", "user": user}]}, indent=2)


class Server:
    """A server's files, and the home of the user."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.write("etc/rancher/k3s/k3s.yaml", mode=0o600 if os.geteuid() == 0 else 0)
        self.write("home/.kube/config", kubeconfig(token=token(ACCOUNT)), mode=0o600)

    def write(self, path: str, text: str = "secret", *, mode: int) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # it may be one that only root can write to
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    async def check(self) -> str:
        return await check_host(ENVIRONMENT, USER.pw_name, self.root)

    async def problem(self) -> str:
        with pytest.raises(CheckFailedError) as error:
            await self.check()
        assert host.RUNBOOK in error.value.remedy
        return error.value.detail


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that is in order; its files can be reached by everybody."""
    with scratch_folder("sens-host-") as folder:
        folder.chmod(0o755)
        found = Server(folder)
        user = host.LinuxUser(USER.pw_name, USER.pw_uid, USER.pw_gid, [USER.pw_gid], found.home)
        monkeypatch.setattr(host.LinuxUser, "find", lambda _name: user)
        # Programs of this machine say nothing of a server that is made up.
        monkeypatch.setattr(host, "_sudo_rules", _no_rules)
        yield found


async def _no_rules(_user: host.LinuxUser) -> str:
    return ""


class TestAServer:
    async def test_that_is_in_order(self, server: Server) -> None:
        assert (await server.check()).endswith("has no other kubeconfig; no sudo")

    @pytest.mark.parametrize(
        "path",
        [
            "etc/rancher/k3s/k3s.yaml",
            "var/lib/rancher/k3s/server/token",
            "root/.kube/config",
            "var/lib/rancher/k3s/storage/pvc/data",
        ],
    )
    async def test_whose_keys_and_volumes_can_be_read(self, server: Server, path: str) -> None:
        server.write(path, mode=0o644)

        assert "it can read" in await server.problem()

    @pytest.mark.parametrize("path", ["run/docker.sock", "usr/local/bin/k3s", "etc/systemd/system/k3s.service"])
    async def test_whose_programs_can_be_changed(self, server: Server, path: str) -> None:
        server.write(path, mode=0o666)

        assert f"it can write to {server.root / path}" in await server.problem()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                kubeconfig(token=token("system:serviceaccount:sens-production:deploy")),
                "a token of system:serviceaccount:sens-production",
            ),
            (kubeconfig(token="opaque"), "a token of nobody that it names"),
            ("users:\n- user:\n    client-key-data: eA==\n", "a credential of another kind (client-key-data)"),
            ('{"users":[{"user":{"password":"x"}}]}', "a credential of another kind (password)"),
        ],
        ids=["production", "opaque", "administrator", "one line"],
    )
    @pytest.mark.parametrize("file", ["home/.kube/production", "home/production.kubeconfig"])
    async def test_where_it_has_another_key_of_the_cluster(
        self, server: Server, file: str, text: str, said: str
    ) -> None:
        server.write(file, text, mode=0o600)

        problem = await server.problem()

        assert f"{server.root / file} holds {said}" in problem
        assert "opaque" not in problem.replace("pytest-opaque", "")

    async def test_where_others_can_read_its_key(self, server: Server) -> None:
        (server.home / ".kube/config").chmod(0o640)

        assert f"others can read {server.home / '.kube/config'}" in await server.problem()

    async def test_where_sudo_lets_it(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        async def rules(_user: host.LinuxUser) -> str:
            return "(ALL) NOPASSWD: ALL"

        monkeypatch.setattr(host, "_sudo_rules", rules)

        assert "sudo: (ALL) NOPASSWD: ALL" in await server.problem()

    async def test_where_only_root_can_list_what_sudo_allows(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def unknown(_user: host.LinuxUser) -> None:
            return None

        monkeypatch.setattr(host, "_sudo_rules", unknown)

        with pytest.raises(NotRunError, match="root alone can list what sudo allows it: sudo -l -U"):
            await server.check()

    async def test_where_it_is_in_a_powerful_group(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        user = host.LinuxUser(USER.pw_name, USER.pw_uid, USER.pw_gid, [USER.pw_gid, 0], server.home)
        monkeypatch.setattr(host.LinuxUser, "find", lambda _name: user)

        assert "it is in the group root" in await server.problem()


class TestElsewhere:
    async def test_nothing_is_known(self, tmp_path: Path) -> None:
        with pytest.raises(NotRunError, match="this is not the server"):
            await check_host(ENVIRONMENT, root=tmp_path)

    async def test_without_the_user_nothing_is_known(self, tmp_path: Path) -> None:
        (tmp_path / "etc/rancher/k3s").mkdir(parents=True)

        with pytest.raises(NotRunError, match="no Linux user nobody-of-this-name"):
            await check_host(ENVIRONMENT, "nobody-of-this-name", tmp_path)

    async def test_the_account_must_be_known(self, tmp_path: Path) -> None:
        with pytest.raises(NotRunError, match="--deploy-account"):
            await check_host(Environment(name="x"), root=tmp_path)


class TestSudo:
    """Its answers, as sudo 1.9 gives them (plugins/sudoers/sudoers.c)."""

    @pytest.mark.parametrize(
        ("output", "code", "rules"),
        [
            ("User deploy-test is not allowed to run sudo on server.", 0, ""),
            (
                "User deploy-test may run the following commands on server:\n    (ALL) NOPASSWD: ALL",
                0,
                "(ALL) NOPASSWD: ALL",
            ),
        ],
    )
    @pytest.mark.skipif(os.geteuid() != 0, reason="not run: only root lists what sudo allows another user")
    async def test_is_understood(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, code: int, rules: str
    ) -> None:
        program = tmp_path / "sudo"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit {code}\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        user = host.LinuxUser("deploy-test", 1, 1, [1], tmp_path)

        found = await host._sudo_rules(user)

        assert (found == "") == (rules == "")
        assert rules in (found or "")
