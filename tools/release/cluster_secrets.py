"""The secrets that the cluster needs: what each one holds, and how it gets there.

Values go to kubectl by its standard input. It creates, or patches what exists, so that other keys stay: ``kubectl apply`` would keep a
copy of the values in an annotation.
"""

import base64
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sens_cli.release.versions import ReleaseError
from tools.release.kubectl import ClusterAdministration, NotFoundInClusterError

Manifest = dict[str, object]
_MINIMUM: Final = 12
_OWN: Final = (
    "postgres-api-password",
    "postgres-worker-password",
    "nats-administrator-password",
    "nats-api-password",
    "nats-ingestion-password",
    "nats-http-ingestion-password",
    "nats-telemetry-password",
)
"""Each service's own password in the database and in NATS: the chart's perServiceCredentials."""
_KEPT: Final = (
    "The database was made with the password that is there now, and its volume keeps it: with another one the platform could "
    "not log in. First change it in the database (docs/operations/kubernetes.md, 'Change a secret'), then use --replace."
)


@dataclass(frozen=True, slots=True)
class Question:
    """A value that is asked for.

    Attributes:
        key: Its name on the standard input.
        text: What the prompt says.
        secret: Whether it is typed without echo.
        made_when_empty: Whether an empty answer makes a random one.
    """

    key: str
    text: str
    secret: bool = True
    made_when_empty: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A secret that the cluster needs.

    Attributes:
        name: Its name.
        namespace: Where it is.
        questions: What has to be known to make it.
        fill: Makes its values of the answers.
        kind: Its type.
        labels: Its labels.
        made: Keys whose values nobody needs to know: each service's own. Random ones, where there are none yet.
        dropped: Keys of another way to fill it, which are taken out when it is replaced.
        kept: Why it should not be replaced.
    """

    name: str
    namespace: str
    questions: tuple[Question, ...]
    fill: Callable[[Mapping[str, str]], dict[str, str]]
    kind: str = "Opaque"
    labels: Mapping[str, str] = field(default_factory=dict)
    made: tuple[str, ...] = ()
    kept: str = "Use --replace to put another value in its place."
    dropped: tuple[str, ...] = ()

    def manifest(self, values: Mapping[str, str]) -> Manifest:
        """Return the whole object."""
        metadata = {"name": self.name, "namespace": self.namespace, "labels": self.labels}
        return {"apiVersion": "v1", "kind": "Secret", "type": self.kind, "metadata": metadata, "stringData": values}


def wanted(registry: str, account: str, app_key: str | None = None) -> dict[str, tuple[Wanted, ...]]:
    """Return the secrets of each part of the cluster.

    Args:
        registry: Host and path of the images.
        account: Address that the addresses of both repositories begin with.
        app_key: Private key of a GitHub App, with which Argo CD reads them instead of with a person's token.
    """
    host = registry.partition("/")[0]

    def pull(answers: Mapping[str, str]) -> dict[str, str]:
        # The format of ~/.docker/config.json (kubernetes.io, "Pull an Image from a Private Registry").
        name, token = answers["registry-user"], answers["registry-token"]
        entry = {"username": name, "password": token, "auth": base64.b64encode(f"{name}:{token}".encode()).decode()}
        return {".dockerconfigjson": json.dumps({"auths": {host: entry}})}

    def database(answers: Mapping[str, str]) -> dict[str, str]:
        return {"postgres-password": answers["postgres-password"]}

    def repositories(answers: Mapping[str, str]) -> dict[str, str]:
        # argo-cd.readthedocs.io, "Declarative setup", repository credentials, and "GitHub App credential" there.
        access = {
            "username": answers.get("repository-user"),
            "password": answers.get("repository-token"),
            "githubAppID": answers.get("github-app-id"),
            "githubAppInstallationID": answers.get("github-app-installation-id"),
            "githubAppPrivateKey": app_key,
        }
        return {"type": "git", "url": account} | {name: value for name, value in access.items() if value is not None}

    asked_pull = (
        Question("registry-user", f"User at {host}", secret=False),
        Question("registry-token", f"Token that may read packages at {host}"),
    )
    asked_database = (Question("postgres-password", "Password for the database", made_when_empty=True),)
    asked_token = (
        Question("repository-user", f"User at {account}", secret=False),
        Question("repository-token", "Token that may read the contents of both repositories"),
    )
    asked_app = (
        Question("github-app-id", "ID of the GitHub App", secret=False),
        Question("github-app-installation-id", f"ID of its installation at {account}", secret=False),
    )
    found = {}
    for name in ("test", "production"):
        where, auth = f"sens-{name}", f"sens-{name}-timescaledb-auth"
        found[name] = (
            Wanted("ghcr-pull", where, asked_pull, pull, kind="kubernetes.io/dockerconfigjson"),
            Wanted(auth, where, asked_database, database, made=_OWN, kept=_KEPT),
        )
    by_token, by_app = ("username", "password"), ("githubAppID", "githubAppInstallationID", "githubAppPrivateKey")
    asked, dropped = (asked_token, by_app) if app_key is None else (asked_app, by_token)
    labels = {"argocd.argoproj.io/secret-type": "repo-creds"}
    access = Wanted("sens-repositories", "argocd", asked, repositories, labels=labels, dropped=dropped)
    return found | {"argocd": (access,)}


def read_app_key(text: str) -> str:
    """Return the private key of a GitHub App, as GitHub's page gives it.

    Raises:
        ReleaseError: It is none; nothing of it is in the text.
    """
    key = text.strip()
    if not (key.startswith("-----BEGIN ") and key.endswith("PRIVATE KEY-----") and "\n" in key):
        raise ReleaseError(
            "The file of the GitHub App's key holds no private key: give the .pem file from the App's page."
        )
    return f"{key}\n"


def answer(question: Question, ask: Callable[[Question], str]) -> str:
    """Return the value that a secret gets.

    Raises:
        ReleaseError: It is missing or too short.
    """
    value = ask(question)
    if not value and question.made_when_empty:
        return _random()
    if not value:
        raise ReleaseError(f"{question.key} is empty: nothing was created with it.")
    if question.made_when_empty and len(value) < _MINIMUM:
        raise ReleaseError(
            f"{question.key} is shorter than {_MINIMUM} characters: choose a longer one, or leave it empty."
        )
    return value


def create(kubectl: ClusterAdministration, one: Wanted, ask: Callable[[Question], str], *, replace: bool) -> str:
    """Create a secret, and say in one line what was done.

    Raises:
        ReleaseError: A value is missing, or the cluster refuses.
    """
    where = f"{one.namespace}/{one.name}"
    there = _exists(kubectl, one)
    if there and not replace:
        added = _add_missing(kubectl, one)
        also = f" Added the keys that it had not: {', '.join(added)}." if added else ""
        return f"kept     {where}: it exists already. {one.kept}{also}"
    answers = {question.key: answer(question, ask) for question in one.questions}
    hidden = [answers[question.key] for question in one.questions if question.secret]
    values = one.fill(answers)
    if there:
        patch: Manifest = {"stringData": values}
        if one.dropped:
            patch["data"] = dict.fromkeys(one.dropped)
        _patch(kubectl, one.namespace, one.name, patch, hidden)
        _add_missing(kubectl, one)
        return f"replaced {where}"
    own = {key: _random() for key in one.made}
    manifest = json.dumps(one.manifest(values | own))
    kubectl.run("create", "--filename=-", "--output=name", stdin=manifest, secrets=[*hidden, *own.values()])
    return f"created  {where}"


def _random() -> str:
    return secrets.token_hex(24)


def _add_missing(kubectl: ClusterAdministration, one: Wanted) -> list[str]:
    """Give an existing secret those keys of the services' own that it has not; return them."""
    template = "{{range $key, $value := .data}}{{$key}} {{end}}"
    of = ("get", f"--namespace={one.namespace}", "secret", one.name)
    there = kubectl.run(*of, f"--output=go-template={template}").split() if one.made else []
    own = {key: _random() for key in one.made if key not in there}
    if own:
        _patch(kubectl, one.namespace, one.name, {"stringData": own}, list(own.values()))
    return list(own)


