"""The chart's images are those of ``images.toml``, with their ports and rights."""

import json
import re

import pytest
import yaml

from support.chart import CHART, matrix_render, needs_helm
from tools.images.catalogue import IMAGES, Image

NAMES = {image.name for image in IMAGES}
every_image = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)


class TestLists:
    def test_of_digests_has_each_image(self) -> None:
        values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
        schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

        assert values["images"]["digests"].keys() == NAMES
        assert schema["properties"]["images"]["properties"]["digests"]["properties"].keys() == NAMES

    def test_of_components_with_a_network_policy_has_each_image(self) -> None:
        text = (CHART / "templates/networkpolicies.yaml").read_text(encoding="utf-8")
        components = re.search(r"range \$component := list (.+?) -}}", text)

        assert components is not None
        assert set(re.findall(r'"([^"]+)"', components[1])) >= NAMES


@needs_helm
class TestContainers:
    @every_image
    def test_run_the_image_with_its_ports_and_rights(self, image: Image) -> None:
        [(pod, container)] = [
            (pod, pod.containers[0])
            for manifest, pod in matrix_render("test").pods()
            if manifest.kind in {"Deployment", "StatefulSet"} and manifest.component == image.name
        ]

        assert f"/{image.name}:" in container.image
        assert {port.container_port for port in container.ports} >= {image.port, *image.further_ports.values()}
        assert f"{pod.security_context.run_as_user}:{pod.security_context.run_as_group}" == image.user
        assert set(image.writable) <= {mount.mount_path for mount in container.volume_mounts}

    def test_run_no_image_that_is_not_listed(self) -> None:
        registry = yaml.safe_load((CHART.parent / "values/test.yaml").read_text(encoding="utf-8"))["images"]["registry"]
        images = {container.image for _, pod in matrix_render("everything on").pods() for container in pod.containers}
        ours = {name.removeprefix(f"{registry}/").partition(":")[0] for name in images if name.startswith(registry)}

        assert ours == NAMES


class TestDatabase:
    def test_has_the_version_that_is_measured_on_the_postgresql_of_existing_volumes(self) -> None:
        values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

        # Another major version of PostgreSQL does not start on a volume of this one.
        assert values["database"]["image"]["tag"] == "2.29.2-pg17"
