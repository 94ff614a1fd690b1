"""What a task of a sweep asks of a node."""

from dataclasses import replace

import pytest

from datasets.layouts import open_dataset
from patchcore.engine import SHARE_OF_FREE_MEMORY
from patchcore.memory_needs import memory_needs
from patchcore.memory_plan import GIGABYTE, plan_memory
from patchcore.training_patches import TrainingPatches
from tests.support import SIDE, make_data, quick
from utils.errors import UsageError
from utils.options.evaluate import EvaluateOptions
from utils.options.method import parse_options
from utils.pipeline import sweep
from utils.pipeline.cluster import uses_gpu
from utils.pipeline.demand import Demand, check_demand, demands_of
from utils.pipeline.evaluate_category import fit_request
from utils.pipeline.models import choose_device, make_models
from utils.pipeline.nodes import Node

# In gigabytes, as docs/sweeps.md states them.
PROCESS_MEMORY, GPU_PROCESS_MEMORY = 1.5, 4.0


@pytest.fixture(scope="module")
def categories(tmp_path_factory):
    dataset = open_dataset(make_data(tmp_path_factory.mktemp("data")))
    return [dataset.read_category(name) for name in dataset.find_categories()]


def node(cpus=8.0, gpus=0.0, memory=16.0) -> Node:
    return Node("a", "10.0.0.7", cpus, gpus, memory)


def demands(categories, nodes, flags="", gpu_memory=0.0) -> list[Demand]:
    arguments = quick(*flags.split())
    options = parse_options(arguments, EvaluateOptions(), command="", description="")
    models = make_models(options, choose_device("cpu"), categories)
    tasks = [(category, options) for category in categories]
    return demands_of(models, tasks, nodes, gpu_memory)


def test_cpus_are_divided_among_the_tasks(categories):
    for nodes, expected in (
        ([node(8)], 4),
        ([node(1)], 1),
        ([node(6), node(6)], 6),
        ([node(2), node(30)], 2),  # each task runs on every node
    ):
        assert [demand.cpus for demand in demands(categories, nodes)] == [expected] * 2


def test_memory_is_that_of_the_plan(categories):
    (one, other) = demands(categories, [node()])
    assert one == other
    assert one.gpus == 0
    assert one.memory > PROCESS_MEMORY + one.budget
    larger = demands(categories, [node()], "--percentage_coreset 0.1 0.5 --seed 0 1")[0]
    assert larger.budget > one.budget
    assert larger.memory > one.memory


@pytest.mark.parametrize(
    ("flags", "joins"),
    [("", False), ("--backbone squeezenet1_1 squeezenet1_0", True), ("--context 0.9", True)],
)
def test_a_single_model_needs_no_memory_for_what_joins_several(categories, flags, joins):
    """Two passes of one model keep the coreset; of several, also samples of all patches."""
    flags += " --embed_dim 512 --layers features.3 --memory_budget"
    large = demands(categories, [node()], f"{flags} 1")[0]  # with all embeddings
    if joins:
        with pytest.raises(UsageError, match=r"expected memory .* found 0\.001 GB"):
            demands(categories, [node()], f"{flags} 0.001")
    else:
        small = demands(categories, [node()], f"{flags} 0.001")[0]
        assert 0 < small.memory - PROCESS_MEMORY < 0.4 * (large.memory - PROCESS_MEMORY)


@pytest.mark.parametrize(
    ("flags", "num_maps"),
    [
        ("", 1),
        ("--percentage_coreset 0.1 0.2 --seed 0 1 1 --shots 1 2 3", 2 * 2 * 3),
        ("--backbone squeezenet1_1 squeezenet1_0 --layers features.3 --seed 0 1", 3 * 2),
    ],
)
def test_memory_holds_the_test_images_and_all_their_maps_twice(categories, flags, num_maps):
    demand = demands(categories, [node()], flags)[0]
    num_bytes = 2 * len(categories[0].test) * SIDE * SIDE * (4 + 4 * num_maps)
    kept = demand.memory - PROCESS_MEMORY - demand.budget
    assert kept == pytest.approx(num_bytes / GIGABYTE)


@pytest.mark.parametrize(("shots", "num_images"), [("2 1", 2), ("1 9", 6)])
def test_the_budget_is_that_of_the_most_shots(categories, shots, num_images):
    few = [replace(category, train=category.train[:num_images]) for category in categories]
    found, expected = demands(categories, [node()], f"--shots {shots}"), demands(few, [node()])
    assert [demand.budget for demand in found] == [demand.budget for demand in expected]


@pytest.mark.parametrize(
    ("banks", "share", "budget"),
    [
        *(("joined", 0.9, 1000), ("per_layer", 0.9, 1000)),
        *(("joined", 0.1, 0.0033), ("per_layer", 0.1, 0.0066)),  # two passes
    ],
)
def test_the_coreset_stays_while_that_of_the_context_is_made(categories, banks, share, budget):
    flags = f"--context 0.9 --embed_dim 512 --percentage_coreset {share} --banks {banks}"
    options = parse_options(quick(*flags.split()), EvaluateOptions(), command="", description="")
    (model,) = make_models(options, choose_device("cpu"), categories).values()
    request = replace(fit_request(model, options, (0,)), normal=True)
    needed, kept = [], []
    for part in (model, model.context):
        count = len(categories[0].train)
        patches = TrainingPatches.of(part.embedder, part.scorer, count, options.batch_size, request)
        needed.append(plan_memory(memory_needs(patches), budget).needed)
        kept.append(int(share * count * part.embedder.patches_per_image) * part.embedder.embed_dim)
    expected = max(needed[0], needed[1] + kept[0] * 4 / GIGABYTE)
    assert expected > needed[0]
    (large, _) = demands(categories, [node()], flags)
    results = large.memory - PROCESS_MEMORY - large.budget
    memory = PROCESS_MEMORY + results + budget / SHARE_OF_FREE_MEMORY
    (one, _) = demands(categories, [node(memory=memory)], flags)
    assert one.budget == pytest.approx(expected)


