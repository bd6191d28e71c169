"""Run by tests/test_inspect.py with the Python of Inspect's own environment: a small task through Joulebox.

    inspect_task.py SERVER LOGS

Prints what the log holds of each sample, as JSON.
"""

import json
import sys

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, self_critique, system_message

from joulebox.bench.inspect_bridge import energy

server, logs = sys.argv[1:]
samples = [Sample(input=f"Question {number}?", target="a") for number in range(3)]
task = Task(
    dataset=samples,
    solver=[system_message("Be short."), generate(), self_critique()],
    scorer=[includes(), energy()],
    config=GenerateConfig(max_tokens=16, seed=3),
)
(log,) = inspect_ai.eval(task, model="joulebox/m1", model_base_url=server, log_dir=logs, display="none")
assert log.status == "success", log.error
assert log.samples is not None
assert log.results is not None
found = [
    {
        "receipts": sample.store["joulebox:receipts"],
        "energy": sample.scores["energy"].value if sample.scores else None,
        "told": sample.scores["energy"].explanation if sample.scores else None,
        "output": sample.output.metadata["joulebox"]["id"] if sample.output.metadata else None,
        "tokens": sample.output.usage.output_tokens if sample.output.usage else None,
    }
    for sample in log.samples
]
metrics = {one.name: {name: each.value for name, each in one.metrics.items()} for one in log.results.scores}
refused = inspect_ai.eval(
    task, model="joulebox/m1", model_base_url=server, log_dir=logs, display="none", top_p=0.5, limit=1
)[0]
print(json.dumps({"samples": found, "metrics": metrics, "refused": refused.error.message if refused.error else None}))
