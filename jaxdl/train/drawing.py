"""The plots of a run that has ended: learning curves, and whatever the task draws of the split that counts."""

import jax

from jaxdl.train.evaluation import Evaluator
from jaxdl.train.loop import Result
from jaxdl.train.program import Program
from jaxdl.train.record import RunDirectory, read_metrics
from jaxdl.train.settings import TrainerConfig


def draw(record: RunDirectory, program: Program, placement, trainer: TrainerConfig, result: Result) -> None:
    """Writes plots/ and the same images to TensorBoard, by the parameters of the step that counts."""
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