def test_a_given_budget_is_kept(categories):
    assert demands(categories, [node()], "--memory_budget 3")[0].budget == 3


def test_a_small_node_gets_the_plan_of_two_passes(categories):
    large = demands(categories, [node()])[0]
    small_node = node(memory=large.memory)  # but for the share that stays free
    small = demands(categories, [small_node])[0]
    assert small.budget < large.budget
    assert small.fits(small_node)


def test_a_node_without_cpus_counts_for_nothing(categories):
    """A head node is often started so."""
    large = demands(categories, [node()])[0]
    worker = node(8, memory=large.memory)
    assert demands(categories, [node(0), worker]) == demands(categories, [worker])
    assert {d.cpus for d in demands(categories, [node(1, memory=large.memory), worker])} == {1}
    with pytest.raises(UsageError, match=r"with 1 CPUs and .*, found 10\.0\.0\.7 with 0 CPUs"):
        demands(categories, [node(0)])


def test_a_gpu_is_shared(categories):
    demand = demands(categories, [node(gpus=1)], gpu_memory=80.0)[0]
    assert demand.gpus == pytest.approx(GPU_PROCESS_MEMORY / 80, abs=0.011)
    results = 2 * len(categories[0].test) * SIDE * SIDE * (4 + 4)  # the fit is on the GPU
    assert demand.memory == pytest.approx(PROCESS_MEMORY + results / GIGABYTE, abs=1e-9)
    assert demands(categories, [node(gpus=1)], gpu_memory=4.0)[0].gpus == 1


def test_no_more_tasks_run_at_once_than_gpus_take(categories):
    for gpus, memory, expected in ((1, 80.0, 4), (1, 4.0, 8), (2, 4.0, 4)):
        found = demands(categories, [node(8, gpus)], gpu_memory=memory)
        assert [demand.cpus for demand in found] == [expected] * 2


@pytest.mark.parametrize(
    ("nodes", "flags", "message"),
    [
        ([node(memory=1)], "--memory_budget 2", r"GB for gadget, found 10\.0\.0\.7 with 8 CPUs"),
        ([node(memory=1)], "", "gadget, on the largest node of the Ray cluster: expected memory"),
        ([node(cpus=2)], "--task_cpus 3", "expected a node of the Ray cluster with 3 CPUs"),
    ],
)
def test_too_little_on_every_node(categories, nodes, flags, message):
    with pytest.raises(UsageError, match=message):
        demands(categories, nodes, flags)


@pytest.mark.parametrize(
    ("changed", "fits"),
    [
        ({}, True),
        ({"cpus": 5}, False),
        ({"gpus": 0.51}, False),
        ({"memory": 8.01}, False),
    ],
)
def test_a_node_has_what_it_has_to_the_last(changed, fits):
    demand = replace(Demand(cpus=4, gpus=0.5, memory=8.0, budget=1.0), **changed)
    assert demand.fits(node(4.0, 0.5, 8.0)) is fits


@pytest.mark.parametrize(("gpus", "text"), [(0.0, "3 CPUs and"), (0.5, "3 CPUs, 0.5 GPU and")])
def test_a_share_of_a_gpu_that_no_node_has_is_named(gpus, text):
    with pytest.raises(UsageError, match=f"cluster with {text} 9 GB for nut, found none"):
        check_demand("nut", Demand(3, gpus, 9.0, 1.0), [])


def test_a_gpu_that_no_node_has():
    assert not uses_gpu("auto", [node()])
    assert not uses_gpu("cpu", [node(gpus=1)])
    assert uses_gpu("auto", [node(), node(gpus=1)])
    with pytest.raises(UsageError, match="expected a GPU on a node of the Ray cluster, found none"):
        uses_gpu("cuda", [node(), node()])


def test_a_lost_node_may_come_back_for_a_while(monkeypatch):
    pending = [("bolt", Demand(2, 0.0, 1.0, 1.0)), ("nut", Demand(8, 0.0, 1.0, 1.0))]
    monkeypatch.setattr(sweep, "list_nodes", lambda: [node(4), node(8)])
    assert sweep._check_nodes(pending, sweep.WAITING_SECONDS) == 0
    monkeypatch.setattr(sweep, "list_nodes", lambda: [node(4)])
    assert sweep._check_nodes(pending, 10.0) == 10 + sweep.POLL_SECONDS
    with pytest.raises(UsageError, match=r"8 CPUs and 1 GB for nut, found 10\.0\.0\.7 with 4 "):
        sweep._check_nodes(pending, sweep.WAITING_SECONDS)
