"""Manifests for a cluster: right by the schemas of Kubernetes, equal for equal settings, and without a secret."""

import json
import re
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.settings import Settings, load_settings
from wenfang.doors.cli.tree import create_cli
from wenfang.studio.manifests import render
from wenfang.studio.manifests.inside import GRPC_PORT, HOME, HTTP_PORT, USER_ID, inside_toml
from wenfang.studio.manifests.writing import to_yaml

ROOT = Path(__file__).parent.parent.parent
VERSIONS = ("1.30", "1.37")
SHAPES = {
    "defaults": {},
    "postgres": {"store": {"tables": "postgresql://wf:s3cret@db.example:6432/wf"}, "deploy": {"cpu": 0.5, "storage_class": "fast", "egress_ports": [443]}},
    "ray": {"deploy": {"ray_workers_max": 8, "ray_workers_min": 2, "ray_cpu": 3.5, "ray_gpus": 1}, "runtime": {"cpus": 0.5}},
    "many": {"serve": {"gateways": 3, "replicas": 5, "grpc_port": 0}, "deploy": {"name": "shop", "namespace": "nlp", "cpu": 7.5, "memory": "1.5Gi"}},
}


def documents(files):
    return [d for name in sorted(files) for d in yaml.safe_load_all(files[name])]


def one(files, kind):
    (found,) = [d for d in documents(files) if d["kind"] == kind]
    return found


@pytest.fixture(params=SHAPES, scope="module")
def settings(request):
    return Settings.model_validate(SHAPES[request.param])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_right_by_the_schema_of_kubernetes(settings, version):
    found = documents(render(settings))
    for document in found:
        if document["kind"] != "RayCluster":
            kubernetes_validate.validate(document, version, strict=True)
    ray = {"RayCluster"} if settings.deploy.ray_workers_max else set()
    assert {d["kind"] for d in found} == {"Namespace", "ConfigMap", "Secret", "Service", "NetworkPolicy", "StatefulSet", "PodDisruptionBudget"} | ray
    assert {d["metadata"].get("namespace", d["metadata"]["name"]) for d in found} == {settings.deploy.namespace}


FIELDS = {
    "": {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"},
    "authOptions": {"mode", "secretName"},
    "autoscalerOptions": {"upscalingMode", "idleTimeoutSeconds"},
    "headGroupSpec": {"serviceType", "rayStartParams", "template"},
    "workerGroupSpecs": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}
"""Of ``ray.io/v1`` RayCluster as KubeRay 1.6 and later define it; its pods are checked by the schemas of Kubernetes."""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_ray_cluster_has_fields_that_kuberay_knows_and_pods_that_kubernetes_knows(version):
    settings = Settings.model_validate(SHAPES["ray"])
    cluster = one(render(settings), "RayCluster")
    spec = cluster["spec"]
    assert cluster["apiVersion"] == "ray.io/v1" and spec.keys() <= FIELDS[""]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert all(spec[k].keys() <= FIELDS[k] for k in ("authOptions", "autoscalerOptions", "headGroupSpec"))
    for group in groups:
        assert all(isinstance(v, str) for v in group["rayStartParams"].values())
        template = group["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **template["metadata"]}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, version, strict=True)
        (container,) = pod["spec"]["containers"]
        assert container["image"] == settings.deploy.image and container["securityContext"]["readOnlyRootFilesystem"]
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["spec"]["volumes"]}
    (workers,) = spec["workerGroupSpecs"]
    assert workers.keys() <= FIELDS["workerGroupSpecs"] and (workers["minReplicas"], workers["maxReplicas"]) == (2, 8)
    assert spec["rayVersion"] == dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)["ray"]


