"""What the launcher decides before anything starts."""

import hashlib
import re
import socket
import subprocess
from pathlib import Path

import pytest
from made_up_models import make_checkpoint, make_export
from ports import free_port
from pydantic import ValidationError

from serve import launch
from serve.app import build_app, settle_device
from serve.models.repository import MICRO_FOLDER
from serve.settings import Autoscaling, ServeConfig
from sottovoce.errors import CheckpointError, ConfigError


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box", False)]
)
def test_only_this_machine_reaches_loopback(host, expected):
    assert launch.is_loopback(host) is expected


def test_without_the_token_nothing_listens_beyond_this_machine(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE"):
        launch.start_ray(host="0.0.0.0")


def test_the_service_needs_a_running_ray():
    with pytest.raises(ConfigError, match="no Ray"):
        launch.start_service(ServeConfig(embedded_until_promoted=True))


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("10.0.0.7", "10.0.0.7")])
def test_the_printed_address_is_one_that_answers(host, reached):
    assert launch.base_url(host, 8000) == f"http://{reached}:8000/v1"


def test_the_curl_line_sends_the_first_of_the_keys():
    line = launch.curl_line("http://127.0.0.1:1/v1", "m", api_keys_env="KEYS")
    (header,) = re.findall(r'-H ("[^"]+")', line)
    keys = {"KEYS": "first,second"}
    said = subprocess.run(["sh", "-c", f"printf %s {header}"], env=keys, capture_output=True, text=True, check=True)
    assert said.stdout == "Authorization: Bearer first"
    assert "Authorization" not in launch.curl_line("http://127.0.0.1:1/v1", "m")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7"])
def test_without_keys_nobody_else_is_let_in_unless_that_is_wanted(host):
    with pytest.raises(ConfigError, match=r"--api-keys-env.*--insecure-no-auth"):
        launch.check_access(host, None, insecure_no_auth=False)
    launch.check_access(host, "KEYS", insecure_no_auth=False)
    launch.check_access(host, None, insecure_no_auth=True)
    launch.check_access("127.0.0.1", None, insecure_no_auth=False)


def test_there_are_never_more_transcribers_than_have_cpus():
    config = ServeConfig(num_threads=2, transcriber_scaling=Autoscaling(max_replicas=4))
    assert launch.fit_to_cpus(config, 5).transcriber_scaling == Autoscaling(max_replicas=2)
    assert launch.fit_to_cpus(config, 64).transcriber_scaling == Autoscaling(max_replicas=4)


def test_gateways_are_not_added_to_a_machine_without_cores_for_them():
    config = ServeConfig(gateway_scaling=Autoscaling(min_replicas=2, max_replicas=4))
    assert [launch.fit_to_cpus(config, cores).gateway_scaling.max_replicas for cores in (1, 2, 3, 64)] == [2, 2, 3, 4]


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        (ServeConfig(num_threads=3), r"1 transcriber.* 3 need 3 CPUs, and there are 2; lower --num-threads"),
        (ServeConfig(transcriber_scaling=Autoscaling(min_replicas=4, max_replicas=4)), r"4 transcriber.* need 4 CPUs"),
    ],
)
def test_cpus_that_do_not_fit_are_said(config, needed):
    with pytest.raises(ConfigError, match=needed):
        launch.fit_to_cpus(config, 2)


def on_gpus(*, num_gpus: float = 1.0, **scaling: int) -> ServeConfig:
    return ServeConfig(device="cuda", num_gpus=num_gpus, transcriber_scaling=Autoscaling(**scaling))


@pytest.mark.parametrize(
    ("num_gpus", "there", "most"), [(1.0, 2.0, 2), (0.5, 2.0, 4), (0.4, 2.0, 4), (2.0, 5.0, 2), (1.0, 64.0, 8)]
)
def test_there_are_never_more_transcribers_than_have_gpus(num_gpus, there, most):
    config = on_gpus(num_gpus=num_gpus, max_replicas=8)
    assert launch.fit_to_gpus(config, there).transcriber_scaling.max_replicas == most


def test_gpus_do_not_matter_on_the_cpu():
    config = ServeConfig(device="cpu")
    assert launch.fit_to_gpus(config, 0.0) == config


def test_gpus_that_do_not_fit_are_said():
    with pytest.raises(ConfigError, match=r"1 transcriber.* need 1 GPUs, and Ray has 0; use --device cpu"):
        launch.fit_to_gpus(on_gpus(), 0.0)
    with pytest.raises(ConfigError, match=r"3 transcriber.* need 1.5 GPUs, and Ray has 1;"):
        launch.fit_to_gpus(on_gpus(num_gpus=0.5, min_replicas=3, max_replicas=3), 1.0)


def test_auto_takes_gpus_for_a_variant_that_runs_on_them():
    config = ServeConfig(num_gpus=0.5)
    assert settle_device(config, "torch", num_gpus=1.0).device == "cuda"
    assert settle_device(config, "ct2-int8_float16", num_gpus=1.0).device == "cuda"
    assert settle_device(config, "int8", num_gpus=1.0).device == "cpu"
    assert settle_device(config, "torch", num_gpus=0.0).device == "cpu"


