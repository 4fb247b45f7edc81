"""Which programs of PostgreSQL serve a data folder, and what is said of those that can't."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sens_cli.up import postgres_programs
from sens_cli.up.data import DataFolder
from sens_common.errors import SensError


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataFolder]:
    folder = DataFolder(tmp_path / "data")
    folder.open()
    yield folder
    folder.close()


def installation(folder: Path, *, timescaledb: str | None = None, version: str = "18.6") -> Path:
    """Make an installation that can only tell its version; return the folder of its programs."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (programs / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (programs / name).chmod(0o755)
    if timescaledb is not None:
        (folder / timescaledb).mkdir(parents=True)
        (folder / timescaledb / "timescaledb.so").touch()
    return programs


class TestTimescaledb:
    @pytest.mark.parametrize(
        ("libraries", "found"), [("lib", True), ("lib64/pgsql", True), ("lib/postgresql", True), (None, False)]
    )
    def test_is_found_where_installations_keep_extensions(
        self, tmp_path: Path, libraries: str | None, found: bool
    ) -> None:
        assert postgres_programs.have_timescaledb(installation(tmp_path, timescaledb=libraries)) is found


class TestCheck:
    def test_takes_the_embedded_programs_for_a_new_folder_and_for_its_own(self, data: DataFolder) -> None:
        postgres_programs.check(data, None)
        postgres_programs.note(data, None)
        postgres_programs.check(data, None)

    def test_takes_other_programs_without_timescaledb_or_the_embedded_ones_afterwards(
        self, data: DataFolder, tmp_path: Path
    ) -> None:
        programs = installation(tmp_path / "other")
        postgres_programs.check(data, programs)
        postgres_programs.note(data, programs)
        postgres_programs.check(data, None)

    def test_names_what_is_missing_in_a_folder(self, data: DataFolder, tmp_path: Path) -> None:
        with pytest.raises(SensError, match="there is no postgres; name the folder of an installation"):
            postgres_programs.check(data, tmp_path)

    def test_refuses_programs_without_timescaledb_for_data_made_with_it(self, data: DataFolder, tmp_path: Path) -> None:
        with_it = installation(tmp_path / "with", timescaledb="lib")
        postgres_programs.note(data, with_it)
        for programs in (None, installation(tmp_path / "without")):
            with pytest.raises(SensError, match=f"start with --postgres-programs {with_it}"):
                postgres_programs.check(data, programs)
        postgres_programs.check(data, with_it)
        postgres_programs.check(data, installation(tmp_path / "newer", timescaledb="lib"))

    def test_refuses_another_major_version(self, data: DataFolder, tmp_path: Path) -> None:
        data.postgres.mkdir()
        (data.postgres / "PG_VERSION").write_text("17\n")
        postgres_programs.check(data, installation(tmp_path / "same", version="17.6"))
        with pytest.raises(
            SensError, match=r"is of PostgreSQL 17, and the programs in .* are of 18: .* dump and a restore"
        ):
            postgres_programs.check(data, installation(tmp_path / "newer", version="18.6"))

    def test_says_when_the_programs_do_not_tell_their_version(self, data: DataFolder, tmp_path: Path) -> None:
        data.postgres.mkdir()
        (data.postgres / "PG_VERSION").write_text("18\n")
        programs = installation(tmp_path / "other")
        (programs / "postgres").write_text("#!/bin/sh\nexit 1\n")
        with pytest.raises(SensError, match="postgres does not tell its version"):
            postgres_programs.check(data, programs)
