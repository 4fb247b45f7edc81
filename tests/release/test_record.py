"""The record of a release: what is written, and what is refused when it is read."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sens_cli.release.record import (
    IMAGES,
    MAXIMUM_BYTES,
    PinnedImage,
    Record,
    Release,
    dump,
    parse,
    parse_digests,
    values,
)
from sens_cli.release.versions import ReleaseError, Version
from support.hostile import HOSTILE
from tools.images.catalogue import IMAGES as CATALOGUE

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "environments/test/release.json"


def record(version: str = "0.1.0-alpha.5.1", previous: Release | None = None) -> Record:
    address = "ghcr.io/owner/sens-platform"
    images = {name: PinnedImage(f"{address}/{name}", f"sha256:{index:064x}") for index, name in enumerate(IMAGES)}
    run = "https://github.com/owner/infra/actions/runs/1"
    released_at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    return Record(Release(Version.parse(version), COMMIT), images, released_at, run, previous)


def document() -> dict[str, object]:
    made: dict[str, object] = json.loads(dump(record(previous=Release(Version(0, 0, 9), COMMIT))))
    return made


class TestWhatIsWritten:
    def test_names_the_images_that_are_built(self) -> None:
        assert set(IMAGES) == {image.name for image in CATALOGUE}

    def test_is_canonical(self) -> None:
        text = dump(record())
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
        assert json.loads(text)["channel"] == "alpha"
        assert json.loads(text)["released_at"] == "2026-01-31T12:00:00Z"

    def test_is_read_back_as_it_was(self) -> None:
        made = record(previous=Release(Version.parse("0.1.0-alpha.4.1"), COMMIT))
        assert parse(dump(made), NAME) == made

    @given(
        numbers=st.tuples(*[st.integers(0, 10**9)] * 5),
        commit=st.text("0123456789abcdef", min_size=40, max_size=40),
        time=st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - the strategy asks for it
    )
    def test_is_read_back_whatever_is_in_it(
        self, numbers: tuple[int, int, int, int, int], commit: str, time: datetime
    ) -> None:
        version = Version(*numbers[:3], ("alpha", str(numbers[3]), str(numbers[4])))
        made = Record(Release(version, commit), record().images, time.replace(microsecond=0))
        assert parse(dump(made), NAME) == made

    def test_gives_values_that_the_chart_takes(self) -> None:
        made = record()
        digests = {name: image.digest for name, image in made.images.items()}
        expected = {"images": {"tag": "0.1.0-alpha.5.1", "channel": "alpha", "digests": digests}}
        assert yaml.safe_load(values(made)) == expected


class TestARecordThatIsBroken:
    @pytest.mark.parametrize(
        ("damage", "text"),
        [
            (lambda made: made.pop("images"), "images is missing"),
            (lambda made: made.update(extra=1), "'extra' is not a key"),
            (lambda made: made.update(version=5), "version must be a text"),
            (lambda made: made.update(version="latest"), "name that can move"),
            (lambda made: made.update(version="0.1.0-beta.1"), "belongs to no channel"),
            (lambda made: made.update(channel="stable"), "channel is not alpha"),
            (lambda made: made.update(product_commit="0123456"), "not a full commit"),
            (lambda made: made.update(product_commit=COMMIT.upper()), "not a full commit"),
            (lambda made: made.update(images=[]), "images: it must be an object"),
            (lambda made: made["images"].pop("docs"), "images are missing: docs"),
            (lambda made: made["images"].update(other=made["images"]["docs"]), "no such images: 'other'"),
            (lambda made: made["images"].update(docs="sha256:"), "'docs': it must be an object"),
            (lambda made: made["images"]["docs"].update(digest="sha256:abc"), "digest of docs is 'sha256:abc'"),
            (lambda made: made["images"]["docs"].update(tag="1"), "'tag' is not a key"),
            (lambda made: made["images"]["docs"].update(repository="http://x/y"), "not a repository of an image"),
            (lambda made: made.update(released_at="yesterday"), "released_at is 'yesterday'"),
            (lambda made: made.update(released_at="2026-1-31T12:00:00Z"), "released_at is"),
            (lambda made: made.update(run="javascript:alert(1)"), "not an address of a run"),
            (lambda made: made.update(previous={"version": "0.1.0"}), "previous: product_commit is missing"),
            (lambda made: made.update(previous={"version": "x y", "product_commit": COMMIT}), "not SemVer"),
        ],
    )
    def test_is_refused_with_the_file_and_the_key(
        self, damage: Callable[[dict[str, object]], object], text: str
    ) -> None:
        broken = document()
        damage(broken)
        with pytest.raises(ReleaseError, match=f"^{re.escape(NAME)}.*{re.escape(text)}"):
            parse(json.dumps(broken), NAME)

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", "NaN", "[" * 50_000, '{"version": 1, "version": 2}', "\x00"]
    )
    def test_that_is_no_object_is_refused(self, text: str) -> None:
        with pytest.raises(ReleaseError, match=f"^{re.escape(NAME)}"):
            parse(text, NAME)

    def test_that_is_too_long_is_refused_unread(self) -> None:
        with pytest.raises(ReleaseError, match="longer than"):
            parse(" " * (MAXIMUM_BYTES + 1), NAME)

    @given(st.text())
    def test_is_never_another_error(self, text: str) -> None:
        with pytest.raises(ReleaseError):
            parse(text, NAME)


class TestDigestsThatAreHandedOver:
    def test_are_those_of_all_images(self) -> None:
        digests = dict.fromkeys(IMAGES, f"sha256:{'a' * 64}")
        assert parse_digests(json.dumps(digests)) == digests

    def test_of_missing_images_are_refused_with_each_name(self) -> None:
        digests = {name: f"sha256:{'a' * 64}" for name in IMAGES if name not in ("docs", "telemetry-worker")}
        with pytest.raises(ReleaseError, match="missing: docs, telemetry-worker"):
            parse_digests(json.dumps(digests))

    @pytest.mark.parametrize("text", [*HOSTILE, "", '"', "../x", "ä"])
    def test_are_refused_when_they_are_something_else(self, text: str) -> None:
        digests = dict.fromkeys(IMAGES, f"sha256:{'a' * 64}")
        documents = (text, digests | {text: "x"}, digests | {"docs": text})
        for handed_over in (text, *map(json.dumps, documents)):
            with pytest.raises(ReleaseError) as refusal:
                parse_digests(handed_over)
            assert len(str(refusal.value)) < 500

    def test_that_are_no_texts_are_refused(self) -> None:
        with pytest.raises(ReleaseError, match="docs must be a text"):
            parse_digests(json.dumps(dict.fromkeys(IMAGES, None)))
