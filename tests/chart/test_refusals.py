"""Values that can't work are refused with a sentence that says which, and what would do."""

import pytest

from support.chart import needs_helm, refusal, render

pytestmark = needs_helm

BAD_TAGS = [
    "latest",
    "main",
    "test",
    "feature/x",
    "git-0123abc",
    "0123456789abcdef0123456789abcdef01234567",
    "1.2",
    "v1.2.3",
    "1.2.3+build",
    "01.2.3",
]


class TestTags:
    @pytest.mark.parametrize("tag", BAD_TAGS)
    def test_that_are_no_version_are_refused(self, tag: str) -> None:
        said = refusal({"images": {"tag": tag}})

        assert f'images.tag "{tag}" is not a version' in said
        assert "such as 1.2.3" in said

    @pytest.mark.parametrize(
        ("channel", "accepted"), [("stable", "1.2.3"), ("rc", "1.2.3-rc.1"), ("alpha", "1.2.3-alpha.12.1")]
    )
    def test_have_the_shape_of_the_channel(self, channel: str, accepted: str) -> None:
        shapes = {"1.2.3", "1.2.3-rc.1", "1.2.3-alpha.12.1", "1.2.3-test", "1.2.3-rc1"}
        api = render({"images": {"tag": accepted, "channel": channel}}).container("platform-api")

        assert api.image.endswith(f":{accepted}")
        for other in shapes - {accepted}:
            assert f'not a version of the channel "{channel}"' in refusal(
                {"images": {"tag": other, "channel": channel}}
            )

    @pytest.mark.parametrize("store", ["nats", "database"])
    def test_of_the_stores_are_versions_too(self, store: str) -> None:
        assert f'{store}.image.tag "latest" is not a version' in refusal({store: {"image": {"tag": "latest"}}})

    def test_are_pinned_by_whole_digests_only(self) -> None:
        assert 'images.digests.docs "sha256:12" is not a digest' in refusal(
            {"images": {"digests": {"docs": "sha256:12"}}}
        )

    def test_may_be_of_no_other_channel(self) -> None:
        said = refusal({"images": {"channel": "beta"}})

        assert "'/images/channel'" in said
        assert "'stable', 'rc', 'alpha'" in said


class TestMissing:
    def test_values_are_all_named_at_once(self) -> None:
        said = refusal({}, base=None)

        for value in ("images.registry is missing", "existingSecret is missing", "mqtt.url is missing"):
            assert value in said

    @pytest.mark.parametrize(
        ("values", "sentence"),
        [
            ({"nats": {"embedded": False}}, "nats.url is missing"),
            ({"database": {"embedded": False}}, "database.host is missing"),
            ({"database": {"embedded": False, "host": "d"}}, "database.caSecret is missing"),
            ({"existingSecret": "", "trialSecret": {"enabled": True}}, "trialSecret.postgresPassword is missing"),
            ({"ingress": {"enabled": True}}, "ingress.apiHost is missing"),
            ({"ingress": {"enabled": True}}, "ingress.docsHost is missing"),
            ({"ingress": {"enabled": True}}, "ingress.tls.issuer is missing"),
            (
                {"httpIngestion": {"enabled": True}, "ingress": {"enabled": True}},
                "ingress.httpIngestionHost is missing",
            ),
            ({"monitoring": {"podMonitor": True}}, "networkPolicy.metricsFrom is missing"),
            ({"telemetry": {"keda": {"enabled": True}}}, "telemetry.keda.from is missing"),
        ],
    )
    def test_values_of_what_is_switched_on_are_named(self, values: dict[str, object], sentence: str) -> None:
        assert sentence in refusal(values)


