"""Publishes images, step by step. Called by scripts/publish-images; needs Python, git and, to build and sign, docker and cosign.

The images are pushed without a tag, and signed; only then, when all of them are there, is each given its tag. So what has
a version is complete and signed, and a run that failed half way has published nothing, or can be completed.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sens_cli.release.record import PinnedImage, Record, Release, check_digest, now
from sens_cli.release.versions import ReleaseError, Version, check_environment
from tools.release.hosting import Hosting
from tools.release.plan import Plan
from tools.release.program import parsed
from tools.release.registry import REVISION, PublishedImage, Registry
from tools.release.registry_http import Credentials

ROOT: Final = Path(__file__).parents[2]
WORKFLOW: Final = "deploy-test-main.yml"
"""The workflow of the GitOps repository that updates test."""

_MAXIMUM_BYTES: Final = 64 * 1024
_STANDARD_ERROR: Final = 2
_SHOWN: Final = 300


def standing(plan: Plan, registry: Registry) -> dict[str, str]:
    """Return the digests of the images that have the plan's tag already, published from the same commit.

    Raises:
        ReleaseError: One was published from something else, or for other platforms; its digest is named.
    """
    found = {image: registry.find(image, plan.version) for image in plan.images}
    for image, published in found.items():
        if published is not None:
            _check(plan, registry.repository(image), published)
    return {image: published.digest for image, published in found.items() if published is not None}


def _check(plan: Plan, repository: str, published: PublishedImage) -> None:
    name = f"{repository}:{plan.version} is published as {published.digest}"
    commit = published.labels.get(REVISION)
    if commit != plan.commit:
        raise ReleaseError(
            f"{name}, built from {commit or 'an unknown commit'} and not from {plan.commit}: "
            "a published tag is never moved. Publish another version."
        )
    if set(published.platforms) != set(plan.platforms):
        raise ReleaseError(
            f"{name} for {', '.join(published.platforms)}, and not for {', '.join(plan.platforms)}: "
            "a published tag is never moved. Publish another version."
        )


def login(host: str, credentials: Credentials | None) -> str:
    """Log docker in to a registry, and with it cosign, which reads the same file; return what was done.

    Raises:
        ReleaseError: docker is missing or refuses.
    """
    if credentials is None:
        return f"No login for {host}: SENS_REGISTRY_USER and SENS_REGISTRY_PASSWORD are not set."
    command = ["docker", "login", host, f"--username={credentials.user}", "--password-stdin"]
    try:
        done = subprocess.run(
            command, input=credentials.password, text=True, capture_output=True, check=False, timeout=60
        )
    except OSError as error:
        raise ReleaseError(f"docker can't be started ({error.strerror}): install it.") from None
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"docker got no answer from {host} in 60 s: run this again.") from None
    if done.returncode != 0:
        said = done.stderr.replace(credentials.password, "…").strip()[-_SHOWN:]
        raise ReleaseError(f"{host} does not let {credentials.user} in: {said or 'no reason was given'}")
    return f"Logged in to {host} as {credentials.user}"


def build(plan: Plan, registry: Registry, source: str | None) -> dict[str, str]:
    """Build the images that have no tag yet and push them without one; return their digests.

    Raises:
        ReleaseError: A tag is published from something else, or an image can't be built.
    """
    kept = standing(plan, registry)
    missing = [image for image in plan.images if image not in kept]
    if not missing:
        return {}
    with tempfile.TemporaryDirectory(prefix="sens-publish-") as folder:
        file = Path(folder) / "digests.json"
        command = [str(ROOT / "scripts/build-images"), "--builder=docker", f"--commit={plan.commit}"]
        command += [f"--version={plan.version}", f"--prefix={plan.registry}", f"--push-digests={file}"]
        command += [f"--platform={platform}" for platform in plan.platforms]
        command += [f"--image={image}" for image in missing]
        command += [f"--source={source}"] if source else []
        if _call(command) != 0:
            raise ReleaseError("scripts/build-images failed; the lines above say why. No tag was written.")
        return parse_digests(plan, file.read_text(encoding="utf-8"))


def parse_digests(plan: Plan, text: str) -> dict[str, str]:
    """Read the digests of some or all of a plan's images.

    Raises:
        ReleaseError: They are none.
    """
    document = parsed(text, _MAXIMUM_BYTES)
    if not isinstance(document, dict) or not set(document) <= set(plan.images):
        raise ReleaseError("The digests are not what 'scripts/publish-images build' printed for this plan.")
    for image, digest in document.items():
        check_digest(str(digest), f"of {image}")
    return {image: str(digest) for image, digest in document.items()}


def sign(registry: Registry, digests: Mapping[str, str]) -> None:
    """Sign the images that this run has built, keyless: by the identity of the workflow that runs.

    The signature is of the index, and with it of the platforms' images, their labels, SBOMs and provenance.

    Raises:
        ReleaseError: cosign is missing or refuses.
    """
    for image, digest in digests.items():
        try:
            code = _call(["cosign", "sign", "--yes", f"{registry.repository(image)}@{digest}"])
        except OSError as error:
            raise ReleaseError(f"cosign can't be started ({error.strerror}): install it.") from None
        if code != 0:
            raise ReleaseError(
                f"cosign could not sign {image}@{digest}; the lines above say why. No tag was written: run this again."
            )


def tag(plan: Plan, registry: Registry, digests: Mapping[str, str]) -> None:
    """Give the plan's tag to the images of this run, when all images are there, built as planned.

    Raises:
        ReleaseError: An image is missing, not as planned, or the tag stands for another one.
    """
    kept = standing(plan, registry)
    if missing := [image for image in plan.images if image not in kept and image not in digests]:
        raise ReleaseError(f"These images were not built: {', '.join(missing)}. No tag was written.")
    for image, digest in digests.items():
        built = registry.find(image, digest)
        if built is None:
            raise ReleaseError(f"{registry.repository(image)}@{digest} is not in the registry. No tag was written.")
        _check(plan, registry.repository(image), built)
        if kept.get(image, digest) != digest:
            raise ReleaseError(
                f"{registry.repository(image)}:{plan.version} is published as {kept[image]}, and a published tag is never "
                f"moved to {digest}. Start the run again: it keeps what is published."
            )
    for image, digest in digests.items():
        registry.tag(image, digest, plan.version)


def make_record(plan: Plan, registry: Registry, run: str | None) -> Record:
    """Return the record of what is published now, as the registry has it.

    Raises:
        ReleaseError: An image is missing, or not as planned.
    """
    digests = standing(plan, registry)
    if missing := [image for image in plan.images if image not in digests]:
        raise ReleaseError(f"These images have no tag {plan.version}: {', '.join(missing)}. Run this again.")
    images = {image: PinnedImage(registry.repository(image), digest) for image, digest in digests.items()}
    return Record(Release(Version.parse(plan.version), plan.commit), images, now(), run)


def dispatch(record: Record, repository: str, token: str, *, by_hand: bool) -> None:
    """Start the workflow of the GitOps repository that updates test.

    Args:
        record: What is published.
        repository: ``owner/name`` of the GitOps repository.
        token: With which workflows of it can be started.
        by_hand: Whether a person asked for this version: then test gets it even when it has a later one. A run that was
            overtaken by a later merge does not.

    Raises:
        ReleaseError: The version is not for test, or it was not started.
    """
    check_environment(record.release.version, "test")
    inputs = {
        "image_tag": str(record.release.version),
        "product_commit": record.release.product_commit,
        "digests": json.dumps({name: image.digest for name, image in record.images.items()}, sort_keys=True),
        "run_url": record.run or "",
        "allow_rollback": "true" if by_hand else "false",
    }
    Hosting(token).dispatch_workflow(repository, WORKFLOW, "main", inputs)


def _call(command: Sequence[str]) -> int:
    """Return a program's exit code; what it prints goes beside what this step prints."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=_STANDARD_ERROR, check=False).returncode


def run_url(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the address of the run that this is a step of, None outside of one."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    if not all(environment.get(name) for name in names):
        return None
    server, repository, number = (environment[name] for name in names)
    return f"{server}/{repository}/actions/runs/{number}"


def summary(record: Record) -> str:
    """Return a record as Markdown."""
    lines = [
        f"### Published {record.release.version}",
        "",
        f"Built from commit `{record.release.product_commit}`.",
        "",
        "| Image | Digest |",
        "| --- | --- |",
        *(f"| `{image.repository}` | `{image.digest}` |" for image in record.images.values()),
    ]
    return "\n".join(lines) + "\n"
