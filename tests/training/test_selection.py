import math

import pytest
import torch
from torch import nn

from kubeloop.training.selection import BestEpoch, Scores


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_an_epoch_whose_model_answers_no_numbers_is_never_the_best(loss: float) -> None:
    module, best = nn.Linear(1, 1), BestEpoch(keeps_weights=True)
    for epoch, scores in enumerate(
        [
            Scores(loss=loss, accuracy=0.9),
            Scores(loss=2.0, accuracy=0.5),
            Scores(loss=loss, accuracy=0.95),
            Scores(loss=1.0, accuracy=0.5),
        ],
        start=1,
    ):
        nn.init.constant_(module.weight, epoch)
        best.offer(epoch, scores, module)

    best.restore(module)

    assert best.epoch == 4
    assert torch.equal(module.weight, torch.full((1, 1), 4.0))
