"""The client of the hosting service's API, against a service that answers over HTTP."""

import socket
from collections.abc import Callable, Iterator

import pytest

from sens_cli.release.versions import ReleaseError
from support.hosting import TOKEN, HostingService, hosting_service
from support.http_server import Answer
from support.servers import HOST
from tools.release.hosting import Hosting, HostingError, Protection

REPOSITORY = "owner/infra"
HOSTILE = ["", "main; id", "$(id)", "../..", "a b", "-x", "x\ny", "\x1b[31m", "ä", "owner/infra/pulls", "?x=y", "#"]


@pytest.fixture
def service() -> Iterator[HostingService]:
    with hosting_service(REPOSITORY) as running:
        running.repositories[REPOSITORY].workflows.add("deploy-test-main.yml")
        yield running


def client(service: HostingService) -> Hosting:
    return Hosting(TOKEN, service.url)


class TestStartingAWorkflow:
    def test_sends_the_branch_and_the_inputs(self, service: HostingService) -> None:
        client(service).dispatch_workflow(REPOSITORY, "deploy-test-main.yml", "main", {"image_tag": "0.1.0-alpha.1.1"})
        assert service.repositories[REPOSITORY].dispatches == [
            {"workflow": "deploy-test-main.yml", "ref": "main", "inputs": {"image_tag": "0.1.0-alpha.1.1"}}
        ]

    def test_takes_the_address_from_the_environment(
        self, service: HostingService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GITHUB_API_URL", service.url + "/")
        Hosting(TOKEN).dispatch_workflow(REPOSITORY, "deploy-test-main.yml", "main", {})
        assert len(service.repositories[REPOSITORY].dispatches) == 1

    def test_of_an_unknown_file_says_what_to_check(self, service: HostingService) -> None:
        with pytest.raises(HostingError, match=r"404 \(Not Found\): there is no such repository, workflow or branch"):
            client(service).dispatch_workflow(REPOSITORY, "absent.yml", "main", {})

    def test_on_an_unknown_branch_says_what_the_service_said(self, service: HostingService) -> None:
        with pytest.raises(HostingError, match=r"422 \(No ref found for: absent\): what was sent does not fit"):
            client(service).dispatch_workflow(REPOSITORY, "deploy-test-main.yml", "absent", {})

    def test_with_too_many_inputs_is_refused_before_the_call(self, service: HostingService) -> None:
        with pytest.raises(ReleaseError, match="26 inputs are too many"):
            client(service).dispatch_workflow(
                REPOSITORY, "deploy-test-main.yml", "main", {str(number): "" for number in range(26)}
            )
        assert service.calls == []


class TestAPullRequest:
    def open(self, service: HostingService, head: str = "promote/0.1.0") -> str:
        return client(service).open_pull_request(REPOSITORY, head, "main", "Promote 0.1.0", "what changes")

    def test_is_opened_once_however_often_it_is_asked_for(self, service: HostingService) -> None:
        first, second = self.open(service), self.open(service)
        assert first == second == "https://hosting.invalid/owner/infra/pull/1"
        assert [pull["body"] for pull in service.repositories[REPOSITORY].pulls] == ["what changes"]

    def test_that_was_closed_is_opened_again(self, service: HostingService) -> None:
        self.open(service)
        service.repositories[REPOSITORY].pulls[0]["state"] = "closed"
        assert self.open(service).endswith("/2")

    def test_of_another_branch_is_not_taken_for_it(self, service: HostingService) -> None:
        self.open(service)
        assert self.open(service, "promote/0.2.0").endswith("/2")

    def test_that_another_run_opens_in_between_is_found(self, service: HostingService) -> None:
        def other_run(method: str, _path: str) -> Answer | None:
            if method == "GET":
                service.intercept = lambda _method, _path: None
                self.open(service)
                return Answer(200, [])
            return None

        service.intercept = other_run
        assert self.open(service).endswith("/1")
        assert len(service.repositories[REPOSITORY].pulls) == 1

    def test_that_may_not_be_opened_says_which_permission_is_missing(self, service: HostingService) -> None:
        message = "GitHub Actions is not permitted to create or approve pull requests."
        service.intercept = lambda method, _path: Answer(403, {"message": message}) if method == "POST" else None
        with pytest.raises(HostingError, match=r"not permitted to create.*Pull requests: write.*settings"):
            self.open(service)

    def test_whose_answer_lacks_its_address_is_an_error(self, service: HostingService) -> None:
        service.intercept = lambda method, _path: Answer(201, {}) if method == "POST" else None
        with pytest.raises(ReleaseError, match="has no html_url"):
            self.open(service)


class TestABranchsProtection:
    def read(self, service: HostingService) -> Protection:
        return client(service).branch_protection(REPOSITORY, "main")

    def test_is_none_where_there_are_no_rules(self, service: HostingService) -> None:
        assert self.read(service) == Protection(False, False, None, True)

    def test_comes_from_a_ruleset(self, service: HostingService) -> None:
        service.repositories[REPOSITORY].rules = [
            {"type": "non_fast_forward"},
            {"type": "pull_request", "parameters": {"require_code_owner_review": True}},
        ]
        assert self.read(service) == Protection(True, True, None, False)

    def test_of_a_ruleset_without_owners_does_not_count_as_owners(self, service: HostingService) -> None:
        service.repositories[REPOSITORY].rules = [
            {"type": "pull_request", "parameters": {"require_code_owner_review": False}}
        ]
        assert self.read(service) == Protection(True, False, None, True)

    def test_comes_from_classic_protection(self, service: HostingService) -> None:
        service.repositories[REPOSITORY].protection = {
            "required_pull_request_reviews": {"require_code_owner_reviews": True},
            "enforce_admins": {"enabled": True},
            "allow_force_pushes": {"enabled": False},
        }
        assert self.read(service) == Protection(True, True, True, False)

    def test_that_may_not_be_read_is_an_error_and_not_an_answer(self, service: HostingService) -> None:
        message = "Resource not accessible by integration"
        service.intercept = lambda _method, path: (
            Answer(403, {"message": message}) if path.endswith("/protection") else None
        )
        with pytest.raises(HostingError, match="Administration: read"):
            self.read(service)

    def test_of_a_repository_that_is_not_seen_is_an_error(self, service: HostingService) -> None:
        with pytest.raises(HostingError, match="404"):
            client(service).branch_protection("owner/absent", "main")


class TestTrouble:
    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (Answer(401, {"message": "Bad credentials"}), "expired or was revoked"),
            (Answer(403, {"message": "limit"}, {"X-RateLimit-Remaining": "0"}), "too many calls"),
            (Answer(429, {"message": "limit"}), "too many calls"),
            (Answer(500), "GitHub has trouble"),
            (Answer(503, b"<html>"), r"503 \(Service Unavailable\): GitHub has trouble"),
            (Answer(301, None, {"Location": "/elsewhere"}), "has moved"),
            (Answer(418), "check what was asked for"),
            (Answer(200, b"<html>"), "not JSON"),
            (Answer(200, b"[" * 100_000), "not JSON"),
            (Answer(200, {}), "not a list"),
            (Answer(200, b"x" * (8 * 1024 * 1024 + 1)), "more than 8388608 bytes"),
        ],
        ids=lambda value: value if isinstance(value, str) else str(value.status),
    )
    def test_is_told_with_what_to_do(self, service: HostingService, answer: Answer, text: str) -> None:
        service.intercept = lambda _method, _path: answer
        with pytest.raises(ReleaseError, match=text):
            client(service).open_pull_request(REPOSITORY, "head", "main", "", "")

    def test_a_redirection_is_not_followed_with_the_token(self, service: HostingService) -> None:
        service.intercept = lambda _method, _path: Answer(302, None, {"Location": service.url + "/elsewhere"})
        with pytest.raises(ReleaseError, match="has moved"):
            client(service).branch_protection(REPOSITORY, "main")
        assert service.calls == ["GET /repos/owner/infra/rules/branches/main"]

    def test_an_answer_that_does_not_come_says_that_the_workflow_may_run(self) -> None:
        with socket.create_server((HOST, 0)) as deaf:
            hosting = Hosting(TOKEN, f"http://{HOST}:{deaf.getsockname()[1]}", timeout_seconds=0.1)
            with pytest.raises(ReleaseError, match=r"no answer \(timed out\).*may have been done.*look before"):
                hosting.dispatch_workflow(REPOSITORY, "deploy-test-main.yml", "main", {})

    def test_a_service_that_is_not_there_is_named(self) -> None:
        with socket.create_server((HOST, 0)) as listener:
            url = f"http://{HOST}:{listener.getsockname()[1]}"
        with pytest.raises(ReleaseError, match=rf"{url}/repos/.* got no answer .*Run it again later"):
            Hosting(TOKEN, url).branch_protection(REPOSITORY, "main")

    def test_control_characters_and_long_texts_of_the_service_are_not_passed_on(self, service: HostingService) -> None:
        service.intercept = lambda _method, _path: Answer(422, {"message": "a\n::error::\x1b[31m" + "x" * 10_000})
        with pytest.raises(HostingError) as refusal:
            client(service).branch_protection(REPOSITORY, "main")
        assert str(refusal.value).isprintable()
        assert len(str(refusal.value)) < 600


