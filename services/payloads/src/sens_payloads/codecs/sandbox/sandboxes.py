"""The sandbox: decodes calls in children, one for each tenant, and keeps one tenant's codec from costing others anything."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from types import TracebackType
from typing import Final, Literal, Self

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_payloads.codecs.calls import MAX_FRAME_BYTES, MAX_SOURCE_BYTES, Call, Outcome
from sens_payloads.codecs.sandbox import conversation
from sens_payloads.codecs.sandbox.budget import WasteBudget
from sens_payloads.codecs.sandbox.child_limits import CALL_SECONDS
from sens_payloads.codecs.sandbox.cpu_clock import CpuClock
from sens_payloads.codecs.sandbox.process import Child, ChildEndedError, NotStartedError
from sens_payloads.profiles import CodecVersion

GROUP_SECONDS: Final = 1.0
"""CPU time of the calls that are decoded together, beside what follows."""
GROUP_SECONDS_PER_CALL: Final = 0.0005
_GROUP_WALL_SECONDS: Final = 20.0
_MAX_GROUP_BYTES: Final = 32 << 20
"""Results of the calls that are decoded together, as JSON."""
_FREE_SECONDS: Final = 0.03
"""CPU time that a group may take besides: to load the codec, and for calls that take longer now and then."""
_OVERRUN_RATIO: Final = 3
"""A call that ends at its limit is charged with the time that passed, at most so many times its CPU time: others wait meanwhile."""
_DEATH_SECONDS: Final = 0.25
"""What the end of a child costs: what it computed, and the start of the next."""
_DEATH_FROM_OUTSIDE_SECONDS: Final = 0.05
"""What it costs where the codec need not be the reason: the start of the next."""
_DEATHS_FROM_OUTSIDE: Final = 10
"""So many of them are borne while calls are decoded together; the next one is the fault of a call."""
_STARTS: Final = 3
"""So often is it tried to start a child: the system may have no room for it just now."""
_KILLED_STARTS: Final = 10
"""So often, where the system or a person ends it before it can do anything."""
_LIFETIME_SECONDS: Final = 600.0
"""CPU time after which a child is replaced."""
_MAX_REMEMBERED: Final = 1000
"""Tenants without a child of which something is remembered."""


type Ending = Literal["idle", "room", "replaced", "fault", "killed", "overrun", "stopped"]
"""Why a child ends: it had nothing to do; another tenant needed its place; it had lived long enough; it crashed, hung or wrote nonsense; the system
killed it or gave it no turn; its codec took too long for a batch; whoever asked it is stopped."""


class Sandbox:
    """Children for the codecs of tenants. It is used within one event loop, and closed at the end (`async with`)."""

    def __init__(
        self,
        *,
        allow_without_seccomp: bool = False,
        max_children: int = 16,
        idle_seconds: float = 60.0,
        note_end: Callable[[Ending], None] = lambda _ending: None,
    ) -> None:
        """Make a sandbox; the first call of a tenant starts its child.

        Args:
            allow_without_seccomp: Run codecs also where system calls can't be filtered (not on Linux). For machines whose codecs are all one's own.
            max_children: Tenants beyond it wait for a child of another one that has nothing to do, which is ended.
            idle_seconds: After so long without a call a child is ended.
            note_end: Called when a child has ended or is ended.
        """
        self._allow_without_seccomp = allow_without_seccomp
        self._max_children = max_children
        self._idle_seconds = idle_seconds
        self._note_end = note_end
        self._tenants: dict[Hashable, _Tenant] = {}
        self._children = 0
        self._ending: set[Child] = set()
        self._changed = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def decode(self, tenant: int | str, codec: CodecVersion, calls: Sequence[Call]) -> list[Outcome]:
        """Decode frames of one tenant with one codec.

        The same call has the same outcome whenever it is decoded, whatever was decoded before it; save for a limit of time, which a busy machine may bring
        about.

        Args:
            tenant: Its id or name. Calls of one tenant wait for each other.
            codec: The version.
            calls: In any number.

        Returns:
            What became of each call, in their order. Errors have the reason `codec_error`, `codec_limit`, or what the values can't be stored for.

        Raises:
            UnavailableError: No child can be started; nothing is said of any call.
        """
        async with self._tenant(tenant).lock:
            try:
                return await _Group(self, self._tenant(tenant), codec, calls).decode()
            finally:
                self._rest(tenant)

    async def form(self, tenant: int | str, codec: CodecVersion) -> int:
        """Load a codec and return its form, an index of `protocol.FORMS`, -1 where it has none.

        Raises:
            RejectedMessageError: It can't be loaded.
            UnavailableError: No child can be started.
        """
        async with self._tenant(tenant).lock:
            try:
                return await _Group(self, self._tenant(tenant), codec, ()).form()
            finally:
                self._rest(tenant)

    async def close(self) -> None:
        """End all children. Calls that are under way fail."""
        self._closed = True
        for tenant in self._tenants.values():
            self.retire(tenant, "stopped")
        for child in tuple(self._ending):
            await child.end()

    async def child(self, tenant: "_Tenant") -> Child:
        """Return a tenant's child, started if there is none.

        Raises:
            UnavailableError: It can't be started.
        """
        child = tenant.child
        if child is not None and (not child.alive or (child.cpu_seconds or 0.0) > _LIFETIME_SECONDS):
            self.retire(tenant, "replaced" if child.alive else "killed")
            child = None
        if child is None:
            while self._children >= self._max_children:
                idle = next((other for other in self._by_use() if other.is_idle), None)
                if idle is not None:
                    self.retire(idle, "room")
                    continue
                self._changed.clear()
                await self._changed.wait()
            self._children += 1
            try:
                child = await self._started()
            except BaseException:
                self._children -= 1
                self._changed.set()
                raise
            tenant.child = child
            if self._closed:
                self.retire(tenant, "stopped")
        return child

    async def _started(self) -> Child:
        starts = killed = 0
        while True:
            try:
                return await Child.start(allow_without_seccomp=self._allow_without_seccomp)
            except NotStartedError as error:
                killed += error.is_from_outside
                starts += not error.is_from_outside
                if starts == _STARTS or killed == _KILLED_STARTS:
                    raise

    def retire(self, tenant: "_Tenant", why: Ending) -> None:
        """End a tenant's child, if it has one."""
        child, tenant.child = tenant.child, None
        if child is not None:
            self._note_end(why)
            child.kill()
            self._children -= 1
            self._ending = {ending for ending in self._ending if ending.alive} | {child}
            self._changed.set()

    def _tenant(self, name: Hashable) -> "_Tenant":
        tenant = self._tenants.get(name)
        if tenant is None:
            now = asyncio.get_running_loop().time()
            if len(self._tenants) >= _MAX_REMEMBERED:
                self._tenants = {
                    other: known
                    for other, known in self._tenants.items()
                    if known.child is not None or known.lock.locked() or not known.waste.is_full(now)
                }
            tenant = self._tenants[name] = _Tenant(now)
        return tenant

    def _by_use(self) -> list["_Tenant"]:
        return sorted(self._tenants.values(), key=lambda tenant: tenant.used_at)

    def _rest(self, name: Hashable) -> None:
        """Note that a tenant's calls are answered; if none follow, its child is ended after a while."""
        tenant = self._tenants[name]
        loop = asyncio.get_running_loop()
        tenant.used_at = loop.time()
        if tenant.timer is not None:
            tenant.timer.cancel()
        tenant.timer = loop.call_later(self._idle_seconds, self._end_if_idle, tenant) if tenant.child else None
        loop.call_soon(self._changed.set)  # once the lock is free

    def _end_if_idle(self, tenant: "_Tenant") -> None:
        if tenant.is_idle:
            self.retire(tenant, "idle")


