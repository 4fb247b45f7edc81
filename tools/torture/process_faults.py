"""Faults of processes, connections and disks: killed, paused, restarted, cut off, full. Each is over when its function returns."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import nats

from tools.stack.path import INGESTION, Stack
from tools.stack.programs import BROKER, NATS, POSTGRES
from tools.stack.proxy import Mode

_GRACE_SECONDS: Final = 5.0
_STUTTER_SECONDS: Final = 0.15

type Happening = Callable[[Stack, float], None]
"""Takes the path and the seconds that it lasts."""


def killed(*names: str) -> Happening:
    def happen(stack: Stack, seconds: float) -> None:
        for name in names:
            stack[name].kill()
        time.sleep(seconds)
        stack.start(*names)

    return happen


def codecs_killed(name: str) -> Happening:
    """Kill the processes in which a telemetry worker runs codecs, again and again."""

    def happen(stack: Stack, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            stack[name].kill_children()
            time.sleep(_STUTTER_SECONDS)

    return happen


def broker_killed(*others: str, saved: bool) -> Happening:
    """Kill Mosquitto some time after it has written its sessions to disk, so that it takes up old ones, or as if it never had."""

    def happen(stack: Stack, seconds: float) -> None:
        if saved:
            stack.save_sessions()
            time.sleep(seconds / 2)
        else:
            stack.forget_sessions()
        for name in (*others, BROKER):
            stack[name].kill()
        time.sleep(seconds / 2)
        stack.start(BROKER, *others)

    return happen


def broker_killed_after_backlog(stack: Stack, seconds: float) -> None:
    """Kill Mosquitto when what it has on disk as in flight and as queued has long been taken over."""
    stack[NATS].kill()
    time.sleep(seconds / 4)  # what comes now is sent and not acknowledged
    stack[INGESTION].kill()
    time.sleep(seconds / 4)  # what comes now is queued
    stack.save_sessions()
    stack.start(NATS, INGESTION)
    time.sleep(seconds / 4)
    stack[BROKER].kill()
    time.sleep(seconds / 4)
    stack.start(BROKER)


def paused(name: str) -> Happening:
    def happen(stack: Stack, seconds: float) -> None:
        stack[name].pause()
        time.sleep(seconds)
        stack[name].resume()

    return happen


def cut(name: str, mode: Mode) -> Happening:
    def happen(stack: Stack, seconds: float) -> None:
        stack.proxies[name].set(mode)
        time.sleep(seconds)
        stack.proxies[name].set(Mode.OPEN)

    return happen


def restarted(*names: str) -> Happening:
    """Stop and start one after the other, as an upgrade or an operator does."""

    def happen(stack: Stack, seconds: float) -> None:
        for name in names or stack.workers:
            stack[name].stop()
            time.sleep(seconds / 4)
            stack.start(name)

    return happen


def gone(name: str) -> Happening:
    def happen(stack: Stack, seconds: float) -> None:
        stack[name].stop()
        time.sleep(seconds)
        stack.start(name)

    return happen


def all_restarted(stack: Stack, seconds: float) -> None:
    for name in reversed(stack.names):
        stack[name].stop()
    time.sleep(seconds / 4)
    for name in stack.names:
        if name not in stack.workers:
            stack.start(name)
    stack.start(*stack.workers)


def stuttering(stack: Stack, seconds: float) -> None:
    """Let the database work in short turns only."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stack[POSTGRES].pause()
        time.sleep(_STUTTER_SECONDS)
        stack[POSTGRES].resume()
        time.sleep(_STUTTER_SECONDS / 3)


def no_room_for(stream: str) -> Happening:
    """Leave a stream no room: a limit of what it holds already."""

    async def squeeze(stack: Stack, seconds: float) -> None:
        client = await nats.connect(**stack.nats_login)
        try:
            jetstream = client.jetstream()
            info = await jetstream.stream_info(stream)
            limit = info.config.max_bytes
            info.config.max_bytes = max(info.state.bytes, 1)
            await jetstream.update_stream(info.config)
            try:
                await asyncio.sleep(seconds)
            finally:
                info.config.max_bytes = limit
                await jetstream.update_stream(info.config)
        finally:
            await client.close()

    return lambda stack, seconds: asyncio.run(squeeze(stack, seconds))


def disk_full(name: str) -> Happening:
    """Fill the server's disk. A server that does not recover by itself is started again, as its supervisor would."""

    def happen(stack: Stack, seconds: float) -> None:
        with _filled(stack, name):
            time.sleep(seconds)
        if not stack[name].becomes_ready(_GRACE_SECONDS):
            stack[name].stop()
        stack.start(name)

    return happen


@contextmanager
def _filled(stack: Stack, name: str) -> Iterator[None]:
    stack.disks[name].fill()
    try:
        yield
    finally:
        stack.disks[name].make_room()
