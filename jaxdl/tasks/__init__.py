"""What is optimised: the losses, metrics and figures of one kind of training each. Names to them: `TASKS`."""

from jaxdl.catalog import Entry

TASKS = {
    "classification": Entry("jaxdl.tasks.classification", "Classification"),
    "regression": Entry("jaxdl.tasks.regression", "Regression"),
}
