"""Averaged weights, and the batch norms' statistics that they need."""

import pytest
import torch
from torch import nn

from utils.pretraining.averaging import average_states, renew_statistics


def make_network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))


def _mean(values):
    return values.mean((0, 2, 3))


def _variance(values):
    return values.var((0, 2, 3))


def test_the_mean_of_each_weight_in_float32():
    states = [make_network(seed).half().state_dict() for seed in range(3)]
    mean = average_states(states)
    assert not any(name.endswith("num_batches_tracked") for name in mean)
    expected = sum(state["0.weight"].double() for state in states) / 3
    assert mean["0.weight"].dtype == torch.float32
    torch.testing.assert_close(mean["0.weight"].double(), expected, atol=1e-6, rtol=0)


def test_one_alone_is_its_own_mean():
    state = make_network(0).state_dict()
    for name, value in average_states([state]).items():
        assert torch.equal(value, state[name])


def test_statistics_are_those_of_the_batches_whatever_was_there():
    network = make_network(0)
    network[1].running_mean.fill_(1e3)
    network[3].running_var.fill_(1e3)
    batches = list(torch.randn(5, 8, 3, 4, 4))
    renew_statistics(network, batches)
    with torch.no_grad():
        values = [network[0](batch) for batch in batches]
        for norm in (network[1], network[3]):
            found = norm.running_mean.clone(), norm.running_var.clone()
            means, spreads = ([f(v) for v in values] for f in (_mean, _variance))
            torch.testing.assert_close(found[0], sum(means) / 5, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(found[1], sum(spreads) / 5, atol=1e-5, rtol=1e-4)
            values = [torch.relu(norm.train()(v)) for v in values]


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_network_is_ready_for_inference_and_may_be_trained_again(momentum):
    network = make_network(0)
    network[1].momentum = momentum
    renew_statistics(network, torch.randn(2, 4, 3, 4, 4))
    assert not network.training
    assert network[1].momentum is momentum
