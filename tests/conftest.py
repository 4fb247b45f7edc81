"""Fixtures of real servers, for every test; property tests that depend on no clock and repeat."""

import hypothesis

pytest_plugins = [
    "support.servers",
    "support.platform",
    "support.brokers",
    "support.workers",
    "support.api",
    "support.git",
    "support.registry",
    "support.release",
    "support.gitops",
    "support.cluster",
    "support.fake_kubectl",
    "support.certificates",
    "support.environments",
]

hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")
