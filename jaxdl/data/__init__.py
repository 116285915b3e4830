"""Data: sources of examples, step-indexed pipelines, splits, and augmentation on the device.

The two catalogs below are read without importing anything; `jaxdl.catalog.find` imports what is chosen.
"""

from jaxdl.catalog import Entry

DATASETS: dict[str, Entry] = {
    # Embedded in scikit-learn: no download, no files.
    "digits": Entry("jaxdl.data.embedded", "Digits"),
    "iris": Entry("jaxdl.data.embedded", "Iris"),
    "wine": Entry("jaxdl.data.embedded", "Wine"),
    "breast_cancer": Entry("jaxdl.data.embedded", "BreastCancer"),
    "diabetes": Entry("jaxdl.data.embedded", "Diabetes"),
    # Any image-classification dataset of TensorFlow Datasets, by its name there.
    "tfds": Entry("jaxdl.data.tfds", "Tfds"),
    # Files of one's own, or in the layout in which their authors published them.
    "arrays": Entry("jaxdl.data.tables", "Arrays"),
    "csv": Entry("jaxdl.data.tables", "Csv"),
    "image_folder": Entry("jaxdl.data.image_folder", "ImageFolder"),
    "idx": Entry("jaxdl.data.files", "Idx"),
    "cifar10_binary": Entry("jaxdl.data.files", "Cifar10Binary"),
    # Images with sentences.
    "image_captions": Entry("jaxdl.data.image_captions", "ImageCaptions"),
    "idx_captions": Entry("jaxdl.data.image_captions", "IdxCaptions"),
    "cifar10_captions": Entry("jaxdl.data.image_captions", "Cifar10Captions"),
    "image_folder_captions": Entry("jaxdl.data.image_captions", "ImageFolderCaptions"),
    # Pairs of sequences.
    "addition": Entry("jaxdl.data.addition", "Addition"),
    "parallel_text": Entry("jaxdl.data.parallel_text", "ParallelText"),
    # A text's words and the words around them.
    "word_pairs": Entry("jaxdl.data.word_pairs", "WordPairs"),
    "cooccurrence": Entry("jaxdl.data.word_pairs", "Cooccurrence"),
    # Texts, as tokens.
    "text": Entry("jaxdl.data.text", "Text"),
    "tfds_text": Entry("jaxdl.data.text", "TfdsText"),
    "stdlib": Entry("jaxdl.data.text", "StandardLibrary"),
    "labelled_text": Entry("jaxdl.data.labelled_text", "LabelledText"),
    # Graphs.
    "planetoid": Entry("jaxdl.data.planetoid", "Planetoid"),
    "mutag": Entry("jaxdl.data.mutag", "Mutag"),
    "molecules": Entry("jaxdl.data.molecules", "Molecules"),
    # Environments to act in: what is drawn from them is drawn by the task.
    "cartpole": Entry("jaxdl.environments.cartpole", "CartPole"),
    "pendulum": Entry("jaxdl.environments.pendulum", "Pendulum"),
}

AUGMENTATIONS: dict[str, Entry] = {
    "flip": Entry("jaxdl.data.augmentation", "Flip"),
    "crop": Entry("jaxdl.data.augmentation", "Crop"),
    "resized_crop": Entry("jaxdl.data.augmentation", "ResizedCrop"),
    "grayscale": Entry("jaxdl.data.augmentation", "Grayscale"),
    "rotate": Entry("jaxdl.data.augmentation", "Rotate"),
    "color_jitter": Entry("jaxdl.data.augmentation", "ColorJitter"),
    "cutout": Entry("jaxdl.data.augmentation", "Cutout"),
    "elastic": Entry("jaxdl.data.augmentation", "Elastic"),
    "gaussian_noise": Entry("jaxdl.data.augmentation", "GaussianNoise"),
    "mixup": Entry("jaxdl.data.mixing", "Mixup"),
    "cutmix": Entry("jaxdl.data.mixing", "Cutmix"),
}
