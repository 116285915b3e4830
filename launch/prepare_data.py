"""Downloads and prepares a TFDS dataset, so that it can be trained on without TensorFlow.

    pip install 'jaxdl[tfds]'
    python -m launch.prepare_data --name=cifar10 --data_dir=DIR
    python -m launch.train --dataset=tfds --dataset.name=cifar10 --data_dir=DIR

It is the only command that needs TensorFlow. Exit status: 0 done; 1 the download or the preparation failed; 2 the
flags are wrong, or TensorFlow is missing.
"""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Sequence

from jaxdl.errors import InputError, RunError
from launch import cli


@dataclasses.dataclass(frozen=True)
class PrepareData:
    """Flags of this command.

    Attributes:
      name: the TFDS name: mnist, or name/config. https://www.tensorflow.org/datasets/catalog
      data_dir: where to put it; empty is ~/tensorflow_datasets.
    """

    name: str = ""
    data_dir: str = ""

    def run(self) -> None:
        """Prepares the dataset as array_record files.

        Raises:
          InputError: no such dataset, or TensorFlow is missing.
          RunError: the download or the preparation failed.
        """
        from jaxdl.data.tfds import check_name

        if not self.name:
            raise InputError("which dataset? --name=mnist, for example.")
        check_name(self.name)
        if importlib.util.find_spec("tensorflow") is None:
            raise InputError("preparing a dataset needs TensorFlow (reading it does not): pip install 'jaxdl[tfds]'")
        import tensorflow_datasets as tfds

        folder = str(pathlib.Path(self.data_dir).expanduser()) if self.data_dir else None
        try:
            builder = tfds.builder(self.name, data_dir=folder, file_format="array_record")
            builder.download_and_prepare()
        except Exception as error:  # network, disk, checksum, a missing package of the dataset's own
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise RunError(f"{self.name} could not be prepared: {reason}") from error
        print(f"{self.name} is ready in {builder.data_path}")
        flag = f" --data_dir={self.data_dir}" if self.data_dir else ""
        print(f"python -m launch.train --dataset=tfds --dataset.name={self.name}{flag}")


def main(argv: Sequence[str]) -> int:
    """Runs the command; gives back its exit status."""
    return cli.run_flags(PrepareData, argv, __doc__)


if __name__ == "__main__":
    cli.main(main)