def test_studio_and_ray_cluster_meet(tmp_path):
    settings = Settings.model_validate(SHAPES["ray"])
    files = render(settings)
    cluster, pod = one(files, "RayCluster"), one(files, "StatefulSet")["spec"]["template"]["spec"]
    (tmp_path / "wenfang.toml").write_text(one(files, "ConfigMap")["data"]["wenfang.toml"], encoding="utf-8")
    assert load_settings(tmp_path, {}).runtime == settings.runtime.model_copy(update={"address": f"ray://{cluster['metadata']['name']}-head-svc:10001", "room_s": 600.0})
    env = {e["name"]: e for e in pod["containers"][0]["env"]}
    assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": cluster["spec"]["authOptions"]["secretName"], "key": "auth_token"}
    assert env["RAY_AUTH_MODE"]["value"] == cluster["spec"]["authOptions"]["mode"]
    assert "--from-literal=auth_token=" in files["10-secrets.yaml"]
    studio, ray = [d for d in documents(files) if d["kind"] == "NetworkPolicy"]
    labels = cluster["spec"]["workerGroupSpecs"][0]["template"]["metadata"]["labels"]
    assert labels == ray["spec"]["podSelector"]["matchLabels"] != studio["spec"]["podSelector"]["matchLabels"]
    assert {"to": [{"podSelector": {"matchLabels": labels}}]} in studio["spec"]["egress"]


def test_the_schemas_are_strict():
    document = one(render(Settings()), "StatefulSet")
    document["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.37", strict=True)


def test_equal_settings_give_equal_bytes(settings):
    again = Settings.model_validate(json.loads(settings.model_dump_json()))
    assert render(settings) == render(again)
    changed = settings.model_copy(update={"serve": settings.serve.model_copy(update={"queue_max": 7})})
    assert {name for name, text in render(changed).items() if text != render(settings)[name]} == {"10-config.yaml", "40-studio.yaml"}  # and so the pod starts anew


def test_the_pod_reads_back_what_was_said_outside(settings, tmp_path):
    (tmp_path / "wenfang.toml").write_text(one(render(settings), "ConfigMap")["data"]["wenfang.toml"], encoding="utf-8")
    inside = load_settings(tmp_path, {})
    serve = settings.serve
    assert inside.serve == serve.model_copy(
        update={"host": "0.0.0.0", "port": HTTP_PORT, "grpc_port": GRPC_PORT if serve.grpc_port else 0, "replicas": serve.replicas or max(1, int(settings.deploy.cpu))}
    )
    assert inside.jobs == settings.jobs
    assert inside.deploy == Settings().deploy


def test_nothing_secret_is_in_any_file(settings):
    text = "".join(render(settings).values())
    assert "s3cret" not in text
    secret = one(render(settings), "Secret")
    assert "data" not in secret and "stringData" not in secret
    container = one(render(settings), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    wanted = {e["valueFrom"]["secretKeyRef"]["key"] for e in container["env"] if "valueFrom" in e}
    assert wanted == {"WENFANG_BOOTSTRAP_KEY"} | ({"auth_token"} if settings.deploy.ray_workers_max else set()) | (
        {"WENFANG_STORE__TABLES"} if "@" in settings.store.tables else set()
    )
    assert all(f"--from-literal={key}=" in render(settings)["10-secrets.yaml"] for key in wanted)


def test_names_meet(settings):
    files = render(settings)
    pod = one(files, "StatefulSet")["spec"]["template"]
    labels = pod["metadata"]["labels"]
    for document in [d for d in documents(files) if "ray" not in d["metadata"]["name"]]:
        selector = document.get("spec", {}).get("selector") or document.get("spec", {}).get("podSelector")
        if selector:
            assert (selector.get("matchLabels", selector)).items() <= labels.items()
    ports = {p["name"] for c in pod["spec"]["containers"] for p in c["ports"]}
    assert all(p["targetPort"] in ports for d in documents(files) if d["kind"] == "Service" for p in d["spec"]["ports"])
    assert one(files, "StatefulSet")["spec"]["serviceName"] in {d["metadata"]["name"] for d in documents(files) if d["kind"] == "Service"}
    container = pod["spec"]["containers"][0]
    volumes = {v["name"] for v in pod["spec"]["volumes"]} | {"home"}
    assert {m["name"] for m in container["volumeMounts"]} == volumes
    assert {container[p]["httpGet"]["path"] for p in ("startupProbe", "readinessProbe", "livenessProbe")} == {"/healthz", "/readyz"}


def test_the_pod_meets_the_restricted_standard(settings):
    """What the namespace's own admission asks for."""
    pod = one(render(settings), "StatefulSet")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        guards = container["securityContext"]
        assert guards["allowPrivilegeEscalation"] is False and guards["capabilities"] == {"drop": ["ALL"]} and guards["readOnlyRootFilesystem"]
        assert container["resources"]["limits"] and container["resources"]["requests"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all(not {"hostPath"} & v.keys() for v in pod["volumes"])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]) | st.just("\n")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abyn/.-_:0 是", min_size=1), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abnoy-", min_size=1), values, min_size=1))
