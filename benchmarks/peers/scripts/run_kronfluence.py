"""kronfluence: EK-FAC. The second time it finds its factors on disk.

    run_kronfluence.py EXCHANGE STRATEGY NAME [--damping X] [--once]

Without ``--damping`` its own heuristic, a tenth of the mean eigenvalue. ``--once``: for the first validation file
alone.
"""

import argparse
import tempfile
import warnings

from common import Exchange, report  # first: it takes the time of the imports

import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

BATCH = 16

parser = argparse.ArgumentParser()
parser.add_argument("exchange")
parser.add_argument("method", choices=("ekfac", "kfac", "identity"))
parser.add_argument("name")
parser.add_argument("--damping", type=float)
parser.add_argument("--once", action="store_true")
options = parser.parse_args()
exchange = Exchange(options.exchange)
warnings.filterwarnings("ignore")


class Classification(Task):
    def __init__(self, modules):
        self.modules = modules

    def logits(self, batch, model):
        return model(input_ids=batch[0], attention_mask=batch[1]).logits.float()

    def compute_train_loss(self, batch, model, sample=False):
        logits = self.logits(batch, model)
        labels = batch[2]
        if sample:
            with torch.no_grad():
                labels = torch.multinomial(logits.softmax(-1), num_samples=1).flatten()
        return cross_entropy(logits, labels, reduction="sum")

    def compute_measurement(self, batch, model):
        return cross_entropy(self.logits(batch, model), batch[2], reduction="sum")

    def get_influence_tracked_modules(self):
        return self.modules

    def get_attention_mask(self, batch):
        return batch[1]  # not of a module that sees one place of each row: kronfluence goes by the size


def load():
    torch.manual_seed(0)
    model = exchange.model()
    modules = sorted({name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad})
    task = Classification(modules)
    model = prepare_model(model, task)
    scratch = tempfile.mkdtemp()
    analyzer = Analyzer("peers", model, task, cpu=True, output_dir=scratch, disable_tqdm=True)
    return analyzer, TensorDataset(*exchange.rows("train"))


def scores(loaded, validation):
    analyzer, train = loaded
    found = analyzer.compute_pairwise_scores(
        validation,
        options.method,
        TensorDataset(*exchange.rows(validation)),
        train,
        per_device_query_batch_size=BATCH,
        per_device_train_batch_size=BATCH,
        score_args=ScoreArguments(damping_factor=options.damping),
    )
    return analyzer.load_pairwise_scores(validation)["all_modules"] if found is None else found["all_modules"]


def first(loaded):
    analyzer, train = loaded
    analyzer.fit_all_factors(
        options.method, train, per_device_batch_size=BATCH, factor_args=FactorArguments(strategy=options.method)
    )
    return scores(loaded, "validation")


def second(loaded):
    return scores(loaded, "validation-new")


report(exchange, options.name, load, first, None if options.once else second)
