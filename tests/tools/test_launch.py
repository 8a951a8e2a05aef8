"""Places of processes: GPUs, cores, and jobs of submitit on this machine."""

import json
import os
import signal
import sys
import time

import pytest

from tools import sweep
from tools.sweeping import launch

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

# Waits while `hold` is there, saves and leaves on SIGTERM; `first` is the run that fails once.
STUB = """
import json, os, pathlib, signal, sys, time
given = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
here, folder = pathlib.Path(__file__).parent, pathlib.Path(given["workdir"])
def save(*_):
    (folder / "saved").touch()
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
with open(folder / "starts", "a") as file:
    print(os.environ["SUBMITIT_EXECUTOR"], os.environ["JAX_COMPILATION_CACHE_DIR"], file=file)
while (here / "hold").exists():
    time.sleep(0.02)
if (here / "first").exists():
    (here / "first").unlink()
    sys.exit(3)
(folder / "DONE.json").write_text("{}")
"""
EXPERIMENT = """
def sweep(add):
    for seed in range(2):
        add("plain", "configs/quickstart.py:method=ce", {"seed": seed})
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """(folder, arguments, command, folders of the two runs)."""
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    (tmp_path / "small.py").write_text(EXPERIMENT)
    (tmp_path / "stub.py").write_text(STUB)
    arguments = [
        str(tmp_path / "small.py"),
        f"--output={tmp_path / 'runs'}",
        "--launcher=submitit",
        "--slots=2",
    ]
    folders = [tmp_path / "runs/small" / f"quickstart-plain-seed={seed}" for seed in range(2)]
    yield tmp_path, arguments, (sys.executable, "-S", str(tmp_path / "stub.py")), folders
    for number, handler in before.items():
        signal.signal(number, handler)


def starts(folder):
    file = folder / "starts"
    return file.read_text().splitlines() if file.exists() else []


def until(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_runs_are_jobs_of_submitit_and_are_tried_again(place):
    folder, arguments, command, folders = place
    (folder / "first").touch()
    assert sweep.main(arguments, command) == 0
    assert sorted(len(starts(run)) for run in folders) == [1, 2] and all(
        (run / "DONE.json").exists() for run in folders
    )
    assert (
        starts(folders[0])[0].split()[0] == "local"
    )  # under submitit, whose own environment says so
    events = [
        json.loads(line) for line in (folder / "runs/small/journal.jsonl").read_text().splitlines()
    ]
    assert [event["event"] for event in events].count("retried") == 1
    assert {event["place"] for event in events if event["event"] == "started"} == {"local"}
    pickles = [file.read_bytes() for file in (folder / "runs/small/jobs").glob("*_submitted.pkl")]
    # The job holds its class and texts, no config, and imports nothing of ours.
    assert len(pickles) == 3 and all(len(text) < 5000 for text in pickles)
    assert not any(b"quickstart.py" in text or b"image_size" in text for text in pickles)


def test_a_job_saves_when_it_is_told_to_end_and_gives_its_code(place):
    folder, _, command, folders = place
    (folder / "hold").touch()
    folders[0].mkdir(parents=True)
    cluster, log = launch.Cluster("local", 1, folder / "jobs", {}), folder / "a.log"
    process = cluster.start(
        [*command, f"--workdir={folders[0]}"], log, "local", {"JAX_COMPILATION_CACHE_DIR": "here"}
    )
    assert process.poll() is None
    until(lambda: starts(folders[0]))
    assert launch.is_held(log) and cluster.find(process.pid, "local", log).pid == process.pid
    assert cluster.find(process.pid, "cpu 0", log) is None
    time.sleep(0.2)
    launch.stop([process])
    assert (
        process.poll() == 1
        and (folders[0] / "saved").exists()
        and starts(folders[0]) == ["local here"]
    )
    assert not launch.is_held(log) and cluster.find(process.pid, "local", log) is None


def test_before_its_time_is_over_a_job_saves_and_is_queued_again(tmp_path):
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(1)); "
        "print('up', flush=True); time.sleep(60)"
    )
    task = launch.Task([sys.executable, "-S", "-c", code], str(tmp_path / "a.log"), {})
    kept, before = [], signal.getsignal(signal.SIGTERM)

    def over(*_):
        kept.append(task.checkpoint())
        raise SystemExit

    old = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    with pytest.raises(SystemExit):
        task()
    signal.signal(signal.SIGALRM, old)
    signal.signal(signal.SIGTERM, before)
    again = kept[0].function
    assert (again.command, again.log, again.environment) == (
        task.command,
        task.log,
        task.environment,
    )
    assert not launch.is_held(tmp_path / "a.log") and (tmp_path / "a.log").read_text() == "up\n"


def test_slurm_gets_what_it_is_told(tmp_path, monkeypatch):
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, text in {
        "srun": "",
        "sbatch": f"cp $1 {tmp_path}/script; echo Submitted batch job 77",
        "scancel": f"echo $@ >> {tmp_path}/cancelled",
        "sacct": "echo 'JobID|State'; echo '77|RUNNING'",
    }.items():
        (bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin / name).chmod(0o755)
    with pytest.raises(ValueError, match="--launcher=slurm: .*srun"):
        launch.Cluster("slurm", 1, tmp_path / "jobs", {})
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    with pytest.raises(ValueError, match="slurm_partitoin"):
        launch.Cluster("slurm", 1, tmp_path / "jobs", {"slurm_partitoin": "gpu"})
    cluster = launch.Cluster(
        "slurm", 3, tmp_path / "jobs", {"gpus_per_node": 1, "slurm_partition": "long"}
    )
    process = cluster.start(["python", "x"], tmp_path / "a.log", "slurm", {})
    script = (tmp_path / "script").read_text()
    assert (
        "--gpus-per-node=1" in script and "--partition=long" in script and "--time=1440" in script
    )
    assert cluster.places == ["slurm"] * 3 and process.pid == "77" and process.poll() is None
    process.terminate()
    assert (tmp_path / "cancelled").read_text().splitlines() == [
        "--state=PENDING 77",
        "--signal=TERM 77",
    ]
    found = cluster.find("77", "slurm", tmp_path / "a.log")
    assert found.pid == "77"
    (bin / "sacct").write_text("#!/bin/sh\necho 'JobID|State'; echo '77|NODE_FAIL'\n")
    found._job.watcher.clear()
    assert found.poll() == 1 and cluster.find("77", "slurm", tmp_path / "a.log") is None


def test_memory_of_a_gpu_is_shared_by_its_slots(monkeypatch):
    told = (
        "XLA_CLIENT_MEM_FRACTION",
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
        "XLA_PYTHON_CLIENT_PREALLOCATE",
    )
    for name in ("CUDA_VISIBLE_DEVICES", *told):
        monkeypatch.delenv(name, raising=False)
    machine = launch.Machine(["0", "3"], 2)
    assert machine.places == ["gpu 0", "gpu 0", "gpu 3", "gpu 3"]
    assert machine.environment("gpu 3") == {
        "CUDA_VISIBLE_DEVICES": "3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "XLA_CLIENT_MEM_FRACTION": "0.450",
    }
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2")
    assert "XLA_CLIENT_MEM_FRACTION" not in machine.environment("gpu 0")
    assert launch.Machine([], 1).environment("cpu 0") == {}


def test_gpus_are_those_that_cuda_would_show(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5a")
    assert launch.chosen_gpus("all") == ["2", "GPU-5a"] and launch.chosen_gpus("GPU-5a") == [
        "GPU-5a"
    ]
    with pytest.raises(ValueError, match="--gpus is 0; there are 2, GPU-5a"):
        launch.chosen_gpus("0")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert launch.chosen_gpus("all") == []
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho no driver\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(
        ValueError, match="nvidia-smi fails: no driver; JAX_PLATFORMS=cpu takes no GPU"
    ):
        launch.visible_gpus()


def test_a_process_that_does_not_hear_is_told_again(tmp_path):
    # At once: while Python ends in order, the next signal would kill it.
    code = (
        "import os, signal, time; "
        "signal.signal(15, lambda *_: signal.signal(15, lambda *_: os._exit(5))); "
        "print(flush=True); time.sleep(60)"
    )
    log = tmp_path / "a.log"
    process = launch.Machine([], 1).start([sys.executable, "-S", "-c", code], log, "cpu 0", {})
    until(lambda: log.read_text())
    found = launch.Machine([], 1).find(process.pid, "cpu 0", log)
    launch.stop([found, process], again=0.3)
    assert process.poll() == 5 and found.poll() == "unknown"