class _Tenant:
    """What is kept of a tenant."""

    def __init__(self, now: float) -> None:
        self.lock = asyncio.Lock()
        self.child: Child | None = None
        self.waste = WasteBudget(now)
        self.used_at = now
        self.timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it has a child with nothing to do."""
        return self.child is not None and not self.lock.locked()


class _Group:
    """Calls of one tenant and one codec, on their way through one child or, where one ends, several."""

    def __init__(self, sandbox: Sandbox, tenant: _Tenant, codec: CodecVersion, calls: Sequence[Call]) -> None:
        self._sandbox = sandbox
        self._tenant = tenant
        self._codec = codec
        self._calls = calls
        self._outcomes: list[Outcome] = []
        # A codec that has wasted time shows with its first call whether it does it again: a child need not be ended amid others.
        self._one_by_one_until = int(tenant.waste.has_offended(codec.sha256))
        self._deaths_from_outside = 0
        loop = asyncio.get_running_loop()
        self._now: Callable[[], float] = loop.time
        self._result_bytes = 0
        self._started_at = loop.time()
        self._asked_at = self._started_at
        self._charged_seconds = 0.0
        self._clock = CpuClock(loop.time)

    async def decode(self) -> list[Outcome]:
        """Return the outcomes of the calls."""
        if len(self._codec.source.encode("utf-8", "replace")) > MAX_SOURCE_BYTES:
            return [_too_large_source()] * len(self._calls)
        try:
            while (start := len(self._outcomes)) < len(self._calls) and not self._stopped():
                if len(self._calls[start].frame) > MAX_FRAME_BYTES:
                    self._outcomes.append(_too_large_frame(len(self._calls[start].frame)))
                    continue
                await self._decode_some(start)
        except conversation.LoadFailedError as error:
            self._charge_limits([error.outcome])
            self._outcomes += [error.outcome] * (len(self._calls) - len(self._outcomes))
        except BaseException:
            self._sandbox.retire(self._tenant, "stopped")  # it may be in the middle of an answer
            raise
        slow = self._clock.seconds - _FREE_SECONDS - GROUP_SECONDS_PER_CALL * len(self._calls) - self._charged_seconds
        if slow > 0:
            self._charge(slow)
        return self._outcomes

    async def form(self) -> int:
        """Return the form of the codec."""
        if len(self._codec.source.encode("utf-8", "replace")) > MAX_SOURCE_BYTES:
            raise _too_large_source()
        if (refused := self._paused()) is not None:
            raise refused
        child = await self._sandbox.child(self._tenant)
        try:
            return await conversation.load(child, self._codec)
        except conversation.LoadFailedError as error:
            self._charge_limits([error.outcome])
            raise error.outcome from None
        except ChildEndedError as error:
            self._sandbox.retire(self._tenant, _ending(error))
            self._charge(_DEATH_SECONDS)
            raise _ended(error) from None
        except BaseException:
            self._sandbox.retire(self._tenant, "stopped")
            raise

    async def _decode_some(self, start: int) -> None:
        one_by_one = start < self._one_by_one_until
        end = self._one_by_one_until if one_by_one else len(self._calls)
        batch = conversation.next_batch(self._codec, self._calls, start, end, each=one_by_one)
        waits_from = self._now()
        child = await self._sandbox.child(self._tenant)
        self._clock.start(child)
        self._asked_at = self._now()
        self._started_at += self._asked_at - waits_from  # for a child to start, or for its turn
        try:
            conversation.ask(child, batch)
            while (answered := len(self._outcomes) - start) < len(batch.calls):
                outcomes, size = await conversation.answer(child, batch, answered)
                self._outcomes += outcomes
                self._result_bytes += size
                self._charge_limits(outcomes)
                if len(self._outcomes) - start < len(batch.calls) and self._stopped():
                    self._sandbox.retire(self._tenant, "overrun")
                    return
            self._clock.stop()
        except ChildEndedError as error:
            self._clock.stop()
            self._sandbox.retire(self._tenant, _ending(error))
            if error.is_from_outside and self._deaths_from_outside < _DEATHS_FROM_OUTSIDE:
                # What has no answer is decoded again in a fresh child: the system ends processes that did nothing wrong.
                self._deaths_from_outside += 1
                self._charge(_DEATH_FROM_OUTSIDE_SECONDS)
                return
            self._charge(_DEATH_SECONDS)
            if one_by_one:
                self._outcomes.append(_ended(error))
            else:  # decoded again in a fresh child, one by one: that tells which call it is
                self._one_by_one_until = start + len(batch.calls)

    def _stopped(self) -> bool:
        """Tell whether nothing more is to be decoded; then each call that is left has its outcome."""
        error = self._paused() or self._oversized() or self._overdue()
        if error is None:
            return False
        self._outcomes += [error] * (len(self._calls) - len(self._outcomes))
        return True

    def _paused(self) -> RejectedMessageError | None:
        seconds = self._tenant.waste.pause(self._codec.sha256, self._now())
        if seconds <= 0:
            return None
        return RejectedMessageError(
            Reason.CODEC_LIMIT,
            f"the codec took more time or memory than it may too often, so it was not run for {seconds:.0f} s more",
        )

    def _oversized(self) -> RejectedMessageError | None:
        if self._result_bytes <= _MAX_GROUP_BYTES:
            return None
        return RejectedMessageError(
            Reason.CODEC_LIMIT,
            f"the codec returned more than {_MAX_GROUP_BYTES >> 20} MB for the {len(self._outcomes)} messages before this one, of"
            f" {len(self._calls)} that came together",
        )

    def _overdue(self) -> RejectedMessageError | None:
        used = self._clock.seconds
        allowed = GROUP_SECONDS + GROUP_SECONDS_PER_CALL * len(self._calls)
        if used < allowed:
            passed = self._now() - self._started_at
            if passed < _GROUP_WALL_SECONDS:
                return None
            return RejectedMessageError(
                Reason.CODEC_LIMIT,
                f"this message waited {passed:.0f} s for those before it, though the codec computed for {used:.1f} s alone: the machine is too busy;"
                " replay it",
            )
        self._charge(used)
        return RejectedMessageError(
            Reason.CODEC_LIMIT,
            f"the codec took {used:.1f} s for the {len(self._outcomes)} messages before this one, of {len(self._calls)} that came together;"
            f" they may take {allowed:.1f} s",
        )

    def _charge_limits(self, outcomes: Sequence[Outcome]) -> None:
        limits = sum(
            isinstance(outcome, RejectedMessageError) and outcome.reason == Reason.CODEC_LIMIT for outcome in outcomes
        )
        if limits:
            passed = min(self._now() - self._asked_at, _OVERRUN_RATIO * limits * CALL_SECONDS)
            self._charge(max(passed, limits * CALL_SECONDS))
            self._asked_at = self._now()

    def _charge(self, seconds: float) -> None:
        self._charged_seconds += seconds
        self._tenant.waste.charge(self._codec.sha256, seconds, self._now())


def _ending(error: ChildEndedError) -> Ending:
    return "killed" if error.is_from_outside else "fault"


def _ended(error: ChildEndedError) -> RejectedMessageError:
    return RejectedMessageError(Reason.CODEC_LIMIT, f"the codec's process ended while it decoded this message: {error}")


def _too_large_source() -> RejectedMessageError:
    return RejectedMessageError(Reason.CODEC_ERROR, f"the codec has more than {MAX_SOURCE_BYTES} bytes")


def _too_large_frame(size: int) -> RejectedMessageError:
    return RejectedMessageError(
        Reason.TOO_LARGE, f"the device's frame has {size} bytes; at most {MAX_FRAME_BYTES} are decoded"
    )