def test_what_is_written_reads_back(value):
    assert yaml.safe_load(to_yaml(value)) == value


def test_the_image_and_compose_say_the_same():
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    (service,) = compose["services"].values()
    assert f"USER {USER_ID}:{USER_ID}" in dockerfile and f"--uid {USER_ID} " in dockerfile and service["user"] == f"{USER_ID}:{USER_ID}"
    assert f"WENFANG_HOME={HOME} " in dockerfile and service["volumes"] == [f"home:{HOME}"]
    assert f"EXPOSE {HTTP_PORT} {GRPC_PORT}\n" in dockerfile and service["ports"] == [f"{p}:{p}" for p in (HTTP_PORT, GRPC_PORT)]
    assert service["image"] == Settings().deploy.image and re.search(r"-t (\S+)", dockerfile)[1] == Settings().deploy.image
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    load_settings(ROOT / "deploy", {k: v for k, v in service["environment"].items() if k != "WENFANG_BOOTSTRAP_KEY"})
    for path in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / name).exists() for name in path.split())


def run(*words):
    return create_cli().main(args=list(words), standalone_mode=False)


def test_the_command_replaces_its_own_files_and_no_others(tmp_path, capsys):
    out = tmp_path / "manifests"
    run("deploy", "render", str(out), "--home", str(tmp_path))
    assert {p.name: p.read_text(encoding="utf-8") for p in out.iterdir()} == render(Settings())
    (out / "90-gone.yaml").write_text((out / "40-studio.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (out / "mine.yaml").write_text("kind: Mine\n", encoding="utf-8")
    capsys.readouterr()
    run("deploy", "render", str(out), "--home", str(tmp_path), "--json")
    assert json.loads(capsys.readouterr().out) == {"folder": str(out), "files": sorted(render(Settings()))}
    assert {p.name for p in out.iterdir()} == {*render(Settings()), "mine.yaml"}
    (out / "40-studio.yaml").write_text("kind: Mine\n", encoding="utf-8")
    with pytest.raises(Exception, match="40-studio.yaml") as caught:
        run("deploy", "render", str(out), "--home", str(tmp_path))
    assert caught.value.code == "deploy.not-ours"
    assert (out / "40-studio.yaml").read_text(encoding="utf-8") == "kind: Mine\n"
    capsys.readouterr()
    run("deploy", "render", "-", "--home", str(tmp_path))
    assert list(yaml.safe_load_all(capsys.readouterr().out)) == documents(render(Settings()))


def test_a_name_that_the_cluster_would_refuse_is_refused_here(tmp_path):
    (tmp_path / "wenfang.toml").write_text('[deploy]\nname = "Wen_fang"\n', encoding="utf-8")
    with pytest.raises(Exception, match="deploy.name") as caught:
        run("deploy", "render", "-", "--home", str(tmp_path))
    assert caught.value.code == "settings.bad-value"


def test_toml_strings_survive():
    settings = Settings.model_validate({"price": {"currency": '"\\\x7f\t元'}})
    assert tomllib.loads(inside_toml(settings))["price"]["currency"] == settings.price.currency
