"""How ``sens verify`` is told of an environment: files of the GitOps repository, options, hosts."""

import json
from pathlib import Path

import pytest

from sens_cli.verify.endpoint import Endpoint
from sens_cli.verify.environment import Environment
from sens_cli.verify.record import Expected
from sens_common.errors import SettingsError
from support.environments import COMMIT, DIGEST, IMAGE, RECORD, TEST


class TestAnEnvironmentOfTheGitOpsRepository:
    def test_is_read_with_its_release_and_the_other_ones_namespace(self, environments: Path) -> None:
        environment = Environment.read(environments, "test").completed({})

        assert environment.api_host == Endpoint("https", "api.dev.example.org", 443)
        assert environment.internal_ports == {"nats": 4222}
        assert (environment.test_namespace, environment.production_namespace) == ("sens-test", "sens-production")
        assert environment.account == "system:serviceaccount:sens-test:deploy-test"
        assert environment.expected == Expected(
            version="0.5.0-alpha.12.1", commit=COMMIT, images={"platform-api": DIGEST}
        )

    def test_may_have_no_release_yet(self, environments: Path) -> None:
        assert Environment.read(environments, "production").expected is None

    def test_gives_way_to_options(self, environments: Path) -> None:
        environment = Environment.read(environments, "test").completed({"address": "192.0.2.8", "namespace": None})

        assert (environment.address, environment.namespace) == ("192.0.2.8", "sens-test")

    def test_says_what_is_public_and_options_may_differ(self, environments: Path) -> None:
        path = environments / "environments/test/environment.toml"
        path.write_text(TEST.replace("[internal_ports]", "public_metrics = true\n[internal_ports]"), encoding="utf-8")
        environment = Environment.read(environments, "test")

        assert (environment.public_data, environment.public_metrics) == (True, True)
        assert environment.completed({"public_metrics": False, "public_data": None}).public_metrics is False

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ('name = "test"', "name = ", "not TOML"),
            ('name = "test"', 'name = "staging"', "must be test, as its folder"),
            ('address = "192.0.2.7"', "", "address is missing"),
            ('address = "192.0.2.7"', 'address = "192.0.2.700"', "not an IP address"),
            ('address = "192.0.2.7"', "address = 7", "address must be a text"),
            ('channel = "alpha"', 'channel = "beta"', "not a channel"),
            ('namespace = "sens-test"', 'namespace = "-n kube-system"', "not such a name"),
            ('release = "sens-platform-test"', 'release = "a/b"', "not such a name"),
            ('"docs.dev.example.org"', '"docs.dev.example.org\\n"', "not a host name"),
            ("nats = 4222", "nats = true", "internal_ports.nats must be a port"),
            ("nats = 4222", "nats = 65536", "internal_ports.nats must be a port"),
            ("[internal_ports]", "[internal_port]", "there is no key 'internal_port'"),
            ("[internal_ports]", "external_nats = 1\n[internal_ports]", "external_nats must be true or false"),
            ("[internal_ports]", 'deploy_account = "--as-group=x"\n[internal_ports]', "not a user"),
        ],
    )
    def test_that_is_wrong_is_refused_with_file_and_key(
        self, environments: Path, old: str, new: str, said: str
    ) -> None:
        path = environments / "environments/test/environment.toml"
        path.write_text(TEST.replace(old, new), encoding="utf-8")

        with pytest.raises(SettingsError) as error:
            Environment.read(environments, "test")

        assert str(error.value).startswith(str(path))
        assert said in str(error.value)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("{", "not JSON"),
            ("[" * 50_000, "not JSON"),
            ("[]", "it must be an object"),
            (json.dumps(RECORD | {"version": "latest"}), "'latest' is a name that can move"),
            (json.dumps(RECORD | {"product_commit": COMMIT[:12]}), "is not a full commit"),
            (json.dumps(RECORD | {"product_commit": None}), "product_commit must be a text"),
            (
                json.dumps(RECORD | {"images": {"docs": IMAGE | {"digest": "sha256:0"}}}),
                "The digest of docs is 'sha256:0'",
            ),
            (" " * 70_000, "longer than 65536 bytes"),
        ],
        ids=["no JSON", "deep", "a list", "latest", "short commit", "no commit", "no digest", "long"],
    )
    def test_with_a_broken_record_is_refused(self, environments: Path, content: str, said: str) -> None:
        path = environments / "environments/test/release.json"
        path.write_text(content, encoding="utf-8")

        with pytest.raises(SettingsError) as error:
            Environment.read(environments, "test")

        assert str(path) in str(error.value)
        assert said in str(error.value)


class TestAHost:
    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("api.example.org", "https://api.example.org"),
            ("api.example.org:8443", "https://api.example.org:8443"),
            ("https://API.example.org/", "https://api.example.org"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("[::1]:8443", "https://[::1]:8443"),
        ],
    )
    def test_is_a_name_with_or_without_port(self, text: str, url: str) -> None:
        assert Endpoint.parse(text, "host").url == url

    @pytest.mark.parametrize(
        "text",
        [
            "", " ", "a b", "a\nb", "a\n", "-a", "a-", "--help", "a..b", "a/b", "user@a", "a:0", "a:65536", "a:x", "[::1", "[a]",
            "ftp://a", "a?b", "ä.example.org", "a" * 64, ".".join(["a" * 60] * 5), "a_b",
        ],
    )  # fmt: skip
    def test_that_can_not_be_one_is_refused(self, text: str) -> None:
        with pytest.raises(SettingsError, match=r"^host: "):
            Endpoint.parse(text, "host")
