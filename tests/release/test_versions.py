"""Which versions there are, how they compare, which may follow which, and which an environment takes."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_cli.release.versions import (
    ENVIRONMENTS,
    MAXIMUM_LENGTH,
    Channel,
    ReleaseError,
    Version,
    alpha_version,
    check_environment,
    check_successor,
    next_root_version,
    release_version,
    root_version,
)
from support.chart import CHART, needs_helm, refusal, render
from support.release import call, refused
from support.services import ROOT
from tools.images.source import ImageError, checked_version
from tools.release import name_version

ROOT_VERSION = Version(1, 5, 2)
SHA = "0123456789abcdef0123456789abcdef01234567"

# Text, and what is said about it.
NO_VERSIONS: Final = [
    *((text, "is a name that can move") for text in ("latest", "main", "test", "feature/x", "release-0.5", "v0.5")),
    *((text, "is a commit") for text in (
        SHA, SHA.upper(), SHA[:7], "1234567", f"git-{SHA}", "git-0123abc", f"sha-{SHA[:7]}", "a" * 64,
    )),
    *((text, "has build metadata") for text in ("0.5.0+build.1", "0.5.0-alpha.1.1+build", "0.5.0+")),
    *((text, "has a leading 'v'") for text in ("v0.5.0", "v0.5.0-rc.1")),
    *((text, "is not SemVer 2.0") for text in (
        "", "0.5", "0.5.0.0", "00.5.0", "0.05.0", "0.5.0-", "0.5.0-alpha..1", "0.5.0-alpha.01", "0.5.0-alpha_1", "-0.5.0", " 0.5.0",
        "0.5.0\n", "0.5.0\nname=value", "\N{ARABIC-INDIC DIGIT ONE}.5.0", "0.5.0-\N{LATIN SMALL LETTER E WITH ACUTE}", "$(id)", "`id`",
        "0.5.0; rm -rf /", "${{ github.token }}", "../../etc/passwd", "--help", "0.5.0\0", "0.5.0\udcff",
    )),
    (f"0.5.0-{'a' * 123}", "has 129 characters"),
    ("9" * 100_000, "has 100000 characters"),
]  # fmt: skip

_numbers = st.one_of(st.integers(0, 3), st.integers(0, 10**12)).map(str)
_identifiers = st.one_of(
    _numbers,
    st.sampled_from(["alpha", "beta", "rc", "a", "A", "-", "--", "1a", "a1", "-1", "0a", "00a"]),
    st.from_regex(r"[0-9]{0,2}[A-Za-z-][0-9A-Za-z-]{0,3}", fullmatch=True),
)
_cores = st.lists(_numbers, min_size=3, max_size=3).map(".".join)
_pre_releases = st.lists(_identifiers, max_size=4).map(".".join)
TEXTS = st.builds(lambda core, rest: f"{core}-{rest}" if rest else core, _cores, _pre_releases)
ROOTS = st.builds(Version, *[st.integers(0, 10**9)] * 3)
# What is nearly a version, and what is nothing of the kind.
NEARLY = st.one_of(
    TEXTS,
    st.text(alphabet="01a-.+v\n ", max_size=12),
    st.builds("{}-{}".format, _cores, st.from_regex(r"(alpha|rc|beta)(\.[0-9]{1,2}){0,3}", fullmatch=True)),
    st.builds("{}{}{}".format, st.sampled_from(["", "v", "git-", " "]), TEXTS, st.sampled_from(["", "+1", "-", "\n"])),
    st.text(),
)


def precedes(left: str, right: str) -> bool:
    """Compare two versions as section 11 of SemVer 2.0 words it, rule by rule."""
    left_core, _, left_rest = left.partition("-")
    right_core, _, right_rest = right.partition("-")
    for one, other in zip(left_core.split("."), right_core.split("."), strict=True):
        if int(one) != int(other):
            return int(one) < int(other)  # 11.2
    if not (left_rest and right_rest):
        return bool(left_rest) and not right_rest  # 11.3
    for one, other in zip(left_rest.split("."), right_rest.split("."), strict=False):
        if one == other:
            continue
        if one.isdigit() and other.isdigit():
            return int(one) < int(other)  # 11.4.1
        if one.isdigit() or other.isdigit():
            return one.isdigit()  # 11.4.3
        return one.encode("ascii") < other.encode("ascii")  # 11.4.2
    return left_rest.count(".") < right_rest.count(".")  # 11.4.4


def says(text: str, root: Version | None = None) -> str:
    """Return what is said about a text that is refused."""
    version, said = attempt(lambda: Version.parse(text) if root is None else release_version(text, root))
    assert version is None
    return str(said)


def attempt(action: Callable[[], object]) -> tuple[str | None, str | None]:
    """Return what comes of it as text, and what is said when it is refused; anything else that is raised is a fault."""
    try:
        return str(action()), None
    except (ReleaseError, ImageError) as error:
        return None, str(error)


class TestParse:
    @pytest.mark.parametrize(("text", "reason"), NO_VERSIONS)
    def test_refuses_what_is_no_version_with_the_reason_and_examples(self, text: str, reason: str) -> None:
        said = says(text)

        assert reason in said
        assert said.endswith("Give a version, such as 0.5.0-alpha.123.1, 0.5.0-rc.1 or 0.5.0.")
        assert said.isprintable()
        assert len(said) < 1000

    @pytest.mark.parametrize("text", ["0.0.0", "0.5.0", "10.20.30", "0.5.0-alpha.123.1", "1.0.0--", "1.0.0-0a.x-y"])
    def test_reads_versions(self, text: str) -> None:
        assert str(Version.parse(text)) == text

    def test_takes_the_longest_tag_that_a_registry_takes(self) -> None:
        longest = f"0.5.0-{'a' * (MAXIMUM_LENGTH - 6)}"

        assert str(Version.parse(longest)) == longest

    @given(TEXTS)
    def test_returns_what_was_written(self, text: str) -> None:
        assert str(Version.parse(text)) == text

    @given(NEARLY)
    def test_of_anything_is_a_version_or_a_refusal_that_can_be_printed(self, text: str) -> None:
        version, said = attempt(lambda: Version.parse(text))

        assert version == text if said is None else said.isprintable()


class TestPrecedence:
    def test_of_the_specification_s_example(self) -> None:
        pre_releases = ["alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1"]

        versions = [*(Version.parse(f"1.0.0-{rest}") for rest in pre_releases), Version.parse("1.0.0")]

        assert all(one < other for one, other in itertools.combinations(versions, 2))

    @given(TEXTS, TEXTS)
    def test_is_the_specification_s(self, left: str, right: str) -> None:
        assert (Version.parse(left) < Version.parse(right)) == precedes(left, right)

    @given(TEXTS, TEXTS)
    def test_of_two_is_exactly_one_of_before_same_and_after(self, left: str, right: str) -> None:
        one, other = Version.parse(left), Version.parse(right)

        assert [one < other, one == other, one > other].count(True) == 1
        assert (one <= other) == (not one > other)

    @given(st.lists(TEXTS, min_size=3, max_size=3))
    def test_carries_over(self, texts: list[str]) -> None:
        low, middle, high = sorted(map(Version.parse, texts))

        assert low <= middle <= high
        assert low <= high

    def test_with_something_else_there_is_none(self) -> None:
        with pytest.raises(TypeError):
            assert ROOT_VERSION < "1.6.0"


class TestSuccessor:
    @pytest.mark.parametrize(
        ("previous", "current"),
        [
            *(("1.5.2", current) for current in ("1.5.2", "1.5.3", "1.5.7", "1.6.0", "2.0.0")),
            *(("1.9.9", "1.10.0"), ("0.4.0", "0.4.1"), ("0.0.0", "1.0.0")),
        ],
    )
    def test_is_the_same_a_later_patch_the_next_minor_or_the_next_major(self, previous: str, current: str) -> None:
        assert str(next_root_version(current, Version.parse(previous))) == current

    @pytest.mark.parametrize(
        ("current", "reason"),
        [
            ("1.5.1", "is a downgrade"),
            ("1.4.9", "is a downgrade"),
            ("0.9.9", "is a downgrade"),
            ("1.7.0", "skips minor 1.6."),
            ("1.7.3", "skips minor 1.6."),
            ("1.6.1", "is not the first version of minor 1.6, which is 1.6.0"),
            ("3.0.0", "skips major 2."),
            ("3.1.2", "skips major 2."),
            ("2.1.0", "is not the first version of major 2, which is 2.0.0"),
            ("2.0.1", "is not the first version of major 2, which is 2.0.0"),
            ("1.6.0-alpha.1.1", "is a pre-release"),
            ("1.6.0-rc.1", "is a pre-release"),
            ("1.5.3+build.5", "has build metadata"),
            ("1.6.0-rc.1+build.5", "has build metadata"),
            ("v1.6.0", "has a leading 'v'"),
            ("1.6", "is not SemVer 2.0"),
            ("1.06.0", "is not SemVer 2.0"),
            ("", "is not SemVer 2.0"),
        ],
    )
    def test_of_another_kind_is_refused_with_the_reason_and_what_is_allowed(self, current: str, reason: str) -> None:
        said = str(attempt(lambda: next_root_version(current, ROOT_VERSION))[1])

        assert reason in said
        assert said.endswith(" Allowed: 1.5.2 (unchanged), 1.5.3 or a later patch of 1.5, 1.6.0, 2.0.0.")

    def test_that_is_lower_is_refused_in_words_for_people(self) -> None:
        _, said = attempt(lambda: next_root_version("0.3.1", Version(0, 4, 0)))

        assert said == (
            "The root version 0.3.1 may not follow 0.4.0: it is a downgrade: versions only grow, and a rollback changes what "
            "is deployed, not this file. Allowed: 0.4.0 (unchanged), 0.4.1 or a later patch of 0.4, 0.5.0, 1.0.0."
        )

    def test_may_be_anything_stable_where_nothing_went_before(self) -> None:
        assert next_root_version("7.8.9", None) == Version(7, 8, 9)
        with pytest.raises(ReleaseError, match="is a pre-release") as refused:
            next_root_version("7.8.9-rc.1", None)
        assert "Allowed" not in str(refused.value)

    def test_agrees_with_a_list_of_all_that_are_allowed(self) -> None:
        everything = [Version(*core) for core in itertools.product(range(6), range(6), range(6))]
        for previous in everything[: 6 * 6 * 4]:
            major, minor, patch = previous.major, previous.minor, previous.patch
            later_patches = {Version(major, minor, later) for later in range(patch, 6)}
            allowed = {Version(major, minor + 1, 0), Version(major + 1, 0, 0)} | later_patches

            assert {current for current in everything if _may_follow(previous, current)} == allowed & set(everything)

    @given(ROOTS, ROOTS)
    def test_that_is_refused_is_told_only_versions_that_are_allowed(self, previous: Version, current: Version) -> None:
        _, said = attempt(lambda: check_successor(previous, current))
        if said is None:
            assert current >= previous
            return
        allowed = re.findall(r"[0-9]+\.[0-9]+\.[0-9]+", said.partition(" Allowed: ")[2])

        assert len(allowed) == 4
        assert [str(next_root_version(text, previous)) for text in allowed] == allowed

    @given(NEARLY)
    def test_that_can_not_be_read_is_a_refusal(self, text: str) -> None:
        version, said = attempt(lambda: next_root_version(text, ROOT_VERSION))

        assert version == text if said is None else said.isprintable() and "Allowed: 1.5.2 (unchanged)" in said


def _may_follow(previous: Version, current: Version) -> bool:
    return attempt(lambda: check_successor(previous, current))[1] is None


class TestRootVersion:
    @pytest.mark.parametrize("text", [text for text, _ in NO_VERSIONS] + ["1.0.0-rc.1", "1.0.0-alpha.1.1", "1.0.0-x"])
    def test_is_three_numbers(self, text: str) -> None:
        with pytest.raises(ReleaseError, match=r"^The root version .*\. It is three numbers, ") as refused:
            root_version(text)

        assert str(refused.value).isprintable()


class TestAlphaVersion:
    def test_has_the_run_s_number_and_attempt(self) -> None:
        version = alpha_version(Version(0, 5, 0), 123, 1)

        assert str(version) == "0.5.0-alpha.123.1"
        assert version.channel is Channel.ALPHA
        assert version.core == Version(0, 5, 0)

    @pytest.mark.parametrize(("number", "attempt"), [(0, 1), (1, 0), (-1, 1), (1, -1)])
    def test_is_refused_for_numbers_that_no_run_has(self, number: int, attempt: int) -> None:
        with pytest.raises(ReleaseError, match="both numbers count from 1"):
            alpha_version(ROOT_VERSION, number, attempt)

    def test_is_refused_where_no_registry_would_take_it(self) -> None:
        with pytest.raises(ReleaseError, match="a tag has no more than 128"):
            alpha_version(root_version(f"{'9' * 120}.0.0"), 1, 1)

    @given(ROOTS, st.tuples(st.integers(1), st.integers(1)), st.tuples(st.integers(1), st.integers(1)))
    def test_grows_with_number_and_then_attempt(
        self, root: Version, run: tuple[int, int], other: tuple[int, int]
    ) -> None:
        assert (alpha_version(root, *run) < alpha_version(root, *other)) == (run < other)

    @given(ROOTS, st.integers(1), st.integers(1))
    def test_comes_before_its_release_and_after_the_last_one(self, root: Version, number: int, attempt: int) -> None:
        assert alpha_version(root, number, attempt) < root
        assert alpha_version(Version(root.major, root.minor, root.patch + 1), number, attempt) > root


class TestReleaseVersion:
    @pytest.mark.parametrize("text", ["1.5.2", "v1.5.2", " v1.5.2 \n", "1.5.2-rc.1", "v1.5.2-rc.10", "1.5.2-alpha.1.1"])
    def test_is_of_a_channel_and_of_this_root_version(self, text: str) -> None:
        assert str(release_version(text, ROOT_VERSION)) == text.strip().removeprefix("v")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            *((text, "is a name that can move") for text in ("latest", "main", "test", "feature/x")),
            *((text, "is a commit") for text in (f"git-{SHA}", SHA)),
            *((text, "is not SemVer 2.0") for text in ("", "v", "1.5.2\nname=value", "$(id)")),
            *(
                (text, "'1.5.2+build' has build metadata: a '+' is not allowed in an image's tag")
                for text in ("v1.5.2+build", "1.5.2+build")
            ),
            ("vv1.5.2", "'v1.5.2' has a leading 'v'"),
            *((f"1.5.2-{rest}", "belongs to no channel") for rest in ("beta.1", "rc1", "alpha", "test", "rc.1.1")),
        ],
    )
    def test_that_is_none_is_refused(self, text: str, reason: str) -> None:
        assert reason in says(text, ROOT_VERSION)

    @given(NEARLY)
    def test_of_anything_is_a_version_of_this_root_or_a_refusal(self, text: str) -> None:
        version, said = attempt(lambda: release_version(text, ROOT_VERSION))

        assert Version.parse(version).core == ROOT_VERSION if version else said and said.isprintable()

    @pytest.mark.parametrize("text", ["1.5.3", "v1.6.0-rc.1", "0.5.2-alpha.1.1"])
    def test_of_another_root_version_is_refused(self, text: str) -> None:
        said = says(text, ROOT_VERSION)

        assert "the root version of this commit is 1.5.2" in said
        assert f"whose pyproject.toml says {Version.parse(text.removeprefix('v')).core}" in said


class TestEnvironment:
    @pytest.mark.parametrize("environment", ["test", "staging", "production"])
    @pytest.mark.parametrize("tag", ["0.5.0-alpha.123.1", "0.5.0-rc.1", "0.5.0"])
    def test_takes_its_own_channel_alone(self, environment: str, tag: str) -> None:
        own = {"test": "0.5.0-alpha.123.1", "staging": "0.5.0-rc.1", "production": "0.5.0"}
        if own[environment] == tag:
            check_environment(Version.parse(tag), environment)
            return
        said = str(attempt(lambda: check_environment(Version.parse(tag), environment))[1])
        takes = f"{environment} takes {ENVIRONMENTS[environment]} versions"
        assert said.startswith(f"{takes}, and {tag} is of the channel ")
        assert f", which is for {next(name for name, takes in own.items() if takes == tag)}." in said
        assert said.endswith(f"Choose one such as {own[environment]}.")

    @pytest.mark.parametrize("environment", ["", "prod", "Production", "test ", "$(id)", "../test", "\n"])
    def test_that_is_unknown_is_refused_with_those_that_there_are(self, environment: str) -> None:
        with pytest.raises(ReleaseError, match="choose one of test, staging, production"):
            check_environment(Version(1, 0, 0), environment)

    def test_takes_no_pre_release_of_another_kind(self) -> None:
        for environment in ENVIRONMENTS:
            with pytest.raises(ReleaseError, match="belongs to no channel"):
                check_environment(Version.parse("1.0.0-beta.1"), environment)


class TestEverywhere:
    """The chart and the builder of images take the versions that a release takes."""

    @given(NEARLY, st.sampled_from(Channel))
    def test_the_chart_takes_a_channel_s_versions_and_no_others(self, text: str, channel: Channel) -> None:
        assert _chart_takes(text, channel) == (_channel(text) is channel)

    @given(NEARLY)
    def test_the_builder_takes_versions_and_nothing_else(self, text: str) -> None:
        assert attempt(lambda: checked_version(text)) == attempt(lambda: Version.parse(text))

    @needs_helm
    @pytest.mark.parametrize("channel", Channel)
    def test_helm_agrees(self, channel: Channel) -> None:
        tags = {Channel.ALPHA: "1.2.3-alpha.10.2", Channel.RC: "1.2.3-rc.0", Channel.STABLE: "10.0.0"}
        render({"images": {"tag": tags[channel], "channel": channel.value}})

        assert "is not a version" in refusal({"images": {"tag": f"{tags[channel]}\n", "channel": channel.value}})
        assert "maxLength" in refusal({"images": {"tag": f"{'1' * 129}", "channel": channel.value}})


def _channel(text: str) -> Channel | None:
    try:
        return Version.parse(text).channel
    except ReleaseError:
        return None


def _chart_takes(tag: str, channel: Channel) -> bool:
    template = (CHART / "templates" / "validate.yaml").read_text(encoding="utf-8")
    semver = re.search(r"\$semver := `(.+?)`", template)
    shape = re.search(rf'\$shapes := .*?"{channel}" `(.+?)`', template)
    assert semver is not None
    assert shape is not None
    # In Go's expressions, "$" is the end of the text; in Python's, that is "\Z".
    return len(tag) <= MAXIMUM_LENGTH and all(re.search(found[1].replace("$", r"\Z"), tag) for found in (semver, shape))


class TestCommand:
    """scripts/release-version."""

    @pytest.mark.parametrize(
        ("arguments", "answer"),
        [
            (["alpha", "123", "1"], "1.5.2-alpha.123.1"),
            (["check", "v1.5.2-rc.1"], "1.5.2-rc.1"),
            (["channel", "0.5.0-alpha.123.1"], "alpha"),
            (["channel", "0.5.0-rc.1"], "rc"),
            (["channel", "0.5.0"], "stable"),
            (["stable", "0.0.1-alpha.10.1"], "0.0.1"),
            (["allow", "0.5.0", "production"], "production takes 0.5.0"),
        ],
    )
    def test_prints_the_answer_alone(self, arguments: list[str], answer: str, product: list[str]) -> None:
        said = call(name_version.main, *product, *arguments)

        assert (said, said.code) == (f"{answer}\n", 0)

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["alpha", "0", "1"], "both numbers count from 1"),
            (["check", "1.5.3"], "the root version of this commit is 1.5.2"),
            (["channel", "latest"], "is a name that can move"),
            (["stable", "1.0.0-beta.1"], "belongs to no channel"),
            (["allow", "0.5.0", "test"], "test takes alpha versions"),
            (["allow", "0.5.0", "prod"], "There is no environment 'prod'"),
        ],
    )
    def test_refuses_with_1_and_a_line_for_people(
        self, arguments: list[str], complaint: str, product: list[str]
    ) -> None:
        said = refused(call(name_version.main, *product, *arguments), complaint)

        assert said.startswith("scripts/release-version: ")
        assert said.count("\n") == 1

    @pytest.mark.parametrize("command", ["check", "channel", "stable"])
    @pytest.mark.parametrize("hostile", ["--help", "-h", "--folder=/", "--version", "-", "--", "$(id)", "1.5.2\nx=y"])
    def test_never_makes_a_success_of_a_hostile_version(
        self, command: str, hostile: str, product: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        try:
            code: object = name_version.main([*product, command, hostile])
        except SystemExit as ended:
            code = ended.code

        assert code in {1, 2}
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        "number", ["", "1_0", "+1", " 1", "\N{ARABIC-INDIC DIGIT ONE}", "1e3", "x", "9" * 19, "$(id)"]
    )
    def test_takes_plain_numbers_of_runs(
        self, number: str, product: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            name_version.main([*product, "alpha", number, "1"])

        assert ended.value.code == 2
        assert "is not a number of a run" in capsys.readouterr().err


class TestDocumentation:
    """docs/operations/versions.md."""

    def test_shows_what_the_command_answers(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.5.0"\n', encoding="utf-8")
        text = (ROOT / "docs" / "operations" / "versions.md").read_text(encoding="utf-8")
        shown = re.findall(r"^\| `scripts/release-version (.+?)` \| `(.+?)`", text, re.MULTILINE)
        refused = re.findall(r"^\$ scripts/release-version (.+)\n(scripts/release-version: .+)", text, re.MULTILINE)
        assert (len(shown), len(refused)) == (5, 2)

        for command, line in [*shown, *refused]:
            assert call(name_version.main, "--folder", str(tmp_path), *command.split()) == f"{line}\n"

    def test_shows_what_the_check_says(self) -> None:
        text = (ROOT / "docs" / "operations" / "versions.md").read_text(encoding="utf-8")

        _, said = attempt(lambda: next_root_version("1.7.0", ROOT_VERSION))

        assert f"\nscripts/version-check: {said} 1.5.2 is the version of commit " in text


@pytest.fixture
def product(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the option that names a folder whose root version is 1.5.2."""
    folder = tmp_path_factory.mktemp("product")
    (folder / "pyproject.toml").write_text(f'[project]\nversion = "{ROOT_VERSION}"\n', encoding="utf-8")
    return ["--folder", str(folder)]
