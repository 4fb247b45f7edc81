"""What people are told of components that are not ready."""

from sens_cli.up.components import Component, Launch
from sens_cli.up.watch import Watch


class Told:
    def __init__(self) -> None:
        self.notices: list[tuple[str, bool]] = []

    def notice(self, text: str, *, warning: bool = False) -> None:
        self.notices.append((text, warning))


def component(answers: list[str | None], *, restart: bool) -> Component:
    async def ready() -> str | None:
        return answers.pop(0)

    return Component(
        name="worker",
        launch=lambda: Launch([], {}),
        environment={},
        after=(),
        ready=ready,
        address="",
        stop_stage=0,
        restart_when_stuck=restart,
    )


async def look(
    answers: list[str | None], *, restart: bool = False, ended: list[str] | None = None
) -> tuple[list[dict[str, str]], list[tuple[str, bool]]]:
    """Look once for each answer; return the problems after each look, and what was told."""
    told = Told()
    one = component(list(answers), restart=restart)
    watch = Watch([one], told, broker_operations=None, end=([] if ended is None else ended).append)
    seen = []
    for _ in answers:
        await watch.look()
        seen.append(watch.problems)
    return seen, told.notices


class TestWatch:
    async def test_tells_once_when_a_component_is_not_ready_and_once_when_it_is_again(self) -> None:
        seen, told = await look([None, "no database", "no database", "no database", None, None])
        assert seen == [{}, *[{"worker": "no database"}] * 3, {}, {}]
        assert told == [("worker is not ready: no database", True), ("worker is ready again", False)]

    async def test_tells_nothing_of_a_moment(self) -> None:
        assert (await look([None, "reconnecting", None, "reconnecting", None]))[1] == []

    async def test_ends_what_is_stuck_where_that_is_wanted(self) -> None:
        for restart, expected in ((True, ["worker", "worker"]), (False, [])):
            ended: list[str] = []
            await look(["stuck"] * 4 + [None] + ["stuck"] * 10, restart=restart, ended=ended)
            assert ended == expected
