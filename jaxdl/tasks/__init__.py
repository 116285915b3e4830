"""What is optimised: the losses, metrics and figures of one kind of training each. Names to them: `TASKS`."""

from jaxdl.catalog import Entry

TASKS = {
    "classification": Entry("jaxdl.tasks.classification", "Classification"),
    "regression": Entry("jaxdl.tasks.regression", "Regression"),
    "sequence_to_sequence": Entry("jaxdl.tasks.sequence_to_sequence", "SequenceToSequence"),
    "language_modeling": Entry("jaxdl.tasks.language_modeling", "LanguageModeling"),
    "masked_language_modeling": Entry("jaxdl.tasks.masked_language_modeling", "MaskedLanguageModeling"),
    "negative_sampling": Entry("jaxdl.tasks.embeddings", "NegativeSampling"),
    "glove": Entry("jaxdl.tasks.embeddings", "GloVe"),
}
