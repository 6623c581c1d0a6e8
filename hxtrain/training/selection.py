"""The choice of an epoch, on held out samples, and what it says about a result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from hxtrain.datasets import Dataset, Samples
from hxtrain.network import Network
from hxtrain.objectives import Loss
from hxtrain.runs.checkpoint import CheckpointError
from hxtrain.runs.saved import required, take_weights

from .config import BEST
from .evaluation import Evaluation

NOTHING = "nothing: last epoch"
"""What the epoch of a result was chosen on, if it is the last one in any case."""


class Snapshot(NamedTuple):
    """A network and its loss at one time.

    Attributes:
        model: Weights by name.
        loss: State of the loss.
    """

    model: Mapping[str, Tensor]
    loss: Mapping[str, Any]

    @classmethod
    def of(cls, net: Network, loss: Loss) -> Snapshot:
        """Return a copy of the current state."""
        return cls({name: value.detach().clone() for name, value in net.state_dict().items()}, loss.state_dict())

    def restore(self, net: Network, loss: Loss, file: Path) -> None:
        """Put the weights into a network, and the state into its loss.

        Raises:
            CheckpointError: These belong to another network; the text names the file.
        """
        take_weights(net, dict(self.model), file)
        loss.load_state_dict(dict(self.loss))


class Candidate(NamedTuple):
    """The best epoch so far.

    Attributes:
        epoch: Number of the epoch, from 1.
        evaluation: Evaluation after it.
        state: Network and loss after it.
    """

    epoch: int
    evaluation: Evaluation
    state: Snapshot


class Selection:
    """The epoch whose weights count: the last one, or the best one on the samples that each epoch is evaluated on.

    With held out samples, the test samples are evaluated once, at the end.

    Args:
        choose: Rule of the choice, `last` or `best`.
        data: Data set of the training.

    Attributes:
        best: The best epoch so far; None if the last one counts.
        final: Weights and loss of the last step, while the network has those that count; None during training.
        test: Evaluation of the test samples; None before it, or without held out samples.
        tested_epochs: Number of epochs before that evaluation.
        initial: Network and loss before the first step, if the training is to be repeated.
        retrained: Network and loss after a training on all training samples; None without it.
        retrained_records: Records of the epochs of that training.
    """

    def __init__(self, choose: str, data: Dataset) -> None:
        self.choose = choose
        self._data = data
        self.best: Candidate | None = None
        self.final: Snapshot | None = None
        self.test: Evaluation | None = None
        self.tested_epochs = 0
        self.initial: Snapshot | None = None
        self.retrained: Snapshot | None = None
        self.retrained_records: list[dict[str, Any]] = []

    @property
    def warnings(self) -> list[str]:
        """Warnings of a choice that makes the result optimistic."""
        if self.choose != BEST or self._data.reserved is not None:
            return []
        return [
            "trainer.choose=best without held out samples chooses the epoch on the test samples, so that their "
            "accuracy is optimistic; hold out training samples with data.validation=N, or whole speakers with "
            "data.validation_groups=[...]"
        ]

    @property
    def selected_on(self) -> str:
        """The samples that the epoch is chosen on."""
        if self.choose != BEST:
            return NOTHING
        reserved = self._data.reserved
        return "test" if reserved is None else f"validation: {reserved.held_out}"

    def consider(self, epoch: int, evaluation: Evaluation, net: Network, loss: Loss) -> None:
        """Keep network and loss after an epoch if it is the best one so far; of equal ones, the first counts."""
        if self.choose == BEST and (self.best is None or evaluation.accuracy > self.best.evaluation.accuracy):
            self.best = Candidate(epoch, evaluation, Snapshot.of(net, loss))

    @property
    def reserved_test(self) -> Samples | None:
        """The test samples that are evaluated once, at the end; None if each epoch is evaluated on them, or none is."""
        return None if self.choose != BEST or self._data.reserved is None else self._data.reserved.test

    def summary(self, epochs: int, last: Evaluation) -> dict[str, Any]:
        """Return what a result tells about the choice.

        Args:
            epochs: Number of finished epochs.
            last: Evaluation after the last one.
        """
        epoch, evaluation = (epochs, last) if self.best is None else (self.best.epoch, self.best.evaluation)
        is_validated = self._data.reserved is not None
        return {
            "selected_on": self.selected_on,
            "selected_epoch": epoch,
            "validation_accuracy": evaluation.accuracy if is_validated else None,
            "retrained": self.retrained is not None,
        }

    def state_dict(self) -> dict[str, Any] | None:
        """Return tensors and plain values for a checkpoint; None without a choice."""
        if self.choose != BEST:
            return None
        best = self.best
        return {
            "epoch": 0 if best is None else best.epoch,
            "evaluation": None if best is None else best.evaluation.as_dict(),
            "model": {} if best is None else dict(best.state.model),
            "loss": {} if best is None else dict(best.state.loss),
            "test": None if self.test is None else self.test.as_dict(),
            "tested_epochs": self.tested_epochs,
            "initial": None if self.initial is None else self.initial._asdict(),
            "retrained": None if self.retrained is None else self.retrained._asdict(),
            "retrained_records": self.retrained_records,
        }

    def load_state_dict(self, state: Mapping[str, Any] | None, file: Path) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: The state is missing or damaged; the text names the file.
        """
        if self.choose != BEST:
            return
        kinds = {"epoch": int, "model": dict, "loss": dict, "tested_epochs": int}
        values = required(file, state or {}, kinds)
        try:
            if values["epoch"]:
                evaluation = Evaluation.from_dict(values["evaluation"])
                self.best = Candidate(values["epoch"], evaluation, Snapshot(values["model"], values["loss"]))
            self.test = None if values["test"] is None else Evaluation.from_dict(values["test"])
            self.tested_epochs = values["tested_epochs"]
            self.initial = None if values["initial"] is None else Snapshot(**values["initial"])
            self.retrained = None if values["retrained"] is None else Snapshot(**values["retrained"])
            self.retrained_records = values.get("retrained_records", [])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{file}: selection: {error}; the file is damaged") from error


class ChosenWeights(NamedTuple):
    """The part of a checkpoint that counts: of the last epoch, of the chosen one, or of a second training.

    Attributes:
        model: Weights by name.
        loss: State of the loss.
        epochs: Number of epochs that led to these weights; None if the checkpoint does not tell.
        is_retrained: Whether these epochs are those of a second training, on all training samples.
    """

    model: dict[str, Any]
    loss: dict[str, Any]
    epochs: int | None
    is_retrained: bool


def chosen_weights(state: Mapping[str, Any], file: Path) -> ChosenWeights:
    """Return the weights of a checkpoint that count.

    Raises:
        CheckpointError: The choice in it is damaged; the text names the file.
    """
    selection = required(file, {"selection": {}, **state}, {"selection": (dict, type(None))})["selection"]
    if not selection or not selection.get("epoch"):
        return ChosenWeights(state["model"], state.get("loss", {}), state.get("epoch"), False)
    checked = required(file, {"retrained": None, **selection}, {"retrained": (dict, type(None)), "epoch": int})
    retrained = checked["retrained"]
    values = required(file, retrained or selection, {"model": dict, "loss": dict})
    return ChosenWeights(values["model"], values["loss"], checked["epoch"], bool(retrained))
