"""What is optimised: the losses, metrics and figures of one kind of training each. Names to them: `TASKS`."""

from jaxdl.catalog import Entry

TASKS = {
    "classification": Entry("jaxdl.tasks.classification", "Classification"),
    "regression": Entry("jaxdl.tasks.regression", "Regression"),
    "sequence_to_sequence": Entry("jaxdl.tasks.sequence_to_sequence", "SequenceToSequence"),
    "language_modeling": Entry("jaxdl.tasks.language_modeling", "LanguageModeling"),
    "masked_language_modeling": Entry("jaxdl.tasks.masked_language_modeling", "MaskedLanguageModeling"),
    "ppo": Entry("jaxdl.tasks.ppo", "PPO"),
    "autoencoding": Entry("jaxdl.tasks.autoencoding", "Autoencoding"),
    "adversarial": Entry("jaxdl.tasks.adversarial", "Adversarial"),
    "diffusion": Entry("jaxdl.tasks.diffusion", "Diffusion"),
    "negative_sampling": Entry("jaxdl.tasks.embeddings", "NegativeSampling"),
    "contrastive": Entry("jaxdl.tasks.contrastive", "ContrastiveLearning"),
    "image_text": Entry("jaxdl.tasks.image_text", "ImageText"),
    "glove": Entry("jaxdl.tasks.embeddings", "GloVe"),
    "multi_label": Entry("jaxdl.tasks.multi_label", "MultiLabel"),
    "graph_classification": Entry("jaxdl.tasks.graphs", "GraphClassification"),
    "graph_regression": Entry("jaxdl.tasks.graphs", "GraphRegression"),
    "graph_multi_label": Entry("jaxdl.tasks.graphs", "GraphMultiLabel"),
    "node_classification": Entry("jaxdl.tasks.graphs", "NodeClassification"),
    "link_prediction": Entry("jaxdl.tasks.graphs", "LinkPrediction"),
}
