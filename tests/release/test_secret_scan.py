"""The scan for secrets: what it finds, what it leaves alone, and that it never shows one."""

from pathlib import Path

import pytest

from sens_cli.release.versions import ReleaseError
from support.git import Repository
from support.gitops import written
from support.release import call, refused
from support.services import ROOT
from tools.release.secret_scan import history, main, scan, work_tree

# Put together here, so that this file holds none.
KEY = "-----BEGIN " + "OPENSSH PRIVATE KEY-----\n" + "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ" + "\n"
GITHUB = "ghp" + "_" + "a1B2" * 9
FINE_GRAINED = "github" + "_pat_" + "A" * 22 + "_" + "b" * 59
AMAZON = "AKIA" + "ABCDEFGHIJKLMNOP"
JWT = "eyJ" + "hbGciOiJSUzI1NiJ9" + ".eyJ" + "pc3MiOiJrdWJlcm5ldGVzIn0" + "." + "c2lnbmF0dXJlLW9mLWEtdG9rZW4"
CLIENT_KEY = "client-key" + "-data: " + "TFMwdExT" * 6
LOGIN = '"auth' + '": "' + "cm9ib3Q6dG9rZW4tb2YtYS10ZXN0" + '"'
SECRET = (
    "apiVersion: v1\nkind: "
    "Secret\nmetadata:\n  name: x\ndata:\n  # of the database\n  postgres-password: aHVudGVyMg==\n"
)
SECRETS = {
    "a private key": KEY,
    "a token of GitHub": GITHUB,
    "an access key of AWS": AMAZON,
    "a signed token (JWT)": JWT,
    "a client's key in a kubeconfig": CLIENT_KEY,
    "a login of a registry": LOGIN,
    "values of a Kubernetes Secret": SECRET,
}


class TestTexts:
    @pytest.mark.parametrize(("what", "text"), SECRETS.items())
    def test_that_are_secret_are_found_with_their_line(self, what: str, text: str) -> None:
        found = list(scan("notes.txt", f"first: line\nsecond: line\n{text}\n"))

        assert [(where.partition(":")[0], kind) for where, kind in found] == [("notes.txt", what)]

    def test_of_the_second_kind_of_githubs_tokens_are_found(self) -> None:
        assert [finding.what for finding in scan("x", f"token={FINE_GRAINED}")] == ["a token of GitHub"]

    def test_of_a_secret_with_its_kind_at_the_end_are_found(self) -> None:
        text = "stringData:\n  password: hunter22\nmetadata:\n  name: x\nkind: " + "Secret\n"

        assert [finding.what for finding in scan("x.yaml", text)] == ["values of a Kubernetes Secret"]

    @pytest.mark.parametrize(
        "text",
        [
            "kind: Secret\nmetadata:\n  name: x\n",
            "kind: Secret\nstringData:\n  password: {{ .Values.password | quote }}\n",
            'kind: Secret\nstringData:\n  password: "{{ .Values.password }}"\n',
            "kind: Secret\nstringData:\n  password: <your password>\n",
            "kind: Secret\nmetadata:\n  name: x\n---\nkind: ConfigMap\ndata:\n  key: some-value\n",
            "kind: ConfigMap\ndata:\n  key: some-value\n",
            "-----BEGIN PUBLIC KEY-----\n" + "A" * 64,
            "-----BEGIN " + "PRIVATE KEY-----\n…",
            "ghp_short",
            "sha256:" + "a" * 64,
            "0123456789abcdef" * 4,
        ],
    )
    def test_that_are_none_are_left_alone(self, text: str) -> None:
        assert list(scan("x.yaml", text)) == []

    @pytest.mark.parametrize(
        "name",
        ["ssh-private", "a/ssh-private.old", "tls.key", "a/b.pem", "id_ed25519", "x.kubeconfig", "kubeconfig", ".env", "a.p12"],
    )  # fmt: skip
    def test_in_files_that_hold_keys_are_found_by_the_name(self, name: str) -> None:
        assert len(list(scan(name, "anything"))) == 1

    @pytest.mark.parametrize(
        "name", ["keys.md", "monkey", "a.key.md", "scripts/kubeconfig-deploy-test", "kubeconfig.py", "x.env.md"]
    )
    def test_in_other_files_are_not_found_by_the_name(self, name: str) -> None:
        assert list(scan(name, "anything")) == []


class TestRepository:
    def test_of_this_product_holds_none(self) -> None:
        assert list(work_tree(ROOT)) == []

    def test_of_the_template_holds_none(self, repository: Repository) -> None:
        written(repository.folder)

        said = call(main, str(repository.folder))
        assert (said, said.code) == ("No secret was found.\n", 0)

    def test_is_refused_without_showing_the_secret(self, repository: Repository) -> None:
        repository.commit(files={"notes.txt": f"a\n{GITHUB}\n"})

        said = refused(call(main, str(repository.folder)), "notes.txt:2: a token of GitHub", "revoke it")
        assert GITHUB not in said

    def test_is_looked_through_before_a_commit_but_not_what_git_ignores(self, repository: Repository) -> None:
        repository.write({".gitignore": "*.ignored\n", "new": GITHUB, "x.ignored": GITHUB})

        assert [finding.where for finding in work_tree(repository.folder)] == ["new:1"]

    def test_with_bytes_that_are_no_text_is_read(self, repository: Repository) -> None:
        (repository.folder / "image").write_bytes(b"\xff\xfe\x00" + GITHUB.encode() + b"\xff")

        assert [finding.what for finding in work_tree(repository.folder)] == ["a token of GitHub"]

    def test_keeps_what_was_taken_out_again_and_other_branches(self, repository: Repository) -> None:
        repository.commit(files={"a": GITHUB})
        repository.commit(files={"a": None})
        repository.branch("other")
        repository.commit(files={"b": AMAZON})
        repository.switch("main")

        assert list(work_tree(repository.folder)) == []
        assert {finding.where.partition(" ")[0] for finding in history(repository.folder)} == {"a:1", "b:1"}

    def test_that_is_shallow_has_no_history_to_speak_of(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit(files={"a": "1"})
        repository.commit(files={"a": "2"})
        clone = repository.clone(tmp_path / "shallow", depth=1)

        with pytest.raises(ReleaseError, match="shallow"):
            list(history(clone.folder))

    def test_that_is_none_is_said(self, tmp_path: Path) -> None:
        refused(call(main, str(tmp_path / "none")), "'git ls-files' failed")