class TestContradictions:
    @pytest.mark.parametrize(
        ("values", "sentence"),
        [
            ({"mqtt": {"url": "mqtt://b"}}, "mqtt.url and mockBroker.enabled exclude each other"),
            ({"trialSecret": {"enabled": True, "postgresPassword": "x" * 12}}, "exclude each other"),
            ({"nats": {"url": "nats://n"}}, "set nats.embedded to false"),
            ({"nats": {"streamReplicas": 3}}, "nats.streamReplicas"),
            ({"nats": {"streamMaxBytes": 1 << 31}}, "the streams would not fit"),
            ({"database": {"host": "d"}}, "set database.embedded to false"),
            ({"ingestion": {"shared": False, "replicas": 2}}, "is not shared"),
            ({"ingestion": {"shared": False, "autoscaling": {"enabled": True}}}, "is not shared"),
            ({"ingress": {"enabled": True, "apiHost": "a.b", "docsHost": "a.b"}}, "needs a host of its own"),
            (
                {"ingress": {"enabled": True, "apiHost": "a", "limits": {"annotations": {"x/y": "$BYTES"}}}},
                "x/y holds $BYTES; there are $BODY_BYTES",
            ),
            (
                {"ingress": {"enabled": True, "docsHost": "a.b", "httpIngestionHost": "a.b"}},
                "is the host of the API or the documentation too",
            ),
            (
                {"httpIngestion": {"enabled": False}, "ingress": {"httpIngestionHost": "a.b"}},
                "ingress.httpIngestionHost is for the HTTP ingestion: set httpIngestion.enabled",
            ),
            (
                {"httpIngestion": {"enabled": False}, "networkPolicy": {"httpIngestionFrom": [{"podSelector": {}}]}},
                "networkPolicy.httpIngestionFrom is for the HTTP ingestion: set httpIngestion.enabled",
            ),
            (
                {"httpIngestion": {"autoscaling": {"enabled": True, "minReplicas": 5}}},
                "httpIngestion.autoscaling: minReplicas 5 is more than maxReplicas 4",
            ),
            ({"fullnameOverride": "a" * 31}, "Set a shorter fullnameOverride"),
            ({"mockBroker": {"enabled": False}, "mqtt": {"url": "mqtt://b:65536"}}, "has the port 65536"),
            ({"nats": {"embedded": False, "url": "nats://n,nats://m:0"}}, '"nats://m:0" has the port 0'),
            (
                {"api": {"autoscaling": {"enabled": True, "minReplicas": 7}}},
                "api.autoscaling: minReplicas 7 is more than maxReplicas 6",
            ),
            (
                {"telemetry": {"keda": {"enabled": True, "minReplicas": 5}}},
                "telemetry.keda: minReplicas 5 is more than maxReplicas 4",
            ),
            (
                {"api": {"env": {"SENS_ERASURE__HISTORY_SECONDS": "3600"}}},
                "api.env.SENS_ERASURE__HISTORY_SECONDS is 3600, and the stream keeps stored messages for 86400 seconds",
            ),
        ],
    )
    def test_are_refused(self, values: dict[str, object], sentence: str) -> None:
        assert sentence in refusal(values)


class TestRelease:
    @pytest.mark.parametrize("release", ["my.release", "1st-release"])
    def test_whose_name_no_service_can_have_needs_another(self, release: str) -> None:
        said = refusal({}, release=release)

        assert f"the release's name \"{release}\" can't begin the names of Services" in said
        assert "Set a fullnameOverride" in said
        assert render({"fullnameOverride": "sens"}, release=release).of("Service")


class TestSchema:
    @pytest.mark.parametrize(
        "values",
        [
            {"imagez": {}},
            {"images": {"regsitry": "x"}},
            {"api": {"resources": {"request": {}}}},
            {"api": {"autoscaling": {"min": 1}}},
            {"telemetry": {"keda": {"lag": 1}}},
            {"mockBroker": {"fleet": {"device": 1}}},
            {"nats": {"persistence": {"class": "x"}}},
            {"ingress": {"tls": {"secretName": "x"}}},
            {"monitoring": {"alerts": True}},
            {"networkPolicy": {"egress": []}},
        ],
    )
    def test_refuses_a_mistyped_key_and_names_it(self, values: dict[str, object]) -> None:
        said = refusal(values)

        assert "additional properties" in said
        assert "not allowed" in said

    @pytest.mark.parametrize(
        ("values", "pointer"),
        [
            ({"api": {"replicas": "2"}}, "/api/replicas"),
            ({"mqtt": {"url": "http://broker"}}, "/mqtt/url"),
            ({"mqtt": {"url": "mqtt://user:password@broker"}}, "/mqtt/url"),
            ({"nats": {"persistence": {"size": "3GB"}}}, "/nats/persistence/size"),
            ({"api": {"env": {"PATH": "x"}}}, "/api/env"),
            ({"api": {"env": {"SENS_LIMITS__RANGE_DAYS": 3}}}, "/api/env/SENS_LIMITS__RANGE_DAYS"),
            ({"ingress": {"className": "Traefik 3"}}, "/ingress/className"),
            ({"logLevel": "verbose"}, "/logLevel"),
            ({"shutdownSeconds": 0}, "/shutdownSeconds"),
        ],
    )
    def test_refuses_a_wrong_value_and_says_where(self, values: dict[str, object], pointer: str) -> None:
        assert f"'{pointer}" in refusal(values)
