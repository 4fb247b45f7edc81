"""Moves measurements of an earlier version: ``python -m sens_common.moving``, as the database's owner."""

from sens_common.lifecycle import run
from sens_common.moving.run import MoveSettings, move_and_log

if __name__ == "__main__":
    run("move", MoveSettings, move_and_log)
