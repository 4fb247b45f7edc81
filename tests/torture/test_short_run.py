"""The path, broken many times in a minute: what the broker acknowledged is stored once with its values, or dead-lettered once."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.services import ROOT
from tools.torture.results import COLUMNSTORE, DROPPED

FAULTS = 25


@pytest.mark.timeout(900)  # on a machine with much else to do; about a minute on two free cores
def test_loses_doubles_and_changes_nothing(tmp_path: Path) -> None:
    installed = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    programs = os.environ.get("SENS_TEST_POSTGRES_BIN")
    result = tmp_path / "result.json"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "tools.torture", "--seed", "1870", "--faults", str(FAULTS), "--round", "9"),
            *("--broker", "mosquitto" if installed else "mock-mqtt-broker", "--rate", "100", "--no-disks"),
            *("--seconds", "0.1", "0.8", "--longest", "1.5", "--json", str(result)),
            *(["--postgres-programs", programs] if programs else []),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    outcome = json.loads(result.read_text())
    assert outcome["problems"] == []
    assert outcome["faults"] == FAULTS
    assert outcome["maintenance"][DROPPED] > 0
    assert (COLUMNSTORE in outcome["maintenance"]) == ("TimescaleDB" in outcome["database"])
    assert any(name.startswith("the broker killed") for name in outcome["groups"]) == bool(installed)
    assert (
        outcome["acknowledged"] - outcome["broker_lost"]
        <= outcome["stored"] + outcome["dead_lettered"]
        <= outcome["acknowledged"] + outcome["uncertain"]
    )
