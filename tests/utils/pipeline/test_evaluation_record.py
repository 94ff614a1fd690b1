"""What ``run.json`` says of the memory of a fit."""

from types import SimpleNamespace

import pytest

from patchcore.memory_plan import MemoryPlan
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.evaluation_record import describe_fits

ONE, TWO = "all embeddings kept, about 2 GB", "projections kept, embedded twice, about 1 GB"


@pytest.mark.parametrize(("shots", "name"), [(None, "net"), (4, "net, 4 shots")])
@pytest.mark.parametrize(("context", "text"), [(False, ""), (True, f"; of smaller images: {TWO}")])
def test_it_tells_how_embeddings_were_kept_also_those_of_the_context(shots, name, context, text):
    small = SimpleNamespace(plan=MemoryPlan(2, 1.0)) if context else None
    learned = SimpleNamespace(plan=MemoryPlan(1, 2.0), context=small)
    member = SimpleNamespace(shots=shots, learned=learned, coresets={})
    record = describe_fits(EvaluateOptions(), ["net"], None, [[member]])
    assert record == {"memory": {name: ONE + text}, "coresets": {}}