def set_webhook_secret(kubectl: ClusterAdministration, ask: Callable[[Question], str], *, replace: bool) -> str:
    """Put the webhook's shared secret into Argo CD's own secret, and say in one line what was done.

    Raises:
        ReleaseError: It is missing, or the cluster refuses.
    """
    template = '{{if index .data "webhook.github.secret"}}set{{end}}'
    of = ("--namespace=argocd", "secret", "argocd-secret")
    if kubectl.run("get", *of, f"--output=go-template={template}") == "set" and not replace:
        return "kept     argocd/argocd-secret: it has a webhook.github.secret already. Use --replace to put another one there."
    value = answer(Question("webhook-secret", "Secret of the webhook, as at GitHub"), ask)
    _patch(kubectl, "argocd", "argocd-secret", {"stringData": {"webhook.github.secret": value}}, [value])
    return "changed  argocd/argocd-secret: webhook.github.secret"


def _exists(kubectl: ClusterAdministration, one: Wanted) -> bool:
    try:
        kubectl.run("get", f"--namespace={one.namespace}", "secret", one.name, "--output=name")
    except NotFoundInClusterError:
        return False
    return True


def _patch(kubectl: ClusterAdministration, namespace: str, name: str, patch: Manifest, hidden: Sequence[str]) -> None:
    options = (f"--namespace={namespace}", "--type=merge", "--patch-file=/dev/stdin", "--output=name")
    kubectl.run("patch", "secret", name, *options, stdin=json.dumps(patch), secrets=hidden)