def test_a_variant_for_cpus_alone_is_refused_on_cuda():
    with pytest.raises(ConfigError, match=r"int8 does not run on cuda; use --device cpu, or one of .* torch, ct2-"):
        settle_device(ServeConfig(device="cuda"), "int8", num_gpus=1.0)


def test_a_fraction_of_several_gpus_is_refused():
    with pytest.raises(ValidationError, match=r"num_gpus 1.5: Ray reserves whole GPUs, or a fraction of one"):
        ServeConfig(num_gpus=1.5)


@pytest.mark.parametrize(("device", "reserved"), [("cuda", 0.25), ("cpu", None)])
def test_transcribers_reserve_their_share_of_a_gpu(device, reserved):
    config = ServeConfig(embedded_until_promoted=True, variant=None, device=device, num_gpus=0.25, max_gpu_bytes=7)
    transcriber = build_app(config)._bound_deployment.init_args[0]._bound_deployment
    assert transcriber.ray_actor_options.get("num_gpus") == reserved
    assert transcriber.init_kwargs["max_bytes"].get("cuda") == (7 if reserved else None)
    assert transcriber.init_kwargs["make_loader"]()._device == device


def test_an_address_of_ipv6_stands_in_brackets():
    assert launch.base_url("::1", 8000) == "http://[::1]:8000/v1"
    assert launch.base_url("127.0.0.1", 80) == "http://127.0.0.1:80/v1"


def test_the_curl_line_names_the_endpoint():
    assert "http://127.0.0.1:8000/v1/audio/transcriptions" in launch.curl_line("http://127.0.0.1:8000/v1", "sottovoce")


def test_a_port_that_is_taken_is_said_before_anything_starts():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port} \(.*in use.*--port"):
            launch.check_port("127.0.0.1", port)


def test_a_free_port_stays_free():
    port = free_port()
    launch.check_port("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_an_interface_of_another_machine_is_refused():
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:8000"):
        launch.check_port("192.0.2.1", 8000)


def test_the_embedded_model_is_named_as_such(tmp_path):
    config = ServeConfig(models_folder=str(tmp_path), embedded_until_promoted=True)
    said = launch.describe_default(config)
    assert said.startswith("sottovoce is the embedded model micro, variant torch in ")
    weights = hashlib.sha256((MICRO_FOLDER / "model.safetensors").read_bytes()).hexdigest()
    assert said.endswith(f"assets/micro: model.safetensors sha256 {weights[:12]}")
    assert "\n" not in said


def test_a_model_of_the_command_line_is_named_with_its_folder(tmp_path):
    config = ServeConfig(model=str(MICRO_FOLDER), variant="torch", model_id="mine", models_folder=str(tmp_path))
    assert launch.describe_default(config).startswith("mine is the embedded model micro")


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("variant", [None, "torch", "int8"])
@pytest.mark.parametrize("start", [launch.describe_default, build_app, launch.start_service])
def test_a_model_that_is_not_there_is_said_and_no_other_takes_its_place(tmp_path, embedded, variant, start):
    missing = tmp_path / "typo" / "export" / "folder"
    config = ServeConfig(
        model=str(missing), variant=variant, models_folder=str(tmp_path), embedded_until_promoted=embedded
    )
    with pytest.raises(ConfigError, match=r"'sottovoce' cannot be served: .*typo.*: there is no such folder; name a"):
        start(config)


def test_without_any_model_the_remedy_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing is promoted under that name in .*jobs\.promote_model"):
        launch.describe_default(ServeConfig(models_folder=str(tmp_path)))


def test_a_checkpoint_without_a_variant_is_served_as_torch_and_an_export_as_its_fastest_variant(tmp_path):
    checkpoint, export = make_checkpoint(tmp_path / "trained"), make_export(tmp_path / "export", "fp32", "int8")
    said = [launch.describe_default(ServeConfig(model=str(folder))) for folder in (checkpoint, export)]
    assert said[0].startswith(f"sottovoce is variant torch in {checkpoint}: model.safetensors sha256 ")
    assert said[1].startswith(f"sottovoce is variant int8 in {export}/int8: onnx/encoder_model_int8.onnx sha256 ")


@pytest.mark.parametrize(
    ("folder", "variant", "sentence"),
    [
        ("trained", "int8", "trained: it holds no int8, only torch; name one of these as the variant"),
        ("export", "torch", "export: it holds no torch, only fp32, int8; name one of these as the variant"),
        (".", None, r"it holds no model itself; name one of its folders export \(fp32, int8\), trained \(torch\)"),
        ("empty", None, "empty: it holds no model that could be served: a checkpoint has"),
    ],
)
def test_the_variants_that_are_there_are_named(tmp_path, folder, variant, sentence):
    make_checkpoint(tmp_path / "trained")
    make_export(tmp_path / "export", "fp32", "int8")
    (tmp_path / "empty").mkdir()
    config = ServeConfig(model=str(tmp_path / folder), variant=variant, embedded_until_promoted=True)
    with pytest.raises(ConfigError, match=sentence):
        launch.describe_default(config)


def test_a_hub_id_that_the_hub_does_not_return_is_said_before_anything_starts(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder, and"):
        launch.describe_default(ServeConfig(model="runs/typo", embedded_until_promoted=True))
    assert not list(Path.cwd().iterdir())