class TestTheToken:
    def test_is_in_no_error(self, service: HostingService) -> None:
        service.intercept = lambda _method, _path: Answer(403, {"message": f"no: {TOKEN}", "errors": [TOKEN]})
        with pytest.raises(HostingError) as refusal:
            client(service).branch_protection(REPOSITORY, "main")
        assert TOKEN not in f"{refusal.value!s}{refusal.value!r}"
        assert service.tokens == [f"Bearer {TOKEN}"]

    @pytest.mark.parametrize("token", ["", " ", "secret\n", "sec ret", "secret\r\nX: y", "sécret"])
    def test_that_can_be_none_is_refused_without_being_shown(self, token: str) -> None:
        with pytest.raises(ReleaseError, match="store it again") as refusal:
            Hosting(token)
        assert "cret" not in str(refusal.value)

    @pytest.mark.parametrize("api", ["http://api.invalid", "file:///etc", "ftp://127.0.0.1", "api.github.com"])
    def test_is_not_sent_in_the_clear(self, api: str) -> None:
        with pytest.raises(ReleaseError, match="must be an https address"):
            Hosting(TOKEN, api)


class TestHostileNames:
    @pytest.mark.parametrize("name", HOSTILE)
    @pytest.mark.parametrize(
        "call",
        [
            lambda hosting, name: hosting.dispatch_workflow(name, "deploy-test-main.yml", "main", {}),
            lambda hosting, name: hosting.dispatch_workflow(REPOSITORY, name, "main", {}),
            lambda hosting, name: hosting.dispatch_workflow(REPOSITORY, "deploy-test-main.yml", f"{name} ", {}),
            lambda hosting, name: hosting.open_pull_request(name, "head", "main", "", ""),
            lambda hosting, name: hosting.open_pull_request(REPOSITORY, f"{name}..", "main", "", ""),
            lambda hosting, name: hosting.open_pull_request(REPOSITORY, "head", f"-{name}", "", ""),
            lambda hosting, name: hosting.branch_protection(REPOSITORY, f"{name}:"),
        ],
    )
    def test_reach_no_server(self, service: HostingService, name: str, call: Callable[[Hosting, str], object]) -> None:
        with pytest.raises(ReleaseError):
            call(client(service), name)
        assert service.calls == []

    def test_in_inputs_arrive_as_they_are(self, service: HostingService) -> None:
        inputs = {str(number): text for number, text in enumerate(HOSTILE)}
        client(service).dispatch_workflow(REPOSITORY, "deploy-test-main.yml", "main", inputs)
        assert service.repositories[REPOSITORY].dispatches[0]["inputs"] == inputs
