"""Workers of a Ray cluster of several simulated machines; needs `make ray`."""

from functools import partial

import kills
import pytest
from small_runs import go, tiny, write_config

from tpv.errors import TpvError
from tpv.execution.executors import RayExecutor

pytest.importorskip("ray", reason="Ray is not installed: `make ray`")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machines():
    """A head without a core, and two machines of one core, one of which says that it has a GPU."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1, num_gpus=1)
    cluster.add_node(num_cpus=1)
    yield cluster
    assert not ray.is_initialized()  # whatever was refused let go of the cluster
    cluster.shutdown()


def config_of(**needs):
    return tiny(run={"energy": False, "cpus": 1} | needs)


def test_workers_on_two_machines_end_with_the_results_of_one(machines, tmp_path):
    config = config_of()
    assert not go(config, tmp_path / "one").failed
    executor = RayExecutor(config, tmp_path / "ray", None, machines.address)
    outcome = go(config, tmp_path / "ray", executor=executor)
    assert (outcome.failed, outcome.left) == ({}, 0)
    assert kills.content(tmp_path / "ray") == kills.content(tmp_path / "one")


def test_there_are_as_many_workers_as_there_is_room_for(machines, tmp_path):
    for needs, room in (({}, 2), ({"gpus": 0.5}, 1), ({"gpus": 1}, 1)):
        with RayExecutor(config_of(**needs), tmp_path, None, machines.address) as executor:
            while executor.idle < room:
                assert executor.wait() is None
            assert not executor._starting


def test_what_cannot_be_is_refused_in_one_line(machines, tmp_path):
    build = partial(RayExecutor, folder=tmp_path / "out", size=None, address=machines.address)
    with pytest.raises(TpvError, match="no machine of the Ray cluster has room for a worker; expected 9 CPUs"):
        go(config_of(cpus=9), tmp_path / "out", executor=build(config_of(cpus=9)))
    config = tiny(model={"name": str(tmp_path / "none")}, run={"energy": False, "cpus": 1})
    with pytest.raises(TpvError, match="none"):
        go(config, tmp_path / "out", executor=build(config))
    for address in ("127.0.0.1:1", "[::1]:1", "127.0.0.1:99999"):
        with pytest.raises(TpvError, match="no Ray cluster at"):
            go(config, tmp_path / "out", executor=RayExecutor(config, tmp_path / "out", 1, address))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("victim", ["worker", "node", "driver"])
def test_one_is_killed_and_the_results_are_the_same(tmp_path, victim):
    config = write_config(tmp_path / "killed.toml", '["sources", "combination"]')
    assert kills.main(config, times=2, seed=0, folder=tmp_path, victim=victim, executor="ray", workers=2) == 0
