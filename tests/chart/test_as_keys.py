"""AS keys of sources that take messages by HTTP, in the chart."""

from support.chart import needs_helm, refusal, render

pytestmark = needs_helm

AS_KEYS = [
    {"tenant": "acme", "source": "thingpark", "secret": "acme-thingpark"},
    {"tenant": "plant.north", "source": "orange", "secret": "orange"},
]
VALUES = {"httpIngestion": {"enabled": True, "asKeys": AS_KEYS}}


class TestAsKeys:
    def test_are_mounted_in_a_folder_of_their_source_for_the_worker_alone(self) -> None:
        manifests = render(VALUES)
        spec = manifests.find("StatefulSet", "http-ingestion-worker").spec["template"]["spec"]
        (container,) = spec["containers"]
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        (folder,) = [each["value"] for each in container["env"] if each["name"] == "SENS_SOURCES__CREDENTIALS_FOLDER"]
        for key in AS_KEYS:
            mount = mounts[f"{folder}/{key['tenant']}/{key['source']}"]
            assert mount["readOnly"]
            # Where the secret is missing the folder is there and empty: the source takes nothing, and the pod starts.
            assert volumes[mount["name"]]["secret"] == {"secretName": key["secret"], "optional": True}
        others = [each for each in manifests.manifests if each.component != "http-ingestion-worker"]
        assert "acme-thingpark" not in str([each.document for each in others])

    def test_of_one_source_are_in_one_secret(self) -> None:
        said = refusal({"httpIngestion": {"asKeys": [AS_KEYS[0], AS_KEYS[0]]}})
        assert "source thingpark of tenant acme has two secrets" in said
