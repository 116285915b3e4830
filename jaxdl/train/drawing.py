"""The plots of a run that has ended: learning curves, whatever the task draws of the split that counts, and samples."""

import jax

from jaxdl.errors import InputError
from jaxdl.train.evaluation import Evaluator
from jaxdl.train.loop import Result
from jaxdl.train.program import Program
from jaxdl.train.record import RunDirectory, read_metrics
from jaxdl.train.settings import TrainerConfig


def draw(record: RunDirectory, program: Program, placement, trainer: TrainerConfig, result: Result) -> None:
    """Writes plots/ and samples/, and the same to TensorBoard, by the parameters of the step that counts."""
    from jaxdl import plots  # Matplotlib

    if jax.process_index() != 0:
        return
    curves = plots.learning_curves(read_metrics(record.path), program.task.selection[0], result.best_step)
    record.figure("learning_curves", curves, result.step)
    splits = program.data.splits
    split = next((name for name in ("test", "validation") if name in splits), "train")
    evaluator = Evaluator(program, placement, trainer.eval_batch_size or trainer.batch_size)
    figures = program.task.figures(evaluator.predictor(result.state), evaluator.host_batches(split), program.data)
    for name, figure in figures.items():
        record.figure(name, figure, result.step)
    _sample(record, program, result)


def _sample(record: RunDirectory, program: Program, result: Result) -> None:
    """Writes what the task's sampler gives by default; where that cannot be, such as for want of a prompt, says so."""
    if program.task.sampler is None:
        return
    variables = jax.device_get(program.variables(result.state))
    try:
        sampler, key = program.task.sampler(), jax.random.key(0)
        samples = program.task.sample(sampler, program.model, variables, program.data, key)
    except InputError as error:
        print(f"no samples: {error}")
        return
    for name, content in samples.items():
        record.sample(name, content, result.step)
