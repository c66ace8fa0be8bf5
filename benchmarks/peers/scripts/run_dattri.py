"""dattri: gradient products (its TracIn with one checkpoint), DataInf, and the exact inverse of the Hessian.

    run_dattri.py EXCHANGE METHOD NAME [--damping X] [--once]

``--once``: for the first validation file alone. Without ``no_grad`` its scores keep their graph, and DataInf at 200
rows took more memory than the machine had.
"""

import argparse

from common import Exchange, report  # first: it takes the time of the imports

import torch
from dattri.algorithm.influence_function import IFAttributorDataInf, IFAttributorExplicit
from dattri.algorithm.tracin import TracInAttributor
from dattri.task import AttributionTask
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

BATCH = 16

parser = argparse.ArgumentParser()
parser.add_argument("exchange")
parser.add_argument("method", choices=("product", "datainf", "explicit"))
parser.add_argument("name")
parser.add_argument("--damping", type=float)
parser.add_argument("--once", action="store_true")
options = parser.parse_args()
exchange = Exchange(options.exchange)


def loader(name):
    return DataLoader(TensorDataset(*exchange.rows(name)), batch_size=BATCH, shuffle=False)


def load():
    model = exchange.model()
    frozen = dict(model.named_parameters()) | dict(model.named_buffers())

    def loss(parameters, row):
        # A ready mask in four dimensions: transformers 5 makes none under vmap.
        input_ids, attention, label = row[0].reshape(1, -1), row[1].reshape(1, 1, 1, -1), row[2].reshape(1)
        mask = (1.0 - attention.expand(1, 1, input_ids.shape[1], -1).float()) * torch.finfo(torch.float32).min
        inputs = {"input_ids": input_ids, "attention_mask": mask}
        logits = functional_call(model, frozen | parameters, (), inputs).logits
        return torch.nn.functional.cross_entropy(logits, label)

    task = AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())
    train = loader("train")
    if options.method == "product":
        attributor = TracInAttributor(task, weight_list=torch.ones(1), normalized_grad=False)
        attributor.projector_kwargs = None
        return attributor, train
    kind = {"datainf": IFAttributorDataInf, "explicit": IFAttributorExplicit}[options.method]
    return kind(task, regularization=options.damping), train


@torch.no_grad()
def attribute(loaded, validation):
    attributor, train = loaded
    return attributor.attribute(train, loader(validation)).T


@torch.no_grad()
def first(loaded):
    attributor, train = loaded
    if options.method != "product":
        attributor.cache(train)
    return attribute(loaded, "validation")


def second(loaded):
    return attribute(loaded, "validation-new")


report(exchange, options.name, load, first, None if options.once else second)
