"""What the API and the documentation say of themselves on their public hosts, and whether it is what was released."""

from collections.abc import Mapping
from typing import Final

from sens_cli.verify.endpoint import Endpoint
from sens_cli.verify.environment import Environment
from sens_cli.verify.outcome import CheckFailedError, NotRunError
from sens_cli.verify.web import Answer, Web, unexpected

API: Final = "platform-api"
DOCS: Final = "docs"
METRICS: Final[Mapping[str, str]] = {API: "# TYPE sens_api_requests", DOCS: "# TYPE sens_docs_responses"}
"""What is in the metrics of each."""

DATA_PATH: Final = "/api/v1/devices"

_OK = 200
_UNAUTHENTICATED = 401
_UNAVAILABLE = 503


class Service:
    """A service with a public host.

    Attributes:
        host: Its public host, None when it is not known.
    """

    def __init__(self, name: str, host: Endpoint | None, option: str, environment: Environment, web: Web) -> None:
        self.host = host
        self._name = name
        self._option = option
        self._environment = environment
        self._web = web

    async def healthy(self) -> str:
        """See that the process works."""
        return await self._status("/healthz")

    async def ready(self) -> str:
        """See that it can do its work."""
        return await self._status("/readyz")

    async def version(self) -> str:
        """See that it is this service, and return its version."""
        version, commit = await self._version()
        return f"{version}, commit {commit}"

    async def tested(self) -> str:
        """See that the test endpoint writes its log entry."""
        answer = await self._get("/test")
        if answer.status != _OK or answer.document().get("message") != "test endpoint called":
            raise unexpected(answer, self._remedy)
        return "its log has a new entry 'test endpoint called'"

    async def page(self) -> str:
        """See that there is a start page."""
        answer = await self._get("/")
        if answer.status != _OK or answer.content_type != "text/html" or b"</html>" not in answer.body.lower():
            raise unexpected(answer, self._remedy)
        return f"a page of {len(answer.body)} bytes"

    async def metrics(self) -> str:
        """See that it gives metrics on its host."""
        answer = await self._get("/metrics")
        if answer.status != _OK or METRICS[self._name].encode() not in answer.body:
            raise unexpected(
                answer,
                "Metrics should be public here (public_metrics): set ingress.publicMetrics in the chart's values, or public_metrics to "
                f"false in environment.toml. {self._remedy}",
            )
        return f"{series(answer.body.decode(errors='replace'))}, on {answer.url}"

    async def data(self) -> str:
        """See that the data's path is served where it should be, and to nobody without a key; not at all where it should not."""
        answer = await self._get(DATA_PATH)
        asks_for_key = answer.status == _UNAUTHENTICATED and answer.document().get("code") == "unauthenticated"
        if asks_for_key != self._environment.public_data:
            wanted = "served" if self._environment.public_data else "kept inside of the cluster"
            raise CheckFailedError(
                f"{answer.url} answers with {answer.status}; /api/v1 should be {wanted} (public_data)",
                "Compare ingress.publicData in the chart's values with public_data in environment.toml. "
                f"If they agree, look at what answers: {self._remedy}",
            )
        return f"{answer.url} asks for a key" if asks_for_key else f"{answer.url} is not served, as public_data says"

    async def released(self) -> str:
        """See that version and commit are those of the release."""
        expected = self._environment.expected
        if expected is None or (expected.version is None and expected.commit is None):
            raise NotRunError("there is no release yet (release.json), and no --expect-version or --expect-commit")
        version, commit = await self._version()
        wrong = []
        # Images of any pre-release answer with the version in the product's root, without the pre-release.
        if expected.version is not None and version not in {expected.version, expected.root}:
            wrong.append(f"version is {version}, released is {expected.version}")
        if expected.commit is not None and not commit.startswith(expected.commit):
            wrong.append(f"commit is {commit}, released is {expected.commit}")
        if wrong:
            namespace, release = self._environment.namespace or "NAMESPACE", self._environment.release or "RELEASE"
            raise CheckFailedError(
                "; ".join(wrong),
                f"The release is not rolled out (yet): kubectl -n {namespace} rollout status deployment/{release}-{self._name}, "
                "and is its Application synced?",
            )
        return f"{expected.version or version}, commit {commit}"

    async def _status(self, path: str) -> str:
        answer = await self._get(path)
        document = answer.document()
        if answer.status == _OK and document.get("status") == "ok":
            notes = document.get("notes")
            said = "; ".join(str(text) for text in notes.values()) if isinstance(notes, dict) else ""
            return f"ok, but should be otherwise: {said[:1000]}" if said else "ok"
        checks = document.get("checks")
        if answer.status == _OK and document.get("status") == "degraded" and isinstance(checks, dict):
            said = "; ".join(f"{name}: {text}" for name, text in checks.items() if text != "ok")
            raise CheckFailedError(f"{answer.url} answers with 200, degraded: {said[:500]}", self._remedy)
        if answer.status == _UNAVAILABLE and document.get("status") == "failed":
            failed = checks if isinstance(checks, dict) else {"detail": document.get("detail")}
            said = "; ".join(f"{name}: {text}" for name, text in failed.items() if text != "ok")
            raise CheckFailedError(f"{answer.url} answers with 503: {said[:500]}", self._remedy)
        raise unexpected(answer, self._remedy)

    async def _version(self) -> tuple[str, str]:
        answer = await self._get("/version")
        document = answer.document()
        version, commit = document.get("version"), document.get("product_commit")
        if answer.status != _OK or not isinstance(version, str) or not isinstance(commit, str):
            raise unexpected(answer, self._remedy)
        if document.get("name") != self._name:
            raise CheckFailedError(
                f"{answer.url} is answered by {str(document.get('name'))[:100]!r}, not by {self._name}",
                "The host's Ingress leads to another service: compare apiHost and docsHost in the chart's values.",
            )
        return version[:200], commit[:200]

    async def _get(self, path: str) -> Answer:
        if self.host is None:
            raise NotRunError(f"no host is known ({self._option})")
        return await self._web.get(self.host, path)

    @property
    def _remedy(self) -> str:
        namespace, release = self._environment.namespace or "NAMESPACE", self._environment.release or "RELEASE"
        return f"kubectl -n {namespace} get pods,ingress; kubectl -n {namespace} logs deployment/{release}-{self._name} --tail=50"


def series(metrics: str) -> str:
    """Return how many there are, in words, given metrics in Prometheus' text format."""
    return f"{sum(1 for line in metrics.splitlines() if line and not line.startswith('#'))} series"
