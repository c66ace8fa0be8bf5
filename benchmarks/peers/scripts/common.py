"""What the peers' scripts share. Runs in their environment and imports nothing of ours.

An exchange folder has ``exchange.json`` (base, adapter, select, modules, max_length, labels), ``train.jsonl`` and the
validation files. A script scores the train rows for the first validation file, then for the second in the same
process, whatever its library can keep; it writes ``<name>.npy`` and ``<name>-new.npy``, both ``[Q, N]``, positive for
a proponent, and prints one line of JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

torch.set_num_threads(1)
# What wants more fails, and takes nothing else on the machine down with it.
resource.setrlimit(resource.RLIMIT_DATA, (12 << 30, 12 << 30))


class Exchange:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.facts = json.loads((self.folder / "exchange.json").read_text())
        self.labels = self.facts["labels"]

    def model(self):
        """In eval mode; only the selected weights require gradients."""
        base = AutoModelForSequenceClassification.from_pretrained(
            self.facts["base"], num_labels=len(self.labels), attn_implementation="eager"
        )
        adapter = self.facts["adapter"]
        model = base if adapter is None else PeftModel.from_pretrained(base, adapter)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.selected(name))
        return model.eval()

    def selected(self, name):
        if self.facts["select"] == "modules":
            return name.rpartition(".")[0] in self.facts["modules"]
        head = self.facts["select"] == "adapter_and_head" and "modules_to_save" in name
        return "lora_" in name or head

    def rows(self, name):
        """``input_ids`` and ``attention_mask``, ``[N, T]`` padded on the right, and ``labels``."""
        rows = [json.loads(line) for line in (self.folder / f"{name}.jsonl").read_text().splitlines()]
        tokenizer = AutoTokenizer.from_pretrained(self.facts["base"])
        encoded = tokenizer(
            [row["text"] for row in rows],
            truncation=True,
            max_length=self.facts["max_length"],
            padding=True,
            return_tensors="pt",
        )
        labels = torch.tensor([self.labels.index(row["label"]) for row in rows])
        return encoded["input_ids"], encoded["attention_mask"], labels

    def save(self, name, scores_QN):
        np.save(self.folder / f"{name}.npy", np.asarray(scores_QN, dtype=np.float64))


def report(exchange, name, load, first, second=None):
    """Time the loading and both scorings by the clock and of the processor, keep the scores, print all and the peak.

    ``first(loaded)`` and ``second(loaded)`` return ``[Q, N]``.
    """
    laps = [("start", STARTED, 0.0)]

    def lap(step):
        laps.append((step, time.perf_counter(), time.process_time()))

    lap("import")
    loaded = load()
    lap("load")
    exchange.save(name, first(loaded))
    lap("first")
    if second is not None:
        exchange.save(f"{name}-new", second(loaded))
        lap("second")
    pairs = list(zip(laps, laps[1:]))
    found = {
        "seconds": {step: wall - before[1] for before, (step, wall, _) in pairs},
        "processor_seconds": {step: processor - before[2] for before, (step, _, processor) in pairs},
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")
